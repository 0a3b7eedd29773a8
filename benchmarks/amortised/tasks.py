"""The three problems: models, observations, and reference draws of their posteriors.

As in the benchmark of Lueckmann, Boelts, Greenberg, Gonçalves & Macke 2021, arXiv:2101.04653, with
observations of our own from the prior predictive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ppcore as pp
from ppcore import dist

TIMES = 10
STRIDE, STEP = 2.1, 0.1
DRAWS = 1000


@dataclass(frozen=True)
class Task:
    """A model whose site ``theta`` is wanted given ``y``.

    Attributes
    ----------
    model : Model
    reference : callable
        ``(y, n, seed) -> float[n, d]``: draws of θ | y that no simulation-based method made.
    """

    name: str
    model: Any
    reference: Callable[[np.ndarray, int, int], np.ndarray]

    def simulate(self, seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """θ: float[n, d] and y: float[n, m] from the joint."""
        drawn = self.model.simulate(seed, n)
        return drawn["theta"], drawn["y"].reshape(n, -1)

    def observation(self, number: int) -> np.ndarray:
        """The data of observation ``number``, as the site's value."""
        return np.asarray(self.model.simulate(10_000 + number, 1)["y"][0])


def moon(key: Any, theta: Any) -> Any:
    """A point on a half circle that |θ₁ + θ₂| and θ₂ − θ₁ push away."""
    k_angle, k_radius = jax.random.split(key)
    angle = jax.random.uniform(k_angle, minval=-0.5 * jnp.pi, maxval=0.5 * jnp.pi)
    radius = 0.1 + 0.01 * jax.random.normal(k_radius)
    arc = radius * jnp.array([jnp.cos(angle), jnp.sin(angle)]) + jnp.array([0.25, 0.0])
    push = jnp.array([-jnp.abs(theta[0] + theta[1]), theta[1] - theta[0]])
    return arc + push / jnp.sqrt(2.0)


@pp.model
def two_moons() -> None:
    """Two crescents in two dimensions; the simulator has no density."""
    theta = pp.sample("theta", dist.Uniform(-1, 1).expand([2]).to_event(1))
    pp.sample("y", pp.lift(moon, random=True)(theta))


def two_moons_reference(y: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Exact: |θ₁ + θ₂| and θ₂ − θ₁ are the arc less the data; the sign is a coin's."""
    rng = np.random.default_rng(seed)
    kept = np.empty((0, 2))
    while len(kept) < n:
        angle, radius = rng.uniform(-np.pi / 2, np.pi / 2, 4 * n), rng.normal(0.1, 0.01, 4 * n)
        s = radius * np.cos(angle) + 0.25 - y[0]
        t = y[1] - radius * np.sin(angle)
        sign = rng.choice([-1.0, 1.0], 4 * n)
        theta = np.stack([sign * s - t, sign * s + t], 1) / np.sqrt(2.0)
        kept = np.concatenate([kept, theta[(s >= 0) & (np.abs(theta) < 1).all(1)]])
    return kept[:n]


def _points(theta: Any) -> None:
    """Four points from the normal law with mean, scales θ² and correlation tanh θ₅."""
    s1, s2, rho = theta[2] ** 2, theta[3] ** 2, np.tanh(theta[4])
    rest = s2 / np.cosh(theta[4])
    lower = np.stack([np.stack([s1, 0.0 * s1]), np.stack([rho * s2, rest])])
    with pp.plate("point", 4):
        pp.sample("y", dist.MultivariateNormal(theta[:2], scale_tril=lower))


@pp.model
def slcp() -> None:
    """Simple likelihood, complex posterior: four modes in five dimensions."""
    _points(pp.sample("theta", dist.Uniform(-3, 3).expand([5]).to_event(1)))


@pp.model
def slcp_folded() -> None:
    """The quarter θ₃, θ₄ > 0: the density does not depend on their signs."""
    low = np.array([-3.0, -3.0, 0.0, 0.0, -3.0])
    _points(pp.sample("theta", dist.Uniform(low, 3.0).to_event(1)))


def slcp_reference(y: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Long chains in the quarter, and signs from two coins."""
    theta = _chains(slcp_folded(), y, n, seed)
    signs = np.random.default_rng([seed, 1]).choice([-1.0, 1.0], (n, 2))
    return np.concatenate([theta[:, :2], theta[:, 2:4] * signs, theta[:, 4:]], 1)


def _chains(model: Any, y: np.ndarray, n: int, seed: int) -> np.ndarray:
    fit = model.observe(y=y).infer("nuts", chains=8, draws=DRAWS, seed=seed, progress="off")
    print(f"    reference: R-hat {fit.attrs['health']['rhat']}, {fit.warnings}", flush=True)
    drawn = fit.draws("theta").reshape(-1, fit.sites["theta"][0])
    return np.random.default_rng([seed, 2]).choice(drawn, n, replace=False)


def populations(rates: Any) -> Any:
    """Log numbers of prey and predators at ten times; float[2, 10]. Runge–Kutta in log numbers.

    d log u = α − β v, d log v = −γ + δ u, from u = 30 and v = 1.
    """
    alpha, beta, gamma, delta = rates
    start = jnp.log(jnp.array([30.0, 1.0]))

    def slope(z: Any) -> Any:
        # Numbers beyond e^10 come from rates that the prior hardly has.
        u, v = jnp.exp(jnp.minimum(z[0], 10.0)), jnp.exp(jnp.minimum(z[1], 10.0))
        return jnp.array([alpha - beta * v, delta * u - gamma])

    def step(z: Any, _: Any) -> Any:
        a = slope(z)
        b = slope(z + 0.5 * STEP * a)
        c = slope(z + 0.5 * STEP * b)
        d = slope(z + STEP * c)
        return jnp.clip(z + STEP * (a + 2 * b + 2 * c + d) / 6, -23.0, 10.0), None

    def stretch(z: Any, _: Any) -> Any:
        return jax.lax.scan(step, z, None, length=round(STRIDE / STEP))[0], z

    return jax.lax.scan(stretch, start, None, length=TIMES)[1].T


@pp.model
def lotka_volterra() -> None:
    """Rates of predators and prey from numbers with log-normal noise of 10 %."""
    middle = np.array([-0.125, -3.0, -0.125, -3.0])
    theta = pp.sample("theta", dist.LogNormal(middle, 0.5).to_event(1))
    pp.sample("y", dist.LogNormal(pp.lift(populations)(theta), 0.1))


def lotka_volterra_reference(y: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Long chains on the likelihood through the differential equation."""
    return _chains(lotka_volterra(), y, n, seed)


def tasks() -> dict[str, Task]:
    """By name."""
    made = (
        Task("two_moons", two_moons(), two_moons_reference),
        Task("slcp", slcp(), slcp_reference),
        Task("lotka_volterra", lotka_volterra(), lotka_volterra_reference),
    )
    return {task.name: task for task in made}
