"""Independent components of a posterior, each drawn in its own cheapest way, and put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ppcore.model_target import ModelTarget
from ppcore.planner import importance
from ppcore.planner.rewriting import Prepared
from ppcore.rewrite import lattice_draws
from ppcore.rewrite.components import Join, components, part
from ppcore.rewrite.protocol import Problem


@dataclass(frozen=True, eq=False)
class Parts:
    """Components that have been taken off, and what is left.

    Attributes
    ----------
    left : Prepared
        The components that need chains, if any, with the draws of the others as recovery.
    reason : str
    gradients : int
    error : float
        Standard error of the log evidence of those taken off.
    """

    left: Prepared
    reason: str
    gradients: int
    error: float


def solve_parts(prepared: Prepared, alone: Callable[..., Any]) -> Parts | None:
    """Every component by its own cheapest way; those that need chains stay together.

    ``alone(prepared, passed=list)`` gives the choice for one component, or None. None if the target
    is whole, or if all of it needs chains.
    """
    whole = Problem(prepared.target.diagram, tuple(prepared.target.inputs))
    found = components(whole)
    if len(found) < 2:
        return None
    easy: list[tuple[Any, Any]] = []
    hard: list[tuple[Any, Any]] = []
    said: list[str] = []
    gradients = 0
    for one in found:
        target = _target(one.problem)
        choice = alone(replace(prepared, origin=target, target=target, applied=()), passed=said)
        taken = choice is not None and choice.engine is None
        gradients += choice.gradients if choice is not None else 0
        (easy if taken else hard).append((one, choice))
        if taken:
            assert choice is not None
            said.append(f"{', '.join(one.problem.latents)}: {choice.plan.choice}")
    if not easy:
        return None
    sites = frozenset(n for one, _ in hard for n in one.problem.latents)
    rest = part(whole, sites, constants=any(one is found[0] for one, _ in hard))
    join = Join(rest.at, np.concatenate([one.at for one, _ in easy]))
    log_z = float(np.sum([log_evidence(choice) for _, choice in easy]))
    done = prepared.rewriting
    left = replace(
        prepared,
        target=_target(rest.problem),
        rewriting=replace(
            done, recoveries=(*done.recoveries, join), log_constant=done.log_constant + log_z
        ),
        samplers=(*prepared.samplers, Together(tuple(choice for _, choice in easy))),
    )
    reason = f"{len(found)} independent components ({'; '.join(said)})"
    error = float(np.linalg.norm([log_evidence_error(choice) for _, choice in easy]))
    return Parts(left, reason, gradients, error)


@dataclass(frozen=True)
class Together:
    """Draws of several components, each by its own choice."""

    choices: tuple[Any, ...]

    def __call__(self, rng: np.random.Generator, chains: int, draws: int) -> np.ndarray:
        """float[chains, draws, coordinates of all]."""
        return np.concatenate([coordinates(c, rng, chains, draws) for c in self.choices], axis=-1)


def coordinates(choice: Any, rng: np.random.Generator, chains: int, draws: int) -> np.ndarray:
    """Draws of a choice by quadrature or importance: float[chains, draws, d]."""
    if choice.lattice is not None:
        x = lattice_draws.draw(choice.evaluate, choice.lattice, rng, chains * draws)
        return x.reshape(chains, draws, -1)
    made = choice.sampled
    if made is None or made.x.shape[:2] != (chains, draws):
        made = importance.sample(choice.evaluate, rng, choice.mixture, chains, draws)
    return np.asarray(made.x)


def log_evidence(choice: Any) -> float:
    """log Z of a choice by quadrature or importance; 0 in a preview of the latter."""
    if choice.lattice is not None:
        return float(choice.lattice.log_z)
    return 0.0 if choice.sampled is None else float(choice.sampled.log_evidence)


def log_evidence_error(choice: Any) -> float:
    """The standard error of :func:`log_evidence`."""
    if choice.lattice is not None:
        return float(choice.lattice.error)
    return 0.0 if choice.sampled is None else float(choice.sampled.log_evidence_error)


def _target(problem: Problem) -> ModelTarget:
    return ModelTarget(problem.diagram, (), problem.data, ())
