"""The target of a declared model: joint diagram, data and evidence, as a pytree."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from ppcore.diagram import Diagram
from ppcore.diagram.condition import condition
from ppcore.errors import UnsupportedError
from ppcore.semantics.log_density import (
    layout,
    likelihood_terms,
    log_density_records,
    log_jacobian,
    unconstrain,
)
from ppcore.semantics.mixed import Mixed, labels, mixed
from ppcore.semantics.sample import simulate
from ppcore.torch_view import SeenByTorch


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class ModelTarget(SeenByTorch):
    """γ_β(x) = prior(x) · likelihood(x)^β of a model given evidence, on R^d.

    Finite latent sites are summed out of both; :meth:`complete` draws them given x.

    Parameters
    ----------
    joint : Diagram
        Data → all sites; static, compared by structure.
    observed : tuple of str
        The sites with evidence; static.
    data, evidence : tuples of arrays
        Inputs of the diagram and values of the observed sites; leaves.
    beta : float
        Inverse temperature of the likelihood (observed sites and factors); a leaf.
    """

    joint: Diagram
    observed: tuple[str, ...]
    data: tuple[Any, ...]
    evidence: tuple[Any, ...]
    beta: Any = 1.0

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return (self.data, self.evidence, self.beta), (self.joint, self.observed)

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, ...], leaves: tuple[Any, ...]) -> ModelTarget:
        return cls(static[0], static[1], leaves[0], leaves[1], leaves[2])

    @property
    def diagram(self) -> Diagram:
        """The diagram given the evidence, whose inputs are data and evidence."""
        return condition(self.joint, self.observed)

    @property
    def inputs(self) -> tuple[Any, ...]:
        """Values of the diagram's inputs."""
        return (*self.data, *self.evidence)

    @property
    def dim(self) -> int:
        """d, the number of unconstrained coordinates."""
        return layout(self.diagram).dim

    @property
    def latents(self) -> tuple[str, ...]:
        """Names of the continuous latent sites, in the order of x."""
        return layout(self.diagram).names

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the discrete latent sites, which are summed out."""
        return labels(self.diagram)

    @property
    def site_slices(self) -> dict[str, slice]:
        """Where each latent site lies in x."""
        return layout(self.diagram).slices

    @property
    def improper(self) -> tuple[str, ...]:
        """Latent sites whose prior is improper."""
        return tuple(
            str(b.name) for b in self.diagram.boxes() if b.op == "sample" and not b.spec[3]
        )

    @property
    def has_reference(self) -> bool:
        """Whether the prior can be drawn from."""
        return not self.improper

    def mixed(self, x: Any) -> Mixed:
        """The finite factors at x: float[d], for a model with discrete latent sites."""
        return mixed(self.diagram, self.inputs, layout(self.diagram).split(x))

    def _split(self, x: Any) -> tuple[Any, Any]:
        if self.labels:
            found = self.mixed(x)
            return found.log_prior, found.log_total - found.log_prior
        records = log_density_records(self.diagram, self.inputs, x)
        latents = set(self.latents)
        zero = jnp.zeros((), x.dtype)
        prior = sum((r["log_prob"] for n, r in records.items() if n in latents), zero)
        rest = (r["log_prob"] for n, r in records.items() if n not in latents and "log_prob" in r)
        return prior, sum(rest, zero)

    def log_density(self, x: Any) -> Any:
        """log prior + β log likelihood, Jacobians included; float[d] -> float[]."""
        prior, likelihood = self._split(x)
        return prior + self.beta * likelihood

    def log_prior(self, x: Any) -> Any:
        """The latent sites' log density, Jacobians included; float[d] -> float[]."""
        return self._split(x)[0]

    def log_likelihood(self, x: Any) -> Any:
        """Log density of the evidence and of the factors; float[d] -> float[]."""
        return self._split(x)[1]

    def parts(self, x: Any) -> tuple[Any, Any]:
        """Log prior, and one log-likelihood term for each datum: (float[], float[m]).

        In the order of the observed sites, or factors, and of their elements.

        Raises :class:`UnsupportedError` where discrete sites that were summed out tie data.
        """
        if self.labels:
            raise UnsupportedError(
                f"The likelihood is a sum over {self.labels[0]!r}, so that data cannot be taken "
                "in one by one. Temper it instead (by='temperature')."
            )
        terms = likelihood_terms(self.diagram, self.inputs, jnp.asarray(x))
        return self.log_prior(x), terms

    def log_jacobian(self, x: Any) -> Any:
        """log |det ∂θ/∂x| of the constraining map; float[d] -> float[]."""
        return log_jacobian(self.diagram, self.inputs, jnp.asarray(x))

    def log_density_by_site(self, x: Any) -> dict[str, Any]:
        """Each site's part of the log density at x: {site: float[]}.

        What is summed out, and all that depends on it, is one part, under the joined names.
        """
        if self.labels:
            found = self.mixed(x)
            return {**found.own, ", ".join(self.labels): found.summed.log_total}
        records = log_density_records(self.diagram, self.inputs, x)
        return {n: r["log_prob"] for n, r in records.items() if "log_prob" in r}

    def constrain(self, x: Any) -> dict[str, Any]:
        """float[d] -> {site: array}: latent and named deterministic sites.

        Without the discrete latent sites and what depends on them; see :meth:`complete`.
        """
        if self.labels:
            return {n: v.table for n, v in self.mixed(x).sites.items() if v.constant}
        records = log_density_records(self.diagram, self.inputs, x)
        return {n: r["value"] for n, r in records.items() if "value" in r}

    def complete(self, key: Any, x: Any) -> dict[str, Any]:
        """float[d] -> {site: array}: all sites, the discrete ones drawn from p(k | x, evidence)."""
        if not self.labels:
            return self.constrain(x)
        found = self.mixed(x)
        return found.values_at(found.summed.draw(key))

    def unconstrain(self, values: dict[str, Any]) -> Any:
        """{latent site: value in its support} -> float[d]."""
        return unconstrain(self.diagram, self.inputs, values)

    def sample_reference(self, key: Any, n: int) -> Any:
        """``n`` prior draws, unconstrained: float[n, d].

        Raises :class:`UnsupportedError` naming a site whose prior is improper.
        """
        return jax.vmap(lambda k: self.simulate_joint(k)[0])(jax.random.split(key, n))

    def simulate_joint(self, key: Any) -> tuple[Any, ModelTarget]:
        """(θ, y) from the joint: x: float[d], and the target whose evidence is y."""
        return self.simulate_sites(key)[:2]

    def simulate_sites(self, key: Any) -> tuple[Any, ModelTarget, dict[str, Any]]:
        """As :meth:`simulate_joint`, and the value drawn for every site, {name: array}."""
        if self.improper:
            raise UnsupportedError(
                f"The prior of site {self.improper[0]!r} is improper, so there is no reference to "
                "draw from. Give it a proper distribution, or use an engine that needs none."
            )
        values = simulate(self.joint, self.data, {}, key)
        evidence = tuple(
            jnp.asarray(values[n], jnp.asarray(e).dtype)
            for n, e in zip(self.observed, self.evidence, strict=True)
        )
        moved = replace(self, evidence=evidence)
        return moved.unconstrain({n: values[n] for n in self.latents}), moved, values

    def tempered(self, beta: Any) -> ModelTarget:
        """The same target with the likelihood to the power ``beta``."""
        return replace(self, beta=beta)
