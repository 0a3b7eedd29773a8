"""Adaptive annealing: temperatures by the effective sample size, moves tuned by the population."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import contract as rules
from ppcore.contract import Contract, ProperlyWeighted
from ppcore.errors import SettingsError, did_you_mean
from ppcore.kernel import check_kernel, needs, step_rules
from ppcore.paths import Path, data_path
from ppcore.population import Population, reweight
from ppcore.settings import check_between, check_count
from ppcore.stages.anneal import WAYS
from ppcore.stages.base import Stage
from ppcore.stages.resampling import SCHEMES, check_scheme
from ppcore.stages.tuned import Bounds, Moved, Spread, bounds, crossed, halved, tuned_moves, whole
from ppcore.stages.waste_free import chain_count, trail

METRICS = ("auto", "dense", "diagonal")
DENSE_UP_TO = 256
HALVINGS = 50
SMALLEST_GROWTH = 1e-4
MOST_STEPS = 2000


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Front:
    """How far a population has come.

    Attributes
    ----------
    population : Population
    change : pytree of arrays [N, ...]
        ``path.change`` of each particle.
    beta : float[]
        The inverse temperature.
    log_step : float[]
        Step size of the next moves.
    root : int[N]
        The first ancestor of each particle.
    count : int[]
        Temperatures so far.
    gradients : float[]
        Evaluations of the target so far, with gradient or without.
    ess : float[]
        Effective size of the weights at the last temperature, before resampling.
    acceptance, jump : float[]; moves : int[]
        Of the last moves; see :class:`ppcore.stages.tuned.Moved`.
    """

    population: Population
    change: Any
    beta: Any
    log_step: Any
    root: Any
    count: Any
    gradients: Any
    ess: Any
    acceptance: Any
    jump: Any
    moves: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Chosen:
    """Ancestors at the next temperature, and what their moves need to know.

    Attributes
    ----------
    x : float[M, d]
    root : int[N]
    beta, log_z, ess : float[]
    about : Spread
        For each half of the particles, that of the other.
    """

    x: Any
    root: Any
    beta: Any
    log_z: Any
    ess: Any
    about: Spread


@dataclass(frozen=True)
class AdaptiveAnneal(Stage):
    """Each temperature where the weights have lost a share of their worth; moves that fit it.

    b_{k+1} is the largest b with ESS(W γ_b/γ_{b_k}) ≥ ``ess`` · ESS(W), by bisection; then the
    particles are resampled and moved for γ_{b_{k+1}} by ``move``, preconditioned by their own
    covariance, with step and number of transitions found by
    :func:`ppcore.stages.tuned.tuned_moves`. Because the schedule depends on the particles,
    evidence and weights have a bias of O(1/N).

    Parameters
    ----------
    move : Kernel
        With ``parameters(preconditioner, step, length)``.
    ess : float
        Share of the effective sample size that each temperature keeps.
    scheme : str
        Resampling; see :class:`ppcore.stages.resampling.Resample`.
    least, most : int
        Bounds on the transitions at each temperature.
    enough : float
        Jump of the slowest coordinate, of 1 for independence, after which no more are made.
    waste_free : int
        Above 1: N/waste_free ancestors, all waste_free states of whose chains are kept.
    length : float
        Trajectory length in whitened time, for kernels that have one.
    metric : "auto", "dense" or "diagonal"
    by : "temperature" or "data"
    start : float

    Source: Jasra, Stephens, Doucet & Tsagaris 2011, doi:10.1111/j.1467-9469.2010.00723.x;
    Buchholz, Chopin & Jacob 2021, arXiv:1808.07730; Beskos, Jasra, Kantas & Thiery 2016,
    arXiv:1306.6462, for the bias.
    """

    move: Any
    ess: float = 0.5
    scheme: str = "systematic"
    least: int = 1
    most: int = 20
    enough: float = 0.7
    waste_free: int = 1
    length: float = 1.5707963
    metric: str = "auto"
    by: str = "temperature"
    start: float = 0.0

    def __post_init__(self) -> None:
        check_kernel(self.move, "AdaptiveAnneal")
        check_between("ess", self.ess, 0, 1)
        check_scheme(self.scheme)
        check_count("least", self.least, 1)
        check_count("most", self.most, self.least)
        check_between("enough", self.enough, 0, 1)
        check_count("waste_free", self.waste_free, 1)
        check_between("start", self.start, -1e-12, 1)
        for name, value, known in (("metric", self.metric, METRICS), ("by", self.by, WAYS)):
            if value not in known:
                raise SettingsError(
                    f"{name}={value!r} is not known. {did_you_mean(str(value), known)}"
                )
        rules.stages(self.move.contract)

    @property
    def end(self) -> float:  # type: ignore[override]
        return 1.0

    @property
    def needs(self) -> tuple[str, ...]:
        return (*needs(self.move), *(("parts",) if self.by == "data" else ()))

    @property
    def contract(self) -> Contract:
        return rules.stages(ProperlyWeighted(unbiased_evidence=False), self.move.contract)

    def path(self, path: Path) -> Path:
        """The path to walk: ``path``, or the one that takes in its target's data."""
        return data_path(path.target) if self.by == "data" else path

    def begin(self, path: Path, population: Population) -> Front:
        """The front at ``start``."""
        dtype, n = population.x.dtype, population.size
        rule = step_rules(self.move)
        first = rule[0].first if rule else None
        if first is None:
            first = 0.5 * population.x.shape[1] ** -0.25
        zero = jnp.zeros((), dtype)
        return Front(
            population=population,
            change=jax.vmap(path.change)(population.x),
            beta=zero + self.start,
            log_step=zero + jnp.log(jnp.asarray(first, dtype)),
            root=jnp.arange(n),
            count=jnp.zeros((), jnp.int32),
            gradients=jnp.zeros(()) + n,
            ess=zero + n,
            acceptance=zero,
            jump=zero,
            moves=jnp.zeros((), jnp.int32),
        )

    def choose(self, key: Any, gauge: Any, front: Front) -> Chosen:
        """The next temperature, its weights, and the ancestors; knows nothing of the model."""
        old = front.population
        weight = old.log_weight
        beta = next_temperature(gauge, front.change, weight, front.beta, self.ess)
        index, root, weighed = self.resampled(key, gauge, front, beta)
        dense = self.metric == "dense" or (
            self.metric == "auto" and old.x.shape[1] <= min(DENSE_UP_TO, old.size)
        )
        x = old.x[index]
        about = crossed(x, weighed.ess / self.waste_free, dense)
        return Chosen(x, root, beta, weighed.log_z, weighed.ess, about)

    def rechosen(self, key: Any, gauge: Any, front: Front, beta: Any, about: Spread) -> Chosen:
        """As :meth:`choose`, at a temperature and on a scale that are known already."""
        index, root, weighed = self.resampled(key, gauge, front, beta)
        x = front.population.x[index]
        return Chosen(x, root, beta, weighed.log_z, weighed.ess, about)

    def resampled(
        self, key: Any, gauge: Any, front: Front, beta: Any
    ) -> tuple[Any, Any, Population]:
        """Ancestors, the first ancestors of what they become, and the weights at ``beta``."""
        old = front.population
        log_g = jax.vmap(lambda c: gauge.log_ratio(c, front.beta, beta))(front.change)
        # An undefined likelihood is an impossible one, as it is for every Metropolis test.
        weighed = reweight(old, jnp.where(jnp.isnan(log_g), -jnp.inf, log_g))
        key = jax.random.fold_in(key, 2 * front.count)
        index = SCHEMES[self.scheme](key, weighed.weights, chain_count(old.size, self.waste_free))
        return index, jnp.repeat(front.root[index], self.waste_free), weighed

    @property
    def bounds(self) -> Bounds:
        """Those of its moves; with waste-free chains, of the few that only find the step."""
        if self.waste_free > 1:
            return bounds(2, 2)
        return bounds(self.least, self.most, self.enough)

    def move_all(
        self,
        key: Any,
        path: Path,
        front: Front,
        chosen: Chosen,
        given: Any,
        rule: Bounds | None = None,
    ) -> Front:
        """The front at the next temperature, its ancestors moved; by ``bounds`` if not ``rule``."""
        key = jax.random.fold_in(key, 2 * front.count + 1)
        rule = self.bounds if rule is None else rule
        moved = self._moved(key, path.at(chosen.beta), front.log_step, chosen, given, rule)
        x = moved.x.astype(front.population.x.dtype)
        n = x.shape[0]
        return Front(
            population=Population(x, jnp.zeros(n, x.dtype), chosen.log_z),
            change=jax.vmap(path.change)(x),
            beta=chosen.beta,
            log_step=moved.log_step,
            root=chosen.root,
            count=front.count + 1,
            gradients=front.gradients + n + moved.gradients,
            ess=chosen.ess,
            acceptance=moved.acceptance,
            jump=moved.jump,
            moves=moved.moves,
        )

    def advance(self, key: Any, path: Path, front: Front, given: Any = None) -> Front:
        """One temperature further; ``given`` is a preconditioner to use in place of theirs."""
        chosen = self.choose(key, path.gauge, front)
        return self.move_all(key, path, front, chosen, given)

    def _moved(
        self, key: Any, law: Any, log_step: Any, chosen: Chosen, given: Any, bounds: Bounds
    ) -> Moved:
        x, kernel, about = chosen.x, self.move, chosen.about
        if given is not None:
            both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), given)
            about = Spread(about.mean, both)

        def parameters(step: Any, about: Spread) -> Any:
            if hasattr(kernel, "parameters_about"):
                return kernel.parameters_about(about.mean, about.preconditioner, step)
            if hasattr(kernel, "parameters"):
                length = jnp.asarray(self.length, x.dtype)
                return kernel.parameters(about.preconditioner, step, length)
            return ()

        rule = step_rules(kernel)
        goal = rule[0].target_accept if rule else None
        if self.waste_free == 1:
            return tuned_moves(key, kernel, law, x, parameters, about, log_step, goal, bounds)
        # A few transitions to find the step, thrown away, then the chains that are kept.
        k_pilot, k_trail = jax.random.split(key)
        pilot = tuned_moves(k_pilot, kernel, law, x, parameters, about, log_step, goal, bounds)

        def half(keys: Any, x: Any, about: Spread) -> Any:
            params = parameters(jnp.exp(pilot.log_step), about)
            return jax.vmap(lambda k, v: trail(k, kernel, law, v, params, self.waste_free))(keys, x)

        parts = halved(x)
        keys = jax.random.split(k_trail, parts.shape[:2])
        states, spent = (whole(v, x.shape[0]) for v in jax.vmap(half)(keys, parts, about))
        return replace(
            pilot,
            x=states.reshape(-1, x.shape[1]),
            moves=jnp.asarray(self.waste_free - 1, jnp.int32),
            gradients=pilot.gradients + spent.sum(),
        )

    def along(self, key: Any, path: Path, at: Any, population: Population) -> Population:
        path = self.path(path)
        done = jax.lax.while_loop(
            unfinished,
            lambda front: self.advance(key, path, front),
            self.begin(path, population),
        )
        return done.population

    def __call__(self, key: Any, source: Any, target: Any, population: Population) -> Population:
        if self.by == "temperature":
            return super().__call__(key, source, target, population)
        return self.along(key, data_path(target), self.start, population)


