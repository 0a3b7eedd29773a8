"""Where layered flows begin: an adaptive tempered run says which temperatures, scales and steps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.engine import Progress, Report
from ppcore.errors import PopulationError, SettingsError, did_you_mean
from ppcore.kernel import check_target
from ppcore.paths import Between, Tempering
from ppcore.population import require_alive
from ppcore.stages import AdaptiveAnneal, Prior
from ppcore.stages.adaptive import MOST_STEPS, Front
from ppcore.tuning.noise import spawned
from ppcore.tuning.preconditioner import identity
from ppcore_flows.differentiable import require_gradient
from ppcore_flows.linear import Row, diagonal, lower_triangular
from ppcore_flows.maps import KINDS, Architecture, create
from ppcore_flows.start import explore
from ppcore_flows.stochastic import Framed, stacked

MAPS = ("auto", "diagonal", "affine", *KINDS)
REFERENCES = ("auto", "prior", "modes")
DENSE_UP_TO = 128
SHARE = 0.5


@dataclass(frozen=True)
class Shape:
    """The maps of all layers: one architecture, its parameters stacked.

    Parameters
    ----------
    map : str
        "diagonal", "affine" (triangular), a kind of :class:`ppcore_flows.maps.Architecture`, or
        "auto": affine couplings, triangular in one dimension. All but the first two are followed by
        an affine map.
    layers : int
        K, temperatures.
    blocks, width : int
        Layers of one map, and the width of its networks.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is unknown or out of range.
    """

    map: str
    layers: int
    blocks: int
    width: int

    def __post_init__(self) -> None:
        if self.map not in MAPS:
            raise SettingsError(f"map={self.map!r} is not known. {did_you_mean(self.map, MAPS)}")

    def made(self, key: Any, dim: int) -> Any:
        """One map of R^dim near the identity."""
        dtype = jnp.result_type(float)
        affine = lower_triangular(dim, dtype) if dim <= DENSE_UP_TO else diagonal(dim, dtype)
        if self.map == "diagonal":
            return diagonal(dim, dtype)
        if self.map == "affine":
            return affine
        kind = self.map
        if kind == "auto":
            kind = "affine_coupling" if dim > 1 else "triangular"
        return Row((create(key, Architecture(kind, dim, self.blocks, self.width)), affine))

    def framed(self, key: Any, mean: Any, scale: Any) -> Framed:
        """K maps near the identity in the units of each layer; mean, scale: float[K, d]."""
        dtype = jnp.result_type(float)
        inner = stacked(self.made(key, np.shape(mean)[1]), self.layers)
        return Framed(inner, jnp.asarray(mean, dtype), jnp.asarray(scale, dtype))


@dataclass(frozen=True)
class Begun:
    """What a pilot run found, for K layers.

    Attributes
    ----------
    target : Target
        With the reference that was asked for.
    betas : float[K + 1]
    mean, scale : float[K, d]
        Of the particles at each temperature.
    preconditioner : Preconditioner
        Their spread, stacked.
    log_steps : float[K]
        Of the pilot's moves.
    costs : float[K]
        Evaluations of the target that one transition took, on average.
    gradients : int
    notes : tuple of str
    """

    target: Any
    betas: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    preconditioner: Any
    log_steps: np.ndarray
    costs: np.ndarray
    gradients: int
    notes: tuple[str, ...]


def unsought(dim: int, betas: np.ndarray, log_step: float) -> Begun:
    """What to begin with where no pilot runs and no target is known: unit scales, equal steps.

    ``betas``: float[K + 1], whose dtype is that of the steps.
    """
    layers = len(betas) - 1
    unit, one = np.ones((layers, dim)), identity("diagonal", dim, 0, betas.dtype)
    many = jax.tree.map(lambda v: np.broadcast_to(v, (layers, *np.shape(v))), one)
    steps = np.full(layers, log_step, betas.dtype)
    return Begun(None, betas, 0.0 * unit, unit, many, steps, np.ones(layers), 0, ())


@dataclass(frozen=True)
class Level:
    """One temperature of the pilot: inverse temperature, spread, log step, cost of a transition."""

    beta: float
    mean: np.ndarray
    scale: np.ndarray
    preconditioner: Any
    log_step: float
    cost: float


def check_reference(reference: Any) -> None:
    """Raise :class:`ppcore.errors.SettingsError` for a reference of an unknown kind."""
    if reference not in REFERENCES:
        hint = did_you_mean(str(reference), REFERENCES)
        raise SettingsError(f"reference={reference!r} is not known. {hint}")


def grounded(reference: str, key: Any, target: Any) -> tuple[Any, int, tuple[str, ...]]:
    """The target with the reference asked for, what that cost, and notes.

    "modes" is the mixture of Gaussians that climbs find; "auto" is the prior where it is proper.

    Raises :class:`ppcore.errors.UnsupportedError` where the prior is asked for and there is none.
    """
    if reference == "modes" or (reference == "auto" and not target.has_reference):
        found = explore(key, target)
        law = found.law(jnp.result_type(float))
        return Between(law, target), found.gradients, found.notes
    Prior().require(target)
    return target, require_gradient(key, target), ()


def begin(
    key: Any, target: Any, reference: str, kernel: Any, layers: int, n: int, report: Report
) -> Begun:
    """Temper ``n`` particles adaptively, and read off what ``layers`` temperatures need.

    The pilot's J temperatures each halve the effective sample size; b_k is the temperature at
    k·J/K of them, so that layers are as far apart as the pilot found them to be. Its particles are
    thrown away: what is run later with what was found here is unbiased.

    Raises
    ------
    ppcore.errors.PopulationError
        If the pilot dies or does not arrive.
    ppcore.errors.UnsupportedError
        If a reference is needed and there is none.
    """
    k_reference, k_begin, k_run = spawned(key, 3)
    check_target(kernel, target)
    ground, spent, notes = grounded(reference, k_reference, target)
    stage, path = AdaptiveAnneal(kernel, ess=SHARE), Tempering(ground)
    front = _start(stage, k_begin, path, n)
    levels: list[Level] = []
    while float(front.beta) < 1.0:
        before, (front, chosen) = front, _advance(stage, k_run, path, front)
        require_alive(front.population, "the pilot run", float(front.beta))
        levels.append(_level(before, front, chosen, n))
        done = round(100 * float(front.beta))
        report(Progress("pilot", done, 100, {"temperature": float(front.beta)}, "% of the way"))
        if len(levels) >= MOST_STEPS:
            raise PopulationError(
                f"After {MOST_STEPS} temperatures the pilot run is at inverse temperature "
                f"{float(front.beta):.3g}. Use more particles (pilot={n}) or reference='modes'.",
                front.population,
                "the pilot run",
                float(front.beta),
            )
    spent += int(front.gradients)
    note = f"{len(levels)} temperatures of a pilot run became {layers} layers."
    return _spaced(ground, levels, layers, spent, (*notes, note))


def _spaced(
    target: Any, levels: list[Level], layers: int, spent: int, notes: tuple[str, ...]
) -> Begun:
    at = np.arange(layers + 1) * len(levels) / layers
    known = np.array([0.0, *(level.beta for level in levels)])
    betas = np.interp(at, np.arange(len(known)), known)
    betas[-1] = 1.0
    near = np.clip(np.ceil(at[1:] - 1e-9).astype(int) - 1, 0, len(levels) - 1)
    own = [levels[i] for i in near]
    dtype = np.dtype(jnp.result_type(float))
    return Begun(
        target,
        betas.astype(dtype),
        np.stack([level.mean for level in own]),
        np.stack([level.scale for level in own]),
        jax.tree.map(lambda *v: jnp.stack(v), *(level.preconditioner for level in own)),
        np.array([level.log_step for level in own], dtype),
        np.array([level.cost for level in own]),
        spent,
        notes,
    )


def _level(before: Front, front: Front, chosen: Any, n: int) -> Level:
    x = np.asarray(front.population.x, float)
    scale = np.maximum(x.std(0), 1e-10 * (1.0 + np.abs(x.mean(0))))
    cost = (float(front.gradients) - float(before.gradients) - n) / (n * max(1, int(front.moves)))
    first = jax.tree.map(lambda v: v[0], chosen.about.preconditioner)
    return Level(float(front.beta), x.mean(0), scale, first, float(front.log_step), cost)


@partial(jax.jit, static_argnames=("stage", "n"))
def _start(stage: AdaptiveAnneal, key: Any, path: Any, n: int) -> Front:
    return stage.begin(path, Prior().draw(key, path.target, n))


@partial(jax.jit, static_argnames=("stage",))
def _advance(stage: AdaptiveAnneal, key: Any, path: Any, front: Front) -> tuple[Front, Any]:
    chosen = stage.choose(key, path.gauge, front)
    return stage.move_all(key, path, front, chosen, None), chosen
