"""Reparameterise: hierarchical normal sites centred, non-centred or in between, as the data say.

For θ_j ~ N(μ, τ) the coordinate z_j ~ N(λ_j μ, τ^λ_j), with θ_j = μ + τ^(1−λ_j) (z_j − λ_j μ),
gives θ the same law whatever λ_j is. If the data tell I_j about θ_j (in units of 1/θ²), the
posterior of z_j decorrelates from (μ, τ) near λ_j = I_j τ² / (1 + I_j τ²): 0 suits data that say
little, 1 data that say all. In non-centred coordinates the posterior variance of z_j is
s_j² = 1 / (1 + I_j τ²), so λ_j = 1 − s_j². A pilot finds s_j: the Gaussian with independent
coordinates that is nearest to the posterior. (A mode would not do: where τ may grow while every z_j
shrinks, it says nothing of τ.)

Source: Papaspiliopoulos, Roberts & Sköld 2007, doi:10.1214/088342307000000014; Betancourt &
Girolami 2013, arXiv:1312.0906; the pilot: Kucukelbir et al. 2017, arXiv:1603.00788.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from ppcore import precision
from ppcore.compiled import jit
from ppcore.diagram import Hole
from ppcore.recording.template import Structure
from ppcore.rewrite.coordinates import Back, Change, changed
from ppcore.rewrite.protocol import NotApplicable, Problem, Rewritten
from ppcore.rewrite.sites import has_labels, told
from ppcore.semantics.log_density import layout, log_density_records
from ppcore.tuning.lbfgs import Paths, climb

FAMILIES = ("Normal", "LogNormal")
LITTLE, MUCH = 0.1, 0.9
DRAWS, CALLS = 64, 150


@dataclass(frozen=True)
class Reparameterise:
    """Choose λ for every element of each hierarchical normal or log-normal site.

    A plate is non-centred if no element has λ above ``LITTLE``, left centred if none is below
    ``MUCH``, and partially centred otherwise.

    >>> Reparameterise().name
    'reparameterise'
    """

    name: str = "reparameterise"
    summary: str = "hierarchical sites centred, non-centred or in between, by a pilot"

    def apply(self, problem: Problem) -> Rewritten | NotApplicable:
        """The problem in the chosen coordinates, or why none are to be chosen."""
        if has_labels(problem.diagram):
            return NotApplicable("discrete sites are summed out")
        found = hierarchical(problem)
        if not found:
            return NotApplicable("no normal site has a location or scale that is random")
        trial = changed(problem, found)
        centred = information_ratios(trial, tuple(found))
        chosen: dict[str, Change] = {}
        said = []
        for site, change in found.items():
            ratio = centred[site].reshape(change.centred.shape)
            if ratio.min() > MUCH:
                said.append(f"{site} stays centred")
                continue
            ratio = np.where(ratio.max() < LITTLE, 0.0, ratio)
            chosen[site] = replace(change, centred=ratio)
            how = "non-centred" if not ratio.any() else f"partially centred ({_range(ratio)})"
            said.append(f"{site} {how}")
        if not chosen:
            return NotApplicable("; ".join(said))
        after = changed(problem, chosen)
        dtype = problem.diagram.wires[problem.diagram.outputs[0]].dtype
        values = tuple(np.asarray(c.centred, dtype) for c in chosen.values())
        back = Back(problem.diagram, tuple(chosen), problem.data, values)
        return Rewritten(after, back, "; ".join(said))


def _range(ratio: np.ndarray) -> str:
    low, high = float(ratio.min()), float(ratio.max())
    return f"{low:.2f}" if high - low < 0.01 else f"{low:.2f} to {high:.2f}"


def hierarchical(problem: Problem) -> dict[str, Change]:
    """Non-centred changes of the sites whose location or scale is random."""
    random = [False] * len(problem.diagram.dom)
    found: dict[str, Change] = {}
    for node in problem.diagram.nodes:
        box = node.box
        depends = any(random[w] for w in node.inputs)
        if box.op == "sample" and depends and isinstance(box.spec[0], Structure):
            said = told(box)
            loc, scale = said.arguments.get("loc", 0.0), said.arguments.get("scale", 1.0)
            plain = not any(isinstance(t, Structure) for t in (loc, scale))
            from_random = any(isinstance(t, Hole) for t in (loc, scale))
            if said.family in FAMILIES and not said.masks and plain and from_random:
                zero = np.zeros(box.cod[0].shape)
                found[str(box.name)] = Change(str(box.name), said.family, loc, scale, zero)
        plain_box = box.deterministic and box.body is None
        random.extend([depends or not plain_box] * len(box.cod))
    return found


def information_ratios(problem: Problem, sites: tuple[str, ...]) -> dict[str, np.ndarray]:
    """λ = 1 − s² of every element of ``sites``, in which the problem must be non-centred.

    Maximises E_q log γ + Σ log s over q = N(m, diag s²), the expectation over ``DRAWS`` fixed
    antithetic draws; 0 where no start is usable.
    """
    where = layout(problem.diagram)
    rng = np.random.default_rng(0)
    half = rng.standard_normal((DRAWS // 2, where.dim))
    noise = np.concatenate([half, -half])
    with precision.scope("float64"):
        program = _gradient(problem.diagram)

        def bound(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            m, log_s = np.split(rows[0], 2)
            s = np.exp(np.clip(log_s, -20.0, 5.0))
            value, gradient = (np.asarray(v) for v in program(problem.data, m + s * noise))
            slope = (gradient * noise).mean(0) * s + 1.0
            total = value.mean() + log_s.sum()
            return np.array([total]), np.concatenate([gradient.mean(0), slope])[None]

        for spread in (0.1, 0.01, 1.0):
            start = np.concatenate([np.zeros(where.dim), np.full(where.dim, np.log(spread))])[None]
            with np.errstate(all="ignore"):
                value, gradient = bound(start)
            if np.isfinite(value).all() and np.isfinite(gradient).all():
                break
        else:
            return {site: np.zeros(where.sizes[where.names.index(site)]) for site in sites}
        path = Paths(start, value, gradient)
        with np.errstate(all="ignore"):
            climb(bound, path, CALLS)
    variance = np.exp(2 * path.x[0, where.dim :])
    return {site: np.clip(1 - variance[where.slices[site]], 0.0, 1.0) for site in sites}


@lru_cache(maxsize=16)
def _gradient(diagram: Any) -> Any:
    import jax

    def log_density(x: Any, data: Any) -> Any:
        records = log_density_records(diagram, data, x)
        return sum(r["log_prob"] for r in records.values() if "log_prob" in r)

    both = jax.value_and_grad(log_density)
    return jit(lambda data, x: jax.vmap(both, (0, None))(x, data))
