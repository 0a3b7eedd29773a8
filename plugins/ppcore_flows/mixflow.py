"""MixFlows: the average of a law carried along by repeated, nearly measure-preserving maps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import Contract, Density, importance
from ppcore.engine import Populated, Progress, Report
from ppcore.errors import UnsupportedError
from ppcore.population import Population, equally_weighted, require_alive, reweight
from ppcore.settings import check_between, check_count
from ppcore.stages import Stage
from ppcore.tuning.noise import spawned
from ppcore_flows.linear import Whiten
from ppcore_flows.measure_preserving import Stir, log_logistic, logit, parts
from ppcore_flows.start import explore
from ppcore_flows.training import require_smooth

STEPS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Step sizes to choose from by the bound on the evidence."""
CHUNK, CHECKED = 16, 64


@partial(jax.tree_util.register_dataclass, data_fields=["base", "map"], meta_fields=["length"])
@dataclass(frozen=True)
class MixFlow:
    """q(y) = (1/N) Σ_{n<N} q_0(T⁻ⁿ(y)) |det ∂T⁻ⁿ(y)|, for y = (v, ρ, u).

    Normalised, and one draws from it: y_0 ~ q_0, n uniform, y = Tⁿ(y_0). As N grows it tends to the
    target in total variation, where T preserves the target and is ergodic.

    Attributes
    ----------
    base : Normalised
        The law of x in q_0; ρ is logistic and u uniform.
    map : Stir
        T.
    length : int
        N.

    Source: Xu, Chen & Campbell 2022, arXiv:2205.07475.

    >>> from ppcore.target import DensityTarget
    >>> from ppcore_flows.bases import Gaussian
    >>> target = DensityTarget(lambda x, data: -0.5 * jnp.sum(x**2), 1)
    >>> frame = Whiten(jnp.zeros(1), jnp.eye(1))
    >>> flow = MixFlow(Gaussian(1), Stir(target, frame, 0.5, 4), 3)
    >>> flow.sample(jax.random.key(0), 5).shape
    (5, 3)
    """

    base: Any
    map: Stir
    length: int
    contract: ClassVar[Contract] = Density()

    @property
    def dim(self) -> int:
        """2d + 1."""
        return self.map.dim

    def start(self, key: Any, n: int) -> Any:
        """``n`` draws of q_0: float[n, 2d + 1]."""
        k_base, k_lift = random.split(key)
        return self.lifted(k_lift, self.base.sample(k_base, n))

    def lifted(self, key: Any, x: Any) -> Any:
        """``x`` (float[n, d]) in the coordinates of the frame, with draws of ρ and u."""
        k_rho, k_time = random.split(key)
        v = jax.vmap(lambda x: self.map.frame.inverse(x)[0])(x)
        c = random.uniform(k_rho, v.shape, v.dtype)
        u = random.uniform(k_time, (x.shape[0], 1), v.dtype)
        return jnp.concatenate([v, logit(c), u], axis=1)

    def log_start(self, y: Any) -> Any:
        """log q_0(y)."""
        v, rho, u = parts(y)
        x, log_det = self.map.frame.forward(v)
        inside = jnp.where((u >= 0) & (u < 1), 0.0, -jnp.inf)
        return self.base.log_prob(x) + log_det + jnp.sum(log_logistic(rho)) + inside

    def sample(self, key: Any, n: int) -> Any:
        """``n`` independent draws; float[n, 2d + 1]."""
        k_start, k_which = random.split(key)
        which = random.randint(k_which, (n,), self.length)

        def step(y: Any, i: Any) -> tuple[Any, None]:
            moved = jax.vmap(lambda y: self.map.forward(y)[0])(y)
            return jnp.where((i < which)[:, None], moved, y), None

        return jax.lax.scan(step, self.start(k_start, n), jnp.arange(self.length - 1))[0]

    def log_prob(self, y: Any) -> Any:
        """log q(y); float[2d + 1] -> float[]."""

        def step(carry: tuple[Any, Any], _: Any) -> tuple[tuple[Any, Any], Any]:
            y, total = carry
            term = self.log_start(y) + total
            y, log_det = self.map.inverse(y)
            return (y, total + log_det), term

        begin = (y, jnp.zeros((), y.dtype))
        (y, total), terms = jax.lax.scan(step, begin, None, self.length - 1)
        last = self.log_start(y) + total
        return jax.nn.logsumexp(jnp.append(terms, last)) - jnp.log(self.length)

    def along(self, y: Any) -> tuple[Any, Any]:
        """All N points Tⁿ(y) of a start y, with their log q: float[N, 2d + 1], float[N].

        log q(y_n) = log Σ_{m=n−N+1}^{n} q_0(y_m) e^{S_m} − S_n − log N, S the sum of the
        log-determinants from y_0: with N − 1 steps each way, every density is known.
        """

        def onward(carry: tuple[Any, Any], _: Any) -> tuple[Any, Any]:
            y, total = carry
            y, log_det = self.map.forward(y)
            return (y, total + log_det), (y, total + log_det)

        def back(carry: tuple[Any, Any], _: Any) -> tuple[Any, Any]:
            y, total = carry
            y, log_det = self.map.inverse(y)
            # log_det is that of T⁻¹, so S falls by that of T.
            return (y, total + log_det), (y, total + log_det)

        count, begin = self.length - 1, (y, jnp.zeros((), y.dtype))
        _, (after, rise) = jax.lax.scan(onward, begin, None, count)
        _, (before, fall) = jax.lax.scan(back, begin, None, count)
        points = jnp.concatenate([before[::-1], y[None], after])
        sums = jnp.concatenate([fall[::-1], begin[1][None], rise])
        terms = jax.vmap(self.log_start)(points) + sums
        window = jnp.arange(self.length)
        log_q = jax.nn.logsumexp(terms[window[:, None] + window], axis=1)
        return points[count:], log_q - sums[count:] - jnp.log(self.length)

    def inversion_error(self, y: Any) -> Any:
        """|T^{−(N−1)}(T^{N−1}(y)) − y|_∞, of time by the circle; float[]."""

        def there(y: Any, _: Any) -> tuple[Any, None]:
            return self.map.forward(y)[0], None

        def back(y: Any, _: Any) -> tuple[Any, None]:
            return self.map.inverse(y)[0], None

        count = self.length - 1
        end = jax.lax.scan(back, jax.lax.scan(there, y, None, count)[0], None, count)[0]
        gap = jnp.abs(end - y)
        gap = gap.at[-1].set(jnp.minimum(gap[-1], 1.0 - gap[-1]))
        return jnp.where(jnp.isfinite(gap).all(), jnp.max(gap), jnp.inf)


