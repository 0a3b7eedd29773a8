"""Wishart precisions and inverse-Wishart covariances of multivariate normal data.

For W ~ Wishart(ν, rate Ψ), y_i ~ N(m, (c_i W)⁻¹) in D dimensions and m ~ N(m₀, (kW)⁻¹), with
C = Σ c_i and ȳ = Σ c_i y_i / C,

    W | data ~ Wishart(ν + n, Ψ_n),  m | data ~ t(ν_n − D + 1, m_n, Ψ_n / (k_n (ν_n − D + 1))),
    Ψ_n = Ψ + Σ c_i (y_i − ȳ)(y_i − ȳ)ᵀ + kC/(k + C) (ȳ − m₀)(ȳ − m₀)ᵀ,  k_n = k + C,
    p(data) = π^(−nD/2) Γ_D(ν_n/2)/Γ_D(ν/2) |Ψ|^(ν/2)/|Ψ_n|^(ν_n/2) (k/k_n)^(D/2) Π c_i^(D/2);

with a known mean, m₀ in place of ȳ and no k. Σ = W⁻¹ ~ InverseWishart(ν, scale Ψ) is the same.

Source: Gelman et al., "Bayesian Data Analysis" (2013), section 3.6.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import multigammaln

from ppcore.dist import Description
from ppcore.exact.conjugate.forms import SOLVER, Affine, Known, Monomial, Site, Sites
from ppcore.exact.conjugate.gaussian import MATRICES
from ppcore.exact.conjugate.pair import describe
from ppcore.exact.protocol import NotExact


@dataclass(eq=False)
class Mean:
    """An event of a latent mean: k and m₀, then k_n and m_n."""

    site: str
    event: int
    matrix: int
    k: float
    m: np.ndarray
    y: list[np.ndarray] = field(default_factory=list)
    c: list[float] = field(default_factory=list)


@dataclass(eq=False)
class WishartPart:
    """A site of matrices given the evidence.

    Attributes
    ----------
    site : Site
    nu : float[matrices]
    psi : float[matrices, D, D]
        Rate of a Wishart, scale of an inverse Wishart.
    means : list of Mean
    log : float
        log p(evidence of these).
    """

    site: Site
    nu: np.ndarray
    psi: np.ndarray
    means: list[Mean]
    log: float = 0.0

    @property
    def d(self) -> int:
        """D."""
        return int(self.psi.shape[-1])

    def description(self) -> Description:
        """The matrices' marginal law."""
        shape = self.site.batch
        nu, psi = self.nu.reshape(shape), self.psi.reshape(*shape, self.d, self.d)
        name = "rate_matrix" if self.site.family == "Wishart" else "scale_matrix"
        return describe(self.site.family, concentration=nu, **{name: psi})

    def mean_description(self, name: str, shape: tuple[int, ...]) -> Description:
        """A latent mean's marginal law."""
        mine = sorted((m for m in self.means if m.site == name), key=lambda m: m.event)
        df = np.array([self.nu[m.matrix] - self.d + 1 for m in mine])
        tril = [
            np.linalg.cholesky(self.psi[m.matrix] / (m.k * f))
            for m, f in zip(mine, df, strict=True)
        ]
        batch = shape[:-1]
        return describe(
            "MultivariateStudentT",
            df=df.reshape(batch),
            loc=np.stack([m.m for m in mine]).reshape(shape),
            scale_tril=np.stack(tril).reshape(*shape, self.d),
        )

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """``n`` joint draws of the matrices and the means: {site: array[n, size]}."""
        d = self.d
        precision = np.zeros((n, len(self.nu), d, d))
        for g, (nu, psi) in enumerate(zip(self.nu, self.psi, strict=True)):
            # Bartlett: W = T A Aᵀ Tᵀ with T Tᵀ = Ψ⁻¹.
            root = solve_triangular(np.linalg.cholesky(psi), np.eye(d), lower=True).T
            a = np.tril(rng.standard_normal((n, d, d)), -1)
            a[:, np.arange(d), np.arange(d)] = np.sqrt(rng.chisquare(nu - np.arange(d), (n, d)))
            half = root @ a
            precision[:, g] = half @ half.swapaxes(-1, -2)
        matrix = precision if self.site.family == "Wishart" else np.linalg.inv(precision)
        out: dict[str, Any] = {self.site.name: matrix.reshape(n, -1)}
        for m in sorted(self.means, key=lambda m: m.event):
            root = np.linalg.cholesky(precision[:, m.matrix] * m.k)
            z = rng.standard_normal((n, d, 1))
            value = m.m + np.linalg.solve(root.swapaxes(-1, -2), z)[..., 0]
            out.setdefault(m.site, []).append(value)
        return {k: v if k == self.site.name else np.concatenate(v, -1) for k, v in out.items()}


