"""Exact comparisons of a model with its rewritten form, for the tests of rewrites."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import precision
from ppcore.model_target import ModelTarget
from ppcore.rewrite.protocol import Problem, Rewriting, rewrite


def rewritten(model: Any, *rewrites: Any) -> tuple[ModelTarget, ModelTarget, Rewriting]:
    """The target of a model, that of its rewritten problem, and the way between them."""
    with precision.scope("float64"):
        before = model.target()
        found = rewrite(Problem.of(before), rewrites)
        after = ModelTarget(found.problem.diagram, (), found.problem.data, ())
    return before, after, found


def applied(found: Rewriting) -> tuple[str, ...]:
    """Names of the rewrites that did something."""
    return tuple(name for name, did, _ in found.log if did)


@jax.jit
def _densities(before: ModelTarget, after: ModelTarget, x: Any) -> Any:
    return jax.vmap(before.log_density)(x), jax.vmap(after.log_density)(x)


def same_density(before: ModelTarget, after: ModelTarget, n: int = 4, seed: int = 0) -> float:
    """The largest relative difference of two densities of the same coordinates."""
    x = np.random.default_rng(seed).normal(size=(n, before.dim))
    with precision.scope("float64"):
        a, b = map(np.asarray, _densities(before, after, x))
    return float(np.max(np.abs(a - b) / np.maximum(1.0, np.abs(a))))


@jax.jit
def _parts(before: ModelTarget, after: ModelTarget, restore: Any, x: Any, z: Any) -> Any:
    mean, push = jax.linearize(lambda z: restore.given(x, z), jnp.zeros_like(z))
    root = jax.vmap(push)(jnp.eye(z.size)).T
    full = mean + root @ z
    return mean, root, full, before.log_density(full), after.log_density(x)


def same_joint(
    before: ModelTarget, after: ModelTarget, restore: Any, n: int = 2, seed: int = 0
) -> float:
    """By how much γ(φ) p(β | φ, y) differs from γ(φ, β), relatively, at random points.

    ``restore.given`` is affine in standard normal noise, so that p(β | φ, y) is a normal density
    whose mean and covariance are known exactly. Equality for all (φ, β) is what a collapse claims:
    the same posterior, the same evidence, and the right conditional.
    """
    rng = np.random.default_rng(seed)
    worst = 0.0
    for _ in range(n):
        with precision.scope("float64"):
            x, z = rng.normal(size=after.dim), rng.normal(size=restore.noise_size)
            mean, root, full, joint, marginal = map(
                np.asarray, _parts(before, after, restore, x, z)
            )
        moved = np.flatnonzero(np.abs(root).sum(1) > 0)
        cov = root[moved] @ root[moved].T
        gap = full[moved] - mean[moved]
        log_det = np.linalg.slogdet(2 * np.pi * cov)[1]
        conditional = -0.5 * (gap @ np.linalg.solve(cov, gap) + log_det)
        worst = max(worst, abs(marginal + conditional - joint) / max(1.0, abs(joint)))
    return float(worst)


@jax.jit
def _whole(before: ModelTarget, after: ModelTarget, recovered: Any, x: Any, z: Any) -> Any:
    def full(x: Any, z: Any) -> Any:
        return recovered.whole(jnp.concatenate([x, z]))

    root = jax.jacfwd(full, 1)(x, jnp.zeros_like(z))
    mean, point = full(x, jnp.zeros_like(z)), full(x, z)
    turned = jax.jacfwd(full, 0)(x, jnp.zeros_like(z))
    return mean, root, turned, point, before.log_density(point), after.log_density(x)


def same_posterior(prepared: Any, n: int = 1, seed: int = 0) -> float:
    """By how much a model's density differs from that of all its rewrites together, relatively.

    With x′ the coordinates that are left, φ(x′) those of the model that no noise moves and β the
    others, affine in the noise: γ(φ, β) |∂φ/∂x′| = C γ′(x′) N(β; m(x′), V(x′)) at random points, C
    the stated constant.
    """
    from ppcore.planner.recovered import Recovered

    rng, worst = np.random.default_rng(seed), 0.0
    with precision.scope("float64"):
        recovered = Recovered.of(prepared)
        for _ in range(n):
            x = rng.normal(size=prepared.target.dim)
            z = rng.normal(size=recovered.width - prepared.target.dim)
            mean, root, turned, point, before, after = map(
                np.asarray, _whole(prepared.origin, prepared.target, recovered, x, z)
            )
            moved = np.abs(root).sum(1) > 0
            log_volume = np.linalg.slogdet(turned[~moved])[1]
            cov = root[moved] @ root[moved].T
            gap = (point - mean)[moved]
            conditional = 0.0
            if moved.any():
                log_det = np.linalg.slogdet(2 * np.pi * cov)[1]
                conditional = -0.5 * (gap @ np.linalg.solve(cov, gap) + log_det)
            total = after + prepared.rewriting.log_constant + conditional
            worst = max(worst, abs(before + log_volume - total) / max(1.0, abs(before)))
    return float(worst)
