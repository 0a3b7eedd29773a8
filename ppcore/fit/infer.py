"""``infer``: from a model and an engine's name to a fit."""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppcore import precision as precisions
from ppcore import registry
from ppcore.errors import ModelError, SettingsError, did_you_mean
from ppcore.fit import direct, weighted
from ppcore.fit.fit import Fit
from ppcore.fit.record import record
from ppcore.fit.tree import SAMPLE_DIMS
from ppcore.fit.values import Constrain
from ppcore.report import SamplingWarning, assess
from ppcore.run import cache
from ppcore.run.checkpoint import chosen, read_manifest
from ppcore.run.loop import run
from ppcore.run.plan import check_seed, count

RUN_SETTINGS = ("draws", "chains", "seed", "progress", "checkpoint", "block_size", "precision")


def infer(
    model: Any,
    engine: Any = "ensemble",
    *,
    draws: int | None = None,
    chains: int | None = None,
    seed: int | None = None,
    progress: Any = None,
    checkpoint: str | os.PathLike[str] | None = None,
    block_size: int | None = None,
    precision: str = "float64",
    **settings: Any,
) -> Fit:
    """Draw from a model's posterior.

    Parameters
    ----------
    model : Model or Target
        A model with its evidence, or any density.
    engine : str or Engine
        A registered name (``ppcore engines`` lists them), or an engine.
    seed : int, optional
        The same seed gives the same draws. By default one is drawn; it is recorded in the fit.
    draws, chains, progress, checkpoint, block_size, precision
        See :func:`ppcore.run.run`. A population engine makes ``chains`` independent runs of
        ``draws`` particles each; see :func:`ppcore.fit.weighted.draw`.
    **settings
        Arguments of the engine's constructor, for an engine given by name.

    Raises
    ------
    SettingsError
        For a name or a setting that is unknown, with the nearest known one.
    StartError, EngineError, CheckpointError
        See :func:`ppcore.run.run`.

    Warns
    -----
    SamplingWarning
        Once for everything that the diagnostics find wrong.
    """
    made, name = _engine(engine, settings)
    folder = chosen(checkpoint)
    seed = _seed(seed, folder)
    cache.enable()
    with precisions.scope(precision):
        target = model.target(precision) if callable(getattr(model, "target", None)) else model
        if not hasattr(target, "log_density"):
            raise ModelError(
                f"{type(model).__name__} cannot be sampled: infer needs a model made by calling "
                "a function marked @pp.model, or a target with log_density."
            )
        _check_names(model)
        if direct.is_direct(made):
            direct.refuse(checkpoint=checkpoint, block_size=block_size)
            solution, result, values = direct.draw(made, target, draws, chains, seed)
            attrs = record(model, made, name, result, direct.HEALTHY, seed, precision)
            attrs |= {"log_evidence": float(solution.log_evidence), "log_evidence_error": 0.0}
            return Fit(attrs, model=model, result=result, values=lambda: values, solution=solution)
        if weighted.is_population(made):
            direct.refuse(checkpoint=checkpoint, block_size=block_size)
            return _weigh(made, name, model, target, draws, chains, seed, progress, precision)
        shape = (
            count("chains", made.default_chains if chains is None else chains),
            count("draws", made.default_draws if draws is None else draws),
            target.dim,
        )
    constrain = Constrain(target, precision, shape, seed)
    result = run(
        made,
        target,
        draws=draws,
        chains=chains,
        seed=seed,
        block_size=block_size,
        progress=progress,
        checkpoint=folder,
        precision=precision,
    )
    if not getattr(model, "evidence", True) and not model.diagram.named("factor"):
        warnings.warn(
            "Nothing is observed, so these are draws from the prior. Attach data first, "
            "model.observe(name=data); model.simulate(seed, n) draws from the prior at once.",
            SamplingWarning,
            stacklevel=_outside(),
        )
    health = assess(result.x, result.stats, _namer(target, getattr(model, "spaces", {})))
    attrs = record(model, made, name, result, health, seed, precision)
    if health.warnings:
        warnings.warn("\n".join(health.warnings), SamplingWarning, stacklevel=_outside())
    held = model if hasattr(model, "spaces") else None
    return Fit(attrs, model=held, result=result, values=lambda: constrain(result.x))


