"""Recording array functions: one deterministic box each, shapes inferred abstractly."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ppcore.diagram import Box
from ppcore.errors import ModelError, PPCoreError, ShapeError, UnsupportedError
from ppcore.ops import jax_function
from ppcore.recording.template import StaticArray, from_template, is_array, to_template
from ppcore.recording.wire import Wire
from ppcore.space import Space, natural_space


def first_recorder() -> Any:
    """The recorder in force; an error if a random value has outlived its model."""
    from ppcore.recording.recorder import current, user_line

    recorder = current()
    if recorder is None:
        raise ModelError(
            f"{user_line()}: a random value was used after its model was recorded. Use "
            "fit.draws(name) for the posterior's numbers, or compute inside the model."
        )
    return recorder


def record(op: str, args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None = None) -> Any:
    """Record ``op(*args, **kwargs)`` as a deterministic box and return its wires.

    Arrays in the arguments become data inputs. Where JAX needs one to decide a shape (repeats,
    a boolean mask), it is kept by value instead.

    Raises :class:`ShapeError` naming the user's line and the shapes.
    """
    from ppcore.recording.recorder import current, user_line

    fn = jax_function(op)
    if current() is None and not has_wire((args, kwargs)):
        return compute(fn, args, kwargs)
    recorder = first_recorder()
    inputs: list[Any] = []
    template = to_template((args, kwargs), recorder.leaf(inputs))
    spaces = tuple(recorder.space(r) for r in inputs)
    try:
        outs, kind = abstract(fn, template, spaces)
    except _NeedsConcrete:
        inputs = []
        template = to_template((args, kwargs), _static_leaf(recorder, inputs))
        spaces = tuple(recorder.space(r) for r in inputs)
        try:
            outs, kind = abstract(fn, template, spaces)
        except _NeedsConcrete:
            raise UnsupportedError(
                f"{user_line()}: the shape of {op}({', '.join(map(_describe, args))}) would depend "
                "on random values. Use functions whose result has one shape (np.where, np.sort)."
            ) from None
    except PPCoreError:
        raise
    except Exception as error:
        shown = ", ".join(_describe(a) for a in args)
        raise ShapeError(
            f"{user_line()}: {op}({shown}) does not work on these shapes and types: "
            f"{str(error).splitlines()[0]}"
        ) from None
    box = Box(
        op,
        spaces,
        outs,
        spec=template,
        name=name,
        deterministic=True,
        plates=recorder.plates if name else (),
    )
    wires = recorder.add(box, tuple(inputs))
    return gather(kind, wires)


def has_wire(value: Any) -> bool:
    """Whether a random value stands anywhere in ``value``."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return isinstance(value, Wire)
    return any(has_wire(v) for v in value)


def compute(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``fn`` of plain numbers, outside models, as NumPy arrays."""
    import jax

    from ppcore import precision

    with precision.scope("float64"):
        return jax.tree.map(np.asarray, fn(*args, **kwargs))


def gather(kind: Any, wires: list[Wire]) -> Any:
    """Wires as the function would have returned arrays: one, a tuple, or a named tuple."""
    if kind is None:
        return wires[0]
    return kind._make(wires) if hasattr(kind, "_make") else tuple(wires)


class _NeedsConcrete(Exception):
    """JAX needs the value of an argument, not only its shape."""


def _static_leaf(recorder: Any, inputs: list[Any]) -> Callable[[Any], Any]:
    gather = recorder.leaf(inputs)

    def leaf(value: Any) -> Any:
        if is_array(value) and not isinstance(value, Wire):
            return StaticArray.of(np.asarray(value))
        return gather(value)

    return leaf


@lru_cache(maxsize=4096)
def abstract(
    fn: Callable[..., Any], template: Any, spaces: tuple[Space, ...]
) -> tuple[tuple[Space, ...], Any]:
    """Spaces of the results of ``fn`` on a template, and the type of the tuple of them or None."""
    import jax

    from ppcore import precision

    def run(*values: Any) -> Any:
        args, kwargs = from_template(template, values)
        return fn(*args, **kwargs)

    with precision.scope("float64"):
        arguments = [jax.ShapeDtypeStruct(s.shape, np.dtype(s.dtype)) for s in spaces]
        try:
            result = jax.eval_shape(run, *arguments)
        except (jax.errors.ConcretizationTypeError, jax.errors.NonConcreteBooleanIndexError):
            raise _NeedsConcrete from None
    is_tuple = isinstance(result, (tuple, list))
    leaves = list(result) if is_tuple else [result]
    spaces_out = tuple(natural_space(r.shape, r.dtype.name) for r in leaves)
    return spaces_out, type(result) if is_tuple else None


def evaluate(box: Box, values: list[Any]) -> list[Any]:
    """The outputs of a deterministic array box on values of its inputs."""
    if box.op == "lift":
        from ppcore.recording.lift import call_lifted

        return call_lifted(box, values)
    args, kwargs = from_template(box.spec, values)
    result = jax_function(box.op)(*args, **kwargs)
    return list(result) if isinstance(result, (tuple, list)) else [result]


def _describe(value: Any) -> str:
    if isinstance(value, Wire) or is_array(value):
        dims = ",".join(map(str, value.shape))
        return f"{np.dtype(value.dtype).name}[{dims}]"
    if isinstance(value, (list, tuple)):
        inner = ", ".join(_describe(v) for v in value)
        return f"[{inner}]"
    return repr(value)


def as_wire(value: Any) -> Wire:
    """A wire for any value: itself, or a data input."""
    if isinstance(value, Wire):
        return value
    recorder = first_recorder()
    array = value if is_array(value) else np.asarray(value)
    ref = recorder.data_ref(array)
    return Wire(recorder, ref, recorder.space(ref))
