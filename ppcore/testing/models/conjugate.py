"""A conjugate normal model whose posterior accepts any number of data, for calibration checks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy import stats

from ppcore import random
from ppcore.testing.models.base import CheckModel, generic_feature_names, generic_features

DATA = 4


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class NormalTarget:
    """θ_j ~ N(0, 1), y_ij ~ N(θ_j, 1) for j = 1, 2; ``y``: float[m, 2] with any m."""

    y: Any
    beta: Any = 1.0

    dim = 2
    has_reference = True

    def tree_flatten(self) -> tuple[tuple[Any, Any], None]:
        return (self.y, self.beta), None

    @classmethod
    def tree_unflatten(cls, _: None, leaves: tuple[Any, Any]) -> NormalTarget:
        return cls(*leaves)

    def log_prior(self, x: Any) -> Any:
        return self.parts(x)[0]

    def log_likelihood(self, x: Any) -> Any:
        return self.parts(x)[1].sum()

    def parts(self, x: Any) -> tuple[Any, Any]:
        """``(log_prior, terms)`` with one log-likelihood term per datum, float[2m]."""
        return stats.norm.logpdf(x).sum(), stats.norm.logpdf(self.y, x).ravel()

    def log_density(self, x: Any) -> Any:
        return self.log_prior(x) + self.beta * self.log_likelihood(x)

    def sample_reference(self, key: Any, n: int) -> Any:
        return random.normal(key, (n, 2), self.y.dtype)

    def constrain(self, x: Any) -> dict[str, Any]:
        return {"x": x}

    def tempered(self, beta: Any) -> NormalTarget:
        return replace(self, beta=beta)

    @property
    def posterior(self) -> tuple[Any, Any]:
        """Mean float[2] and standard deviation float[] of the exact posterior."""
        total = 1.0 + self.y.shape[0]
        return self.y.sum(0) / total, jnp.sqrt(1.0 / total)


def _simulate_joint(key: Any) -> tuple[Any, NormalTarget]:
    k_x, k_y = random.split(key)
    x = random.normal(k_x, (2,))
    return x, NormalTarget(x + random.normal(k_y, (DATA, 2)), jnp.ones(()))


def _extend(key: Any, target: NormalTarget, x: Any) -> NormalTarget:
    new = x + random.normal(key, target.y.shape, target.y.dtype)
    return replace(target, y=jnp.concatenate([target.y, new]))


def _posterior(key: Any, target: NormalTarget, n: int) -> Any:
    mean, sd = target.posterior
    return mean + sd * random.normal(key, (n, 2), target.y.dtype)


CONJUGATE = CheckModel(
    name="conjugate_normal",
    dim=2,
    simulate_joint=_simulate_joint,
    raw_features=generic_features,
    feature_names=generic_feature_names(2),
    posterior=_posterior,
    extend=_extend,
)
