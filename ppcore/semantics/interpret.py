"""The functor that all semantics share: walk a diagram, give each box its meaning.

A :class:`Handler` says what sample, observe and factor boxes mean. Array boxes and distributions
are JAX's and NumPyro's, and scans ``lax.scan`` over the same functor applied to the body, unless
a handler for another library says otherwise.
"""

from __future__ import annotations

import zlib
from typing import Any

from ppcore.diagram import Box, Diagram
from ppcore.dist import build
from ppcore.errors import UnsupportedError
from ppcore.recording.record import evaluate
from ppcore.recording.template import from_template

Records = dict[str, Any]


class Handler:
    """What stochastic boxes mean. ``needs_key`` says whether randomness is consumed."""

    needs_key = False

    def array(self, value: Any) -> Any:
        """The first carry of a chain, as this library's array."""
        import jax

        return jax.numpy.asarray(value)

    def compute(self, box: Box, values: list[Any]) -> list[Any]:
        """The outputs of an array box."""
        return evaluate(box, values)

    def distribution(self, box: Box, values: list[Any]) -> Any:
        """The distribution of a sample or observe box."""
        return distribution_of(box, values)

    def latent(self, box: Box, distribution: Any, given: Any, key: Any) -> tuple[Any, Any]:
        """A sample box: ``(value, record)``; ``given`` is the site's entry or None."""
        raise NotImplementedError

    def observed(self, box: Box, distribution: Any, value: Any) -> Any:
        """An observe box: its record (nothing, unless a semantics says otherwise)."""
        return {}

    def factor(self, box: Box, log_weight: Any) -> Any:
        """A factor box: its record."""
        return {}

    def named(self, box: Box, value: Any) -> Any:
        """A named deterministic value: its record."""
        return {}

    def iterate(self, step: Any, carry: Any, xs: Any, length: int, reverse: bool) -> Any:
        """A chain of steps, ``step(carry, x) -> (carry, y)``: the last carry, the ys stacked."""
        import jax

        return jax.lax.scan(step, carry, xs, length=length, reverse=reverse)


def distribution_of(box: Box, values: list[Any]) -> Any:
    """NumPyro's distribution of a sample or observe box, expanded to its plates."""
    template, batch, _, _ = box.spec
    d = build(from_template(template, values), _plain)
    return d if tuple(d.batch_shape) == batch else d.expand(batch)


def _plain(value: Any) -> Any:
    return value


def site_key(key: Any, name: str) -> Any:
    """The key of a site: by name, so that structurally equal diagrams draw equal values."""
    import jax

    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def interpret(
    diagram: Diagram, inputs: tuple[Any, ...], handler: Handler, given: Records, key: Any = None
) -> tuple[list[Any], Records]:
    """Outputs of the diagram on ``inputs``, and a record per site.

    ``given`` holds entries by site name (stacked for sites inside scans).
    """
    wires = list(inputs)
    records: Records = {}
    for node in diagram.nodes:
        box = node.box
        values = [wires[i] for i in node.inputs]
        if box.op == "sample":
            name = str(box.name)
            k = site_key(key, name) if handler.needs_key and name not in given else None
            value, records[name] = handler.latent(
                box, handler.distribution(box, values), given.get(name), k
            )
            wires.append(value)
        elif box.op == "observe":
            d = handler.distribution(box, values[:-1])
            records[str(box.name)] = handler.observed(box, d, values[-1])
        elif box.op == "factor":
            records[str(box.name)] = handler.factor(box, values[0])
        elif box.op == "scan":
            outs, inner = _scan(box, values, handler, given, key)
            wires.extend(outs)
            records.update(inner)
        elif box.op == "plate":
            assert box.body is not None
            outs, inner = interpret(box.body, tuple(values), handler, given, key)
            wires.extend(outs)
            records.update(inner)
        else:
            outs = handler.compute(box, values)
            if box.op == "deterministic":
                records[str(box.name)] = handler.named(box, outs[0])
            wires.extend(outs)
    return [wires[i] for i in diagram.outputs], records


def _scan(
    box: Box, values: list[Any], handler: Handler, given: Records, key: Any
) -> tuple[list[Any], Records]:
    spec, body = box.spec, box.body
    assert body is not None
    k, n = spec.carry, spec.carry + spec.xs
    carry, xs, captured = values[:k], values[k:n], values[n:]
    carry = [handler.array(c) for c in carry]
    inside = {b.name for b in body.boxes() if b.name is not None}
    own = {name: v for name, v in given.items() if name in inside}
    keys = None
    if handler.needs_key:
        import jax

        keys = jax.random.split(site_key(key, "scan:" + ",".join(sorted(inside))), spec.length)

    def step(state: list[Any], element: Any) -> tuple[list[Any], Any]:
        x, sites, step_key = element
        outs, records = interpret(body, (*state, *x, *captured), handler, sites, step_key)
        return outs[:k], (outs[k:], records)

    final, (stacked, records) = handler.iterate(
        step, carry, (xs, own, keys), spec.length, spec.reverse
    )
    return [*final, *stacked], records


def refuse(site: str, what: str, instead: str) -> UnsupportedError:
    """An error about a site that a semantics gives no meaning to."""
    return UnsupportedError(f"Site {site!r} {what}. {instead}")
