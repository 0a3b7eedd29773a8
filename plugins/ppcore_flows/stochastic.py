"""Layers of maps and random moves: one scan over stacked parameters, weighed as a path.

Each layer carries a population from γ_{b_{k−1}} to γ_{b_k} by a map T_k and then moves it. With a
Markov kernel that leaves γ_{b_k} invariant the moves weigh nothing (annealed flow transport); with
Langevin steps that no test corrects, the path of every particle carries their weight (stochastic
flows). Both are transitions of :func:`ppcore.paths.follow`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ppcore import contract as rules
from ppcore import random
from ppcore.contract import Contract, ProperlyWeighted, Transport
from ppcore.kernel import check_kernel, needs
from ppcore.paths import Path, Tempering, apply, follow, increment
from ppcore.population import Population
from ppcore.settings import check_between
from ppcore.stages import Prior, Resample, Stage

NEVER = 1e-9
"""A threshold of the effective sample size below which no population comes."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Framed:
    """A∘M∘A⁻¹ with A(u) = shift + scale · u: a map M in the units of where it works.

    Attributes
    ----------
    inner : Map
        M.
    shift, scale : float[d]
        Left alone by training.
    """

    inner: Any
    shift: Any
    scale: Any
    contract: ClassVar[Contract] = Transport()

    @property
    def dim(self) -> int:
        return int(self.shift.shape[0])

    def forward(self, x: Any) -> tuple[Any, Any]:
        """``(T(x), log|det ∂T|)``; x: float[d]. The determinants of A and A⁻¹ cancel."""
        shift, scale = jax.lax.stop_gradient((self.shift, self.scale))
        u, log_det = self.inner.forward((x - shift) / scale)
        return shift + scale * u, log_det

    def inverse(self, y: Any) -> tuple[Any, Any]:
        """``(T⁻¹(y), log|det ∂T⁻¹|)``; y: float[d]."""
        shift, scale = jax.lax.stop_gradient((self.shift, self.scale))
        u, log_det = self.inner.inverse((y - shift) / scale)
        return shift + scale * u, log_det


@dataclass(frozen=True)
class Carried:
    """F = Kⁿ after T, B the reversal of Kⁿ before T⁻¹; K leaves γ_b invariant.

    log G = log γ_b(T(x)) − log γ_a(x) + log|det ∂T(x)|: what K does cancels, and T(x) is known
    before it, so that a population may be resampled before it moves. Parameters are (T, K's).

    Parameters
    ----------
    kernel : Kernel
    steps : int
        n.

    Source: Arbel, Matthews & Doucet 2021, arXiv:2102.07501.
    """

    kernel: Any
    steps: int = 1
    early = True

    def weigh(self, path: Path, a: Any, b: Any, x: Any, params: Any) -> Any:
        y, log_det = params[0].forward(x)
        log_g = increment(path.at(a), path.at(b), x, y, log_det)
        # An undefined likelihood is an impossible one, as it is for every Metropolis test.
        return jnp.where(jnp.isnan(log_g), -jnp.inf, log_g)

    def step(self, key: Any, path: Path, a: Any, b: Any, x: Any, params: Any) -> tuple[Any, Any]:
        y, _ = params[0].forward(x)
        y, _ = apply(key, self.kernel, path.at(b), y, params[1], self.steps)
        return y, jnp.zeros((), x.dtype)