def matrix_of(site: Site, sites: Sites) -> tuple[Monomial, bool] | None:
    """The form of a Gaussian site's matrix if that is a latent site of matrices, and whether it is
    a precision."""
    for name in ("precision_matrix", "covariance_matrix", "scale_tril"):
        form = site.arguments.get(name)
        if isinstance(form, Monomial) and sites.latent[form.site].family in MATRICES:
            precision = sites.latent[form.site].family == "Wishart"
            if name != ("precision_matrix" if precision else "covariance_matrix"):
                break
            return form, precision
    else:
        return None
    raise NotExact(
        SOLVER,
        form.site,
        f"it is the {name} of {site.name!r}; conjugate are a Wishart precision_matrix and an "
        "InverseWishart covariance_matrix.",
    )


def solve_matrices(sites: Sites) -> tuple[list[WishartPart], set[str]]:
    """Parts of all sites of matrices, and the Gaussian sites that they account for."""
    parts = {s.name: _prior(s) for s in sites.latent.values() if s.family in MATRICES}
    done: set[str] = set()
    for site in sites.latent.values():
        found = matrix_of(site, sites)
        if found is not None:
            _mean(site, *found, parts[found[0].site])
            done.add(site.name)
    for site in sites.observed.values():
        found = matrix_of(site, sites)
        if found is not None:
            _data(site, *found, parts[found[0].site], sites)
            done.add(site.name)
    for part in parts.values():
        for m in part.means:
            _settle(part, m)
        d = part.d
        for g in range(len(part.nu)):
            part.log += _log_normaliser(part.nu[g], part.psi[g], d)
    return list(parts.values()), done


def _prior(site: Site) -> WishartPart:
    nu = site.known("concentration")
    psi = site.known("scale_matrix")
    if psi is None and site.known("scale_tril") is not None:
        tril = np.asarray(site.known("scale_tril"))
        psi = tril @ tril.swapaxes(-1, -2)
    rate = site.known("rate_matrix")
    # A Wishart's rate Ψ is the inverse of its scale; an inverse Wishart's scale is Ψ itself.
    if psi is not None and site.family == "Wishart":
        psi = np.linalg.inv(psi)
    if psi is None and rate is not None:
        psi = rate if site.family == "Wishart" else np.linalg.inv(rate)
    if nu is None or psi is None:
        raise NotExact(SOLVER, site.name, "its parameters depend on other random values.")
    d = site.space.shape[-1]
    psi = np.broadcast_to(psi.astype(float), site.space.shape).reshape(-1, d, d)
    nu = np.broadcast_to(nu.astype(float), site.batch).ravel()
    log = -sum(_log_normaliser(a, b, d) for a, b in zip(nu, psi, strict=True))
    return WishartPart(site, nu.copy(), psi.copy(), [], log)


def _log_normaliser(nu: float, psi: np.ndarray, d: int) -> float:
    """log Γ_D(ν/2) − ν/2 log|Ψ|."""
    return float(multigammaln(nu / 2, d) - nu / 2 * np.linalg.slogdet(psi)[1])


