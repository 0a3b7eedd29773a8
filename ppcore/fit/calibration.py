"""Simulation-based calibration of a learnt posterior: ranks, and coverage of its regions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

BINS = 10
LEVELS = (0.5, 0.8, 0.95)
LEAST = 0.01
"""Of the smallest p-value times the number of features: below, ranks are called uneven."""


@dataclass(frozen=True)
class Calibration:
    """Ranks of parameters among posterior draws at data simulated with them.

    Attributes
    ----------
    features : tuple of str
        Coordinates x[j], "log q", and "log likelihood" where it is known.
    ranks : int[simulations, F]
        From 0 to ``draws``; uniform if the posterior is right.
    draws : int
    """

    features: tuple[str, ...]
    ranks: np.ndarray
    draws: int

    @property
    def p_values(self) -> np.ndarray:
        """χ² against uniform ranks in ten bins: float[F]."""
        from scipy.stats import chi2

        edges = np.linspace(0, self.draws + 1, BINS + 1)
        found = []
        for ranks in self.ranks.T:
            counts = np.histogram(ranks, edges)[0]
            expected = len(ranks) * np.diff(np.ceil(edges)) / (self.draws + 1)
            found.append(float(chi2.sf(np.sum((counts - expected) ** 2 / expected), BINS - 1)))
        return np.array(found)

    @property
    def ok(self) -> bool:
        """Whether no feature's ranks are uneven: false for one right posterior in a hundred."""
        return bool(self.p_values.min() * len(self.features) > LEAST)

    def coverage(self, levels: tuple[float, ...] = LEVELS) -> np.ndarray:
        """Share of simulations whose parameters lie in the region of each level: float[L, F].

        Central intervals for coordinates and the log likelihood, highest-density regions for log q.
        """
        u = (self.ranks + 0.5) / (self.draws + 1)
        found = []
        for level in levels:
            central = np.abs(u - 0.5) < 0.5 * level
            dense = u > 1 - level
            top = np.array([name == "log q" for name in self.features])
            found.append(np.where(top, dense, central).mean(0))
        return np.array(found)

    def __str__(self) -> str:
        n = len(self.ranks)
        head = "feature".ljust(16) + "".join(f"{f'{lv:.0%}':>8}" for lv in LEVELS) + f"{'p':>9}"
        rows = [head]
        for name, shares, p in zip(self.features, self.coverage().T, self.p_values, strict=True):
            rows.append(name.ljust(16) + "".join(f"{s:8.3f}" for s in shares) + f"{p:9.2g}")
        error = 0.5 / n**0.5
        verdict = "even" if self.ok else "UNEVEN"
        rows.append(f"coverage in {n} simulations (± {error:.2f} at most); ranks are {verdict}")
        return "\n".join(rows)


def calibrated(joint: Any, density: Any, simulations: int, draws: int, key: Any) -> Calibration:
    """Fresh draws of the joint, each ranked among ``draws`` of q at its data."""
    import jax

    from ppcore import precision

    names = tuple(f"x[{j}]" for j in range(joint.dim))
    names = (*names, "log q", *(["log likelihood"] if joint.has_density else []))
    with precision.scope("float64"):
        k_joint, k_draw, k_tie = jax.random.split(key, 3)
        keys = jax.random.split(k_joint, simulations), jax.random.split(k_draw, simulations)
        plan = (joint.index, joint.vector, joint.has_density, draws)
        found = _ranks()(joint.target, density, keys, plan)
        below, tied, good = (np.asarray(v) for v in found)
        u = np.asarray(jax.random.uniform(k_tie, tied.shape))
    ranks = below + np.floor(u * (tied + 1)).astype(int)
    return Calibration(names, ranks[good], draws)


@cache
def _ranks() -> Any:
    import jax
    import jax.numpy as jnp

    def one(target: Any, density: Any, keys: Any, plan: Any) -> Any:
        index, vector, dense, draws = plan
        full, given, values = target.simulate_sites(keys[0])
        x, y = full[jnp.array(index)], vector.of(values)
        rows = jnp.concatenate([x[None], density.sample(keys[1], y, draws)])
        parts = [rows, jax.vmap(lambda v: density.log_prob(v, y)[None])(rows)]
        if dense:
            parts.append(jax.vmap(lambda v: given.log_likelihood(v)[None])(rows))
        features = jnp.concatenate(parts, axis=1)
        here, there = features[0], features[1:]
        below, tied = (there < here).sum(0), (there == here).sum(0)
        return below, tied, jnp.isfinite(here).all() & jnp.isfinite(y).all()

    def run(target: Any, density: Any, keys: Any, plan: Any) -> Any:
        return jax.lax.map(lambda k: one(target, density, k, plan), keys, batch_size=16)

    return jax.jit(run, static_argnums=3)
