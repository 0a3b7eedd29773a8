"""Programs of other libraries as models here: a diagram where possible, else a density."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcore.declare import Model
from ppcore.dist import Description
from ppcore.errors import EvidenceError, ModelError, PPCoreError, UnsupportedError
from ppcore.foreign import ForeignProgram, Reading, Replay, Slot
from ppcore.recording.recorder import Recorder, recording
from ppcore.space import Space, natural_space

if TYPE_CHECKING:
    from ppcore.fit import Fit

POINTS = 8
"""Points at which a diagram's density is compared with that of the program it was read from."""


def adopt(program: ForeignProgram) -> Any:
    """The model that ``program`` is: a :class:`Model`, or else a :class:`ForeignModel`.

    A diagram is used only if its log density and gradient agree with the program's own to 1e-6
    at ``POINTS`` points (both libraries have special functions that are no better).

    Raises
    ------
    EvidenceError
        For data outside their support, or NaN.
    UnsupportedError
        If only a diagram would do, and the program cannot be read as one.
    ModelError
        If the program's log density is nowhere finite.
    """
    why = program.why
    if program.reading is not None:
        try:
            try:
                made = assemble(program.name, program.reading, bare=True)
            except ModelError:
                made = assemble(program.name, program.reading, bare=False)
            if not program.summed:
                _compare(made.target(), program)
            return made
        except EvidenceError:
            raise
        except PPCoreError as error:
            why = str(error)
    if program.needs_reading:
        raise UnsupportedError(
            f"Site {program.summed[0]!r} of {program.name} is discrete and has to be summed out, "
            f"for which the program must be read as a diagram. That failed: {why.rstrip('.')}."
        )
    return _as_density(program, why)


def assemble(name: str, reading: Reading, bare: bool) -> Model:
    """The model that a traced program is; ``bare`` leaves out copies that plates make anyway.

    Raises :class:`~ppcore.errors.ModelError` if a site does not get the shape that it has in the
    program.
    """
    from ppcore.recording import sites as say

    recorder, replay = Recorder(), reading.replay()
    with recording(recorder):
        for i, array in enumerate(reading.data):
            replay.give(i, np.asarray(array))
        place = len(reading.data)
        for site in reading.sites:
            content = _filled(site.content, replay, bare and bool(site.plates))
            if site.kind == "factor":
                say.factor(site.name, content)
            elif site.kind == "deterministic":
                say.deterministic(site.name, content)
            else:
                with contextlib.ExitStack() as plates:
                    for plate in site.plates:
                        plates.enter_context(say.plate(plate.name, plate.size, plate.axis))
                    wire = say.sample(site.name, content)
                if tuple(wire.shape) != tuple(site.shape):
                    raise ModelError(
                        f"site {site.name!r} has shape {tuple(site.shape)} in the program and "
                        f"{tuple(wire.shape)} as a diagram"
                    )
                replay.give(place, wire)
                place += 1
    names = tuple(site for site, _ in recorder.sites)
    diagram = recorder.freeze([ref for _, ref in recorder.sites], names)
    model = Model(name, diagram, tuple(recorder.data), input_names=("",) * len(recorder.data))
    found = {s.name: s.observed for s in reading.sites if s.observed is not None}
    return model.observe(found) if found else model


def _filled(content: Any, replay: Replay, bare: bool) -> Any:
    """``content`` with every slot replaced by its value."""
    if isinstance(content, Slot):
        return replay.output(content.index, bare and content.elementwise)
    if isinstance(content, Description):
        arguments = tuple((k, _filled(v, replay, bare)) for k, v in content.arguments)
        return Description(content.kind, content.name, arguments)
    if isinstance(content, (list, tuple)):
        return type(content)(_filled(v, replay, bare) for v in content)
    return content


