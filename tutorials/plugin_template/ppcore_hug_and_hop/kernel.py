"""Hug and hop: a long move along a contour of the density, then a short one across contours."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.chains import KernelEngine
from ppcore.contract import Contract, Invariant
from ppcore.settings import check_between, check_count


class State(NamedTuple):
    x: Any
    log_density: Any
    gradient: Any


class Params(NamedTuple):
    preconditioner: Any
    step_size: Any
    length: Any


@dataclass(frozen=True)
class HugAndHop:
    """Two Metropolis moves in turn, each reversible for γ; the second can reach every point."""

    bounces: int = 5
    ratio: float = 0.5
    contract: ClassVar[Contract] = Invariant()
    needs: ClassVar[tuple[str, ...]] = ("gradient",)
    target_accept: ClassVar[float] = 0.5

    def __post_init__(self) -> None:
        check_count("bounces", self.bounces, 1)
        check_between("ratio", self.ratio, 0, 100)

    def parameters(self, preconditioner: Any, step: Any, length: Any) -> Params:
        return Params(preconditioner, step, length)

    def init(self, key: Any, target: Any, x: Any, params: Params) -> State:
        return State(x, *jax.value_and_grad(target.log_density)(x))

    def refresh(self, target: Any, state: State) -> State:
        return State(state.x, *jax.value_and_grad(target.log_density)(state.x))

    def step(self, key: Any, target: Any, state: State, params: Params) -> tuple[State, dict]:
        k_hug, k_hop = random.split(key)
        state, _ = self.hug(k_hug, target, state, params)
        state, rate = self.hop(k_hop, target, state, params)
        return state, {"acceptance_rate": rate, "n_gradients": jnp.int32(self.bounces + 2)}

    def hug(self, key: Any, target: Any, state: State, params: Params) -> tuple[State, Any]:
        """v ~ N(0, I), then ``bounces`` times: x += ½δFv; v −= 2(v·n)n, n ∝ Fᵀ∇log γ; x += ½δFv."""
        k_velocity, k_accept = random.split(key)
        f, half = params.preconditioner, 0.5 * params.length / self.bounces

        def bounce(_: int, at: tuple[Any, Any]) -> tuple[Any, Any]:
            x, v = at
            x = x + half * f.push(v)
            g = f.pull(jax.grad(target.log_density)(x))
            v = v - 2 * (v @ g) / (g @ g) * g
            return x + half * f.push(v), v

        v = random.normal(k_velocity, state.x.shape, state.x.dtype)
        x, _ = jax.lax.fori_loop(0, self.bounces, bounce, (state.x, v))
        new = self.refresh(target, state._replace(x=x))
        return accept(k_accept, new.log_density - state.log_density, new, state)

    def hop(self, key: Any, target: Any, state: State, params: Params) -> tuple[State, Any]:
        """y = x + Fw, w normal with sd λ/‖g‖ on g = Fᵀ∇log γ(x), and ``ratio`` as much beside."""
        k_move, k_accept = random.split(key)
        f, scale = params.preconditioner, params.step_size
        g = f.pull(state.gradient)
        n = g / jnp.linalg.norm(g)
        z = random.normal(k_move, state.x.shape, state.x.dtype)
        w = scale * (self.ratio * z + (1 - self.ratio) * (z @ n) * n) / jnp.linalg.norm(g)
        new = self.refresh(target, state._replace(x=state.x + f.push(w)))
        back, forth = self.log_hop(w / scale, f.pull(new.gradient)), self.log_hop(w / scale, g)
        return accept(k_accept, new.log_density - state.log_density + back - forth, new, state)

    def log_hop(self, w: Any, g: Any) -> Any:
        """The log density of a hop by λw where the gradient is g, up to a constant."""
        on = (w @ g) ** 2
        beside = (w @ w) * (g @ g) - on
        return 0.5 * (w.size * jnp.log(g @ g) - on - beside / self.ratio**2)


def accept(key: Any, log_ratio: Any, new: State, old: State) -> tuple[State, Any]:
    """``new`` with probability min(1, exp(log_ratio)), and that; NaN is a rejection."""
    rate = jnp.exp(jnp.minimum(0.0, jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)))
    yes = random.bernoulli(key, rate)
    return jax.tree.map(lambda a, b: jnp.where(yes, a, b), new, old), rate


def hug_and_hop(bounces: int = 5, ratio: float = 0.5) -> KernelEngine:
    """Many chains of :class:`HugAndHop`, tuned together."""
    return KernelEngine(HugAndHop(bounces, ratio))
