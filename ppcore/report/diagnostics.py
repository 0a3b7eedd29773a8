"""Rank-normalised split R̂, nested R̂, effective sizes and E-BFMI of all coordinates at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CELLS = 1 << 18
"""Draws handled at a time, so that memory stays bounded however many coordinates there are."""
MANY_CHAINS = 32
"""From this many chains on, superchains are compared instead of chains."""


@dataclass(frozen=True)
class Diagnostics:
    """One number for each coordinate; NaN where a coordinate never moved.

    Attributes
    ----------
    rhat : float[d]
        The larger R̂ of the ranks and of the ranks of the distance from the median.
    ess_bulk, ess_tail : float[d]
        Effective draws, all chains together, for the centre and for the 5% and 95% quantiles.
    """

    rhat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray


def diagnose(x: np.ndarray) -> Diagnostics:
    """R̂ and effective sample sizes of draws ``x``: float[chains, draws, d].

    Source: Vehtari, Gelman, Simpson, Carpenter, Bürkner (2021), arXiv:1903.08008.

    >>> x = np.random.default_rng(0).normal(size=(4, 500, 2))
    >>> found = diagnose(x)
    >>> bool((found.rhat < 1.01).all() and (found.ess_bulk > 1500).all())
    True
    """
    chains, draws, dim = x.shape
    if draws < 4:
        nan = np.full(dim, np.nan)
        return Diagnostics(nan, nan, nan)
    width = max(1, CELLS // (chains * draws))
    parts = [_diagnose(x[..., i : i + width]) for i in range(0, dim, width)]
    return Diagnostics(*(np.concatenate(rows) for rows in zip(*parts, strict=True)))


def mean_ess(x: np.ndarray) -> np.ndarray:
    """Effective draws for the means of ``x``: float[chains, draws, d], unranked; NaN if constant.

    >>> x = np.random.default_rng(0).normal(size=(4, 500, 1))
    >>> bool(1500 < mean_ess(x)[0] < 3000)
    True
    """
    width = max(1, CELLS // (x.shape[0] * x.shape[1]))
    parts = [
        _ess(_split(np.moveaxis(np.asarray(x[..., i : i + width], float), -1, 0)))
        for i in range(0, x.shape[2], width)
    ]
    return np.concatenate([np.zeros(0), *parts])


def nested_rhat(x: np.ndarray, groups: int | None = None) -> np.ndarray:
    """Nested R̂ of many chains, which may be short: do superchains agree? float[d].

    For each coordinate the chains are sorted by their first draw (by its distance from the median
    where distances are compared) and cut into ``groups`` superchains, so that the chains of one
    started near each other. If draws still depend on the starts, superchains differ; if they do
    not, the grouping is a random one. With B the
    variance of superchain means over the later half of the draws, and W the mean over superchains
    of the variance within (between their chains plus within their chains), n R̂ = √(1 + B/W).
    As R̂ it is taken of ranks and of ranks of the distance from the median, and the larger kept.
    With M chains to a superchain and n effective draws of each it is about 1 + 1/(2 M n): chains
    need not each be long enough to know the distribution, as they must for R̂.

    Parameters
    ----------
    x : float[chains, draws, d]
        At least 4 draws; a remainder of chains is left out.
    groups : int, optional
        Superchains; by default about √chains.

    Source: Margossian, Hoffman, Sountsov, Riou-Durand, Vehtari & Gelman 2022, arXiv:2110.13017
    (there the chains of a superchain start at the same point).

    >>> x = np.random.default_rng(0).normal(size=(256, 8, 2))
    >>> bool((nested_rhat(x) < 1.02).all())
    True
    >>> x[:, :, 0] += x[:, :1, 0]
    >>> bool(nested_rhat(x)[0] > 1.2)
    True
    """
    chains, draws, dim = x.shape
    count = int(np.sqrt(chains)) if groups is None else groups
    if draws < 4 or count < 2 or chains < 2 * count:
        return np.full(dim, np.nan)
    width = max(1, CELLS // (chains * draws))
    parts = [_nested(x[..., i : i + width], count) for i in range(0, dim, width)]
    return np.concatenate(parts)


def _nested(x: np.ndarray, groups: int) -> np.ndarray:
    values = np.moveaxis(np.asarray(x, float), -1, 0)
    first, later = values[:, :, 0], values[:, :, values.shape[2] // 2 :]
    flat = later.reshape(len(later), -1)
    ranks = np.argsort(flat, axis=1)
    middle = _quantile(np.take_along_axis(flat, ranks, axis=1), 0.5)[:, None]
    centred = _normal_scores(flat, ranks).reshape(later.shape)
    distance = np.abs(flat - middle)
    folded = _normal_scores(distance, np.argsort(distance, axis=1)).reshape(later.shape)
    return np.maximum(
        _between_groups(centred, first, groups),
        _between_groups(folded, np.abs(first - middle), groups),
    )


def _between_groups(scores: np.ndarray, first: np.ndarray, groups: int) -> np.ndarray:
    """√(1 + B/W) of ``scores``: [d, m, n], with chains grouped by ``first``: [d, m]."""
    d, m, n = scores.shape
    size = m // groups
    order = np.argsort(first, axis=1, kind="stable")[:, : size * groups]
    nested = np.take_along_axis(scores, order[:, :, None], axis=1).reshape(d, groups, size, n)
    means = nested.mean(axis=3)
    within = means.var(axis=2, ddof=1).mean(axis=1)
    if n > 1:
        within = within + nested.var(axis=3, ddof=1).mean(axis=(1, 2))
    between = means.mean(axis=2).var(axis=1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(1 + between / within)


def energy_fraction(energy: np.ndarray) -> np.ndarray:
    """E-BFMI of each chain, E[(E_t − E_{t−1})²] / Var(E); energy: float[chains, draws].

    Source: Betancourt (2016), arXiv:1604.00695.
    """
    change = np.diff(energy, axis=1)
    spread = energy.var(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.square(change).sum(axis=1) / energy.shape[1] / spread


def _diagnose(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    split = _split(np.moveaxis(np.asarray(x, float), -1, 0))
    d, m, n = split.shape
    flat = split.reshape(d, m * n)
    order = np.argsort(flat, axis=1)
    centred = _normal_scores(flat, order).reshape(d, m, n)
    ordered = np.take_along_axis(flat, order, axis=1)
    distance = np.abs(flat - _quantile(ordered, 0.5)[:, None])
    folded = _normal_scores(distance, np.argsort(distance, axis=1)).reshape(d, m, n)
    rhat = np.maximum(_rhat(centred), _rhat(folded))
    tails = [_ess(split <= _quantile(ordered, p)[:, None, None]) for p in (0.05, 0.95)]
    bulk = _ess(centred)
    # Where ties leave nobody beyond a quantile, no draw tells anything of it but its own.
    tail = np.minimum(*(np.where(np.isnan(size), m * n, size) for size in tails))
    return rhat, bulk, np.where(np.isnan(bulk), np.nan, tail)


def _split(x: np.ndarray) -> np.ndarray:
    """[d, chains, draws] -> [d, 2·chains, draws // 2], so that a drift within a chain shows."""
    draws = x.shape[2]
    half = draws // 2
    return np.concatenate([x[:, :, :half], x[:, :, draws - half :]], axis=1)


def _normal_scores(flat: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Φ⁻¹((rank − 3/8) / (N + 1/4)) along the rows, equal values sharing their mean rank."""
    from scipy.special import ndtri

    size = flat.shape[1]
    ordered = np.take_along_axis(flat, order, axis=1)
    place = np.arange(size)
    new = ordered[:, 1:] != ordered[:, :-1]
    first = np.zeros(flat.shape, int)
    first[:, 1:] = np.where(new, place[1:], 0)
    np.maximum.accumulate(first, axis=1, out=first)
    last = np.full(flat.shape, size - 1)
    last[:, :-1] = np.where(new, place[:-1], size - 1)
    last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
    rank = (first + last) / 2 + 1
    scores = np.empty(flat.shape)
    np.put_along_axis(scores, order, ndtri((rank - 0.375) / (size + 0.25)), axis=1)
    return scores


def _quantile(ordered: np.ndarray, p: float) -> np.ndarray:
    """Linear interpolation between order statistics, along rows that are sorted."""
    place = p * (ordered.shape[1] - 1)
    low = int(place)
    high = min(low + 1, ordered.shape[1] - 1)
    return ordered[:, low] + (place - low) * (ordered[:, high] - ordered[:, low])


def _rhat(x: np.ndarray) -> np.ndarray:
    """sqrt(((n − 1)/n W + B/n) / W) of [d, m, n]."""
    n = x.shape[2]
    within = x.var(axis=2, ddof=1).mean(axis=1)
    between = x.mean(axis=2).var(axis=1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((n - 1) / n + between / within)


def _ess(x: np.ndarray) -> np.ndarray:
    """m n / (1 + 2 Σ ρ_t) of [d, m, n], summed by Geyer's initial monotone sequence."""
    x = np.asarray(x, float)
    d, m, n = x.shape
    covariance = _autocovariance(x)
    within = covariance[:, 0] * n / (n - 1)
    total = within * (n - 1) / n + x.mean(axis=2).var(axis=1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = 1 - (within[:, None] - covariance) / total[:, None]
    rho[:, 0] = 1.0
    # The last pairs have hardly any products behind them: the sum ends before.
    pairs = max((n - 1) // 2, 1)
    paired = rho[:, : 2 * pairs].reshape(d, pairs, 2).sum(axis=2)
    ended = np.logical_or.accumulate(~(paired > 0), axis=1)
    ended[:, -1] = True
    monotone = np.minimum.accumulate(np.where(ended, 0.0, paired), axis=1)
    # The first term of the pair that ends the sum is kept where it is positive: for chains that
    # alternate, leaving it out would claim too much.
    end = 2 * np.argmax(ended, axis=1)
    left = np.where(end > 0, np.fmax(rho[np.arange(d), end], 0.0), 0.0)
    time = -1 + 2 * monotone.sum(axis=1) + left
    time = np.maximum(time, 1 / np.log10(m * n))
    size = m * n / time
    return np.where(np.isfinite(total) & (total > 0), size, np.nan)


def _autocovariance(x: np.ndarray) -> np.ndarray:
    """Σ_c mean over chains of the biased autocovariance, [d, m, n] -> [d, n], by FFT."""
    from scipy.fft import irfft, next_fast_len, rfft

    n = x.shape[2]
    length = next_fast_len(2 * n, real=True)
    transform = rfft(x - x.mean(axis=2, keepdims=True), length, axis=2)
    power = np.square(transform.real) + np.square(transform.imag)
    return irfft(power.mean(axis=1), length, axis=1)[:, :n] / n