@dataclass(frozen=True)
class Stirred:
    """T, then m Langevin steps x′ = x + F (h s(x) + √(2h) z), s = Fᵀ∇log γ_b, none of them tested.

    B takes the same steps back: log B/F = log|det ∂T| + Σ ½(|z|² − |z′|²), with
    z′ = −(z + √(h/2) (s(x) + s(x′))) the noise that leads back. E[w] = Z for every h > 0; all of it
    can be differentiated. Parameters are (T, F, log √(2h)).

    Parameters
    ----------
    steps : int
        m.

    Source: Wu, Köhler & Noé 2020, arXiv:2002.06707; Nilmeier, Crooks, Minh & Chodera 2011,
    doi:10.1073/pnas.1106094108.
    """

    steps: int = 1
    early = False

    def weigh(self, path: Path, a: Any, b: Any, x: Any, params: Any) -> Any:
        raise AssertionError("weighed after its step")

    def step(self, key: Any, path: Path, a: Any, b: Any, x: Any, params: Any) -> tuple[Any, Any]:
        flow, scale, log_step = params
        law, spread = path.at(b), jnp.exp(log_step)
        score = jax.grad(law.log_density)
        y, ratio = flow.forward(x)

        def stir(k: Any, carry: Any, _: Any) -> tuple[Any, None]:
            y, drift, ratio = carry
            z = random.normal(k, y.shape, y.dtype)
            y = y + scale.push(0.5 * spread**2 * drift + spread * z)
            after = scale.pull(score(y))
            back = z + 0.5 * spread * (drift + after)
            return (y, after, ratio + 0.5 * (jnp.sum(z**2) - jnp.sum(back**2))), None

        begin = (y, scale.pull(score(y)), ratio)
        (y, _, ratio), _ = random.scan(stir, key, begin, jnp.zeros(self.steps), self.steps)
        log_g = increment(path.at(a), law, x, y, ratio)
        return y, jnp.where(jnp.isnan(log_g), -jnp.inf, log_g)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["betas", "maps", "moves"],
    meta_fields=["kernel", "steps", "threshold"],
)
@dataclass(frozen=True)
class FlowAnneal(Stage):
    """For each k: x ← T_k(x), weighed for γ_{b_k}; resample; n moves that leave γ_{b_k} invariant.

    log G_k = log γ_{b_k}(T_k(x)) − log γ_{b_{k−1}}(x) + log|det ∂T_k(x)|, so E[Ẑ] = Z for all maps
    that were fixed before; with maps that are the identity, this is SMC.

    Attributes
    ----------
    betas : float[K + 1]
        b_0 = 0 < … < b_K = 1.
    maps : Map
        T_1, …, T_K, stacked: every leaf has a leading axis K.
    moves : pytree
        Parameters of the kernel, stacked.
    kernel : Kernel
    steps : int
        n.
    threshold : float
        Resample where ESS ≤ threshold · N.

    Source: Arbel, Matthews & Doucet 2021, arXiv:2102.07501; Matthews, Arbel, Rezende & Doucet
    2022, arXiv:2201.13117.
    """

    betas: Any
    maps: Any
    moves: Any
    kernel: Any
    steps: int = 1
    threshold: float = 0.5

    @property
    def start(self) -> float:  # type: ignore[override]
        return 0.0

    @property
    def end(self) -> float:  # type: ignore[override]
        return 1.0

    @property
    def needs(self) -> tuple[str, ...]:
        return needs(self.kernel)

    @property
    def contract(self) -> Contract:
        check_kernel(self.kernel, "FlowAnneal")
        return rules.stages(ProperlyWeighted(), self.kernel.contract)

    @property
    def transition(self) -> Carried:
        """One layer."""
        return Carried(self.kernel, self.steps)

    def along(self, key: Any, path: Path, at: Any, population: Population) -> Population:
        given = (self.maps, self.moves)
        rule = resampling(self.threshold)
        return follow(key, path, self.betas, self.transition, population, rule, given, True)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["maps", "scales", "log_steps", "rises"],
    meta_fields=["steps", "threshold"],
)
@dataclass(frozen=True)
class StochasticFlow(Stage):
    """For each k: x ← T_k(x), then m Langevin steps for γ_{b_k}, weighed for their whole path.

    Every part is trained together, the temperatures too: b_k = Σ_{j≤k} softmax(rises)_j. Without
    resampling the weight is that of the path, log w = log γ(x_K) − log γ_0(x_0) + Σ_k log B_k/F_k.

    Attributes
    ----------
    maps : Map
        T_1, …, T_K, stacked.
    scales : Preconditioner
        F_k, stacked; left alone by training.
    log_steps : float[K]
        log √(2h_k), in units of F_k.
    rises : float[K]
    steps : int
        m.
    threshold : float
        Resample where ESS ≤ threshold · N; 0 for never.

    Source: Wu, Köhler & Noé 2020, arXiv:2002.06707.
    """

    maps: Any
    scales: Any
    log_steps: Any
    rises: Any
    steps: int = 1
    threshold: float = 0.0

    @property
    def start(self) -> float:  # type: ignore[override]
        return 0.0

    @property
    def end(self) -> float:  # type: ignore[override]
        return 1.0

    @property
    def needs(self) -> tuple[str, ...]:
        return ("gradient",)

    @property
    def contract(self) -> Contract:
        return ProperlyWeighted()

    @property
    def betas(self) -> Any:
        """b_0 = 0, …, b_K = 1: float[K + 1]."""
        inner = jnp.cumsum(jax.nn.softmax(self.rises))[:-1]
        ends = jnp.zeros(1, inner.dtype)
        return jnp.concatenate([ends, inner, ends + 1.0])

    def along(self, key: Any, path: Path, at: Any, population: Population) -> Population:
        given = (self.maps, jax.lax.stop_gradient(self.scales), self.log_steps)
        rule = resampling(self.threshold)
        return follow(key, path, self.betas, Stirred(self.steps), population, rule, given, True)


def resampling(threshold: float) -> Any:
    """``(key, population) -> population`` below a share of the effective size; None for never."""
    if threshold <= NEVER:
        return None
    rule = Resample(threshold=threshold)
    return lambda key, population: rule.chosen(key, population)[0]


def check_threshold(threshold: Any) -> None:
    """Raise :class:`ppcore.errors.SettingsError` unless 0 ≤ threshold ≤ 1."""
    check_between("threshold", threshold, -1e-12, 1 + 1e-12)


def stacked(tree: Any, count: int) -> Any:
    """``count`` equal copies of every leaf along a new first axis."""
    return jax.tree.map(lambda v: jnp.broadcast_to(v, (count, *jnp.shape(v))), tree)


def carried(key: Any, stage: Any, target: Any, n: int) -> Population:
    """``n`` draws from the reference of ``target``, and where ``stage`` leaves them."""
    k_prior, k_stage = random.split(key)
    start = Prior().draw(k_prior, target, n)
    return stage.along(k_stage, Tempering(target), 0.0, start)  # type: ignore[no-any-return]


run = jax.jit(carried, static_argnames="n")
