"""The integral over standard normal noise of rows that are affine in it, and conditional draws.

With residual rows r0 + R u + D ε_g, all standard normal, group noise leaves first: M_j = I + D_j
D_jᵀ whitens the rows of group j, so that no difference of large numbers is formed. What is left is
a Gaussian integral over u, taken by Cholesky in the smaller of the number of coefficients and of
rows: ∫ exp(−½ |r0 + R u|²) N(shift + T u; 0, P⁻¹) |T| du. Source: Lindley & Smith, "Bayes estimates
for the linear model" (1972), doi:10.1111/j.2517-6161.1972.tb00885.x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppcore.rewrite.collapse_walk import HALF_LOG_2PI, Found, Rows, Sites

UNROLLED = 3  # up to this order a Cholesky decomposition is written out


@dataclass(frozen=True, eq=False)
class Family:
    """Groups of one number J: K sites, their m rows a group, and the factor of M."""

    sites: tuple[str, ...]
    own: Any  # float[J, m, K]
    offset: Any  # float[J, m]
    columns: Any  # float[p, J, m]
    factor: Any  # float[J, m, m], lower


@dataclass(frozen=True, eq=False)
class Integral:
    """The integral at one point.

    Attributes
    ----------
    log_weight : float[]
    by_rows : bool
        Whether the matrix has the order of the rows rather than of u.
    matrix, rhs : float[k, k], float[k]
        I + R Rᵀ and r0, or Rᵀ R + Tᵀ P T and −Rᵀ r0 − Tᵀ P shift; the diagonal alone, float[k],
        where nothing else is there.
    rows : Rows
        All rows without group noise, whitened.
    families : tuple of Family
    """

    log_weight: Any
    by_rows: bool
    matrix: Any
    rhs: Any
    rows: Rows
    families: tuple[Family, ...]


def by_rows(found: Found, sites: Sites) -> bool:
    """Whether there are fewer rows than coefficients, all of which have proper priors."""
    rows = sum(r.offset.size for r in found.rows)
    return all(sites.proper) and rows < len(sites.proper)


def integrate(found: Found, sites: Sites, shift: Any, basis: Any, log_volume: Any) -> Integral:
    """log ∫ over all collapsed noise; ``log_volume`` is log |det T|."""
    families, rows, log_weight = _whitened(found, sites)
    r0, columns = rows.offset, rows.columns
    p = len(sites.proper)
    if by_rows(found, sites):
        matrix = jnp.eye(r0.size, dtype=r0.dtype) + columns.T @ columns
        square, log_det = gaussian_parts(matrix, r0)
        return Integral(log_weight - square - log_det, True, matrix, r0, rows, families)
    proper = jnp.asarray(sites.proper, r0.dtype)
    prior = proper[:, None] * basis
    if sites.diagonal:
        matrix = jnp.sum(columns**2, 1) + jnp.sum(basis * prior, 0)
    else:
        matrix = columns @ columns.T + basis.T @ prior
    rhs = -(columns @ r0) - prior.T @ shift
    log_weight += -0.5 * jnp.sum(r0**2) - 0.5 * jnp.sum(proper * shift**2) + log_volume
    log_weight += (p - sum(sites.proper)) * HALF_LOG_2PI
    square, log_det = gaussian_parts(matrix, rhs)
    return Integral(log_weight + square - log_det, False, matrix, rhs, rows, families)


def draw(integral: Integral, found: Found, sites: Sites, shift: Any, basis: Any, z: Any) -> Any:
    """{site: value} given the rest, an affine function of noise z: float[noise_size]."""
    p, rows = len(sites.proper), integral.rows
    place = [0]

    def take(*shape: int) -> Any:
        size = 1
        for n in shape:
            size *= n
        place[0] += size
        return z[place[0] - size : place[0]].reshape(shape)

    if integral.by_rows:
        prior = take(p)
        gap = rows.offset + prior @ rows.columns + take(rows.offset.size)
        u = prior - rows.columns @ jnp.linalg.solve(integral.matrix, gap)
    elif p and sites.diagonal:
        u = (integral.rhs + jnp.sqrt(integral.matrix) * take(p)) / integral.matrix
    elif p:
        lower = jnp.linalg.cholesky(integral.matrix)
        white = jax.scipy.linalg.solve_triangular(lower, integral.rhs, lower=True)
        u = jax.scipy.linalg.solve_triangular(lower.T, white + take(p), lower=False)
    else:
        u = jnp.zeros(0, rows.offset.dtype)
    noise: dict[str, Any] = {}
    for f in integral.families:
        groups, m, k = f.own.shape
        prior = take(groups, k)
        gap = f.offset + jnp.tensordot(u, f.columns, 1) + take(groups, m)
        gap = gap + jnp.sum(f.own * prior[:, None, :], -1)
        solved = jax.scipy.linalg.cho_solve((f.factor, True), gap[..., None])[..., 0]
        drawn = prior - jnp.sum(f.own * solved[..., None], 1)
        noise.update({g: drawn[:, i] for i, g in enumerate(f.sites)})
    values = {}
    for name, v in found.values.items():
        value = v.offset + jnp.tensordot(u, v.columns, 1)
        for g, own in v.own.items():
            value = value + own * noise[g].reshape(own.shape)
        values[name] = value
    return values


def noise_size(integral: Integral) -> int:
    """How many standard normals one draw takes."""
    n = integral.matrix.shape[0] if not integral.by_rows else integral.rows.columns.shape[0]
    n += integral.rows.offset.size if integral.by_rows else 0
    return int(n + sum(f.own.size // f.own.shape[1] + f.offset.size for f in integral.families))


def _whitened(found: Found, sites: Sites) -> tuple[tuple[Family, ...], Rows, Any]:
    """Families of groups, all rows without their noise, and the log weight so far."""
    p = len(sites.proper)
    log_weight = found.log_constant
    shared = [r for r in found.rows if not r.own]
    members: dict[int, list[str]] = {}
    for name in sites.groups:
        members.setdefault(int(found.values[name].offset.size), []).append(name)
    families = []
    for size, names in members.items():
        touched = [r for r in found.rows if r.own and r.offset.shape[0] == size]
        if not touched:
            touched = [Rows(jnp.zeros((size, 0)), jnp.zeros((p, size, 0)), {})]
        offset = jnp.concatenate([r.offset for r in touched], -1)
        columns = jnp.concatenate([r.columns for r in touched], -1)
        own = jnp.stack(
            [
                jnp.concatenate([r.own.get(g, jnp.zeros_like(r.offset)) for r in touched], -1)
                for g in names
            ],
            -1,
        )
        m = own.shape[1]
        if m == 1:  # written out: most hierarchies have one row a group, and compile faster so
            spread = jnp.sqrt(1.0 + jnp.sum(own**2, -1))
            factor, diagonal = spread[..., None], spread
            white, turned = offset / spread, columns / spread
        else:
            factor = cholesky(jnp.eye(m) + jnp.einsum("jmk,jnk->jmn", own, own))
            diagonal = jnp.diagonal(factor, axis1=-2, axis2=-1)
            white, turned = forward(factor, offset), forward(factor, columns)
        log_weight = log_weight - jnp.sum(jnp.log(diagonal))
        shared.append(Rows(white.reshape(-1), turned.reshape(p, white.size), {}))
        families.append(Family(tuple(names), own, offset, columns, factor))
    empty = [jnp.zeros(0)]
    offset = jnp.concatenate([*(r.offset for r in shared)] or empty)
    columns = jnp.concatenate([*(r.columns for r in shared)] or [jnp.zeros((p, 0))], -1)
    return tuple(families), Rows(offset, columns, {}), log_weight


def cholesky(matrix: Any) -> Any:
    """Lower factors of float[..., n, n], written out where n is small."""
    n = matrix.shape[-1]
    if n > UNROLLED:
        return jnp.linalg.cholesky(matrix)
    rows: list[list[Any]] = [[jnp.zeros(matrix.shape[:-2], matrix.dtype)] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            left = matrix[..., i, j] - sum(rows[i][k] * rows[j][k] for k in range(j))
            rows[i][j] = jnp.sqrt(left) if i == j else left / rows[j][j]
    if not n:
        return matrix
    return jnp.stack([jnp.stack(r, -1) for r in rows], -2)


def forward(factor: Any, rhs: Any) -> Any:
    """L⁻¹ rhs for factors float[J, m, m] and rhs float[..., J, m]."""
    m = factor.shape[-1]
    if m > UNROLLED:
        wide = jnp.broadcast_to(factor, (*rhs.shape[:-1], m, m))
        return jax.scipy.linalg.solve_triangular(wide, rhs[..., None], lower=True)[..., 0]
    out: list[Any] = []
    for i in range(m):
        left = rhs[..., i] - sum(factor[..., i, k] * out[k] for k in range(i))
        out.append(left / factor[..., i, i])
    return jnp.stack(out, -1) if m else rhs


def gaussian_parts(matrix: Any, rhs: Any) -> tuple[Any, Any]:
    """½ rhsᵀ G⁻¹ rhs and ½ log |G| for a positive definite G: float[k, k] or its diagonal."""
    if matrix.ndim > 1 and matrix.shape[-1] > 1:
        return _parts(matrix, rhs)  # type: ignore[no-any-return]
    diagonal = matrix.reshape(rhs.shape)
    return 0.5 * jnp.sum(rhs**2 / diagonal), 0.5 * jnp.sum(jnp.log(diagonal))


@jax.custom_jvp
def _parts(matrix: Any, rhs: Any) -> tuple[Any, Any]:
    lower = jnp.linalg.cholesky(matrix)
    white = jax.scipy.linalg.solve_triangular(lower, rhs, lower=True)
    return 0.5 * jnp.sum(white**2), jnp.sum(jnp.log(jnp.diagonal(lower)))


@_parts.defjvp
def _parts_jvp(primals: Any, tangents: Any) -> Any:
    """d ½ hᵀG⁻¹h = ĝ·dh − ½ ĝᵀ dG ĝ and d ½ log|G| = ½ ⟨G⁻¹, dG⟩, with ĝ = G⁻¹ h.

    One inverse in the place of derivatives of a Cholesky decomposition: less to compile.
    """
    matrix, rhs = primals
    d_matrix, d_rhs = tangents
    lower = jnp.linalg.cholesky(matrix)
    half = jax.scipy.linalg.solve_triangular(lower, jnp.eye(len(rhs), dtype=rhs.dtype), lower=True)
    white = half @ rhs
    solved = white @ half
    square = 0.5 * jnp.sum(white**2)
    log_det = jnp.sum(jnp.log(jnp.diagonal(lower)))
    d_square = solved @ d_rhs - 0.5 * solved @ (d_matrix @ solved)
    d_log_det = 0.5 * jnp.sum((half.T @ half) * d_matrix)
    return (square, log_det), (d_square, d_log_det)
