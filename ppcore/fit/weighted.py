"""Fits by engines that carry weighted populations: draws, evidence and diagnostics of weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ppcore.engine import Populated, Progress, Report
from ppcore.errors import PopulationError
from ppcore.fit.weights import LogEvidence, effective_size, k_hat, weights
from ppcore.population import Population
from ppcore.report import Health, assess
from ppcore.report.health import RHAT, enough
from ppcore.run.checks import EngineError, name_of
from ppcore.run.keys import Keys
from ppcore.run.loop import RunResult
from ppcore.run.plan import count
from ppcore.run.progress import show

FEW, K_HAT, LOOSE = 100, 0.7, 0.5
"""Warn below this effective size of a run's weights, above this k̂, above this error of log Z."""


def is_population(engine: Any) -> bool:
    """Whether an engine makes weighted populations."""
    return hasattr(engine, "populate") and not hasattr(engine, "block")


@dataclass(frozen=True)
class Drawn:
    """Equally weighted draws with what they were made from.

    Attributes
    ----------
    result : RunResult
    population : Population
        All runs as one population of chains · draws particles, each run with the weight of its
        evidence; NumPy arrays.
    evidence : LogEvidence
    health : Health
    about : dict
        JSON-able: per run log_z, effective size and k̂ of the weights, statistics of the steps.
    """

    result: RunResult
    population: Population
    evidence: LogEvidence
    health: Health
    about: dict[str, Any]


def draw(
    engine: Any,
    target: Any,
    draws: int | None,
    chains: int | None,
    seed: int,
    progress: Any,
    name: Callable[[int], str],
) -> Drawn:
    """Run ``engine`` ``chains`` times with ``draws`` particles each, and resample.

    Each chain of the fit holds N draws from its run's N weighted particles, by systematic
    resampling: ⌊N W_i⌋ or ⌈N W_i⌉ copies of particle i, in the order of the particles, so that
    duplicates and relatives stand together and lower the effective sample size. The merged
    population weighs run r by Ẑ_r / Σ Ẑ, so that it is proper as the runs are.

    Source for the resampling: Carpenter, Clifford & Fearnhead 1999, doi:10.1049/ip-rsn:19990255.
    """
    began = time.perf_counter()
    runs = count("chains", engine.default_chains if chains is None else chains)
    n = count("draws", engine.default_draws if draws is None else draws)
    keys, made, first = Keys(seed), [], 0.0
    with show(progress, 1) as report:
        for r in range(runs):
            tell = _numbered(report, r, runs)
            made.append(_checked(engine, engine.populate(keys.block(r), target, n, tell), target))
            first = first or time.perf_counter() - began
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x5E1EC7]))
    x = np.stack([_equal(rng, one.population, n) for one in made])
    ended = time.perf_counter()
    sizes = [effective_size(one.population) for one in made]
    k_hats = [k_hat(one.population) for one in made]
    evidence = _evidence(made)
    result = RunResult(
        x=x,
        stats={},
        tuned=None,
        gradients={"warmup": 0, "sampling": sum(int(one.gradients) for one in made)},
        notes=tuple(dict.fromkeys(note for one in made for note in one.notes)),
        timings={
            "warmup_seconds": 0.0,
            "first_draw_seconds": first,
            "sampling_seconds": ended - began,
            "total_seconds": ended - began,
        },
    )
    health = assess(x, {}, name)
    complaints = _complaints(sizes, k_hats, evidence, n)
    warnings = (*complaints, *_disagreement(health, runs, n))
    about = {
        "log_z": [float(one.population.log_z) for one in made],
        "ess": sizes,
        "k_hat": k_hats,
        "steps": [_plain(one.stats) for one in made],
    }
    return Drawn(result, _merged(made), evidence, replace(health, warnings=warnings), about)


def _numbered(report: Report, run: int, runs: int) -> Report:
    """Reports that say which of the runs they are about."""

    def tell(progress: Progress) -> None:
        report(replace(progress, phase=f"run {run + 1} of {runs}, {progress.phase}"))

    return tell


