"""A Pyro program with its arguments in double precision, and what it says at its sites."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch.utils import _pytree as pytree

from ppcore.errors import UnsupportedError


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Torch's default dtype is float64 inside, and nothing is validated."""
    before, validating = torch.get_default_dtype(), torch.distributions.Distribution._validate_args
    torch.set_default_dtype(torch.float64)
    try:
        with pyro.validation_enabled(False):
            torch.distributions.Distribution.set_default_validate_args(False)
            yield
    finally:
        torch.set_default_dtype(before)
        torch.distributions.Distribution.set_default_validate_args(validating)


class Give(Messenger):  # type: ignore[misc]
    """Sites take the values they are given, observed ones too."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.values:
            msg["value"], msg["done"] = self.values[msg["name"]], True


@dataclass(frozen=True, eq=False)
class Program:
    """A model function and its arguments; tensors among them are its data.

    Attributes
    ----------
    fn : callable
    leaves : tuple
        Arguments, tensors in double precision.
    structure : TreeSpec
    """

    fn: Callable[..., Any]
    leaves: tuple[Any, ...]
    structure: Any

    @classmethod
    def of(cls, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        leaves, structure = pytree.tree_flatten((args, kwargs))
        return cls(fn, tuple(_doubled(leaf) for leaf in leaves), structure)

    @property
    def name(self) -> str:
        return str(getattr(self.fn, "__name__", type(self.fn).__name__))

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The data."""
        return [leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor)]

    def trace(self, values: dict[str, Any], tensors: list[torch.Tensor] | None = None) -> Any:
        """Pyro's trace of the program with these values at its sites, in double precision."""
        given = iter(self.tensors if tensors is None else tensors)
        leaves = [next(given) if isinstance(v, torch.Tensor) else v for v in self.leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self.structure)
        with Give(values):
            return poutine.trace(self.fn).get_trace(*args, **kwargs)

    def sites(self, seed: int = 0) -> dict[str, dict[str, Any]]:
        """The sites of one forward run.

        Raises :class:`~ppcore.errors.UnsupportedError` naming a site that has no meaning here.
        """
        with double_precision(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            nodes = self.trace({}).nodes
        found = {}
        for name, site in nodes.items():
            if site["type"] == "param":
                raise UnsupportedError(
                    f"Site {name!r} is pyro.param, a value to optimise, which no posterior has. "
                    "Give it a prior with pyro.sample, or pass its value as an argument."
                )
            if site["type"] != "sample":
                continue
            if type(site["fn"]).__name__ == "_Subsample":
                size, taken = site["fn"].size, site["fn"].subsample_size
                if taken not in (None, size):
                    raise UnsupportedError(
                        f"Plate {name!r} takes {taken} of its {size} elements at random, which "
                        "gives another density at every run. Drop subsample_size; the engine "
                        "'sgld' takes minibatches by itself."
                    )
                continue
            found[name] = site
        return found


def _doubled(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        leaf = torch.as_tensor(leaf)
    if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
        return leaf.detach().to(torch.float64)
    return leaf


def is_factor(site: dict[str, Any]) -> bool:
    """Whether a site is ``pyro.factor``."""
    return type(site["fn"]).__name__ == "Unit"


def is_deterministic(site: dict[str, Any]) -> bool:
    """Whether a site is ``pyro.deterministic``: an observed delta that is masked out."""
    return bool(site["infer"].get("_deterministic"))
