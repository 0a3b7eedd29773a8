"""Continuous flows: T(x) is where a learned vector field carries x in unit time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import Contract, Transport
from ppcore.settings import check_between, check_count

MOST_STEPS = 256


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class ContinuousMap:
    """ẋ = v(x, t), log|det ∂T| = ∫₀¹ tr ∂v dt, T⁻¹ the same backwards in time.

    v(x, t) = B tanh(A x + a + a′ t) + b. Its trace Σ_h (1 − tanh²)_h (A B)_hh is exact and costs no
    more than v, so that nothing is estimated, neither in training nor in use. A Runge–Kutta pair
    of order 8 keeps the error of each step below ``tolerance``; the contract ``Transport()`` holds
    to about ten times that, and weights with it.

    Attributes
    ----------
    a : float[h, d]
    b : float[d, h]
    shift, drift : float[h]
    out : float[d]
    tolerance : float
        Static.

    Source: Chen, Rubanova, Bettencourt & Duvenaud 2018, arXiv:1806.07366; Grathwohl, Chen,
    Bettencourt, Sutskever & Duvenaud 2019, arXiv:1810.01367.
    """

    a: Any
    b: Any
    shift: Any
    drift: Any
    out: Any
    tolerance: float = 1e-9
    contract: ClassVar[Contract] = Transport()

    def tree_flatten(self) -> tuple[tuple[Any, ...], float]:
        return (self.a, self.b, self.shift, self.drift, self.out), self.tolerance

    @classmethod
    def tree_unflatten(cls, tolerance: float, leaves: tuple[Any, ...]) -> ContinuousMap:
        a, b, shift, drift, out = leaves
        return cls(a, b, shift, drift, out, tolerance)

    @property
    def dim(self) -> int:
        return int(self.a.shape[1])

    def forward(self, x: Any) -> tuple[Any, Any]:
        """``(T(x), log|det ∂T/∂x|)``; x: float[d]."""
        return self._carried(x, 1.0)

    def inverse(self, y: Any) -> tuple[Any, Any]:
        """``(T⁻¹(y), log|det ∂T⁻¹/∂y|)``; y: float[d]."""
        return self._carried(y, -1.0)

    def _carried(self, x: Any, sign: float) -> tuple[Any, Any]:
        def field(s: Any, state: Any, p: Any) -> Any:
            a, b, shift, drift, out = p
            # Backwards, time s after the end is time 1 − s.
            t = s if sign > 0 else 1.0 - s
            h = jnp.tanh(a @ state[0] + shift + drift * t)
            trace = jnp.sum((1.0 - h**2) * jnp.sum(a * b.T, axis=1))
            return sign * (b @ h + out), sign * trace

        solved = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Dopri8(),
            t0=0.0,
            t1=1.0,
            dt0=None,
            y0=(x, jnp.zeros((), x.dtype)),
            args=(self.a, self.b, self.shift, self.drift, self.out),
            stepsize_controller=diffrax.PIDController(rtol=self.tolerance, atol=self.tolerance),
            # Derivatives of the steps taken, in either direction, so that they agree with the map.
            adjoint=diffrax.DirectAdjoint(),
            max_steps=MOST_STEPS,
            throw=False,
        )
        found = solved.result == diffrax.RESULTS.successful
        y, log_det = (v[-1] for v in solved.ys)
        # Where the field is too rough for 256 steps, there is no map: no draw, not a wrong one.
        return jnp.where(found, y, jnp.nan), jnp.where(found, log_det, jnp.nan)


def continuous(key: Any, dim: int, width: int = 32, tolerance: float = 1e-9) -> ContinuousMap:
    """A continuous flow near the identity.

    Raises :class:`ppcore.errors.SettingsError` for values out of range.

    >>> import jax
    >>> continuous(jax.random.key(0), 2).contract
    Transport()
    """
    check_count("dim", dim, 1)
    check_count("width", width, 1)
    check_between("tolerance", tolerance, 0, 1)
    k_a, k_b = random.split(key)
    a = random.normal(k_a, (width, dim)) / np.sqrt(dim)
    b = 0.01 * random.normal(k_b, (dim, width)) / np.sqrt(width)
    zero = jnp.zeros(width)
    return ContinuousMap(a, b, zero, zero, jnp.zeros(dim), tolerance)
