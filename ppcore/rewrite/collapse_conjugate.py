"""Integrate out sites whose likelihoods are conjugate: beta, gamma and Dirichlet priors.

A site that enters the diagram only as the probability of Bernoulli, binomial, geometric or
categorical values, or as the rate of Poisson or exponential ones, leaves a factor with its marginal
likelihood, whatever its own parameters depend on. Counts are summed on the host. Source: Raiffa &
Schlaifer, "Applied Statistical Decision Theory" (1961), chapter 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

from ppcore.diagram import Box, Diagram, Node
from ppcore.recording.template import StaticArray, Structure, from_template
from ppcore.rewrite.build import Builder, is_lifted
from ppcore.rewrite.conjugate_counts import FAMILIES, Counts, counted
from ppcore.rewrite.gamma_noise import EACH, log_gamma
from ppcore.rewrite.linear import Reader
from ppcore.rewrite.protocol import NotApplicable, Problem, Rewritten
from ppcore.rewrite.sites import has_labels, told
from ppcore.semantics.interpret import interpret
from ppcore.semantics.log_density import LogDensity, layout

FEW = 64  # gamma variables that are made of normals, with several of them for each


@dataclass(frozen=True)
class Prior:
    """A collapsed site's own parameters, as templates over the inputs of its box; static."""

    kind: str
    family: str
    arguments: tuple[tuple[str, Any], ...]
    shape: tuple[int, ...]

    @property
    def gammas(self) -> int:
        """Gamma variables that the site is made of."""
        return math.prod(self.shape) * (2 if self.kind == "beta" else 1)

    def parameters(self, values: Any) -> tuple[Any, ...]:
        """(a, b) of a beta or gamma site, (concentration,) of a Dirichlet one: float[*shape]."""
        given = {k: from_template(t, values) for k, t in self.arguments}
        if self.family == "Uniform":
            found: tuple[Any, ...] = (1.0, 1.0)
        elif self.family == "Exponential":
            found = (1.0, given.get("rate", 1.0))
        elif self.family == "Gamma":
            found = (given["concentration"], given.get("rate", 1.0))
        elif self.family == "Dirichlet":
            found = (given["concentration"],)
        else:
            found = (given["concentration1"], given["concentration0"])
        real = jnp.result_type(float)
        return tuple(jnp.broadcast_to(jnp.asarray(v, real), self.shape) for v in found)


def conjugate_log_weight(*values: Any, prior: Prior) -> Any:
    """log p(y | a, b) with the site integrated out; ``values``: counts, constant, the box's inputs.

    Beta: Σ log B(a + s, b + f) − log B(a, b). Gamma: Σ a log b − (a + k) log(b + e)
    + log Γ(a + k) − log Γ(a). Dirichlet: Σ log B(α + n) − log B(α).
    """
    first, second, constant = values[:3]
    parameters = prior.parameters(values[3:])
    if prior.kind == "gamma":
        a, b = parameters
        a1, b1 = a + first, b + second
        parts = gammaln(a1) - gammaln(a) + a * jnp.log(b) - a1 * jnp.log(b1)
        return jnp.sum(parts) + constant
    if prior.kind == "beta":
        a, b = parameters
        alpha, counts = jnp.stack([a, b], -1), jnp.stack([first, second], -1)
    else:
        (alpha,), counts = parameters, first
    after = alpha + counts
    parts = jnp.sum(gammaln(after) - gammaln(alpha), -1)
    return jnp.sum(parts + gammaln(alpha.sum(-1)) - gammaln(after.sum(-1))) + constant


def shapes(prior: Prior, first: Any, second: Any, parameters: Any) -> Any:
    """Shapes of the gamma variables that p(site | its parameters, y) is made of."""
    if prior.kind == "beta":
        return jnp.stack([parameters[0] + first, parameters[1] + second], -1)
    return parameters[0] + first


