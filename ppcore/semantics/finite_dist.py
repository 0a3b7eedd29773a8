"""Tables of sample and observe boxes: log p(value | parameters) for all finite values at once."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ppcore.diagram import Box, Hole
from ppcore.dist import Description, build
from ppcore.recording.template import StaticArray, from_template
from ppcore.semantics.finite import LIMIT, Finite, TooLarge, align, constant
from ppcore.semantics.finite_ops import settings
from ppcore.space import Space, Support


def finite_values(space: Space) -> np.ndarray | None:
    """What an element of a space can be, ascending, or None if that is not a finite set.

    >>> from ppcore.space import BOOLEAN
    >>> finite_values(Space((), "int64", BOOLEAN))
    array([0, 1])
    """
    s: Support = space.support
    if s.name == "boolean" or space.dtype == "bool":
        return np.array([0, 1], space.dtype)
    discrete = s.discrete or np.dtype(space.dtype).kind in "iu"
    scalar = s.name in ("integer_interval", "boolean")
    if discrete and scalar and s.lower is not None and s.upper is not None:
        return np.arange(int(s.lower), int(s.upper) + 1).astype(space.dtype)
    return None


def log_table(
    box: Box, parameters: list[Finite], values: np.ndarray | None, given: Any = None
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Slots of the parameters and log p: float[*cards, (K,) *batch].

    ``values`` (array[K]) are the values of a latent site; ``given`` the data of an observed one,
    and then there is no axis of length K and events are summed over.
    """
    template, batch, event_ndim, _ = box.spec
    found = _direct(template, parameters, tuple(batch), event_ndim, values, given)
    if found is not None:
        return found
    return _in_jax(box, parameters, values, given)


def strip(template: Any) -> Any:
    """The template of a distribution without its outer ``to_event`` calls and expansions."""
    kind = getattr(template, "kind", "")
    while kind in ("describe:method:to_event", "describe:method:expand"):
        template = template.items[0]
        kind = getattr(template, "kind", "")
    return template


def is_delta(box: Box) -> bool:
    """Whether a sample box is a computed value in disguise, ``Delta(expression)``."""
    return str(getattr(strip(box.spec[0]), "kind", "")).endswith(":Delta")


def computed(box: Box, parameters: list[Finite]) -> Finite:
    """The value of a Delta box."""
    base = strip(box.spec[0])
    value = _parameter(dict(zip(base.keys, base.items, strict=True))["v"], parameters)
    if value is None:
        raise TooLarge("its point mass has a parameter that is no array")
    shape, pad = box.cod[0].shape, (1,) * (box.cod[0].ndim - len(value.shape))
    table = value.table.reshape((*value.cards, *pad, *value.shape))
    slots = tuple(np.broadcast_to(s, shape) for s in value.slots)
    return Finite(slots, np.broadcast_to(table, (*value.cards, *shape)).astype(box.cod[0].dtype))


def _direct(
    template: Any,
    parameters: list[Finite],
    batch: tuple[int, ...],
    event_ndim: int,
    values: np.ndarray | None,
    given: Any,
) -> tuple[tuple[np.ndarray, ...], np.ndarray] | None:
    """Families whose parameter is the table itself, without a round trip through JAX."""
    base = strip(template)
    kind = getattr(base, "kind", "")
    if event_ndim and base is template:
        return None
    arguments = dict(zip(getattr(base, "keys", ()), getattr(base, "items", ()), strict=False))
    name = kind.rsplit(":", 1)[-1]
    probs = arguments.get("probs")
    if name in ("Bernoulli", "BernoulliProbs", "Categorical", "CategoricalProbs"):
        if probs is None or arguments.get("logits") is not None:
            return None
    elif name != "Delta" or arguments.get("log_density") is not None:
        return None
    full = batch if base is template else None
    parameter = _parameter(probs if name != "Delta" else arguments.get("v"), parameters)
    if parameter is None:
        return None
    categorical = name.startswith("Categorical")
    own = parameter.shape[:-1] if categorical else parameter.shape
    shape = own if full is None else full
    if values is not None or given is not None:
        shape = _site_shape(batch, event_ndim, shape, given)
    slots = tuple(np.broadcast_to(s[..., 0] if categorical else s, shape) for s in parameter.slots)
    k = len(slots)
    pad = (1,) * (len(shape) - len(own))
    tail = parameter.shape[-1:] if categorical else ()
    table = parameter.table.reshape((*parameter.cards, *pad, *own, *tail))
    table = np.broadcast_to(table, (*parameter.cards, *shape, *tail))
    with np.errstate(divide="ignore"):
        if values is None:
            log = np.log(_mass_at(name, table, np.asarray(given)))
        else:
            log = np.log(np.moveaxis(_masses(name, table, values), -1, k))
    return slots, log


