"""Gaussian sites with known noise, or noise proportional to one unknown standard deviation √v.

With rows w_i(t_i − x_iᵀβ) ~ N(0, v) for the n observations and for the priors of β (w = 1/scale),
[wX | wt] = Q [[R, z], [0, ρ]] gives β | v ~ N(μ, v R⁻¹R⁻ᵀ), μ = R⁻¹z, and

    p(data | v) = (2π)^(−n/2) Π w_i / |det R| · v^(−n/2) exp(−ρ²/2v):

known v is the normal–normal pair and regression; v ~ InverseGamma, or 1/v ~ Gamma, is the
normal–inverse-gamma pair, β being Student-t once v is integrated out.

Source: Gelman et al., "Bayesian Data Analysis" (2013), sections 3.3 and 14.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from ppcore.dist import Description
from ppcore.exact.conjugate.forms import SOLVER, Affine, Known, Monomial, Other, Site, Sites
from ppcore.exact.conjugate.pair import describe
from ppcore.exact.protocol import NotExact

Noise = tuple[str, int]  # a site and the element that scales; ("", 0) for known noise
KNOWN: Noise = ("", 0)
MATRICES = ("Wishart", "InverseWishart")
VARIANCES = ("InverseGamma", "Gamma", "Exponential", "Chi2")


class Unfit(Exception):
    """A Gaussian site is in no pair; ``args``: the box in the way, and why."""


@dataclass(frozen=True, eq=False)
class Rows:
    """w(t − Xβ), one row an element, its weights' logs and noise; ``observed``: how many count."""

    x: np.ndarray
    t: np.ndarray
    log_w: float
    noise: Noise
    observed: int


@dataclass(frozen=True, eq=False)
class Component:
    """Elements of β that share rows: β[at] | v ~ N(mean, v R⁻¹R⁻ᵀ), v the noise's variance."""

    at: np.ndarray
    mean: np.ndarray
    root: np.ndarray
    noise: Noise

    @property
    def factor(self) -> np.ndarray:
        """R⁻¹."""
        return np.asarray(solve_triangular(self.root, np.eye(len(self.mean))))


@dataclass(eq=False)
class GaussianPart:
    """All Gaussian sites given the evidence, and what they say of the noise.

    Attributes
    ----------
    components : list of Component
    half, rest : dict
        {noise: n/2} and {noise: ρ²/2}.
    log : float
        log of what depends on no unknown noise.
    free : dict
        {latent site: (box, why)} that are in no pair.
    """

    components: list[Component] = field(default_factory=list)
    half: dict[Noise, float] = field(default_factory=dict)
    rest: dict[Noise, float] = field(default_factory=dict)
    log: float = 0.0
    free: dict[str, tuple[str, str]] = field(default_factory=dict)

    def exponents(self, site: str, size: int) -> tuple[np.ndarray, np.ndarray, float]:
        """A, B of a variance or precision's elements (the constant is in ``log``)."""
        a, b = np.zeros(size), np.zeros(size)
        for (name, at), n in self.half.items():
            if name == site:
                a[at] += n
                b[at] += self.rest[name, at]
        return a, b, 0.0


def solve_rows(sites: Sites, others: Iterable[str]) -> GaussianPart:
    """Least squares over all Gaussian sites but ``others`` (those with an unknown matrix)."""
    out = GaussianPart()
    rows: dict[str, list[Rows]] = {}
    for site in (*sites.latent.values(), *sites.observed.values()):
        if site.family not in ("Normal", "MultivariateNormal") or site.name in others:
            continue
        try:
            rows[site.name] = _rows(site, sites)
        except Unfit as error:
            if site.value is not None:
                raise NotExact(SOLVER, *error.args) from None
            out.free[site.name] = error.args
    _spread(rows, sites, out)
    _solve([r for name, some in rows.items() if name not in out.free for r in some], out)
    return out


def _spread(rows: dict[str, list[Rows]], sites: Sites, out: GaussianPart) -> None:
    """What depends on a free site is free too; evidence must not be."""
    changed = True
    while changed:
        changed = False
        for culprit, reason in list(out.free.items()):
            start = sites.offsets[culprit]
            stop = start + sites.latent[culprit].space.size
            for name, some in rows.items():
                if name in out.free or not any(r.x[:, start:stop].any() for r in some):
                    continue
                if name in sites.observed:
                    raise NotExact(SOLVER, *reason)
                out.free[name] = reason
                changed = True


