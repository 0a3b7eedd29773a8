"""Proximal Langevin for log densities with kinks: the Moreau envelope's gradient as the drift."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ppcore.chains import KernelEngine
from ppcore.contract import Biased, Contract
from ppcore.model_target import ModelTarget
from ppcore.semantics.interpret import interpret
from ppcore.semantics.log_density import LogDensity, layout
from ppcore_langevin.moves import Adjusted, Step, Unadjusted, engine_of


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Penalised:
    """The target γ(x) exp(−g(x)) for a smooth γ and a convex g that is known by its prox.

    Parameters
    ----------
    smooth : Target
        γ.
    penalty_fn : callable
        ``(x, data) -> float[]``: g; a module-level function.
    prox_fn : callable
        ``(x, λ, data) -> float[d]``: argmin_u g(u) + |u − x|²/(2λ).
    data : pytree
        What both need; leaves.

    >>> from ppcore.target import DensityTarget
    >>> def flat(x, data): return jnp.zeros(())
    >>> def l1(x, rate): return rate * jnp.sum(jnp.abs(x))
    >>> def shrink(x, lam, rate): return jnp.sign(x) * jnp.maximum(jnp.abs(x) - lam * rate, 0.0)
    >>> target = Penalised(DensityTarget(flat, 1), l1, shrink, 2.0)
    >>> float(target.log_density(jnp.array([-1.0]))), float(target.prox(jnp.array([3.0]), 1.0)[0])
    (-2.0, 1.0)
    """

    smooth: Any
    penalty_fn: Callable[[Any, Any], Any]
    prox_fn: Callable[[Any, Any, Any], Any]
    data: Any = ()

    def tree_flatten(self) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        return (self.smooth, self.data), (self.penalty_fn, self.prox_fn)

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, Any], leaves: tuple[Any, Any]) -> Penalised:
        return cls(leaves[0], *static, leaves[1])

    @property
    def dim(self) -> int:
        """d, that of the smooth part."""
        return int(self.smooth.dim)

    @property
    def has_reference(self) -> bool:
        """Whether the smooth part has one; the penalty counts as likelihood."""
        return bool(self.smooth.has_reference)

    def log_density(self, x: Any) -> Any:
        """log γ(x) − g(x); float[d] -> float[]."""
        return self.smooth.log_density(x) - self.penalty_fn(x, self.data)

    def log_prior(self, x: Any) -> Any:
        """The smooth part's prior; float[d] -> float[]."""
        return self.smooth.log_prior(x)

    def log_likelihood(self, x: Any) -> Any:
        """The smooth part's likelihood, less g; float[d] -> float[]."""
        return self.smooth.log_likelihood(x) - self.penalty_fn(x, self.data)

    def sample_reference(self, key: Any, n: int) -> Any:
        """Draws from the smooth part's reference; float[n, d]."""
        return self.smooth.sample_reference(key, n)

    def constrain(self, x: Any) -> dict[str, Any]:
        """As the smooth part does."""
        return dict(self.smooth.constrain(x))

    def tempered(self, beta: Any) -> Penalised:
        """The smooth part at inverse temperature ``beta``; g stays as it is."""
        return replace(self, smooth=self.smooth.tempered(beta))

    def prox(self, x: Any, lam: Any) -> Any:
        """argmin_u g(u) + |u − x|²/(2λ); float[d]."""
        return self.prox_fn(x, lam, self.data)


class Kinked(NamedTuple):
    """A scored position with the gradient of the smooth part, and where |x − loc| · rate kinks."""

    x: Any
    log_density: Any
    gradient: Any
    smooth: Any
    loc: Any
    rate: Any


class _Kinks(LogDensity):
    """Records ``loc`` and ``rate`` of the latent sites with a Laplace distribution."""

    def latent(self, box: Any, distribution: Any, given: Any, key: Any) -> tuple[Any, Any]:
        value, record = super().latent(box, distribution, given, key)
        base = distribution
        while hasattr(base, "base_dist"):
            base = base.base_dist
        if type(base).__name__ == "Laplace":
            rate = jnp.broadcast_to(1.0 / base.scale, jnp.shape(value))
            record |= {"rate": rate, "loc": jnp.broadcast_to(base.loc, jnp.shape(value))}
        return value, record