def _site_shape(batch: tuple, event_ndim: int, own: tuple, given: Any) -> tuple[int, ...]:
    if given is not None:
        return np.shape(given)
    return tuple(batch) if not event_ndim else own


def _parameter(argument: Any, parameters: list[Finite]) -> Finite | None:
    if isinstance(argument, Hole):
        return parameters[argument.index]
    if isinstance(argument, StaticArray):
        return constant(argument.array())
    if isinstance(argument, (int, float)):
        return constant(float(argument))
    items = getattr(argument, "items", None)
    if getattr(argument, "kind", "") in ("list", "tuple") and items:
        if all(isinstance(i, (int, float)) for i in items):
            return constant(np.array(items, float))
    return None


def _masses(name: str, table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[…] or […, K] parameters to […, K] probabilities of ``values``."""
    if name == "Delta":
        return _equal(table[..., None], values).astype(float)
    if name.startswith("Bernoulli"):
        return np.stack([1 - table, table], axis=-1)
    return table / table.sum(-1, keepdims=True)


def _mass_at(name: str, table: np.ndarray, given: np.ndarray) -> np.ndarray:
    if name == "Delta":
        return _equal(table, given).astype(float)
    if name.startswith("Bernoulli"):
        return np.where(given == 1, table, 1 - table)
    shares = table / table.sum(-1, keepdims=True)
    index = np.broadcast_to(given.astype(int), table.shape[:-1])
    return np.take_along_axis(shares, index[..., None], -1)[..., 0]


def _equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if np.result_type(a, b).kind == "f":
        return np.isclose(a, b, rtol=1e-9, atol=1e-12)
    return np.asarray(a == b)


def _in_jax(
    box: Box, parameters: list[Finite], values: np.ndarray | None, given: Any
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Any family of NumPyro, batched over the settings of the parameters' variables.

    Element-wise dependence is kept when all parameters are element-wise (they broadcast against
    the batch shape); a parameter with an event shape is enumerated as a whole.
    """
    from ppcore import precision

    _, batch, event_ndim, _ = box.spec
    shape = tuple(batch)
    sparse = all(len(p.shape) <= len(shape) for p in parameters) and event_ndim == 0
    if sparse:
        slots, tables = align(parameters, shape)
        cards = [max(t.shape[i] for t in tables) for i in range(len(slots))]
        n = int(np.prod(cards))
        given_tables = [
            np.broadcast_to(t, (*cards, *t.shape[len(slots) :])).reshape(n, *t.shape[len(slots) :])
            for t in tables
        ]
    else:
        slots, cards, n, given_tables = _dense(parameters, shape)
    with precision.scope("float64"):
        data = values if values is not None else np.asarray(given)
        log = np.asarray(_log_prob(box.spec, values is not None)(given_tables, data, n))
    return slots, log.reshape((*cards, *log.shape[1:]))


def _dense(parameters: list[Finite], shape: tuple[int, ...]) -> tuple[Any, list[int], int, list]:
    cards_of: dict[int, int] = {}
    for p in parameters:
        for slot, card in zip(p.slots, p.cards, strict=True):
            cards_of.update((int(v), card) for v in np.unique(slot) if v >= 0)
    ids, cards = sorted(cards_of), [cards_of[i] for i in sorted(cards_of)]
    n = int(np.prod(cards, dtype=object)) if cards else 1
    if n * max([int(np.prod(p.shape)) for p in parameters] or [1]) > LIMIT:
        raise TooLarge(f"its parameters depend on {len(ids)} finite variables at once")
    where = np.unravel_index(np.arange(n), cards) if cards else ()
    grid = dict(zip(ids, where, strict=True))
    return (
        tuple(np.broadcast_to(np.array(i), shape) for i in ids),
        cards,
        n,
        [settings(p, grid, n) for p in parameters],
    )


@cache
def _log_prob(spec: Any, latent: bool) -> Any:
    import jax
    import jax.numpy as jnp

    template, batch, _, _ = spec

    def one(parameters: list[Any], data: Any) -> Any:
        d = build(_described(template, parameters), lambda v: v)
        d = d if tuple(d.batch_shape) == tuple(batch) else d.expand(batch)
        if not latent:
            return d.log_prob(data)
        full = jax.vmap(lambda v: jnp.full((*d.batch_shape, *d.event_shape), v))(data)
        return jax.vmap(d.log_prob)(full)

    @jax.jit
    def run(parameters: list[Any], data: Any) -> Any:
        return jax.vmap(one, (0, None))(parameters, data)

    def call(parameters: list[Any], data: Any, n: int) -> Any:
        return run(parameters, data) if parameters else one([], data)[None]

    return call


def _described(template: Any, values: Any) -> Description:
    return from_template(template, values)  # type: ignore[no-any-return]
