"""Bijections from R^k onto supports, in the coordinates of the JAX semantics.

Torch's own agree with NumPyro's wherever it has one (positive, interval, simplex, ordered,
Cholesky factors of correlations), with nine digits in two Jacobians, which are put right here.
Those it lacks are here, and are torch's from then on too: for Pyro's samplers, on constraints that
only this package uses.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import constraints as pyro_constraints
from pyro.distributions.transforms import CorrMatrixCholeskyTransform
from torch.distributions import Transform, biject_to, constraints, transform_to
from torch.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    CorrCholeskyTransform,
    IndependentTransform,
    SigmoidTransform,
)

from ppcore_pyro.elementwise import softplus


class ZeroSum(constraints.Constraint):
    """Arrays whose sums along each of the last ``event_dim`` axes are zero."""

    def __init__(self, event_dim: int) -> None:
        self.count = event_dim
        super().__init__()

    @property
    def event_dim(self) -> int:
        return self.count

    def check(self, value: torch.Tensor) -> torch.Tensor:
        axes = range(-self.count, 0)
        sums = (value.sum(k, keepdim=True).abs().amax(tuple(axes)) < 1e-6 for k in axes)
        return torch.stack(list(sums)).all(0)


class LowerCholesky(type(constraints.lower_cholesky)):  # type: ignore[misc]
    """Lower triangular with a positive diagonal, and with a bijection."""


class PositiveDefinite(type(constraints.positive_definite)):  # type: ignore[misc]
    """Symmetric positive definite, and with a bijection."""


class ToZeroSum(Transform):
    """z[n−1] to y[n] with Σ y = 0 by an isometry along each of the last axes.

    With s = Σ z and r = s / (√n + n): y = (z − r, −s/√n).
    """

    bijective = True

    def __init__(self, event_dim: int) -> None:
        super().__init__()
        self.count = event_dim
        self.domain = constraints.independent(constraints.real, event_dim)
        self.codomain = ZeroSum(event_dim)

    def _call(self, x: torch.Tensor) -> torch.Tensor:
        for axis in range(-self.count, 0):
            n = x.shape[axis] + 1
            total = x.sum(axis, keepdim=True)
            shift = total / (math.sqrt(n) + n)
            x = torch.cat([x, shift - total / math.sqrt(n)], axis) - shift
        return x

    def _inverse(self, y: torch.Tensor) -> torch.Tensor:
        for axis in range(-self.count, 0):
            n = y.shape[axis]
            total = -y.narrow(axis, n - 1, 1) * math.sqrt(n)
            y = y.narrow(axis, 0, n - 1) + total / (math.sqrt(n) + n)
        return y

    def log_abs_det_jacobian(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.new_zeros(x.shape[: x.ndim - self.count])

    def forward_shape(self, shape: Any) -> torch.Size:
        return torch.Size((*shape[: -self.count], *(n + 1 for n in shape[-self.count :])))

    def inverse_shape(self, shape: Any) -> torch.Size:
        return torch.Size((*shape[: -self.count], *(n - 1 for n in shape[-self.count :])))


class ToLowerCholesky(Transform):
    """A vector to a lower triangular matrix: first what is below the diagonal, then its log."""

    bijective = True
    domain = constraints.real_vector
    codomain = LowerCholesky()

    def _call(self, x: torch.Tensor) -> torch.Tensor:
        n = _side(x.shape[-1])
        rows, columns = torch.tril_indices(n, n, -1)
        found = torch.diag_embed(torch.exp(x[..., x.shape[-1] - n :]))
        index = (..., rows, columns)
        below = torch.zeros_like(found)
        below[index] = x[..., : x.shape[-1] - n]
        return found + below

    def _inverse(self, y: torch.Tensor) -> torch.Tensor:
        rows, columns = torch.tril_indices(y.shape[-1], y.shape[-1], -1)
        return torch.cat([y[..., rows, columns], y.diagonal(dim1=-2, dim2=-1).log()], -1)

    def log_abs_det_jacobian(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x[..., x.shape[-1] - y.shape[-1] :].sum(-1)

    def forward_shape(self, shape: Any) -> torch.Size:
        n = _side(shape[-1])
        return torch.Size((*shape[:-1], n, n))

    def inverse_shape(self, shape: Any) -> torch.Size:
        n = shape[-1]
        return torch.Size((*shape[:-2], n * (n + 1) // 2))


class ToPositiveDefinite(ToLowerCholesky):
    """L Lᵀ of :class:`ToLowerCholesky`'s L; log |det| gains n log 2 + Σ_i (n − i) log L_ii."""

    codomain = PositiveDefinite()

    def _call(self, x: torch.Tensor) -> torch.Tensor:
        factor = super()._call(x)
        return factor @ factor.mT

    def _inverse(self, y: torch.Tensor) -> torch.Tensor:
        return super()._inverse(torch.linalg.cholesky(y))

    def log_abs_det_jacobian(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        n = y.shape[-1]
        log_diagonal = x[..., x.shape[-1] - n :]
        weights = torch.arange(n, 0, -1, dtype=x.dtype, device=x.device)
        return log_diagonal.sum(-1) + n * math.log(2) + (weights * log_diagonal).sum(-1)


class ToUnitInterval(SigmoidTransform):  # type: ignore[misc]
    """Torch's sigmoid with its log-Jacobian to all digits."""

    def log_abs_det_jacobian(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -softplus(x) - softplus(-x)


class ToCorrelationFactor(CorrCholeskyTransform):  # type: ignore[misc]
    """Torch's stick-breaking with its log-Jacobian to all digits."""

    def log_abs_det_jacobian(
        self, x: torch.Tensor, y: torch.Tensor, intermediates: Any = None
    ) -> torch.Tensor:
        found: torch.Tensor = super().log_abs_det_jacobian(x, y)
        # Torch's softplus drops the exponential from 20 on.
        dropped = softplus(-2 * x) - torch.nn.functional.softplus(-2 * x)
        return found - 2 * dropped.sum(-1)


def _side(size: int) -> int:
    return round((math.sqrt(1 + 8 * size) - 1) / 2)


@biject_to.register(ZeroSum)
@transform_to.register(ZeroSum)
def _to_zero_sum(constraint: ZeroSum) -> Transform:
    return ToZeroSum(constraint.event_dim)


@biject_to.register(LowerCholesky)
@transform_to.register(LowerCholesky)
def _to_lower_cholesky(constraint: LowerCholesky) -> Transform:
    return ToLowerCholesky()


@biject_to.register(PositiveDefinite)
@transform_to.register(PositiveDefinite)
def _to_positive_definite(constraint: PositiveDefinite) -> Transform:
    return ToPositiveDefinite()


def bijection(support: Any) -> Transform:
    """The bijection from R^k onto a support, in the coordinates of the JAX semantics."""
    if isinstance(support, constraints.independent):
        inner = bijection(support.base_constraint)
        return IndependentTransform(inner, support.reinterpreted_batch_ndims)
    if isinstance(support, constraints.interval):
        low, width = support.lower_bound, support.upper_bound - support.lower_bound
        return ComposeTransform([ToUnitInterval(), AffineTransform(low, width)])
    if type(support) is type(constraints.corr_cholesky):
        return ToCorrelationFactor()
    if type(support) is type(pyro_constraints.corr_matrix):
        return ComposeTransform([ToCorrelationFactor(), CorrMatrixCholeskyTransform().inv])
    if type(support) is type(constraints.lower_cholesky):
        return ToLowerCholesky()
    if type(support) is type(constraints.positive_definite):
        return ToPositiveDefinite()
    found: Transform = biject_to(support)
    return found
