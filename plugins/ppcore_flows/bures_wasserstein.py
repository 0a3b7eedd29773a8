"""Full-rank Gaussians by forward–backward steps in the Bures–Wasserstein geometry."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.engine import Report
from ppcore.paths import Between
from ppcore_flows.density import Flow
from ppcore_flows.linear import LowerTriangular, Row
from ppcore_flows.training import BLOCK, Trained, Training, watched


def forward_backward(
    key: Any, flow: Flow, target: Any, training: Training, report: Report
) -> Trained:
    """N(m, Σ) moved to make KL(q ‖ γ/Z) small: a gradient step on E V, a proximal one on E log q.

    With V = −log γ, g = E_q[∇V] and H = E_q[∇²V],

        m ← m − η g,   M = I − η H,   Σ ← M Σ M,   Σ ← ½ (Σ + 2 η I + (Σ (Σ + 4 η I))^½),

    the steepest descent among Gaussians in the Wasserstein distance; it converges for convex V, and
    no factor of Σ has to be learned. g and H come from the gradients of the batch alone: H by
    Stein's identity for ∇(log γ − log q), so that neither has any noise where γ is the Gaussian.
    η is ``rate`` over the largest eigenvalue of H, in the coordinates that the start has whitened.

    Parameters
    ----------
    flow : Flow
        A Gaussian base, and a :class:`ppcore_flows.linear.LowerTriangular` before fixed axes.
    target : Target
    training : Training
        ``batch`` gradients of the target in each step.

    Source: Diao, Balasubramanian, Chewi & Salim 2023, arXiv:2304.05398.
    """
    betas, rates = training.plan(jnp.result_type(float))
    law = Between(flow, target)

    def advance(q: Any, state: Any, start: int) -> tuple[Any, Any, Any]:
        at = slice(start, start + BLOCK)
        made, seen = block(training.batch, key, q, law, (betas[at], rates[at], start))
        return made, state, seen

    return watched(advance, flow, None, len(betas), training.rate, report, training.batch)


@partial(jax.jit, static_argnames="batch")
def block(batch: int, key: Any, flow: Flow, law: Any, plan: Any) -> tuple[Any, Any]:
    """Steps for each entry of ``plan``: the Gaussian, and (loss, spread, taken) of each step."""
    betas, rates, start = plan
    axes = flow.map.maps[1]

    def step(gaussian: LowerTriangular, at: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        i, beta, rate = at
        made, seen = _step(jax.random.fold_in(key, i), gaussian, axes, law.tempered(beta), rate)
        return made, seen

    def _step(
        key: Any, gaussian: LowerTriangular, axes: Any, now: Any, rate: Any
    ) -> tuple[Any, Any]:
        z = random.normal(key, (batch, gaussian.dim), gaussian.shift.dtype)
        factor = jnp.exp(gaussian.log_scale)[:, None] * gaussian.units
        u = gaussian.shift + z @ factor.T

        def level(u: Any) -> Any:
            x, log_det = axes.forward(u)
            return now.log_density(x) + log_det

        value, slope = jax.vmap(jax.value_and_grad(level))(u)
        pull = jax.scipy.linalg.solve_triangular(factor, z.T, lower=True, trans=1).T
        gap = slope + pull
        good = jnp.isfinite(value) & jnp.isfinite(gap).all(-1)
        share = good / jnp.maximum(jnp.sum(good), 1)
        gap = jnp.where(good[:, None], gap, 0.0)
        centred = gap - share @ gap
        stein = (share[:, None] * centred).T @ pull
        eye = jnp.eye(gaussian.dim, dtype=u.dtype)
        inverse = jax.scipy.linalg.cho_solve((factor, True), eye)
        hessian = inverse - 0.5 * (stein + stein.T)
        largest = jnp.max(jnp.abs(jnp.linalg.eigvalsh(hessian)))
        eta = rate / jnp.maximum(largest, 1.0)
        moved = (eye - eta * hessian) @ factor
        values, vectors = jnp.linalg.eigh(moved @ moved.T)
        values = jnp.maximum(values, 0.0)
        values = 0.5 * (values + 2 * eta + jnp.sqrt(values * (values + 4 * eta)))
        made = of(gaussian.shift + eta * share @ gap, (vectors * values) @ vectors.T)
        log_q = -0.5 * jnp.sum(z**2, -1) - jnp.sum(gaussian.log_scale)
        log_q = log_q - 0.5 * gaussian.dim * jnp.log(2 * jnp.pi)
        off = jnp.where(good, log_q - value, 0.0)
        mean = jnp.sum(share * off) + jnp.where(good.any(), 0.0, jnp.nan)
        spread = jnp.sqrt(jnp.sum(share * (off - mean) ** 2))
        parts = jax.tree.leaves(made)
        taken = jnp.isfinite(mean) & jnp.stack([jnp.isfinite(p).all() for p in parts]).all()
        kept = jax.tree.map(lambda a, b: jnp.where(taken, a, b), made, gaussian)
        return kept, (mean, spread, taken)

    steps = start + jnp.arange(betas.shape[0])
    gaussian, seen = jax.lax.scan(step, flow.map.maps[0], (steps, betas, rates))
    return Flow(flow.base, Row((gaussian, axes))), seen


def of(mean: Any, covariance: Any) -> LowerTriangular:
    """N(mean, covariance) as the map of standard normal draws."""
    factor = jnp.linalg.cholesky(covariance)
    scale = jnp.diagonal(factor)
    below = jnp.tril(factor / scale[:, None], -1)
    return LowerTriangular(mean, jnp.log(scale), below)
