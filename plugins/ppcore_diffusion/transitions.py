"""Transitions with learned drifts: every overdamped sampler is a choice of two means.

F(y | x) = N(m_F(x), diag σ_F²) and B(x | y) = N(m_B(y), diag σ_B²) may be anything; the path
formula of :mod:`ppcore.paths` weighs them. A step k goes from b_k to b_{k+1}; what depends on time
is taken at the middle for F and B alike, so that each is the other's mirror image. With scale s_k
and share τ_k ∈ (0, 1), both learned, x + τ s² ∇ log γ_b(x) + s √(τ(2 − τ)) z is the Langevin step
that leaves N(m, s²) exactly invariant; small τ gives the usual Euler step of time τ s².
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.paths import increment
from ppcore_diffusion.frame import Mixture, Point, Route, log_normal, pack, unpack
from ppcore_diffusion.network import control

REACH = 10.0


def temperatures(tables: dict[str, Any]) -> Any:
    """b_0 = 0 < … < b_K = 1, sums of softmax(schedule); float[K + 1]."""
    inner = jnp.cumsum(jax.nn.softmax(tables["schedule"]))[:-1]
    ends = jnp.zeros(1, inner.dtype), jnp.ones(1, inner.dtype)
    return jnp.concatenate([ends[0], inner, ends[1]])


@dataclass(frozen=True)
class Step:
    """One step's numbers: its place on the path, its scales, its controls.

    Attributes
    ----------
    weights : dict
        All that is learned.
    path : Route
    k : int
    a, b : float[]
        b_k and b_{k+1}.
    tau, scale : float[], float[d]
        τ_k and s_k.
    """

    weights: Any
    path: Route
    k: Any
    a: Any
    b: Any
    tau: Any
    scale: Any

    def force(self, x: Point) -> Any:
        """s ∇ log γ_b(x) at the middle of the step, clipped to ±10."""
        slope = self.scale * self.path.score(0.5 * (self.a + self.b), x)
        return jnp.clip(slope, -REACH, REACH)

    def lean(self, x: Point) -> Any:
        """s (∇ log γ(x) + x), clipped to ±10: the target's score relative to N(0, I)."""
        return jnp.clip(self.scale * (x.score + x.u), -REACH, REACH)

    def control(self, name: str, x: Point) -> Any:
        """The control called ``name`` at x; float[d]."""
        weights = self.weights[name]
        time = (self.k + 0.5) / weights["bias"].shape[0]
        return control(weights, self.k, time, x.u, self.scale * x.score)

    @property
    def noise(self) -> Any:
        """s √(τ (2 − τ)); float[d]."""
        return self.scale * jnp.sqrt(self.tau * (2.0 - self.tau))

    @property
    def push(self) -> Any:
        """s √τ, the size of a control's displacement; float[d]."""
        return self.scale * jnp.sqrt(self.tau)

    def langevin(self, x: Point) -> Any:
        """x + τ s² ∇ log γ_b(x); float[d]."""
        return x.u + self.tau * self.scale * self.force(x)


Kernel = Callable[[Step, Point], tuple[Any, Any]]


@dataclass(frozen=True)
class Overdamped:
    """A sampler of places: (mean, standard deviation) of F at x, and of B at y.

    Attributes
    ----------
    forward, backward : callable
        ``(step, point) -> (mean, sd)``: float[d] each.
    controls : tuple of str
        The networks that they ask for.
    noising : bool
        Whether B is a noising process of its own (DDS, DIS, PIS), whose times then decide the
        schedule, and not the temperatures of an annealing run.
    """

    forward: Kernel
    backward: Kernel
    controls: tuple[str, ...] = ("control",)
    noising: bool = False
    moving = False
    walk_learned = True

    def go(self, z: Any, step: Step, x: Point) -> Point:
        """y ~ F(· | x), for z ~ N(0, I)."""
        mean, sd = self.forward(step, x)
        u = mean + sd * z
        return step.path.visit(u, x.root, x.v, x.kick)

    def ratio(self, step: Step, x: Point, y: Point) -> Any:
        """log B(x | y) − log F(y | x); float[]."""
        back, ahead = self.backward(step, y), self.forward(step, x)
        return log_normal(x.u, *back) - log_normal(y.u, *ahead)


