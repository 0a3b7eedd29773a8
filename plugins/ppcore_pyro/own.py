"""Distributions of NumPyro that torch and Pyro lack, or have in fewer digits: the simple ones."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro import distributions as pd
from pyro.distributions import TorchDistribution
from torch.distributions import constraints

from ppcore_pyro.bijections import PositiveDefinite, bijection


class Own(TorchDistribution):  # type: ignore[misc]
    """A distribution under NumPyro's name, with ``parameters`` to describe it by."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, batch_shape: Any, event_shape: Any, /, **parameters: Any) -> None:
        self.parameters = parameters
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=False)

    def _uniform(self, sample_shape: Any) -> torch.Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        tiny = torch.finfo(torch.float64).tiny
        return torch.rand(shape, dtype=torch.float64).clamp_min(tiny)

    def _normal(self, sample_shape: Any) -> torch.Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        return torch.randn(shape, dtype=torch.float64)


class VonMises(pd.VonMises):  # type: ignore[misc]
    """Torch's, with all digits of the Bessel function and the circle as its support."""

    support = constraints.interval(-math.pi, math.pi)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """κ (cos(x − μ) − 1) − log 2π − log(e^−κ I₀(κ))."""
        k = self.concentration
        bessel = torch.log(torch.special.i0e(k))
        return k * (torch.cos(value - self.loc) - 1) - math.log(2 * math.pi) - bessel


class Wishart(pd.Wishart):  # type: ignore[misc]
    """Torch's, on a support that has a bijection."""

    support = PositiveDefinite()


class ImproperUniform(pd.ImproperUniform):  # type: ignore[misc]
    """Pyro's, with a point of the support to start from in the place of a draw."""

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        """t(u), u uniform on (−2, 2)^k: no draw, since there is no law to draw from."""
        t = bijection(self.support)
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        u = torch.rand(t.inverse_shape(shape), dtype=torch.float64)
        found: torch.Tensor = t(4 * u - 2)
        return found


class Levy(Own):
    """The law of μ + c/z², z standard normal."""

    def __init__(self, loc: torch.Tensor, scale: torch.Tensor) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape, (), loc=loc, scale=scale)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        return constraints.greater_than(self.loc)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        y = value - self.loc
        return 0.5 * (self.scale.log() - math.log(2 * math.pi) - self.scale / y) - 1.5 * y.log()

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        return self.loc + self.scale / self._normal(sample_shape) ** 2


class Gompertz(Own):
    """The lifetime law of hazard η b exp(b x), with concentration η and rate b."""

    support = constraints.positive

    def __init__(self, concentration: torch.Tensor, rate: torch.Tensor) -> None:
        self.concentration, self.rate = torch.broadcast_tensors(concentration, rate)
        super().__init__(self.rate.shape, (), concentration=concentration, rate=rate)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        x = value * self.rate
        ahead = self.concentration.log() + self.rate.log()
        return ahead + x - self.concentration * torch.expm1(x)

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        u = self._uniform(sample_shape)
        return torch.log1p(-torch.log(u) / self.concentration) / self.rate


class LogUniform(Own):
    """Density 1/(x log(high/low)) between low and high."""

    def __init__(self, low: torch.Tensor, high: torch.Tensor) -> None:
        self.low, self.high = torch.broadcast_tensors(low, high)
        super().__init__(self.low.shape, (), low=low, high=high)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        return constraints.interval(self.low, self.high)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        return -value.log() - torch.log(self.high.log() - self.low.log())

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        return self.low * (self.high / self.low) ** self._uniform(sample_shape)


class DiscreteUniform(Own):
    """Each whole number from low to high alike."""

    has_enumerate_support = True

    def __init__(self, low: torch.Tensor, high: torch.Tensor) -> None:
        self.low, self.high = torch.broadcast_tensors(low, high)
        super().__init__(self.low.shape, (), low=low, high=high)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(self.low, self.high)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        inside = (value >= self.low) & (value <= self.high)
        found = -torch.log(self.high + 1 - self.low)
        return torch.where(inside, found, -math.inf)

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        u = self._uniform(sample_shape)
        return torch.minimum(self.low + torch.floor(u * (self.high + 1 - self.low)), self.high)

    def enumerate_support(self, expand: bool = True) -> torch.Tensor:
        low, high = self.low.min(), self.high.max()
        values = torch.arange(int(low), int(high) + 1, dtype=self.low.dtype)
        values = values.reshape((-1,) + (1,) * len(self.batch_shape))
        return values.expand((-1, *self.batch_shape)) if expand else values


class TruncatedDistribution(Own):
    """A location-scale family between bounds, either of which may be missing.

    log p(x) = log p₀(x) − log(F₀(high) − F₀(low)), in the tail that has more digits.
    """

    def __init__(self, base_dist: Any, low: Any = None, high: Any = None) -> None:
        self.base_dist, self.low, self.high = base_dist, low, high
        bounds = [b for b in (low, high) if b is not None]
        shape = torch.broadcast_shapes(base_dist.batch_shape, *(b.shape for b in bounds))
        given = {"base_dist": base_dist, "low": low, "high": high}
        super().__init__(shape, (), **{k: v for k, v in given.items() if v is not None})

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        if self.low is None:
            return constraints.less_than(self.high)
        if self.high is None:
            return constraints.greater_than_eq(self.low)
        return constraints.interval(self.low, self.high)

    def _tails(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """F₀ at both bounds, mirrored about the centre where both lie above it; the sign."""
        loc, one = self.base_dist.loc, torch.ones((), dtype=torch.float64)
        sign = one if self.low is None else torch.where(loc >= self.low, one, -one)
        at = [
            edge if bound is None else self.base_dist.cdf(loc - sign * (loc - bound))
            for bound, edge in ((self.low, 0 * one), (self.high, (1 + sign) / 2))
        ]
        return at[0], at[1], sign

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        low, high, sign = self._tails()
        found = self.base_dist.log_prob(value) - torch.log(sign * (high - low))
        return found.expand(torch.broadcast_shapes(value.shape, self.batch_shape))

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        low, high, sign = self._tails()
        u, loc = self._uniform(sample_shape), self.base_dist.loc
        with torch.no_grad():
            return loc + sign * (self.base_dist.icdf((1 - u) * low + u * high) - loc)
