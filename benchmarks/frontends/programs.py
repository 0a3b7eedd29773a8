"""Five Pyro programs with their data, as Pyro's documentation writes such models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

Arguments = tuple[Any, ...]


def eight_schools(sigma: Any, y: Any) -> None:
    """Non-centred, as in arXiv:1312.0906; ten parameters."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(sigma)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu + tau * z, sigma), obs=y)


def logistic_regression(x: Any, y: Any) -> None:
    """Bernoulli outcomes on standardised covariates."""
    a = pyro.sample("a", dist.Normal(0.0, 2.5))
    beta = pyro.sample("beta", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
    with pyro.plate("row", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=a + x @ beta), obs=y)


def hierarchical_regression(floor: Any, county: Any, counties: int, y: Any) -> None:
    """Intercepts that vary by county, a slope they share, two plates."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("county", counties):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    alpha = mu + tau * z
    with pyro.plate("home", len(y)):
        pyro.sample("y", dist.Normal(alpha[county] + slope * floor, sigma), obs=y)


def hidden_markov(states: int, y: Any) -> None:
    """A chain of labels that are enumerated, and a Gaussian around the mean of each."""
    stay = dist.Dirichlet(torch.ones(states) + 4 * torch.eye(states))
    rows = pyro.sample("rows", stay.to_event(1))
    mu = pyro.sample("mu", dist.Normal(torch.linspace(-2.0, 2.0, states), 1.0).to_event(1))
    sigma = pyro.sample("sigma", dist.LogNormal(-0.5, 0.5))
    x: Any = 0
    for t in pyro.markov(range(len(y))):
        x = pyro.sample(f"x_{t}", dist.Categorical(rows[x]), infer={"enumerate": "parallel"})
        pyro.sample(f"y_{t}", dist.Normal(mu[x], sigma), obs=y[t])


def baseball(at_bats: Any, hits: Any) -> None:
    """Partial pooling of batting averages, the third model of Pyro's example of that name."""
    phi = pyro.sample("phi", dist.Uniform(0.0, 1.0))
    kappa = pyro.sample("kappa", dist.Pareto(1.0, 1.5))
    with pyro.plate("player", len(at_bats)):
        average = pyro.sample("average", dist.Beta(phi * kappa, (1 - phi) * kappa))
        pyro.sample("hits", dist.Binomial(at_bats, average), obs=hits)


def _schools() -> Arguments:
    y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    return torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]), y


def _logistic() -> Arguments:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((500, 8))
    p = 1 / (1 + np.exp(-(x @ np.linspace(-1, 1, 8) + 0.3)))
    return torch.tensor(x), torch.tensor((rng.random(500) < p).astype(float))


def _hierarchical() -> Arguments:
    rng = np.random.default_rng(2)
    homes, counties = 900, 85
    county = rng.integers(0, counties, homes)
    floor = (rng.random(homes) < 0.2).astype(float)
    y = (1.4 + 0.4 * rng.standard_normal(counties))[county] - 0.7 * floor
    y = y + 0.75 * rng.standard_normal(homes)
    return torch.tensor(floor), torch.tensor(county), counties, torch.tensor(y)


def _hidden() -> Arguments:
    rng = np.random.default_rng(3)
    x, y = 0, []
    for _ in range(40):
        x = x if rng.random() < 0.8 else int(rng.integers(0, 3))
        y.append([-2.0, 0.0, 2.0][x] + 0.6 * rng.standard_normal())
    return 3, torch.tensor(y)


def _baseball() -> Arguments:
    """The first 45 times at bat of 18 players in 1970; Efron & Morris 1975,
    doi:10.1080/01621459.1975.10479864."""
    hits = [18, 17, 16, 15, 14, 14, 13, 12, 11, 11, 10, 10, 10, 10, 10, 9, 8, 7]
    return torch.full((18,), 45.0), torch.tensor(hits, dtype=torch.get_default_dtype())


@dataclass(frozen=True)
class Case:
    """A program, its data, and its continuous latent sites."""

    program: Callable[..., None]
    data: Callable[[], Arguments]
    sites: tuple[str, ...]


PROGRAMS = {
    "eight schools": Case(eight_schools, _schools, ("mu", "tau", "z")),
    "logistic regression": Case(logistic_regression, _logistic, ("a", "beta")),
    "hierarchical regression": Case(
        hierarchical_regression, _hierarchical, ("mu", "tau", "slope", "sigma", "z")
    ),
    "hidden Markov model": Case(hidden_markov, _hidden, ("rows", "mu", "sigma")),
    "baseball": Case(baseball, _baseball, ("phi", "kappa", "average")),
}
