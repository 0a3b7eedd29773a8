"""How the time for a posterior grows with the number of observations of a linear regression.

Run ``python -m benchmarks.scaling``. ppcore reads the data once (a QR decomposition) and then works
on statistics; the table shows that pass, the time of each further posterior from it (lattice, draws
and all), and NumPyro's NUTS on the same data up to the size at which it becomes tedious.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any

import numpy as np

import ppcore as pp
from benchmarks.machine import header
from ppcore import dist, precision
from ppcore.rewrite.algebra import algebra
from ppcore.rewrite.protocol import Problem, rewrite

COLUMNS = 5
FLAT = 0.2


@pp.model
def linear(x):
    """y ~ N(α + xβ, σ) with normal coefficients and half-normal σ."""
    alpha = pp.sample("alpha", dist.Normal(0, 10))
    beta = pp.sample("beta", dist.Normal(0, 10).expand([COLUMNS]))
    sigma = pp.sample("sigma", dist.HalfNormal(10))
    with pp.plate("row", len(x)):
        pp.sample("y", dist.Normal(alpha + x @ beta, sigma))


def data(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """A design of standard normals and its response, with unit noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, COLUMNS))
    y = x @ np.arange(COLUMNS, dtype=float)
    y += rng.normal(size=rows)
    return x, y


def ppcore_times(x: np.ndarray, y: np.ndarray, repeats: int) -> tuple[float, float, np.ndarray]:
    """Seconds of the pass over the data, and of one posterior from its statistics; E[β]."""
    from ppcore_exact.quadrature import Quadrature

    target = linear(x).observe(y=y).target()
    engine = Quadrature()
    with precision.scope("float64"):
        began = time.perf_counter()
        found = rewrite(Problem.of(target), algebra())
        reading = time.perf_counter() - began
        seconds = []
        for seed in range(repeats + 1):  # the first compiles
            began = time.perf_counter()
            values = _posterior(engine, target, found, seed)
            seconds.append(time.perf_counter() - began)
    return reading, float(np.min(seconds[1:])), values["beta"].mean(0)


def _posterior(engine: Any, target: Any, found: Any, seed: int) -> dict[str, np.ndarray]:
    import jax

    return engine.finish(target, found).sample(jax.random.key(seed), 4000)


def numpyro_seconds(x: np.ndarray, y: np.ndarray) -> float:
    """Seconds of a second run of NumPyro's NUTS, four chains of 1000 + 1000."""
    import jax
    import numpyro
    from numpyro import distributions as nd
    from numpyro.infer import MCMC, NUTS

    def model(x: Any, y: Any) -> None:
        alpha = numpyro.sample("alpha", nd.Normal(0, 10))
        beta = numpyro.sample("beta", nd.Normal(0, 10).expand([COLUMNS]).to_event(1))
        sigma = numpyro.sample("sigma", nd.HalfNormal(10))
        numpyro.sample("y", nd.Normal(alpha + x @ beta, sigma), obs=y)

    with precision.scope("float64"):
        chains = {"num_chains": 4, "chain_method": "vectorized", "progress_bar": False}
        mcmc = MCMC(NUTS(model), num_warmup=1000, num_samples=1000, **chains)
        for seed in (0, 1):
            began = time.perf_counter()
            mcmc.run(jax.random.key(seed), x, y)
            jax.block_until_ready(mcmc.get_samples())
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rows", type=float, nargs="+", default=[1e3, 1e5, 1e7])
    parser.add_argument("--numpyro-up-to", type=float, default=1e5)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    print("\n".join(header(("ppcore", "jax", "numpyro"), {"columns": COLUMNS, "draws": 4000})))
    print("rows        one pass    each posterior   NumPyro NUTS   max |E[β] − β|   peak memory")
    ours, theirs = [], []
    for rows in map(int, arguments.rows):
        x, y = data(rows)
        reading, posterior, beta = ppcore_times(x, y, arguments.repeats)
        ours.append(posterior)
        peer = "         –  "
        if rows <= arguments.numpyro_up_to:
            theirs.append(numpyro_seconds(x, y))
            peer = f"{theirs[-1]:10.1f} s"
        off = np.abs(beta - np.arange(COLUMNS)).max()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{rows:<11,} {reading:7.3f} s   {posterior * 1e3:9.2f} ms   {peer}   {off:12.1e}"
            f"   {memory:8.2f} GiB",
            flush=True,
        )
    flat = max(ours) / min(ours) - 1
    print(f"\neach posterior: slowest {flat:.0%} above the fastest (flat within {FLAT:.0%})")
    if len(theirs) > 1:
        grown = theirs[-1] / theirs[0]
        print(f"NumPyro NUTS: {grown:.0f} times slower at its last size than at its first")


if __name__ == "__main__":
    main()
