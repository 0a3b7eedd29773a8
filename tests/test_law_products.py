"""Products of laws: path weights with mean Z, weights by scores alone, and targets for engines."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learned_laws import END, Line, grid
from ppcore_diffusion import combination, score_product
from ppcore_diffusion.noising import Noise, noised_mixture
from scipy.stats import norm

from ppcore import precision
from ppcore.errors import SettingsError, UnsupportedError
from ppcore.fit import infer


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with precision.scope("float64"):
        yield


def experts(noise: Noise | None = None) -> tuple[Any, Any]:
    """Two laws on the line, one of them with two modes."""
    first = noised_mixture([0.4, 0.6], [[-1.0], [1.0]], [[[0.3]], [[0.5]]], noise)
    return first, noised_mixture([1.0], [[0.5]], [[[0.8]]], noise)


EXPONENTS = [(1.0, 1.0), (0.3, 0.7), (1.5, -0.4)]


def log_product(x: np.ndarray, exponents: Any, end: float, noise: Noise | None = None) -> Any:
    parts = experts(noise)
    return sum(
        a * np.asarray(jax.vmap(lambda v, p=p: p.log_density(v, end))(x))
        for a, p in zip(exponents, parts, strict=True)
    )


@pytest.mark.parametrize("exponents", EXPONENTS[::2], ids=str)
def test_path_weights_of_a_product_have_mean_z_at_two_coarse_steps(
    exponents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E[w] over the start and the noise of both steps by Gauss–Hermite, for steps of any size."""
    monkeypatch.setattr(combination.random, "normal", lambda key, shape, dtype=None: key)
    path = combination.noised_product(experts(), exponents)
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    weights = weights / weights.sum()
    total = sum(exponents)
    betas = (0.0, 0.96, 1.0)

    def log_w(u: Any, z: Any) -> Any:
        x = jnp.full(1, u / np.sqrt(total))
        log_q = norm_log(u) + 0.5 * np.log(total)
        found = path.at(0.0).log_density(x) - log_q
        for k in range(2):
            a, b = betas[k], betas[k + 1]
            y = combination.DENOISING.forward(z[k][None], path, a, b, x, ())
            step = path.at(b).log_density(y) - path.at(a).log_density(x)
            found = found + step + combination.DENOISING.log_b_over_f(path, a, b, x, y, ())
            x = y
        return found

    def norm_log(u: Any) -> Any:
        return -0.5 * u**2 - 0.5 * np.log(2 * np.pi)

    z = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
    share = np.outer(weights, weights).ravel()
    table = jax.jit(jax.vmap(lambda u: jax.vmap(lambda v: log_w(u, v))(z)))(nodes)
    mean = float(weights @ (np.exp(np.asarray(table)) @ share))
    x, cell = grid(-10.0, 10.0, 4001, 1)
    truth = np.exp(log_product(x, exponents, 0.0)).sum() * cell
    assert abs(mean / truth - 1) < 2e-3, (mean, truth)


@pytest.mark.parametrize("exponents", EXPONENTS[:1], ids=str)
def test_a_denoised_product_has_the_moments_and_the_evidence_of_the_product(exponents: Any) -> None:
    x, cell = grid(-10.0, 10.0, 4001, 1)
    p = np.exp(log_product(x, exponents, 0.0)) * cell
    mean = (p @ x[:, 0]) / p.sum()
    made = [
        combination.denoise_product(key, experts(), 1000, exponents, steps=16)
        for key in jax.random.split(jax.random.key(0), 12)
    ]
    ratios = np.exp([float(m.log_z) for m in made]) / p.sum()
    weighted = np.array([float(m.weights @ m.x[:, 0]) for m in made]) * ratios
    for values, truth in ((ratios, 1.0), (weighted, mean)):
        assert abs(values.mean() - truth) < 5 * values.std(ddof=1) / np.sqrt(12)
    assert ratios.std() < 0.1