def unfinished(front: Front) -> Any:
    """Whether there is a temperature to go to, and a particle alive to go there; bool[]."""
    alive = ~jnp.isneginf(front.population.log_z)
    return (front.beta < 1.0) & (front.count < MOST_STEPS) & alive


def next_temperature(gauge: Any, change: Any, log_weight: Any, beta: Any, share: float) -> Any:
    """The largest b ≤ 1 at which ESS ≥ share · (ESS of the particles that can live at all).

    Bisected in log(b − beta), since a vague prior may ask for a first step of 1e-30.

    Parameters
    ----------
    change : pytree of arrays [N, ...]
        ``path.change`` of each particle.
    log_weight : float[N]
    beta : float[]
    share : float
    """

    def size(b: Any) -> Any:
        log_g = jax.vmap(lambda c: gauge.log_ratio(c, beta, b))(change)
        w = jax.nn.softmax(jnp.where(jnp.isnan(log_g), -jnp.inf, log_weight + log_g))
        return 1.0 / jnp.sum(w**2)

    one = jnp.ones_like(beta)
    whole = jax.vmap(lambda c: gauge.log_ratio(c, beta, one))(change)
    alive = jax.nn.softmax(jnp.where(jnp.isfinite(whole), log_weight, -jnp.inf))
    goal = share / jnp.sum(alive**2)
    tiny = 1e-200 if jnp.dtype(beta.dtype) == jnp.float64 else 1e-30
    low = jnp.log(jnp.maximum(SMALLEST_GROWTH * beta, tiny))
    high = jnp.log(jnp.maximum(one - beta, tiny))

    def halve(_: Any, ends: tuple[Any, Any]) -> tuple[Any, Any]:
        low, high = ends
        middle = 0.5 * (low + high)
        fits = size(beta + jnp.exp(middle)) >= goal
        return jnp.where(fits, middle, low), jnp.where(fits, high, middle)

    low, _ = jax.lax.fori_loop(0, HALVINGS, halve, (low, high))
    return jnp.where(size(one) >= goal, one, jnp.minimum(beta + jnp.exp(low), one))
