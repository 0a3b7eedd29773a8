"""``pp.lift``: any function as one deterministic box."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from ppcore.diagram import Box
from ppcore.errors import ModelError, PPCoreError
from ppcore.recording.record import abstract, first_recorder
from ppcore.recording.recorder import user_line
from ppcore.recording.template import from_template, to_template
from ppcore.recording.wire import Wire
from ppcore.space import Space, natural_space


def lift(
    fn: Callable[..., Any],
    result: tuple[tuple[int, ...], str] | list[tuple[tuple[int, ...], str]] | None = None,
) -> Callable[..., Any]:
    """Record every call of ``fn`` on random values as one box.

    Parameters
    ----------
    fn : callable
        A pure function of arrays. Without ``result`` it is traced by JAX (write it with
        ``jax.numpy``) and gradients pass through it.
    result : (shape, dtype) or a list of them, optional
        Shape and dtype of what ``fn`` returns. Then ``fn`` may be any NumPy code: it is called on
        the host, and has no gradient.

    Raises :class:`ModelError` on a call if JAX cannot trace ``fn`` and ``result`` is not given.
    """
    declared: tuple[Space, ...] | None = None
    if result is not None:
        many = result if isinstance(result, list) else [result]
        declared = tuple(natural_space(tuple(s), np.dtype(d).name) for s, d in many)
    is_tuple = isinstance(result, list)

    @wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        recorder = first_recorder(args)
        inputs: list[Any] = []
        template = to_template((args, kwargs), recorder.leaf(inputs))
        spaces = tuple(recorder.space(r) for r in inputs)
        outs, several = (declared, is_tuple) if declared else _infer(fn, template, spaces)
        spec = (fn, template, declared is not None)
        box = Box("lift", spaces, outs, spec=spec, name=None, deterministic=True)
        wires = recorder.add(box, tuple(inputs))
        return tuple(wires) if several else wires[0]

    return call


def _infer(fn: Any, template: Any, spaces: tuple[Space, ...]) -> tuple[tuple[Space, ...], bool]:
    try:
        return abstract(fn, template, spaces)
    except PPCoreError:
        raise
    except Exception as error:
        raise ModelError(
            f"{user_line()}: JAX cannot trace {getattr(fn, '__name__', fn)!r} "
            f"({str(error).splitlines()[0]}). Write it with jax.numpy, or declare what it returns, "
            "pp.lift(fn, result=(shape, dtype)), to call it as it is (without gradients)."
        ) from None


def call_lifted(box: Box, values: list[Any]) -> list[Any]:
    """Evaluate a lifted box in JAX: traced, or called back on the host."""
    fn, template, on_host = box.spec
    if not on_host:
        args, kwargs = from_template(template, values)
        result = fn(*args, **kwargs)
        return list(result) if isinstance(result, (tuple, list)) else [result]
    import jax

    shapes = [jax.ShapeDtypeStruct(s.shape, np.dtype(s.dtype)) for s in box.cod]

    def on_numpy(*arrays: Any) -> tuple[np.ndarray, ...]:
        args, kwargs = from_template(template, [np.asarray(a) for a in arrays])
        found = fn(*args, **kwargs)
        parts = found if isinstance(found, (tuple, list)) else [found]
        return tuple(
            np.asarray(p, s.dtype).reshape(s.shape) for p, s in zip(parts, shapes, strict=True)
        )

    return list(jax.pure_callback(on_numpy, shapes, *values, vmap_method="sequential"))


__all__ = ["Wire", "call_lifted", "lift"]
