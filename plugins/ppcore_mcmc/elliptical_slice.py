"""Elliptical slice sampling of any target, around a Student-t that was fitted to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.contract import Contract, Invariant
from ppcore.settings import check_count
from ppcore_mcmc.metropolis import Scored, score
from ppcore_mcmc.pseudo_prior import StudentT


class Bracket(NamedTuple):
    """Angles [low, high] around 0, the angle evaluated next, and the point found."""

    low: Any
    high: Any
    angle: Any
    tried: Any
    done: Any
    found: Scored


@dataclass(frozen=True)
class EllipticalSlice:
    """Slice sampling on an ellipse through x and a draw from the pseudo-prior T_ν(m, F Fᵀ).

    With R(x) = log γ(x) − log T_ν(x): s | x from the scale mixture that T_ν is; ξ ~ N(m, s F Fᵀ);
    h = R(x) + log U; and θ drawn uniformly from a bracket that shrinks towards 0 until
    y = m + (x − m) cos θ + (ξ − m) sin θ has R(y) > h. Given s the ellipse and the height this is
    reversible for γ(x) p(s | x), and x alone for γ. The pseudo-prior is frozen after warm-up; any
    leaves γ invariant, and one near γ makes most first tries succeed. After ``max_tries`` the chain
    stays, which is reversible too.

    Parameters
    ----------
    dof : int or None
        ν of the pseudo-prior; None is a Gaussian, which is slow where γ has heavier tails.
    max_tries : int

    Raises
    ------
    ppcore.errors.SettingsError
        If ``dof`` or ``max_tries`` is not a positive integer.

    Source: Murray, Adams & MacKay 2010, arXiv:1001.0175; Nishihara, Murray & Adams 2014,
    arXiv:1210.7477 (any target, by a fitted Student-t).

    >>> EllipticalSlice(dof=10).needs
    ()
    """

    dof: int | None = 5
    max_tries: int = 32
    contract: ClassVar[Contract] = Invariant(reversible=True)
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_count("max_tries", self.max_tries, 1)
        if self.dof is not None:
            check_count("dof", self.dof, 1)

    def init(self, key: Any, target: Any, x: Any, params: StudentT) -> Scored:
        return score(target, x)

    def refresh(self, target: Any, state: Scored) -> Scored:
        return score(target, state.x)

    def step(
        self, key: Any, target: Any, state: Scored, params: StudentT
    ) -> tuple[Scored, dict[str, Any]]:
        k_scale, k_other, k_height, k_angle = random.split(key, 4)
        x, dtype = state.x, state.x.dtype
        away = x - params.location
        square = jnp.sum(params.whiten(x) ** 2)
        s = params.scale(k_scale, square, x.shape[0])
        z = random.normal(k_other, x.shape, dtype)
        other = jnp.sqrt(s) * (params.factor @ z)
        u = random.uniform(k_height, (), dtype)
        height = state.log_density - params.log_prob(x) + jnp.log1p(-u)
        turns = random.uniform(k_angle, (self.max_tries,), dtype)
        first = 2 * math.pi * turns[0]
        zero = jnp.zeros((), jnp.int32)
        start = Bracket(first - 2 * math.pi, first, first, zero, jnp.zeros((), bool), state)

        def going(b: Bracket) -> Any:
            return ~b.done & (b.tried < self.max_tries)

        def look(b: Bracket) -> Bracket:
            y = params.location + away * jnp.cos(b.angle) + other * jnp.sin(b.angle)
            point = score(target, y)
            hit = point.log_density - params.log_prob(y) > height
            low = jnp.where(b.angle < 0, b.angle, b.low)
            high = jnp.where(b.angle < 0, b.high, b.angle)
            tried = b.tried + 1
            angle = low + turns[jnp.minimum(tried, self.max_tries - 1)] * (high - low)
            found = Scored(*(jnp.where(hit, a, b) for a, b in zip(point, b.found, strict=True)))
            return Bracket(low, high, angle, tried, hit, found)

        end = jax.lax.while_loop(going, look, start)
        info = {"log_density": end.found.log_density, "n_evaluations": end.tried}
        return end.found, info
