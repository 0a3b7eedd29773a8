"""The planner's sequence: the cheapest way to the posterior whose result can be checked."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ppcore import registry
from ppcore.errors import PluginError
from ppcore.planner import importance, parts, pilot
from ppcore.planner.plan import Plan
from ppcore.planner.programs import CHAINS, WALKERS, Counting, Values, evaluator
from ppcore.planner.rewriting import Prepared
from ppcore.report.diagnostics import diagnose
from ppcore.rewrite import quadrature
from ppcore.rewrite.laplace_within import Blocks, LaplaceWithin, blocks
from ppcore.rewrite.sites import told

IMPORTANCE_UP_TO = 40
"""Coordinates up to which a Gaussian is tried; weights degenerate with more."""

TEMPERED = "smc"
RHAT, SMALL = 1.01, 400
POOR = 0.1
"""Effective share below which a latent normal block is better integrated than fitted."""

TRIES, NESTED = 3, 512
"""Proposals that get all the draws; draws of a round where each is an optimisation."""

GAUSSIAN = ("Normal", "MultivariateNormal")


@dataclass(frozen=True, eq=False)
class Choice:
    """A plan, and what carries it out: a solution, a proposal, or an engine's name.

    Attributes
    ----------
    plan : Plan
    solution : Solution or None
        "exact": the model solved.
    lattice : Lattice or None
        "quadrature": the density on a lattice.
    mixture : Mixture or None
        "importance": the proposal that passed its certificate.
    evaluate : callable or None
        The target's program, for either.
    sampled : Sampled or None
        "importance": draws that passed the certificate; None in a preview.
    parts : Parts or None
        What is left where components have been taken off.
    engine : str or None
        What samples the rewritten target otherwise.
    gradients : int
        Evaluations spent so far.
    """

    plan: Plan
    solution: Any = None
    lattice: Any = None
    evaluate: Any = None
    mixture: Any = None
    sampled: Any = None
    parts: Any = None
    engine: str | None = None
    gradients: int = 0


def choose(
    prepared: Prepared,
    rng: np.random.Generator,
    key: Any,
    rows: tuple[int, int] | None = None,
    walk: bool = False,
) -> Choice:
    """Decide how to draw from a prepared target; the precision's scope must be entered.

    Parameters
    ----------
    prepared : Prepared
    rng, key
        For starts and proposals.
    rows : (int, int), optional
        Chains and draws; without them it is a preview, and nothing is drawn but pilots.
    walk : bool
        Only Markov chains will do, because the run is to be saved block by block.

    Raises
    ------
    StartError
        If no finite log density is found.
    PluginError
        If nothing else applies and no Markov chain engine is installed.
    """
    target, passed = prepared.target, []
    solved = _exact(prepared)
    if solved is not None:
        return Choice(_plan(prepared, "exact", f"solved by {solved.solver}.", ()), solved)
    if target.dim == 0:
        return Choice(
            _plan(prepared, "exact", "every site is integrated out and drawn from its law.", ())
        )
    if walk:
        passed.append("all but chains: the run is saved block by block")
    else:
        alone = partial(_alone, rng=rng, key=key, rows=rows)
        taken = parts.solve_parts(prepared, alone) if prepared.split else None
        if taken is not None:
            engine = walker() if taken.left.target.dim else None
            reason = taken.reason + (f", {engine} for the rest." if engine else ".")
            plan = _plan(taken.left, engine or "components", reason, ())
            return Choice(plan, engine=engine, parts=taken, gradients=taken.gradients)
        found = alone(prepared, passed=passed)
        if found is not None:
            return found
    engine = walker()
    reason = f"Markov chains on {target.dim} coordinates, since nothing cheaper can be certified."
    return Choice(_plan(prepared, engine, reason, passed), engine=engine)


def _alone(
    prepared: Prepared,
    rng: np.random.Generator,
    key: Any,
    rows: tuple[int, int] | None,
    passed: list[str],
) -> Choice | None:
    """Quadrature, importance or tempering, for what is one piece."""
    dim = prepared.target.dim
    if dim <= quadrature.AT_MOST:
        found = _by_quadrature(prepared, passed)
        if found is not None:
            return found
    if dim > IMPORTANCE_UP_TO:
        passed.append(f"importance: {dim} coordinates are more than {IMPORTANCE_UP_TO}")
        return None
    return _by_importance(prepared, rng, key, rows, passed)


# No draw of a seed enters a lattice, so that it serves every fit of a model.
_lattices: weakref.WeakKeyDictionary[Prepared, tuple[Values, quadrature.Lattice]] = (
    weakref.WeakKeyDictionary()
)


def _by_quadrature(prepared: Prepared, passed: list[str]) -> Choice | None:
    try:
        if prepared not in _lattices:
            evaluate = Values(prepared.target)
            _lattices[prepared] = evaluate, quadrature.integrate(evaluate, prepared.target.dim)
        evaluate, lattice = _lattices[prepared]
    except quadrature.NoQuadrature as error:
        passed.append(f"quadrature: {error}")
        return None
    reason = (
        f"independent draws; {prepared.target.dim} coordinates on {len(lattice.cells):,} points, "
        f"whose last halving moved log Z by {lattice.error:.0e}."
    )
    plan = _plan(prepared, "quadrature", reason, passed)
    return Choice(plan, lattice=lattice, evaluate=evaluate, gradients=lattice.evaluations)


def _by_importance(
    prepared: Prepared,
    rng: np.random.Generator,
    key: Any,
    rows: tuple[int, int] | None,
    passed: list[str],
) -> Choice | None:
    target = prepared.target
    evaluate = Counting(evaluator(target))
    seen = pilot.explore(evaluate, rng, key, target, CHAINS)
    if not seen.bumps:
        passed.append("importance: no climb ended at a mode with a definite Hessian")
        return None
    modes = len(seen.bumps)
    latent = blocks(target) if hasattr(target, "diagram") else None
    least = importance.HOPELESS if latent is None else POOR
    mixture, certificate = importance.fit(evaluate, rng, seen.bumps, least=least)
    sampled = None
    if certificate.promising and rows is not None:
        # What looked good on the pilot's draws has to hold for all of them.
        for _ in range(TRIES):
            sampled = importance.sample(evaluate, rng, mixture, *rows)
            certificate = sampled.certificate
            if certificate.good and agree(sampled.x):
                break
            mixture = sampled.refitted
        else:
            sampled = None
            passed.append(f"importance: no proposal passed on all draws ({certificate})")
    elif not certificate.good:
        passed.append(f"importance: {certificate}")
    if sampled is not None or (rows is None and certificate.good):
        several = f"; {modes} modes" if modes > 1 else ""
        reason = f"independence chains over a fitted mixture ({certificate}{several})."
        plan = _plan(prepared, "importance", reason, passed)
        return Choice(
            plan, evaluate=evaluate, mixture=mixture, sampled=sampled, gradients=evaluate.rows
        )
    nested = None if latent is None else _within(target, latent, rng, seen.bumps, rows, passed)
    if nested is not None:
        plan = _plan(prepared, "laplace_within", nested[0], passed)
        return Choice(plan, sampled=nested[1], gradients=evaluate.rows)
    if pilot.separated(evaluate, seen.bumps):
        passed.append(f"climbs ended at {modes} modes with a valley between them")
        if TEMPERED in registry.catalog().engines and target.has_reference:
            reason = f"{modes} modes, between which chains may not travel: tempered from the prior."
            return Choice(_plan(prepared, TEMPERED, reason, passed), engine=TEMPERED)
    return None


def _within(
    target: Any,
    parts_of: Blocks,
    rng: np.random.Generator,
    bumps: tuple[Any, ...],
    rows: tuple[int, int] | None,
    passed: list[str],
) -> tuple[str, importance.Sampled | None] | None:
    """The latent Gaussian block by its Laplace approximation, corrected by weights."""
    inner = LaplaceWithin(target, parts_of, bumps[0].mean[parts_of.inner])
    outer = [
        importance.Bump(
            b.mean[parts_of.outer],
            np.linalg.cholesky((b.factor @ b.factor.T)[np.ix_(parts_of.outer, parts_of.outer)]),
            b.log_mass,
        )
        for b in bumps
    ]
    mixture, certificate = importance.fit(inner.marginal, rng, outer, NESTED)
    sampled = None
    if certificate.good and rows is not None:
        n = rows[0] * (rows[1] + 1)
        h = mixture.draw(rng, n)
        x, _, level, normal = inner.propose(h, rng.standard_normal((n, len(parts_of.inner))))
        level = np.where(np.isfinite(level), level, -np.inf)
        log_weight = level - normal - mixture.log_density(h)
        sampled = importance.walk(rng, x, level, log_weight, mixture, *rows)
        certificate = sampled.certificate
        if not agree(sampled.x):
            passed.append(f"laplace_within: chains over its proposals disagree ({certificate})")
            return None
    if not certificate.good:
        passed.append(f"laplace_within: {certificate}")
        return None
    size = len(parts_of.inner)
    return (
        f"{size} latent coordinates by Laplace approximation, corrected ({certificate}).",
        sampled,
    )


def agree(x: np.ndarray) -> bool:
    """Whether chains float[chains, draws, d] pass the bounds that warnings are given at."""
    if x.shape[1] < 4:
        return True
    found = diagnose(x)
    few = x.shape[0] * x.shape[1] < 10 * SMALL
    return bool(np.nanmax(found.rhat) < RHAT and (few or np.nanmin(found.ess_bulk) > SMALL))


def walker() -> str:
    """The Markov chain engine to use.

    Raises :class:`~ppcore.errors.PluginError` if none is installed.
    """
    known = registry.catalog().engines
    for name in WALKERS:
        if name in known and registry.unavailable(known[name]) is None:
            return name
    raise PluginError(
        f"The planner needs one of the engines {', '.join(WALKERS)}, and none is installed and "
        "allowed. Name another: infer('NAME')."
    )


def _exact(prepared: Prepared) -> Any:
    """The solution of a model all of whose latent sites are finite, or linear-Gaussian."""
    origin = prepared.origin
    if not hasattr(origin, "joint"):
        return None
    solvers = _solvers(origin)
    if not solvers:
        return None
    from ppcore.exact import NotExact, solve

    evidence = dict(zip(origin.observed, origin.evidence, strict=True))
    try:
        return solve(origin.joint, origin.data, evidence, solvers)
    except NotExact:
        return None


def _solvers(origin: Any) -> tuple[str, ...]:
    """Those worth trying, read off the families of the sites; nothing is traced."""
    boxes = [b for b in origin.joint.boxes() if b.op in ("sample", "factor")]
    latent = [b for b in boxes if b.op == "sample" and b.name not in origin.observed]
    if latent and all(b.cod[0].support.discrete for b in latent):
        return ("forward_backward", "tensor")
    inside = any(b.op == "scan" for b in origin.joint.boxes())
    families = {told(b).family for b in boxes if b.op == "sample"}
    if (
        inside
        and latent
        and families <= set(GAUSSIAN)
        and len(boxes) == len(latent) + len(origin.observed)
    ):
        return ("kalman",)
    return ()


def _plan(prepared: Prepared, choice: str, reason: str, passed: Any) -> Plan:
    dims = prepared.origin.dim, prepared.target.dim
    return Plan(choice, reason, prepared.applied, tuple(passed), dims, prepared.seconds)
