"""``python -m benchmarks.amortised``: C2ST of our NPE and of ``sbi``'s, on the same simulations.

C2ST is how often a classifier (``sbi``'s own, for both) tells draws from reference draws: 0.5 is
perfect, 1 is worst. ``--peer-python`` names a Python that has ``sbi``.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.amortised.tasks import Task, tasks
from benchmarks.machine import header

PACKAGES = ("ppcore", "jax", "jaxlib", "numpy")
PEER = Path(__file__).with_name("peer.py")
OURS = ("npe", "npe, weighed")
PEERS = ("maf", "nsf", "maf+", "nsf+")
PRIORS: dict[str, dict[str, Any]] = {
    "two_moons": {"low": np.full(2, -1.0), "high": np.full(2, 1.0)},
    "slcp": {"low": np.full(5, -3.0), "high": np.full(5, 3.0)},
    "lotka_volterra": {"loc": np.array([-0.125, -3.0] * 2), "scale": np.full(4, 0.5)},
}
LEGEND = (
    "C2ST, mean over observations and seeds ± its standard error; 0.5 is perfect. `npe` is",
    '`model.amortise(observe=["y"])` with its defaults, `npe, weighed` the same corrected at the',
    "data by importance weights, where the model has a density (`sbi` could do this too, given a",
    "density). `maf` is sbi's default; `maf+` and `nsf+` have 8 transforms of 64 units. Seconds",
    "are of training, one seed. All methods see the same simulations.",
)


@dataclass
class Found:
    """Scores and seconds of one method on one task."""

    scores: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def cells(self) -> list[str]:
        if not self.scores:
            return ["-", "-"]
        error = np.std(self.scores, ddof=1) / len(self.scores) ** 0.5
        return [f"{np.mean(self.scores):.3f} ± {error:.3f}", f"{np.median(self.seconds):.0f}"]


def ours(task: Task, options: Any, seed: int) -> Iterator[tuple[str, np.ndarray, float]]:
    """Our draws for every observation: float[observations, n, d], and seconds."""
    model, n = task.model, options.draws
    began = time.perf_counter()
    learnt = model.amortise(
        observe=["y"], simulations=options.simulations, seed=seed, progress="off"
    )
    seconds = time.perf_counter() - began
    print(f"    npe: {learnt.attrs['timings']}", flush=True)
    data = [task.observation(i) for i in range(options.observations)]
    plain = [learnt.sample(y=y, n=n, seed=i)["theta"] for i, y in enumerate(data)]
    yield "npe", np.stack(plain), learnt.attrs["timings"]["training_seconds"]
    if learnt.joint.has_density:
        fits = [learnt.posterior(y=y, chains=1, draws=20 * n, seed=i) for i, y in enumerate(data)]
        rng = np.random.default_rng(seed)
        drawn = [rng.choice(f.draws("theta")[0], n, replace=False) for f in fits]
        print(f"    k-hat {[f.attrs['weights']['k_hat'][0] for f in fits]}", flush=True)
        yield "npe, weighed", np.stack(drawn), seconds


def same_simulations(task: Task, options: Any, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """θ and y that ``amortise`` draws with this seed."""
    from ppcore import precision
    from ppcore.fit.joint import joint_of
    from ppcore.run.keys import Keys

    joint = joint_of(task.model, ["y"], None, "none")
    with precision.scope("float64"):
        x, _ = joint.draw(Keys(seed).init, options.simulations)
        drawn = _sites(joint, Keys(seed).init, options.simulations)
    assert len(x) == len(drawn["theta"])
    return drawn["theta"], drawn["y"].reshape(len(x), -1)


def _sites(joint: Any, key: Any, n: int) -> dict[str, np.ndarray]:
    import jax

    from ppcore.fit.joint import BLOCK

    keys = jax.random.split(key, -(-n // BLOCK) * BLOCK)
    draw = jax.jit(jax.vmap(lambda t, k: t.simulate_sites(k)[2], (None, 0)))
    made = [draw(joint.target, keys[i : i + BLOCK]) for i in range(0, n, BLOCK)]
    return {k: np.concatenate([np.asarray(m[k]) for m in made])[:n] for k in ("theta", "y")}


def peer(python: Path, what: str, given: dict[str, Any]) -> dict[str, np.ndarray]:
    """What ``peer.py`` makes of arrays, in its own interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "in.npz"), Path(folder, "out.npz")
        np.savez(source, **given)
        subprocess.run([python, PEER, what, source, result], check=True)
        with np.load(result) as loaded:
            return {name: loaded[name] for name in loaded.files}


def run(task: Task, options: Any) -> dict[str, Found]:
    """All methods on one task."""
    data = np.stack([task.observation(i).ravel() for i in range(options.observations)])
    shaped = [task.observation(i) for i in range(options.observations)]
    truth = [task.reference(y, options.draws, 1 + i) for i, y in enumerate(shaped)]
    found = {name: Found() for name in (*OURS, *options.peers)}

    def score(name: str, drawn: np.ndarray, seconds: float) -> None:
        pairs = {f"a{i}": a for i, a in enumerate(truth)}
        pairs |= {f"b{i}": b for i, b in enumerate(drawn)}
        scores = peer(options.peer_python, "score", pairs)["c2st"]
        found[name].scores += scores.tolist()
        found[name].seconds.append(seconds)
        print(f"  {task.name} {name}: {scores.round(3)}, {seconds:.0f} s", flush=True)

    for seed in range(1, 1 + options.seeds):
        for name, drawn, seconds in ours(task, options, seed):
            score(name, drawn, seconds)
        theta, y = same_simulations(task, options, seed)
        for name in options.peers:
            given = {"theta": theta, "y": y, "observed": data, "draws": options.draws}
            given |= {"seed": seed, "density": name, **PRIORS[task.name]}
            made = peer(options.peer_python, "train", given)
            score(name, made["draws"], float(made["seconds"]))
    return found


def main() -> None:
    known = tasks()
    parser = argparse.ArgumentParser("python -m benchmarks.amortised", description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(known), choices=list(known))
    parser.add_argument("--peers", nargs="*", default=list(PEERS[:2]), choices=PEERS)
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--simulations", type=int, default=10_000)
    parser.add_argument("--observations", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--markdown", type=Path, help="write the table there")
    options = parser.parse_args()
    wanted = ("simulations", "observations", "seeds", "draws")
    lines = header(PACKAGES, {name: getattr(options, name) for name in wanted})
    version = (
        "from importlib.metadata import version as v; print('sbi', v('sbi'), 'torch', v('torch'))"
    )
    said = subprocess.run([options.peer_python, "-c", version], check=True, capture_output=True)
    lines.append("peer: " + said.stdout.decode().strip())
    print("\n".join(lines), flush=True)
    names = [*OURS, *(f"sbi {name}" for name in options.peers)]
    table = ["| task | " + " | ".join(f"{n} | s" for n in names) + " |"]
    table.append("| --- " * (1 + 2 * len(names)) + "|")
    for task in (known[name] for name in options.tasks):
        found = run(task, options)
        cells = [cell for one in found.values() for cell in one.cells()]
        table.append(f"| {task.name} | {' | '.join(cells)} |")
        print("\n".join(table), flush=True)
    text = "\n".join(["# Amortised posteriors", "", *(f"- {v}" for v in lines), "", *LEGEND, ""])
    if options.markdown:
        options.markdown.write_text(text + "\n" + "\n".join(table) + "\n")


if __name__ == "__main__":
    main()
