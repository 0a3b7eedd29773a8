"""``from_pyro``: a Pyro program as a diagram, or as a density that torch computes."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from ppcore.diagram import Plate
from ppcore.errors import ModelError, PPCoreError, UnsupportedError
from ppcore.foreign import ForeignProgram, ForeignSite, Reading, Slot
from ppcore_pyro.aten import Replay, array
from ppcore_pyro.describe import describe
from ppcore_pyro.indexing import IndexBySelection
from ppcore_pyro.program import Program, double_precision, is_deterministic, is_factor
from ppcore_pyro.target import eager_target

RUNS = 7
"""Forward runs, from other seeds, that must show the same sites and shapes."""


def from_pyro(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ForeignProgram:
    """A Pyro program, traced once: its density by torch, and its sites as functions of each other.

    Torch records the operations between the sites; replayed under NumPy's names they become boxes,
    so that the program runs compiled, on every engine, with every rewrite. It has no reading (and
    ``why`` says so) with operations or distributions that have no name here, or scaled sites.

    Parameters
    ----------
    model : callable
        A Pyro model, unchanged.
    args, kwargs
        What it is called with. Tensors are data, taken in double precision.

    Raises
    ------
    ModelError
        If the program has no latent site.
    UnsupportedError
        For ``pyro.param`` sites, subsampled plates, and sites that come and go or change shape
        from run to run.
    """
    program = Program.of(model, args, kwargs)
    sites = program.sites()
    _require_stable(program, sites)
    latent = [n for n, s in sites.items() if not s["is_observed"]]
    if not latent:
        raise ModelError("The program has no latent site: every sample statement is observed.")
    density = eager_target(program, sites)
    finite = [n for n in latent if sites[n]["fn"].support.is_discrete]
    reading, why = None, ""
    try:
        reading = _read(program, sites)
    except PPCoreError as error:
        why = str(error)
    return ForeignProgram(
        program.name,
        density,
        tuple(place.name for place in density.eager.places),
        density.eager.named,
        {n: array(s["value"]) for n, s in sites.items() if _is_data(s)},
        reading,
        why,
        tuple(finite),
        needs_reading=bool(finite),
    )


def _is_data(site: dict[str, Any]) -> bool:
    return site["is_observed"] and not is_factor(site) and not is_deterministic(site)


def _require_stable(program: Program, sites: dict[str, dict[str, Any]]) -> None:
    """Raise if one of ``RUNS`` more runs has other sites or shapes."""
    shapes = {name: tuple(site["value"].shape) for name, site in sites.items()}
    for seed in range(1, RUNS + 1):
        again = {n: tuple(s["value"].shape) for n, s in program.sites(seed).items()}
        for name in (*again, *shapes):
            if (name in again) != (name in shapes):
                raise UnsupportedError(
                    f"Site {name!r} is there in some runs and not in others, so the posterior has "
                    "no fixed dimension. Sample it always, and use torch.where to ignore it."
                )
            if again[name] != shapes[name]:
                raise UnsupportedError(
                    f"Site {name!r} has shape {shapes[name]} in one run and {again[name]} in "
                    "another. Give it its largest shape and mask what is not in use."
                )


def _read(program: Program, sites: dict[str, dict[str, Any]]) -> Reading:
    """The program as a function of its sites.

    Raises :class:`~ppcore.errors.UnsupportedError` naming what cannot be read.
    """
    drawn = [n for n, s in sites.items() if not is_factor(s) and not is_deterministic(s)]
    tensors = program.tensors
    read: list[ForeignSite] = []

    def run(*inputs: torch.Tensor) -> list[torch.Tensor]:
        values = dict(zip(drawn, inputs[len(tensors) :], strict=True))
        with IndexBySelection():
            nodes = program.trace(values, list(inputs[: len(tensors)])).nodes
        outputs: list[torch.Tensor] = []

        def leaf(value: torch.Tensor) -> Slot:
            outputs.append(value)
            return Slot(len(outputs) - 1)

        read.clear()
        read.extend(_site(name, nodes[name], sites[name], leaf) for name in sites)
        return outputs

    values = [sites[name]["value"].detach() for name in drawn]
    with double_precision(), _explained(program.name):
        traced = make_fx(run, decomposition_table=core_aten_decompositions())(*tensors, *values)
    data = tuple(array(tensor) for tensor in tensors)
    return Reading(partial(Replay, traced), data, tuple(read))


def _site(name: str, site: dict[str, Any], known: dict[str, Any], leaf: Any) -> ForeignSite:
    if is_factor(site):
        return ForeignSite("factor", name, leaf(site["fn"].log_factor))
    if is_deterministic(site):
        return ForeignSite("deterministic", name, leaf(site["value"]))
    if site["scale"] != 1.0:
        raise UnsupportedError(f"site {name!r} has a scale (a subsampled plate, or poutine.scale)")
    plates = tuple(Plate(f.name, int(f.size), int(f.dim)) for f in site["cond_indep_stack"])
    shape = tuple(known["value"].shape)
    distribution = site["fn"]
    batch = shape[: len(shape) - len(distribution.event_shape)]
    flat = distribution.event_dim == 0
    content = describe(distribution, lambda value: replace(leaf(value), elementwise=flat))
    if not plates and batch != tuple(distribution.batch_shape):
        content = content.expand(batch)  # Pyro broadcasts against what is observed.
    if site["mask"] is not None:
        content = content.mask(leaf(torch.as_tensor(site["mask"])))
    observed = array(known["value"]) if known["is_observed"] else None
    return ForeignSite("sample", name, content, plates, shape, observed)


@contextlib.contextmanager
def _explained(name: str) -> Any:
    """Torch's refusals to trace as refusals to read, with what to write instead."""
    try:
        yield
    except (RuntimeError, torch.fx.proxy.TraceError) as error:
        first = np.str_(error).strip().splitlines()[0]
        if "data-dependent" in str(error) or "trying to get a value out of" in str(error):
            raise UnsupportedError(
                f"the Python code of {name} depends on random values: write torch.where for if, "
                "and index with tensors instead of numbers"
            ) from error
        raise UnsupportedError(f"torch cannot trace it ({first})") from error
