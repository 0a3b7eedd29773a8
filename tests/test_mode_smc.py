"""SMC from all modes: the mixture is normalised, every mode is found, and too many are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ppcore_smc.mode_smc import ModeSMC
from ppcore_smc.modes import ModeMixture, Modes, mixture
from scipy import stats

from ppcore import precision
from ppcore.errors import SettingsError, UnsupportedError
from ppcore.target import DensityTarget
from ppcore.tuning.laplace import Laplace

DIM, COUNT = 20, 6
CENTRES = np.random.Generator(np.random.PCG64(3)).uniform(-15, 15, (COUNT, DIM))


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with precision.scope("float64"):
        yield


def silent(_: Any) -> None:
    """Takes reports."""


def far_apart(x: Any, data: Any) -> Any:
    """Σ_k N(m_k, I)/6 or Σ_k Π_i t(2)/6, by ``data["tails"]``, times e^0.4."""
    off = x - data["centres"]
    normal = jax.scipy.stats.norm.logpdf(off).sum(-1)
    student = -1.5 * jnp.log(2 + off**2).sum(-1)
    return 0.4 + jax.nn.logsumexp(jnp.where(data["tails"], student, normal)) - jnp.log(COUNT)


def wide(x: Any, data: Any) -> Any:
    return jax.scipy.stats.norm.logpdf(x, 0.0, 9.0).sum()


def draw(key: Any, data: Any) -> Any:
    return 9.0 * jax.random.normal(key, (DIM,))


@pytest.mark.parametrize("tails", [False, True])
def test_every_mode_is_found_and_the_evidence(tails: bool) -> None:
    """Six modes in 20 dimensions, 50 deviations apart; Gaussian tails, and those of t(2)."""
    data = {"centres": CENTRES, "tails": np.array(tails)}
    target = DensityTarget(far_apart, DIM, data, wide, draw)
    made = ModeSMC(climbs=512).populate(jax.random.key(0), target, 512, silent)
    x, w = np.asarray(made.population.x), np.asarray(made.population.weights)
    near = np.argmin(((x[:, None] - CENTRES) ** 2).sum(-1), axis=1)
    share = np.bincount(near, weights=w, minlength=COUNT)
    assert np.allclose(share, 1 / COUNT, atol=5 * np.sqrt(1 / COUNT / 512))
    assert abs(float(made.population.log_z) - 0.4) < 0.1
    assert made.gradients > 512 and "found 6 modes, 0 of them once" in made.notes[0]


def some_mixture(degrees: float, defence: float) -> ModeMixture:
    """Two places and one that is not used, with a reference N(0, 9²)."""

    def none(x: Any, data: Any) -> Any:
        return jnp.zeros(())

    def reference(x: Any, data: Any) -> Any:
        return jax.scipy.stats.norm.logpdf(x[0], 0.0, 9.0)

    def drawn(key: Any, data: Any) -> Any:
        return 9.0 * jax.random.normal(key, (1,))

    factor = jnp.array([[[0.5]], [[2.0]], [[1.0]]])
    return ModeMixture(
        jnp.log(jnp.array([0.3, 0.7, 0.0])),
        jnp.array([[-2.0], [3.0], [0.0]]),
        factor,
        1 / factor,
        jnp.asarray(degrees),
        DensityTarget(none, 1, (), reference, drawn),
        jnp.asarray(defence),
    )


@pytest.mark.parametrize("degrees, defence", [(2.0, 0.1), (1e6, 0.0)])
def test_the_mixture_is_normalised_and_its_draws_follow_it(degrees: float, defence: float) -> None:
    """Against the closed form, and draws by their quantiles in it (Kolmogorov, level 1e-4)."""
    law, scale = some_mixture(degrees, defence), np.sqrt((degrees + 1) / degrees)

    def cumulative(x: np.ndarray) -> np.ndarray:
        first, second = ((x + 2) / 0.5 / scale, (x - 3) / 2 / scale)
        own = 0.3 * stats.t.cdf(first, degrees) + 0.7 * stats.t.cdf(second, degrees)
        return (1 - defence) * own + defence * stats.norm.cdf(x, 0, 9)

    at = np.linspace(-6, 8, 57)
    slope = (cumulative(at + 1e-4) - cumulative(at - 1e-4)) / 2e-4
    density = np.exp(np.asarray(jax.vmap(law.log_density)(at[:, None])))
    np.testing.assert_allclose(density, slope, rtol=1e-5)
    x = np.asarray(law.sample_reference(jax.random.key(1), 4000))[:, 0]
    assert stats.kstest(x, cumulative).pvalue > 1e-4


def many(x: Any, data: Any) -> Any:
    """4096 modes: a double well in each of twelve coordinates."""
    return -jnp.sum((x**2 - 4.0) ** 2)


def test_too_many_modes_are_refused() -> None:
    def reference(x: Any, data: Any) -> Any:
        return jax.scipy.stats.norm.logpdf(x, 0.0, 2.0).sum()

    def drawn(key: Any, data: Any) -> Any:
        return 2.0 * jax.random.normal(key, (12,))

    target = DensityTarget(many, 12, (), reference, drawn)
    with pytest.raises(UnsupportedError, match="more than unseen=0.02 allows"):
        ModeSMC(climbs=128).populate(jax.random.key(0), target, 64, silent)


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(UnsupportedError, match="None of 7 climbs"):
        mixture(Modes([], np.zeros(0, int), 7, 7), some_mixture(2.0, 0.1).target, 8)
    with pytest.raises(SettingsError, match="unseen"):
        ModeSMC(unseen=1.5)
    with pytest.raises(SettingsError, match="move='hcm'"):
        ModeSMC(move="hcm")


def test_a_mode_more_needs_no_other_program() -> None:
    target = some_mixture(2.0, 0.1).target
    modes = [Laplace(np.array([float(i)]), np.eye(1), 0.0, True) for i in range(4)]
    three, four = (mixture(Modes(modes[:k], np.full(k, 2), 9, 9), target, 8) for k in (3, 4))
    assert three.mean.shape == four.mean.shape
    assert np.isneginf(three.log_share).sum() == 1 and np.exp(three.log_share).sum() == 1.0