def test_where_all_laws_are_standard_normal_no_step_adds_to_the_weights() -> None:
    unit = noised_mixture([1.0], [[0.0]], [[[1.0]]])
    path = combination.noised_product((unit, unit), (1.4, 0.8))

    @jax.jit
    def gains(x: Any, y: Any) -> Any:
        step = path.at(0.7).log_density(y) - path.at(0.2).log_density(x)
        log_g = step + combination.DENOISING.log_b_over_f(path, 0.2, 0.7, x, y, ())
        return jnp.stack([log_g, score_product.growth(path, x, 0.4)])

    assert np.abs(gains(jnp.array([1.3]), jnp.array([-0.4]))).max() < 1e-9


@pytest.mark.parametrize("exponents", EXPONENTS[1:], ids=str)
def test_weights_by_scores_alone_are_off_by_the_first_order(exponents: Any) -> None:
    """E[Ẑ] as a product of transfer operators on a grid: no sampling at all."""
    noise = Noise(0.1, 60.0)
    path = combination.noised_product(experts(noise), exponents, END)
    x, cell = grid(-7.0, 7.0, 561, 1)
    truth = np.exp(log_product(x, exponents, END, noise)).sum() * cell
    total = sum(exponents)

    @jax.jit
    def step(mass: Any, a: Any, b: Any) -> Any:
        s, t = path.time(a), path.time(b)
        mean, _, variance = jax.vmap(lambda v: combination.backwards(path, a, b, v))(x)
        log_f = -0.5 * (x[:, 0] - mean) ** 2 / variance[:, None]
        log_f = log_f - 0.5 * jnp.log(2 * jnp.pi * variance)[:, None]
        growth = jax.vmap(lambda v: score_product.growth(path, v, s))(x)
        return cell * (mass * jnp.exp((s - t) * growth)) @ jnp.exp(log_f)

    errors = []
    for steps in (50, 100):
        mass = norm.pdf(x[:, 0], 0, total**-0.5) * np.exp(float(combination.log_normaliser(path)))
        for k in range(steps):
            mass = step(mass, k / steps, (k + 1) / steps)
        errors.append(abs(float(jnp.sum(mass)) * cell / truth - 1))
    assert 0.7 < np.log2(errors[0] / errors[1]) < 1.4, errors


def test_a_product_of_densities_is_a_target_for_any_engine() -> None:
    """(N(0, 1), N(1, 2)): the product is N(1/3, 2/3) with Z = N(1; 0, 3)."""
    parts = [noised_mixture([1.0], [[m]], [[[v]]]) for m, v in ((0.0, 1.0), (1.0, 2.0))]
    target = combination.product(parts)
    x = jnp.array([0.4])
    truth = norm.logpdf(0.4, 1 / 3, np.sqrt(2 / 3)) + norm.logpdf(1.0, 0.0, np.sqrt(3.0))
    assert np.isclose(target.log_density(x), truth)
    assert np.isclose(target.tempered(0.0).log_density(x), norm.logpdf(0.4))
    half = combination.product(parts, (0.5, 0.5)).log_density(x)
    assert np.isclose(half, 0.5 * sum(p.log_prob(x) for p in parts))
    fit = infer(target, "importance", draws=2000, chains=2, seed=1)
    found = fit.log_evidence
    assert abs(found.value - norm.logpdf(1.0, 0.0, np.sqrt(3.0))) < 5 * found.error


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: combination.product([]), "no law"),
        (lambda: combination.product(experts(), (1.0,)), "2 finite numbers"),
        (lambda: combination.noised_product(experts(), (1.0, -1.0)), "must be positive"),
        (lambda: combination.noised_product((experts()[0], *experts(Noise(0.1, 9.0)))), "noised"),
    ],
)
def test_laws_and_exponents_that_do_not_fit(make: Any, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        make()


def test_laws_without_a_density_are_not_combined_as_if_they_had_one() -> None:
    score_only = SimpleNamespace(dim=1, noise=Noise(), score=Line().score)
    with pytest.raises(UnsupportedError, match="denoise_scores"):
        combination.denoise_product(jax.random.key(0), (score_only,), 10)
    with pytest.raises(UnsupportedError, match="denoise_product"):
        combination.product((score_only,))
    bare = SimpleNamespace(dim=1, log_prob=None, sample=None)
    with pytest.raises(UnsupportedError, match="no score"):
        combination.noised_product((bare,))