def _checked(engine: Any, made: Populated, target: Any) -> Populated:
    """The population on the host, if it can be one."""
    old = made.population
    population = Population(*(np.asarray(leaf) for leaf in (old.x, old.log_weight, old.log_z)))
    who, n = name_of(engine), len(population.x)
    if population.x.shape != (n, target.dim) or population.log_weight.shape != (n,):
        raise EngineError(
            f"{who} returned particles of shape {population.x.shape} with weights of shape "
            f"{population.log_weight.shape}; expected [N, {target.dim}] and [N]."
        )
    if not np.isfinite(population.x).all() or np.isnan(population.log_weight).any():
        raise EngineError(f"{who} returned particles or weights that are not finite numbers.")
    if not np.isfinite(population.log_z) or not np.isfinite(population.log_weight.max()):
        raise PopulationError(
            f"{who} ended with all weights zero: no particle reached a region where the model "
            "can have produced the data. Use more particles (draws=...), or more temperatures.",
            population,
            "the end",
            1.0,
        )
    return replace(made, population=population)


def _equal(rng: np.random.Generator, population: Population, n: int) -> np.ndarray:
    """``n`` draws by systematic resampling; as they are if the weights are equal."""
    if len(population.x) == n and np.ptp(population.log_weight) == 0:
        return np.asarray(population.x)
    edges = np.cumsum(weights(population))
    index = np.searchsorted(edges, (np.arange(n) + rng.random()) / n, side="right")
    return np.asarray(population.x[np.minimum(index, len(edges) - 1)])


def _evidence(made: list[Populated]) -> LogEvidence:
    log_z = np.array([float(one.population.log_z) for one in made])
    ratio = np.exp(log_z - log_z.max())
    value = float(log_z.max() + np.log(ratio.mean()))
    found = []
    if len(made) > 1:
        found.append(float(ratio.std(ddof=1) / ratio.mean() / len(made) ** 0.5))
    within = [one.log_z_error for one in made if one.log_z_error is not None]
    if len(within) == len(made):
        found.append(float(np.sqrt(np.mean(np.square(within)) / len(made))))
    return LogEvidence(value, max(found) if found else None)


def _merged(made: list[Populated]) -> Population:
    log_z = np.array([float(one.population.log_z) for one in made])
    parts = [
        np.log(weights(one.population) + 1e-300) + z for one, z in zip(made, log_z, strict=True)
    ]
    log_weight = np.concatenate(parts)
    total = log_z.max() + np.log(np.exp(log_z - log_z.max()).mean())
    x = np.concatenate([one.population.x for one in made])
    return Population(x, log_weight - log_weight.max(), np.asarray(total))


def _complaints(
    sizes: list[float], k_hats: list[float | None], evidence: LogEvidence, n: int
) -> list[str]:
    """What the weights say against the draws, each with what to do."""
    found = []
    worst = int(np.argmin(sizes))
    if sizes[worst] < min(FEW, 0.5 * n):
        found.append(
            f"The weights of run {worst} are worth {sizes[worst]:.0f} of {n} particles, so its "
            f"draws repeat a few of them. Use more particles (draws={4 * n}), or an engine that "
            "goes in smaller steps (smc)."
        )
    known = [(k, r) for r, k in enumerate(k_hats) if k is not None]
    if known and max(known)[0] > K_HAT:
        k, r = max(known)
        found.append(
            f"Pareto k-hat of the weights of run {r} is {k:.2f}, above {K_HAT}: a few particles "
            "carry the estimate, and its error cannot be judged. Go in more, smaller steps (smc, "
            "or ais with more temperatures), or start from a reference nearer to the posterior."
        )
    if evidence.error is not None and evidence.error > LOOSE:
        found.append(
            f"The log evidence is known to ± {evidence.error:.2f} only. Use more particles "
            f"(draws={4 * n}) or more runs (chains=...)."
        )
    return found


def _disagreement(health: Health, runs: int, n: int) -> list[str]:
    """What the comparison of the runs says against the draws."""
    found = []
    if health.rhat is not None and runs > 1 and health.rhat[1] > RHAT:
        name, value = health.rhat
        found.append(
            f"R-hat between the {runs} independent runs is {value:.3f}, above {RHAT}, worst for "
            f"{name}: single runs miss a part of the posterior, or hold too few distinct "
            f"particles. Use more particles (draws={4 * n}) or longer moves."
        )
    if health.ess is not None and health.ess[1] < enough(runs):
        name, value = health.ess
        found.append(
            f"The effective sample size of {name} is {value:.0f}, below {enough(runs)}, because "
            f"draws share ancestors. Use more particles (draws={2 * n}) or longer moves."
        )
    return found


def _plain(stats: dict[str, Any]) -> dict[str, list[float]]:
    return {name: np.asarray(value, float).ravel().tolist() for name, value in stats.items()}