def _rows(site: Site, sites: Sites) -> list[Rows]:
    """A site's rows, whitened, those with the same noise together."""
    loc = site.arguments.get("loc", Known(np.zeros(())))
    if isinstance(loc, Other):
        raise Unfit(loc.box, f"{loc.why}, and the location of {site.name!r} depends on it.")
    if isinstance(loc, Monomial):
        raise Unfit(site.name, f"its location depends on {loc.site!r}, which is not Gaussian.")
    shape, p = site.space.shape, sites.dim
    offset = np.broadcast_to(loc.value if isinstance(loc, Known) else loc.offset, shape)
    x = np.zeros((p, *shape))
    if isinstance(loc, Affine):
        x = np.broadcast_to(_padded(loc.columns, len(shape)), x.shape)
    if site.value is None:
        own = np.zeros((p, site.space.size))
        start = sites.offsets[site.name]
        own[start : start + site.space.size] = np.eye(site.space.size)
        x, t = own.reshape(x.shape) - x, offset
    else:
        t = site.value - offset
    x = np.moveaxis(x, 0, -1)
    counts = site.weights > 0
    if site.family == "MultivariateNormal":
        return _dense(site, x, t, counts, sites)
    scale = site.arguments.get("scale", Known(np.ones(())))
    w, groups = _noise(site, scale, 0.5, sites)
    w, groups = np.broadcast_to(w, shape)[counts], np.broadcast_to(groups, shape)[counts]
    out = []
    for g in np.unique(groups):
        mine = groups == g
        some = w[mine]
        noise = (scale.site, int(g)) if isinstance(scale, Monomial) else KNOWN
        n = int(mine.sum()) if site.value is not None else 0
        out.append(
            Rows(
                x[counts][mine] * some[:, None],
                t[counts][mine] * some,
                float(np.log(some).sum()),
                noise,
                n,
            )
        )
    return out


def _padded(columns: np.ndarray, ndim: int) -> np.ndarray:
    return columns.reshape(columns.shape[0], *(1,) * (ndim + 1 - columns.ndim), *columns.shape[1:])


def _noise(site: Site, scale: Any, power: float, sites: Sites) -> tuple[np.ndarray, np.ndarray]:
    """1/scale without the unknown √v, and which element v is."""
    if isinstance(scale, Known):
        return 1 / scale.value.astype(float), np.zeros(scale.value.shape, int)
    if isinstance(scale, Monomial):
        family = sites.latent[scale.site].family
        wanted = power if family == "InverseGamma" else -power
        if family in VARIANCES and scale.power == wanted:
            return 1 / scale.coef, scale.index
        raise Unfit(
            scale.site,
            f"the scale of {site.name!r} is its power {scale.power:g}; conjugate is √v with "
            "v ~ InverseGamma, or 1/√t with t ~ Gamma.",
        )
    if isinstance(scale, Affine):
        raise Unfit(site.name, "its scale depends on Gaussian sites.")
    raise Unfit(scale.box, f"{scale.why}, and the scale of {site.name!r} depends on it.")


def _dense(
    site: Site, x: np.ndarray, t: np.ndarray, counts: np.ndarray, sites: Sites
) -> list[Rows]:
    """Rows of events with covariance v·C, C known."""
    powers = {"scale_tril": 0.5, "covariance_matrix": 1.0, "precision_matrix": -1.0}
    kind = next(k for k in powers if k in site.arguments)
    form = site.arguments[kind]
    n = site.space.shape[-1]
    noise = KNOWN
    if isinstance(form, Monomial):
        at = np.unique(form.index)
        family = sites.latent[form.site].family
        wanted = powers[kind] if family == "InverseGamma" else -powers[kind]
        if len(at) > 1 or form.power != wanted or family not in VARIANCES:
            raise Unfit(form.site, f"the {kind} of {site.name!r} is not it times a known matrix.")
        matrix, noise = form.coef, (form.site, int(at[0]))
    elif isinstance(form, Known):
        matrix = form.value.astype(float)
    else:
        raise Unfit(site.name, "its covariance depends on other random values.")
    matrix = np.broadcast_to(matrix, (*site.space.shape[:-1], n, n))
    out = []
    for where in np.argwhere(counts):
        m = matrix[tuple(where)]
        if kind == "precision_matrix":
            w = np.linalg.cholesky(m).T
        else:
            root = m if kind == "scale_tril" else np.linalg.cholesky(m)
            w = solve_triangular(root, np.eye(n), lower=True)
        log_w = float(np.log(np.abs(np.diagonal(w))).sum())
        observed = n if site.value is not None else 0
        out.append(Rows(w @ x[tuple(where)], w @ t[tuple(where)], log_w, noise, observed))
    return out


