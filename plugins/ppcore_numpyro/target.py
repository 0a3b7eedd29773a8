"""The unnormalised density of a NumPyro program, for programs that cannot become diagrams."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to

from ppcore.errors import UnsupportedError
from ppcore.torch_view import SeenByTorch
from ppcore_numpyro.program import Program


@dataclass(frozen=True)
class Place:
    """A latent site: its name and the shape of its unconstrained value."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=int))


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class NumPyroTarget(SeenByTorch):
    """γ_β = prior · likelihood^β of a NumPyro program, by running it under its own handlers.

    Attributes
    ----------
    program : Program
        Static.
    places : tuple of Place
        The continuous latent sites in the order of x; static.
    finite : bool
        Whether discrete latent sites are enumerated (by NumPyro, with funsor); static. The
        likelihood is then the density of everything but the continuous sites.
    arrays : tuple of arrays
        The program's data; leaves.
    beta : float
        Inverse temperature; a leaf.
    """

    program: Program
    places: tuple[Place, ...]
    finite: bool
    arrays: tuple[Any, ...]
    beta: Any = 1.0

    def tree_flatten(self) -> tuple[tuple[Any, Any], tuple[Any, ...]]:
        return (self.arrays, self.beta), (self.program, self.places, self.finite)

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, ...], leaves: tuple[Any, Any]) -> NumPyroTarget:
        program, places, finite = static
        return cls(program, places, finite, leaves[0], leaves[1])

    @property
    def dim(self) -> int:
        """d, the number of unconstrained coordinates."""
        return sum(place.size for place in self.places)

    @property
    def has_reference(self) -> bool:
        return True

    @property
    def site_slices(self) -> dict[str, slice]:
        """Where each latent site lies in x."""
        ends = np.cumsum([place.size for place in self.places])
        return {
            p.name: slice(int(end) - p.size, int(end))
            for p, end in zip(self.places, ends, strict=True)
        }

    def _run(self, x: Any) -> tuple[dict[str, Any], Any, Any]:
        """The program's trace at x, the values of the latent sites, and their log Jacobian."""
        z = {p.name: x[self.site_slices[p.name]].reshape(p.shape) for p in self.places}
        jacobian: list[Any] = [jnp.zeros((), x.dtype)]
        values: dict[str, Any] = {}

        def give(site: dict[str, Any]) -> Any:
            if site["type"] != "sample" or site["name"] not in z:
                return None
            t = biject_to(site["fn"].support)
            given = z[site["name"]]
            value = t(given)
            jacobian.append(t.log_abs_det_jacobian(given, value).sum())
            values[site["name"]] = value
            return value

        run = handlers.seed(handlers.substitute(self.program.call, substitute_fn=give), 0)
        return handlers.trace(run).get_trace(self.arrays), values, sum(jacobian)

    def _split(self, x: Any) -> tuple[Any, Any]:
        trace, values, jacobian = self._run(x)
        prior, rest = jacobian, jnp.zeros((), x.dtype)
        for name, site in trace.items():
            if site["type"] != "sample" or (self.finite and name not in values):
                continue
            log_prob = site["fn"].log_prob(site["value"])
            scaled = log_prob if site.get("scale") is None else site["scale"] * log_prob
            if name in values:
                prior = prior + scaled.sum()
            else:
                rest = rest + scaled.sum()
        if self.finite:
            rest = _enumerated(self.program, self.arrays, values) - (prior - jacobian)
        return prior, rest

    def log_density(self, x: Any) -> Any:
        """log prior + β log likelihood, Jacobians included; float[d] -> float[]."""
        prior, likelihood = self._split(x)
        return prior + self.beta * likelihood

    def log_prior(self, x: Any) -> Any:
        """The continuous latent sites' log density; float[d] -> float[]."""
        return self._split(x)[0]

    def log_likelihood(self, x: Any) -> Any:
        """log γ_1 − log prior; float[d] -> float[]."""
        return self._split(x)[1]

    def constrain(self, x: Any) -> dict[str, Any]:
        """float[d] -> {site: array}: latent and deterministic sites."""
        trace, values, _ = self._run(x)
        named = {n: s["value"] for n, s in trace.items() if s["type"] == "deterministic"}
        return {**values, **named}

    def sample_reference(self, key: Any, n: int) -> Any:
        """``n`` draws from the prior, unconstrained; float[n, d]."""

        def one(key: Any) -> Any:
            run = handlers.trace(handlers.seed(self.program.call, key))
            trace = run.get_trace(self.arrays)
            parts = []
            for place in self.places:
                site = trace[place.name]
                parts.append(biject_to(site["fn"].support).inv(site["value"]).ravel())
            return jnp.concatenate(parts)

        return jax.vmap(one)(jax.random.split(key, n))

    def tempered(self, beta: Any) -> NumPyroTarget:
        """The same target with the likelihood to the power ``beta``."""
        return replace(self, beta=beta)


def _enumerated(program: Program, arrays: Any, values: dict[str, Any]) -> Any:
    """log p(continuous values, evidence), discrete sites summed out by NumPyro."""
    try:
        from numpyro.contrib.funsor import config_enumerate, enum, log_density
    except ImportError as error:
        raise UnsupportedError(
            "This model has discrete latent sites in a program that only NumPyro can read, and "
            "NumPyro sums them out with funsor, which is not installed: pip install funsor"
        ) from error
    model = enum(config_enumerate(program.call), first_available_dim=-10)
    return log_density(model, (arrays,), {}, values)[0]
