"""The planner's sequence: the cheapest way to the posterior whose result can be checked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ppcore import registry
from ppcore.errors import PluginError
from ppcore.planner import importance, pilot
from ppcore.planner.plan import Plan
from ppcore.planner.rewriting import Prepared
from ppcore.report.diagnostics import diagnose
from ppcore.rewrite import quadrature
from ppcore.rewrite.sites import told
from ppcore.target import value_and_gradient

CHAINS, ROWS = 64, 512
IMPORTANCE_UP_TO = 40
"""Coordinates up to which a Gaussian is tried; weights degenerate with more."""

WALKERS = ("ensemble", "nuts")
"""Markov chain engines in the order of preference."""

TEMPERED = "smc"
RHAT, SMALL = 1.01, 400
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
    evaluate : callable or None
        The target's program ("quadrature").
    sampled : Sampled or None
        "importance": draws that passed the certificate; None in a preview.
    engine : str or None
        What samples the rewritten target otherwise.
    gradients : int
        Evaluations spent so far.
    """

    plan: Plan
    solution: Any = None
    lattice: Any = None
    evaluate: Any = None
    sampled: Any = None
    engine: str | None = None
    gradients: int = 0


class Counting:
    """An evaluation that counts its rows."""

    def __init__(self, evaluate: Any) -> None:
        self.inner, self.rows = evaluate, 0

    def __call__(self, x: np.ndarray) -> tuple[Any, Any]:
        self.rows += len(x)
        return self.inner(x)  # type: ignore[no-any-return]


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
    elif target.dim <= quadrature.AT_MOST and (found := _by_quadrature(prepared, passed)):
        return found
    elif target.dim > IMPORTANCE_UP_TO:
        passed.append(f"importance: {target.dim} coordinates are more than {IMPORTANCE_UP_TO}")
    else:
        found = _by_importance(prepared, rng, key, rows, passed)
        if found is not None:
            return found
    engine = walker()
    reason = f"Markov chains on {target.dim} coordinates, since nothing cheaper can be certified."
    return Choice(_plan(prepared, engine, reason, passed), engine=engine)


def _by_quadrature(prepared: Prepared, passed: list[str]) -> Choice | None:
    evaluate = Values(prepared.target)
    try:
        lattice = quadrature.integrate(evaluate, prepared.target.dim)
    except quadrature.NoQuadrature as reason:
        passed.append(f"quadrature: {reason}")
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
    mixture, certificate = importance.fit(evaluate, rng, seen.bumps)
    sampled = None
    if certificate.good and rows is not None:
        # What looked good on the pilot's draws has to hold for all of them.
        for _ in range(2):
            sampled = importance.sample(evaluate, rng, mixture, *rows)
            certificate, mixture = sampled.certificate, sampled.refitted
            if certificate.good and agree(sampled.x):
                break
        else:
            sampled = None
            passed.append(f"importance: chains over its proposals disagree ({certificate})")
    elif not certificate.good:
        passed.append(f"importance: {certificate}")
    if sampled is not None or (rows is None and certificate.good):
        several = f"; {modes} modes" if modes > 1 else ""
        reason = f"independence chains over a fitted mixture ({certificate}{several})."
        plan = _plan(prepared, "importance", reason, passed)
        return Choice(plan, sampled=sampled, gradients=evaluate.rows)
    if pilot.separated(evaluate, seen.bumps):
        passed.append(f"climbs ended at {modes} modes with a valley between them")
        if TEMPERED in registry.catalog().engines and target.has_reference:
            reason = f"{modes} modes, between which chains may not travel: tempered from the prior."
            return Choice(_plan(prepared, TEMPERED, reason, passed), engine=TEMPERED)
    return None


def agree(x: np.ndarray) -> bool:
    """Whether chains float[chains, draws, d] pass the bounds that warnings are given at."""
    if x.shape[1] < 4:
        return True
    found = diagnose(x)
    few = x.shape[0] * x.shape[1] < 10 * SMALL
    return bool(np.nanmax(found.rhat) < RHAT and (few or np.nanmin(found.ess_bulk) > SMALL))


def evaluator(target: Any) -> Any:
    """log γ and its gradient at rows: by the chains' own program where the engine offers it."""
    name = next((w for w in WALKERS if w in registry.catalog().engines), None)
    engine = registry.engine(name) if name is not None else None
    if hasattr(engine, "evaluator"):
        return engine.evaluator(target, CHAINS)  # type: ignore[union-attr]
    return Batched(target)


class Values:
    """log γ, ``ROWS`` rows at a time."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def __call__(self, x: np.ndarray) -> np.ndarray:
        padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % ROWS, axis=0)])
        parts = padded.reshape(-1, ROWS, x.shape[1]).astype(np.result_type(float))
        made = [_log_density()(self.target, part) for part in parts]
        return np.concatenate([np.asarray(m) for m in made])[: len(x)]


@cache
def _log_density() -> Any:
    import jax

    return jax.jit(lambda target, x: jax.vmap(target.log_density)(x))


@cache
def _with_gradient() -> Any:
    import jax

    return jax.jit(value_and_gradient)


class Batched:
    """log γ and its gradient, ``CHAINS`` rows at a time."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % CHAINS, axis=0)])
        made = [
            _with_gradient()(self.target, part)
            for part in padded.reshape(-1, CHAINS, x.shape[1]).astype(np.result_type(float))
        ]
        value, gradient = (np.concatenate([np.asarray(m[i]) for m in made]) for i in (0, 1))
        return value[: len(x)], gradient[: len(x)]


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
