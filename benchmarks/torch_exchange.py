"""``python -m benchmarks.torch_exchange``: what handing points to JAX and back costs torch.

For each batch: the log density and its gradient by JAX alone, the same through ``target.torch()``
(tensors in, tensors out), and through torch's own ``backward``. The calls take turns; the least of
each is shown, which other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import ppcore as pp
from benchmarks.machine import header
from ppcore import dist, precision
from ppcore.target import value_and_gradient

PACKAGES = ("ppcore", "jax", "jaxlib", "torch", "numpy")
SIZES = (16, 128, 1024)


@pp.model
def regression(x: np.ndarray) -> None:
    """A logistic regression."""
    slope = pp.sample("slope", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    with pp.plate("i", len(x)):
        pp.sample("y", dist.Bernoulli(logits=x @ slope))


def target(rows: int, dim: int) -> Any:
    """The posterior of a synthetic data set."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((rows, dim))
    y = (rng.random(rows) < 1 / (1 + np.exp(-x.sum(1)))).astype(int)
    return regression(x).observe(y=y).target()


def least(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Least seconds of each call; they take turns, so that load falls on all alike."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    return {name: min(found) for name, found in seconds.items()}


def measure(law: Any, n: int, repeats: int) -> dict[str, float]:
    """Seconds a call with ``n`` points: "jax", "view" and "backward"."""
    import torch

    view = law.torch()
    points = np.random.default_rng(n).standard_normal((n, law.dim))
    with precision.scope("float64"):
        program, x = jax.jit(value_and_gradient), jax.numpy.asarray(points)
        leaves = jax.tree.map(jax.numpy.asarray, law)
    tensor = torch.as_tensor(points)

    def alone() -> None:
        with precision.scope("float64"):
            jax.block_until_ready(program(leaves, x))

    def through() -> None:
        view.value_and_gradient(tensor)

    def backward() -> None:
        moved = tensor.clone().requires_grad_(True)
        view.log_density(moved).sum().backward()

    return least({"jax": alone, "view": through, "backward": backward}, repeats)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.torch_exchange", description=__doc__)
    parser.add_argument("--rows", type=int, default=100, help="data of the logistic regression")
    parser.add_argument("--dim", type=int, default=10, help="its coefficients")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--markdown", type=Path, help="write the table there")
    options = parser.parse_args()
    settings = {"rows": options.rows, "dim": options.dim, "repeats": options.repeats}
    lines = [f"- {line}" for line in header(PACKAGES, settings)]
    lines += ["", "| points | JAX alone, ms | target.torch() | ratio | with backward | ratio |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    law = target(options.rows, options.dim)
    for n in SIZES:
        found = measure(law, n, options.repeats)
        base = found["jax"]
        cells = [f"{n}", f"{1e3 * base:.3f}"]
        for name in ("view", "backward"):
            cells += [f"{1e3 * found[name]:.3f}", f"{found[name] / base:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    if options.markdown:
        about = "# What the exchange with torch costs\n\n"
        options.markdown.write_text(about + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
