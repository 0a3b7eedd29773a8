"""Which array boxes are affine in their random inputs: proved on the program, never by sampling.

Every wire has a degree: 0 for a value that depends on nothing random, 1 for an affine function of
random values, 2 for anything else. A box's jaxpr is walked with a rule per primitive (a product has
the sum of the degrees, a comparison of random values degree 2, …). A primitive without a rule has
degree 2 as soon as an input is random, so that an omission can only refuse, never mislead.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ppcore.diagram import Box
from ppcore.recording.record import evaluate

CONSTANT, AFFINE, OTHER = 0, 1, 2

# f(x + y) = f(x) + f(y) and f(ax) = a f(x) in all operands together.
_LINEAR = frozenset(
    "add sub neg add_any reduce_sum reduce_window_sum cumsum broadcast_in_dim broadcast_to reshape "
    "transpose squeeze expand_dims concatenate stack unstack tile slice rev pad split copy copy_p "
    "zeros_like device_put optimization_barrier sharding_constraint pvary".split()
)
# Linear in each operand while the others are fixed.
_BILINEAR = frozenset(("mul", "dot_general", "conv_general_dilated"))
# Linear in all operands but those at the given positions, which must not be random.
_LINEAR_BUT = {
    "div": (1,),
    "select_n": (0,),
    "gather": (1,),
    "scatter": (1,),
    "scatter-add": (1,),
    "scatter-sub": (1,),
    "triangular_solve": (0,),
}
_CALLS = frozenset(("pjit", "jit", "closed_call", "core_call", "remat2", "checkpoint"))


def degrees(box: Box, given: Sequence[int]) -> tuple[tuple[int, ...], str]:
    """Degrees of a deterministic box's outputs, and the primitive that spoils the worst one.

    >>> from ppcore.diagram import Hole
    >>> from ppcore.recording.template import Structure
    >>> from ppcore.space import Space
    >>> arguments = Structure("tuple", (), (Hole(0),)), Structure("dict", (), ())
    >>> spec = Structure("tuple", (), arguments)
    >>> exp = Box("numpy.exp", (Space(),), (Space(),), spec, deterministic=True)
    >>> degrees(exp, (AFFINE,))
    ((2,), 'exp')
    """
    given = tuple(given)
    if not any(given):
        return (CONSTANT,) * len(box.cod), ""
    if OTHER in given:
        return (OTHER,) * len(box.cod), ""
    if box.op == "lift" and box.spec[2]:
        return (OTHER,) * len(box.cod), "a function called on the host"
    return _degrees(box, given)


@lru_cache(maxsize=4096)
def _degrees(box: Box, given: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
    import jax

    from ppcore import precision

    with precision.scope("float64"):
        shapes = [jax.ShapeDtypeStruct(s.shape, np.dtype(s.dtype)) for s in box.dom]
        closed = jax.make_jaxpr(lambda *values: evaluate(box, list(values)))(*shapes)
    culprits: list[str] = []
    found = walk(closed.jaxpr, given, culprits)
    return tuple(found), culprits[0] if culprits else ""


def walk(jaxpr: Any, given: Sequence[int], culprits: list[str]) -> list[int]:
    """Degrees of a jaxpr's outputs; primitives that make an affine value something else are
    appended to ``culprits``."""
    known: dict[Any, int] = dict(zip(jaxpr.invars, given, strict=True))

    def degree(atom: Any) -> int:
        return known.get(atom, CONSTANT) if not hasattr(atom, "val") else CONSTANT

    for eqn in jaxpr.eqns:
        ins = [degree(v) for v in eqn.invars]
        outs = _equation(eqn, ins, culprits)
        if OTHER in outs and OTHER not in ins:
            culprits.append(eqn.primitive.name)
        known.update(zip(eqn.outvars, outs, strict=True))
    return [degree(v) for v in jaxpr.outvars]


def _equation(eqn: Any, ins: list[int], culprits: list[str]) -> list[int]:
    name, n = eqn.primitive.name, len(eqn.outvars)
    if not any(ins):
        return [CONSTANT] * n
    if name in _CALLS:
        inner = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
        return walk(getattr(inner, "jaxpr", inner), ins, culprits)
    if name == "scan":
        return _scan(eqn, ins, culprits)
    if name == "cond":
        branches = [walk(b.jaxpr, ins[1:], culprits) for b in eqn.params["branches"]]
        return [OTHER if ins[0] else max(found) for found in zip(*branches, strict=True)]
    if name in _LINEAR:
        out = max(ins)
    elif name in _BILINEAR:
        out = min(sum(ins), OTHER)
    elif name in _LINEAR_BUT:
        out = OTHER if any(ins[i] for i in _LINEAR_BUT[name]) else max(ins)
    elif name in ("dynamic_slice", "dynamic_update_slice"):
        first = 1 if name == "dynamic_slice" else 2
        out = OTHER if any(ins[first:]) else max(ins[:first])
    elif name == "integer_pow" and eqn.params["y"] == 1:
        out = ins[0]
    elif name == "custom_linear_solve":
        out = _linear_solve(eqn, ins)
    elif name == "convert_element_type":
        before, after = eqn.invars[0].aval.dtype, np.dtype(eqn.params["new_dtype"])
        out = ins[0] if np.promote_types(before, after) == after and after.kind == "f" else OTHER
    else:
        out = OTHER
    return [out] * n


def _linear_solve(eqn: Any, ins: list[int]) -> int:
    """x with Ax = b: linear in b while A is fixed."""
    constants = sum(eqn.params["const_lengths"])
    return OTHER if any(ins[:constants]) else max(ins)


def _scan(eqn: Any, ins: list[int], culprits: list[str]) -> list[int]:
    """A loop: raise the carry's degrees until they hold from one step to the next."""
    k, c = eqn.params["num_consts"], eqn.params["num_carry"]
    body = eqn.params["jaxpr"].jaxpr
    consts, carry, xs = ins[:k], ins[k : k + c], ins[k + c :]
    while True:
        notes: list[str] = []
        outs = walk(body, [*consts, *carry, *xs], notes)
        raised = [max(a, b) for a, b in zip(carry, outs[:c], strict=True)]
        if raised == carry:
            culprits.extend(notes)
            return outs
        carry = raised
