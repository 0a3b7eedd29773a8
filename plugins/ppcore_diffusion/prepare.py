"""Before training: coordinates, a reference, temperatures and steps that suit the target."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.engine import Progress, Report
from ppcore.errors import UnsupportedError
from ppcore.exact.protocol import generator
from ppcore.tuning import metric
from ppcore.tuning.modes import Modes, explore, reference_draws
from ppcore.tuning.noise import spawned
from ppcore.tuning.preconditioner import Dense, LowRank, Preconditioner, identity
from ppcore_diffusion.drawing import island
from ppcore_diffusion.fitting import best, fit
from ppcore_diffusion.frame import Frame, Mixture, standard
from ppcore_diffusion.network import create
from ppcore_diffusion.pilot import PARTICLES, PriorIn, Scouted, scout

SHARES = (0.05, 0.1, 0.2, 0.4, 0.7)
LEAST = -1e6
KEEP = 0.7
DEFENCE = 0.1
ROUNDS = 2


@dataclass(frozen=True)
class Ground:
    """Where a sampler starts: coordinates, reference, what a pilot saw on the way, and the cost."""

    frame: Frame
    reference: Mixture
    scouted: Scouted
    gradients: int
    notes: tuple[str, ...]


def require_smooth(target: Any, name: str) -> None:
    """Raise :class:`ppcore.errors.UnsupportedError` where ``target`` has no gradient to follow."""
    kept = tuple(getattr(target, "finite_sites", ()))
    if not getattr(target, "has_gradient", True):
        what = f" (finite sites {', '.join(map(repr, kept))} are kept)" if kept else ""
        raise UnsupportedError(
            f"{name} follows the gradient of the log density, and {type(target).__name__} has "
            f"none{what}. Sum the finite sites out, or use an engine that needs no gradient, such "
            "as 'random_walk' or 'amis'."
        )
    if int(target.dim) < 1:
        raise UnsupportedError(f"{name} needs at least one unknown; this target has dimension 0.")


def framed(target: Any, middle: np.ndarray, factor: Preconditioner) -> Frame:
    """``target`` in coordinates u, x = middle + F u."""
    dtype = jnp.result_type(float)
    if isinstance(factor, Dense):
        log_det = np.linalg.slogdet(np.asarray(factor.factor, float))[1]
    else:
        both = np.asarray(factor.scale, float), np.asarray(factor.stretch, float)
        log_det = sum(float(np.log(part).sum()) for part in both)
    factor = jax.tree.map(lambda a: jnp.asarray(a, dtype), factor)
    return Frame(target, jnp.asarray(middle, dtype), factor, jnp.asarray(log_det, dtype))


def ground(
    key: Any, target: Any, reference: str, kind: str, parts: int, rank: int, report: Report
) -> Ground:
    """Explore, walk two pilots, whiten by each one's population, walk again from the reference.

    The first pilot starts from the prior where there is one, unless climbs find a single mode whose
    Gaussian holds up; the last from the reference of the sampler itself, in its coordinates.

    Parameters
    ----------
    reference : str
        "auto", "prior" or "laplace": where the first pilot starts.
    kind, rank
        Of the preconditioner; see :mod:`ppcore.tuning.metric`.
    parts : int
        Of the reference mixture; 0 chooses.

    Raises :class:`ppcore.errors.StartError` if no start is usable,
    :class:`ppcore.errors.UnsupportedError` for reference="prior" without one, and
    :class:`ppcore.errors.PopulationError` if a pilot does not arrive.
    """
    dtype = jnp.result_type(float)
    k_explore, k_start, k_walk, k_fit, k_law, k_last = spawned(key, 6)
    rng = generator(k_fit)
    frame, source, start, found = _begin((k_explore, k_start), target, reference, kind, rank)

    def tell(done: float) -> None:
        report(Progress("pilot", round(100 * done), 100, unit="% of the way"))

    several, spent, note = len(found.means) > 1, found.gradients, found.notes
    # Going again from what was found loses modes; it pays where there is one, badly scaled.
    for k in spawned(k_walk, 1 if several else ROUNDS):
        k_scout, k_draw = spawned(k, 2)
        seen = scout(k_scout, source, frame, start, tell)
        spent += seen.gradients
        frame, u = (_covering if several else _whitened)(target, frame, seen, found)
        source = standard(u.shape[1], dtype) if several else _law(fit(rng, u, 1), dtype)
        start = _drawn(k_draw, source, PARTICLES)
    fitted = best(rng, u, seen.values, parts)
    law = source if several and len(fitted[0]) == 1 else _law(fitted, dtype)
    if len(law.logits) > 1:
        start = _drawn(k_law, law, PARTICLES)
    last = scout(k_last, law, frame, start, tell)
    count = len(law.logits)
    said = f"The reference has {count} part{'s' * (count > 1)}."
    return Ground(frame, law, last, spent + last.gradients, (*note, said))


def _whitened(target: Any, frame: Frame, seen: Scouted, found: Modes) -> tuple[Frame, np.ndarray]:
    """Coordinates that whiten what a pilot saw, by draws and gradients; its population in them."""
    dtype = jnp.result_type(float)
    middle = np.asarray(frame.place(jnp.asarray(seen.u.mean(0), dtype)), float)
    inner = metric.estimate(identity_of(frame.factor), seen.u, seen.scores, True)
    after = framed(target, middle, compose(frame.factor, inner))
    return after, _pulled(inner, seen.u - seen.u.mean(0))


def _covering(target: Any, frame: Frame, seen: Scouted, found: Modes) -> tuple[Frame, np.ndarray]:
    """As :func:`_whitened`, for several modes: moments of the pilot's points and of all modes.

    A population may have lost modes on its way, and gradients know only of one.
    """
    x = np.asarray(frame.place(jnp.asarray(seen.u, jnp.result_type(float))), float)
    means, covariances = zip((x.mean(0), np.atleast_2d(np.cov(x.T))), found.moments(), strict=True)
    off = means[0] - means[1]
    mean = 0.5 * (means[0] + means[1])
    covariance = 0.5 * (covariances[0] + covariances[1]) + 0.25 * np.outer(off, off)
    factor = metric.from_factor(identity_of(frame.factor), np.linalg.cholesky(covariance))
    return framed(target, mean, factor), _pulled(factor, x - mean)


def _begin(
    keys: tuple[Any, Any], target: Any, reference: str, kind: str, rank: int
) -> tuple[Frame, Any, Any, Modes]:
    """The first pilot's frame, source, draws, the cost, notes, whether there are several modes."""
    k_explore, k_start = keys
    dtype, dim = jnp.result_type(float), int(target.dim)
    if reference == "prior" and not target.has_reference:
        raise UnsupportedError(
            "reference='prior' needs a proper prior, and this target has none. Leave "
            "reference='auto', or use 'laplace'."
        )
    base = identity(metric.choose(kind, dim), dim, rank, np.dtype(dtype))
    found = explore(k_explore, target)
    single = found.modes and len(found.means) == 1
    if reference == "prior" or (reference == "auto" and target.has_reference and not single):
        draws = np.asarray(reference_draws(k_start, target, PARTICLES), float)
        low, middle, high = np.quantile(draws, [0.16, 0.5, 0.84], axis=0)
        scale = np.maximum(0.5 * (high - low), 1e-6)
        flat = (
            Dense(np.diag(scale))
            if isinstance(base, Dense)
            else LowRank(scale, np.zeros((dim, base.basis.shape[1])), np.ones(base.basis.shape[1]))
        )
        frame = framed(target, middle, flat)
        start = jnp.asarray((draws - middle) / scale, dtype)
        return frame, PriorIn(frame), start, found
    mean, covariance = found.moments()
    flat = metric.from_factor(base, np.linalg.cholesky(covariance))
    law = standard(dim, dtype)
    start = _drawn(k_start, law, PARTICLES)
    return framed(target, mean, flat), law, start, found


