"""The Gaussian solver: linear-Gaussian models, exactly, in square-root form.

Every site is an affine function of standard normal noise ε: float[q]. Evidence without noise of its
own restricts ε to an affine subspace, found row by row with reorthogonalised Gram–Schmidt; evidence
with noise, whitened, adds rows to a least-squares problem: with residuals r + Jε and noise D,

    [D⁻¹J; I] = QR,    ε | evidence ~ N(μ, R⁻¹R⁻ᵀ),
    log p = −½ρ² − Σ log|Rᵢᵢ| − log|D| − ½m log 2π,

ρ the residual of the least-squares problem and μ its solution. This is conditioning by the Schur
complement without forming a covariance.

Source: Golub & Van Loan, "Matrix Computations" (2013), ch. 5–6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import solve_triangular

from ppcore import precision
from ppcore.diagram import Diagram
from ppcore.errors import ModelError, did_you_mean
from ppcore.exact.protocol import GaussianMarginal, NotExact, ZeroEvidenceError, generator
from ppcore.semantics.gaussian import (
    NotGaussian,
    Records,
    Wire,
    noise_shapes,
    split_noise,
    walk,
)
from ppcore.semantics.gaussian_kernel import (
    GaussianKernel,
    OffSupport,
    innovations,
    inverse_skipping,
    orthogonalise,
    rank_tolerance,
)

LIMIT = 2**28
"""Entries of the largest matrix (2 GiB)."""


def solve_gaussian(
    joint: Diagram, data: Sequence[Any], evidence: Mapping[str, Any]
) -> GaussianSolution:
    """The posterior of a model in which every random site is linear-Gaussian.

    Locations are affine in the random values and scales known. Computed sites may be anything, as
    long as no random site depends on one that is not affine.

    The log evidence is a density with respect to Lebesgue measure on the coordinates that earlier
    ones do not determine; those that they do determine have probability one or zero.

    Parameters
    ----------
    joint, data, evidence
        See :mod:`ppcore.exact`.

    Raises
    ------
    NotExact
        A box is not linear-Gaussian, or the matrices would be too large.
    ZeroEvidenceError
        Evidence contradicts what the model says without noise.
    """
    given = {n: np.asarray(v) for n, v in evidence.items()}
    try:
        form = linear_form(joint, data, given)
    except NotGaussian as error:
        raise NotExact("gaussian", error.box, error.why) from None
    sites = tuple(str(n) for n in joint.output_names if n is not None and n not in evidence)
    return GaussianSolution(form, joint, tuple(data), given, sites)


@dataclass(frozen=True, eq=False)
class LinearForm:
    """A model as affine functions of ε.

    Attributes
    ----------
    dim : int
        q, the length of ε.
    shapes : dict
        Shapes of sites.
    offsets, columns : dict
        {site: float[n]} and {site: float[n, q]}: values of sites, residuals of observed ones.
    spreads, masks : dict
        Of observed sites; see :class:`ppcore.semantics.gaussian_site.Site`.
    constant : float
        Log weight of what is not random.
    """

    dim: int
    shapes: dict[str, tuple[int, ...]]
    offsets: dict[str, np.ndarray]
    columns: dict[str, np.ndarray]
    spreads: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    constant: float


def linear_form(
    joint: Diagram, data: Sequence[Any], evidence: Mapping[str, np.ndarray]
) -> LinearForm:
    """The coefficients of every affine site and residual.

    Raises :class:`ppcore.semantics.gaussian.NotGaussian` naming the box in the way.
    """
    noise = noise_shapes(joint, tuple(evidence))
    q = sum(int(np.prod(s, dtype=int)) for s in noise.values())
    rows = sum(v.size for v in evidence.values())
    if q * (q + rows) > LIMIT:
        raise NotGaussian(
            max(noise, key=lambda n: int(np.prod(noise[n]))),
            f"{q} random and {rows} observed numbers need matrices of more than 2 GiB.",
        )
    with precision.scope("float64"):
        parts = _linearise(joint, tuple(sorted(noise.items())), list(data), dict(evidence))
        offsets, columns, spreads, masks, constants = jax.tree_util.tree_map(np.asarray, parts)
    for name, spread in spreads.items():
        if not np.isfinite(spread).all():
            raise NotGaussian(name, "its covariance is not positive (semi-)definite.")
    return LinearForm(
        q,
        {n: v.shape for n, v in offsets.items()},
        {n: v.ravel() for n, v in offsets.items()},
        {n: v.reshape(q, int(np.prod(v.shape[1:], dtype=int))).T for n, v in columns.items()},
        spreads,
        masks,
        float(sum(v.sum() for v in constants.values())),
    )


@partial(jax.jit, static_argnums=(0, 1))
def _linearise(joint: Diagram, noise: Any, data: list[Any], evidence: dict[str, Any]) -> Any:
    q = sum(int(np.prod(s, dtype=int)) for _, s in noise)

    def run(eps: Any) -> Any:
        records = Records()
        walk(joint, [Wire(v) for v in data], evidence, split_noise(eps, noise), records)
        return {**records.sites, **records.residuals}, records.parts()[2:]

    offsets, push, rest = jax.linearize(run, jnp.zeros(q), has_aux=True)
    return offsets, jax.vmap(push)(jnp.eye(q)), *rest


class GaussianSolution:
    """p(sites | evidence) of a Gaussian model; see :class:`ppcore.exact.protocol.Solution`."""

    solver = "gaussian"

    def __init__(
        self,
        form: LinearForm,
        joint: Diagram,
        data: tuple[Any, ...],
        evidence: Mapping[str, np.ndarray],
        sites: tuple[str, ...],
    ):
        self.form, self.sites = form, sites
        self._joint, self._data, self._evidence = joint, data, dict(evidence)
        rows = [_rows(name, form, evidence[name]) for name in _in_order(joint, form.spreads)]
        log_hard = self._restrict([h for _, h, _ in rows if len(h.r)])
        log_soft = self._regress([s for s, _, _ in rows if len(s.r)])
        self.log_evidence = form.constant + sum(log for *_, log in rows) + log_hard + log_soft

    def _restrict(self, parts: list[Equations]) -> float:
        """ε = start + basis · ε', given equations without noise; their log density."""
        q = self.form.dim
        self._start, self._basis = np.zeros(q), None
        if not parts:
            return 0.0
        r, directions = orthogonalise(np.concatenate([p.j for p in parts]))
        scale = np.concatenate([p.scale for p in parts])
        try:
            w, log = innovations(r, -np.concatenate([p.r for p in parts]), scale)
        except OffSupport as error:
            at, gap = error.args
            ends = np.cumsum([len(p.r) for p in parts])
            name = parts[int(np.searchsorted(ends, at, side="right"))].site
            raise ZeroEvidenceError(
                f"The evidence at site {name!r} has density zero: without noise the model leaves "
                f"it no choice, and it is off by {gap:.3g}. Check the values, or give the site "
                "noise."
            ) from None
        self._start = w @ directions
        kept = directions[np.diagonal(r) > 0]
        self._basis = np.linalg.qr(kept.T, mode="complete")[0][:, len(kept) :]
        return log

    def _regress(self, parts: list[Equations]) -> float:
        """ε' ~ N(μ, R⁻¹R⁻ᵀ) given whitened equations; their log density but for log|D|."""
        q = self.form.dim if self._basis is None else self._basis.shape[1]
        if not parts:
            self._root, self._mean = np.eye(q), np.zeros(q)
            return 0.0
        j, r = np.concatenate([p.j for p in parts]), np.concatenate([p.r for p in parts])
        if self._basis is not None:
            r = r + j @ self._start
            j = j @ self._basis
        stacked = np.zeros((len(r) + q, q + 1))
        stacked[: len(r), :q], stacked[: len(r), q] = j, -r
        stacked[len(r) :, :q] = np.eye(q)
        full = np.asarray(np.linalg.qr(stacked, mode="r"))
        self._root = full[:q, :q]
        self._mean = solve_triangular(self._root, full[:q, q]) if q else np.zeros(0)
        determinant = np.log(np.abs(np.diagonal(self._root))).sum()
        return float(-0.5 * full[q, q] ** 2 - determinant - 0.5 * len(r) * np.log(2 * np.pi))

    def joint(self, *sites: str) -> GaussianKernel:
        """The joint law of some sites' elements given the evidence, as a state.

        Raises :class:`ModelError` for an unknown name, :class:`NotExact` for a computed site that
        is not affine.
        """
        for site in sites:
            if site not in self.sites:
                raise ModelError(
                    f"The model has no unobserved site {site!r}. {did_you_mean(site, self.sites)}"
                )
            if site not in self.form.offsets:
                raise NotExact(
                    "gaussian",
                    site,
                    "it is not an affine function of the Gaussian sites, so its law is not "
                    "Gaussian. Use draws of it.",
                )
        columns = np.concatenate([self.form.columns[s] for s in sites])
        mean = np.concatenate([self.form.offsets[s] for s in sites]) + columns @ self._start
        if self._basis is not None:
            columns = columns @ self._basis
        mean = mean + columns @ self._mean
        factor = solve_triangular(self._root, columns.T, trans="T").T if columns.size else columns
        return GaussianKernel.state(mean, factor)

    def marginal(self, site: str) -> GaussianMarginal:
        """The law of one site."""
        state, shape = self.joint(site), self.form.shapes.get(site, ())
        return GaussianMarginal(state.mean.reshape(shape), state.cov.reshape((*shape, *shape)))

    def sample(self, key: Any, n: int) -> dict[str, np.ndarray]:
        """``n`` independent draws of all sites jointly: {site: array[n, *shape]}."""
        z = generator(key).standard_normal((len(self._mean), n))
        inner = self._mean[:, None] + (solve_triangular(self._root, z) if z.size else z)
        eps = self._start[:, None] + (inner if self._basis is None else self._basis @ inner)
        out = {}
        for site in self.sites:
            if site in self.form.offsets:
                value = self.form.offsets[site][:, None] + self.form.columns[site] @ eps
                out[site] = value.T.reshape(n, *self.form.shapes[site])
        missing = [s for s in self.sites if s not in out]
        if missing:
            out.update(self._computed(out, missing, key, n))
        return {site: out[site] for site in self.sites}

    def _computed(
        self, drawn: dict[str, Any], missing: list[str], key: Any, n: int
    ) -> dict[str, np.ndarray]:
        """Sites that are functions of the drawn ones."""
        from ppcore.semantics.batched import simulate_many

        given = {k: np.broadcast_to(v, (n, *v.shape)) for k, v in self._evidence.items()}
        given.update(drawn)
        latent = {k: v for k, v in given.items() if k in self._joint.named("sample")}
        with precision.scope("float64"):
            found = simulate_many(self._joint, self._data, latent, key, n)
            return {s: np.asarray(found[s]) for s in missing}


