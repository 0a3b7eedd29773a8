"""``infer``: from a model and an engine's name to a fit."""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppcore import precision as precisions
from ppcore import registry
from ppcore.errors import ModelError, SettingsError, did_you_mean
from ppcore.fit import direct, planned, weighted
from ppcore.fit.fit import Fit
from ppcore.fit.record import record
from ppcore.fit.tree import SAMPLE_DIMS
from ppcore.report import SamplingWarning, assess
from ppcore.run import cache
from ppcore.run.checkpoint import chosen, read_manifest
from ppcore.run.loop import run
from ppcore.run.plan import check_seed, count

RUN_SETTINGS = (
    "draws",
    "chains",
    "seed",
    "progress",
    "checkpoint",
    "block_size",
    "precision",
    "rewrites",
    "without",
)


def infer(
    model: Any,
    engine: Any = None,
    *,
    draws: int | None = None,
    chains: int | None = None,
    seed: int | None = None,
    progress: Any = None,
    checkpoint: str | os.PathLike[str] | None = None,
    block_size: int | None = None,
    precision: str = "float64",
    rewrites: bool | None = None,
    without: Sequence[str] = (),
    **settings: Any,
) -> Fit:
    """Draw from a model's posterior.

    Parameters
    ----------
    model : Model or Target
        A model with its evidence, or any density.
    engine : str or Engine, optional
        A registered name (``ppcore engines`` lists them), or an engine. Without one the planner
        decides (:mod:`ppcore.planner`); ``fit.plan`` says what and why.
    rewrites : bool, optional
        Whether the model is rewritten first (``ppcore rewrites``). The posterior is the same, and
        the draws are of the model's own sites; by default only the planner rewrites, and a named
        engine samples the model as it was written.
    without : sequence of str
        Rewrites to leave out, by name.
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
    made, name = (None, None) if engine is None else _engine(engine, settings)
    if made is None and settings:
        key = next(iter(settings))
        raise SettingsError(
            f"infer has no setting {key!r}. {did_you_mean(key, RUN_SETTINGS)} Settings of an "
            "engine need the engine: infer('NAME', ...)."
        )
    wanted = (made is None or bool(without)) if rewrites is None else bool(rewrites)
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
        prepared = planned.ready(model, target, wanted, without, precision)
        plan = None
        if made is None:
            # A run that is saved block by block, or in single precision, is one of chains.
            walk = folder is not None or block_size is not None or precision != "float64"
            call = _namer(prepared.target, getattr(model, "spaces", {}))
            found, plan, prepared = planned.attempt(
                model, prepared, draws, chains, seed, precision, walk, call, _outside
            )
            if found is not None:
                _warn_without_evidence(model)
                return found
            made, name = _engine(plan.choice, {})
        if direct.is_direct(made):
            direct.refuse(checkpoint=checkpoint, block_size=block_size)
            solution, result, values = direct.draw(made, target, draws, chains, seed)
            health = direct.health(solution)
            attrs = record(model, made, name, result, health, seed, precision)
            error = float(getattr(solution, "log_evidence_error", 0.0))
            attrs |= {"log_evidence": float(solution.log_evidence), "log_evidence_error": error}
            if health.warnings:
                warnings.warn("\n".join(health.warnings), SamplingWarning, stacklevel=_outside())
            return Fit(attrs, model=model, result=result, values=lambda: values, solution=solution)
        if weighted.is_population(made):
            direct.refuse(checkpoint=checkpoint, block_size=block_size)
            fit = _weigh(made, name, model, prepared, draws, chains, seed, progress, precision)
            fit.attrs |= planned.described(prepared, plan)
            return fit
        if hasattr(made, "target_for") and (kept := made.target_for(target)) is not target:
            # The engine moves finite sites itself, so the model stays as it was declared.
            prepared = planned.untouched(kept)
        rows = (
            count("chains", made.default_chains if chains is None else chains),
            count("draws", made.default_draws if draws is None else draws),
        )
        planned.require_coordinates(prepared)
        back = planned.recovery(prepared, precision, rows, seed)
    result = run(
        made,
        prepared.target,
        draws=draws,
        chains=chains,
        seed=seed,
        block_size=block_size,
        progress=progress,
        checkpoint=folder,
        precision=precision,
    )
    _warn_without_evidence(model)
    call = _namer(prepared.target, getattr(model, "spaces", {}))
    health = assess(result.x, result.stats, call)
    attrs = record(model, made, name, result, health, seed, precision)
    attrs |= planned.described(prepared, plan)
    if health.warnings:
        warnings.warn("\n".join(health.warnings), SamplingWarning, stacklevel=_outside())
    held = model if hasattr(model, "spaces") else None
    return Fit(attrs, model=held, result=result, values=back(result.x))


def _warn_without_evidence(model: Any) -> None:
    declared = getattr(model, "diagram", None)
    if declared is not None and not model.evidence and not declared.named("factor"):
        warnings.warn(
            "Nothing is observed, so these are draws from the prior. Attach data first, "
            "model.observe(name=data); model.simulate(seed, n) draws from the prior at once.",
            SamplingWarning,
            stacklevel=_outside(),
        )


def _weigh(
    engine: Any,
    name: str | None,
    model: Any,
    prepared: planned.Prepared,
    draws: int | None,
    chains: int | None,
    seed: int,
    progress: Any,
    precision: str,
) -> Fit:
    """The fit of a population engine."""
    target = prepared.target
    if target.dim < 1:
        raise SettingsError(
            "The target has no unconstrained coordinate to sample: every site of the model is "
            "observed or discrete."
        )
    call = _namer(target, getattr(model, "spaces", {}))
    drawn = weighted.draw(engine, target, draws, chains, seed, progress, call)
    attrs = record(model, engine, name, drawn.result, drawn.health, seed, precision)
    log_evidence = drawn.evidence.value + prepared.rewriting.log_constant
    attrs |= {"log_evidence": log_evidence, "weights": drawn.about}
    if drawn.evidence.error is not None:
        attrs["log_evidence_error"] = drawn.evidence.error
    if drawn.health.warnings:
        warnings.warn("\n".join(drawn.health.warnings), SamplingWarning, stacklevel=_outside())
    back = planned.recovery(prepared, precision, drawn.result.x.shape[:2], seed)
    return Fit(
        attrs,
        model=model if hasattr(model, "spaces") else None,
        result=drawn.result,
        values=back(drawn.result.x),
        population=drawn.population,
        recover=back,
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
        made = registry.engine(engine, settings)
        if hasattr(made, "learn"):
            raise SettingsError(
                f"{engine!r} learns from simulations, without data: "
                "model.amortise(observe=[...]).posterior(name=data)."
            )
        return made, engine
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
