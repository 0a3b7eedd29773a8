"""Distributions by name: ``dist.Normal(loc, scale)`` describes what a semantics will build.

The distributions themselves are NumPyro's (and Pyro's, in torch semantics), looked up by name;
parameters may be wires, arrays, numbers, or other descriptions. ``dist.constraints.<name>`` and
``dist.transforms.<name>`` describe supports and bijections likewise.

>>> from ppcore import dist
>>> dist.Normal(0, 5)
Normal(loc=0, scale=5)
>>> dist.Normal(0, 1).expand([3]).to_event(1)
Normal(loc=0, scale=1).expand((3,)).to_event(1)
>>> dist.Nromal(0, 5)
Traceback (most recent call last):
ppcore.errors.UnknownNameError: There is no distribution 'Nromal'. Did you mean 'Normal'?
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ppcore.errors import ModelError, UnknownNameError, did_you_mean

# Built from ppcore.repaired, which says why.
_REPAIRED = (
    "BetaBinomial",
    "GammaPoisson",
    "NegativeBinomial",
    "NegativeBinomial2",
    "NegativeBinomialProbs",
    "ZeroInflatedNegativeBinomial2",
)
_METHODS = ("expand", "to_event", "mask")
_MODULES = {
    "dist": "numpyro.distributions",
    "constraints": "numpyro.distributions.constraints",
    "transforms": "numpyro.distributions.transforms",
}


@dataclass(frozen=True, eq=False)
class Description:
    """A distribution, constraint or transform to be built: a name and its arguments.

    ``kind`` is "dist", "constraints", "transforms", or "method" (then ``arguments[0]`` is the
    description the method is called on). Arguments may hold wires and arrays.
    """

    kind: str
    name: str
    arguments: tuple[tuple[str, Any], ...]

    def expand(self, batch_shape: Any) -> Description:
        """Independent copies, to the given batch shape."""
        shape = tuple(int(n) for n in batch_shape)
        return Description("method", "expand", (("self", self), ("batch_shape", shape)))

    def to_event(self, reinterpreted_batch_ndims: int = 1) -> Description:
        """The last batch axes become part of the event: one draw, one log density."""
        n = int(reinterpreted_batch_ndims)
        return Description("method", "to_event", (("self", self), ("ndims", n)))

    def mask(self, mask: Any) -> Description:
        """Where ``mask`` is False the log density counts as zero."""
        return Description("method", "mask", (("self", self), ("mask", _stacked(mask))))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UnknownNameError(
            f"A distribution in a model has no method {name!r}. {did_you_mean(name, _METHODS)}"
        )

    def __repr__(self) -> str:
        if self.kind == "method":
            (_, base), (_, argument) = self.arguments
            return f"{base!r}.{self.name}({argument!r})"
        prefix = "" if self.kind == "dist" else f"{self.kind}."
        inner = ", ".join(f"{k}={v!r}" for k, v in self.arguments)
        return f"{prefix}{self.name}({inner})" if inner else f"{prefix}{self.name}"


@cache
def _signature(kind: str, name: str) -> inspect.Signature:
    target = lookup(kind, name)
    signature = inspect.signature(target)
    kept = [p for p in signature.parameters.values() if p.name != "validate_args"]
    return signature.replace(parameters=kept)


def lookup(kind: str, name: str) -> Any:
    """NumPyro's object of that kind and name.

    Raises :class:`UnknownNameError` with a suggestion if there is none.
    """
    if (kind, name) == ("dist", "Simulated"):
        return importlib.import_module("ppcore.simulated").Simulated
    module = importlib.import_module(_MODULES[kind])
    found = getattr(module, name, None)
    if found is None or name.startswith("_"):
        what = {"dist": "distribution", "constraints": "constraint", "transforms": "transform"}
        known = [n for n in dir(module) if not n.startswith("_") and callable(getattr(module, n))]
        raise UnknownNameError(f"There is no {what[kind]} {name!r}. {did_you_mean(name, known)}")
    return found


class _Factory:
    """What ``dist.Normal`` is: call it with the distribution's parameters."""

    def __init__(self, kind: str, name: str):
        self.kind, self.name = kind, name
        self.__name__ = name
        self.__doc__ = lookup(kind, name).__doc__

    @property
    def __signature__(self) -> inspect.Signature:
        return _signature(self.kind, self.name)

    def __call__(self, *args: Any, **kwargs: Any) -> Description:
        signature = _signature(self.kind, self.name)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            wrong = [k for k in kwargs if k not in signature.parameters]
            hint = did_you_mean(wrong[0], signature.parameters) if wrong else ""
            raise ModelError(
                f"{self.name}({_parameters(signature)}): {error}. {hint}".strip()
            ) from None
        flat: list[tuple[str, Any]] = []
        for key, value in bound.arguments.items():
            if not key.endswith("shape"):
                value = _stacked(value)
            if signature.parameters[key].kind is inspect.Parameter.VAR_POSITIONAL:
                flat.extend(("*", v) for v in value)
            else:
                flat.append((key, value))
        return Description(self.kind, self.name, tuple(flat))

    def __repr__(self) -> str:
        prefix = "dist" if self.kind == "dist" else f"dist.{self.kind}"
        shown = _parameters(_signature(self.kind, self.name))
        return f"<{prefix}.{self.name}, to be called with ({shown})>"