def assembled(prior: Prior, drawn: Any, second: Any, parameters: Any) -> Any:
    """The site, unconstrained, from logs of gamma variables: no probability rounds to 0 or 1."""
    if prior.kind == "gamma":
        return drawn - jnp.log(parameters[1] + second)
    if prior.kind == "beta":
        return drawn[..., 0] - drawn[..., 1]
    # z_k = logit of the share that k takes of what is left, less log(number of rivals left).
    behind = jax.lax.cumlogsumexp(drawn, axis=drawn.ndim - 1, reverse=True)
    rivals = jnp.log(jnp.arange(drawn.shape[-1] - 1, 0, -1, dtype=drawn.dtype))
    return drawn[..., :-1] - behind[..., 1:] + rivals


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class RestoreConjugate:
    """Draws the collapsed sites from their conjugate posteriors and puts them in their places.

    Attributes
    ----------
    after : Diagram
        The collapsed problem's, its outputs being the inputs of the factors; static.
    before : Layout
        Static.
    sites : tuple of (name, Prior, number of inputs)
        Static.
    data : tuple of arrays
        Of the collapsed problem; leaves.
    """

    after: Diagram
    before: Any
    sites: tuple[tuple[str, Prior, int], ...]
    data: tuple[Any, ...]

    def tree_flatten(self) -> tuple[Any, Any]:
        return (self.data,), (self.after, self.before, self.sites)

    @classmethod
    def tree_unflatten(cls, static: Any, leaves: Any) -> RestoreConjugate:
        return cls(static[0], static[1], static[2], leaves[0])

    def __call__(self, key: Any, x: Any) -> Any:
        """float[d′] -> float[d]; the conditional draws are exact."""
        return self._put(x, lambda alpha: jax.random.loggamma(key, alpha))

    def _put(self, x: Any, gammas: Callable[[Any], Any]) -> Any:
        """With ``gammas`` for the logs of gamma variables of all shapes together."""
        z = layout(self.after).split(x)
        wires = iter(interpret(self.after, self.data, LogDensity(), z)[0])
        posteriors = []
        for name, prior, n in self.sites:
            first, second, _, *inputs = (next(wires) for _ in range(n))
            parameters = prior.parameters(inputs)
            posteriors.append((name, prior, first, second, parameters))
        alphas = [shapes(*rest) for _, *rest in posteriors]
        # One call for all: the sampler of gamma variables is slow to compile.
        drawn = gammas(jnp.concatenate([jnp.ravel(a) for a in alphas]))
        at = 0
        for (name, prior, _, second, parameters), a in zip(posteriors, alphas, strict=True):
            z[name] = assembled(prior, drawn[at : at + a.size].reshape(a.shape), second, parameters)
            at += a.size
        return self.before.join(z)


@jax.tree_util.register_pytree_node_class
class RestoreConjugateGiven(RestoreConjugate):
    """The same for few numbers: functions of standard normals, so that no generator is compiled."""

    @property
    def noise_size(self) -> int:
        """How many."""
        return sum(prior.gammas for _, prior, _ in self.sites) * EACH

    def given(self, x: Any, z: Any) -> Any:
        """float[d′], float[noise_size] -> float[d]."""
        return self._put(x, lambda alpha: log_gamma(alpha, z))


@dataclass(frozen=True)
class CollapseConjugate:
    """Integrate out beta, gamma and Dirichlet sites that only conjugate likelihoods read.

    γ(φ) = p(φ) ∫ p(θ | φ) p(y | θ) dθ, exactly; p(θ | φ, y) is drawn afterwards.

    >>> CollapseConjugate().name
    'collapse_conjugate'
    """

    name: ClassVar[str] = "collapse_conjugate"
    summary: ClassVar[str] = "beta, gamma and Dirichlet sites are integrated out"

    def apply(self, problem: Problem) -> Rewritten | NotApplicable:
        """The problem of the remaining sites."""
        diagram = problem.diagram
        if has_labels(diagram):
            return NotApplicable("discrete sites are summed out here, observation by observation.")
        candidates = _candidates(diagram)
        if not candidates:
            return NotApplicable("no unobserved site has a beta, gamma or Dirichlet prior.")
        if len(candidates) == len(layout(diagram).names):
            del candidates[min(candidates, key=lambda w: diagram.wires[w].size)]
        reader = Reader(problem, whole=True)
        found: dict[int, Counts] = {}
        reasons = []
        for wire, node in candidates.items():
            made = _counts(reader, wire, node)
            if isinstance(made, str):
                reasons.append(f"{node.box.name!r} {made}")
            else:
                found[wire] = made
        if not found:
            return NotApplicable("; ".join(reasons) or "the only site is left to be sampled.")
        return _collapsed(problem, candidates, found)


