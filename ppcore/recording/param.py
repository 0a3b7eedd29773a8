"""``pp.param``: a free parameter, a site without a prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppcore.diagram import Box, Diagram
from ppcore.dist import Description, lookup
from ppcore.errors import ModelError
from ppcore.recording.recorder import require, user_line
from ppcore.recording.sites import describe_site
from ppcore.recording.template import to_template
from ppcore.recording.wire import Wire
from ppcore.space import Space
from ppcore.supports import outside

REAL = Description("constraints", "real", ())


def param(name: str, init: Any, support: Description | None = None) -> Wire:
    """A free parameter: a site that every value of its support is equally good for.

    It contributes nothing to the density, so ``fit_mle()`` and ``fit_map()`` estimate it, and
    sampling engines treat it as having a flat (improper) prior; forward simulation needs a value
    for it (``model.do(name=value)``). Models with parameters compose like all others.

    Parameters
    ----------
    name : str
        The site's name, unique in the model.
    init : array
        Where optimisation starts; its shape is the site's, in plates too (one array for all).
    support : constraint, optional
        From :mod:`ppcore.dist` (``dist.constraints.positive``); by default the whole line.

    Raises
    ------
    ModelError
        ``init`` is random, not a number, or outside the support; or the site is inside a scan.

    >>> import ppcore as pp
    >>> from ppcore import dist
    >>> @pp.model
    ... def waiting(n):
    ...     rate = pp.param("rate", 1.0, dist.constraints.positive)
    ...     with pp.plate("i", n):
    ...         pp.sample("t", dist.Exponential(rate))
    >>> fit = waiting(3).observe(t=[1.0, 2.0, 6.0]).fit_mle()
    >>> round(float(fit.estimates["rate"]), 6)
    0.333333
    """
    recorder = require("param")
    if recorder.parent is not None:
        raise ModelError(
            f"{user_line()}: pp.param({name!r}, …) is inside a scan, where it would be another "
            "parameter in every step. Declare it outside; the step can use it."
        )
    if isinstance(init, Wire):
        raise ModelError(f"{user_line()}: the start of pp.param({name!r}, …) is random.")
    start = np.asarray(init, float)
    support = REAL if support is None else support
    if not isinstance(support, Description) or support.kind != "constraints":
        raise ModelError(
            f"{user_line()}: pp.param({name!r}, …): the support is a constraint such as "
            f"dist.constraints.positive, not {support!r}."
        )
    full = recorder.claim(name)
    lookup("constraints", support.name)
    given = {"support": support, "batch_shape": (), "event_shape": start.shape}
    template = to_template(Description("dist", "ImproperUniform", tuple(given.items())), _nothing)
    info = describe_site(full, template, ())
    space = Space(start.shape, info.dtype, info.support)
    bad = outside(start, space.support)
    if bad is not None:
        raise ModelError(
            f"{user_line()}: pp.param({name!r}, …) starts at {bad}, outside its support "
            f"({space.support})."
        )
    ref = recorder.data_ref(start)
    # The start enters on a wire that the density does not read, so that another start is the same
    # program.
    spec = (template, (), start.ndim, False)
    box = Box("sample", (recorder.space(ref),), (space,), spec=spec, name=full)
    (wire,) = recorder.add(box, (ref,))
    recorder.sites.append((full, wire.ref))
    return wire


def _nothing(value: Any) -> None:
    return None


def starts(diagram: Diagram, inputs: Sequence[Any]) -> dict[str, np.ndarray]:
    """{parameter: where its optimisation starts} of a diagram at values of its inputs."""
    return {
        str(node.box.name): np.asarray(inputs[node.inputs[0]])
        for node in diagram.nodes
        if node.box.op == "sample"
        and not node.box.spec[3]
        and len(node.inputs) == 1
        and node.inputs[0] < len(diagram.dom)
        and node.box.dom[0].shape == node.box.cod[0].shape
    }
