"""Gaussian chains integrated out by recursion: the cost of a density is linear in their length.

A scan whose latent sites are normal and whose observations are normal and affine in the carry is,
given everything outside, x' = f + F u, 0 = r + J u + D η with u = (x, ε) and standard normal ε, η
(:mod:`ppcore.exact.chain_form`). With x ~ N(m, P) before a step, e = −(r + J μ) and
V = J Σ Jᵀ + D Dᵀ, where μ = (m, 0) and Σ = diag(P, I),

    log p(y) = Σ log N(e; 0, V),   m' = f + F μ + F Σ Jᵀ V⁻¹ e,   P' = F Σ Fᵀ − F Σ Jᵀ V⁻¹ J Σ Fᵀ.

The latent path returns by an exact draw: a path and observations are simulated, and the noise is
moved by the conditional mean of the noise that explains the gaps s between simulated and true
observations. That mean is the gradient of log p(s) in the mean δ of ε at δ = 0 (Tweedie's formula),
so that no second recursion is needed, and no covariance has to be inverted.

Sources: Kalman 1960, doi:10.1115/1.3662552; Durbin & Koopman 2002, doi:10.1093/biomet/89.3.603
(the draw); Efron 2011, doi:10.1198/jasa.2011.tm11181 (the gradient).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import precision
from ppcore.diagram import Box, Diagram
from ppcore.exact.chain_form import Plan, plan, steps
from ppcore.rewrite.build import Builder, is_lifted
from ppcore.rewrite.collapse_integral import cholesky, forward
from ppcore.rewrite.collapse_walk import HALF_LOG_2PI
from ppcore.rewrite.protocol import NotApplicable, Problem, Rewritten
from ppcore.rewrite.sites import has_labels
from ppcore.semantics.gaussian import NotGaussian, Wire
from ppcore.semantics.interpret import interpret
from ppcore.semantics.log_density import LogDensity, layout

LARGEST = 16  # numbers in a state: a step costs their cube
FACTOR = "chain"


def markov_log_weight(*values: Any, chain: Plan) -> Any:
    """log p(observations of the chain | everything outside); ``values``: the scan's inputs."""
    forms = steps(chain, list(values), {})
    return filtered(_start(chain, values), forms, jnp.zeros((_length(forms), _noise(chain))))


def _start(chain: Plan, values: Any) -> Any:
    parts = [jnp.ravel(jnp.asarray(values[i])) for i in chain.state_inputs]
    return jnp.concatenate([jnp.zeros(0), *parts])


def _length(forms: Any) -> int:
    return int(forms["f"].shape[0])


def _noise(chain: Plan) -> int:
    return chain.size - chain.state


def filtered(mean: Any, forms: Any, shift: Any) -> Any:
    """Σ log N(e; 0, V) from a known first state; ``shift``: float[T, q], the mean of ε."""
    k = mean.shape[0]

    def step(state: Any, element: Any) -> Any:
        m, p = state
        form, delta = element
        big_f, j = form["F"], form["J"]
        mu = jnp.concatenate([m, delta])
        seen = jnp.concatenate([j[:, :k] @ p, j[:, k:]], 1)
        moved = jnp.concatenate([big_f[:, :k] @ p, big_f[:, k:]], 1)
        root = cholesky(seen @ j.T + form["D"] @ form["D"].T)
        w = forward(root, -(form["r"] + j @ mu))
        gain = forward(root, moved @ j.T)
        log = -0.5 * w @ w - jnp.sum(jnp.log(jnp.diagonal(root))) - len(w) * HALF_LOG_2PI
        after = moved @ big_f.T - gain @ gain.T
        following = form["f"] + big_f @ mu + gain @ w
        return (following, 0.5 * (after + after.T)), log + form["weight"]

    return jnp.sum(jax.lax.scan(step, (mean, jnp.zeros((k, k))), (forms, shift))[1])


def simulated(mean: Any, forms: Any, noise: Any, eta: Any) -> Any:
    """Residuals r + J u + D η and sites c + C u, step by step, of the path that ``noise`` makes."""

    def step(x: Any, element: Any) -> Any:
        form, epsilon, error = element
        u = jnp.concatenate([x, epsilon])
        residual = form["r"] + form["J"] @ u + form["D"] @ error
        sites = {n: c + form["C"][n] @ u for n, c in form["c"].items()}
        return form["f"] + form["F"] @ u, (residual, sites)

    return jax.lax.scan(step, mean, (forms, noise, eta))[1]


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class RestorePath:
    """Draws the chain's sites given the rest and puts them back in their places.

    Attributes
    ----------
    after : Diagram
        The collapsed problem's, its outputs being the inputs of the recursion; static.
    before : Layout
        Static.
    chain : Plan
        Static.
    noise_size : int
        How many standard normals a draw takes; static.
    data : tuple of arrays
        Of the collapsed problem; leaves.
    """

    after: Diagram
    before: Any
    chain: Plan
    noise_size: int
    data: tuple[Any, ...]

    def tree_flatten(self) -> tuple[Any, Any]:
        return (self.data,), (self.after, self.before, self.chain, self.noise_size)

    @classmethod
    def tree_unflatten(cls, static: Any, leaves: Any) -> RestorePath:
        return cls(static[0], static[1], static[2], static[3], leaves[0])

    def __call__(self, key: Any, x: Any) -> Any:
        """float[d′] -> float[d]; the conditional draw is exact."""
        return self.given(x, jax.random.normal(key, (self.noise_size,), x.dtype))

    def given(self, x: Any, z: Any) -> Any:
        """The draw as an affine function of standard normal z: float[noise_size] -> float[d]."""
        known = layout(self.after).split(x)
        values = interpret(self.after, self.data, LogDensity(), known)[0]
        forms, start = steps(self.chain, list(values), {}), _start(self.chain, values)
        length, q = _length(forms), _noise(self.chain)
        noise, eta = z[: length * q].reshape(length, q), z[length * q :].reshape(length, -1)
        residual, _ = simulated(start, forms, noise, eta)
        gaps = forms | {"r": residual, "f": jnp.zeros_like(forms["f"])}
        explained = jax.grad(filtered, 2)(jnp.zeros_like(start), gaps, jnp.zeros_like(noise))
        sites = simulated(start, forms, noise + explained, jnp.zeros_like(eta))[1]
        names = [n for n, _ in self.chain.noise]
        return self.before.join({**known, **{n: sites[n] for n in names}})