def _solve(rows: list[Rows], out: GaussianPart) -> None:
    """Solve each set of coordinates that rows tie together."""
    p = rows[0].x.shape[1] if rows else 0
    label = np.arange(p)  # which set a coordinate is in
    used = [r.x != 0 for r in rows]
    for u in used:
        for row in np.unique(u, axis=0):
            tied = np.unique(label[row])
            if len(tied) > 1:
                label[np.isin(label, tied)] = tied[0]
    parts: dict[int, list[tuple[Rows, np.ndarray]]] = {}
    for r, u in zip(rows, used, strict=True):
        out.log += r.log_w - 0.5 * r.observed * np.log(2 * np.pi)
        out.half[r.noise] = out.half.get(r.noise, 0.0) + 0.5 * r.observed
        lead = np.where(u.any(1), label[u.argmax(1)] if p else 0, -1)
        for which in np.unique(lead):
            parts.setdefault(int(which), []).append((r, lead == which))
    for which, some in parts.items():
        if which < 0:
            for r, mine in some:
                _add(out, r.noise, 0.5 * float(r.t[mine] @ r.t[mine]))
            continue
        noises = {r.noise for r, _ in some}
        if len(noises) > 1:
            name = next(n for n, _ in sorted(noises, reverse=True))
            raise NotExact(
                SOLVER,
                name,
                "Gaussian sites that depend on each other have noise of different unknown scales. "
                "Make all their scales proportional to the same one (Normal(0, s * np.sqrt(v)) "
                "for a coefficient).",
            )
        at = np.flatnonzero(label == which)
        x = np.concatenate([r.x[mine][:, at] for r, mine in some])
        t = np.concatenate([r.t[mine] for r, mine in some])
        full = np.asarray(np.linalg.qr(np.c_[x, t], mode="r"))
        k = len(at)
        root, z = full[:k, :k], full[:k, k]
        rho = float(full[k, k]) if len(full) > k else 0.0
        (noise,) = noises
        out.log -= float(np.log(np.abs(np.diagonal(root))).sum())
        _add(out, noise, 0.5 * rho**2)
        mean = np.asarray(solve_triangular(root, z))
        out.components.append(Component(at, mean, root, noise))


def _add(out: GaussianPart, noise: Noise, rest: float) -> None:
    if noise == KNOWN:
        out.log -= rest
    else:
        out.rest[noise] = out.rest.get(noise, 0.0) + rest


def marginal(form: Affine, part: GaussianPart, noise: Any) -> Description | None:
    """The law of an affine value, if it depends on one component or has independent elements.

    ``noise`` gives (a, b) of the variance v ~ InverseGamma(a, b) of a component, or None.
    """
    shape = form.offset.shape
    columns = form.columns.reshape(len(form.columns), -1)
    mean = form.offset.reshape(-1).astype(float).copy()
    cov = np.zeros((len(mean), len(mean)))
    df = np.full(len(mean), np.inf)
    touched = 0
    for c in part.components:
        x = columns[c.at]
        mine = x.any(0)
        if not mine.any():
            continue
        if np.isfinite(df[mine]).any() or (cov.any() and np.diagonal(cov)[mine].any()):
            return None
        touched += 1
        mean += x.T @ c.mean
        half = x.T @ c.factor
        a_b = noise(c.noise)
        scale = 1.0 if a_b is None else a_b[1] / a_b[0]
        cov += half @ half.T * scale
        if a_b is not None:
            df[mine] = 2 * a_b[0]
    joint = touched == 1 and len(shape) == 1 and shape[0] > 1
    if joint and np.linalg.matrix_rank(cov) == len(cov):
        if np.isinf(df).all():
            return describe("MultivariateNormal", loc=mean, covariance_matrix=cov)
        root = np.linalg.cholesky(cov)
        return describe("MultivariateStudentT", df=df[0], loc=mean, scale_tril=root)
    sd = np.sqrt(np.diagonal(cov)).reshape(shape)
    if np.isinf(df).all():
        return describe("Normal", loc=mean.reshape(shape), scale=sd)
    return describe("StudentT", df=df.reshape(shape), loc=mean.reshape(shape), scale=sd)
