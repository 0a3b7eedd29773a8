"""``from_numpyro``: a NumPyro program as a diagram, or as a density with the reason why."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to

from ppcore import precision
from ppcore.diagram import Plate
from ppcore.errors import ModelError, PPCoreError, UnsupportedError
from ppcore.foreign import ForeignProgram, ForeignSite, Reading, Slot
from ppcore.recording.from_jaxpr import Replay
from ppcore_numpyro.describe import describe
from ppcore_numpyro.program import Program
from ppcore_numpyro.target import NumPyroTarget, Place


def from_numpyro(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ForeignProgram:
    """A NumPyro program, traced once: its density, and its sites as functions of each other.

    It has no reading (and ``why`` says so) with sites inside control flow, scaled sites, or
    distributions without a description.

    Parameters
    ----------
    model : callable
        A NumPyro model, unchanged.
    args, kwargs
        What it is called with. Arrays are data; all else is part of the program.

    Raises
    ------
    ModelError
        If the program has no latent site.
    UnsupportedError
        UnsupportedError
        For ``numpyro.param`` sites, subsampled plates, and Python code that depends on values.
    """
    with precision.scope("float64"):
        program, arrays = Program.split(model, args, kwargs)
        trace = program.sites(arrays)
        density = _density(program, arrays, trace)
        reading, why = None, ""
        try:
            reading = _read(program, arrays, trace)
        except PPCoreError as error:
            why = str(error)
    return ForeignProgram(
        program.name,
        density,
        tuple(place.name for place in density.places),
        tuple(n for n, s in trace.items() if s["type"] == "deterministic"),
        {n: np.asarray(s["value"]) for n, s in trace.items() if _is_data(s)},
        reading,
        why,
        tuple(n for n, s in trace.items() if _is_label(s)),
    )


def _density(program: Program, arrays: list[np.ndarray], trace: dict[str, Any]) -> NumPyroTarget:
    places, finite = [], False
    for name, site in trace.items():
        if site["type"] != "sample" or site["is_observed"]:
            continue
        if site["fn"].support.is_discrete:
            finite = True
            continue
        shape = biject_to(site["fn"].support).inverse_shape(np.shape(site["value"]))
        places.append(Place(name, tuple(shape)))
    if not places and not finite:
        raise ModelError("The program has no latent site: every sample statement is observed.")
    return NumPyroTarget(program, tuple(places), finite, tuple(arrays))


def _read(program: Program, arrays: list[np.ndarray], trace: dict[str, Any]) -> Reading:
    """The program as a function of its sites.

    Raises :class:`~ppcore.errors.UnsupportedError` naming what cannot be read.
    """
    drawn = [n for n, s in trace.items() if s["type"] == "sample" and not _is_factor(s)]
    sites: list[ForeignSite] = []

    def run(*inputs: Any) -> list[Any]:
        given = dict(zip(drawn, inputs[len(arrays) :], strict=True))
        outputs: list[Any] = []

        def leaf(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                return value
            outputs.append(value)
            return Slot(len(outputs) - 1)

        def give(site: dict[str, Any]) -> Any:
            return given.get(site["name"]) if site["type"] == "sample" else None

        # An observed site's value replaces it wherever the program uses it.
        masked = _Observing(program.call, give)
        found = handlers.trace(handlers.seed(masked, 0)).get_trace(inputs[: len(arrays)])
        sites.clear()
        sites.extend(_site(name, site, trace, leaf) for name, site in found.items() if _kept(site))
        return outputs

    shapes = [jax.ShapeDtypeStruct(np.shape(v), np.asarray(v).dtype) for v in arrays]
    values = [trace[n]["value"] for n in drawn]
    shapes += [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in values]
    closed = jax.make_jaxpr(run)(*shapes)
    return Reading(partial(Replay, closed), tuple(arrays), tuple(sites))


class _Observing(handlers.substitute):  # type: ignore[misc]
    """Substitutes values of observed sites too, which NumPyro's own handler leaves alone."""

    def __init__(self, fn: Any, give: Any) -> None:
        super().__init__(fn, substitute_fn=give)
        self.give = give

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "control_flow":
            raise UnsupportedError("it has sites inside control flow (scan or cond)")
        value = self.give(msg)
        if value is not None:
            msg["value"] = value


def _is_label(site: dict[str, Any]) -> bool:
    latent = site["type"] == "sample" and not site["is_observed"]
    return latent and bool(site["fn"].support.is_discrete)


def _is_data(site: dict[str, Any]) -> bool:
    return site["type"] == "sample" and bool(site["is_observed"]) and not _is_factor(site)


def _kept(site: dict[str, Any]) -> bool:
    return site["type"] in ("sample", "deterministic")


def _is_factor(site: dict[str, Any]) -> bool:
    return type(site["fn"]).__name__ == "Unit"


def _site(name: str, site: dict[str, Any], trace: dict[str, Any], leaf: Any) -> ForeignSite:
    if site["type"] == "deterministic":
        return ForeignSite("deterministic", name, leaf(site["value"]))
    if site.get("scale") is not None:
        raise UnsupportedError(f"site {name!r} has a scale (a subsampled plate, or handlers.scale)")
    if _is_factor(site):
        return ForeignSite("factor", name, leaf(site["fn"].log_factor))
    plates = tuple(Plate(f.name, int(f.size), int(f.dim)) for f in site["cond_indep_stack"])
    found = trace[name]
    observed = np.asarray(found["value"]) if found["is_observed"] else None
    distribution = site["fn"]
    if plates and type(distribution).__name__ == "ExpandedDistribution":
        distribution = _unexpanded(distribution, plates)
    shape = np.shape(found["value"])
    batch = shape[: len(shape) - len(distribution.event_shape)]
    content = describe(distribution, leaf)
    if observed is not None and not plates and batch != tuple(distribution.batch_shape):
        content = content.expand(batch)  # NumPyro broadcasts against what is observed.
    return ForeignSite("sample", name, content, plates, shape, observed)


def _unexpanded(distribution: Any, plates: tuple[Plate, ...]) -> Any:
    """The distribution before its plates copied it, if they alone made its shape."""
    base = distribution.base_dist
    sizes = {plate.axis: plate.size for plate in plates}
    shape = tuple(sizes.get(axis, 1) for axis in range(min(sizes), 0))
    same = np.broadcast_shapes(shape, base.batch_shape) == tuple(distribution.batch_shape)
    return base if same else distribution
