"""What a model says given draws: predictions, prior draws, likelihoods, cross-validation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcore.errors import SettingsError, UnsupportedError, did_you_mean
from ppcore.report import SamplingWarning
from ppcore.report.health import K_HAT
from ppcore.run import cache

if TYPE_CHECKING:
    import xarray as xr

    from ppcore.fit.fit import Fit

Values = dict[str, np.ndarray]


def predict(fit: Fit, model: Any, seed: int) -> Values:
    """All sites that were not drawn, given those that were: {site: array[chain, draw, ...]}.

    Raises :class:`~ppcore.errors.SettingsError` for a latent site whose shape in ``model`` is not
    that of its draws.
    """
    given = {site: fit.draws(site) for site in fit.attrs["latents"] if site in model.spaces}
    for site, value in given.items():
        shape = tuple(model.spaces[site].shape)
        if shape != value.shape[2:]:
            raise SettingsError(
                f"Site {site!r} was drawn with shape {value.shape[2:]}, but the model has it with "
                f"shape {shape}. Predict with a model whose latent sites keep their shapes; to "
                "go on beyond the data, give the future sites names of their own (a second pp.scan "
                "that starts from the first one's carry)."
            )
    return _folded(fit, model.simulate_given(seed, _flat(given)))


def log_likelihood(fit: Fit, model: Any) -> Values:
    """log p(y_i | θ) of each observed site: {site: array[chain, draw, ...]}."""
    if not fit.attrs["observed"]:
        raise UnsupportedError("The model observes nothing, so there is no likelihood.")
    latents = {site: fit.draws(site) for site in fit.attrs["latents"]}
    return _folded(fit, model.pointwise_log_likelihood(_flat(latents)))


def loo(data: xr.DataTree, site: str) -> Any:
    """ArviZ's PSIS-LOO of one observed site, with a warning that names bad observations."""
    import arviz_stats

    with warnings.catch_warnings():
        # ArviZ's own warning says neither which observations nor what to do.
        warnings.filterwarnings("ignore", message="Estimated shape parameter")
        found = arviz_stats.loo(data, var_name=site, pointwise=True)
    k = np.asarray(found.pareto_k)
    bad = int((k > K_HAT).sum())
    if bad:
        worst = np.argsort(-k, axis=None)[: min(bad, 3)]
        places = [tuple(int(i) for i in np.unravel_index(j, k.shape)) for j in worst]
        where = ", ".join(f"{site}[{', '.join(map(str, i))}] ({k[i]:.2f})" for i in places)
        warnings.warn(
            f"k-hat is above {K_HAT} for {bad} of {k.size} observations, worst: {where}. Their "
            "part of the elpd is unreliable. Refit without them, or use a likelihood with "
            "heavier tails.",
            SamplingWarning,
            stacklevel=3,
        )
    return found


def able(what: str, model: Any, method: str) -> Any:
    """``model``, if it can do what is asked.

    Raises :class:`~ppcore.errors.UnsupportedError` that says what to pass instead.
    """
    if hasattr(model, method):
        cache.enable()
        return model
    if model is not None:
        raise UnsupportedError(
            f"{what} needs a model; {type(model).__name__} cannot be simulated. Declare it with "
            "@pp.model."
        )
    remedy = "Call it on the fit that infer returned, before saving."
    if what == "predict":
        remedy = "Pass model=, the model with its data."
    raise UnsupportedError(
        f"This fit has no model (it was loaded, or made from a plain density), "
        f"and {what} needs one. {remedy}"
    )


def pick(name: str, values: Mapping[str, Any], what: str) -> str:
    """``name``, if it is among ``values``; raises with the nearest one."""
    if name not in values:
        raise SettingsError(f"{name!r} {what}. {did_you_mean(name, map(str, values))}")
    return name


def _flat(values: Mapping[str, np.ndarray]) -> Values:
    return {site: value.reshape(-1, *value.shape[2:]) for site, value in values.items()}


def _folded(fit: Fit, values: Mapping[str, Any]) -> Values:
    shape = (fit.attrs["chains"], fit.attrs["draws"])
    arrays = {site: np.asarray(value) for site, value in values.items()}
    return {site: array.reshape(*shape, *array.shape[1:]) for site, array in arrays.items()}


def labels(model: Any) -> tuple[str, ...]:
    """Unobserved sites of a model that its density does not keep: discrete, or hidden."""
    if not hasattr(model, "diagram"):
        return ()
    free = [b for b in model.diagram.boxes() if b.op == "sample" and b.name not in model.evidence]
    return tuple(b.name for b in free if b.cod[0].support.discrete or b.name not in model.spaces)
