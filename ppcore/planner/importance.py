"""Draws by way of Gaussians that are fitted to the posterior, with a certificate.

The proposal q is a mixture of multivariate t distributions, one for every mode, started from
Laplace approximations and moved to the weighted moments of draws. Fresh draws x_i ~ q with weights
w_i = γ(x_i)/q(x_i) are properly weighted whatever q is; the Pareto shape k̂ of the weights says
whether they are of use. The draws that are returned come from independence Metropolis chains over
the same proposals, x′ accepted with probability min(1, w(x′)/w(x)), started from one of them picked
with probability w: γ is invariant, every proposal is used once, and R-hat and effective sizes
mean what they always mean, which they would not for resampled duplicates.

Source: Cappé, Douc, Guillin, Marin & Robert 2008, arXiv:0710.4242 (adaptation); Tierney 1994,
doi:10.1214/aos/1176325750 (independence chains); Vehtari et al. 2024, arXiv:1507.02646 (k̂).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcore.planner import ridge
from ppcore.planner.pareto import k_hat
from ppcore.planner.pilot import Bump
from ppcore.tuning.lbfgs import Evaluate

FREEDOM = 7.0
ROUNDS, ADAPT, SPLITS = 5, 2048, 2
WIDE, WIDE_SHARE = 2.0, 0.15
"""Every mode gets a second component this many times as wide, for tails and skewness."""

BEYOND = 1.5
"""How much wider the components are that lie outside of all draws so far."""

GOOD_K, FAIR_K, USEFUL = 0.5, 0.7, 0.15
"""Certificate: k̂ of the weights below the first and of squares below the second; effective size
above the third, as a share of the draws."""

ENOUGH = 0.6
"""Effective share at which adaptation ends."""

HOPELESS, MANY = 0.004, 0.02
"""Effective share of a first round below which no adaptation is tried; above ``RIDGE`` coordinates,
where bends have no remedy and every round costs more."""

RIDGE, RIDGE_SHARE, LEAST = 12, 0.7, 3e-3
"""Coordinates up to which components are laid along a bent ridge, their share of a proposal, and
the least share of one of them among all: a tail has little mass, and has to be met all the same."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """Σ_k p_k t_ν(m_k, F_k F_kᵀ), ν = ``FREEDOM``; constants included."""

    bumps: tuple[Bump, ...]
    share: np.ndarray

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """float[n, d]."""
        dim = len(self.bumps[0].mean)
        which = rng.choice(len(self.bumps), n, p=self.share)
        z = rng.standard_normal((n, dim))
        z /= np.sqrt(rng.chisquare(FREEDOM, (n, 1)) / FREEDOM)
        x = np.empty((n, dim))
        for k, bump in enumerate(self.bumps):
            mine = which == k
            x[mine] = bump.mean + z[mine] @ bump.factor.T
        return x

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """log q at each row; float[n, d] -> float[n]."""
        dim = x.shape[1]
        constant = (
            math.lgamma((FREEDOM + dim) / 2)
            - math.lgamma(FREEDOM / 2)
            - 0.5 * dim * math.log(FREEDOM * math.pi)
        )
        parts = []
        for bump, share in zip(self.bumps, self.share, strict=True):
            z = np.linalg.solve(bump.factor, (x - bump.mean).T)
            spread = np.log1p(np.sum(z**2, axis=0) / FREEDOM)
            log_volume = float(np.linalg.slogdet(bump.factor)[1])
            parts.append(
                constant - log_volume - 0.5 * (FREEDOM + dim) * spread + np.log(share + 1e-300)
            )
        return np.asarray(np.logaddexp.reduce(parts, axis=0))


@dataclass(frozen=True, eq=False)
class Certificate:
    """What the weights of fresh draws say of a proposal.

    Attributes
    ----------
    k_hat : float
    efficiency : float
        Effective size over draws, 1 / (N Σ W²).
    draws : int
        N.
    squares : float
        The largest k̂ of w (x_i − E x_i)² over coordinates: weights may do for means and not for
        variances, where a tail is long.
    """

    k_hat: float
    efficiency: float
    draws: int
    squares: float = -math.inf

    @property
    def comfortable(self) -> bool:
        """Nothing is to be gained by a better proposal."""
        return self.k_hat < 0.5 * GOOD_K and self.efficiency > ENOUGH

    @property
    def promising(self) -> bool:
        """Worth all the draws, which decide."""
        return self.k_hat < FAIR_K and self.efficiency > USEFUL

    @property
    def good(self) -> bool:
        """The draws can be relied on."""
        return self.k_hat < GOOD_K and self.squares < FAIR_K and self.efficiency > USEFUL

    def __str__(self) -> str:
        return f"k-hat {self.k_hat:.2f}, effective share {self.efficiency:.0%} of {self.draws:,}"


@dataclass(frozen=True, eq=False)
class Sampled:
    """Draws of independence chains and the weights behind them.

    Attributes
    ----------
    x : float[chains, draws, d]
    log_density, acceptance_rate : float[chains, draws]
    refitted : Mixture
        Moved to the moments of these proposals, should they not do.
    log_evidence, log_evidence_error : float
        log mean w over all proposals, and its standard error.
    certificate : Certificate
        Of all proposals.
    """

    x: np.ndarray
    log_density: np.ndarray
    acceptance_rate: np.ndarray
    refitted: Mixture
    log_evidence: float
    log_evidence_error: float
    certificate: Certificate


def log_weights(
    evaluate: Evaluate, mixture: Mixture, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """log γ and log γ/q at each row; −inf where γ has no finite value."""
    with np.errstate(all="ignore"):
        log_density = evaluate(x)[0]
    log_density = np.where(np.isfinite(log_density), log_density, -np.inf)
    return log_density, log_density - mixture.log_density(x)


def fit(
    evaluate: Evaluate,
    rng: np.random.Generator,
    bumps: Sequence[Bump],
    size: int = ADAPT,
    least: float = HOPELESS,
) -> tuple[Mixture, Certificate]:
    """Adapt a mixture that starts as ``bumps``; with what a round of ``size`` draws says of it.

    Stops as soon as the weights are comfortable, or gain no more; then more components are tried,
    unless the effective share is below ``least``.
    """
    hopeless = _hopeless(bumps)
    masses = np.array([b.log_mass for b in bumps])
    share = np.exp(masses - masses.max()) / np.exp(masses - masses.max()).sum()
    wide = [Bump(b.mean, WIDE * b.factor, b.log_mass) for b in bumps]
    shares = np.concatenate([(1 - WIDE_SHARE) * share, WIDE_SHARE * share])
    mixture = Mixture((*bumps, *wide), shares)
    best = _adapted(evaluate, rng, mixture, size)
    for widen in (_ridged, *(_split,) * SPLITS):
        if best[1].efficiency < max(least, hopeless) or best[1].comfortable:
            break
        x = best[0].draw(rng, 2 * size)
        more = widen(evaluate, best[0], x, log_weights(evaluate, best[0], x)[1])
        found = _adapted(evaluate, rng, more, 2 * size) if more is not None else best
        if found[1].comfortable or found[1].efficiency > best[1].efficiency:
            best = found
    return best


def _hopeless(bumps: Sequence[Bump]) -> float:
    return HOPELESS if bumps[0].mean.size <= RIDGE else MANY


def _adapted(
    evaluate: Evaluate, rng: np.random.Generator, mixture: Mixture, n: int
) -> tuple[Mixture, Certificate]:
    """The best of several rounds of ``n`` draws, each moving the mixture to their moments."""
    best: tuple[Mixture, Certificate] | None = None
    hopeless = _hopeless(mixture.bumps)
    for _ in range(ROUNDS):
        x = mixture.draw(rng, n)
        log_weight = log_weights(evaluate, mixture, x)[1]
        found = certify(log_weight)
        grown = best is None or found.efficiency > 1.1 * best[1].efficiency
        if best is None or found.efficiency > best[1].efficiency:
            best = mixture, found
        if found.comfortable or not grown or found.efficiency < hopeless:
            break
        mixture = _moved(mixture, x, log_weight)
    assert best is not None
    return best


def _ridged(
    evaluate: Evaluate, mixture: Mixture, x: np.ndarray, log_weight: np.ndarray
) -> Mixture | None:
    """Components more, along a bent ridge to both its ends; None where none is found."""
    if x.shape[1] > RIDGE:
        return None
    w = np.exp(log_weight - log_weight.max())
    bumps = ridge.along(evaluate, x, w / w.sum())
    if not bumps:
        return None
    share = np.exp(np.array([b.log_mass for b in bumps]) - max(b.log_mass for b in bumps))
    share = np.maximum(share / share.sum(), LEAST)
    shares = (RIDGE_SHARE * share / share.sum(), (1 - RIDGE_SHARE) * mixture.share)
    return Mixture((*bumps, *mixture.bumps), np.concatenate(shares))


def _split(evaluate: Evaluate, mixture: Mixture, x: np.ndarray, log_weight: np.ndarray) -> Mixture:
    """Components more, along the direction in which the weighted draws are most skewed.

    One Gaussian bends with no posterior; its thirds can.
    """
    w = np.exp(log_weight - log_weight.max())
    w /= w.sum()
    mean = w @ x
    values, vectors = np.linalg.eigh(_covariance(x - mean, w))
    # In units of the parts themselves, so that the scales of the coordinates do not decide.
    root = vectors * np.sqrt(np.maximum(values, 1e-300))
    z = np.linalg.lstsq(root, (x - mean).T, rcond=None)[0]
    skew = np.abs(z**3 @ w)
    along = z[int(np.argmax(skew))]
    order = np.argsort(along)
    third = np.searchsorted(np.cumsum(w[order]), (1 / 3, 2 / 3))
    bumps, shares = list(mixture.bumps), list(0.4 * mixture.share)
    for part in np.split(order, third):
        mine = w[part]
        if len(part) < 4 * x.shape[1] or 1 / np.sum((mine / mine.sum()) ** 2) < 2 * x.shape[1]:
            continue
        mine = mine / mine.sum()
        centre = mine @ x[part]
        factor = _root(_covariance(x[part] - centre, mine), root)
        # And one further out, since draws that were never made have no weight to show.
        beyond = centre + (centre - mean)
        for at, root_, share in ((centre, factor, 0.2), (beyond, BEYOND * factor, 0.05)):
            bumps.append(Bump(at, root_, mixture.bumps[0].log_mass))
            shares.append(share)
    return Mixture(tuple(bumps), np.array(shares) / np.sum(shares))


def _covariance(centred: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.asarray((w[:, None] * centred).T @ centred)


def certify(log_weight: np.ndarray, x: np.ndarray | None = None) -> Certificate:
    """k̂ and the effective share of weights exp(log_weight); for draws ``x``, k̂ of squares too."""
    if not np.isfinite(log_weight).any():
        return Certificate(math.inf, 0.0, len(log_weight))
    w = np.exp(log_weight - log_weight.max())
    share = float(w.sum() ** 2 / np.sum(w**2) / len(w))
    squares = -math.inf
    if x is not None:
        with np.errstate(divide="ignore"):
            log_square = 2 * np.log(np.abs(x - w @ x / w.sum()))
        squares = max(k_hat(log_weight + column) for column in log_square.T)
    return Certificate(k_hat(log_weight), share, len(w), squares)


def sample(
    evaluate: Evaluate, rng: np.random.Generator, mixture: Mixture, chains: int, draws: int
) -> Sampled:
    """``chains`` independence chains of ``draws`` transitions each, every proposal used once."""
    x = mixture.draw(rng, chains * (draws + 1))
    log_density, log_weight = log_weights(evaluate, mixture, x)
    refitted = _moved(_split(evaluate, mixture, x, log_weight), x, log_weight)
    return walk(rng, x, log_density, log_weight, refitted, chains, draws)


def walk(
    rng: np.random.Generator,
    x: np.ndarray,
    log_density: np.ndarray,
    log_weight: np.ndarray,
    refitted: Mixture,
    chains: int,
    draws: int,
) -> Sampled:
    """Independence chains over proposals ``x``: float[chains · (draws + 1), d], with their weights.

    Each chain starts from one proposal of all, picked by weight.
    """
    certificate = certify(log_weight, x)
    top = log_weight.max()
    w = np.exp(log_weight - top)
    by_chain = log_weight.reshape(chains, draws + 1)
    log_u = np.log1p(-rng.uniform(size=(chains, draws)))
    at = rng.choice(w.size, chains, p=w / w.sum())
    place = np.empty((chains, draws), int)
    rate = np.empty((chains, draws))
    own = np.arange(chains) * (draws + 1)
    for i in range(draws):
        gain = by_chain[:, i + 1] - log_weight[at]
        at = np.where(log_u[:, i] < gain, own + i + 1, at)
        place[:, i] = at
        rate[:, i] = np.exp(np.minimum(gain, 0.0))
    error = math.sqrt(max(1 / certificate.efficiency - 1, 0.0) / w.size)
    log_z = float(top + np.log(w.mean()))
    return Sampled(x[place], log_density[place], rate, refitted, log_z, error, certificate)


def _moved(mixture: Mixture, x: np.ndarray, log_weight: np.ndarray) -> Mixture:
    """Every component at the weighted moments of the draws it is responsible for."""
    w = np.exp(log_weight - log_weight.max())
    w /= w.sum()
    if 1 / np.sum(w**2) < 3 * x.shape[1]:
        # Few draws carry the weights: temper them, so that the moments are those of many.
        w = w**0.5 / np.sum(w**0.5)
    parts = []
    for bump, share in zip(mixture.bumps, mixture.share, strict=True):
        alone = Mixture((bump,), np.ones(1))
        parts.append(np.log(share + 1e-300) + alone.log_density(x))
    owner = np.exp(np.array(parts) - np.logaddexp.reduce(parts, axis=0))
    bumps, shares = [], []
    for bump, mine in zip(mixture.bumps, owner * w, strict=True):
        total = float(mine.sum())
        n_eff = total**2 / max(float(np.sum(mine**2)), 1e-300)
        dim = x.shape[1]
        if total < 1e-3 or n_eff < dim + 2:
            bumps.append(bump)
            shares.append(max(total, 1e-4))
            continue
        mean = mine @ x / total
        centred = x - mean
        cov = _covariance(centred, mine / total)
        before = bump.factor @ bump.factor.T
        keep = dim / (dim + n_eff)
        cov = (1 - keep) * cov + keep * before
        bumps.append(Bump(mean, _root(cov, bump.factor), bump.log_mass))
        shares.append(total)
    share = np.array(shares)
    return Mixture(tuple(bumps), share / share.sum())


def _root(cov: np.ndarray, otherwise: np.ndarray) -> Any:
    try:
        return np.linalg.cholesky(cov)
    except np.linalg.LinAlgError:
        return otherwise
