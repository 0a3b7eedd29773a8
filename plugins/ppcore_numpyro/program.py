"""A NumPyro program with its arguments split into arrays and all the rest, and its sites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ppcore.errors import ModelError, UnsupportedError


@dataclass(frozen=True)
class Program:
    """A model function and what of its arguments is not an array; static, hashed by both.

    Attributes
    ----------
    fn : callable
    structure : jax.tree_util.PyTreeDef
        Of (args, kwargs).
    others : tuple
        (position, value) of every leaf that is not an array.
    arrays : int
        How many leaves are.
    """

    fn: Callable[..., Any]
    structure: Any
    others: tuple[tuple[int, Any], ...]
    arrays: int

    @classmethod
    def split(
        cls, fn: Callable[..., Any], args: Any, kwargs: Any
    ) -> tuple[Program, list[np.ndarray]]:
        """The program, and the arrays it was called with.

        Raises :class:`~ppcore.errors.ModelError` for an argument that cannot be compared.
        """
        leaves, structure = jax.tree.flatten((tuple(args), dict(kwargs)), lambda v: v is None)
        arrays, others = [], []
        for place, leaf in enumerate(leaves):
            if hasattr(leaf, "dtype") and hasattr(leaf, "shape"):
                arrays.append(np.asarray(leaf))
                continue
            try:
                hash(leaf)
            except TypeError:
                raise ModelError(
                    f"An argument of type {type(leaf).__name__} is neither an "
                    "array nor hashable. Pass arrays, numbers, strings, or lists and dicts of them."
                ) from None
            others.append((place, leaf))
        return cls(fn, structure, tuple(others), len(arrays)), arrays

    @property
    def name(self) -> str:
        """The function's name."""
        return str(getattr(self.fn, "__name__", type(self.fn).__name__))

    def call(self, arrays: Any) -> Any:
        """Run the program on arrays (or tracers) in the place of its own."""
        leaves = list(arrays)
        for place, value in self.others:
            leaves.insert(place, value)
        args, kwargs = jax.tree.unflatten(self.structure, leaves)
        return self.fn(*args, **kwargs)

    def sites(self, arrays: Any) -> dict[str, dict[str, Any]]:
        """NumPyro's own trace of one forward run, abstract but for observed values.

        Nothing is drawn or compiled: what is drawn has a shape and no number. Where an observed
        value is computed by the program, the run is repeated with numbers.

        Raises :class:`~ppcore.errors.UnsupportedError` naming a site that has no meaning here.
        """
        from numpyro import handlers

        found: dict[str, dict[str, Any]] = {}

        def run(key: Any) -> int:
            found.update(handlers.trace(handlers.seed(self.call, key)).get_trace(arrays))
            return 0

        try:
            jax.eval_shape(run, jax.random.key(0))
        except jax.errors.JAXTypeError as error:
            raise UnsupportedError(
                f"The Python code of {self.name} depends on random values "
                f"({str(error).strip().splitlines()[0]}) Write jnp.where or jax.lax.cond for if, "
                "and jnp.asarray(data)[index] to index data at random."
            ) from error
        observed = [s["value"] for s in found.values() if s.get("is_observed")]
        if any(isinstance(value, jax.core.Tracer) for value in observed):
            found.clear()
            run(jax.random.key(0))
        for name, site in found.items():
            if site["type"] == "param":
                raise UnsupportedError(
                    f"Site {name!r} is numpyro.param, a value to optimise, which no posterior "
                    "has. Give it a prior with numpyro.sample, or pass its value as an argument."
                )
            if site["type"] == "plate" and site["args"][1] not in (None, site["args"][0]):
                raise UnsupportedError(
                    f"Plate {name!r} takes {site['args'][1]} of its {site['args'][0]} elements at "
                    "random, which gives another density at every run. Drop subsample_size; the "
                    "engine 'sgld' takes minibatches by itself."
                )
        return found