@partial(jax.jit, static_argnames="n")
def _drawn(key: Any, law: Mixture, n: int) -> Any:
    """``n`` draws of a reference."""
    return law.draw(key, n)[0]


def identity_of(factor: Preconditioner) -> Preconditioner:
    """F = I of the shape of ``factor``."""
    if isinstance(factor, Dense):
        return Dense(np.eye(len(factor.factor)))
    return LowRank(
        np.ones(factor.scale.shape), np.zeros(factor.basis.shape), np.ones(factor.stretch.shape)
    )


def compose(outer: Preconditioner, inner: Preconditioner) -> Preconditioner:
    """A preconditioner of their shape for F_outer F_inner."""
    if isinstance(outer, Dense) and isinstance(inner, Dense):
        return Dense(np.asarray(outer.factor, float) @ np.asarray(inner.factor, float))
    eye = np.eye(outer.scale.shape[0])  # type: ignore[union-attr]
    root = np.asarray(outer.push(np.asarray(inner.push(eye))))
    return metric.from_factor(inner, np.asarray(root.T, float))


def _pulled(factor: Preconditioner, u: np.ndarray) -> np.ndarray:
    """F⁻¹ u for each row of ``u``: float[N, d]."""
    if isinstance(factor, Dense):
        return np.asarray(np.linalg.solve(np.asarray(factor.factor, float), u.T).T)
    eye = np.eye(u.shape[1])
    return np.asarray(np.linalg.solve(np.asarray(factor.push(eye), float).T, u.T).T)


