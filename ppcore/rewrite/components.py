"""Components: parts of a posterior that share no factor, and so are independent.

Two latent sites are connected if one box whose density counts (a latent site, an observed one, a
factor, a scan with sites inside) depends on both. γ(x) is then the product of the components' γ_c,
and each can be sampled by itself: a posterior of twelve coordinates that is three of four is not a
hard one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.diagram import Diagram
from ppcore.rewrite.build import Builder, Token
from ppcore.rewrite.protocol import Problem
from ppcore.rewrite.sites import has_labels
from ppcore.semantics.log_density import layout


@dataclass(frozen=True, eq=False)
class Component:
    """One independent part of a problem.

    Attributes
    ----------
    problem : Problem
    at : int[d_c]
        Its coordinates among those of the whole.
    """

    problem: Problem
    at: np.ndarray


def components(problem: Problem) -> tuple[Component, ...]:
    """The independent parts of a problem, in the order of their first sites; one if it is whole.

    Effects that depend on no latent site, which are constants, stay with the first.

    >>> from ppcore.diagram import Diagram
    >>> len(components(Problem(Diagram((), (), ()), ())))
    1
    """
    diagram = problem.diagram
    groups = [] if has_labels(diagram) else _groups(diagram)
    if len(groups) < 2:
        return (Component(problem, np.arange(layout(diagram).dim)),)
    return tuple(part(problem, group, i == 0) for i, group in enumerate(groups))


def _groups(diagram: Diagram) -> list[frozenset[str]]:
    """Names of the latent sites of every component."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for sites in _touched(diagram):
        for name in sites:
            leader.setdefault(name, name)
        first, *others = sites or ("",)
        for name in others:
            leader[find(name)] = find(first)
    found: dict[str, set[str]] = {}
    for name in diagram.named("sample"):
        found.setdefault(find(name), set()).add(name)
    return [frozenset(group) for group in found.values()]


def _touched(diagram: Diagram) -> list[tuple[str, ...]]:
    """For every node with a density: the latent sites that it depends on, its own included."""
    behind: list[frozenset[str]] = [frozenset()] * len(diagram.dom)
    touched = []
    for node in diagram.nodes:
        box = node.box
        sites = frozenset().union(*(behind[w] for w in node.inputs))
        if box.body is not None and not box.deterministic:
            sites |= frozenset(box.body.named("sample"))
            touched.append(tuple(sorted(sites)))
            behind.extend([sites] * len(box.cod))
        elif box.op == "sample":
            touched.append(tuple(sorted(sites | {str(box.name)})))
            behind.append(frozenset({str(box.name)}))
        elif not box.cod:
            touched.append(tuple(sorted(sites)))
        else:
            behind.extend([sites] * len(box.cod))
    return touched


def part(problem: Problem, sites: frozenset[str], constants: bool) -> Component:
    """The problem of ``sites``, whole components all; with the constant effects or without."""
    diagram = problem.diagram
    builder = Builder()
    tokens: list[Token | None] = [
        builder.input(v, s) for v, s in zip(problem.data, diagram.dom, strict=True)
    ]
    touched = iter(_touched(diagram))
    for node in diagram.nodes:
        box = node.box
        counts = (
            box.op == "sample" or not box.cod or (box.body is not None and not box.deterministic)
        )
        own = True
        if counts:
            named = next(touched)
            own = bool(sites.intersection(named)) or (constants and not named)
        inputs = [t for w in node.inputs if (t := tokens[w]) is not None]
        if own and len(inputs) == len(node.inputs):
            tokens.extend(builder.add(box, inputs))
        else:
            tokens.extend([None] * len(box.cod))
    where = layout(diagram)
    made = builder.finish()
    at = [
        np.arange(where.slices[n].start, where.slices[n].stop) for n in layout(made.diagram).names
    ]
    return Component(made, np.concatenate(at) if at else np.zeros(0, int))


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Join:
    """Coordinates of some components, and draws of the others, -> those of the whole.

    The draws take the place of noise: ``noise`` makes them on the host.

    Attributes
    ----------
    at, others : int[d′], int[noise_size]
        Where the coordinates, and those of the other components, go.
    """

    at: Any
    others: Any

    def tree_flatten(self) -> tuple[Any, Any]:
        return (self.at, self.others), None

    @classmethod
    def tree_unflatten(cls, static: Any, leaves: Any) -> Join:
        return cls(*leaves)

    @property
    def noise_size(self) -> int:
        """Coordinates of the other components."""
        return int(self.others.shape[0])

    def __call__(self, key: Any, x: Any) -> Any:
        """What has no key: draws of the others are needed, see :meth:`given`."""
        raise TypeError("Join takes draws of the other components: call given(x, z).")

    def given(self, x: Any, z: Any) -> Any:
        """float[d′], float[noise_size] -> float[d]."""
        x = jnp.asarray(x)
        whole = jnp.zeros(self.at.shape[0] + self.others.shape[0], x.dtype)
        return whole.at[self.at].set(x).at[self.others].set(z)
