"""NeuTra: any chain in the coordinates in which a trained flow makes the target a Gaussian."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import contract as rules
from ppcore import registry
from ppcore.compose.precondition import Pulled
from ppcore.contract import Contract, Invariant, Transport
from ppcore.engine import Report, Warm
from ppcore.errors import CompositionError
from ppcore.tuning.noise import is_traced, spawned
from ppcore_flows.flow import Design, learn
from ppcore_flows.training import Training


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Straight:
    """The frozen map T, and what the inner engine's warm-up froze."""

    map: Any
    inner: Any


class Pushed(NamedTuple):
    """The inner engine's carry, in the coordinates u = T⁻¹(x)."""

    inner: Any


@dataclass(frozen=True)
class NeuTra:
    """T⁻¹ ∘ K ∘ T: chains of γ(T(u)) |det ∂T/∂u|, seen in x; keeps what K promises.

    T is a flow trained by annealed reverse KL, then frozen. Exact whatever T is, since only the
    geometry depends on it. Wins in high dimension where the curvature varies (funnels, bananas,
    hierarchies); a flow that has lost a mode makes that mode harder to reach, not easier.

    Parameters
    ----------
    inner : str
        Name of the engine that runs in u ("hmc", "nuts", ...).
    map, layers, width, bins, steps, batch, rate, anneal
        See :class:`ppcore_flows.flow.Design` and :class:`ppcore_flows.training.Training`.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range or unknown.
    ppcore.errors.CompositionError
        If ``inner`` names no engine of chains that leave the target invariant.

    Source: Hoffman et al. 2019, arXiv:1903.03704; Parno & Marzouk 2018, arXiv:1412.5492.

    >>> NeuTra().contract
    Invariant(reversible=True, irreducible=True)
    """

    inner: str = "hmc"
    map: str = "affine_coupling"
    layers: int = 0
    width: int = 32
    bins: int = 8
    steps: int = 600
    batch: int = 128
    rate: float = 5e-3
    anneal: float = 0.5
    default_chains: ClassVar[int] = 64
    default_draws: ClassVar[int] = 400
    compiled: ClassVar[bool] = True
    fitted: ClassVar[bool] = True
    block_size: ClassVar[int] = 80

    def __post_init__(self) -> None:
        _ = self.design

    @property
    def design(self) -> Design:
        """What flow to train, and how; on a Gaussian base, which the chains see."""
        training = Training(self.steps, self.batch, self.rate, self.anneal)
        shape = (self.map, "gaussian", self.layers, self.width, self.bins)
        return Design(*shape, training=training)

    @cached_property
    def _inner(self) -> Any:
        engine = registry.engine(self.inner)
        if not isinstance(engine.contract, Invariant) or not getattr(engine, "compiled", False):
            raise CompositionError(
                f"inner={self.inner!r} is no engine of chains that leave the target invariant and "
                "compile themselves. Use 'hmc' or 'nuts'."
            )
        return engine

    @property
    def contract(self) -> Contract:
        return rules.precondition(self._inner.contract, Transport())

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """("inner",) if the inner state holds random variables of its own."""
        return ("inner",) if getattr(self._inner, "auxiliary", ()) else ()

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        """The flow, then the inner engine's own warm-up in its coordinates.

        Raises what :func:`ppcore_flows.flow.learn` raises.
        """
        k_learn, k_inner = spawned(key, 2)
        made = learn(k_learn, target, self.design, report, "neutra")
        bijection = made.density.map
        warm = self._inner.warmup(k_inner, Pulled(target, bijection), chains, report)
        x, _ = pushed(bijection, jnp.asarray(warm.x))
        spent = made.evaluations + warm.gradients
        tuned = Straight(bijection, warm.tuned)
        return replace(
            warm, tuned=tuned, x=np.asarray(x), gradients=spent, notes=(*made.notes, *warm.notes)
        )

    def init(self, key: Any, target: Any, tuned: Straight, x: Any) -> Pushed:
        """The inner carry at T⁻¹(x); x: float[chains, d]."""
        u = pulled(tuned.map, jnp.asarray(x))
        return Pushed(self._inner.init(key, Pulled(target, tuned.map), tuned.inner, u))

    def block(
        self, key: Any, target: Any, tuned: Straight, carry: Pushed, n: int
    ) -> tuple[Pushed, Any, dict[str, Any]]:
        """``n`` draws of every chain; draws: float[chains, n, d]."""
        straight = Pulled(target, tuned.map)
        inner, u, stats = self._inner.block(key, straight, tuned.inner, carry.inner, n)
        chains, _, dim = u.shape
        x, log_det = pushed(tuned.map, jnp.reshape(u, (chains * n, dim)))
        x, log_det = jnp.reshape(x, u.shape), jnp.reshape(log_det, (chains, n))
        if "log_density" in stats:
            stats = stats | {"log_density": stats["log_density"] - log_det}
        if not is_traced(x):
            x, stats = np.asarray(x), {name: np.asarray(v) for name, v in stats.items()}
        return Pushed(inner), x, stats


@jax.jit
def pushed(bijection: Any, u: Any) -> tuple[Any, Any]:
    """``(T(u), log|det ∂T|)`` for each row of ``u``: float[N, d]."""
    return jax.vmap(bijection.forward)(u)


@jax.jit
def pulled(bijection: Any, x: Any) -> Any:
    """T⁻¹(x) for each row of ``x``: float[N, d]."""
    return jax.vmap(lambda v: bijection.inverse(v)[0])(x)
