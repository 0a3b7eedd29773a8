"""Stochastic-gradient Hamiltonian Monte Carlo: underdamped Langevin over minibatches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from ppcore import random
from ppcore.chains import KernelEngine
from ppcore.settings import check_between
from ppcore.tuning.preconditioner import Preconditioner
from ppcore_langevin.moves import engine_of
from ppcore_langevin.sgld import Stochastic, moved
from ppcore_langevin.underdamped import Friction, refreshed


class Gliding(NamedTuple):
    """``x`` and its whitened momentum ``p``: float[d] each."""

    x: Any
    p: Any


@dataclass(frozen=True)
class SGHMC(Stochastic):
    """Underdamped Langevin, split A-B-O-B-A, with the gradient of a minibatch.

    x += ½h F p; p += ½h b̂; p ← c p + √(1 − c²) z with c = e^{−γh}; p += ½h b̂; x += ½h F p, where
    b̂ = Fᵀĝ is estimated once, from a fresh minibatch at the midpoint. Friction takes out the heat
    that the noise of b̂ brings in: it is h v/2γ of the momentum's variance, v the whitened variance
    of ĝ, so that the bias is of first order at a fixed minibatch size, and of second with full
    gradients. The step size is tuned so that exp(−h|b̂|²/2γd), which bounds that heat from above,
    has mean ``target_accept``.

    Parameters
    ----------
    plate : str, optional
        By default the largest that holds evidence.
    size : int
        Elements in a minibatch.
    friction : float
        γ, in (0, 1000).

    Raises
    ------
    ppcore.errors.SettingsError
        If ``size`` or ``friction`` is out of range.

    Source: Chen, Fox & Guestrin 2014, arXiv:1402.4102; Leimkuhler & Shang 2016, arXiv:1505.06889
    (splittings with noisy gradients).

    >>> SGHMC(size=10).auxiliary
    ('p',)
    """

    friction: float = 5.0
    auxiliary: ClassVar[tuple[str, ...]] = ("p",)
    target_accept: ClassVar[float] = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        check_between("friction", self.friction, 0, 1000)

    def parameters(self, preconditioner: Preconditioner, step: Any, length: Any) -> Friction:
        return Friction(preconditioner, step, self.friction)

    def init(self, key: Any, target: Any, x: Any, params: Friction) -> Gliding:
        return Gliding(x, random.normal(key, x.shape, x.dtype))

    def refresh(self, target: Any, state: Gliding) -> Gliding:
        return state

    def step(
        self, key: Any, target: Any, state: Gliding, params: Friction
    ) -> tuple[Gliding, dict[str, Any]]:
        k_batch, k_noise = random.split(key)
        f, h, friction = params
        x = state.x + 0.5 * h * f.push(state.p)
        b = f.pull(self.gradient(k_batch, target, x))
        z = random.normal(k_noise, x.shape, x.dtype)
        p = refreshed(state.p + 0.5 * h * b, z, jnp.exp(-friction * h)) + 0.5 * h * b
        end = Gliding(x + 0.5 * h * f.push(p), p)
        return moved(end, state, 0.5 * h * jnp.mean(b**2) / friction)


def engine(
    plate: str | None = None,
    size: int = 32,
    friction: float = 5.0,
    target_accept: float = 0.95,
    metric: str = "auto",
    warmup_draws: int = 320,
    max_warmup_draws: int = 1280,
    most_thin: int = 32,
) -> KernelEngine:
    """:class:`SGHMC` with many chains in lockstep, tuned together.

    Parameters
    ----------
    plate : str, optional
        The plate to draw minibatches from; by default the largest that holds evidence.
    size : int
        Elements in a minibatch.
    friction : float
        γ in units of one over the whitened diffusion's time.
    target_accept : float
        Mean of exp(−heat), with a bound on the heat that the gradient's noise brings in, to tune
        the step size for.
    metric : str
        "auto", "dense", "low_rank" or "diagonal".
    warmup_draws, max_warmup_draws : int
        Draws per chain to adapt with, and the most where chains have not settled.
    most_thin : int
        The most transitions that may make one draw.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.

    >>> engine(metric="diagonal").default_chains
    64
    """
    kernel = SGHMC(plate, size, friction)
    return engine_of(kernel, target_accept, metric, warmup_draws, max_warmup_draws, most_thin)
