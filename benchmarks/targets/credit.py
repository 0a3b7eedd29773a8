"""Sparse logistic regression of the shape of the German credit problem, on a synthetic design.

1000 rows and 24 correlated columns drawn with PCG64, seed 24: the published figures are for the
real data, so that only orders of magnitude compare.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.targets.truth import Squares
from ppcore.target import DensityTarget

ROWS, COLUMNS = 1000, 24
WIDTH = COLUMNS + 1
DIM = 2 * WIDTH + 1
STORED = Path(__file__).parent / "credit.json"


def data() -> dict[str, np.ndarray]:
    """Standardised columns with a last one of ones, and outcomes, 62 % of them positive."""
    rng = np.random.Generator(np.random.PCG64(24))
    mixing = rng.normal(size=(6, COLUMNS))
    columns = rng.normal(size=(ROWS, 6)) @ mixing + 1.5 * rng.normal(size=(ROWS, COLUMNS))
    columns = (columns - columns.mean(0)) / columns.std(0)
    weights = rng.normal(size=COLUMNS) * (rng.uniform(size=COLUMNS) < 0.4)
    logits = columns @ weights * 0.6 + 1.0
    outcomes = (rng.uniform(size=ROWS) < 1 / (1 + np.exp(-logits))).astype(float)
    return {"x": np.concatenate([columns, np.ones((ROWS, 1))], axis=1), "y": outcomes}


def _log_gamma_half(log_value: Any) -> Any:
    """log Γ(½, rate ½) of exp(log_value), with the Jacobian of the logarithm."""
    constant = 0.5 * jnp.log(0.5) - 0.5 * jnp.log(jnp.pi)
    return constant + 0.5 * log_value - 0.5 * jnp.exp(log_value)


def _log_density(v: Any, data: Any) -> Any:
    raw, local, scale = v[:WIDTH], v[WIDTH : 2 * WIDTH], v[-1]
    weights = raw * jnp.exp(local + scale)
    logits = data["x"] @ weights
    likelihood = jnp.sum(data["y"] * logits - jax.nn.softplus(logits))
    prior = -0.5 * jnp.sum(raw**2) - 0.5 * WIDTH * jnp.log(2 * jnp.pi)
    return likelihood + prior + jnp.sum(_log_gamma_half(v[WIDTH:]))


def credit() -> DensityTarget:
    """v = (25 raw weights N(0, 1), log of 25 local scales, log of the global scale); scales are
    Γ(½, ½) and weights their product."""
    return DensityTarget(_log_density, DIM, data())


def squares() -> Squares:
    """E[v²] and Var[v²] as stored by ``python -m benchmarks.targets.credit``."""
    stored = json.loads(STORED.read_text())
    return Squares(np.array(stored["mean"]), np.array(stored["variance"]), stored["how"])


def main(chains: int = 256, draws: int = 4000) -> None:
    """Run ``ensemble`` for long and store the moments."""
    from ppcore_mcmc.ensemble import Ensemble

    from ppcore.run.loop import run

    result = run(Ensemble(target_accept=0.9), credit(), chains=chains, draws=draws, seed=1)
    squares = result.x**2
    error = squares.mean(1).std(0) / np.sqrt(chains) / squares.std((0, 1))
    how = (
        f"ensemble, {chains} chains x {draws} draws, worst error {error.max():.4f} sd of the square"
    )
    mean, variance = squares.mean((0, 1)).tolist(), squares.var((0, 1)).tolist()
    STORED.write_text(json.dumps({"how": how, "mean": mean, "variance": variance}, indent=1) + "\n")
    print(how)


if __name__ == "__main__":
    main()