def kinks(target: Any, x: Any) -> tuple[Any, Any]:
    """(loc, rate): float[d] each, of the terms −rate |x − loc| of a model's Laplace sites.

    ``rate`` is 0 in all other coordinates, and everywhere for targets that are not models.
    """
    if not isinstance(target, ModelTarget) or target.labels:
        return jnp.zeros_like(x), jnp.zeros_like(x)
    where = layout(target.diagram)
    records = interpret(target.diagram, target.inputs, _Kinks(), where.split(x))[1]
    zeros = {n: jnp.zeros(s, x.dtype) for n, s in zip(where.names, where.shapes, strict=True)}
    loc, rate = (
        where.join({n: records[n].get(what, zeros[n]) for n in where.names})
        for what in ("loc", "rate")
    )
    return loc, rate


def _score(target: Any, x: Any) -> Kinked:
    value, gradient = jax.value_and_grad(target.log_density)(x)
    loc, rate = kinks(target, x)
    if hasattr(target, "prox"):
        smooth = jax.grad(target.smooth.log_density)(x)
    else:
        smooth = gradient + rate * jnp.sign(x - loc)
    return Kinked(x, value, gradient, smooth, loc, rate)


def _drift(target: Any, state: Kinked, params: Step) -> Any:
    """Fᵀ(∇ log γ_smooth − ∇g_λ), with λ_i = h (F Fᵀ)_ii."""
    f = params.preconditioner
    variances = jnp.sum(f.push(jnp.eye(state.x.shape[0], dtype=state.x.dtype)) ** 2, axis=0)
    lam = params.step_size * variances
    if hasattr(target, "prox"):
        least = jnp.min(lam)
        envelope = (state.x - target.prox(state.x, least)) / least
    else:
        envelope = jnp.clip((state.x - state.loc) / lam, -state.rate, state.rate)
    return f.pull(state.smooth - envelope)


@dataclass(frozen=True)
class ProximalMALA(Adjusted):
    """A Langevin step down the Moreau envelope of a kinked term, with a Metropolis test (px-MALA).

    For γ = exp(log γ_smooth − g): b = Fᵀ(∇ log γ_smooth(x) − (x − prox_λg(x))/λ),
    y = x + F (h b + √(2h) z), accepted with min(1, γ(y) q(y, x)/(γ(x) q(x, y))), γ the kinked
    density itself: reversible for it. g is that of a :class:`Penalised` target, with
    λ = h min (F Fᵀ)_ii, or Σ |x_i − loc_i|/scale_i over a model's sites with a Laplace
    distribution, with λ_i = h (F Fᵀ)_ii; where these hang on other sites they are held fixed in
    the drift, and the test puts it right. Without either it is MALA.

    Source: Pereyra 2016, arXiv:1306.0187.

    >>> ProximalMALA().contract.reversible
    True
    """

    def score(self, target: Any, x: Any) -> Kinked:
        """The state at ``x``, with the smooth part's gradient."""
        return _score(target, x)

    def drift(self, target: Any, state: Any, params: Step) -> Any:
        """b(x): float[d]."""
        return _drift(target, state, params)


@dataclass(frozen=True)
class MYULA(Unadjusted):
    """The same step without the test: the Moreau–Yosida unadjusted Langevin algorithm.

    With λ ∝ h the envelope g_λ is off by O(h) as the Euler step is: biased at first order.

    Source: Durmus, Moulines & Pereyra 2018, arXiv:1612.07471.

    >>> MYULA().contract
    Biased(order=1, in_='step_size')
    """

    contract: ClassVar[Contract] = Biased(order=1)

    def score(self, target: Any, x: Any) -> Kinked:
        """The state at ``x``, with the smooth part's gradient."""
        return _score(target, x)

    def drift(self, target: Any, state: Any, params: Step) -> Any:
        """b(x): float[d]."""
        return _drift(target, state, params)


def engine(
    adjusted: bool = True,
    target_accept: float = 0.574,
    metric: str = "auto",
    warmup_draws: int = 320,
    max_warmup_draws: int = 1280,
    most_thin: int = 8,
) -> KernelEngine:
    """:class:`ProximalMALA` with many chains in lockstep, tuned together.

    Parameters
    ----------
    adjusted : bool
        Whether to test proposals (px-MALA, exact) or not (:class:`MYULA`, biased).
    target_accept : float
        Mean acceptance probability to tune the step size for; for ``adjusted=False`` that of the
        omitted test, of which a rate near one is wanted.
    metric : str
        "auto", "dense", "low_rank" or "diagonal".
    warmup_draws, max_warmup_draws : int
        Draws per chain to adapt with, and the most where chains have not settled.
    most_thin : int
        The most transitions that may make one draw.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.

    >>> engine(metric="diagonal").default_chains
    64
    """
    kernel = ProximalMALA() if adjusted else MYULA()
    return engine_of(kernel, target_accept, metric, warmup_draws, max_warmup_draws, most_thin)
