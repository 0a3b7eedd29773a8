"""The proximal sampler, "in and out": a Gaussian step out, and back by the restricted oracle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.chains import KernelEngine
from ppcore.contract import Contract, Invariant
from ppcore.settings import check_count
from ppcore.tuning.preconditioner import Preconditioner
from ppcore_langevin.moves import Step, engine_of


class Placed(NamedTuple):
    """``x`` float[d] with its ``log_density`` float[]."""

    x: Any
    log_density: Any


@dataclass(frozen=True)
class InAndOut:
    """Alternate y | x ~ N(x, η F Fᵀ) and x | y ∝ γ(x) exp(−|F⁻¹(x − y)|²/2η).

    The second, the restricted Gaussian oracle, is drawn with the help of the gradient at y: from
    q_y = N(y + η F Fᵀ∇ log γ(y), η F Fᵀ) the density to importance weights is, up to a constant,
    w(x) = γ(x) exp(−⟨∇ log γ(y), x − y⟩). Of ``tries`` draws from q_y and the present x, one is
    chosen with probability ∝ w. Given y, this leaves the oracle's law invariant and is reversible
    for it, whatever γ and however many tries; so the whole is reversible for γ. It tends to an
    independent draw from the oracle as ``tries`` grows. If γ is log-concave, w(x) ≤ γ(y), as in
    the rejection sampler of the sources; where γ is uniform on a body, w says whether x is inside.
    At a y outside the support the gradient is taken as 0.

    Parameters
    ----------
    tries : int
        Draws from q_y in one transition; as many evaluations of log γ, side by side.

    Raises
    ------
    ppcore.errors.SettingsError
        If ``tries`` is not a positive integer.

    Source: Lee, Shen & Tian 2021, arXiv:2010.03106; Kook, Vempala & Zhang 2024,
    arXiv:2405.01425; Andrieu, Doucet & Holenstein 2010, doi:10.1111/j.1467-9868.2009.00736.x
    (the choice among draws and the present state).

    >>> InAndOut(tries=4).contract
    Invariant(reversible=True, irreducible=True)
    """

    tries: int = 8
    contract: ClassVar[Contract] = Invariant(reversible=True)
    needs: ClassVar[tuple[str, ...]] = ("gradient",)
    target_accept: ClassVar[float] = 0.7
    error_order: ClassVar[float] = 2.0

    def __post_init__(self) -> None:
        check_count("tries", self.tries, 1)

    def parameters(self, preconditioner: Preconditioner, step: Any, length: Any) -> Step:
        return Step(preconditioner, step**2)

    def init(self, key: Any, target: Any, x: Any, params: Step) -> Placed:
        return Placed(x, target.log_density(x))

    def refresh(self, target: Any, state: Placed) -> Placed:
        return Placed(state.x, target.log_density(state.x))

    def step(
        self, key: Any, target: Any, state: Placed, params: Step
    ) -> tuple[Placed, dict[str, Any]]:
        k_out, k_in, k_choose = random.split(key, 3)
        f, eta = params
        shape, dtype = state.x.shape, state.x.dtype
        y = state.x + jnp.sqrt(eta) * f.push(random.normal(k_out, shape, dtype))
        gradient = jax.grad(target.log_density)(y)
        gradient = jnp.where(jnp.all(jnp.isfinite(gradient)), gradient, 0.0)
        z = random.normal(k_in, (self.tries, *shape), dtype)
        drawn = y + f.push(eta * f.pull(gradient) + jnp.sqrt(eta) * z)
        points = jnp.concatenate([state.x[None], drawn])
        values = jax.vmap(target.log_density)(points)
        log_w = values - (points - y) @ gradient
        log_w = jnp.where(jnp.isnan(log_w), -jnp.inf, log_w)
        stay = jnp.exp(log_w[0] - jax.nn.logsumexp(log_w))
        chosen = random.categorical(k_choose, log_w)
        new = Placed(points[chosen], values[chosen])
        info = {
            "acceptance_rate": jnp.minimum(1.0, (1.0 - stay) * (1.0 + 1.0 / self.tries)),
            "log_density": new.log_density,
            "diverging": jnp.max(log_w[1:]) == -jnp.inf,
            "n_gradients": jnp.ones((), jnp.int32),
        }
        return new, info


def engine(
    tries: int = 8,
    target_accept: float = 0.7,
    metric: str = "auto",
    warmup_draws: int = 320,
    max_warmup_draws: int = 1280,
    most_thin: int = 8,
) -> KernelEngine:
    """:class:`InAndOut` with many chains in lockstep, tuned together.

    Parameters
    ----------
    tries : int
        Draws from the Gaussian proposal in one transition.
    target_accept : float
        Mean probability of leaving the present state, relative to its most, to tune η for.
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
    kernel = InAndOut(tries)
    return engine_of(kernel, target_accept, metric, warmup_draws, max_warmup_draws, most_thin)
