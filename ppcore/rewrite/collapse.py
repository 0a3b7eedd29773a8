"""Integrate out every site that is normal given the others: coefficients and group effects.

Given scales and other parameters φ, a model's normal part is linear; its sites leave the diagram
and one factor with their marginal likelihood takes their place. What is left is often one to three
scale parameters. The sites return by exact draws from their conditional distribution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import numpy as np

from ppcore import precision
from ppcore.diagram import Diagram, Node
from ppcore.rewrite.build import Builder, is_lifted
from ppcore.rewrite.collapse_basis import coordinates, plain
from ppcore.rewrite.collapse_integral import draw, integrate, noise_size
from ppcore.rewrite.collapse_walk import Blocked, Sites, walk
from ppcore.rewrite.protocol import NotApplicable, Problem, Rewritten
from ppcore.rewrite.sites import has_labels, told
from ppcore.semantics.interpret import interpret
from ppcore.semantics.log_density import LogDensity, layout

FACTOR = "collapsed"
GROUP = 5  # sites with fewer elements are dense: their structure is not worth keeping
DENSE = 100  # coefficients that one Cholesky decomposition may have when many parameters remain
DENSE_AT_MOST = 400  # and when at most three do, so that quadrature follows


@dataclass(frozen=True)
class Spec:
    """What is integrated: the part of the diagram, and the sites; static."""

    body: Diagram
    sites: Sites


def collapsed_log_weight(*values: Any, spec: Spec) -> Any:
    """log ∫ of the normal part at φ; ``values``: shift, T, log |det T|, then the body's inputs."""
    shift, basis, log_volume = values[:3]
    found = walk(spec.body, values[3:], spec.sites, shift, basis)
    return integrate(found, spec.sites, shift, basis, log_volume).log_weight


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Restore:
    """Draws the collapsed sites from p(sites | φ, evidence) and puts them back in their places.

    Attributes
    ----------
    after : Diagram
        The collapsed problem's, its outputs being the inputs of the integral; static.
    before : Diagram
        Only its layout is used; static.
    spec : Spec
        Static.
    noise_size : int
        How many standard normals a draw takes; static.
    data : tuple of arrays
        Of the collapsed problem; leaves.
    """

    after: Diagram
    before: Any
    spec: Spec
    noise_size: int
    data: tuple[Any, ...]

    def tree_flatten(self) -> tuple[Any, Any]:
        return (self.data,), (self.after, self.before, self.spec, self.noise_size)

    @classmethod
    def tree_unflatten(cls, static: Any, leaves: Any) -> Restore:
        return cls(static[0], static[1], static[2], static[3], leaves[0])

    def __call__(self, key: Any, x: Any) -> Any:
        """float[d′] -> float[d]; the conditional draw is exact."""
        return self.given(x, jax.random.normal(key, (self.noise_size,), x.dtype))

    def given(self, x: Any, z: Any) -> Any:
        """The draw as an affine function of standard normal z: float[noise_size] -> float[d]."""
        found, integral = self._integral(x)
        shift, basis = self._inputs(x)[:2]
        values = draw(integral, found, self.spec.sites, shift, basis, z)
        known = layout(self.after).split(x)
        return self.before.join({**known, **{n: values[n] for n in self.spec.sites.names}})

    def _inputs(self, x: Any) -> list[Any]:
        return interpret(self.after, self.data, LogDensity(), layout(self.after).split(x))[0]

    def _integral(self, x: Any) -> tuple[Any, Any]:
        shift, basis, log_volume, *inputs = self._inputs(x)
        found = walk(self.spec.body, inputs, self.spec.sites, shift, basis)
        return found, integrate(found, self.spec.sites, shift, basis, log_volume)


