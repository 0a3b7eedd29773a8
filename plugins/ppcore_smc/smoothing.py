"""What a particle filter knows of a model: evidence, filtered and smoothed laws, draws of paths."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.errors import ModelError, PopulationError, SettingsError, did_you_mean
from ppcore.semantics.batched import simulate_many
from ppcore.stages.resampling import SCHEMES
from ppcore.state_space import StateSpace, Values
from ppcore_smc.ffbsi import backward_paths
from ppcore_smc.filtering import Filtered, Proposal, run_filter, traced
from ppcore_smc.lineage import lineage_variance

FEW = 100.0


@dataclass(frozen=True)
class FilterSettings:
    """Static settings of the runs; hashable."""

    particles: int
    runs: int
    scheme: str
    threshold: float
    backward: bool
    log_bound: float | None


@dataclass(frozen=True, eq=False)
class WeightedPath:
    """The law of a site step by step, as weighted particles.

    Attributes
    ----------
    values : array[T, N, *shape]
    weights : float[T, N]
        Normalised at every step.
    """

    values: np.ndarray
    weights: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """float[T, *shape]."""
        return np.einsum("tn,tn...->t...", self.weights, self.values.astype(float))

    @property
    def variance(self) -> np.ndarray:
        """float[T, *shape]."""
        off = np.square(self.values.astype(float) - self.mean[:, None])
        return np.einsum("tn,tn...->t...", self.weights, off)


class ParticleSolution:
    """p(sites | evidence) by particles; the filter runs when draws are first asked for.

    Attributes
    ----------
    solver : str
    sites : tuple of str
    log_evidence, log_evidence_error : float
        log of the mean Ẑ of the runs, and its standard error from their spread.
    ess : float[runs, T]
        Of the filters' weights.
    """

    def __init__(
        self, name: str, space: StateSpace, proposal: Proposal, settings: FilterSettings
    ) -> None:
        self.solver, self.space, self.proposal, self.settings = name, space, proposal, settings
        names = space.joint.output_names
        self.sites = tuple(str(n) for n in names if n is not None and n not in space.observed)
        self._filtered: Filtered | None = None
        self._drawn: dict[str, np.ndarray] = {}

    def sample(self, key: Any, n: int) -> dict[str, np.ndarray]:
        """``n`` draws of all sites: {site: array[n, *shape]}.

        Runs are drawn by Ẑ, paths from their smoothing laws; sites that are computed, or lie
        behind the scan, follow from them.

        Raises :class:`ppcore.errors.PopulationError` if all weights vanish at some step.
        """
        k_filter, k_paths, k_after, k_learn = jax.random.split(key, 4)
        runs = self.settings.runs
        each = -(-n // runs)
        if hasattr(self.proposal, "learn"):
            self.proposal = self.proposal.learn(k_learn, self.space)
        filtered, ok = _filters(self.settings, self.proposal, self.space, k_filter)
        self._check(np.asarray(ok))
        self._filtered = jax.tree.map(np.asarray, filtered)
        paths, broken = _paths(self.settings, each, k_paths, filtered)
        if bool(np.any(broken)):
            raise SettingsError(
                f"log_bound={self.settings.log_bound!r} is exceeded by a transition density, so "
                "rejection would draw from another law. Raise it, or leave it out."
            )
        latent = {s: np.asarray(v)[:n] for s, v in paths.items()}
        self._drawn = completed(self.space, self.sites, latent, k_after, n)
        return self._drawn

    def _check(self, alive: np.ndarray) -> None:
        if not alive.all(axis=1).any():
            step = int(np.argmin(alive[0]))
            if self.space.plan.chain.box.spec.reverse and step:
                step = self.space.length + 1 - step
            where = f"step {step - 1} of the scan" if step else "the start"
            raise PopulationError(
                f"At {where} all {self.settings.particles} weights vanish, in every run: no "
                "particle can have produced the evidence there. Use more particles, a guided "
                "proposal, or check the data at that step.",
                stage=where,
            )

    @property
    def filtered_runs(self) -> Filtered:
        """The histories of all runs, leading axis runs."""
        if self._filtered is None:
            raise ModelError("The filter has not run yet: call sample(key, n) first.")
        return self._filtered

    @property
    def log_evidence(self) -> float:
        log_z = np.asarray(self.filtered_runs.log_z)
        return float(np.logaddexp.reduce(log_z) - np.log(len(log_z)))

    @property
    def log_evidence_error(self) -> float:
        log_z = np.asarray(self.filtered_runs.log_z)
        if len(log_z) > 1:
            ratio = np.exp(log_z - log_z.max())
            return float(ratio.std(ddof=1) / ratio.mean() / len(log_z) ** 0.5)
        return float(self.lineage_error[0])

    @property
    def lineage_error(self) -> np.ndarray:
        """Standard error of each run's log Ẑ, from its families: float[runs]."""
        steps = self.filtered_runs.steps
        ends = (steps.cloud.root[:, -1], steps.cloud.log_weight[:, -1], steps.resampled.sum(1))
        return np.sqrt([lineage_variance(*end) for end in zip(*ends, strict=True)])

    @property
    def ess(self) -> np.ndarray:
        return 1.0 / np.exp(2.0 * self.filtered_runs.steps.cloud.log_weight).sum(-1)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        s = self.settings
        how = "drawn backwards" if s.backward else "traced through their ancestors"
        said = f"Paths of {s.runs} runs of {s.particles} particles, {how} (solver: {self.solver})."
        return (said,)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the weights say against the draws."""
        least = self.ess.min(axis=0)
        worst = int(np.argmin(least))
        found = []
        if least[worst] < min(FEW, 0.1 * self.settings.particles):
            found.append(
                f"The effective sample size falls to {least[worst]:.0f} of "
                f"{self.settings.particles} particles at step {worst}. Use more particles, or "
                "proposal='guided'."
            )
        if self.log_evidence_error > 1.0:
            found.append(
                f"The log evidence is known to ± {self.log_evidence_error:.2f} only: a few runs "
                "carry the draws. Use more particles."
            )
        return tuple(found)

    def filtered(self, site: str) -> WeightedPath:
        """The law of a step's site given the evidence up to and including that step.

        Raises :class:`ppcore.errors.ModelError` for a site that no step draws.
        """
        runs = self.filtered_runs
        if site not in runs.steps.values:
            hint = did_you_mean(site, runs.steps.values)
            raise ModelError(f"No step of the scan draws a site {site!r}. {hint}")
        # A run's weight at step t is its evidence up to there.
        log_z = np.asarray(runs.start.log_z)[:, None] + np.cumsum(runs.steps.increment, axis=1)
        log_w = np.asarray(runs.steps.cloud.log_weight) + log_z[..., None]
        log_w = np.moveaxis(log_w, 0, 1).reshape(self.space.length, -1)
        w = np.exp(log_w - log_w.max(1, keepdims=True))
        values = np.moveaxis(np.asarray(runs.steps.values[site]), 0, 1)
        values = values.reshape(self.space.length, -1, *values.shape[3:])
        turned = self.space.turned((values, w / w.sum(1, keepdims=True)))
        return WeightedPath(*turned)

    def marginal(self, site: str) -> WeightedPath:
        """The draws of a site as equally weighted particles, [T, N, ...]; T = 1 for no path."""
        if site not in self.sites:
            hint = did_you_mean(site, self.sites)
            raise ModelError(f"The model has no unobserved site {site!r}. {hint}")
        return drawn_law(self.space, site, self._drawn[site])


def completed(
    space: StateSpace, sites: tuple[str, ...], latent: dict[str, np.ndarray], key: Any, n: int
) -> dict[str, np.ndarray]:
    """All ``sites`` of ``n`` draws: those computed, or behind the scan, given the latent ones."""
    if not set(sites) - set(latent):
        return {s: latent[s] for s in sites}
    evidence = zip(space.observed, space.evidence, strict=True)
    given = {s: np.broadcast_to(np.asarray(v), (n, *np.shape(v))) for s, v in evidence}
    made = simulate_many(space.joint, space.data, {**latent, **given}, key, n)
    return {s: latent[s] if s in latent else np.asarray(made[s]) for s in sites}


def drawn_law(space: StateSpace, site: str, values: np.ndarray) -> WeightedPath:
    """Draws [N, ...] as equally weighted particles: [T, N, ...], T = 1 for a site of no step."""
    values = np.moveaxis(values, 0, 1) if site in space.plan.states else values[None]
    return WeightedPath(values, np.full(values.shape[:2], 1.0 / values.shape[1]))


@partial(jax.jit, static_argnums=0)
def _filters(
    settings: FilterSettings, proposal: Proposal, space: StateSpace, key: Any
) -> tuple[Filtered, Any]:
    """All runs one after the other, and which steps left anybody alive: bool[runs, T + 1]."""
    s = settings

    def one(k: Any) -> Filtered:
        return run_filter(k, space, {}, s.particles, proposal, s.scheme, s.threshold)

    found = jax.lax.map(one, jax.random.split(key, s.runs))
    parts = jnp.concatenate([found.start.log_z[:, None], found.steps.increment], axis=1)
    return found, jnp.isfinite(parts)


@partial(jax.jit, static_argnums=(0, 1))
def _paths(settings: FilterSettings, each: int, key: Any, runs: Filtered) -> tuple[Values, Any]:
    """``each`` paths from every slot; slots are given to runs in proportion to Ẑ."""
    k_slots, k_paths = jax.random.split(key)
    slots = SCHEMES["systematic"](k_slots, jax.nn.softmax(runs.log_z))

    def one(slot: Any) -> Any:
        k, run = slot
        filtered = jax.tree.map(lambda a: a[run], runs)
        space = filtered.start.ground.space
        broken = jnp.asarray(False)
        if settings.backward:
            paths, broken = backward_paths(k, filtered, each, settings.log_bound)
        else:
            last = jax.random.categorical(k, filtered.last.log_weight, shape=(each,))
            first, inside = jax.vmap(lambda i: traced(filtered, i))(last)
            before = {site: v[first] for site, v in filtered.start.values.items()}
            paths = {**before, **inside}
        states = set(space.plan.states)
        found = {n: jax.vmap(space.turned)(v) if n in states else v for n, v in paths.items()}
        return found, broken

    paths, broken = jax.lax.map(one, (jax.random.split(k_paths, settings.runs), slots))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), paths), broken
