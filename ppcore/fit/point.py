"""Point estimates: maximum likelihood and maximum a posteriori, with standard errors.

The maximum is sought over unconstrained coordinates x, of

    MLE: log p(evidence | θ(x)),        MAP: log p(θ(x)) + log p(evidence | θ(x)),

so the MAP is the mode of the density of θ itself, without the Jacobian of θ(x). Standard errors are
those of the observed information −∇²log f at the maximum, carried to θ by the delta method.

Source: van der Vaart, "Asymptotic Statistics" (1998), chapters 3 and 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcore import precision
from ppcore.errors import PPCoreError, SettingsError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

DECREMENT = 1e-18
"""Half the squared length of a Newton step, in standard errors, below which it has converged."""
POLISH = 50
SINGULAR = 1e-10


class EstimationError(PPCoreError):
    """There is no maximum, or it is not unique."""


@dataclass(frozen=True, eq=False)
class PointEstimate:
    """Where a likelihood or posterior density is largest.

    Attributes
    ----------
    kind : "mle" or "map"
    estimates, std_errors : dict of str to array
        By site, continuous latent and computed ones, in their own units.
    log_density : float
        log of what was maximised, at the maximum.
    covariance : float[m, m]
        Of all elements of the latent sites, in the order of ``names``.
    names : tuple of str
        Elements of the latent sites.
    iterations : int
        Evaluations of the gradient, Newton steps included.
    newton_decrement : float
        Half the squared length of the last Newton step, in standard errors.
    start : dict of str to array
        Where the search began.
    """

    kind: str
    estimates: dict[str, np.ndarray]
    std_errors: dict[str, np.ndarray]
    log_density: float
    covariance: np.ndarray
    names: tuple[str, ...]
    iterations: int
    newton_decrement: float
    start: dict[str, np.ndarray] = field(repr=False)

    def summary(self, prob: float = 0.89) -> pd.DataFrame:
        """Estimate, standard error and Wald interval (estimate ± z · se) of every element."""
        import pandas as pd
        from scipy.stats import norm

        rows = {}
        z = float(norm.ppf(0.5 + prob / 2))
        for site, value in self.estimates.items():
            for name, m, se in zip(
                _elements(site, value.shape),
                value.ravel(),
                self.std_errors[site].ravel(),
                strict=True,
            ):
                rows[name] = (m, se, m - z * se, m + z * se)
        low, high = f"wald{round(prob * 100)}_lb", f"wald{round(prob * 100)}_ub"
        return pd.DataFrame.from_dict(rows, orient="index", columns=["estimate", "se", low, high])

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{n} = {float(v):.4g} ± {float(self.std_errors[n]):.2g}"
            if v.ndim == 0
            else f"{n}: {list(v.shape)}"
            for n, v in self.estimates.items()
        )
        return f"<{self.kind}: {shown}; log density {self.log_density:.6g}>"


def point_estimate(model: Any, kind: str, start: Mapping[str, Any] | None = None) -> PointEstimate:
    """Maximise a model's likelihood ("mle") or posterior density ("map").

    Discrete latent sites are summed out. For "mle" the priors of all sites are left out: every
    continuous latent site is a parameter.

    Parameters
    ----------
    model : Model
        With evidence.
    start : mapping, optional
        Values of some latent sites to start from; by default those of ``pp.param``, zero in
        unconstrained coordinates for others.

    Raises
    ------
    SettingsError
        Nothing is observed, nothing is to be estimated, or ``start`` has an unknown name.
    EstimationError
        The search does not converge, or the observed information is singular, naming the direction.
    """
    if not model.evidence:
        raise SettingsError("There is nothing to fit to: attach data with observe(name=values).")
    with precision.scope("float64"):
        target = model.target()
        if target.dim == 0:
            raise SettingsError("The model has no continuous unobserved site to estimate.")
        x0 = _start(target, start or {})
        x, value, hessian, decrement, iterations = _maximise(target, kind, x0)
        return _report(target, kind, x, x0, value, hessian, decrement, iterations)


def _start(target: Any, given: Mapping[str, Any]) -> np.ndarray:
    from ppcore.recording.param import starts

    for name in given:
        if name not in target.latents:
            raise SettingsError(f"start: no site {name!r}. {did_you_mean(name, target.latents)}")
    zero = np.zeros(target.dim)
    known = {**starts(target.diagram, target.inputs), **given}
    if not known:
        return zero
    values = {n: np.asarray(v) for n, v in target.constrain(zero).items() if n in target.latents}
    values.update({n: np.asarray(v, float) for n, v in known.items()})
    x = np.array(target.unconstrain(values))
    for name, where in target.site_slices.items():
        if name not in known:
            x[where] = 0.0
    return x


def _objective(target: Any, x: Any, kind: str) -> Any:
    """−log f(θ(x))."""
    if kind == "mle":
        return -target.log_likelihood(x)
    return target.log_jacobian(x) - target.log_density(x)


def _programs(kind: str) -> tuple[Any, Any]:
    import jax

    f = partial(_objective, kind=kind)
    return (
        jax.jit(jax.value_and_grad(f, argnums=1)),
        jax.jit(jax.hessian(f, argnums=1)),
    )


def _maximise(
    target: Any, kind: str, x0: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray, float, int]:
    """L-BFGS to the neighbourhood of the maximum, then Newton steps until they vanish."""
    from scipy.optimize import minimize

    both, second = _programs(kind)
    count = 0

    def fun(x: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal count
        count += 1
        value, gradient = both(target, x)
        found = float(value), np.array(gradient, float)
        if not np.isfinite(found[0]) or not np.isfinite(found[1]).all():
            return np.inf, np.zeros(len(x))
        return found

    if not np.isfinite(fun(x0)[0]):
        raise EstimationError(
            "The log density is not finite where the search starts. Pass start={site: value}."
        )
    options = {"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-8, "maxcor": 20}
    x = minimize(fun, x0, jac=True, method="L-BFGS-B", options=options).x
    value, gradient = fun(x)
    decrement = np.inf
    for _ in range(POLISH):
        hessian = np.asarray(second(target, x))
        step = _newton(target, x, hessian, gradient)
        decrement = -0.5 * float(gradient @ step)
        if decrement <= DECREMENT * max(1.0, abs(value)):
            return x, value, hessian, decrement, count
        x, value, gradient, moved = _line(fun, x, value, gradient, step)
        if not moved:
            # The step is lost in the rounding of the log density.
            if decrement <= 1e-12 * max(1.0, abs(value)):
                return x, value, hessian, decrement, count
            break
    raise EstimationError(
        f"The search for the maximum did not converge: a Newton step is still "
        f"{np.sqrt(2 * decrement):.2g} standard errors long, longest in "
        f"{_names(target)[int(np.argmax(np.abs(step)))]}. The density may have no maximum; "
        "try start={site: value}, or a prior that bounds it."
    )


def _newton(target: Any, x: np.ndarray, hessian: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """−H⁻¹g, after checking that the information is positive definite.

    Raises :class:`EstimationError` naming the direction in which it is not.
    """
    if not np.isfinite(hessian).all():
        raise EstimationError("The second derivatives of the log density are not finite.")
    d = np.sqrt(np.abs(np.diagonal(hessian)))
    largest = d.max(initial=0.0)
    scale = np.where(d > 1e-12 * max(largest, 1e-300), d, 1.0)
    values, vectors = np.linalg.eigh(hessian / np.outer(scale, scale))
    flat = np.abs(x).max(initial=0.0) > 30 and (d <= 1e-5 * max(largest, 1.0)).any()
    if values[0] > SINGULAR and not flat:
        solved = vectors @ ((vectors.T @ (gradient / scale)) / values)
        return np.asarray(-solved / scale)
    direction = vectors[:, 0] / scale
    if flat:
        direction = np.where(d <= 1e-5 * max(largest, 1.0), x, 0.0)
    direction = direction / np.abs(direction).max()
    names = _names(target)
    order = np.argsort(-np.abs(direction), kind="stable")[:4]
    shown = " ".join(f"{direction[i]:+.2g}·{names[i]}" for i in order if abs(direction[i]) > 0.05)
    what = "is not at a maximum" if values[0] < -1e-6 else "does not change"
    raise EstimationError(
        f"The observed information is singular: along {shown} (unconstrained coordinates) the log "
        f"density {what}. The data do not identify this direction: drop or fix a parameter, add a "
        "prior and use fit_map(), or pass another start={site: value}."
    )


def _line(
    fun: Any, x: np.ndarray, value: float, gradient: np.ndarray, step: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray, bool]:
    """Halve the step until the objective falls, up to rounding."""
    slope = float(gradient @ step)
    rounding = 1e-13 * max(1.0, abs(value))
    for k in range(30):
        t = 0.5**k
        new, g = fun(x + t * step)
        if new <= value + 1e-4 * t * slope + rounding and np.isfinite(new):
            if new < value or np.abs(g).max() < np.abs(gradient).max():
                return x + t * step, new, g, True
    return x, value, gradient, False


def _names(target: Any) -> list[str]:
    """A name for each unconstrained coordinate."""
    out = [""] * target.dim
    for site, where in target.site_slices.items():
        n = where.stop - where.start
        for i in range(n):
            out[where.start + i] = site if n == 1 else f"{site}[{i}]"
    return out


def _elements(site: str, shape: tuple[int, ...]) -> list[str]:
    if not shape:
        return [site]
    return [f"{site}[{', '.join(map(str, i))}]" for i in np.ndindex(*shape)]


def _report(
    target: Any,
    kind: str,
    x: np.ndarray,
    x0: np.ndarray,
    value: float,
    hessian: np.ndarray,
    decrement: float,
    iterations: int,
) -> PointEstimate:
    import jax

    estimates, push = jax.linearize(target.constrain, x)
    d = np.sqrt(np.diagonal(hessian))
    root = np.linalg.cholesky(hessian / np.outer(d, d))
    # cov = H⁻¹ = A Aᵀ; the columns of J A give standard errors without forming J.
    half = np.linalg.inv(root).T / d[:, None]
    columns = jax.vmap(push)(half.T)
    real = {n: np.asarray(v) for n, v in estimates.items() if np.asarray(v).dtype.kind == "f"}
    errors = {n: np.sqrt((np.asarray(columns[n]) ** 2).sum(0)) for n in real}
    latents = [n for n in real if n in target.latents]
    stacked = np.concatenate([np.asarray(columns[n]).reshape(len(x), -1) for n in latents], axis=1)
    names = tuple(e for n in latents for e in _elements(n, real[n].shape))
    started = {n: np.asarray(v) for n, v in target.constrain(x0).items() if n in target.latents}
    return PointEstimate(
        kind,
        real,
        errors,
        -value,
        stacked.T @ stacked,
        names,
        iterations,
        decrement,
        started,
    )