def _law(fitted: tuple[np.ndarray, ...], dtype: Any) -> Mixture:
    """A mixture; one of several parts gets one more, N(0, I), for what its population missed."""
    logits, means, sds = fitted
    scales = np.log(sds)
    if len(means) > 1:
        dim = means.shape[1]
        logits = np.append(logits + np.log1p(-DEFENCE), np.log(DEFENCE))
        means = np.concatenate([means, np.zeros((1, dim))])
        scales = np.concatenate([scales, np.zeros((1, dim))])
    return Mixture(*(jnp.asarray(part, dtype) for part in (logits, means, scales)))


def tables(kind: Any, scouted: Scouted, steps: int, share: float) -> dict[str, np.ndarray]:
    """Temperatures, scales, shares and widths of all steps, before training."""
    dim = scouted.u.shape[1]
    if kind.noising:
        left = (1.0 - share) ** (2.0 * np.arange(steps, -1, -1))
        betas, scales = (left - left[0]) / (1.0 - left[0]), np.ones((steps, dim))
    else:
        betas, scales = scouted.knots(steps)
    gaps = np.maximum(np.diff(betas), 1e-12)
    zeros = np.zeros((steps, dim))
    return {
        "schedule": np.log(gaps / gaps.sum()),
        "log_scale": np.log(scales),
        "share": np.full(steps, np.log(share / (1.0 - share))),
        "keep": np.full(steps, np.log(KEEP / (1.0 - KEEP))),
        "width_ahead": zeros,
        "width_back": zeros,
    }


def begun(
    key: Any, kind: Any, on: Ground, steps: int, width: int, paths: int
) -> tuple[dict[str, Any], int]:
    """Weights before training, at the best of a few step sizes; and gradients spent.

    The best share τ has the largest mean log weight of ``paths`` paths, which are walked by the
    program that draws in the end.
    """
    dtype, dim = on.frame.middle.dtype, on.frame.dim
    k_try, *k_nets = spawned(key, 1 + len(kind.controls))
    nets = {
        name: create(k, dim, steps, width, dtype)
        for name, k in zip(kind.controls, k_nets, strict=True)
    }
    weights: dict[str, Any] = {"reference": on.reference, "level": jnp.zeros((), dtype), **nets}
    tried, levels = [], []
    for share in SHARES:
        made = tables(kind, on.scouted, steps, share)
        now = {**weights, "tables": {n: jnp.asarray(v, dtype) for n, v in made.items()}}
        _, log_weight, log_z, _ = island(kind, 1, 0.0, k_try, now, on.frame, paths)
        level = np.asarray(log_weight) + float(log_z)
        tried.append(now)
        levels.append(float(np.mean(np.maximum(np.nan_to_num(level, nan=-np.inf), LEAST))))
    at = int(np.argmax(levels))
    chosen = {**tried[at], "level": jnp.asarray(levels[at] + np.log(paths), dtype)}
    return chosen, paths * (steps + 1) * len(SHARES)