@dataclass(frozen=True)
class MarkovRecursion:
    """Integrate out the latent path of a linear-Gaussian scan whose parameters are random.

    γ(φ) = p(φ) p(y | φ), exactly, by Kalman's recursion; p(path | φ, y) is drawn afterwards.

    >>> MarkovRecursion().name
    'markov_recursion'
    """

    name: ClassVar[str] = "markov_recursion"
    summary: ClassVar[str] = "latent paths of linear-Gaussian scans are integrated out"

    def apply(self, problem: Problem) -> Rewritten | NotApplicable:
        """The problem without the first such path."""
        if has_labels(problem.diagram):
            return NotApplicable("discrete sites are summed out here, observation by observation.")
        reasons = []
        for k, node in enumerate(problem.diagram.nodes):
            if node.box.op == "scan" and node.box.body is not None and not node.box.deterministic:
                made = _chain(problem.diagram, k)
                if isinstance(made, Plan):
                    return _collapsed(problem, k, made)
                reasons.append(made)
        return NotApplicable("; ".join(reasons) or "no scan has latent sites inside.")


def _chain(diagram: Diagram, k: int) -> Plan | str:
    """What is static about a scan's steps, or why it is no chain to be integrated out."""
    box = diagram.nodes[k].box
    assert box.body is not None
    latent = box.body.named("sample")
    shown = ", ".join(latent)
    if not latent:
        return "its scan has no latent site."
    if box.spec.reverse:
        return f"{shown}: the scan runs backwards."
    if len(layout(diagram).names) == len(latent):
        return f"{shown}: nothing else is random, so that the chain can be solved."
    if _reaches_density(diagram, k):
        return f"{shown}: the path is observed outside the scan."
    if any(b.body is not None for b in box.body.boxes()):
        return f"{shown}: the step has a scan or a plate inside."
    if not any(b.op == "observe" for b in box.body.boxes()):
        return f"{shown}: nothing is observed in the scan."
    wires = [Wire(np.ones(s.shape, s.dtype)) for s in box.dom]
    try:
        with precision.scope("float64"):
            made = plan(box, wires, {})
    except NotGaussian as error:
        return f"{shown}: {error}"
    if {n for n, _ in made.noise} != set(latent):
        return f"{shown}: a site has no noise."
    if made.state > LARGEST:
        return f"{shown}: a state of {made.state} numbers is large."
    return made


def _reaches_density(diagram: Diagram, k: int) -> bool:
    """Whether a site, an observation or a factor depends on what a node makes."""
    reached = [False] * len(diagram.dom)
    for i, node in enumerate(diagram.nodes):
        box, inside = node.box, any(reached[w] for w in node.inputs)
        if inside and (not box.cod or not box.deterministic):
            return True
        reached.extend([inside or i == k] * len(box.cod))
    return False


def _rows(box: Box) -> int:
    """Observed numbers of one step."""
    assert box.body is not None
    return sum(b.dom[-1].size for b in box.body.boxes() if b.op == "observe")


def _collapsed(problem: Problem, k: int, chain: Plan) -> Rewritten:
    diagram = problem.diagram
    node = diagram.nodes[k]
    behind, reached = {k}, [False] * len(diagram.dom)
    for i, other in enumerate(diagram.nodes):
        inside = i == k or any(reached[w] for w in other.inputs)
        behind |= {i} if inside else set()
        reached.extend([inside] * len(other.box.cod))
    builder = Builder()
    tokens = builder.copy(problem, frozenset(behind))
    dtype = next(s.dtype for s in diagram.wires if np.dtype(s.dtype).kind == "f")
    inputs = [tokens[w] for w in node.inputs]
    builder.weight(FACTOR, markov_log_weight, inputs, dtype, chain=chain)
    after = builder.finish()
    made = next(n for n in after.diagram.nodes if is_lifted(n.box, markov_log_weight))
    named = (None,) * len(made.inputs)
    inside_diagram = Diagram(after.diagram.dom, after.diagram.nodes, made.inputs, named)
    length = node.box.spec.length
    noise = length * (_noise(chain) + _rows(node.box))
    recover = RestorePath(inside_diagram, layout(diagram), chain, noise, after.data)
    shown = ", ".join(n for n, _ in chain.noise)
    size = length * _noise(chain)
    return Rewritten(after, recover, f"{shown} integrated out by recursion ({size} numbers)")