def _stacked(value: Any) -> Any:
    """A list of numbers or of random values as one array; any other value as it is."""
    if not isinstance(value, (list, tuple)) or not value:
        return value
    items = [_stacked(v) for v in value]
    if all(isinstance(v, (int, float)) or hasattr(v, "__array_function__") for v in items):
        return np.stack(items)
    return value


def _parameters(signature: inspect.Signature) -> str:
    """Names and defaults, without annotations."""
    shown = []
    for p in signature.parameters.values():
        if p.name == "self":
            continue
        star = "*" if p.kind is inspect.Parameter.VAR_POSITIONAL else ""
        default = "" if p.default is inspect.Parameter.empty else f"={p.default!r}"
        shown.append(f"{star}{p.name}{default}")
    return ", ".join(shown)


class _Catalogue:
    """Attribute access to one of NumPyro's modules, as descriptions."""

    def __init__(self, kind: str):
        self._kind = kind

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _entry(self._kind, name)

    def __dir__(self) -> list[str]:
        return [n for n in dir(importlib.import_module(_MODULES[self._kind])) if n[0] != "_"]


def _entry(kind: str, name: str) -> Any:
    found = lookup(kind, name)
    if isinstance(found, type) or inspect.isfunction(found):
        return _Factory(kind, name)
    return Description(kind, name, ())


constraints = _Catalogue("constraints")
transforms = _Catalogue("transforms")


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _entry("dist", name)


def __dir__() -> list[str]:
    module = importlib.import_module(_MODULES["dist"])
    return [n for n in dir(module) if n[0].isupper()]


@cache
def _validates(name: str) -> bool:
    return "validate_args" in inspect.signature(lookup("dist", name)).parameters


def optional(description: Description, name: str) -> bool:
    """Whether the parameter ``name`` may be left out as None (one of probs and logits)."""
    if description.kind == "method":
        return False
    parameter = _signature(description.kind, description.name).parameters.get(name)
    return parameter is None or parameter.default is None


def build(
    description: Description,
    fill: Callable[[Any], Any],
    parts: dict[tuple[int, ...], Any] | None = None,
    at: tuple[int, ...] = (),
) -> Any:
    """NumPyro's object for a description; ``fill`` turns each argument into an array.

    Nested descriptions are built first, in arguments and inside lists of them. ``parts`` collects
    what is built, by its place among the arguments.
    """

    def value(argument: Any, *key: int) -> Any:
        if isinstance(argument, Description):
            return build(argument, fill, parts, (*at, *key))
        if isinstance(argument, (list, tuple)) and any(
            isinstance(a, Description) for a in argument
        ):
            return [value(a, *key, j) for j, a in enumerate(argument)]
        return fill(argument)

    made = _construct(description, [value(v, i) for i, (_, v) in enumerate(description.arguments)])
    if parts is not None:
        parts[at] = made
    return made


def _construct(description: Description, values: list[Any]) -> Any:
    if description.kind == "method":
        base, argument = values
        return getattr(base, description.name)(argument)
    found = lookup(description.kind, description.name)
    if description.kind == "dist" and description.name in _REPAIRED:
        found = getattr(importlib.import_module("ppcore.repaired"), description.name)
    if not description.arguments and not callable(found):
        return found
    if not description.arguments and description.kind == "constraints":
        return found
    keys = [k for k, _ in description.arguments]
    positional = [v for k, v in zip(keys, values, strict=True) if k == "*"]
    named = {k: v for k, v in zip(keys, values, strict=True) if k != "*"}
    if description.kind == "dist" and _validates(description.name):
        named["validate_args"] = False  # constants are checked once, when declared
    return found(*positional, **named)
