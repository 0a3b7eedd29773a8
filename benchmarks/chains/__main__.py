"""``python -m benchmarks.chains``: microseconds a gradient against the number of chains.

For every device that JAX has, engine and number of chains: one warm-up with 64 chains, then blocks
of draws from copies of its positions, timed after the first, which compiles. ``gradient`` is the
batched log density and gradient alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.gradients.__main__ import TARGETS
from benchmarks.machine import header
from ppcore import precision, registry
from ppcore.run import cache
from ppcore.run.keys import Keys
from ppcore.target import value_and_gradient

CHAINS = (1, 4, 16, 64, 256, 1024, 4096)
ENGINES = ("gradient", "ensemble", "mams", "meads", "mclmc")
PACKAGES = ("ppcore", "jax", "jaxlib", "numpy")
LEAST = 0.5
"""Seconds to repeat for."""


def main() -> int:
    options = _options()
    cache.enable()
    head = header(PACKAGES, {"target": options.target, "precision": "float64"})
    print("\n".join(head), "", sep="\n", flush=True)
    curves: dict[str, list[tuple[int, float]]] = {}
    for device in _devices():
        with jax.default_device(device), precision.scope("float64"):
            target = jax.device_put(TARGETS[options.target]()[0], device)
            for name in options.engines:
                label = f"{name} ({device.platform})"
                curves[label] = []
                warm = None if name == "gradient" else _warm(name, target)
                for chains in options.chains:
                    cost = 1e6 * _cost(name, target, warm, chains)
                    curves[label].append((chains, cost))
                    print(f"{label:24} {chains:5} chains  {cost:9.4f} µs a gradient", flush=True)
    print("", table(curves, options.chains), sep="\n")
    if options.markdown:
        title = f"# Microseconds a gradient against chains: {options.target}"
        lines = [title, "", *(f"- {line}" for line in head), "", table(curves, options.chains), ""]
        options.markdown.write_text("\n".join(lines))
    if options.plot:
        _plot(curves, options.target, options.plot)
    return 0


def _devices() -> list[Any]:
    """The processor, and the first of every accelerator."""
    found = {device.platform: device for device in [*jax.devices("cpu"), *jax.devices()][::-1]}
    return list(found.values())


def _warm(name: str, target: Any) -> Any:
    engine = registry.engine(name, {})
    return engine.warmup(Keys(1).warmup, target, 64, lambda progress: None)


def _cost(name: str, target: Any, warm: Any, chains: int) -> float:
    """Seconds a gradient: the least over blocks repeated for ``LEAST`` seconds."""
    if warm is None:
        batched = jax.jit(value_and_gradient)
        x = jax.device_put(np.random.default_rng(0).normal(size=(chains, target.dim)))
        jax.block_until_ready(batched(target, x))
        return _least(lambda: jax.block_until_ready(batched(target, x)), chains)
    engine, keys = registry.engine(name, {}), Keys(2)
    x = np.resize(np.asarray(warm.x), (chains, target.dim))
    carry = engine.init(keys.init, target, warm.tuned, x)
    # Whole chunks, so that no numbers are drawn in vain.
    n = 16 * max(1, min(5, 256 // chains))
    _, _, stats = engine.block(keys.block(0), target, warm.tuned, carry, n)

    def run() -> None:
        draws = engine.block(keys.block(0), target, warm.tuned, carry, n)[1]
        jax.block_until_ready(draws)

    return _least(run, int(np.asarray(stats["n_gradients"]).sum()))


def _least(run: Any, gradients: int) -> float:
    began, best = time.perf_counter(), np.inf
    while time.perf_counter() - began < LEAST or best == np.inf:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return float(best / gradients)


def table(curves: dict[str, list[tuple[int, float]]], chains: list[int]) -> str:
    """A Markdown table of microseconds a gradient, a row for each curve.

    >>> print(table({"mams (cpu)": [(1, 10.0), (4, 3.25)]}, [1, 4]))
    | chains | 1 | 4 |
    | --- | --- | --- |
    | mams (cpu) | 10.0 | 3.25 |
    """
    rows = [["chains", *map(str, chains)], ["---"] * (len(chains) + 1)]
    rows += [[label, *(f"{cost:.3}" for _, cost in curve)] for label, curve in curves.items()]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _plot(curves: dict[str, list[tuple[int, float]]], name: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    for label, curve in curves.items():
        axes.loglog(*zip(*curve, strict=True), marker="o", markersize=3, label=label)
    axes.set(xlabel="chains", ylabel="µs a gradient", title=f"Cost of a gradient: {name}, float64")
    axes.grid(alpha=0.3, which="both", linewidth=0.5)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.chains", description=__doc__)
    parser.add_argument("--target", default="brownian", choices=list(TARGETS))
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), metavar="NAME")
    parser.add_argument("--chains", nargs="+", type=int, default=list(CHAINS))
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="an SVG or PNG file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
