"""Random draws for engines, from a JAX key or from a script that walks every discrete choice.

Engine code that draws through this module runs at full speed with a typed JAX key, and the same
code can be enumerated exactly: with a :class:`Script` in the place of the key, every discrete
choice is walked with its exact probability, so that an expectation becomes a finite sum. Law of
the draws: as named, e.g. ``categorical(key, log_p)`` has P(i) = exp(log_p_i) / Σ_j exp(log_p_j).

A script cannot enter ``lax.scan`` or ``vmap`` bodies; :func:`scan` and :func:`each` are those two
for keys, and plain loops for scripts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.errors import PPCoreError, UnsupportedError


class Script:
    """Stands in for a key: each discrete choice is taken from a list, and its odds recorded.

    Choices may be traced integers, so that all traces of a program run as one vectorised
    computation; the number of choices and of options must then not depend on the values.
    """

    def __init__(self, choices: Any = ()) -> None:
        self._choices = choices
        self.options: list[int] = []
        self.taken: list[Any] = []
        self.log_probs: list[Any] = []

    def choose(self, log_p: Any) -> Any:
        """The index taken, of ``log_p``: float[options] (any normalisation)."""
        position = len(self.options)
        log_p = jax.nn.log_softmax(jnp.asarray(log_p))
        given = position < len(self._choices)
        index = self._choices[position] if given else self._first(log_p)
        self.options.append(int(log_p.shape[0]))
        self.taken.append(index)
        self.log_probs.append(log_p)
        return jnp.asarray(index)

    @property
    def probability(self) -> Any:
        """The probability of the trace so far."""
        total = jnp.ones(())
        for index, log_p in zip(self.taken, self.log_probs, strict=True):
            total = total * jnp.exp(log_p[index])
        return total

    @staticmethod
    def _first(log_p: Any) -> int:
        if isinstance(log_p, jax.core.Tracer):
            return 0
        return int(np.flatnonzero(np.isfinite(np.asarray(log_p)))[0])


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Coupled:
    """Two keys in the place of one: normals are (z₁ + z₂)/√2, all else comes from the first.

    One step of size h drawn with ``Coupled(k₁, k₂)`` then sees the same Brownian path as two
    steps of size h/2 drawn with k₁ and k₂. Each draw keeps its law.
    """

    first: Any
    second: Any

    def tree_flatten(self) -> tuple[tuple[Any, Any], None]:
        return (self.first, self.second), None

    @classmethod
    def tree_unflatten(cls, _: None, leaves: tuple[Any, Any]) -> Coupled:
        return cls(*leaves)


def split(key: Any, n: int = 2) -> Any:
    """``n`` keys; a script is handed out n times, since it keeps its own place."""
    if isinstance(key, Script):
        return [key] * n
    if isinstance(key, Coupled):
        first, second = split(key.first, n), split(key.second, n)
        return [Coupled(a, b) for a, b in zip(first, second, strict=True)]
    return jax.random.split(key, n)


def normal(key: Any, shape: tuple[int, ...] = (), dtype: Any = None) -> Any:
    """Standard normal draws; float[shape]."""
    if isinstance(key, Coupled):
        total = normal(key.first, shape, dtype) + normal(key.second, shape, dtype)
        return total / math.sqrt(2.0)
    _refuse(key, "normal")
    return jax.random.normal(key, shape, _dtype(dtype))


def exponential(key: Any, shape: tuple[int, ...] = (), dtype: Any = None) -> Any:
    """Standard exponential draws; float[shape]."""
    key = _one(key)
    _refuse(key, "exponential")
    return jax.random.exponential(key, shape, _dtype(dtype))


def uniform(key: Any, shape: tuple[int, ...] = (), dtype: Any = None, *, cells: Any = None) -> Any:
    """Uniform draws on [0, 1); float[shape].

    Parameters
    ----------
    key : key or Script
    shape : tuple of int
    dtype : optional
        Default: JAX's current float.
    cells : float[m] or float[*shape, m], optional
        Points in [0, 1] between which the caller uses the draw only through the cell it falls
        in (systematic resampling does). A script can then walk the m + 1 cells, with their
        lengths as probabilities and their midpoints as values; a key ignores it.

    Raises
    ------
    UnsupportedError
        Under a script without ``cells``: a continuous draw cannot be enumerated.
    """
    key = _one(key)
    if not isinstance(key, Script):
        return jax.random.uniform(key, shape, _dtype(dtype))
    if cells is None:
        _refuse(key, "uniform")
    points = jnp.broadcast_to(jnp.asarray(cells), (*shape, jnp.shape(cells)[-1]))
    edges = jnp.sort(jnp.clip(points, 0.0, 1.0), axis=-1)
    ends = jnp.ones((*shape, 1), edges.dtype)
    edges = jnp.concatenate([0 * ends, edges, ends], axis=-1)
    which = categorical(key, jnp.log(edges[..., 1:] - edges[..., :-1]))
    middle = 0.5 * (edges[..., 1:] + edges[..., :-1])
    return jnp.take_along_axis(middle, which[..., None], axis=-1)[..., 0]


def categorical(key: Any, log_p: Any, shape: tuple[int, ...] = ()) -> Any:
    """Indices with P(i) ∝ exp(log_p_i) along the last axis; int[*shape, *log_p.shape[:-1]]."""
    key, log_p = _one(key), jnp.asarray(log_p)
    full = (*shape, *log_p.shape[:-1])
    if not isinstance(key, Script):
        return jax.random.categorical(key, log_p, axis=-1, shape=full)
    rows = jnp.broadcast_to(log_p, (*full, log_p.shape[-1])).reshape(-1, log_p.shape[-1])
    return jnp.stack([key.choose(row) for row in rows]).reshape(full)


def bernoulli(key: Any, p: Any = 0.5, shape: tuple[int, ...] | None = None) -> Any:
    """True with probability ``p``; bool[shape], by default the shape of p."""
    key, p = _one(key), jnp.asarray(p, _dtype(None))
    full = p.shape if shape is None else shape
    if not isinstance(key, Script):
        return jax.random.bernoulli(key, p, full)
    p = jnp.clip(jnp.broadcast_to(p, full), 0.0, 1.0)
    return categorical(key, jnp.log(jnp.stack([1.0 - p, p], axis=-1))).astype(bool)


def randint(key: Any, shape: tuple[int, ...], n: int) -> Any:
    """Uniform integers 0 … n − 1; int[shape]."""
    return categorical(key, jnp.zeros(n), shape)


def permutation(key: Any, n: int) -> Any:
    """A uniform permutation of 0 … n − 1; int[n]. A script walks all n! of them."""
    key = _one(key)
    if not isinstance(key, Script):
        return jax.random.permutation(key, n)
    left = jnp.arange(n)
    order = []
    for m in range(n, 0, -1):
        i = key.choose(jnp.zeros(m))
        order.append(left[i])
        keep = jnp.arange(m - 1)
        left = left[keep + (keep >= i)]
    return jnp.stack(order)


def each(fn: Callable[..., Any], key: Any, *batched: Any) -> Any:
    """``fn(key_i, *batched_i)`` for every i of the leading axis, with independent keys."""
    n = jax.tree.leaves(batched)[0].shape[0]
    if isinstance(key, Script):
        rows = [fn(key, *jax.tree.map(lambda a, i=i: a[i], batched)) for i in range(n)]
        return jax.tree.map(lambda *r: jnp.stack(r), *rows)
    keys = split(key, n)
    if isinstance(key, Coupled):
        keys = jax.tree.map(lambda *k: jnp.stack(k), *keys)
    return jax.vmap(fn)(keys, *batched)


def scan(
    fn: Callable[[Any, Any, Any], tuple[Any, Any]], key: Any, carry: Any, xs: Any, length: int
) -> tuple[Any, Any]:
    """``carry, y = fn(key_t, carry, x_t)`` for t = 0 … length − 1, with independent keys."""
    if not isinstance(key, Script):
        keys = split(key, length)
        if isinstance(key, Coupled):
            keys = jax.tree.map(lambda *k: jnp.stack(k), *keys)
        return jax.lax.scan(lambda c, kx: fn(kx[0], c, kx[1]), carry, (keys, xs), length)
    ys = []
    for t in range(length):
        carry, y = fn(key, carry, jax.tree.map(lambda a, t=t: a[t], xs))
        ys.append(y)
    return carry, jax.tree.map(lambda *r: jnp.stack(r), *ys)


def enumerate_traces(
    program: Callable[[Script], Any], limit: int = 1_000_000
) -> Iterator[tuple[Any, float]]:
    """Every ``(value, probability)`` of ``program(script)``, depth first.

    Choices of probability zero are skipped, so programs may branch and stop as they like.

    Raises
    ------
    PPCoreError
        After ``limit`` traces: the program's tree of choices is too large, or never ends.

    >>> def two_coins(key):
    ...     return int(bernoulli(key, 0.25)) + int(bernoulli(key, 0.5))
    >>> sorted((v, round(p, 4)) for v, p in enumerate_traces(two_coins))
    [(0, 0.375), (1, 0.125), (1, 0.375), (2, 0.125)]
    """
    prefix: list[int] = []
    for _ in range(limit):
        script = Script(prefix)
        value = program(script)
        yield value, float(script.probability)
        prefix = [int(i) for i in script.taken]
        odds = [np.asarray(p) for p in script.log_probs]
        while prefix:
            after = np.flatnonzero(np.isfinite(odds[len(prefix) - 1][prefix[-1] + 1 :]))
            if after.size:
                prefix[-1] += 1 + int(after[0])
                break
            prefix.pop()
        if not prefix:
            return
    raise PPCoreError(f"The program has more than {limit} traces; use a smaller finite model.")


def expectation(program: Callable[..., Any], over: Any = None, batch: int = 65536) -> Any:
    """E[program] exactly: Σ over traces of probability × value, all traces vectorised.

    ``program(script)`` returns a pytree of arrays and must be traceable, with a number of choices
    that does not depend on the values. With ``over``, a pytree of arrays with a leading axis, it
    is ``program(script, row)`` and the result has that axis too. Traces of probability zero
    contribute nothing, whatever their value. In float64 the sum is exact to rounding.

    >>> float(expectation(lambda key: 1.0 * bernoulli(key, 0.25)))
    0.25
    """
    rows = (jnp.zeros(1),) if over is None else over
    run = program if over is not None else lambda key, _: program(key)
    first = jax.tree.map(lambda a: a[0], rows)
    options: list[int] = []

    def record(row: Any) -> Any:
        script = Script()
        value = run(script, row)
        options.extend(script.options)
        return value

    jax.eval_shape(record, first)
    total = math.prod(options)
    size = min(batch, total)

    def one(code: Any, row: Any) -> Any:
        rest, choices = code, []
        for n in reversed(options):
            choices.append(rest % n)
            rest = rest // n
        script = Script(choices[::-1])
        value = run(script, row)
        p = jnp.where(code < total, script.probability, 0.0)
        return jax.tree.map(lambda v: jnp.where(p > 0, p * jnp.asarray(v, p.dtype), 0.0), value)

    @jax.jit
    def part(start: Any, rows: Any) -> Any:
        values = jax.vmap(lambda row: jax.vmap(lambda c: one(c, row))(start + jnp.arange(size)))
        return jax.tree.map(lambda v: v.sum(1), values(rows))

    sums = [part(jnp.asarray(start), rows) for start in range(0, total, size)]
    result = jax.tree.map(lambda *s: sum(s[1:], s[0]), *sums)
    return result if over is not None else jax.tree.map(lambda v: v[0], result)


def traces(program: Callable[[Script], Any]) -> int:
    """How many traces :func:`expectation` would sum over."""
    script = Script()
    program(script)
    return math.prod(script.options)


def _one(key: Any) -> Any:
    return _one(key.first) if isinstance(key, Coupled) else key


def _dtype(dtype: Any) -> Any:
    return jnp.result_type(float) if dtype is None else dtype


def _refuse(key: Any, name: str) -> None:
    if isinstance(key, Script):
        raise UnsupportedError(
            f"random.{name} is a continuous draw, which a script cannot enumerate. Run this code "
            "on a finite target with discrete proposals, or, if only the cell a uniform falls "
            "in matters, pass `cells`."
        )