def _compare(ours: Any, program: ForeignProgram) -> None:
    """Raise unless both have one log density, gradient included, at a few points."""
    if tuple(ours.latents) != tuple(program.latents):
        raise UnsupportedError(
            f"its sites {list(program.latents)} were read as {list(ours.latents)}"
        )
    x = _points(program.density)
    both = [_values(target, x) for target in (ours, program.density)]
    if not np.isfinite(both[0][0]).any():
        raise UnsupportedError("its log density is not finite anywhere it was tried")
    for a, b in zip(*both, strict=True):
        if not np.allclose(a, b, rtol=1e-6, atol=1e-6, equal_nan=True):
            worst = float(np.nanmax(np.abs(a - b)))
            raise UnsupportedError(f"as a diagram its log density differs by up to {worst:.2g}")


def _points(density: Any) -> np.ndarray:
    return 0.5 * np.random.default_rng(1).standard_normal((POINTS, density.dim))


def _values(target: Any, x: Any) -> tuple[np.ndarray, np.ndarray]:
    """(log density, gradient) at each row of ``x``.

    A target in a program: one that calls the host is compiled anew by every process, others are
    kept on disk.
    """
    import jax

    from ppcore import precision
    from ppcore.run import cache
    from ppcore.target import value_and_gradient

    cache.enable()
    with precision.scope("float64"):
        value, gradient = jax.jit(value_and_gradient)(target, x)
        return np.asarray(value), np.asarray(gradient)


def _as_density(program: ForeignProgram, why: str) -> ForeignModel:
    import jax

    from ppcore import precision

    density, name = program.density, program.name
    x = _points(density)
    values, gradient = _values(density, x)
    if not np.isfinite(values).any():
        raise ModelError(
            f"{name} has log density {float(values[0])} wherever it was tried. Check that the "
            "data lie in the support of their distributions and hold no NaN."
        )
    if not np.isfinite(gradient[np.isfinite(values)]).all():
        raise ModelError(
            f"The gradient of {name} is not finite where its log density is. Look for square "
            "roots, logarithms or powers of numbers that may be 0."
        )
    with precision.scope("float64"):
        shown = jax.eval_shape(density.constrain, x[0])
    named = (*program.latents, *program.deterministics)
    spaces = {n: natural_space(shown[n].shape, shown[n].dtype.name) for n in named}
    notes = (f"Kept as a density, without a diagram, because {why}",) if why else ()
    return ForeignModel(
        name,
        density,
        spaces,
        program.latents,
        program.deterministics,
        tuple(program.observed),
        notes,
        dict(program.observed),
        dict(program.dims),
    )


@dataclass(frozen=True, eq=False)
class ForeignModel:
    """A density with named sites, from a program that only its own library can read.

    It can be sampled by every engine whose needs its target meets; it has no diagram, so it cannot
    be rewritten, solved exactly, intervened on or simulated.

    Attributes
    ----------
    name : str
    density : Target
        In double precision.
    spaces : mapping of str to Space
        Latent and computed sites.
    latents, deterministics, observed : tuple of str
    notes : tuple of str
        Why it is not a diagram.
    evidence : mapping of str to array
        Observed values, kept with the fit.
    dims : mapping of str to tuple of str
        Names of the sites' axes.
    """

    name: str
    density: Any
    spaces: Mapping[str, Space]
    latents: tuple[str, ...]
    deterministics: tuple[str, ...] = ()
    observed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    evidence: Mapping[str, np.ndarray] = field(default_factory=dict)
    dims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def capabilities(self) -> frozenset[str]:
        """What engines may ask of it: "gradient" and, with a proper prior, "reference"."""
        return frozenset({"gradient"} | ({"reference"} if self.density.has_reference else set()))

    def target(self, precision: str = "float64") -> Any:
        """The unnormalised density on R^d, its data in ``precision``."""
        import jax

        def cast(leaf: Any) -> Any:
            array = np.asarray(leaf)
            return array.astype(precision) if array.dtype.kind == "f" else array

        return jax.tree.map(cast, self.density)

    def infer(self, engine: Any = "ensemble", **settings: Any) -> Fit:
        """Draw from the posterior; see :func:`ppcore.fit.infer`."""
        from ppcore.fit import infer

        return infer(self, engine, **settings)

    def __repr__(self) -> str:
        given = f" | {', '.join(self.observed)}" if self.observed else ""
        return f"<density {self.name}: {', '.join(self.latents)}{given}>"
