"""The density of a compiled Stan program, evaluated on threads of the host, many points a call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Any

import jax
import numpy as np

from ppcore.errors import UnsupportedError
from ppcore.recording.lift import call_on_host
from ppcore.space import Space
from ppcore.torch_view import SeenByTorch

POOL = ThreadPoolExecutor(os.cpu_count() or 1, "stan")
"""Stan's density runs outside Python's lock, so that points on several threads go side by side."""
ONE = Lock()
"""Held by whoever calls a library that was compiled without threads."""


@dataclass(frozen=True)
class Site:
    """A variable of a Stan program: where it lies in what Stan puts out, and its shape."""

    name: str
    at: slice
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Compiled:
    """A Stan program with its data; hashed by identity.

    Attributes
    ----------
    model : bridgestan.StanModel
        Or whatever has its methods.
    latents, computed : tuple of Site
        Parameters; transformed parameters.
    places : tuple of (str, slice)
        Where each parameter's unconstrained value lies in x.
    threads : bool
        Whether it was compiled so that several may run at once.
    """

    model: Any
    latents: tuple[Site, ...]
    computed: tuple[Site, ...]
    places: tuple[tuple[str, slice], ...]
    threads: bool = True

    def _one(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """log γ(x) and its gradient; a point that Stan rejects has log density −∞."""
        nothing = np.full(x.shape, np.nan)
        if not np.isfinite(x).all():
            return -np.inf, nothing
        try:
            value, slope = self.model.log_density_gradient(
                np.ascontiguousarray(x, float), propto=False, jacobian=True
            )
        except RuntimeError:
            return -np.inf, nothing
        return float(value), np.array(slope, float)

    def densities(self, x: np.ndarray) -> list[np.ndarray]:
        """x: float[..., d] -> log γ float[...], ∇ log γ float[..., d]."""
        rows = np.asarray(x, float).reshape(-1, x.shape[-1])
        if self.threads:
            found = list(POOL.map(self._one, rows)) if len(rows) > 1 else [self._one(rows[0])]
        else:
            with ONE:
                found = [self._one(row) for row in rows]
        values = np.array([value for value, _ in found]).reshape(x.shape[:-1])
        return [values, np.array([slope for _, slope in found]).reshape(x.shape)]

    def values(self, x: np.ndarray) -> list[np.ndarray]:
        """x: float[..., d] -> each variable in Stan's own coordinates: float[..., *shape]."""
        rows = np.asarray(x, float).reshape(-1, x.shape[-1])
        every = [
            self.model.param_constrain(np.ascontiguousarray(row), include_tp=True) for row in rows
        ]
        flat, lead = np.array(every).reshape(len(rows), -1), x.shape[:-1]
        return [
            # Stan's order is by the last index first.
            _last_index_first(flat[:, site.at], site.shape).reshape((*lead, *site.shape))
            for site in (*self.latents, *self.computed)
        ]


def _last_index_first(rows: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    turned = rows.reshape(len(rows), *reversed(shape))
    return np.transpose(turned, (0, *range(len(shape), 0, -1)))


def _host(compiled: Compiled, x: Any) -> tuple[Any, Any]:
    spaces = (Space(()), Space((x.shape[-1],)))
    value, slope = call_on_host(compiled.densities, spaces, (x,), batched=True)
    return value, slope


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _density(compiled: Compiled, x: Any) -> Any:
    return _host(compiled, x)[0]


@_density.defjvp
def _tangent(compiled: Compiled, primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    value, slope = _host(compiled, primals[0])
    return value, slope @ tangents[0]


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class StanTarget(SeenByTorch):
    """γ of a Stan program, its target block with all constants and Jacobians.

    Stan does not tell prior from likelihood, so that all of γ is tempered.

    Attributes
    ----------
    compiled : Compiled
        Static, with the data in it.
    beta : float
        Inverse temperature; a leaf.
    """

    compiled: Compiled
    beta: Any = 1.0
    has_reference = False

    def tree_flatten(self) -> tuple[tuple[Any], Compiled]:
        return (self.beta,), self.compiled

    @classmethod
    def tree_unflatten(cls, compiled: Compiled, leaves: tuple[Any]) -> StanTarget:
        return cls(compiled, leaves[0])

    @property
    def dim(self) -> int:
        """d, the number of unconstrained coordinates."""
        return self.compiled.places[-1][1].stop

    @property
    def site_slices(self) -> dict[str, slice]:
        """Where each parameter lies in x."""
        return dict(self.compiled.places)

    def log_density(self, x: Any) -> Any:
        """β log γ, Jacobians included; float[d] -> float[]."""
        return self.beta * _density(self.compiled, x)

    def log_prior(self, x: Any) -> Any:
        """0: what is prior and what is likelihood, Stan does not say."""
        return jax.numpy.zeros((), x.dtype)

    def log_likelihood(self, x: Any) -> Any:
        """log γ; float[d] -> float[]."""
        return _density(self.compiled, x)

    def constrain(self, x: Any) -> dict[str, Any]:
        """float[d] -> {variable: array}: parameters and transformed parameters."""
        sites = (*self.compiled.latents, *self.compiled.computed)
        spaces = tuple(Space(site.shape) for site in sites)
        found = call_on_host(self.compiled.values, spaces, (x,), batched=True)
        return dict(zip([site.name for site in sites], found, strict=True))

    def sample_reference(self, key: Any, n: int) -> Any:
        """Raises :class:`ppcore.errors.UnsupportedError`: Stan has no prior to draw from."""
        raise UnsupportedError(
            "A Stan program is a density, without a prior that could be drawn from. Use an engine "
            "that needs no reference (`ppcore engines` shows what each needs)."
        )

    def tempered(self, beta: Any) -> StanTarget:
        """γ^β."""
        return replace(self, beta=beta)
