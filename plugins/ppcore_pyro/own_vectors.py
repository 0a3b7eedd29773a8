"""Distributions of NumPyro that torch and Pyro lack: vectors, matrices and mixtures."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro import distributions as pd
from torch.distributions import constraints

from ppcore_pyro.bijections import LowerCholesky, ToZeroSum, ZeroSum
from ppcore_pyro.elementwise import softplus
from ppcore_pyro.own import Own, Wishart


class GaussianRandomWalk(Own):
    """x_1 ~ N(0, σ²), x_t ~ N(x_{t−1}, σ²)."""

    support = constraints.real_vector

    def __init__(self, scale: torch.Tensor, num_steps: int) -> None:
        self.scale = scale
        super().__init__(scale.shape, (num_steps,), scale=scale, num_steps=num_steps)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        steps = torch.cat([value[..., :1], torch.diff(value, dim=-1)], -1)
        scale = self.scale.unsqueeze(-1)
        terms = -0.5 * (steps / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)
        return terms.sum(-1)

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        return torch.cumsum(self._normal(sample_shape) * self.scale.unsqueeze(-1), -1)


class ZeroSumNormal(Own):
    """Independent normals given that they sum to zero along each axis of the event."""

    def __init__(self, scale: torch.Tensor, event_shape: Any) -> None:
        self.scale, event = scale, tuple(int(n) for n in event_shape)
        super().__init__(scale.shape, event, scale=scale, event_shape=event)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        return ZeroSum(len(self.event_shape))

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        count = len(self.event_shape)
        z = ToZeroSum(count).inv(value)
        scale = self.scale.reshape(self.scale.shape + (1,) * count)
        terms = -0.5 * (z / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)
        return terms.sum(tuple(range(-count, 0)))

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        count = len(self.event_shape)
        x = self._normal(sample_shape) * self.scale.reshape(self.scale.shape + (1,) * count)
        for axis in range(-count, 0):
            x = x - x.mean(axis, keepdim=True)
        return x


class CAR(Own):
    """Normal with precision τ (D − ρ W), W an adjacency matrix and D its row sums."""

    support = constraints.real_vector

    def __init__(
        self,
        loc: torch.Tensor,
        correlation: torch.Tensor,
        conditional_precision: torch.Tensor,
        adj_matrix: torch.Tensor,
    ) -> None:
        self.loc, self.rho = loc, correlation
        self.tau, self.W = conditional_precision, adj_matrix
        shapes = (correlation.shape, conditional_precision.shape, adj_matrix.shape[:-2])
        super().__init__(
            torch.broadcast_shapes(loc.shape[:-1], *shapes),
            adj_matrix.shape[-1:],
            loc=loc,
            correlation=correlation,
            conditional_precision=conditional_precision,
            adj_matrix=adj_matrix,
        )

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        phi, degree, n = value - self.loc, self.W.sum(-1), self.W.shape[-1]
        root = degree.rsqrt()
        scaled = self.W * root.unsqueeze(-1) * root.unsqueeze(-2)
        rho = self.rho.unsqueeze(-1)
        log_det = torch.log1p(-rho * torch.linalg.eigvalsh(scaled)).sum(-1) + degree.log().sum(-1)
        ahead = degree * phi - rho * (self.W @ phi.unsqueeze(-1)).squeeze(-1)
        square = self.tau * (phi * ahead).sum(-1)
        return 0.5 * (n * self.tau.log() - n * math.log(2 * math.pi) + log_det - square)

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        degree = torch.diag_embed(self.W.sum(-1))
        precision = self.tau[..., None, None] * (degree - self.rho[..., None, None] * self.W)
        loc = self.loc.expand(self.batch_shape + self.event_shape)
        return pd.MultivariateNormal(loc, precision_matrix=precision).sample(sample_shape)


class InverseWishartCholesky(Own):
    """The Cholesky factor L of X = L Lᵀ ~ InverseWishart(ν, Ψ), Ψ = S Sᵀ.

    log p(L) = ν log |S| + p (1 − ν/2) log 2 − log Γ_p(ν/2)
    − Σ_i (ν + i) log L_ii − ‖L⁻¹ S‖²/2, i = 1 … p.
    """

    support = LowerCholesky()

    def __init__(
        self,
        concentration: torch.Tensor,
        scale_matrix: Any = None,
        rate_matrix: Any = None,
        scale_tril: Any = None,
    ) -> None:
        if scale_tril is None:
            matrix = torch.linalg.inv(rate_matrix) if scale_matrix is None else scale_matrix
            scale_tril = torch.linalg.cholesky((matrix + matrix.mT) / 2)
        self.concentration, self.scale_tril = concentration, scale_tril
        super().__init__(
            torch.broadcast_shapes(concentration.shape, scale_tril.shape[:-2]),
            scale_tril.shape[-2:],
            concentration=concentration,
            scale_tril=scale_tril,
        )

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        p, nu = value.shape[-1], self.concentration
        ratio = torch.linalg.solve_triangular(value, self.scale_tril, upper=False)
        log_diagonal = value.diagonal(dim1=-2, dim2=-1).log()
        i = torch.arange(1, p + 1, dtype=value.dtype)
        scale = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        total = nu * scale + p * (1 - nu / 2) * math.log(2)
        total = total - torch.special.multigammaln(nu / 2, p)
        total = total - ((nu.unsqueeze(-1) + i) * log_diagonal).sum(-1)
        return total - 0.5 * (ratio**2).sum((-1, -2))

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        scale = self.scale_tril @ self.scale_tril.mT
        wishart = Wishart(self.concentration, precision_matrix=scale, validate_args=False)
        return torch.linalg.cholesky(torch.linalg.inv(wishart.sample(sample_shape)))


class MixtureGeneral(Own):
    """A mixture of distributions of any kinds."""

    def __init__(self, mixing_distribution: Any, component_distributions: list[Any]) -> None:
        self.mixing, self.parts = mixing_distribution, component_distributions
        shapes = (mixing_distribution.batch_shape, *(d.batch_shape for d in self.parts))
        super().__init__(
            torch.broadcast_shapes(*shapes),
            self.parts[0].event_shape,
            mixing_distribution=mixing_distribution,
            component_distributions=component_distributions,
        )

    @constraints.dependent_property
    def support(self) -> Any:
        return self.parts[0].support

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        each = torch.broadcast_tensors(*(d.log_prob(value) for d in self.parts))
        weights = torch.log_softmax(self.mixing.logits, -1)
        return torch.logsumexp(torch.stack(each, -1) + weights, -1)

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        draws = [d.expand(self.batch_shape).sample(sample_shape) for d in self.parts]
        chosen = self.mixing.expand(self.batch_shape).sample(sample_shape)
        index = chosen.reshape(shape + (1,) * (len(self.event_shape) + 1))
        stacked = torch.stack(draws, -1)
        index = index.expand(shape + self.event_shape + (1,))
        return torch.gather(stacked, -1, index).squeeze(-1)


class ZeroInflatedDistribution(Own):
    """Zero with probability ``gate``, else a draw from a law of counts."""

    def __init__(self, base_dist: Any, gate: Any = None, gate_logits: Any = None) -> None:
        given = {"gate": gate, "gate_logits": gate_logits}
        ((name, value),) = ((k, v) for k, v in given.items() if v is not None)
        self.base_dist, self.gate, self.gate_logits = base_dist, gate, gate_logits
        shape = torch.broadcast_shapes(base_dist.batch_shape, value.shape)
        super().__init__(shape, (), base_dist=base_dist, **{name: value})

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return self.base_dist.support

    def _log_gates(self) -> tuple[torch.Tensor, torch.Tensor]:
        """log P(gate), log P(no gate)."""
        if self.gate_logits is None:
            return self.gate.log(), torch.log1p(-self.gate)
        logits = self.gate_logits
        return -softplus(-logits), -softplus(logits)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        closed, open_ = self._log_gates()
        found = open_ + self.base_dist.log_prob(value)
        return torch.where(value == 0, torch.logaddexp(closed, found), found)

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        draw = self.base_dist.expand(self.batch_shape).sample(sample_shape)
        kept = torch.log(self._uniform(sample_shape)) > self._log_gates()[0]
        return draw * kept
