"""Laplace within: a latent Gaussian block replaced by its Laplace approximation, and corrected.

For latent Gaussian sites u given other parameters h, let û(h) maximise log γ(u, h) over u and
A(h) = −∇²_u log γ there. The approximate marginal is γ̂(h) = γ(û, h) (2π)^{p/2} |A|^{−1/2}, and
u = û + A^{−1/2} z with standard normal z completes a proposal for all coordinates. The weight
γ(u, h) / [q(h) N(u; û, A^{−1})] makes draws with h ~ q properly weighted for γ, whatever q is and
however few Newton steps were taken to û: approximation costs efficiency, never correctness.

Source: Rue, Martino & Chopin 2009, doi:10.1111/j.1467-9868.2008.00700.x; Tierney & Kadane 1986,
doi:10.1080/01621459.1986.10478240.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.compiled import jit
from ppcore.rewrite.sites import told
from ppcore.semantics.interpret import interpret
from ppcore.semantics.log_density import LogDensity, layout

FAMILIES = ("Normal", "MultivariateNormal")
SMALLEST, LARGEST, MOST_OUTER = 3, 64, 6
STEPS, CHUNK = 6, 64
SHRINK = (1.0, 0.5, 0.2, 0.05, 0.0)


@dataclass(frozen=True, eq=False)
class Blocks:
    """Which coordinates are the latent Gaussian block, and which the rest.

    Attributes
    ----------
    sites : tuple of str
        Those of the block.
    inner, outer : int[p], int[d − p]
    """

    sites: tuple[str, ...]
    inner: np.ndarray
    outer: np.ndarray


def blocks(target: Any) -> Blocks | None:
    """The normal vector sites of a model's target as the inner block.

    None without one of at least ``SMALLEST`` coordinates, with more than ``LARGEST``, or if more
    than ``MOST_OUTER`` others remain.
    """
    if getattr(target, "labels", ()):
        return None
    boxes = {str(b.name): b for b in target.diagram.boxes() if b.op == "sample"}
    sites = tuple(
        name
        for name in target.site_slices
        if boxes[name].cod[0].shape and told(boxes[name]).family in FAMILIES
    )
    slices = [target.site_slices[name] for name in sites]
    inner = np.concatenate([np.zeros(0, int), *(np.arange(w.start, w.stop) for w in slices)])
    outer = np.setdiff1d(np.arange(target.dim), inner)
    if not SMALLEST <= len(inner) <= LARGEST or not 1 <= len(outer) <= MOST_OUTER:
        return None
    return Blocks(sites, inner, outer)


@jit(static_argnames="sites")
def _proposed(target: Any, h: Any, z: Any, start: Any, sites: tuple[str, ...]) -> Any:
    """u, log γ̂(h), log γ(u, h) and log N(u; û, A⁻¹) for each row of h and z."""
    p = start.shape[0]
    where = layout(target.diagram)
    shapes = dict(zip(where.names, where.shapes, strict=True))

    def pieces(v: Any, names: tuple[str, ...]) -> dict[str, Any]:
        ends = np.cumsum([0, *(math.prod(shapes[n]) for n in names)])
        return {
            n: v[a:b].reshape(shapes[n]) for n, a, b in zip(names, ends[:-1], ends[1:], strict=True)
        }

    others = tuple(n for n in where.names if n not in sites)

    def joint(u: Any, h: Any) -> Any:
        # Not by way of one array x: h must stay a constant of the derivatives in u.
        given = pieces(u, sites) | pieces(h, others)
        records = interpret(target.diagram, target.inputs, LogDensity(), given)[1]
        return sum(r["log_prob"].sum() for r in records.values() if "log_prob" in r)

    def curvature(u: Any, h: Any) -> Any:
        a = -jax.hessian(joint)(u, h)
        values, vectors = jnp.linalg.eigh(0.5 * (a + a.T))
        return jnp.maximum(values, 1e-6), vectors

    def one(h: Any, z: Any) -> Any:
        def newton(_: Any, state: Any) -> Any:
            u = state[0]
            values, vectors = curvature(u, h)
            step = vectors @ ((vectors.T @ jax.grad(joint)(u, h)) / values)
            tried = u + jnp.asarray(SHRINK, u.dtype)[:, None] * step
            level = jax.vmap(joint, (0, None))(tried, h)
            best = tried[jnp.argmax(jnp.where(jnp.isfinite(level), level, -jnp.inf))]
            return best, values, vectors

        # The curvature is that one step before the end: one instance of it in the program.
        state = (start, jnp.ones(p, start.dtype), jnp.eye(p, dtype=start.dtype))
        mode, values, vectors = jax.lax.fori_loop(0, STEPS, newton, state)
        half_log_volume = 0.5 * p * math.log(2 * math.pi) - 0.5 * jnp.log(values).sum()
        u = mode + vectors @ (z / jnp.sqrt(values))
        at_mode, at_u = jax.vmap(joint, (0, None))(jnp.stack([mode, u]), h)
        log_normal = -0.5 * jnp.sum(z**2) - half_log_volume
        return u, at_mode + half_log_volume, at_u, log_normal

    return jax.vmap(one)(h, z)


@dataclass(frozen=True, eq=False)
class LaplaceWithin:
    """The proposal for the inner block given the outer coordinates.

    Attributes
    ----------
    target : ModelTarget
    blocks : Blocks
    start : float[p]
        Where Newton's method begins, at any h: the block at a mode of γ.
    """

    target: Any
    blocks: Blocks
    start: np.ndarray

    def propose(
        self, h: np.ndarray, z: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """x: float[N, d], log γ̂(h), log γ(x) and log N(u; û, A⁻¹): float[N] each.

        h: float[N, d − p]; z: float[N, p], standard normal.
        """
        n = len(h)
        pad = -n % CHUNK
        h, z = (np.concatenate([v, np.repeat(v[-1:], pad, axis=0)]) for v in (h, z))
        made = [
            _proposed(self.target, a, b, self.start, self.blocks.sites)
            for a, b in zip(
                h.reshape(-1, CHUNK, h.shape[1]), z.reshape(-1, CHUNK, z.shape[1]), strict=True
            )
        ]
        u, marginal, level, normal = (
            np.concatenate([np.asarray(m[i]) for m in made])[:n] for i in range(4)
        )
        x = np.empty((n, self.target.dim))
        x[:, self.blocks.inner], x[:, self.blocks.outer] = u, h[:n]
        return x, marginal, level, normal

    def marginal(self, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log γ̂ at each row of float[N, d − p]; and zeros where evaluations have gradients."""
        return self.propose(h, np.zeros((len(h), len(self.blocks.inner))))[1], np.zeros_like(h)