@dataclass(frozen=True)
class Collapse:
    """Integrate out all sites that are jointly normal given the rest.

    γ(φ) = p(φ) ∫ Π N(·; affine in β) dβ, exactly; p(β | φ, y) is drawn afterwards. Group effects
    cost one number a group; other coefficients one Cholesky decomposition of the smaller of their
    number and the number of rows.

    >>> Collapse().name
    'collapse'
    """

    name: ClassVar[str] = "collapse"
    summary: ClassVar[str] = "coefficients and group effects with normal priors are integrated out"

    def apply(self, problem: Problem) -> Rewritten | NotApplicable:
        """The problem of the remaining sites."""
        if has_labels(problem.diagram):
            return NotApplicable("discrete sites are summed out here, observation by observation.")
        groups = _candidates(problem.diagram)
        reasons: dict[str, str] = {}
        if not groups:
            return NotApplicable("no unobserved site has a normal or flat prior.")
        while groups:
            planned = _plan(problem, groups)
            trouble = _try(planned)
            if isinstance(trouble, Blocked):
                _give_way(problem.diagram, groups, trouble, reasons)
            elif _left(problem, groups):
                break
            else:
                _keep_one(problem.diagram, groups, reasons)
        why = "; ".join(f"{site!r} {reason}" for site, reason in reasons.items())
        if not groups:
            return NotApplicable(why)
        p, left = len(planned.spec.sites.proper), _left(problem, groups)
        if p > (DENSE_AT_MOST if left <= 3 else DENSE):
            return NotApplicable(f"{p} coefficients would need a matrix of that order a step.")
        assert not isinstance(trouble, Blocked)
        return _collapsed(problem, planned, *trouble, why)


@dataclass(frozen=True, eq=False)
class _Planned:
    """A trial: what would be integrated, the nodes that go, and the wires that enter the body."""

    spec: Spec
    gone: frozenset[int]
    entering: tuple[int, ...]


def _candidates(diagram: Diagram) -> dict[str, bool]:
    """{site with a normal or flat prior: whether its elements form groups}."""
    found = {}
    for node in diagram.nodes:
        box = node.box
        if box.op != "sample" or box.cod[0].support.name != "real":
            continue
        site = told(box)
        if site.masks or np.dtype(box.cod[0].dtype).kind != "f":
            continue
        if site.family in ("Normal", "MultivariateNormal", "ImproperUniform"):
            found[str(box.name)] = site.family == "Normal" and box.cod[0].size >= GROUP
    return found


def _plan(problem: Problem, groups: dict[str, bool]) -> _Planned:
    """The part of the diagram that depends on the sites, with what it needs above it."""
    diagram = problem.diagram
    start = len(diagram.dom)
    maker: list[int] = [-1] * start
    depends = [False] * start
    gone, dense = [], []
    proper: list[bool] = []
    for k, node in enumerate(diagram.nodes):
        box = node.box
        own = box.op == "sample" and box.name in groups
        inside = own or any(depends[w] for w in node.inputs)
        maker.extend([k] * len(box.cod))
        depends.extend([inside] * len(box.cod))
        if inside:
            gone.append(k)
        if own and not groups[str(box.name)]:
            n = box.cod[0].size
            dense.append((str(box.name), len(proper), len(proper) + n))
            proper.extend([told(box).family != "ImproperUniform"] * n)
    # Computed values that only the body uses are computed in it; samples enter from outside.
    needed, stack, entering = set(gone), list(gone), set()
    while stack:
        for w in diagram.nodes[stack.pop()].inputs:
            k = maker[w]
            if k >= 0 and (depends[w] or (diagram.nodes[k].box.deterministic)):
                if k not in needed:
                    needed.add(k)
                    stack.append(k)
            else:
                entering.add(w)
    wires = {w: i for i, w in enumerate(sorted(entering))}
    count, at, nodes = len(wires), start, []
    for k, node in enumerate(diagram.nodes):
        if k in needed:
            nodes.append(Node(node.box, tuple(wires[w] for w in node.inputs)))
            for port in range(len(node.box.cod)):
                wires[at + port] = count
                count += 1
        at += len(node.box.cod)
    dom = tuple(diagram.wires[w] for w in sorted(entering))
    kept = tuple(n for n, grouped in groups.items() if grouped)
    spec = Spec(Diagram(dom, tuple(nodes), ()), Sites(tuple(dense), kept, tuple(proper)))
    return _Planned(spec, frozenset(gone), tuple(sorted(entering)))