@dataclass(frozen=True)
class MixFlowImportance:
    """Weighted points of a :class:`MixFlow`, w = γ(v) m(ρ)/q(v, ρ, u); E[Ẑ] = Z.

    q_0 is the mixture of Gaussians where climbs end. From every y_0 ~ q_0 all N points Tⁿ(y_0) are
    kept: any one of them, n uniform, follows q, and 2(N − 1) applications of T give all their
    densities. The step size is the one of a few with the largest bound E_q[log w], on points that
    are thrown away.

    T is chaotic, so that T⁻ᴺ(Tᴺ(y)) leaves y by a rounding error that grows with N as e^{cN}: in
    double precision N is 10 to 30. It is measured on 64 points; above ``tolerance`` the run is
    refused.

    Parameters
    ----------
    length : int
        N.
    leaps : int
        Leapfrog steps in T.
    tolerance : float
        Largest |T^{−(N−1)}(T^{N−1}(y)) − y| allowed, in units of the whitened target.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range.

    Source: Xu, Chen & Campbell 2022, arXiv:2205.07475; Xu & Campbell 2023, arXiv:2307.06957 (what
    rounding does to chaotic flows).

    >>> MixFlowImportance().contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    length: int = 12
    leaps: int = 6
    tolerance: float = 1e-3
    default_chains: ClassVar[int] = 4
    default_draws: ClassVar[int] = 4096

    def __post_init__(self) -> None:
        check_count("length", self.length, 2)
        check_count("leaps", self.leaps, 1)
        check_between("tolerance", self.tolerance, 0, 1)

    @property
    def contract(self) -> Contract:
        return importance(Density())

    @property
    def stage(self) -> Stage:
        """The same with the reference for q_0, in its own coordinates."""
        return Mixed(self.length, self.leaps)

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted points; see :class:`ppcore.engine.PopulationEngine`.

        Raises :class:`ppcore.errors.UnsupportedError` for a target without gradient, in single
        precision, or if T cannot be inverted to ``tolerance``;
        :class:`ppcore.errors.PopulationError` if all weights vanish.
        """
        require_smooth(target, "mixflow")
        if jnp.result_type(float) != jnp.float64:
            raise UnsupportedError(
                "mixflow inverts a chaotic map, which single precision cannot. Run with "
                "precision='float64'."
            )
        k_explore, k_tune, k_check, k_draw = spawned(key, 4)
        found = explore(k_explore, target)
        frame = found.whitening(jnp.result_type(float))
        flow = MixFlow(found.law(jnp.result_type(float)), self._map(target, frame), self.length)
        flow, bounds = self._tuned(k_tune, flow)
        error = self._check(k_check, flow)
        paths = -(-n // self.length)
        calls = -(-paths // CHUNK)
        made = []
        for i, k in enumerate(spawned(k_draw, calls)):
            made.append(_points(k, flow))
            report(Progress("sampling", i + 1, calls, unit="batches of trajectories"))
        x, log_w = (np.concatenate([np.asarray(part[j]) for part in made]) for j in (0, 1))
        population = _weighed(x[:paths].reshape(-1, x.shape[-1])[:n], log_w[:paths].ravel()[:n])
        require_alive(population, "weighing the points of a MixFlow", 1.0)
        each = CHUNK * (2 * (self.length - 1) * (self.leaps + 1) + self.length)
        spent = each * (calls + len(STEPS)) + 2 * CHECKED * (self.length - 1) * (self.leaps + 1)
        notes = (
            *found.notes,
            f"The map was inverted {self.length - 1} times to within {error:.1e}.",
        )
        stats = {"step_size": np.array(STEPS), "bound": bounds}
        between = _error(log_w[:paths])
        return Populated(population, found.gradients + spent, between, stats, notes)

    def _map(self, target: Any, frame: Any) -> Stir:
        return Stir(target, frame, jnp.asarray(STEPS[0]), self.leaps)

    def _tuned(self, key: Any, flow: MixFlow) -> tuple[MixFlow, np.ndarray]:
        """The flow with the step size of the largest bound, and the bounds of all of them."""
        tried = [_stepped(flow, step) for step in STEPS]
        # One key for all, so that they differ by the step and not by the draws.
        bounds = np.array([_bound(_points(key, one)[1]) for one in tried])
        return tried[int(np.argmax(bounds))], bounds

    def _check(self, key: Any, flow: MixFlow) -> float:
        error = float(_inversion(key, flow))
        if not error <= self.tolerance:
            raise UnsupportedError(
                f"mixflow: {self.length - 1} applications of its map and of its inverse lead back "
                f"to within {error:.1e}, more than tolerance={self.tolerance:g}: rounding errors "
                "grow with every application of a chaotic map, and densities would be wrong. "
                f"Use a shorter flow (length={max(2, self.length // 2)}) or fewer leaps "
                f"(leaps={self.leaps})."
            )
        return error


@dataclass(frozen=True)
class Reference:
    """The reference of a target as a law to begin with."""

    law: Any

    def log_prob(self, x: Any) -> Any:
        """Its log density."""
        return self.law.log_density(x)


@dataclass(frozen=True)
class Mixed(Stage):
    """x ← the v of Tⁿ(x, ρ, u), n uniform, log w += log γ m − log q: proper, from γ_0 = q_0."""

    length: int
    leaps: int
    step_size: float = 0.3

    @property
    def start(self) -> float:  # type: ignore[override]
        return 0.0

    @property
    def end(self) -> float:  # type: ignore[override]
        return 1.0

    @property
    def contract(self) -> Contract:
        return importance(Density())

    def along(self, key: Any, path: Any, at: Any, population: Population) -> Population:
        dim, dtype = population.x.shape[1], population.x.dtype
        frame = Whiten(jnp.zeros(dim, dtype), jnp.eye(dim, dtype=dtype))
        stir = Stir(path.at(1.0), frame, jnp.asarray(self.step_size, dtype), self.leaps)
        flow = MixFlow(Reference(path.at(0.0)), stir, self.length)
        k_lift, k_which = random.split(key)
        y, log_q = jax.vmap(flow.along)(flow.lifted(k_lift, population.x))
        which = random.randint(k_which, (population.size,), self.length)
        row = jnp.arange(population.size)
        y, log_q = y[row, which], log_q[row, which]
        log_w = jax.vmap(stir.log_joint)(y) - log_q
        moved = Population(y[:, :dim], population.log_weight, population.log_z)
        return reweight(moved, jnp.where(jnp.isnan(log_w), -jnp.inf, log_w))


def _stepped(flow: MixFlow, step: float) -> MixFlow:
    return replace(flow, map=replace(flow.map, step_size=jnp.asarray(step)))


@jax.jit
def _points(key: Any, flow: MixFlow) -> tuple[Any, Any]:
    """``CHUNK`` trajectories, each turned by a uniform offset: x float[., N, d], log w float[., N].

    Turned, so that a trajectory of which only the first points are used is used without bias.
    """
    k_start, k_turn = random.split(key)
    y, log_q = jax.vmap(flow.along)(flow.start(k_start, CHUNK))
    log_w = jax.vmap(jax.vmap(flow.map.log_joint))(y) - log_q
    log_w = jnp.where(jnp.isnan(log_w), -jnp.inf, log_w)
    v = y[..., : flow.map.frame.dim]
    x = jax.vmap(jax.vmap(lambda v: flow.map.frame.forward(v)[0]))(v)
    shift = random.randint(k_turn, (CHUNK,), flow.length)
    roll = jax.vmap(lambda a, k: jnp.roll(a, k, axis=0))
    return roll(x, shift), roll(log_w, shift)


@jax.jit
def _inversion(key: Any, flow: MixFlow) -> Any:
    return jnp.max(jax.vmap(flow.inversion_error)(flow.start(key, CHECKED)))


@jax.jit
def _weighed(x: Any, log_w: Any) -> Population:
    return reweight(equally_weighted(x), log_w)


def _bound(log_w: Any) -> float:
    """E_q[log w], −∞ where a weight vanishes."""
    found = float(np.mean(np.asarray(log_w)))
    return found if np.isfinite(found) else -np.inf


def _error(log_w: np.ndarray) -> float | None:
    """Relative standard error of the mean weight over independent trajectories: float[M, N]."""
    if len(log_w) < 2:
        return None
    level = np.exp(log_w - log_w.max()).mean(1)
    return float(level.std(ddof=1) / level.mean() / np.sqrt(len(level)))