@dataclass(frozen=True)
class Learned:
    """A :class:`ppcore.paths.Transition` of packed points, with what was learned.

    Attributes
    ----------
    kind : Overdamped or Underdamped
    weights : dict
        ``reference``, ``tables``, and one entry for each control.
    """

    kind: Any
    weights: Any
    early = False

    def at(self, path: Route, a: Any, b: Any, k: Any) -> Step:
        """The numbers of step ``k``."""
        tables = self.weights["tables"]
        tau, scale = jax.nn.sigmoid(tables["share"][k]), jnp.exp(tables["log_scale"][k])
        return Step(self.weights, path, k, a, b, tau, scale)

    def weigh(self, path: Any, a: Any, b: Any, x: Any, params: Any) -> Any:
        """Zero: all of the weight comes after the step."""
        return jnp.zeros((), x.dtype)

    def step(self, key: Any, path: Any, a: Any, b: Any, x: Any, params: Any) -> tuple[Any, Any]:
        """``(y, log G)``; ``params`` is k."""
        return self.moved(random.normal(key, (path.dim,), x.dtype), path, a, b, x, params)

    def moved(self, z: Any, path: Route, a: Any, b: Any, x: Any, k: Any) -> tuple[Any, Any]:
        """As :meth:`step`, for z ~ N(0, I): float[d]."""
        y = self.gone(z, path, a, b, x, k)
        return y, self.log_g(path, a, b, k, x, y)

    def gone(self, z: Any, path: Route, a: Any, b: Any, x: Any, k: Any) -> Any:
        """y alone, unweighed: a packed point."""
        return pack(self.kind.go(z, self.at(path, a, b, k), unpack(x, path.dim)))

    def log_g(self, path: Route, a: Any, b: Any, k: Any, x: Any, y: Any) -> Any:
        """log G of a step from x to y, however they were come by: packed points -> float[]."""
        step = self.at(path, a, b, k)
        ratio = self.kind.ratio(step, unpack(x, path.dim), unpack(y, path.dim))
        return increment(path.at(a), path.at(b), x, y, ratio)


def route(kind: Any, weights: Any, frame: Any) -> tuple[Learned, Route, Any]:
    """Transition, path and temperatures of what was learned."""
    reference: Mixture = weights["reference"]
    return Learned(kind, weights), Route(reference, frame), temperatures(weights["tables"])


def _plain(step: Step, x: Point) -> tuple[Any, Any]:
    return step.langevin(x), step.noise


def _controlled(name: str, sign: float) -> Kernel:
    def kernel(step: Step, x: Point) -> tuple[Any, Any]:
        return step.langevin(x) + sign * step.push * step.control(name, x), step.noise

    return kernel


def _widened(name: str) -> Kernel:
    """Langevin with a control and a width of its own."""

    def kernel(step: Step, x: Point) -> tuple[Any, Any]:
        width = jnp.exp(step.weights["tables"]["width_" + name][step.k])
        return step.langevin(x) + step.push * step.control(name, x), width * step.noise

    return kernel


def _dds_forward(step: Step, x: Point) -> tuple[Any, Any]:
    relative = 0.5 * (step.a + step.b) * step.lean(x)
    drift = 2.0 * step.tau * step.scale * relative + 2.0 * step.push * step.control("control", x)
    return (1.0 - step.tau) * x.u + drift, jnp.sqrt(step.tau * (2.0 - step.tau))


def _dds_backward(step: Step, y: Point) -> tuple[Any, Any]:
    return (1.0 - step.tau) * y.u, jnp.sqrt(step.tau * (2.0 - step.tau))


def _dis_forward(step: Step, x: Point) -> tuple[Any, Any]:
    score = 2.0 * step.tau * step.scale * step.force(x)
    control = 2.0 * step.push * step.control("control", x)
    return (1.0 + step.tau) * x.u + score + control, jnp.sqrt(2.0 * step.tau)


def _dis_backward(step: Step, y: Point) -> tuple[Any, Any]:
    return (1.0 - step.tau) * y.u, jnp.sqrt(2.0 * step.tau)


def _pis_times(step: Step) -> tuple[Any, Any]:
    first = 1.0 / (step.weights["tables"]["share"].shape[0] + 1)
    return first + (1.0 - first) * step.a, first + (1.0 - first) * step.b


def _pis_forward(step: Step, x: Point) -> tuple[Any, Any]:
    start, end = _pis_times(step)
    gap = end - start
    drift = gap * 0.5 * (start + end) * step.lean(x) / step.scale
    return x.u + drift + jnp.sqrt(gap) * step.control("control", x), jnp.sqrt(gap)


def _pis_backward(step: Step, y: Point) -> tuple[Any, Any]:
    start, end = _pis_times(step)
    return y.u * start / end, jnp.sqrt(start * (end - start) / end)


CMCD = Overdamped(_controlled("control", 1.0), _controlled("control", -1.0))
MCD = Overdamped(_plain, _controlled("control", -1.0))
DBS = Overdamped(_widened("ahead"), _widened("back"), controls=("ahead", "back"))
DDS = Overdamped(_dds_forward, _dds_backward, noising=True)
DIS = Overdamped(_dis_forward, _dis_backward, noising=True)
PIS = Overdamped(_pis_forward, _pis_backward, noising=True)
