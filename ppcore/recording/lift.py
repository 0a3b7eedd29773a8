"""``pp.lift``: any function as one deterministic box, or, if it draws, as a distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from ppcore.diagram import Box
from ppcore.dist import Description
from ppcore.errors import ModelError, PPCoreError, ShapeError
from ppcore.recording.record import abstract, first_recorder, gather, has_wire
from ppcore.recording.recorder import current, user_line
from ppcore.recording.template import from_template, to_template
from ppcore.recording.wire import Wire
from ppcore.space import Space, natural_space


def lift(
    fn: Callable[..., Any],
    result: tuple[tuple[int, ...], str] | list[tuple[tuple[int, ...], str]] | None = None,
    random: bool = False,
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
    random : bool
        ``fn`` draws random numbers: its first argument is their source, a
        :class:`numpy.random.Generator` with ``result``, a JAX key without. What is returned is then
        a distribution, for :func:`ppcore.sample`; it can be drawn and has no density, so that
        engines which need one refuse it. ``model.amortise`` learns from its draws.

    Raises :class:`ModelError` on a call if JAX cannot trace ``fn`` and ``result`` is not given.

    >>> import ppcore as pp
    >>> from ppcore import dist
    >>> def queue(rng, rate):
    ...     return rng.exponential(1 / rate, 5).cumsum()
    >>> waiting = lift(queue, result=((5,), "float64"), random=True)
    >>> @pp.model
    ... def shop():
    ...     rate = pp.sample("rate", dist.Gamma(2, 1))
    ...     pp.sample("arrival", waiting(rate))
    >>> shop().simulate(seed=1, n=3)["arrival"].shape
    (3, 5)
    """
    if random:
        return _random(fn, result)
    declared: tuple[Space, ...] | None = None
    if result is not None:
        many = result if isinstance(result, list) else [result]
        declared = tuple(natural_space(tuple(s), np.dtype(d).name) for s, d in many)
    declared_kind = tuple if isinstance(result, list) else None

    @wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        if current() is None and not has_wire((args, kwargs)):
            return fn(*args, **kwargs)
        recorder = first_recorder()
        inputs: list[Any] = []
        template = to_template((args, kwargs), recorder.leaf(inputs))
        spaces = tuple(recorder.space(r) for r in inputs)
        outs, kind = (declared, declared_kind) if declared else _infer(fn, template, spaces)
        spec = (fn, template, declared is not None)
        box = Box("lift", spaces, outs, spec=spec, name=None, deterministic=True)
        wires = recorder.add(box, tuple(inputs))
        return gather(kind, wires)

    return call


def _random(fn: Callable[..., Any], result: Any) -> Callable[..., Description]:
    """Calls of ``fn`` as descriptions of the law of what it returns."""
    if isinstance(result, list):
        raise ModelError(
            "pp.lift(..., random=True) makes one site: result= takes one (shape, dtype). Return "
            "one array that holds everything."
        )
    name = getattr(fn, "__name__", repr(fn))

    @wraps(fn)
    def call(*args: Any) -> Description:
        from ppcore.simulated import Simulator

        if result is None:
            space = _drawn_space(fn, args)
        else:
            space = natural_space(tuple(result[0]), np.dtype(result[1]).name)
        simulator = Simulator(fn, space, result is not None)
        inputs = tuple(("*", a if isinstance(a, Wire) else np.asarray(a)) for a in args)
        return Description("dist", "Simulated", (("*", simulator), *inputs))

    call.__name__ = name
    return call


def _drawn_space(fn: Callable[..., Any], args: tuple[Any, ...]) -> Space:
    """The space of what ``fn`` returns, traced with a key."""
    import jax

    from ppcore import precision

    spaces = [a.space if isinstance(a, Wire) else natural_space(*_described(a)) for a in args]
    try:
        with precision.scope("float64"):
            inputs = [jax.ShapeDtypeStruct(s.shape, np.dtype(s.dtype)) for s in spaces]
            made = jax.eval_shape(fn, jax.random.key(0), *inputs)
            return natural_space(made.shape, made.dtype.name)
    except Exception as error:
        raise ModelError(
            f"{user_line()}: JAX cannot trace {getattr(fn, '__name__', fn)!r} "
            f"({(str(error) or type(error).__name__).splitlines()[0]}). Write it with jax.numpy "
            "and jax.random, returning one array, or declare what it returns, "
            "pp.lift(fn, result=(shape, dtype), random=True), and take a NumPy generator."
        ) from None


