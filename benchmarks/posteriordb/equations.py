"""Differential equations observed with multiplicative noise, solved with fixed steps by scans."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

import ppcore as pp
from ppcore import Model, dist

Data = dict[str, Any]


def runge_kutta(slope: Callable[[Any], Any], state: Any, step: float) -> Any:
    """One step of the classical fourth-order Runge–Kutta method."""
    k1 = slope(state)
    k2 = slope(state + 0.5 * step * k1)
    k3 = slope(state + 0.5 * step * k2)
    k4 = slope(state + step * k3)
    return state + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


@pp.model
def predation(times, substeps):
    """u′ = (θ₁ − θ₂v)u, v′ = (−θ₃ + θ₄u)v; u and v observed at 0 and at times 1, 2, ….

    Solved for log u and log v, which cannot leave the populations' range.
    """
    loc, scale = np.array([1.0, 0.05, 1.0, 0.05]), np.array([0.5, 0.05, 0.5, 0.05])
    theta = pp.sample("theta", dist.TruncatedNormal(loc, scale, low=0.0))
    sigma = pp.sample("sigma", dist.LogNormal(-1, 1).expand([2]))
    start = pp.sample("z_init", dist.LogNormal(np.log(10), 1).expand([2]))
    growth = np.stack([theta[0], -theta[2]])
    contact = np.stack([-theta[1], theta[3]])

    def slope(log_z):
        return growth + contact * np.exp(log_z[::-1])

    def within(log_z, _):
        return runge_kutta(slope, log_z, 1.0 / substeps), None

    def year(log_z, _):
        log_z, _ = pp.scan(within, log_z, length=substeps)
        return log_z, log_z

    first = np.log(start)
    _, log_z = pp.scan(year, first, length=times)
    pp.sample("y_init", dist.LogNormal(first, sigma))
    pp.sample("y", dist.LogNormal(log_z, sigma))


def lotka_volterra(data: Data) -> Model:
    return predation(len(data["ts"]), 20).observe(y_init=data["y_init"], y=data["y"])


# An L-stable diagonally implicit Runge–Kutta method of order four, whose last stage is the step:
# E. Hairer, G. Wanner, Solving Ordinary Differential Equations II (1996), table IV.6.5.
_DIAGONAL = 1 / 4
_BELOW = (
    (),
    (1 / 2,),
    (17 / 50, -1 / 25),
    (371 / 1360, -137 / 2720, 15 / 544),
    (25 / 24, -49 / 48, 125 / 16, -85 / 12),
)
_NODES = (1 / 4, 3 / 4, 11 / 20, 1 / 2, 1)


def implicit_step(supply, k_m, v_m, c, time, step):
    """One step of C′ = supply(t) − v_m C / (k_m + C); every stage is a quadratic equation in C."""
    slopes = []
    for below, node in zip(_BELOW, _NODES, strict=True):
        h = _DIAGONAL * step
        known = c + step * sum(a * k for a, k in zip(below, slopes, strict=True))
        total = known + h * supply(time + node * step)
        half = 0.5 * (total - k_m - h * v_m)
        root = np.sqrt(half**2 + k_m * total)
        # The two forms of the larger root; each is exact where the other cancels.
        stage = np.where(half > 0, half + root, k_m * total / np.where(half > 0, 1.0, root - half))
        slopes.append((stage - known) / h)
    return stage


@pp.model
def absorption(times, steps, every, dose, volume):
    """C′ = (D k_a/V) exp(−k_a t) − (V_m/V) C/(K_m + C), C(0) = 0; Ĉ_n ~ LN(log C(t_n), σ).

    times, steps: start and length of each step; every ``every``-th ends at an observation.
    """
    k_a = pp.sample("k_a", dist.HalfCauchy(1))
    k_m = pp.sample("K_m", dist.HalfCauchy(1))
    v_m = pp.sample("V_m", dist.HalfCauchy(1))
    sigma = pp.sample("sigma", dist.HalfCauchy(1))

    def supply(time):
        return dose * k_a / volume * np.exp(-k_a * time)

    def advance(c, element):
        c = implicit_step(supply, k_m, v_m / volume, c, *element)
        return c, c

    _, c = pp.scan(advance, np.zeros(()), (times, steps))
    pp.sample("C_hat", dist.LogNormal(np.log(c[every - 1 :: every]), sigma))


def one_compartment(data: Data) -> Model:
    """The grid is refined towards 0, where C passes a small K_m within 10⁻⁵ units of time."""
    substeps, ends = 10, np.concatenate([[float(data["t0"])], data["times"]])
    share = np.linspace(0, 1, substeps + 1)
    nodes = [ends[0] + (ends[1] - ends[0]) * share**3]
    nodes += [a + (b - a) * share for a, b in pairwise(ends[1:])]
    starts = np.concatenate([n[:-1] for n in nodes])
    steps = np.concatenate([np.diff(n) for n in nodes])
    dose, volume = float(data["D"]), float(data["V"])
    model = absorption(starts, steps, substeps, dose, volume)
    return model.observe(C_hat=np.ravel(data["C_hat"]))
