"""``python -m benchmarks.filtering``: chains of 10⁵ steps beside statsmodels (and hmmlearn).

Seconds to the log evidence (filter), and to all smoothed means and variances (both). The first
call of ppcore compiles; a second one on other data of the same length does not. Every line says how
far the results are apart, so that what is fast is also right.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

import ppcore as pp
from benchmarks.machine import header, installed
from ppcore import dist
from ppcore.exact.forward_backward_solver import solve_forward_backward
from ppcore.exact.kalman_solver import solve_kalman

PACKAGES = ("ppcore", "jax", "jaxlib", "numpy", "statsmodels", "hmmlearn")
MOVES = np.array([[0.95, 0.04, 0.01], [0.03, 0.94, 0.03], [0.01, 0.04, 0.95]])
MEANS = np.array([-1.0, 0.0, 2.0])
START = np.full(3, 1 / 3) @ MOVES @ MOVES  # statsmodels starts two steps before the first datum
SD = {"level": 0.1, "slope": 0.02, "noise": 1.0}


@pp.model
def trend(n):
    """A local linear trend."""

    def step(carry, _):
        level, slope = carry
        pp.sample("y", dist.Normal(level, SD["noise"]))
        new = pp.sample("level", dist.Normal(level + slope, SD["level"]))
        slope = pp.sample("slope", dist.Normal(slope, SD["slope"]))
        return (new, slope), None

    level = pp.sample("level0", dist.Normal(0, 1))
    slope = pp.sample("slope0", dist.Normal(0, 1))
    pp.scan(step, (level, slope), length=n)


@pp.model
def hmm(n):
    """Three states, normal emissions."""

    def step(z, _):
        pp.sample("y", dist.Normal(pp.math.get_at(MEANS, z), 1.0))
        return pp.sample("z", dist.Categorical(pp.math.get_at(MOVES, z))), None

    pp.scan(step, pp.sample("z0", dist.Categorical(START)), length=n)


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    out = run()
    return time.perf_counter() - began, out


def kalman(y: np.ndarray) -> tuple[float, float, float, np.ndarray]:
    """Seconds to filter, and to smooth as well; log evidence; smoothed means of the level."""
    model = trend(len(y)).observe(y=y)
    filtering, solution = timed(lambda: solve_kalman(model.diagram, model.data, model.evidence))
    smoothing, law = timed(lambda: solution.marginal("level"))
    return filtering, filtering + smoothing, solution.log_evidence, law.mean[:-1]


def statsmodels(y: np.ndarray) -> tuple[float, float, float, np.ndarray]:
    from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

    model = KalmanSmoother(1, 2, k_posdef=2)
    model.bind(y[:, None].copy())
    model["design"], model["transition"] = [[1.0, 0.0]], [[1.0, 1.0], [0.0, 1.0]]
    model["selection"] = np.eye(2)
    model["state_cov"] = np.diag([SD["level"] ** 2, SD["slope"] ** 2])
    model["obs_cov"] = [[SD["noise"] ** 2]]
    model.initialize_known(np.zeros(2), np.eye(2))
    model.tolerance = 0
    filtering, found = timed(lambda: model.filter().llf)
    both, smooth = timed(model.smooth)
    return filtering, both, found, smooth.smoothed_state[0, 1:]


def forward_backward(y: np.ndarray) -> tuple[float, float, float, np.ndarray]:
    model = hmm(len(y)).observe(y=y)
    filtering, solution = timed(
        lambda: solve_forward_backward(model.diagram, model.data, model.evidence)
    )
    smoothing, law = timed(lambda: solution.marginal("z").probs)
    return filtering, filtering + smoothing, solution.log_evidence, law[:-1, 0]


def hmmlearn(y: np.ndarray) -> tuple[float, float, float, np.ndarray]:
    from hmmlearn.hmm import GaussianHMM

    model = GaussianHMM(3, covariance_type="spherical")
    model.startprob_, model.transmat_ = START, MOVES
    model.means_, model.covars_ = MEANS[:, None], np.ones(3)
    filtering, found = timed(lambda: model.score(y[:, None]))
    both, probs = timed(lambda: model.predict_proba(y[:, None]))
    return filtering, both, found, probs[1:, 0]


def statsmodels_hmm(y: np.ndarray) -> tuple[float, float, float, np.ndarray]:
    """statsmodels' Hamilton filter and Kim smoother, at the given parameters."""
    from statsmodels.tsa.regime_switching.markov_regression import MarkovRegression

    model = MarkovRegression(y, k_regimes=3)
    model.initialize_known(np.full(3, 1 / 3))
    moves = MOVES[:, :2].ravel()  # P[0→0], P[0→1], …: the last column is implied
    order = [f"p[{i}->{j}]" for i in range(3) for j in range(2)]
    values = dict(zip(order, moves, strict=True))
    values |= {f"const[{i}]": m for i, m in enumerate(MEANS)} | {"sigma2": 1.0}
    params = np.array([values[name] for name in model.param_names])
    filtering, found = timed(lambda: model.filter(params).llf)
    both, smooth = timed(lambda: model.smooth(params))
    return filtering, both, found, smooth.smoothed_marginal_probabilities[1:, 0]


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.filtering", description=__doc__)
    parser.add_argument("--length", type=int, default=100_000)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    print(*header(PACKAGES, vars(options)), "", sep="\n")
    print(f"{'':24}{'filter s':>10}{'both s':>10}{'ratio':>8}  agreement")
    pairs = [("Kalman", kalman, "statsmodels", statsmodels)]
    pairs.append(("forward-backward", forward_backward, "statsmodels", statsmodels_hmm))
    if installed("hmmlearn") is not None:
        pairs.append(("forward-backward", forward_backward, "hmmlearn", hmmlearn))
    for ours, solve, theirs, peer in pairs:
        compare(ours, solve, theirs, peer, options.length, options.repetitions)
    return 0


def compare(
    ours: str,
    solve: Callable[[np.ndarray], Any],
    theirs: str,
    peer: Callable[[np.ndarray], Any],
    length: int,
    repetitions: int,
) -> None:
    """Three lines: the first call, later ones, and the peer."""
    rng = np.random.default_rng(0)
    first = solve(rng.normal(size=length))
    rows = []
    for _ in range(repetitions):
        y = rng.normal(size=length)
        rows.append((solve(y), peer(y)))
    mine = [median(r[0][i] for r in rows) for i in (0, 1)]
    other = [median(r[1][i] for r in rows) for i in (0, 1)]
    evidence = max(abs(a[2] / b[2] - 1) for a, b in rows)
    means = max(float(abs(a[3] - b[3]).max()) for a, b in rows)
    print(f"{ours + ', first call':24}{first[0]:10.2f}{first[1]:10.2f}")
    agreement = f"evidence {evidence:.0e} (relative), smoothed {means:.0e}"
    print(f"{ours:24}{mine[0]:10.3f}{mine[1]:10.3f}{'':8}  {agreement}")
    ratio = mine[1] / other[1]
    print(f"{theirs:24}{other[0]:10.3f}{other[1]:10.3f}{ratio:8.2f}  (ppcore's time / this)")


if __name__ == "__main__":
    raise SystemExit(main())
