"""Ways to walk from noise back to a law along its score, one in the place of the other.

Backward in time, from t = 1 to 0, both of these carry p_1 to p_0:

    dX = (−½βX − β s(X, t)) dt + √β dW        (reverse diffusion)
    dX = (−½βX − ½β s(X, t)) dt               (probability flow)

An integrator is a frozen value with ``walk(law, x, times, z)`` for one particle, ``noises``, how
many standard normals it takes in a step, and ``contract``, ``Biased(order)``: what its law is off
by shrinks with that power of the step. :func:`denoise` runs any of them on many particles. Those
that step in λ are in :mod:`ppcore_diffusion.exponential`.

Source: Song et al. 2021, arXiv:2011.13456.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import Biased, Contract
from ppcore.errors import SettingsError, did_you_mean
from ppcore.settings import check_between, check_count
from ppcore_diffusion.discrete_flow import standard_normal

METHODS = {"euler": 1, "heun": 2, "midpoint": 2, "rk4": 4}


@runtime_checkable
class Integrator(Protocol):
    """See the module."""

    @property
    def noises(self) -> int: ...

    @property
    def contract(self) -> Contract: ...

    def walk(self, law: Any, x: Any, times: Any, z: Any) -> Any:
        """From X at times[0] to X at times[-1]; float[d], float[K + 1], float[K, noises, d]."""
        ...


class OneStep:
    """An integrator that remembers nothing: ``step(law, s, t, x, z)``, from s down to t."""

    @property
    def noises(self) -> int:
        """Standard normal vectors that a step takes."""
        return 0

    def step(self, law: Any, s: Any, t: Any, x: Any, z: Any) -> Any:
        raise SettingsError(f"{type(self).__name__} has no step.")

    def walk(self, law: Any, x: Any, times: Any, z: Any) -> Any:
        """X at times[-1]."""

        def advance(x: Any, at: tuple[Any, Any, Any]) -> tuple[Any, None]:
            s, t, z = at
            return self.step(law, s, t, x, z), None

        return jax.lax.scan(advance, x, (times[:-1], times[1:], z))[0]


@dataclass(frozen=True)
class EulerMaruyama(OneStep):
    """x + h(½βx + βs) + √(hβ) z, h = s − t: the reverse diffusion, of weak order 1.

    Source: Maruyama 1955, doi:10.1007/BF02846028.
    """

    contract: ClassVar[Contract] = Biased(order=1)

    @property
    def noises(self) -> int:
        return 1

    def step(self, law: Any, s: Any, t: Any, x: Any, z: Any) -> Any:
        spread = (s - t) * law.noise.beta(s)
        return x + spread * (0.5 * x + law.score(x, s)) + jnp.sqrt(spread) * z[0]


@dataclass(frozen=True)
class ProbabilityFlow(OneStep):
    """The probability flow by a Runge–Kutta method, and log p_t along it.

    Parameters
    ----------
    method : "euler", "heun", "midpoint" or "rk4"
        Of order 1, 2, 2 and 4.

    Raises
    ------
    ppcore.errors.SettingsError
        For another method.

    >>> ProbabilityFlow("heun").contract
    Biased(order=2, in_='step_size')
    """

    method: str = "rk4"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            hint = did_you_mean(str(self.method), METHODS)
            raise SettingsError(f"method={self.method!r} is not known. {hint}")

    @property
    def contract(self) -> Contract:
        return Biased(order=METHODS[self.method])

    def velocity(self, law: Any, x: Any, t: Any) -> Any:
        """dx/dt; float[d], float[] -> float[d]."""
        return -0.5 * law.noise.beta(t) * (x + law.score(x, t))

    def step(self, law: Any, s: Any, t: Any, x: Any, z: Any = None) -> Any:
        return runge_kutta(self.method, lambda y, t: self.velocity(law, y, t), s, t, x)

    def log_prob(self, law: Any, x: Any, times: Any) -> Any:
        """log of the density at ``x`` of what the flow makes of N(0, I) at time 1; float[].

        From x at times[-1] up to times[0] = 1, with d log p/dt = −∇·velocity and the exact trace:
        log p(x) = log N(x_1) + ∫ ∇·velocity dt. The integrals are those of the method, off by
        O(h^order): for weights that are exact at every step size take
        :func:`ppcore_diffusion.matching.flow_match`, whose steps have a density of their own.

        Source: Chen et al. 2018, arXiv:1806.07366.
        """

        def both(state: tuple[Any, Any], t: Any) -> tuple[Any, Any]:
            def here(y: Any) -> Any:
                return self.velocity(law, y, t)

            return here(state[0]), jnp.trace(jax.jacfwd(here)(state[0]))

        def advance(state: Any, at: tuple[Any, Any]) -> tuple[Any, None]:
            return runge_kutta(self.method, both, *at, state), None

        up = jnp.asarray(times, x.dtype)[::-1]
        begin = (x, jnp.zeros((), x.dtype))
        (x, gathered), _ = jax.lax.scan(advance, begin, (up[:-1], up[1:]))
        return standard_normal(x) + gathered


def runge_kutta(method: str, slope: Any, s: Any, t: Any, x: Any) -> Any:
    """One step of ẋ = slope(x, time) from time s to t; x is a pytree."""
    h = t - s

    def moved(by: Any, *slopes: Any) -> Any:
        return jax.tree.map(lambda a, *b: a + by * sum(b), x, *slopes)

    first = slope(x, s)
    if method == "euler":
        return moved(h, first)
    if method == "heun":
        return moved(0.5 * h, first, slope(moved(h, first), t))
    second = slope(moved(0.5 * h, first), s + 0.5 * h)
    if method == "midpoint":
        return moved(h, second)
    third = slope(moved(0.5 * h, second), s + 0.5 * h)
    fourth = slope(moved(h, third), t)
    return moved(h / 6.0, first, second, second, third, third, fourth)


@dataclass(frozen=True)
class PredictorCorrector(OneStep):
    """A step of ``predictor``, then ``steps`` of x + δs(x, t) + √(2δ) z at the new time.

    δ = size · σ_t² · (λ_t − λ_s), which vanishes with the step: the corrector pulls towards p_t
    whatever the predictor has done, and its own bias is of order 1.

    Parameters
    ----------
    predictor : OneStep
    steps : int
    size : float

    Raises
    ------
    ppcore.errors.SettingsError
        If the predictor is no one-step integrator, or a number is out of range.

    Source: Song et al. 2021, arXiv:2011.13456.
    """

    predictor: Any = EulerMaruyama()
    steps: int = 1
    size: float = 0.2

    def __post_init__(self) -> None:
        if not isinstance(self.predictor, OneStep):
            raise SettingsError(
                f"predictor={type(self.predictor).__name__} must be a one-step integrator: "
                "EulerMaruyama(), ProbabilityFlow() or Exponential()."
            )
        check_count("steps", self.steps, 1)
        check_between("size", self.size, 0, 10)

    @property
    def noises(self) -> int:
        return int(self.predictor.noises) + self.steps

    @property
    def contract(self) -> Contract:
        return Biased(order=1)

    def step(self, law: Any, s: Any, t: Any, x: Any, z: Any) -> Any:
        own = self.predictor.noises
        x = self.predictor.step(law, s, t, x, z[:own])
        gap = law.noise.log_snr(t) - law.noise.log_snr(s)
        delta = self.size * law.noise.sigma(t) ** 2 * gap
        for i in range(self.steps):
            x = x + delta * law.score(x, t) + jnp.sqrt(2.0 * delta) * z[own + i]
        return x


def denoise(key: Any, integrator: Integrator, law: Any, n: int, times: Any) -> Any:
    """``n`` draws from N(0, I) at times[0] = 1, carried along ``law`` to times[-1]; float[n, d].

    Their law is off by O(h^order), order that of the integrator, and by the difference between p_1
    and N(0, I), which no step size mends.

    Parameters
    ----------
    key : key
    integrator : Integrator
    law : Noised
    n : int
    times : float[K + 1]
        Descending, above 0 at the end for integrators that step in λ; see :meth:`Noise.grid`.

    Raises
    ------
    ppcore.errors.SettingsError
        If times do not descend within [0, 1] from 1, or what is given is no integrator.
    """
    if isinstance(integrator, type) or not hasattr(integrator, "walk"):
        raise SettingsError(f"{integrator!r} is no integrator: it has no walk(law, x, times, z).")
    check_count("n", n, 1)
    on_host = np.asarray(times, float)
    right = on_host.ndim == 1 and len(on_host) > 1 and (np.diff(on_host) < 0).all()
    if not right or on_host[0] != 1.0 or on_host[-1] < 0:
        raise SettingsError("times must descend from 1 to 0 or above: use law.noise.grid(steps).")
    k_start, k_walk = random.split(key)
    x = random.normal(k_start, (n, law.dim))
    z = random.normal(k_walk, (n, len(on_host) - 1, integrator.noises, law.dim), x.dtype)
    return _walked(integrator, law, x, jnp.asarray(on_host, x.dtype), z)


@partial(jax.jit, static_argnums=0)
def _walked(integrator: Integrator, law: Any, x: Any, times: Any, z: Any) -> Any:
    return jax.vmap(integrator.walk, (None, 0, None, 0))(law, x, times, z)
