"""Ways in: models of other libraries, and plain log densities, ready for every engine."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ppcore import precision, registry
from ppcore.errors import ModelError, SettingsError, UnsupportedError
from ppcore.foreign_model import ForeignModel, adopt
from ppcore.space import natural_space
from ppcore.target import DensityTarget


class DensityOnlyWarning(UserWarning):
    """A foreign program could not be read as a diagram; the reason is in the text."""


def read(frontend: str, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``model`` of another library, through the frontend of that name."""
    loaded: Any = registry.resolve(frontend, "frontend")
    made = adopt(loaded.read(model, args, kwargs))
    for note in getattr(made, "notes", ()):
        warnings.warn(f"{made.name}: {note}", DensityOnlyWarning, stacklevel=3)
    return made


def write(frontend: str, model: Any) -> Any:
    """A ppcore model as a program of another library.

    Raises :class:`~ppcore.errors.UnsupportedError` if that frontend only reads.
    """
    loaded: Any = registry.resolve(frontend, "frontend")
    if loaded.write is None:
        raise UnsupportedError(f"The frontend {frontend!r} reads models and cannot write them.")
    return loaded.write(model)


def from_numpyro(model: Any, /, *args: Any, **kwargs: Any) -> Any:
    """A NumPyro model, unchanged, with the arguments it is called with.

    The result is a ppcore model wherever the program can be read as a diagram, with the program's
    ``obs`` as evidence; where it cannot, a density with named sites whose ``notes`` say why.

    Raises
    ------
    UnsupportedError
        For ``numpyro.param`` sites, subsampled plates, and Python code that depends on values.
    ModelError
        If it has no latent site or no finite log density.

    >>> import numpyro, numpyro.distributions as dist
    >>> def coin(flips):
    ...     p = numpyro.sample("p", dist.Beta(1, 1))
    ...     with numpyro.plate("flip", len(flips)):
    ...         numpyro.sample("flips", dist.Bernoulli(p), obs=flips)
    >>> from_numpyro(coin, np.array([1, 0, 1]))
    <model coin: p | flips>
    """
    return read("numpyro", model, args, kwargs)


def from_pyro(model: Any, /, *args: Any, **kwargs: Any) -> Any:
    """A Pyro model, unchanged, with the arguments it is called with.

    The program's torch operations are read as NumPy's, so that it runs compiled on every engine,
    in double precision. Where one has no name here, torch itself computes the density, with a
    warning that says why: right, and as slow as torch is.

    Raises
    ------
    PluginError
        If torch or Pyro is not installed.
    UnsupportedError
        For ``pyro.param`` sites, subsampled plates, sites that come and go or change shape, and
        discrete sites in a program that cannot be read.
    ModelError
        If it has no latent site or no finite log density.
    """
    return read("pyro", model, args, kwargs)


def from_pymc(model: Any, /) -> ForeignModel:
    """A PyMC model, unchanged, by the JAX form of its log density.

    Sites are its free and deterministic variables under PyMC's names, with its dims; data and
    ``pm.Data`` are those that it holds now. It stays a density: it cannot be rewritten or
    simulated here, and has no prior to draw from.

    Parameters
    ----------
    model : pymc.Model

    Raises
    ------
    PluginError
        If PyMC is not installed.
    UnsupportedError
        For discrete free variables, and operations that PyTensor has no JAX form of.
    ModelError
        If it is no PyMC model, has no free variable, or no finite log density.
    EvidenceError
        For observed values that are NaN.
    """
    loaded: Any = registry.resolve("pymc", "frontend")
    made: ForeignModel = adopt(loaded.read(model, (), {}))
    return made


def from_stan(code: str | os.PathLike[str], /, data: Any = None) -> ForeignModel:
    """A Stan program and its data, by its log density and gradient as BridgeStan compiles them.

    The program runs on the host: every evaluation is a call out of the compiled sampler, of a
    batch of points on as many threads as there are processors. Sites are the program's parameters,
    transformed parameters and generated quantities without random numbers. It stays a density.

    Parameters
    ----------
    code : str or path
        A program's text, a file that ends in ``.stan``, or a library that BridgeStan has compiled
        (``.so``).
    data : mapping, path or str, optional
        Names and values as Stan's data block declares them, a JSON file, or JSON text.

    Raises
    ------
    PluginError
        If BridgeStan or a C++ compiler is missing; says how to install them.
    ModelError
        If the program does not compile (with Stan's message), or lacks data.
    """
    loaded: Any = registry.resolve("stan", "frontend")
    made: ForeignModel = adopt(loaded.read(code, (data,), {}))
    return made


def from_log_density(
    fn: Callable[..., Any],
    dim: int,
    data: Any = (),
    *,
    log_reference: Callable[..., Any] | None = None,
    sample_reference: Callable[..., Any] | None = None,
    name: str | None = None,
) -> ForeignModel:
    """An unnormalised log density on R^d, written with ``jax.numpy``.

    Parameters
    ----------
    fn : callable
        ``fn(x, data) -> float[]`` with x: float[d]. A function defined once, not made anew for
        every call: compiled programs are kept by it. Data go in ``data``, not in a closure.
    dim : int
        d.
    data : pytree of arrays
    log_reference, sample_reference : callable, optional
        ``(x, data) -> float[]``, normalised, and ``(key, data) -> float[d]``: a distribution to
        start and anneal from. Engines that need a reference ask for it.
    name : str, optional

    Raises
    ------
    SettingsError
        For a dimension that is no positive integer, or one reference function without the other.
    ModelError
        If ``fn`` does not return one number, or no finite one at any of a few points.
    UnsupportedError
        If JAX cannot trace ``fn``.

    >>> import jax.numpy as jnp
    >>> def ring(x, data): return -0.5 * (jnp.sqrt(jnp.sum(x**2)) - data)**2 / 0.01
    >>> from_log_density(ring, 2, data=3.0)
    <density ring: x>
    """
    import jax

    if isinstance(dim, bool) or not isinstance(dim, int | np.integer) or dim < 1:
        raise SettingsError(f"dim={dim!r} must be a positive integer.")
    if (log_reference is None) != (sample_reference is None):
        raise SettingsError("log_reference and sample_reference belong together: give both.")
    name = str(name or getattr(fn, "__name__", type(fn).__name__))
    with precision.scope("float64"):
        target = DensityTarget(
            fn, int(dim), jax.tree.map(np.asarray, data), log_reference, sample_reference
        )
        x = 0.5 * np.random.default_rng(1).standard_normal((8, int(dim)))
        try:
            values = jax.vmap(target.log_density)(x)
        except jax.errors.JAXTypeError as error:
            why = str(error).strip().splitlines()[0]
            raise UnsupportedError(
                f"JAX cannot trace {name} ({why}). Write it with jax.numpy, and jnp.where for if."
            ) from error
    if values.shape != (8,):
        raise ModelError(
            f"{name} returns an array of shape {values.shape[1:]}; a log density is one number. "
            "Sum over independent parts."
        )
    if not bool(np.isfinite(np.asarray(values)).any()):
        raise ModelError(
            f"{name} is {float(values[0])} at all of eight points near 0. It must be finite on a "
            "neighbourhood of some of them: shift or scale x."
        )
    return ForeignModel(name, target, {"x": natural_space((int(dim),), "float64")}, ("x",))