def _weigh(
    engine: Any,
    name: str | None,
    model: Any,
    target: Any,
    draws: int | None,
    chains: int | None,
    seed: int,
    progress: Any,
    precision: str,
) -> Fit:
    """The fit of a population engine."""
    if target.dim < 1:
        raise SettingsError(
            "The target has no unconstrained coordinate to sample: every site of the model is "
            "observed or discrete."
        )
    call = _namer(target, getattr(model, "spaces", {}))
    drawn = weighted.draw(engine, target, draws, chains, seed, progress, call)
    attrs = record(model, engine, name, drawn.result, drawn.health, seed, precision)
    attrs |= {"log_evidence": drawn.evidence.value, "weights": drawn.about}
    if drawn.evidence.error is not None:
        attrs["log_evidence_error"] = drawn.evidence.error
    if drawn.health.warnings:
        warnings.warn("\n".join(drawn.health.warnings), SamplingWarning, stacklevel=_outside())
    return Fit(
        attrs,
        model=model if hasattr(model, "spaces") else None,
        result=drawn.result,
        values=lambda: Constrain(target, precision, drawn.result.x.shape, seed)(drawn.result.x),
        population=drawn.population,
    )


def _engine(engine: Any, settings: Mapping[str, Any]) -> tuple[Any, str | None]:
    """The engine and the name it was asked for by."""
    if isinstance(engine, str):
        known = registry.setting_names(registry.resolve(engine))
        for key in settings:
            if key not in known:
                raise SettingsError(
                    f"Neither infer nor the engine {engine!r} has a setting {key!r}. "
                    f"{did_you_mean(key, [*known, *RUN_SETTINGS])}"
                )
        return registry.engine(engine, settings), engine
    walks = all(hasattr(engine, part) for part in ("contract", "warmup", "init", "block"))
    whole = direct.is_direct(engine) or weighted.is_population(engine)
    if isinstance(engine, type) or not (walks or whole):
        raise SettingsError(
            f"engine={engine!r} is neither a name nor an engine. Pass a name that `ppcore engines` "
            "lists, or an instance such as NUTS(target_accept=0.9)."
        )
    for key in settings:
        raise SettingsError(
            f"infer has no setting {key!r}. {did_you_mean(key, RUN_SETTINGS)} Settings of an "
            f"engine that is given as an object belong in {type(engine).__name__}(...)."
        )
    return engine, None


def _seed(seed: int | None, checkpoint: Path | None) -> int:
    """The seed that was asked for, or the saved run's, or a fresh one."""
    if seed is not None:
        return check_seed(seed)
    saved = read_manifest(checkpoint) if checkpoint is not None else None
    if saved is not None:
        return check_seed(saved.get("seed"))
    return secrets.randbits(32)


def _check_names(model: Any) -> None:
    for name in getattr(model, "spaces", {}):
        if name in SAMPLE_DIMS:
            raise ModelError(
                f"A site cannot be called {name!r}: that is the name of an axis of the draws. "
                "Rename the site."
            )


def _namer(target: Any, spaces: Mapping[str, Any]) -> Callable[[int], str]:
    """What to call an unconstrained coordinate: ``theta[3]`` where the site keeps its shape."""
    slices = getattr(target, "site_slices", {})

    def name(coordinate: int) -> str:
        for site, where in slices.items():
            if where.start <= coordinate < where.stop:
                shape = tuple(spaces[site].shape) if site in spaces else ()
                inner, size = coordinate - where.start, where.stop - where.start
                if int(np.prod(shape)) != size:
                    return f"{site} (unconstrained coordinate {inner})"
                if not shape:
                    return str(site)
                index = ", ".join(str(int(i)) for i in np.unravel_index(inner, shape))
                return f"{site}[{index}]"
        return f"x[{coordinate}]"

    return name


def _outside() -> int:
    """How many frames up the caller of ppcore is, so that a warning shows the user's own line."""
    import sys

    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("ppcore."):
        level, frame = level + 1, frame.f_back
    return level
