"""Disintegration of linear-Gaussian models: the conditional as a diagram of Normal boxes.

From the joint state N(m, LLᵀ) of the given sites and those to keep, one site after another,
p(y_i | given, y_1 … y_{i−1}) = N(A x + b, RRᵀ), with the matrices as data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppcore.causal.disintegrate import Cut, site_space_of
from ppcore.causal.marginal import marginal
from ppcore.diagram import Diagram
from ppcore.dist import Description
from ppcore.exact.gaussian import solve_gaussian
from ppcore.exact.protocol import NotExact
from ppcore.recording.recorder import Recorder, recording
from ppcore.recording.sites import sample
from ppcore.recording.wire import Wire
from ppcore.semantics.gaussian_kernel import GaussianKernel, disintegrate, orthogonalise
from ppcore.space import Space


def linear(
    diagram: Diagram,
    data: Sequence[Any],
    given: Sequence[str],
    keep: Sequence[str],
    evidence: Mapping[str, Any] | None = None,
) -> Cut:
    """The conditional p(keep | given, evidence) of a linear-Gaussian model, and its data.

    Given sites enter behind the data, in the order of ``given``. Off the support of the given
    sites it is a continuous version of the conditional.

    Raises :class:`~ppcore.exact.protocol.NotExact` if a site is not affine in Gaussian noise, is an
    array of more than one axis, or is left no noise of its own in some direction only.
    """
    sites = [*given, *keep]
    spaces = {n: site_space_of(diagram, n) for n in sites}
    for name, space in spaces.items():
        if space.ndim > 1 or np.dtype(space.dtype).kind != "f":
            raise NotExact("gaussian", name, f"a linear conditional needs vectors, not {space}.")
    known = dict(evidence or {})
    state = solve_gaussian(marginal(diagram, [*sites, *known]), data, known).joint(*sites)
    at = sum(spaces[n].size for n in given)
    tables = []
    for name in keep:
        end = at + spaces[name].size
        part = GaussianKernel.state(state.mean[:end], state.factor[:end])
        tables.append(_parameters(name, disintegrate(part, at)[1]))
        at = end
    recorder = Recorder()
    with recording(recorder):
        rows = [[_wire(recorder, recorder.data_ref(a)) for a in t] for t in tables]
        wires = [recorder.add_input(spaces[n]) for n in given]
        outputs = []
        for name, (matrix, offset, root) in zip(keep, rows, strict=True):
            x = np.concatenate([w.reshape(-1) for w in wires])
            made = _draw(name, matrix @ x + offset, root, spaces[name])
            wires.append(made)
            outputs.append(made.ref)
    return recorder.freeze(outputs, tuple(keep)), tuple(a for t in tables for a in t)


def _wire(recorder: Recorder, ref: Any) -> Wire:
    return Wire(recorder, ref, recorder.space(ref))


def _parameters(name: str, kernel: GaussianKernel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, b, and the lower triangular R of N(Ax + b, RRᵀ)."""
    root = orthogonalise(kernel.factor)[0]
    root = root * np.where(np.diagonal(root) < 0, -1.0, 1.0)
    if root.any() and not np.diagonal(root).all():
        raise NotExact("gaussian", name, "some of its elements determine others, but not all.")
    return kernel.matrix, kernel.offset, root


def _draw(name: str, loc: Wire, root: Wire, space: Space) -> Wire:
    if space.shape:
        arguments = (("loc", loc), ("scale_tril", root))
        return sample(name, Description("dist", "MultivariateNormal", arguments))
    return sample(name, Description("dist", "Normal", (("loc", loc[0]), ("scale", root[0, 0]))))
