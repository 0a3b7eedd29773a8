"""The target of a model whose finite sites are kept as coordinates, for moves that draw them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.diagram import Diagram
from ppcore.diagram.condition import condition, site_space
from ppcore.model_target import ModelTarget
from ppcore.semantics.finite_dist import finite_values
from ppcore.semantics.mixed import value_at
from ppcore.space import Space
from ppcore.torch_view import SeenByTorch


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class LabelledTarget(SeenByTorch):
    """γ_β(z, k) = p(z, k) · p(y | z, k)^β of a model, z ∈ R^d continuous and k its finite sites.

    x = (z, k): float[d + m], the values of the finite sites stored as floats behind the
    unconstrained continuous coordinates. Summing γ_β over k at β = 1 gives the model's usual
    target.

    Parameters
    ----------
    base : ModelTarget
        The same model with the finite sites summed out.

    >>> import numpy as np
    >>> import ppcore as pp
    >>> from ppcore import dist
    >>> @pp.model
    ... def coin():
    ...     k = pp.sample("k", dist.Bernoulli(0.3))
    ...     pp.sample("y", dist.Normal(2.0 * k, 1.0))
    >>> target = LabelledTarget(coin().observe(y=1.0).target())
    >>> target.dim, target.finite_sites
    (1, ('k',))
    >>> round(float(np.exp(target.log_prior(np.array([1.0])))), 6)
    0.3
    """

    base: ModelTarget

    def tree_flatten(self) -> tuple[tuple[Any], None]:
        return (self.base,), None

    @classmethod
    def tree_unflatten(cls, _: None, leaves: tuple[Any]) -> LabelledTarget:
        return cls(*leaves)

    @property
    def finite_sites(self) -> tuple[str, ...]:
        """The finite sites, in the order of x."""
        return self.base.labels

    @property
    def dim(self) -> int:
        """d + m."""
        return self.base.dim + sum(space.size for space in self.spaces.values())

    @property
    def beta(self) -> Any:
        """Inverse temperature of the likelihood."""
        return self.base.beta

    @property
    def spaces(self) -> dict[str, Space]:
        """The space of each finite site."""
        return dict(
            zip(self.finite_sites, _spaces(self.base.joint, self.finite_sites), strict=True)
        )

    @property
    def site_slices(self) -> dict[str, slice]:
        """Where each site lies in x."""
        found, start = dict(self.base.site_slices), self.base.dim
        for name, space in self.spaces.items():
            found[name] = slice(start, start + space.size)
            start += space.size
        return found

    @property
    def finite_coordinates(self) -> tuple[int, ...]:
        """The coordinates of x that hold values of finite sites."""
        return tuple(range(self.base.dim, self.dim))

    @property
    def has_gradient(self) -> bool:
        """Whether no coordinate is finite."""
        return not self.finite_sites

    @property
    def has_reference(self) -> bool:
        """Whether the prior can be drawn from."""
        return self.base.has_reference

    def values(self, x: Any) -> dict[str, Any]:
        """{finite site: int array} at x: float[d + m]."""
        at = self.site_slices
        return {
            name: jnp.round(x[at[name]]).astype(space.dtype).reshape(space.shape)
            for name, space in self.spaces.items()
        }

    def domain(self, site: str) -> np.ndarray:
        """The values that an element of a finite site can take, ascending."""
        found = finite_values(self.spaces[site])
        assert found is not None  # the layout of the base target has refused any other
        return found

    def given(self, x: Any, free: tuple[str, ...] = ()) -> ModelTarget:
        """The model with the finite sites observed as in x, but for those ``free``."""
        values = {n: v for n, v in self.values(x).items() if n not in free}
        base = self.base
        return replace(
            base,
            observed=(*base.observed, *values),
            evidence=(*base.evidence, *values.values()),
        )

    def log_density_by_site(self, x: Any) -> dict[str, Any]:
        """Each site's part of the log density at x: {site: float[]}, evidence not tempered."""
        return self.given(x).log_density_by_site(x[: self.base.dim])

    def log_prior(self, x: Any) -> Any:
        """The latent sites' log density, finite ones and Jacobians included."""
        return self._sum(x, False)

    def log_likelihood(self, x: Any) -> Any:
        """Log density of the evidence and of the factors."""
        return self._sum(x, True)

    def log_density(self, x: Any) -> Any:
        """log prior + β log likelihood; float[d + m] -> float[]."""
        parts = self.log_density_by_site(x)
        return self._tempered(parts, tuple(parts), x)

    def blanket_density(self, x: Any, site: str) -> Any:
        """The part of the log density that depends on a finite site: its Markov blanket's."""
        parts = self.log_density_by_site(x)
        given = self.base.observed + self.finite_sites
        return self._tempered(parts, blanket(self.base.joint, given, site), x)

    def _latent(self) -> set[str]:
        return {*self.base.latents, *self.finite_sites}

    def _sum(self, x: Any, evidence: bool) -> Any:
        latent, zero = self._latent(), jnp.zeros((), x.dtype)
        parts = self.log_density_by_site(x)
        return sum((v for n, v in parts.items() if (n not in latent) == evidence), zero)

    def _tempered(self, parts: dict[str, Any], names: tuple[str, ...], x: Any) -> Any:
        latent, total = self._latent(), jnp.zeros((), x.dtype)
        for name in names:
            if name in parts:
                total = total + (parts[name] if name in latent else self.beta * parts[name])
        return total

    def draw_site(self, key: Any, x: Any, site: str) -> Any:
        """x with a finite site drawn, all its elements at once, given all other sites.

        Exact, by sums of products over the elements.

        Raises :class:`ppcore.semantics.mixed.NotSummable` where its elements hang together so that
        the sum is too large.
        """
        summed, sites = self._conditional(x, site)
        value = value_at(sites[site], summed.draw(key))
        return x.at[self.site_slices[site]].set(jnp.ravel(value).astype(x.dtype))

    def site_log_prob(self, x: Any, site: str) -> Callable[[Any], Any]:
        """log p(site | all else) that :meth:`draw_site` draws from, at positions in its domain."""
        return self._conditional(x, site)[0].log_prob  # type: ignore[no-any-return]

    def _conditional(self, x: Any, site: str) -> tuple[Any, dict[str, Any]]:
        found = self.given(x, free=(site,)).mixed(x[: self.base.dim])
        labels = set(self.finite_sites)
        found.terms[:] = [
            replace(term, log=term.log * self.beta)
            if term.kind == "evidence" and term.name not in labels
            else term
            for term in found.terms
        ]
        return found.summed, found.sites

    def constrain(self, x: Any) -> dict[str, Any]:
        """float[d + m] -> {site: array}: latent, finite and named deterministic sites."""
        return {**self.given(x).constrain(x[: self.base.dim]), **self.values(x)}

    def sample_reference(self, key: Any, n: int) -> Any:
        """``n`` prior draws: float[n, d + m].

        Raises :class:`ppcore.errors.UnsupportedError` naming a site whose prior is improper.
        """
        return jax.vmap(lambda k: self.simulate_joint(k)[0])(jax.random.split(key, n))

    def simulate_joint(self, key: Any) -> tuple[Any, LabelledTarget]:
        """(θ, y) from the joint: x: float[d + m], and the target whose evidence is y."""
        z, moved, values = self.base.simulate_sites(key)
        labels = [jnp.ravel(values[name]).astype(z.dtype) for name in self.finite_sites]
        return jnp.concatenate([z, *labels]), LabelledTarget(moved)

    def tempered(self, beta: Any) -> LabelledTarget:
        """The same target with the likelihood to the power ``beta``."""
        return LabelledTarget(self.base.tempered(beta))


