"""The unnormalised density of a Pyro program run by torch itself: always right, never fast."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
import torch
from pyro.poutine.messenger import Messenger
from torch.distributions import biject_to

from ppcore.recording.lift import call_on_host
from ppcore.space import Space
from ppcore.torch_view import SeenByTorch
from ppcore_pyro.program import Program, double_precision, is_deterministic, is_factor


@dataclass(frozen=True)
class Place:
    """A latent site: its name, where its unconstrained value lies in x, and both shapes."""

    name: str
    at: slice
    inner: tuple[int, ...]
    shape: tuple[int, ...]


class _Constrain(Messenger):  # type: ignore[misc]
    """Latent sites take t(z), with t the bijection onto the support that they have there."""

    def __init__(self, places: tuple[Place, ...], x: torch.Tensor) -> None:
        super().__init__()
        self.places, self.x = {place.name: place for place in places}, x
        self.jacobian = torch.zeros(())

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        place = self.places.get(msg["name"])
        if place is not None:
            t = biject_to(msg["fn"].support)
            z = self.x[place.at].reshape(place.inner)
            msg["value"], msg["done"] = t(z), True
            self.jacobian = self.jacobian + t.log_abs_det_jacobian(z, msg["value"]).sum()


@dataclass(frozen=True, eq=False)
class Eager:
    """A program on the host: (log prior, log likelihood) and their gradients at x: float[d]."""

    program: Program
    places: tuple[Place, ...]
    named: tuple[str, ...]

    def _run(self, x: torch.Tensor) -> tuple[Any, torch.Tensor]:
        with _Constrain(self.places, x) as given:
            trace = self.program.trace({})
        return trace, given.jacobian

    def values(self, x: np.ndarray) -> list[np.ndarray]:
        """Values of the latent and of the named sites."""
        with double_precision(), torch.no_grad():
            trace, _ = self._run(torch.as_tensor(x, dtype=torch.float64))
            names = [*(place.name for place in self.places), *self.named]
            return [np.asarray(trace.nodes[name]["value"]) for name in names]

    def densities(self, x: np.ndarray) -> list[np.ndarray]:
        """[log prior, log likelihood] and the gradient of each: float[2], float[2, d]."""
        with double_precision():
            at = torch.tensor(np.asarray(x), dtype=torch.float64, requires_grad=True)
            trace, prior = self._run(at)
            trace.compute_log_prob(lambda name, site: not is_deterministic(site))
            latent = {place.name for place in self.places}
            rest = torch.zeros(())
            for name, site in trace.nodes.items():
                if site["type"] != "sample" or "log_prob_sum" not in site:
                    continue
                if name in latent:
                    prior = prior + site["log_prob_sum"]
                else:
                    rest = rest + site["log_prob_sum"]
            both = [prior, rest]
            slopes = [
                torch.autograd.grad(v, at, retain_graph=True)[0]
                if v.requires_grad
                else torch.zeros_like(at)
                for v in both
            ]
            values = np.array([float(v.detach()) for v in both])
            return [values, np.stack([g.numpy() for g in slopes])]


def _host(eager: Eager, x: Any) -> tuple[Any, Any]:
    d = x.shape[-1]
    values, slopes = call_on_host(eager.densities, (Space((2,)), Space((2, d))), (x,))
    return values, slopes


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _densities(eager: Eager, x: Any) -> Any:
    return _host(eager, x)[0]


@_densities.defjvp
def _tangent(eager: Eager, primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    values, slopes = _host(eager, primals[0])
    return values, slopes @ tangents[0]


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class TorchTarget(SeenByTorch):
    """γ_β = prior · likelihood^β of a Pyro program, each value and gradient by a call of torch.

    Attributes
    ----------
    eager : Eager
        Static.
    beta : float
        Inverse temperature; a leaf.
    """

    eager: Eager
    beta: Any = 1.0
    has_reference = False

    def tree_flatten(self) -> tuple[tuple[Any], Eager]:
        return (self.beta,), self.eager

    @classmethod
    def tree_unflatten(cls, eager: Eager, leaves: tuple[Any]) -> TorchTarget:
        return cls(eager, leaves[0])

    @property
    def dim(self) -> int:
        """d, the number of unconstrained coordinates."""
        return max((place.at.stop for place in self.eager.places), default=0)

    @property
    def site_slices(self) -> dict[str, slice]:
        """Where each latent site lies in x."""
        return {place.name: place.at for place in self.eager.places}

    def log_density(self, x: Any) -> Any:
        """log prior + β log likelihood, Jacobians included; float[d] -> float[]."""
        both = _densities(self.eager, x)
        return both[0] + self.beta * both[1]

    def log_prior(self, x: Any) -> Any:
        """The latent sites' log density; float[d] -> float[]."""
        return _densities(self.eager, x)[0]

    def log_likelihood(self, x: Any) -> Any:
        """Log density of the evidence and of the factors; float[d] -> float[]."""
        return _densities(self.eager, x)[1]

    def constrain(self, x: Any) -> dict[str, Any]:
        """float[d] -> {site: array}: latent and deterministic sites."""
        names = [place.name for place in self.eager.places] + list(self.eager.named)
        zero = self.eager.values(np.zeros(self.dim))
        spaces = tuple(Space(v.shape, "float64") for v in zero)
        return dict(zip(names, call_on_host(self.eager.values, spaces, (x,)), strict=True))

    def tempered(self, beta: Any) -> TorchTarget:
        """The same target with the likelihood to the power ``beta``."""
        return replace(self, beta=beta)


def eager_target(program: Program, sites: dict[str, dict[str, Any]]) -> TorchTarget:
    """The target of ``program``, whose ``sites`` one forward run has shown."""
    places, end = [], 0
    for name, site in sites.items():
        if site["is_observed"] or is_factor(site) or site["fn"].support.is_discrete:
            continue
        shape = tuple(site["value"].shape)
        inner = tuple(biject_to(site["fn"].support).inverse_shape(torch.Size(shape)))
        size = int(np.prod(inner, dtype=int))
        places.append(Place(name, slice(end, end + size), inner, shape))
        end += size
    named = tuple(name for name, site in sites.items() if is_deterministic(site))
    return TorchTarget(Eager(program, tuple(places), named))
