"""A Gaussian at a mode as the reference of a population."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.errors import UnsupportedError
from ppcore.paths import Between
from ppcore.target import value_and_gradient
from ppcore.tuning.laplace import Laplace, newton
from ppcore.tuning.lbfgs import Evaluate, Paths, climb, dense_inverse_hessian
from ppcore.tuning.preconditioner import Dense
from ppcore.tuning.start import scattered

CLIMBERS, CALLS, PAD, FEW = 4, 200, 64, 16
DIFFERENCES_UP_TO, ROUNDS = 128, 20


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Gaussian:
    """N(mean, F Fᵀ) on R^d, normalised, as something to start from.

    Attributes
    ----------
    mean : float[d]
    factor, inverse : float[d, d]
        F and F⁻¹.
    log_det : float[]
        log |det F|.
    """

    mean: Any
    factor: Any
    inverse: Any
    log_det: Any

    @property
    def dim(self) -> int:
        return int(self.mean.shape[0])

    @property
    def has_reference(self) -> bool:
        return True

    def log_density(self, x: Any) -> Any:
        z = self.inverse @ (x - self.mean)
        return -0.5 * z @ z - self.log_det - 0.5 * self.dim * jnp.log(2 * jnp.pi)

    def sample_reference(self, key: Any, n: int) -> Any:
        z = jax.random.normal(key, (n, self.dim), self.mean.dtype)
        return self.mean + z @ self.factor.T


@dataclass(frozen=True)
class Approach:
    """A target whose reference is a Laplace approximation, and what it cost to find.

    Attributes
    ----------
    target : Between
    factor : Dense
        Preconditioner for the moves.
    gradients : int
    notes : tuple of str
    """

    target: Between
    factor: Dense
    gradients: int
    notes: tuple[str, ...]


def gaussian(found: Laplace, dtype: Any) -> Gaussian:
    """The normalised Gaussian of a Laplace approximation."""
    sign_free = np.linalg.slogdet(found.factor)[1]
    parts = (found.mode, found.factor, np.linalg.inv(found.factor), np.asarray(sign_free))
    return Gaussian(*(jnp.asarray(part, dtype) for part in parts))


def approach(key: Any, target: Any) -> Approach:
    """Climb to the best of a few modes and take a Gaussian there as the reference.

    γ_b = N(mode, F Fᵀ)^{1−b} γ^b. Properly weighted whatever the approximation is worth; where
    the posterior has other modes or heavier tails, the moves have to find them.

    Raises :class:`ppcore.errors.UnsupportedError` if no mode with a definite Hessian is found,
    and :class:`ppcore.errors.StartError` if no start with a finite log density is.
    """
    spent = [0]

    def evaluate(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        spent[0] += len(x)
        return _evaluate(target, x)

    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    start = scattered(evaluate, rng, key, target, (CLIMBERS, target.dim))
    paths = Paths(*start)
    climb(evaluate, paths, CALLS)
    best = int(np.argmax(np.where(np.isfinite(paths.log_density), paths.log_density, -np.inf)))
    if target.dim <= DIFFERENCES_UP_TO:
        guess = dense_inverse_hessian(paths.steps[best], paths.changes[best])
        found = newton(evaluate, paths.x[best], guess)
    else:
        found, hessians = exact_newton(evaluate, target, paths.x[best])
        spent[0] += hessians * target.dim
    if not found.converged:
        raise UnsupportedError(
            "No mode with a definite Hessian was found to start from: the posterior is not near "
            "to Gaussian there. Use reference='prior' (every site then needs a proper prior)."
        )
    dtype = jnp.result_type(float)
    law = gaussian(found, dtype)
    note = f"The reference is a Gaussian at a mode (log density {found.log_density:.2f})."
    return Approach(Between(law, target), Dense(law.factor), spent[0], (note,))


def exact_newton(evaluate: Evaluate, target: Any, x: np.ndarray) -> tuple[Laplace, int]:
    """Newton steps with the Hessian by automatic differentiation, and how many it took.

    For many coordinates, where differences in whitened ones cost an eigendecomposition a step.
    Converged where −∇² is positive definite and the mode is within 10⁻³ nats.
    """
    value, gradient = (v[0] for v in evaluate(x[None]))
    scales = 0.5 ** np.arange(12)
    factor = np.eye(len(x))
    for done in range(1, ROUNDS + 1):
        curvature = -np.asarray(_hessian(target, x.astype(jnp.result_type(float))), float)
        try:
            factor = np.linalg.inv(np.linalg.cholesky(curvature)).T
        except np.linalg.LinAlgError:
            break
        step = factor @ (factor.T @ gradient)
        if gradient @ step < 2e-3:
            return Laplace(x, factor, float(value), True), done
        trial = x + scales[:, None] * step
        values, gradients = evaluate(trial)
        best = int(np.argmax(np.where(np.isfinite(values), values, -np.inf)))
        if not values[best] > value:
            break
        x, value, gradient = trial[best], values[best], gradients[best]
    return Laplace(x, factor, float(value), False), done


@jax.jit
def _hessian(target: Any, x: Any) -> Any:
    return jax.hessian(lambda t, v: t.log_density(v), argnums=1)(target, x)


@jax.jit
def _values(target: Any, x: Any) -> tuple[Any, Any]:
    return value_and_gradient(target, x)


def _evaluate(target: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log γ and its gradient at any number of points, with one compiled shape."""
    values, gradients = [], []
    # Many coordinates are dear to evaluate, and their Newton steps ask for few points at once.
    pad = PAD if x.shape[1] <= DIFFERENCES_UP_TO else FEW
    for first in range(0, len(x), pad):
        rows = x[first : first + pad]
        padded = np.concatenate([rows, np.repeat(rows[-1:], pad - len(rows), axis=0)])
        value, gradient = _values(target, padded.astype(jnp.result_type(float)))
        values.append(np.asarray(value, float)[: len(rows)])
        gradients.append(np.asarray(gradient, float)[: len(rows)])
    return np.concatenate(values), np.concatenate(gradients)
