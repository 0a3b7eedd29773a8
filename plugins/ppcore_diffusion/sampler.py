"""The engine behind every learned diffusion sampler: prepare, train, freeze, draw, weigh."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import Contract, ProperlyWeighted
from ppcore.engine import Populated, Progress, Report
from ppcore.errors import SettingsError, did_you_mean
from ppcore.paths import follow
from ppcore.population import Population, equally_weighted, require_alive
from ppcore.settings import check_count, check_metric
from ppcore.stages.lineage import relative_variance
from ppcore.tuning.noise import spawned
from ppcore_diffusion.prepare import begun, ground, require_smooth
from ppcore_diffusion.training import Training, cut, train
from ppcore_diffusion.transitions import CMCD, route

REFERENCES = ("auto", "prior", "laplace")
ISLAND = 1024


@dataclass(frozen=True)
class Sampler:
    """x_0 ~ q_0, x_{k+1} ~ F_k(· | x_k), log w = Σ log G_k: a learned path, weighed exactly.

    With log G_k = log γ_{k+1}(x_{k+1}) − log γ_k(x_k) + log B_k(x_k | x_{k+1}) −
    log F_k(x_{k+1} | x_k) of :mod:`ppcore.paths`, E[Ẑ] = Z for any weights of the networks, before
    training as after. Everything learned is frozen before the draws that are returned.

    Parameters
    ----------
    steps : int
        K.
    iterations, batch, rate, replay, loss
        See :class:`ppcore_diffusion.training.Training`.
    width : int
        Of both hidden layers of a control.
    components : int
        Parts of the reference q_0, a mixture of Gaussians that is learned along; 0 chooses.
    reference : "auto", "prior" or "laplace"
        Where the pilot run starts that finds coordinates, q_0, temperatures and steps: the prior,
        or Gaussians at the modes that climbs find. "auto" is the prior, unless there is a single
        mode whose Gaussian holds up.
    metric : "auto", "dense", "diagonal" or "low_rank"
        Of the map x = m + F u in whose coordinates all this happens.
    rank : int
        Of a low-rank map.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range or unknown.

    >>> Sampler().contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    steps: int = 32
    iterations: int = 300
    batch: int = 128
    rate: float = 5e-3
    loss: str = "log_variance"
    replay: int = 0
    width: int = 32
    components: int = 0
    reference: str = "auto"
    metric: str = "auto"
    rank: int = 16
    kind: ClassVar[Any] = CMCD
    name: ClassVar[str] = "cmcd"
    segments: ClassVar[int] = 1
    threshold: ClassVar[float] = 0.0
    default_chains: ClassVar[int] = 4
    default_draws: ClassVar[int] = 4096
    stage: ClassVar[None] = None

    def __post_init__(self) -> None:
        for name in ("steps", "width"):
            check_count(name, getattr(self, name), 1)
        check_count("components", self.components, 0)
        if self.reference not in REFERENCES:
            hint = did_you_mean(str(self.reference), REFERENCES)
            raise SettingsError(f"reference={self.reference!r} is not known. {hint}")
        check_metric(self.metric, self.rank)
        if self.steps % self.plan.segments:
            raise SettingsError(
                f"steps={self.steps!r} must be a multiple of segments={self.plan.segments!r}."
            )

    @property
    def plan(self) -> Training:
        """How it is trained."""
        shape = (self.loss, self.iterations, self.batch, self.rate, self.replay)
        return Training(*shape, self.segments, self.threshold)

    @property
    def contract(self) -> Contract:
        return ProperlyWeighted()

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted draws; see :class:`ppcore.engine.PopulationEngine`.

        Raises
        ------
        UnsupportedError
            For a target without gradient, or a reference that it does not have.
        StartError
            If no start with a finite log density and gradient is found.
        PopulationError
            If a pilot run does not arrive, or all weights vanish.
        """
        require_smooth(target, self.name)
        k_ground, k_begin, k_train, k_draw = spawned(key, 4)
        on = ground(
            k_ground, target, self.reference, self.metric, self.components, self.rank, report
        )
        weights, tried = begun(k_begin, self.kind, on, self.steps, self.width)
        made = train(k_train, self.kind, self.plan, weights, on.frame, report)
        population, root = drawn(k_draw, self, made.weights, on.frame, n)
        require_alive(population, self.name, 1.0)
        report(Progress("sampling", n, n, unit="particles"))
        variance = relative_variance(root, 0, population.weights)
        return Populated(
            population,
            on.gradients + tried + made.evaluations + n * (self.steps + 1),
            None if variance is None else variance**0.5,
            {"loss": made.losses, "spread": made.spreads},
            (*on.notes, *made.notes),
        )


def drawn(key: Any, how: Sampler, weights: Any, frame: Any, n: int) -> tuple[Population, Any]:
    """``n`` weighted draws in the target's own coordinates, and the first ancestor of each.

    In islands of at most 1024 (where n has such a divisor), each resampled by itself; their
    evidences are averaged.
    """
    count = next((c for c in range(1, 4 + n // 256) if n % c == 0 and n // c <= ISLAND), 1)
    parts, plan = [], how.plan
    for k in spawned(key, count):
        parts.append(_island(how.kind, plan.segments, plan.resample, k, weights, frame, n // count))
    x, log_weight, log_z, root = (np.stack([np.asarray(p[i]) for p in parts]) for i in range(4))
    top = log_z.max() if np.isfinite(log_z.max()) else 0.0
    share = log_weight + log_z[:, None]
    with np.errstate(divide="ignore"):
        total = top + np.log(np.mean(np.exp(log_z - top)))
    root = root + (n // count) * np.arange(count)[:, None]
    dtype = x.dtype
    flat = x.reshape(n, -1), share.reshape(-1), total.astype(dtype)
    return Population(*(jnp.asarray(part, dtype) for part in flat)), root.ravel().astype(int)


@partial(jax.jit, static_argnames=("kind", "segments", "threshold", "n"))
def _island(
    kind: Any, segments: int, threshold: float, key: Any, weights: Any, frame: Any, n: int
) -> tuple[Any, Any, Any, Any]:
    """Places, log of the normalised weights, log Ẑ and first ancestors of ``n`` particles."""
    k_start, k_walk = random.split(key)
    transition, path, betas = route(kind, weights, frame)
    rows, _ = path.start(k_start, n, kind.moving)
    steps = betas.shape[0] - 1
    population = equally_weighted(rows)
    each = steps // segments
    rule = cut(segments, threshold, steps)

    def lead(key: Any, population: Population, s: Any) -> tuple[Population, None]:
        k_follow, k_cut = random.split(key)
        edges = jax.lax.dynamic_slice(betas, (s * each,), (each + 1,))
        index = s * each + jnp.arange(each)
        population = follow(
            k_follow, path, edges, transition, population, params=index, params_vary=True
        )
        return rule(k_cut, population, index[-1]), None

    population, _ = random.scan(lead, k_walk, population, jnp.arange(segments), segments)
    u, root = population.x[:, : path.dim], population.x[:, 2 * path.dim + 1]
    log_weight = jax.nn.log_softmax(population.log_weight)
    return frame.place(u), log_weight, population.log_z, root
