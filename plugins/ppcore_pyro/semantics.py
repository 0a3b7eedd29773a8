"""The torch semantics: log γ(x) on R^d as a torch function, by the functor of all semantics.

In the coordinates of the JAX semantics, so that both can be compared point by point:
log γ(x) = Σ_latent [log p(t(z)) + log |det ∂t/∂z|] + β [Σ_observed log p(y) + Σ_factor].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ppcore.diagram import Box, Diagram
from ppcore.errors import UnsupportedError
from ppcore.recording.template import from_template
from ppcore.semantics.interpret import Handler, Records, interpret
from ppcore.semantics.log_density import layout
from ppcore_pyro import ops
from ppcore_pyro.bijections import bijection
from ppcore_pyro.build import build
from ppcore_pyro.elementwise import tensor


class TorchHandler(Handler):
    """Array boxes and distributions in torch; chains as loops."""

    def array(self, value: Any) -> Any:
        return tensor(value)

    def compute(self, box: Box, values: list[Any]) -> list[Any]:
        return ops.compute(box, values)

    def distribution(self, box: Box, values: list[Any]) -> Any:
        """Pyro's distribution of a sample or observe box, expanded to its plates."""
        template, batch, _, _ = box.spec
        try:
            d = build(from_template(template, values))
        except UnsupportedError as error:
            raise UnsupportedError(f"Site {box.name!r}: {error}") from error
        wanted = torch.broadcast_shapes(d.batch_shape, torch.Size(batch))
        return d if d.batch_shape == wanted else d.expand(wanted)

    def iterate(self, step: Any, carry: Any, xs: Any, length: int, reverse: bool) -> Any:
        elements, sites, _ = xs
        results: list[Any] = [None] * length
        for t in reversed(range(length)) if reverse else range(length):
            own = {name: value[t] for name, value in sites.items()}
            carry, results[t] = step(carry, ([x[t] for x in elements], own, None))
        return carry, stacked(results)


def stacked(results: list[Any]) -> Any:
    """Lists and dicts of tensors, one for each step, with the tensors stacked."""
    first = results[0]
    if isinstance(first, dict):
        return {k: stacked([r[k] for r in results]) for k in first}
    if isinstance(first, list | tuple):
        return type(first)(stacked(list(column)) for column in zip(*results, strict=True))
    return torch.stack(results)


class TorchLogDensity(TorchHandler):
    """Entries are unconstrained values z; records hold ``value`` and ``log_prob`` (summed)."""

    def latent(self, box: Box, distribution: Any, given: Any, key: Any) -> tuple[Any, Any]:
        t = bijection(distribution.support)
        x = t(given)
        jacobian = t.log_abs_det_jacobian(given, x).sum()
        return x, {"value": x, "log_prob": distribution.log_prob(x).sum() + jacobian}

    def observed(self, box: Box, distribution: Any, value: Any) -> Any:
        # Torch's densities of whole numbers want floats, or they fall to single precision.
        value = value if value.is_floating_point() else value.to(torch.float64)
        log_prob = distribution.log_prob(value)
        if box.dom[-1].support.dependent:
            inside = distribution.support.check(value)
            log_prob = torch.where(inside, log_prob, -torch.inf)
        return {"log_prob": log_prob.sum()}

    def factor(self, box: Box, log_weight: Any) -> Any:
        return {"log_prob": log_weight.sum()}

    def named(self, box: Box, value: Any) -> Any:
        return {"value": value}


@dataclass(frozen=True, eq=False)
class TorchDensity:
    """γ_β of a model as torch computes it, differentiable by torch.

    One point at a time: each scan is a Python loop. For many points, or for speed, take
    ``target.torch()``, which has the compiled program.

    Attributes
    ----------
    diagram : Diagram
        Given the evidence.
    inputs : tuple of Tensor
        Its data and its evidence.
    beta : float
        Inverse temperature of the likelihood.
    """

    diagram: Diagram
    inputs: tuple[torch.Tensor, ...]
    beta: float = 1.0

    @property
    def dim(self) -> int:
        """d, the number of unconstrained coordinates."""
        return layout(self.diagram).dim

    @property
    def latents(self) -> tuple[str, ...]:
        """Names of the latent sites, in the order of x."""
        return layout(self.diagram).names

    def records(self, x: torch.Tensor) -> Records:
        """Per site: ``log_prob`` (summed, Jacobian included) and ``value`` at x: float[d]."""
        z = layout(self.diagram).split(x)
        return interpret(self.diagram, self.inputs, TorchLogDensity(), z)[1]

    def _sum(self, x: torch.Tensor, wanted: Callable[[str], bool]) -> torch.Tensor:
        total = torch.zeros((), dtype=x.dtype)
        for name, record in self.records(x).items():
            if "log_prob" in record and wanted(name):
                total = total + record["log_prob"].sum()
        return total

    def log_prior(self, x: torch.Tensor) -> torch.Tensor:
        """The latent sites' log density, Jacobians included; float[d] -> float[]."""
        return self._sum(x, self.latents.__contains__)

    def log_likelihood(self, x: torch.Tensor) -> torch.Tensor:
        """Log density of the evidence and of the factors; float[d] -> float[]."""
        return self._sum(x, lambda name: name not in self.latents)

    def log_density(self, x: torch.Tensor) -> torch.Tensor:
        """log prior + β log likelihood; float[d] -> float[]."""
        if self.beta == 1.0:
            return self._sum(x, lambda name: True)
        return self.log_prior(x) + self.beta * self.log_likelihood(x)

    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """log γ and ∇ log γ at x: float[d]."""
        at = x.detach().clone().requires_grad_(True)
        value = self.log_density(at)
        (slope,) = torch.autograd.grad(value, at)
        return value.detach(), slope

    def constrain(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """float[d] -> {site: tensor}: latent and named deterministic sites."""
        return {n: r["value"] for n, r in self.records(x).items() if "value" in r}


def torch_density(target: Any) -> TorchDensity:
    """The torch semantics of a model's target (``model.target()``).

    Parameters
    ----------
    target : ModelTarget

    Raises
    ------
    UnsupportedError
        Naming a site or an array function that torch has no form of, a function lifted for JAX,
        or a discrete latent site: JAX sums those out, Pyro enumerates them (``model.to_pyro()``).
    """
    if target.labels:
        raise UnsupportedError(
            f"Site {target.labels[0]!r} is discrete and latent, and the torch density does not sum "
            "over it. Take target.torch(), where JAX has summed it out, or model.to_pyro(), where "
            "Pyro enumerates it."
        )
    ops.require_torch(target.diagram)
    inputs = tuple(torch.as_tensor(np.array(v)) for v in target.inputs)
    return TorchDensity(target.diagram, inputs, float(target.beta))
