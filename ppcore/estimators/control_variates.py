"""Stein control variates: functions of known mean zero, made from the gradient of the target.

For a polynomial P and g = ∇ log γ, E_π[H] = 0 with H = ΔP + ∇P · g whenever γ vanishes at infinity.
With P running over the monomials of the coordinates,

    order 1:  H_i = g_i,
    order 2:  besides, H_ij = x_i g_j + x_j g_i  (+ 2 for i = j),

the estimate is the mean of f − c·H, c the regression of f on all H. One factorisation of the
features serves all integrands. c is fitted on other chains than those it is used on, so that the
estimate has the plain one's expectation and its error is honest.

Source: Mira, Solgi & Imparato (2013), doi:10.1007/s11222-012-9344-6 (zero variance); Oates,
Girolami & Chopin (2017), arXiv:1410.2392 (Stein); Sun, Barp & Briol (2021), arXiv:2109.08944
(several integrands at once).
"""

from __future__ import annotations

import numpy as np

from ppcore.errors import SettingsError
from ppcore.estimators.estimate import Estimate, ratio_of, standard_error

FOLDS = 4
PER_FEATURE = 8.0


def control_variates(
    values: np.ndarray, x: np.ndarray, gradient: np.ndarray, order: int | None = None
) -> Estimate:
    """The mean of values − c·H.

    Parameters
    ----------
    values : float[chains, draws, m]
        f at the draws.
    x, gradient : float[chains, draws, d]
        Draws in unconstrained coordinates, and ∇ log γ there.
    order : 1 or 2, optional
        Of the polynomial. By default the richest of: all monomials of order 2, squares only,
        order 1, that leaves 8 draws to every feature.

    Raises
    ------
    SettingsError
        If ``order`` is neither, or the draws are fewer than the features of the order asked for.
    """
    if order not in (None, 1, 2):
        raise SettingsError(f"order={order!r} must be 1 or 2: the order of Stein's polynomials.")
    chains, draws, m = values.shape
    n = chains * draws
    folds = _folds(chains, draws)
    available = n - int(np.bincount(folds).max())
    z, score = _standardised(x.reshape(n, -1), gradient.reshape(n, -1))
    kind = _kind(z.shape[1], available, order)
    h = _features(z, score, kind)
    usable = np.isfinite(h).all(axis=0) & (h.std(axis=0) > 0)
    h = h[:, usable]
    f = values.reshape(n, m)
    left = np.empty_like(f)
    for fold in range(folds.max() + 1):
        own = folds == fold
        left[own] = f[own] - h[own] @ _fitted(h[~own], f[~own])
    adjusted = left.reshape(chains, draws, m)
    plain, better = standard_error(values), standard_error(adjusted)
    about = {"features": int(usable.sum()), "order": kind}
    value = left.mean(axis=0)
    return Estimate(value, better, "control_variates", ratio_of(plain, better), about)


def _folds(chains: int, draws: int) -> np.ndarray:
    """Which fold each draw is of: whole chains where there are two, else stretches of the chain."""
    if chains > 1:
        return np.repeat(np.arange(chains) % min(FOLDS, chains), draws)
    return np.minimum(np.arange(draws) * FOLDS // draws, FOLDS - 1)


def _standardised(x: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    return (x - x.mean(axis=0)) / scale, gradient * scale


def _kind(dim: int, available: int, order: int | None) -> str:
    """Which monomials: "1", "squares" (order 2 without mixed terms), or "2"."""
    sizes = {"2": dim + dim * (dim + 1) // 2, "squares": 2 * dim, "1": dim}
    if order is not None:
        if sizes[str(order)] >= available:
            raise SettingsError(
                f"order={order} makes {sizes[str(order)]} control variates of {dim} coordinates, "
                f"more than {available} draws can fit. Draw more, or leave `order` out."
            )
        return str(order)
    for kind, size in sizes.items():
        if size * PER_FEATURE <= available:
            return kind
    if sizes["1"] >= available:
        raise SettingsError(
            f"{dim} coordinates need more than {available} draws for control variates. Draw "
            "more, or use method='mean'."
        )
    return "1"


def _features(z: np.ndarray, g: np.ndarray, kind: str) -> np.ndarray:
    """H: float[N, p]."""
    if kind == "1":
        return g
    if kind == "squares":
        return np.concatenate([g, z * g + 1.0], axis=1)
    i, j = np.triu_indices(z.shape[1])
    return np.concatenate([g, z[:, i] * g[:, j] + z[:, j] * g[:, i] + 2.0 * (i == j)], axis=1)


def _fitted(h: np.ndarray, f: np.ndarray) -> np.ndarray:
    """c: float[p, m], with an intercept that is not kept."""
    scale = h.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    centred = (h - h.mean(axis=0)) / scale
    return np.linalg.lstsq(centred, f - f.mean(axis=0), rcond=1e-10)[0] / scale[:, None]
