"""Distributions that torch lacks: normalised densities, and draws that follow them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from ppcore import dist
from ppcore.dist import Description

torch = pytest.importorskip("torch")
pytest.importorskip("ppcore_pyro.build")

from ppcore_pyro.build import build  # noqa: E402
from ppcore_pyro.describe import describe  # noqa: E402

DRAWS = 4000
# Chance that any of the comparisons below fails although all draws are right.
FAMILY_ERROR = 1e-3
LINE: dict[str, tuple[Description, tuple[float, float]]] = {
    "levy": (dist.Levy(0.5, 1.0), (0.5, np.inf)),
    "gompertz": (dist.Gompertz(0.7, 1.5), (0.0, np.inf)),
    "log-uniform": (dist.LogUniform(0.5, 3.0), (0.5, 3.0)),
    "von Mises": (dist.VonMises(0.5, 2.0), (-np.pi, np.pi)),
    "left": (dist.TruncatedNormal(0.3, 2.0, low=-1.0), (-1.0, np.inf)),
    "left, in the tail": (dist.TruncatedNormal(0.0, 1.0, low=3.0), (3.0, np.inf)),
    "right": (dist.TruncatedDistribution(dist.Logistic(0.5, 1.0), high=0.0), (-np.inf, 0.0)),
    "both": (dist.TruncatedCauchy(0.0, 1.0, low=1.0, high=4.0), (1.0, 4.0)),
    "mixture": (
        dist.MixtureGeneral(
            dist.Categorical(probs=np.array([0.3, 0.7])),
            [dist.Normal(-1.0, 0.5), dist.Laplace(1.0, 1.0)],
        ),
        (-np.inf, np.inf),
    ),
}


def _grid(low: float, high: float, count: int = 40001) -> Any:
    """Points of an interval, dense where a bounded map of them is even, and their spacing."""
    u = (np.arange(count) + 0.5) / count
    if np.isfinite([low, high]).all():
        return low + (high - low) * u, np.full(count, (high - low) / count)
    if np.isfinite(low) or np.isfinite(high):
        y, slope = u / (1 - u), 1 / (1 - u) ** 2
        return (
            (low + y, slope / count) if np.isfinite(low) else (high - y[::-1], slope[::-1] / count)
        )
    y, slope = stats.logistic.ppf(u), 1 / (u * (1 - u))
    return 3 * y, 3 * slope / count


@pytest.mark.parametrize("name", LINE)
def test_on_the_line(name: str) -> None:
    description, (low, high) = LINE[name]
    law = build(description)
    x, width = _grid(low, high)
    mass = np.exp(law.log_prob(torch.tensor(x)).numpy()) * width
    # Lévy's tail beyond the last point of the grid holds 0.5 %.
    assert abs(mass.sum() - 1) < (6e-3 if name == "levy" else 1e-3)
    torch.manual_seed(11)
    draws = law.expand([DRAWS]).sample().numpy()
    assert (draws >= low).all() and (draws <= high).all()
    cdf = np.cumsum(mass)
    p = stats.kstest(draws, lambda v: np.interp(v, x, cdf)).pvalue
    assert p > FAMILY_ERROR / len(LINE), f"p = {p:.2g}"


def test_counts() -> None:
    uniform = build(dist.DiscreteUniform(2, 6))
    assert uniform.enumerate_support().tolist() == [2, 3, 4, 5, 6]
    assert torch.exp(uniform.log_prob(torch.arange(0.0, 9.0))).sum() == pytest.approx(1)
    base = dist.Poisson(2.0)
    for gate in ({"gate": 0.3}, {"gate_logits": float(np.log(0.3 / 0.7))}):
        law = build(dist.ZeroInflatedDistribution(base, **gate))
        p = torch.exp(law.log_prob(torch.arange(0.0, 40.0, dtype=torch.float64))).numpy()
        assert p.sum() == pytest.approx(1) and p[0] == pytest.approx(0.3 + 0.7 * np.exp(-2))
        torch.manual_seed(12)
        zeros = int((law.expand([DRAWS]).sample() == 0).sum())
        assert stats.binomtest(zeros, DRAWS, p[0]).pvalue > FAMILY_ERROR / 2


def test_vectors_have_the_moments_of_their_laws() -> None:
    torch.manual_seed(13)
    walk = build(dist.GaussianRandomWalk(0.5, num_steps=3)).sample((DRAWS,)).numpy()
    _close(walk, 0.25 * np.minimum.outer([1, 2, 3], [1, 2, 3]))
    zero = build(dist.ZeroSumNormal(2.0, event_shape=(4,))).sample((DRAWS,)).numpy()
    np.testing.assert_allclose(zero.sum(-1), 0, atol=1e-12)
    _close(zero, 4 * (np.eye(4) - 0.25))
    edges = np.array([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]])
    car = build(dist.CAR(np.zeros(3), 0.5, 2.0, edges)).sample((DRAWS,)).numpy()
    _close(car, np.linalg.inv(2 * (np.diag(edges.sum(1)) - 0.5 * edges)))


def _close(draws: np.ndarray, covariance: np.ndarray) -> None:
    """Second moments within five standard errors; the law is normal about zero."""
    scale = np.sqrt(np.outer(*[np.diag(covariance)] * 2) + covariance**2) / np.sqrt(len(draws))
    assert (np.abs(draws.T @ draws / len(draws) - covariance) < 5 * scale).all()


def test_inverse_wishart_has_its_mean() -> None:
    scale = np.array([[2.0, 0.5], [0.5, 1.0]])
    torch.manual_seed(14)
    factor = build(dist.InverseWishartCholesky(12.0, scale_matrix=scale)).sample((DRAWS,)).numpy()
    matrices = factor @ np.swapaxes(factor, 1, 2)
    error = matrices.std(0) / np.sqrt(DRAWS)
    assert (np.abs(matrices.mean(0) - scale / (12 - 2 - 1)) < 5 * error).all()


@pytest.mark.parametrize("name", LINE)
def test_descriptions_survive(name: str) -> None:
    """``describe`` undoes ``build``."""
    description = LINE[name][0]
    again = build(describe(build(description), lambda value: value))
    x = torch.tensor([1.5, 2.5], dtype=torch.float64)
    if name == "right":
        x = -x
    if name == "left, in the tail":
        x = x + 2
    np.testing.assert_allclose(again.log_prob(x), build(description).log_prob(x), rtol=1e-14)