def _described(value: Any) -> tuple[tuple[int, ...], str]:
    array = np.asarray(value)
    return array.shape, array.dtype.name


def _infer(fn: Any, template: Any, spaces: tuple[Space, ...]) -> tuple[tuple[Space, ...], Any]:
    try:
        return abstract(fn, template, spaces)
    except PPCoreError:
        raise
    except Exception as error:
        raise ModelError(
            f"{user_line()}: JAX cannot trace {getattr(fn, '__name__', fn)!r} "
            f"({(str(error) or type(error).__name__).splitlines()[0]}). Write it with jax.numpy, "
            "or declare what it returns, pp.lift(fn, result=(shape, dtype)), to call it as it is "
            "(without gradients)."
        ) from None


def call_lifted(box: Box, values: list[Any]) -> list[Any]:
    """Evaluate a lifted box in JAX: traced, or called back on the host."""
    fn, template, on_host = box.spec
    if not on_host:
        args, kwargs = from_template(template, values)
        result = fn(*args, **kwargs)
        return list(result) if isinstance(result, (tuple, list)) else [result]

    def on_numpy(*arrays: np.ndarray) -> list[np.ndarray]:
        args, kwargs = from_template(template, arrays)
        found = fn(*args, **kwargs)
        parts = [np.asarray(p) for p in (found if isinstance(found, (tuple, list)) else [found])]
        if [p.shape for p in parts] != [s.shape for s in box.cod]:
            raise ShapeError(
                f"pp.lift: {getattr(fn, '__name__', fn)!r} returned {[p.shape for p in parts]}, "
                f"but result= says {[s.shape for s in box.cod]}."
            )
        return parts

    return call_on_host(on_numpy, box.cod, values)


def call_on_host(
    fn: Callable[..., list[np.ndarray]],
    results: Sequence[Space],
    values: Sequence[Any],
    batched: bool = False,
) -> list[Any]:
    """``fn(*values)`` in plain NumPy from within a JAX program, in the precision of that program.

    ``fn`` returns one array for each space of ``results``. Under ``vmap`` it is called row by row,
    or, if it is ``batched``, once for all rows, which are then axes in front, of its results too.
    """
    import jax

    dtypes = [np.dtype(jax.dtypes.canonicalize_dtype(s.dtype)) for s in results]
    values = [jax.numpy.asarray(v) for v in values]
    entering = [np.dtype(v.dtype) for v in values]

    def on_words(*words: Any) -> tuple[np.ndarray, ...]:
        arrays = [_from_words(np.asarray(w), d) for w, d in zip(words, entering, strict=True)]
        parts = fn(*arrays)
        return tuple(_to_words(np.asarray(p).astype(d)) for p, d in zip(parts, dtypes, strict=True))

    shapes = [
        jax.ShapeDtypeStruct(s.shape + (2,) * (d.itemsize == 8), _word(d))
        for s, d in zip(results, dtypes, strict=True)
    ]
    words = [_bitcast(v, _word(d)) for v, d in zip(values, entering, strict=True)]
    method = "broadcast_all" if batched else "sequential"
    found = jax.pure_callback(on_words, shapes, *words, vmap_method=method)
    return [_bitcast(w, d) for w, d in zip(found, dtypes, strict=True)]


# JAX calls back on a thread of its own, where double precision is off unless the whole process has
# it on: 64-bit numbers would arrive, and return, with 32. So they travel as pairs of 32-bit words.


def _word(dtype: np.dtype) -> np.dtype:
    return np.dtype("uint32") if dtype.itemsize == 8 else dtype


def _bitcast(value: Any, dtype: np.dtype) -> Any:
    import jax

    return value if value.dtype == dtype else jax.lax.bitcast_convert_type(value, dtype)


def _from_words(words: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if words.dtype == dtype:
        return words
    return np.ascontiguousarray(words).view(dtype).reshape(words.shape[:-1])


def _to_words(array: np.ndarray) -> np.ndarray:
    if array.dtype.itemsize != 8:
        return array
    return np.ascontiguousarray(array).view("uint32").reshape(*array.shape, 2)
