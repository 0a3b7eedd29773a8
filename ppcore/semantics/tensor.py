"""The tensor semantics: finite wires become index ranges, boxes become stochastic tensors.

A functor to (unnormalised) stochastic tensors: sequential composition is summation over the shared
index, parallel composition the outer product, copy the diagonal, discard the sum. Composites are
held as :class:`~ppcore.semantics.finite.Network` of factors; what is summed, and in which order, is
left to whoever reads it (:mod:`ppcore.exact.tensor`, or :func:`tensor` by opt_einsum).

Source: Fritz, "A synthetic approach to Markov kernels" (2020), arXiv:1908.07021 (FinStoch).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppcore.diagram import Box, Diagram
from ppcore.errors import UnsupportedError
from ppcore.semantics.finite import Factor, Finite, Network, TooLarge, align, constant, stack
from ppcore.semantics.finite_dist import computed, finite_values, is_delta, log_table
from ppcore.semantics.finite_ops import apply
from ppcore.space import Space


class NotFinite(UnsupportedError):
    """A box has no finite tensor; ``box`` names it and ``why`` says why."""

    def __init__(self, box: str, why: str):
        super().__init__(f"Box {box!r} has no finite tensor: {why}")
        self.box, self.why = box, why


def network(
    diagram: Diagram, inputs: Sequence[Any], evidence: Mapping[str, Any] | None = None
) -> tuple[Network, list[Finite]]:
    """The factors of a diagram on given inputs, and its outputs as functions of the variables.

    Parameters
    ----------
    diagram : Diagram
    inputs : sequence of arrays or Finite
        One for each wire of ``diagram.dom``.
    evidence : mapping, optional
        Values of sample sites that are not latent: they become constants.

    Raises
    ------
    NotFinite
        A site's support is not finite, or a table would be too large.
    """
    net = Network()
    given = {k: np.asarray(v) for k, v in (evidence or {}).items()}
    wires = [v if isinstance(v, Finite) else constant(v) for v in inputs]
    return net, extend(net, diagram, wires, given)


def extend(
    net: Network, diagram: Diagram, inputs: list[Finite], evidence: Mapping[str, Any]
) -> list[Finite]:
    """Add a diagram's factors to a network; returns its outputs. One step of a longer walk.

    For a one-step kernel pass the body of a scan and fresh variables
    (:meth:`~ppcore.semantics.finite.Network.fresh`) as its carry.
    """
    wires = list(inputs)
    for node in diagram.nodes:
        values = [wires[i] for i in node.inputs]
        try:
            wires.extend(_box(net, node.box, values, evidence))
        except TooLarge as error:
            raise NotFinite(str(node.box), f"{error.args[0]}.") from None
    return [wires[i] for i in diagram.outputs]


def _box(net: Network, box: Box, values: list[Finite], evidence: Mapping[str, Any]) -> list[Finite]:
    if box.op == "sample":
        return [_sample(net, box, values, evidence)]
    if box.op == "observe":
        _observe(net, box, values[:-1], values[-1])
        return []
    if box.op == "factor":
        net.add(values[0].slots, values[0].table)
        return []
    if box.op == "stochastic":
        return _stochastic(net, box, values)
    if box.op == "scan":
        return _scan(net, box, values, evidence)
    if box.op == "plate":
        assert box.body is not None
        return extend(net, box.body, values, evidence)
    made = apply(box, values, net)
    if box.op == "deterministic" and box.name is not None:
        net.sites[box.name] = made[0]
    return made


def _sample(net: Network, box: Box, values: list[Finite], evidence: Mapping[str, Any]) -> Finite:
    name, space = str(box.name), box.cod[0]
    if name in evidence:
        given = constant(evidence[name])
        _observe(net, box, values, given)
        net.sites[name] = given
        return given
    if is_delta(box):
        parameter = computed(box, values)
        net.sites[name] = parameter
        return parameter
    support = finite_values(space)
    if support is None:
        raise NotFinite(name, f"its values are {space.support}, not a finite set.")
    slots, log = log_table(box, values, support)
    if log.shape[len(slots) + 1 :] != space.shape:
        raise NotFinite(name, "its elements are not independent given their parameters.")
    made = net.fresh(space.shape, support, name)
    net.add((*slots, made.slots[0]), log)
    net.sites[name] = made
    return made


def _observe(net: Network, box: Box, values: list[Finite], data: Finite) -> None:
    if not data.constant:
        raise NotFinite(str(box.name), "its data are random.")
    slots, log = log_table(box, values, None, data.table)
    net.add(slots, log)


def _stochastic(net: Network, box: Box, values: list[Finite]) -> list[Finite]:
    """A box given by its tensor: one axis for each element of its wires."""
    table = box.spec.array()
    scopes: list[Finite] = []
    for value, space in zip(values, box.dom, strict=True):
        scopes.extend(index_of(value, space, str(box)).at(i) for i in range(space.size))
    made = []
    for space in box.cod:
        support = finite_values(space)
        if support is None:
            raise NotFinite(str(box), f"its output is {space.support}, not a finite set.")
        made.append(net.fresh(space.shape, support, str(box)))
    slots, tables = align(scopes, ())
    k = len(slots)
    outs = [m.slots[0].reshape(-1)[i] for m in made for i in range(m.slots[0].size)]
    picked = table[tuple(tables)] if scopes else table
    cards = [max([t.shape[i] for t in tables] or [1]) for i in range(k)]
    picked = np.broadcast_to(picked, (*cards, *picked.shape[k:]))
    with np.errstate(divide="ignore"):
        net.add((*slots, *(np.asarray(o) for o in outs)), np.log(picked))
    return made


def index_of(value: Finite, space: Space, label: str) -> Finite:
    """The positions of a value among the values of its space.

    Raises :class:`NotFinite` if the space is not finite.
    """
    support = finite_values(space)
    if support is None:
        raise NotFinite(label, f"a wire is {space.support}, not a finite set.")
    return Finite(value.slots, np.searchsorted(support, value.table))


def _scan(
    net: Network, box: Box, values: list[Finite], evidence: Mapping[str, Any]
) -> list[Finite]:
    """A scan as the composite of its steps; a chain of factors, so elimination is linear in it."""
    spec, body = box.spec, box.body
    assert body is not None
    k, n = spec.carry, spec.carry + spec.xs
    inside = [name for name in body.named("sample") if name in evidence]
    steps = range(spec.length)
    carry = values[:k]
    made: list[Any] = [None] * spec.length
    logged: dict[str, list[Any]] = {}
    outer = net.sites
    for t in reversed(steps) if spec.reverse else steps:
        xs = [_element(v, t) for v in values[k:n]]
        net.sites = {}
        own = {name: evidence[name][t] for name in inside}
        outs = extend(net, body, [*carry, *xs, *values[n:]], own)
        carry, made[t] = outs[:k], outs[k:]
        for name, value in net.sites.items():
            logged.setdefault(name, [None] * spec.length)[t] = value
    net.sites = outer
    for name, parts in logged.items():
        net.sites[name] = stack(parts)
    stacked = [stack([m[j] for m in made]) for j in range(len(body.outputs) - k)]
    return [*carry, *stacked]


def _element(value: Finite, t: int) -> Finite:
    k = len(value.slots)
    return Finite(tuple(s[t] for s in value.slots), value.table[(slice(None),) * k + (t,)])


def tensor(diagram: Diagram, inputs: Mapping[int, Any] | None = None) -> np.ndarray:
    """The stochastic tensor of a diagram: F(f >> g) = F(f) · F(g), F(f @ g) = F(f) ⊗ F(g).

    Parameters
    ----------
    diagram : Diagram
        With finite wires at its boundary.
    inputs : mapping of int to array, optional
        Values of input wires that stay fixed (a model's data); they get no axis.

    Returns
    -------
    float array
        One axis for each element of the open inputs and then of the outputs, in C order; sums to
        one over the outputs if every box is normalised.

    Raises
    ------
    NotFinite
        A wire at the boundary or a random site is not finite, or a table would be too large.

    >>> coin = stochastic(np.array([0.3, 0.7]), (), (2,))
    >>> flip = stochastic(np.array([[0.9, 0.1], [0.2, 0.8]]), (2,), (2,))
    >>> tensor(coin >> flip).round(2)
    array([0.41, 0.59])
    """
    fixed = dict(inputs or {})
    net = Network()
    wires: list[Finite] = []
    axes: list[int] = []
    for i, space in enumerate(diagram.dom):
        if i in fixed:
            wires.append(constant(fixed[i]))
            continue
        support = finite_values(space)
        if support is None:
            raise NotFinite(f"input {i}", f"it is {space.support}, not a finite set.")
        wires.append(net.fresh(space.shape, support, f"input {i}"))
        axes.extend(int(v) for v in wires[-1].slots[0].reshape(-1))
    for value, space in zip(extend(net, diagram, wires, {}), diagram.cod, strict=True):
        for j in range(space.size):
            axes.append(output_axis(net, value.at(j), space))
    return contract(net, axes)


def output_axis(net: Network, value: Finite, space: Space) -> int:
    """A new variable equal to a scalar value: an output wire is a copy, never the thing itself."""
    at = index_of(value, space, "output")
    support = finite_values(space)
    assert support is not None
    new = net.variable(support, "output")
    hit = at.table[..., None] == np.arange(len(support))
    with np.errstate(divide="ignore"):
        net.add((*at.slots, np.asarray(new)), np.log(hit.astype(float)))
    return new


def contract(net: Network, axes: Sequence[int], only: bool = False) -> np.ndarray:
    """Sum out every variable but ``axes``, along a path that opt_einsum chooses.

    With ``only``, variables that are in no factor are left alone instead of summed over.
    """
    import opt_einsum

    operands: list[Any] = []
    seen: set[int] = set()
    for f in net.factors:
        operands += [np.exp(f.log), list(f.scope)]
        seen.update(f.scope)
    for v in [] if only else [v for v in range(len(net.values)) if v not in seen]:
        operands += [np.ones(len(net.values[v])), [v]]
    if not operands:
        return np.ones(())
    return np.asarray(opt_einsum.contract(*operands, list(axes), optimize="auto"))


def stochastic(
    table: np.ndarray,
    dom: Sequence[int | Space],
    cod: Sequence[int | Space],
    name: str | None = None,
) -> Diagram:
    """The diagram of one box given by its tensor.

    Parameters
    ----------
    table : float array
        Non-negative; one axis for each element of the inputs, then of the outputs.
    dom, cod : sequences of int or Space
        Wires; an int K is a scalar with values 0 … K − 1.
    name : str, optional
        For messages and pictures.

    The flags ``normalized`` and ``deterministic`` are read off the table.

    >>> stochastic(np.eye(2), (2,), (2,)).nodes[0].box.deterministic
    True
    """
    from ppcore.recording.template import StaticArray

    spaces = [tuple(finite_space(s) if isinstance(s, int) else s for s in w) for w in (dom, cod)]
    table = np.asarray(table, float)
    dims = []
    for space in (*spaces[0], *spaces[1]):
        support = finite_values(space)
        if support is None:
            raise NotFinite(name or "stochastic", f"wire {space} is not finite.")
        dims += [len(support)] * space.size
    if table.shape != tuple(dims) or not (table >= 0).all():
        raise UnsupportedError(
            f"The tensor of {name or 'a box'} has shape {table.shape}; its wires need "
            f"{tuple(dims)}, with no negative entry."
        )
    k = sum(s.size for s in spaces[0])
    mass = table.sum(axis=tuple(range(k, table.ndim))) if table.ndim > k else table
    normalized = bool(np.allclose(mass, 1, rtol=0, atol=1e-12))
    box = Box(
        "stochastic",
        spaces[0],
        spaces[1],
        spec=StaticArray.of(np.ascontiguousarray(table)),
        name=name,
        normalized=normalized,
        deterministic=normalized and bool(np.isin(table, (0.0, 1.0)).all()),
    )
    return Diagram.of(box)


def finite_space(size: int) -> Space:
    """The space of one integer 0 … size − 1.

    >>> print(finite_space(3))
    int64[] integer_interval[0, 2]
    """
    from ppcore.space import Support

    return Space((), "int64", Support("integer_interval", 0.0, float(size - 1), True))


__all__ = [
    "Factor",
    "Finite",
    "Network",
    "NotFinite",
    "contract",
    "extend",
    "finite_space",
    "index_of",
    "network",
    "output_axis",
    "stochastic",
    "tensor",
]
