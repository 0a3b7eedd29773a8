"""``fit.expect``: expectations of a fit, with their Monte Carlo error, by the method that pays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcore import precision as precisions
from ppcore.errors import PPCoreError, SettingsError, UnsupportedError, did_you_mean
from ppcore.estimators import Estimate
from ppcore.estimators.control_variates import control_variates
from ppcore.estimators.plain import plain_mean
from ppcore.estimators.rao_blackwell import rao_blackwell
from ppcore.estimators.weighted import weighted_mean

if TYPE_CHECKING:
    from ppcore.fit.fit import Fit

METHODS = ("auto", "mean", "control_variates", "rao_blackwell", "psis", "weights")
BATCH = 1024

Integrand = str | Callable[[Mapping[str, Any]], Any]


def expect(
    fit: Fit,
    f: Integrand,
    method: str,
    order: int | None,
    model: Any,
    recover: Callable[[np.ndarray], Callable[[], Mapping[str, np.ndarray]]] | None,
) -> Estimate:
    """E[f] under the posterior; see :meth:`ppcore.fit.Fit.expect`.

    ``recover`` computes the sites at rows of coordinates, float[chains, draws, d].
    """
    if method not in METHODS:
        raise SettingsError(f"method={method!r} is not known. {did_you_mean(str(method), METHODS)}")
    if order is not None and method != "control_variates":
        raise SettingsError("order= belongs to method='control_variates'.")
    if method == "auto":
        method = _choice(fit, model, recover)
        if method == "control_variates":
            return _better(fit, f, model)
    if method in ("psis", "weights"):
        return _weighted(fit, f, method, recover)
    if method == "rao_blackwell":
        return _conditional(fit, f, model)
    values, shape = evaluated(f, {s: fit.draws(s) for s in fit.sites})
    if method == "mean":
        return _shaped(plain_mean(values), shape)
    x, gradient = _gradients(fit, model)
    return _shaped(control_variates(values, x, gradient, order), shape)


def _choice(fit: Fit, model: Any, recover: Any) -> str:
    if fit.population is not None and recover is not None:
        return "psis"
    return "mean" if model is None else "control_variates"


def _better(fit: Fit, f: Integrand, model: Any) -> Estimate:
    """Control variates if they lower every error, and else the plain mean."""
    values, shape = evaluated(f, {s: fit.draws(s) for s in fit.sites})
    plain = plain_mean(values)
    try:
        x, gradient = _gradients(fit, model)
        found = control_variates(values, x, gradient)
    except PPCoreError:
        return _shaped(plain, shape)
    if np.all(found.mcse <= plain.mcse):
        return _shaped(found, shape)
    return _shaped(plain, shape)


def evaluated(f: Integrand, sites: Mapping[str, np.ndarray]) -> tuple[np.ndarray, tuple[int, ...]]:
    """``(values float[chains, draws, m], shape of one value)`` of f at {site: [chains, draws, …]}.

    Raises :class:`ppcore.errors.SettingsError` for a site that was not drawn, for an f that is
    neither a name nor callable, and for values that are not finite numbers.
    """
    if isinstance(f, str):
        if f not in sites:
            raise SettingsError(f"{f!r} is no site that was drawn. {did_you_mean(f, sites)}")
        values = np.asarray(sites[f], float)
        lead = values.shape[:2]
    elif callable(f):
        lead = next(iter(sites.values())).shape[:2]
        flat = {s: np.asarray(v).reshape(-1, *v.shape[2:]) for s, v in sites.items()}
        values = _apply(f, flat)
        values = values.reshape(*lead, *values.shape[1:])
    else:
        raise SettingsError(
            f"f={f!r} must be the name of a site, or a function of one draw: "
            "lambda s: s['a'] * s['b']."
        )
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).reshape(-1, *values.shape[2:]).any(0).sum())
        raise SettingsError(
            f"f is not finite at every draw ({max(bad, 1)} components): its expectation does not "
            "exist, or it overflows. Take its logarithm, or bound it."
        )
    shape = values.shape[2:]
    return values.reshape(*lead, -1), shape


def _apply(f: Callable[[Mapping[str, Any]], Any], flat: Mapping[str, np.ndarray]) -> np.ndarray:
    """f at every draw: mapped by JAX, or one after the other where f is plain NumPy."""
    import jax

    try:
        with precisions.scope("float64"):
            mapped = jax.vmap(lambda s: jax.numpy.asarray(f(_Sites(s))))
            return np.asarray(mapped(dict(flat)), float)
    except (jax.errors.JAXTypeError, TypeError, AttributeError):
        n = len(next(iter(flat.values())))
        rows = [f(_Sites({s: v[i] for s, v in flat.items()})) for i in range(n)]
        return np.asarray(rows, float)


class _Sites(dict[str, Any]):
    """Values by site; a misspelt name is an error that suggests the right one."""

    def __missing__(self, name: str) -> Any:
        raise SettingsError(f"No site {name!r} was drawn. {did_you_mean(str(name), self)}")


def _conditional(fit: Fit, f: Integrand, model: Any) -> Estimate:
    if not isinstance(f, str):
        raise SettingsError(
            "method='rao_blackwell' takes the name of a site, whose conditional mean it averages. "
            "Use method='control_variates' for other functions."
        )
    if model is None or not hasattr(model, "diagram"):
        raise UnsupportedError(
            "method='rao_blackwell' reads the conditional off the model's diagram, and this fit "
            "has no model. Pass model=, or use method='mean'."
        )
    fit.draws(f)
    return rao_blackwell(model, f, {s: fit.draws(s) for s in fit.attrs["latents"]})


def _weighted(fit: Fit, f: Integrand, method: str, recover: Any) -> Estimate:
    population = fit.population
    if population is None:
        raise UnsupportedError(
            f"method={method!r} is for weighted populations, and the draws of engine "
            f"{fit.attrs['engine']!r} are equally weighted. Use method='mean'."
        )
    if recover is None or fit.result is None:
        raise UnsupportedError(
            f"method={method!r} computes the sites of all particles, which a fit that was loaded "
            "cannot. Use method='mean', of the draws resampled from them."
        )
    chains, draws, dim = fit.result.x.shape
    sites = dict(recover(np.asarray(population.x).reshape(chains, draws, dim))())
    values, shape = evaluated(f, sites)
    flat = values.reshape(-1, values.shape[2])
    return _shaped(weighted_mean(flat, population.log_weight, method == "psis"), shape)


def _gradients(fit: Fit, model: Any) -> tuple[np.ndarray, np.ndarray]:
    """``(x, ∇ log γ(x))`` of all draws: float[chains, draws, d] each."""
    if model is None:
        raise UnsupportedError(
            "Control variates evaluate the gradient of the density, and this fit has no model (it "
            "was loaded, or made from a plain density). Pass model=, or use method='mean'."
        )
    with precisions.scope("float64"):
        if callable(getattr(model, "target", None)):
            target = model.target()
            latents = {s: fit.draws(s) for s in fit.attrs["latents"]}
            lead = next(iter(latents.values())).shape[:2]
            flat = {s: v.reshape(-1, *v.shape[2:]) for s, v in latents.items()}
            x = np.asarray(_unconstrained()(target, flat))
        else:
            if fit.result is None:
                raise UnsupportedError("This fit holds no coordinates. Use method='mean'.")
            target, x = model, fit.result.x
            lead, x = x.shape[:2], x.reshape(-1, x.shape[2]).astype(float)
        if target.dim == 0:
            raise UnsupportedError(
                "The model has no continuous site, so there is no gradient to make control "
                "variates of. Use method='mean'."
            )
        gradient = np.asarray(_slopes()(target, x))
    if not np.isfinite(gradient).all():
        raise UnsupportedError(
            "The gradient of the log density is not finite at every draw, so Stein's control "
            "variates do not exist. Use method='mean'."
        )
    return x.reshape(*lead, -1), gradient.reshape(*lead, -1)


@cache
def _unconstrained() -> Any:
    import jax

    return jax.jit(lambda target, rows: jax.vmap(target.unconstrain)(rows))


@cache
def _slopes() -> Any:
    import jax

    def slopes(target: Any, rows: Any) -> Any:
        return jax.lax.map(jax.grad(target.log_density), rows, batch_size=BATCH)

    return jax.jit(slopes)


def _shaped(found: Estimate, shape: tuple[int, ...]) -> Estimate:
    """One number for each component, in the integrand's shape."""
    value, mcse, ratio = (
        np.reshape(part, shape) for part in (found.value, found.mcse, found.variance_reduction)
    )
    return Estimate(value, mcse, found.method, ratio, found.about)