def _candidates(diagram: Diagram) -> dict[int, Node]:
    """{wire: its node} of sites with such a prior."""
    found, wire = {}, len(diagram.dom)
    for node in diagram.nodes:
        if node.box.op == "sample" and _prior(node.box) is not None:
            found[wire] = node
        wire += len(node.box.cod)
    return found


def _prior(box: Box) -> Prior | None:
    site = told(box)
    kind = FAMILIES.get(site.family)
    nested = any(
        isinstance(t, Structure | StaticArray) for t in site.arguments.values() if t is not None
    )
    if kind is None or site.masks or nested or np.dtype(box.cod[0].dtype).kind != "f":
        return None
    if site.family == "Uniform":
        ends = (site.arguments.get("low", 0.0), site.arguments.get("high", 1.0))
        if not all(isinstance(e, int | float) for e in ends) or ends != (0, 1):
            return None
    arguments = tuple((k, t) for k, t in site.arguments.items() if t is not None)
    return Prior(kind, site.family, arguments, box.cod[0].shape)


def _counts(reader: Reader, wire: int, node: Node) -> Counts | str:
    """The sums of all observations of a site, or why it cannot go."""
    diagram, kind = reader.diagram, _kind(node.box)
    depends = [False] * len(diagram.wires)
    depends[wire] = True
    at, users = len(diagram.dom), []
    for k, other in enumerate(diagram.nodes):
        if any(depends[w] for w in other.inputs):
            box = other.box
            if box.op == "observe":
                users.append((k, other))
            elif not box.deterministic or box.body is not None:
                return f"enters {str(box)!r}."
            for port in range(len(box.cod)):
                depends[at + port] = True
        at += len(other.box.cod)
    if not users:
        return "meets no observation."
    total: Counts | None = None
    for k, user in users:
        made = counted(reader, wire, kind, user, depends)
        if isinstance(made, str):
            return made
        total = made.at(k) if total is None else total.plus(made.at(k))
    assert total is not None
    return total


def _kind(box: Box) -> str:
    prior = _prior(box)
    assert prior is not None
    return prior.kind


def _collapsed(
    problem: Problem, candidates: dict[int, Node], found: dict[int, Counts]
) -> Rewritten:
    """The problem with a factor in the place of each site and its observations."""
    diagram = problem.diagram
    gone = {k for k, n in enumerate(diagram.nodes) if any(n is candidates[w] for w in found)}
    gone |= {k for counts in found.values() for k in counts.nodes}
    depends = [w in found for w in range(len(diagram.wires))]
    at = len(diagram.dom)
    for k, node in enumerate(diagram.nodes):
        if any(depends[w] for w in node.inputs):
            gone.add(k)
            depends[at : at + len(node.box.cod)] = [True] * len(node.box.cod)
        at += len(node.box.cod)
    builder = Builder()
    tokens = builder.copy(problem, frozenset(gone))
    sites = []
    for wire, counts in found.items():
        box = candidates[wire].box
        prior, dtype = _prior(box), box.cod[0].dtype
        assert prior is not None
        data = (counts.first, counts.second, counts.constant)
        inputs = [builder.input(np.asarray(v, dtype)) for v in data]
        inputs += [tokens[w] for w in candidates[wire].inputs]
        name = f"{box.name} collapsed"
        builder.weight(name, conjugate_log_weight, inputs, dtype, prior=prior)
        sites.append((str(box.name), prior, len(inputs)))
    after = builder.finish()
    wires = _factors(after.diagram, conjugate_log_weight)
    inside = Diagram(after.diagram.dom, after.diagram.nodes, wires, (None,) * len(wires))
    few = sum(prior.gammas for _, prior, _ in sites) <= FEW
    kind = RestoreConjugateGiven if few else RestoreConjugate
    recover = kind(inside, layout(diagram), tuple(sites), after.data)
    n = sum(diagram.wires[w].size for w in found)
    did = f"{', '.join(name for name, _, _ in sites)} integrated out ({n} numbers)"
    return Rewritten(after, recover, did)


def _factors(diagram: Diagram, fn: Callable[..., Any]) -> tuple[int, ...]:
    """All inputs of the boxes that compute ``fn``, in order."""
    return tuple(w for node in diagram.nodes if is_lifted(node.box, fn) for w in node.inputs)
