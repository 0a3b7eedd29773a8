"""Sums of observations that determine the posterior of a conjugate site, element by element."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import gammaln

from ppcore.diagram import Hole, Node
from ppcore.rewrite.linear import Gather, Linear, Reader
from ppcore.rewrite.sites import form_of, told

FAMILIES = {
    "Beta": "beta",
    "Uniform": "beta",
    "Gamma": "gamma",
    "Exponential": "gamma",
    "Dirichlet": "dirichlet",
}
"""Family of a prior -> the kind of its conjugate update."""

_READS = {
    "beta": {
        "BernoulliProbs": "probs",
        "Bernoulli": "probs",
        "BinomialProbs": "probs",
        "Binomial": "probs",
        "Geometric": "probs",
        "GeometricProbs": "probs",
    },
    "gamma": {"Poisson": "rate", "Exponential": "rate"},
    "dirichlet": {"Categorical": "probs", "CategoricalProbs": "probs"},
}


@dataclass(frozen=True, eq=False)
class Counts:
    """What observations add to the parameters of a site.

    Attributes
    ----------
    first, second : float[*shape]
        Successes and failures; events and exposure; or counts per category and zero.
    constant : float
        log of what the likelihood has besides.
    nodes : tuple of int
        The observe boxes that were counted.
    """

    first: np.ndarray
    second: np.ndarray
    constant: float
    nodes: tuple[int, ...] = ()

    def at(self, node: int) -> Counts:
        """The same, of one observe box."""
        return replace(self, nodes=(node,))

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        return Counts(
            self.first + other.first,
            self.second + other.second,
            self.constant + other.constant,
            self.nodes + other.nodes,
        )


def counted(reader: Reader, wire: int, kind: str, node: Node, depends: list[bool]) -> Counts | str:
    """The counts of an observe box that reads the site on ``wire``, or why there are none."""
    site, name = told(node.box), node.box.name
    argument = _READS[kind].get(site.family)
    if argument is None or site.arguments.get(argument) is None:
        return f"is in the likelihood of {name!r}, a {site.family}."
    others = [t for k, t in site.arguments.items() if k != argument]
    read = [t for t in (*others, *site.masks) if t is not None]
    if not all(_known(reader, node, t) for t in read):
        return f"meets other random values in {name!r}."
    if site.masks:
        return f"is in {name!r}, which is masked."
    form = form_of(reader, node.inputs[:-1], site.arguments[argument], 0.0)
    if not isinstance(form, Linear) or len(form.terms) != 1 or np.any(form.offset):
        return f"enters {name!r} by more than an index or a known factor."
    term = form.terms[0]
    if not isinstance(term, Gather) or term.atom != wire or np.any(np.asarray(term.coef) <= 0):
        return f"enters {name!r} by more than an index or a known factor."
    y = reader.known(node.inputs[-1])
    if kind == "dirichlet":
        return _categories(reader, wire, form, term, y, name)
    coef = np.broadcast_to(np.asarray(term.coef, float), y.shape)
    index = np.broadcast_to(_rows(term.index, form.shape, y.shape), y.shape).ravel()
    shape = reader.diagram.wires[wire].shape
    first, second, constant = _sums(reader, kind, site, node, np.asarray(y, float), coef)
    if kind == "beta" and np.any(coef != 1.0):
        return f"is multiplied before it enters {name!r}."
    size = int(np.prod(shape, dtype=int))

    def total(values: np.ndarray) -> np.ndarray:
        full = np.broadcast_to(values, y.shape).ravel()
        return np.bincount(index, full, size).reshape(shape)

    return Counts(total(first), total(second), float(constant))


def _rows(index: np.ndarray, shape: tuple[int, ...], to: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(np.broadcast_to(index, shape), to)


def _known(reader: Reader, node: Node, template: Any) -> bool:
    """Whether a template reads nothing random."""
    from ppcore.semantics.gaussian_site import holes

    return not any(reader.random[node.inputs[i]] for i in holes(template))


def _sums(
    reader: Reader, kind: str, site: Any, node: Node, y: np.ndarray, coef: np.ndarray
) -> tuple[Any, Any, float]:
    """What every observation adds, and the constant of all together."""
    if kind == "gamma" and site.family == "Poisson":
        constant = np.sum(y * np.log(coef) - gammaln(y + 1))
        return y, coef, float(constant)
    if kind == "gamma":
        return np.ones(()), coef * y, float(np.sum(np.log(coef)))
    if site.family.startswith("Geometric"):
        return np.ones(()), y, 0.0
    if site.family.startswith("Binomial"):
        trials = site.arguments.get("total_count", 1)
        n = reader.known(node.inputs[trials.index]) if isinstance(trials, Hole) else trials
        n = np.broadcast_to(np.asarray(n, float), y.shape)
        constant = np.sum(gammaln(n + 1) - gammaln(y + 1) - gammaln(n - y + 1))
        return y, n - y, float(constant)
    return y, 1.0 - y, 0.0


def _categories(
    reader: Reader, wire: int, form: Linear, term: Gather, y: np.ndarray, name: Any
) -> Counts | str:
    """Counts per category; every observation has to read one whole simplex."""
    shape = reader.diagram.wires[wire].shape
    k = shape[-1]
    index = np.broadcast_to(term.index, form.shape)
    whole = index.shape[-1] == k and np.array_equal(
        index % k, np.broadcast_to(np.arange(k), index.shape)
    )
    if not whole or np.any(index // k != index[..., :1] // k) or np.any(np.asarray(term.coef) != 1):
        return f"enters {name!r} in parts."
    row = np.broadcast_to(index[..., 0] // k, y.shape).ravel()
    counts = np.bincount(row * k + np.asarray(y, int).ravel(), minlength=int(np.prod(shape)))
    first = counts.reshape(shape).astype(float)
    return Counts(first, np.zeros(shape), 0.0)