@dataclass(frozen=True, eq=False)
class Equations:
    """r + Jε = 0 exactly, or = N(0, I) after whitening; ``scale``: of what r compares."""

    site: str
    r: np.ndarray
    j: np.ndarray
    scale: np.ndarray


def _in_order(joint: Diagram, names: Mapping[str, Any]) -> list[str]:
    """Observed sites in the model's order, which decides whose values determine whose."""
    return [str(b.name) for b in joint.boxes() if b.name in names]


def _rows(name: str, form: LinearForm, value: np.ndarray) -> tuple[Equations, Equations, float]:
    """Whitened equations, equations without noise, and −log|D| of an observed site."""
    r, j, spread = form.offsets[name], form.columns[name], form.spreads[name]
    scale = np.abs(value.ravel()) + np.abs(value.ravel() - r)
    if spread.ndim > value.ndim:
        return _dense_rows(name, r, j, scale, spread.reshape(-1, *spread.shape[-2:]))
    sd = spread.ravel()
    counts = np.ones(len(r), bool)
    if name in form.masks:
        counts = np.broadcast_to(form.masks[name], value.shape).ravel()
    soft, hard = counts & (sd > 0), counts & (sd == 0)
    return (
        Equations(name, r[soft] / sd[soft], j[soft] / sd[soft, None], scale[soft]),
        Equations(name, r[hard], j[hard], scale[hard]),
        -float(np.log(sd[soft]).sum()),
    )