@lru_cache(maxsize=256)
def blanket(joint: Diagram, given: tuple[str, ...], site: str) -> tuple[str, ...]:
    """The sites whose densities involve ``site``, itself among them, where ``given`` are fixed.

    Parents, children and co-parents of a site meet in these densities: its Markov blanket. A
    random value that is drawn passes nothing on, as it is held where it is.

    >>> from ppcore.diagram import Box, Node
    >>> prior = Box("sample", (), (Space(),), name="k")
    >>> noise = Box("sample", (Space(),), (Space(),), name="z")
    >>> nodes = (Node(prior, ()), Node(noise, (0,)), Node(noise.__class__(
    ...     "sample", (Space(),), (Space(),), name="y"), (1,)))
    >>> blanket(Diagram((), nodes, (0, 1, 2), ("k", "z", "y")), ("k", "y"), "k")
    ('k', 'z')
    """
    diagram = condition(joint, given)
    touched = [i == len(joint.dom) + given.index(site) for i in range(len(diagram.dom))]
    found: list[str] = []
    for node in diagram.nodes:
        box, hit = node.box, any(touched[wire] for wire in node.inputs)
        drawn = box.op == "sample"
        if hit and box.body is not None:
            found += [str(inner.name) for inner in box.body.boxes() if inner.name is not None]
        elif hit and box.name is not None:
            found.append(str(box.name))
        touched.extend([hit and not drawn] * len(box.cod))
    return tuple(found)


@lru_cache(maxsize=256)
def _spaces(joint: Diagram, names: tuple[str, ...]) -> tuple[Space, ...]:
    return tuple(site_space(joint, name) for name in names)