def _try(planned: _Planned) -> Blocked | tuple[int, bool]:
    """Walk the body on shapes alone: what is in the way, or noise of a draw and ``by_rows``."""
    sites, body = planned.spec.sites, planned.spec.body
    p = len(sites.proper)
    seen: list[tuple[int, bool]] = []

    def run(shift: Any, basis: Any, *inputs: Any) -> Any:
        found = walk(body, inputs, sites, shift, basis)
        integral = integrate(found, sites, shift, basis, 0.0)
        seen.append((noise_size(integral), integral.by_rows))
        return integral.log_weight

    with precision.scope("float64"):
        spaces = [jax.ShapeDtypeStruct(s.shape, np.dtype(s.dtype)) for s in body.dom]
        p_shape = [jax.ShapeDtypeStruct(s, np.dtype(float)) for s in ((p,), (p, p))]
        try:
            jax.eval_shape(run, *p_shape, *spaces)
        except Blocked as trouble:
            return trouble
    return seen[0]


def _give_way(
    diagram: Diagram, groups: dict[str, bool], trouble: Blocked, reasons: dict[str, str]
) -> None:
    """Keep the sites in the way out of the integral, or out of the groups."""
    sizes = {str(b.name): b.cod[0].size for b in diagram.boxes() if b.op == "sample"}
    choice = min(trouble.choices, key=lambda c: (sum(sizes[s] for s in c), sorted(c)))
    if trouble.dense:
        smallest = min(choice, key=lambda s: (sizes[s], s))
        if sizes[smallest] <= DENSE_AT_MOST:
            groups[smallest] = False
            return
        choice = frozenset((smallest,))
    for site in choice:
        if site in groups:
            del groups[site]
            reasons[site] = trouble.why


def _keep_one(diagram: Diagram, groups: dict[str, bool], reasons: dict[str, str]) -> None:
    """Leave the smallest site that no other one enters: engines need a coordinate to work on."""
    inside = _dependent(diagram, groups)
    roots = [
        node.box
        for node, depends in zip(diagram.nodes, inside, strict=True)
        if node.box.name in groups and not depends
    ]
    smallest = min(roots, key=lambda box: box.cod[0].size)
    del groups[str(smallest.name)]
    reasons[str(smallest.name)] = "is left so that something is"


def _dependent(diagram: Diagram, groups: dict[str, bool]) -> list[bool]:
    """Of each node, whether an input depends on a site of ``groups``."""
    depends = [False] * len(diagram.dom)
    found = []
    for node in diagram.nodes:
        found.append(any(depends[w] for w in node.inputs))
        made = found[-1] or (node.box.op == "sample" and node.box.name in groups)
        depends.extend([made] * len(node.box.cod))
    return found


def _left(problem: Problem, groups: dict[str, bool]) -> int:
    found = layout(problem.diagram)
    return sum(n for site, n in zip(found.names, found.sizes, strict=True) if site not in groups)


def _collapsed(
    problem: Problem, planned: _Planned, noise: int, by_rows: bool, why: str
) -> Rewritten:
    """The problem with the integral in the place of the sites."""
    diagram, sites = problem.diagram, planned.spec.sites
    dtype = next(b for b in diagram.boxes() if b.name in sites.names).cod[0].dtype
    builder = Builder()
    tokens = builder.copy(problem, planned.gone)
    p = len(sites.proper)
    # The integral over rows takes ε itself to be standard normal.
    basis = plain(p) if by_rows else coordinates(problem, sites, planned.gone)
    spec = replace(planned.spec, sites=replace(sites, diagonal=basis.diagonal))
    data = (basis.shift, basis.matrix, basis.log_volume)
    inputs = [builder.input(np.asarray(v, dtype)) for v in data]
    inputs += [tokens[w] for w in planned.entering]
    builder.weight(FACTOR, collapsed_log_weight, inputs, dtype, spec=spec)
    after = builder.finish()
    node = next(n for n in after.diagram.nodes if is_lifted(n.box, collapsed_log_weight))
    named = (None,) * len(node.inputs)
    inside = Diagram(after.diagram.dom, after.diagram.nodes, node.inputs, named)
    recover = Restore(inside, layout(problem.diagram), spec, noise, after.data)
    shown = ", ".join(n for n in diagram.named("sample") if n in sites.names)
    size = sum(b.cod[0].size for b in diagram.boxes() if b.name in sites.names)
    did = f"{shown} integrated out ({size} numbers)" + (f"; kept: {why}" if why else "")
    return Rewritten(after, recover, did)
