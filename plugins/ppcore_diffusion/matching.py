"""Flow matching: a map between two laws, learned by regression from draws of both.

With z from the source, x from the target, paired by a coupling, and the interpolant

    I_t = a(t) z + b(t) x + c(t) ζ,   a(0) = b(1) = 1,  a(1) = b(0) = c(0) = c(1) = 0,  ζ ~ N(0, I),

the field that makes E|v(I_t, t) − İ_t|² least is v(x, t) = E[İ_t | I_t = x], and its flow carries
the law of I_0 to that of I_1. No gradient of a target is needed, and no simulation. What comes out
is a :class:`ppcore_diffusion.discrete_flow.DiscreteFlow`: an exact bijection with its exact
log-determinant, whatever the training has missed.

Source: Lipman et al. 2023, arXiv:2210.02747; Albergo, Boffi & Vanden-Eijnden 2023,
arXiv:2303.08797 (interpolants); Liu, Gong & Liu 2023, arXiv:2209.03003 (rectified flow).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.engine import Progress, Report
from ppcore.errors import SettingsError, did_you_mean
from ppcore.exact.protocol import generator
from ppcore.settings import check_between, check_count
from ppcore_diffusion.couplings import check_coupling, paired
from ppcore_diffusion.discrete_flow import (
    Affine,
    DiscreteFlow,
    Pushed,
    discrete_flow,
    identity,
    most_lipschitz,
)
from ppcore_diffusion.regression import Fitted, Schedule, regress
from ppcore_diffusion.samples import Samples, samples_of
from ppcore_diffusion.vector_field import VectorField, vector_field

INTERPOLANTS = ("linear", "trigonometric")


@dataclass(frozen=True)
class Matching:
    """What field to learn, from which paths, and how long.

    Parameters
    ----------
    interpolant : "linear" or "trigonometric"
        a = 1 − t, b = t; or a = cos ½πt, b = sin ½πt.
    coupling : "exact", "entropic" or "independent"
        Of each batch; see :mod:`ppcore_diffusion.couplings`.
    group : int
        Draws of a batch that look for partners among each other.
    noise : float
        c(t) = noise · sin²(πt).
    reflow : int
        Rounds of rectification after the first: pairs (z, T(z)) are learned anew, which makes the
        paths straighter.
    width : int
        Neurons of each hidden layer.
    grid : int
        Steps K of the map. The field is kept to a Lipschitz bound of 0.7 K, so more steps
        allow a steeper field.
    steps, batch, rate
        See :class:`ppcore_diffusion.regression.Schedule`.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range or unknown.
    """

    interpolant: str = "linear"
    coupling: str = "exact"
    group: int = 64
    noise: float = 0.0
    reflow: int = 0
    width: int = 64
    grid: int = 32
    steps: int = 1000
    batch: int = 256
    rate: float = 5e-3

    def __post_init__(self) -> None:
        if self.interpolant not in INTERPOLANTS:
            hint = did_you_mean(str(self.interpolant), INTERPOLANTS)
            raise SettingsError(f"interpolant={self.interpolant!r} is not known. {hint}")
        check_coupling(self.coupling)
        check_count("group", self.group, 2)
        check_between("noise", self.noise, -1e-12, 1e6)
        check_count("reflow", self.reflow, 0)
        check_count("width", self.width, 1)
        check_count("grid", self.grid, 1)
        _ = self.schedule

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.steps, self.batch, self.rate)


@dataclass(frozen=True)
class Matched:
    """A map that was learned.

    Attributes
    ----------
    map : DiscreteFlow
        From the source to the target.
    losses : float[steps]
    notes : tuple of str
        Whether training diverged, and where it was stopped.
    """

    map: DiscreteFlow
    losses: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def density(self) -> Pushed:
        """The law of T(u), u ~ N(0, I); the learned law if the source was the standard normal."""
        return Pushed(self.map)


def silent(_: Progress) -> None:
    """Takes reports."""


def flow_match(
    key: Any,
    target: Any,
    source: Any = None,
    plan: Matching | None = None,
    report: Report = silent,
) -> Matched:
    """Learn a bijection T that carries the law of ``source`` to that of ``target``.

    Runs in JAX's current precision; call it inside ``ppcore.precision.scope()`` for float64.

    Parameters
    ----------
    key : key
    target, source : Fit, Population, Samples or float[n, d]
        Draws; the source is N(0, I) by default.
    plan : Matching

    Raises
    ------
    ppcore.errors.SettingsError
        If draws are of different dimensions, not finite, or too few.

    >>> import jax
    >>> x = np.random.default_rng(1).normal(3.0, 0.5, (200, 2))
    >>> made = flow_match(jax.random.key(0), x, plan=Matching(steps=50, batch=32, width=8, grid=4))
    >>> made.map.forward(np.zeros(2, np.float32))[0].shape
    (2,)
    """
    plan = Matching() if plan is None else plan
    rng = generator(key)
    goal = samples_of(target, "the target's draws")
    start = None
    if source is not None:
        start = samples_of(source, "the source's draws", goal.dim)
    dtype = np.dtype(jnp.result_type(float))
    ends = _whitened(start, goal.dim, dtype), _whitened(goal, goal.dim, dtype)
    origin = None if start is None else _unit(start, ends[0])
    pairs = Pairs(plan, origin, _unit(goal, ends[1]), dtype)
    begin = vector_field(rng, goal.dim, plan.width, dtype)
    limit = most_lipschitz(plan.grid)

    def learned(field: VectorField, rows: Any) -> Fitted:
        return regress(rng, field, velocity_error, rows, plan.schedule, report, capped, limit)

    made = learned(begin, pairs)
    losses, notes = [made.losses], made.notes
    for _ in range(plan.reflow):
        straight = discrete_flow(made.model, plan.grid)
        made = learned(made.model, replace(pairs, through=straight))
        losses, notes = [*losses, made.losses], (*notes, *made.notes)
    flow = discrete_flow(made.model, plan.grid, *ends)
    return Matched(flow, np.concatenate(losses), notes)


def velocity_error(field: VectorField, row: tuple[Any, Any, Any]) -> Any:
    """Mean over the batch of |v(I_t, t) − İ_t|²; row: t[n], I_t[n, d], İ_t[n, d]."""
    t, at, velocity = row
    return jnp.mean(jnp.sum((jax.vmap(field)(at, t) - velocity) ** 2, axis=-1))


def capped(field: VectorField, limit: Any) -> VectorField:
    """``field`` with a Lipschitz bound of at most ``limit``."""
    return field.capped(limit)


@dataclass(frozen=True)
class Pairs:
    """Batches of (t, I_t, İ_t), drawn on the host; ``source`` None is N(0, I).

    With ``through``, partners are z and its image under that map.
    """

    plan: Matching
    source: Samples | None
    target: Samples
    dtype: Any
    through: DiscreteFlow | None = None

    def __call__(self, rng: np.random.Generator, count: int) -> Any:
        n, d = self.plan.batch, self.target.dim
        t = (rng.permuted(np.tile(np.arange(n), (count, 1)), axis=1) + rng.random((count, n))) / n
        z, x = self.ends(rng, count)
        at, velocity = interpolate(self.plan.interpolant, t[..., None], z, x)
        if self.plan.noise > 0:
            zeta = self.plan.noise * rng.standard_normal((count, n, d))
            angle = np.pi * t[..., None]
            at = at + np.sin(angle) ** 2 * zeta
            velocity = velocity + np.pi * np.sin(2 * angle) * zeta
        return tuple(np.asarray(part, self.dtype) for part in (t, at, velocity))

    def ends(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Partners: float[count, batch, d] each."""
        shape = (count, self.plan.batch, self.target.dim)
        flat = (count * self.plan.batch, self.target.dim)
        if self.source is None:
            z = rng.standard_normal(flat)
        else:
            z = self.source.drawn(rng, flat[0])
        if self.through is not None:
            x = np.asarray(_pushed(self.through, np.asarray(z, self.dtype)), float)
            return z.reshape(shape), x.reshape(shape)
        x = self.target.drawn(rng, flat[0]).reshape(shape)
        z = z.reshape(shape)
        how, group = self.plan.coupling, self.plan.group
        return z, np.stack([paired(rng, a, b, how, group) for a, b in zip(z, x, strict=True)])


def interpolate(how: str, t: Any, z: Any, x: Any) -> tuple[Any, Any]:
    """``(a(t) z + b(t) x, a′(t) z + b′(t) x)``; t broadcasts with z and x.

    >>> interpolate("linear", 0.25, 0.0, 4.0)
    (1.0, 4.0)
    """
    if how == "linear":
        return (1 - t) * z + t * x, x - z + 0.0 * t
    angle = 0.5 * np.pi * t
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * z + sin * x, 0.5 * np.pi * (cos * x - sin * z)


@jax.jit
def _pushed(flow: DiscreteFlow, z: Any) -> Any:
    return jax.vmap(lambda v: flow.forward(v)[0])(z)


def _whitened(samples: Samples | None, dim: int, dtype: Any) -> Affine:
    if samples is None:
        return identity(dim, dtype)
    shift, factor = samples.moments()
    return Affine(jnp.asarray(shift, dtype), jnp.asarray(factor, dtype))


def _unit(samples: Samples, axes: Affine) -> Samples:
    """The samples in the coordinates of ``axes``."""
    u = np.linalg.solve(np.asarray(axes.factor, float), (samples.x - np.asarray(axes.shift)).T).T
    return Samples(u, samples.weights)
