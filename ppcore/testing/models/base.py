"""What a check model offers: draws from the joint of parameters and data, and bounded features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import precision

FEATURE_SEED = 20_250_101
FEATURE_DRAWS = 4096


@dataclass(frozen=True)
class CheckModel:
    """A model that checks can draw from jointly.

    Attributes
    ----------
    name : str
    dim : int
        d, unconstrained coordinates.
    simulate_joint : callable
        ``key -> (x, target)``: parameters from the prior (float[d], unconstrained), data from
        the likelihood, and the target given those data. Pure and traceable.
    raw_features : callable
        ``(x, target) -> float[F]``: unbounded features; see :func:`features`.
    feature_names : tuple of str
    axes : pytree or int
        ``in_axes`` of a batch of targets: 0, or a pytree that marks leaves shared by all draws.
    log_evidence : callable, optional
        ``target -> float[]``, in closed form.
    posterior : callable, optional
        ``(key, target, n) -> float[n, d]``, exact draws.
    extend : callable, optional
        ``(key, target, x) -> target``: new data drawn at x joined to the given data.
    simulate_batch : callable, optional
        ``keys -> (x[R, d], targets)``, where one compiled program serves several models.
    """

    name: str
    dim: int
    simulate_joint: Callable[[Any], tuple[Any, Any]]
    raw_features: Callable[[Any, Any], Any]
    feature_names: tuple[str, ...]
    axes: Any = 0
    log_evidence: Callable[[Any], Any] | None = None
    posterior: Callable[[Any, Any, int], Any] | None = None
    extend: Callable[[Any, Any, Any], Any] | None = None
    simulate_batch: Callable[[Any], tuple[Any, Any]] | None = None


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class FeatureScale:
    """F = ½ tanh((f − centre) / (2 width)): bounded, with constants fixed beforehand.

    ``spread`` is the standard deviation of F under the joint, the unit in which resolutions
    are stated.
    """

    centre: Any
    width: Any
    spread: Any

    def tree_flatten(self) -> tuple[tuple[Any, Any, Any], None]:
        return (self.centre, self.width, self.spread), None

    @classmethod
    def tree_unflatten(cls, _: None, leaves: tuple[Any, Any, Any]) -> FeatureScale:
        return cls(*leaves)

    def __call__(self, raw: Any) -> Any:
        return 0.5 * jnp.tanh(0.5 * (raw - self.centre) / self.width)


@lru_cache(maxsize=256)
def feature_scale(model: CheckModel) -> FeatureScale:
    """Median and spread of every raw feature over the joint, from a seed of its own."""
    with precision.scope("float64"):
        keys = jax.random.split(jax.random.key(FEATURE_SEED), FEATURE_DRAWS)
        x, targets = simulate(model, keys)
        raw = raw_features(model, x[:, None], targets)[:, 0]
        low, centre, high = jnp.quantile(raw, jnp.array([0.16, 0.5, 0.84]), axis=0)
        width = jnp.maximum(0.5 * (high - low), 1e-6)
        rough = FeatureScale(centre, width, width)
        return FeatureScale(centre, width, jnp.std(rough(raw), axis=0))


def simulate(model: CheckModel, keys: Any) -> tuple[Any, Any]:
    """A batch of joint draws: ``(x[R, d], targets)`` with ``model.axes`` as the batch axes."""
    return (model.simulate_batch or _simulator(model))(keys)


@lru_cache(maxsize=256)
def _simulator(model: CheckModel) -> Callable[[Any], tuple[Any, Any]]:
    out_axes = 0 if model.axes == 0 else (0, model.axes)
    return jax.jit(jax.vmap(model.simulate_joint, 0, out_axes))


def raw_features(model: CheckModel, x: Any, targets: Any) -> Any:
    """Raw features of several states per target: x[R, K, d] -> float[R, K, F].

    All states of one target go through one program, so that equal states have equal features.
    """
    return _raw(model.raw_features, model.axes)(x, targets)


@lru_cache(maxsize=256)
def _raw(raw: Callable[[Any, Any], Any], axes: Any) -> Callable[[Any, Any], Any]:
    return jax.jit(jax.vmap(jax.vmap(raw, (0, None)), (0, axes)))


def generic_features(x: Any, target: Any) -> Any:
    """x, x², |x|, the log likelihood and the log prior; float[3d + 2]."""
    scalars = jnp.stack([target.log_likelihood(x), target.log_prior(x)])
    return jnp.concatenate([x, x**2, jnp.abs(x), scalars])


def generic_feature_names(dim: int) -> tuple[str, ...]:
    """Names for :func:`generic_features`."""
    out = [form.format(j) for form in ("x{}", "x{}^2", "|x{}|") for j in range(dim)]
    return (*out, "log_likelihood", "log_prior")