def _events(site: Site, form: Monomial, precision: bool) -> list[tuple[int, float]]:
    """For each event of a site: which matrix, and c."""
    d = site.space.shape[-1]
    full = (*site.batch, d, d)
    index = np.broadcast_to(form.index, full).reshape(-1, d * d)
    coef = np.broadcast_to(form.coef, full).reshape(-1, d * d)
    whole = (index == index[:, :1] + np.arange(d * d)).all() and (index[:, 0] % (d * d) == 0).all()
    if not whole or (coef != coef[:, :1]).any() or form.power != 1.0:
        raise NotExact(SOLVER, site.name, f"its matrix is not {form.site!r} times a number.")
    c = coef[:, 0] if precision else 1 / coef[:, 0]
    return [(int(i) // (d * d), float(v)) for i, v in zip(index[:, 0], c, strict=True)]


def _mean(site: Site, form: Monomial, precision: bool, part: WishartPart) -> None:
    loc = site.known("loc", 0.0)
    if loc is None:
        raise NotExact(SOLVER, site.name, "its location depends on other random values.")
    rows = np.broadcast_to(loc, site.space.shape).reshape(-1, site.space.shape[-1])
    for event, (g, k) in enumerate(_events(site, form, precision)):
        part.means.append(Mean(site.name, event, g, k, rows[event].astype(float)))


def _data(site: Site, form: Monomial, precision: bool, part: WishartPart, sites: Sites) -> None:
    assert site.value is not None
    d = part.d
    y = site.value.reshape(-1, d)
    counts = (site.weights > 0).ravel()
    loc = site.arguments.get("loc", Known(np.zeros(())))
    for event, (g, c) in enumerate(_events(site, form, precision)):
        if not counts[event]:
            continue
        part.nu[g] += 1
        part.log += 0.5 * d * np.log(c) - 0.5 * d * np.log(np.pi)
        if isinstance(loc, Known):
            e = y[event] - np.broadcast_to(loc.value, site.space.shape).reshape(-1, d)[event]
            part.psi[g] += c * np.outer(e, e)
            continue
        mean = _mean_of(site, loc, event, part, sites)
        if mean.matrix != g:
            raise NotExact(SOLVER, mean.site, f"it and {site.name!r} have different matrices.")
        mean.y.append(y[event])
        mean.c.append(c)


def _mean_of(site: Site, loc: Any, event: int, part: WishartPart, sites: Sites) -> Mean:
    d = part.d
    if isinstance(loc, Affine):
        shape = (sites.dim, *site.space.shape)
        pad = (1,) * (len(shape) - loc.columns.ndim)
        columns = loc.columns.reshape(loc.columns.shape[0], *pad, *loc.columns.shape[1:])
        x = np.broadcast_to(columns, shape).reshape(sites.dim, -1, d)[:, event]
        zero = not np.broadcast_to(loc.offset, site.space.shape).reshape(-1, d)[event].any()
        for m in part.means:
            start = sites.offsets[m.site] + m.event * d
            rest = np.delete(x, np.s_[start : start + d], axis=0)
            if zero and not rest.any() and np.array_equal(x[start : start + d], np.eye(d)):
                return m
    raise NotExact(
        SOLVER,
        site.name,
        f"its location has to be known or a MultivariateNormal site whose matrix is "
        f"{part.site.name!r} times a number.",
    )


def _settle(part: WishartPart, m: Mean) -> None:
    """Add what the data of one mean say, the mean integrated out."""
    if not m.y:
        return
    y, c = np.stack(m.y), np.array(m.c)
    total = c.sum()
    centre = c @ y / total
    e = (y - centre) * np.sqrt(c)[:, None]
    gap = centre - m.m
    part.psi[m.matrix] += e.T @ e + m.k * total / (m.k + total) * np.outer(gap, gap)
    part.log += 0.5 * part.d * (np.log(m.k) - np.log(m.k + total))
    m.m = (m.k * m.m + total * centre) / (m.k + total)
    m.k += total
