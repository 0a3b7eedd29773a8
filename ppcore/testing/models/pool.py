"""The pool: fourteen models behind one pytree, so that one compiled program serves them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.errors import SettingsError, did_you_mean
from ppcore.testing.models import closed, formulas
from ppcore.testing.models.base import CheckModel, generic_feature_names, generic_features

DIM = 3
NAMES = tuple(formulas.FORMULAS)


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class PoolTarget:
    """The posterior of model number ``kind`` of ``family`` given ``y``: float[3, 3].

    ``family`` (names of formulas) is static; ``kind`` is a leaf that chooses among them at run
    time, so that a whole family shares one trace.
    """

    kind: Any
    y: Any
    beta: Any
    family: tuple[str, ...] = NAMES

    dim = DIM
    has_reference = True

    def tree_flatten(self) -> tuple[tuple[Any, Any, Any], tuple[str, ...]]:
        return (self.kind, self.y, self.beta), self.family

    @classmethod
    def tree_unflatten(cls, family: tuple[str, ...], leaves: tuple[Any, Any, Any]) -> PoolTarget:
        return cls(*leaves, family)

    def parts(self, x: Any) -> tuple[Any, Any]:
        """``(log_prior, terms)`` with one log-likelihood term per datum, float[9]."""
        return jax.lax.switch(self.kind, [formulas.FORMULAS[f][1] for f in self.family], x, self.y)

    def log_density(self, x: Any) -> Any:
        log_prior, terms = self.parts(x)
        return log_prior + self.beta * terms.sum()

    def log_prior(self, x: Any) -> Any:
        return self.parts(x)[0]

    def log_likelihood(self, x: Any) -> Any:
        return self.parts(x)[1].sum()

    def sample_reference(self, key: Any, n: int) -> Any:
        keys = jax.random.split(key, n)
        return _REFERENCE(keys, self.kind, np.dtype(self.y.dtype).name, self.family)

    def constrain(self, x: Any) -> dict[str, Any]:
        """The coordinates in which the model is written; float[3]."""
        return {"x": jax.lax.switch(self.kind, [_TO_MODEL.get(f, _same) for f in self.family], x)}

    def tempered(self, beta: Any) -> PoolTarget:
        return replace(self, beta=beta)


_TO_MODEL: dict[str, Callable[[Any], Any]] = {
    "gamma_scale": jnp.exp,
    "beta_binomial": jax.nn.sigmoid,
    "bounded": jax.nn.sigmoid,
    "simplex": lambda x: jnp.exp(formulas.simplex_log_p(x))[:3],
}


def _prior_draw(draw: Callable[..., Any], z: Any, u: Any) -> Any:
    """x alone, which needs the first twelve of each kind of noise; the rest makes data."""
    return draw(jnp.pad(z, (0, 28)), jnp.pad(u, (0, 68), constant_values=0.5))[0]


def _reference(key: Any, kind: Any, dtype: str, family: tuple[str, ...]) -> Any:
    k_normal, k_uniform = random.split(key)
    z, u = random.normal(k_normal, (12,), dtype), random.uniform(k_uniform, (12,), dtype)
    draws = [partial(_prior_draw, formulas.FORMULAS[f][0]) for f in family]
    return jax.lax.switch(kind, draws, z, u)


# Compiled by itself: called from outside a program, it would otherwise be compiled at each call.
_REFERENCE = jax.jit(jax.vmap(_reference, (0, None, None, None)), static_argnums=(2, 3))


def _same(x: Any) -> Any:
    return x


def _draw(key: Any, kind: Any, dtype: Any, family: tuple[str, ...]) -> tuple[Any, Any]:
    k_normal, k_uniform = random.split(key)
    z = random.normal(k_normal, (40,), dtype)
    u = random.uniform(k_uniform, (80,), dtype)
    return jax.lax.switch(kind, [formulas.FORMULAS[f][0] for f in family], z, u)


_DRAW = jax.jit(jax.vmap(_draw, (0, None, None, None)), static_argnums=(2, 3))


def _simulate_joint(kind: int, family: tuple[str, ...], key: Any) -> tuple[Any, PoolTarget]:
    dtype = jnp.result_type(float)
    x, y = _draw(key, kind, dtype, family)
    return x, PoolTarget(jnp.asarray(np.int32(kind)), y, jnp.ones((), dtype), family)


def _simulate_batch(kind: int, family: tuple[str, ...], keys: Any) -> tuple[Any, PoolTarget]:
    dtype = jnp.result_type(float)
    number = jnp.asarray(np.int32(kind))
    x, y = _DRAW(keys, number, dtype, family)
    return x, PoolTarget(number, y, jnp.ones((), dtype), family)


def _raw_features(x: Any, target: Any) -> Any:
    return jnp.concatenate([generic_features(x, target), x * target.y.mean(axis=1)])


@lru_cache(maxsize=64)
def pool(family: tuple[str, ...] = NAMES) -> dict[str, CheckModel]:
    """Check models of the formulas named, which share every compiled program.

    A smaller family compiles faster: each program holds one branch per member.
    """
    for name in family:
        if name not in formulas.FORMULAS:
            hint = did_you_mean(name, formulas.FORMULAS)
            raise SettingsError(f"No check model is called {name!r}. {hint}")
    names = (*generic_feature_names(DIM), *(f"x{j}*mean(y{j})" for j in range(DIM)))
    return {
        name: CheckModel(
            name=name,
            dim=DIM,
            simulate_joint=partial(_simulate_joint, kind, family),
            raw_features=_raw_features,
            feature_names=names,
            axes=PoolTarget(None, 0, None, family),
            log_evidence=closed.EVIDENCE.get(name),
            posterior=closed.POSTERIOR.get(name),
            simulate_batch=partial(_simulate_batch, kind, family),
        )
        for kind, name in enumerate(family)
    }


POOL: dict[str, CheckModel] = pool()


def check_model(name: str) -> CheckModel:
    """The model of that name, in a family of its own."""
    return pool((name,))[name]