def _dense_rows(
    name: str, r: np.ndarray, j: np.ndarray, scale: np.ndarray, roots: np.ndarray
) -> tuple[Equations, Equations, float]:
    """The same for events with covariances L Lᵀ, coordinates that others determine set apart."""
    n = roots.shape[-1]
    soft: list[tuple[np.ndarray, np.ndarray]] = []
    hard: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    log = 0.0
    for i, root in enumerate(roots):
        at = slice(i * n, (i + 1) * n)
        triangle = _triangle(root)
        free = np.diagonal(triangle) != 0
        inverse = inverse_skipping(triangle)
        w, jw = inverse @ r[at], inverse @ j[at]
        soft.append((w[free], jw[free]))
        rest = ~free
        hard.append(((r[at] - triangle @ w)[rest], (j[at] - triangle @ jw)[rest], scale[at][rest]))
        log -= float(np.log(np.abs(np.diagonal(triangle)[free])).sum())
    w, jw = (np.concatenate(p) for p in zip(*soft, strict=True))
    return (
        Equations(name, w, jw, np.zeros(0)),
        Equations(name, *(np.concatenate(p) for p in zip(*hard, strict=True))),
        log,
    )


def _triangle(root: np.ndarray) -> np.ndarray:
    """Lower triangular R with RRᵀ = LLᵀ; zeros on the diagonal where the rank is deficient."""
    r = np.asarray(np.linalg.qr(root.T, mode="r")).T
    sizes = np.sqrt((root**2).sum(1))
    if (np.abs(np.diagonal(r)) > rank_tolerance(len(root)) * sizes).all():
        return np.asarray(r)
    return orthogonalise(root)[0]
