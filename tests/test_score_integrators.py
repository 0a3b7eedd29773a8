"""Walks from noise back along a score, of the order that they state; scores that are learned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learned_laws import END, Line
from ppcore_diffusion.exponential import Exponential, Multistep
from ppcore_diffusion.integrators import EulerMaruyama, PredictorCorrector, ProbabilityFlow, denoise
from ppcore_diffusion.noising import Noise, learn_score, noised_mixture
from ppcore_diffusion.regression import Schedule

from ppcore import contract as rules
from ppcore import precision
from ppcore.errors import SettingsError


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with precision.scope("float64"):
        yield


FLOWS: list[tuple[Any, int, float]] = [
    (ProbabilityFlow("euler"), 64, 1),
    (ProbabilityFlow("heun"), 64, 2),
    (ProbabilityFlow("rk4"), 32, 4),
    (Exponential(1), 64, 1),
    (Exponential(2), 32, 2),
    (Exponential(3), 64, 3),
    (Multistep(2), 64, 2),
    (Multistep(3), 64, 3),
]


@pytest.mark.parametrize(("integrator", "count", "order"), FLOWS, ids=lambda v: repr(v))
def test_the_error_of_a_flow_shrinks_with_the_order_that_it_states(
    integrator: Any, count: int, order: float
) -> None:
    """On the line the probability flow keeps the distribution function: F_t(X_t) = F_1(X_1)."""
    law, x = Line(), np.array([[-1.2], [-0.3], [0.2], [1.7]])
    truth = law.cdf(x, 1.0)
    errors = []
    for steps in (count, 2 * count):
        walk = jax.jit(jax.vmap(integrator.walk, (None, 0, None, None)))
        end = walk(law, x, law.noise.grid(steps, END), jnp.zeros((steps, 0, 1)))
        errors.append(np.abs(law.cdf(np.asarray(end), END) - truth).max())
    slope = np.log2(errors[0] / errors[1])
    assert abs(slope - order) < 0.35, (errors, slope)
    assert integrator.contract == rules.Biased(order=order)


@pytest.mark.parametrize(
    "integrator",
    [EulerMaruyama(), PredictorCorrector(Exponential(1), steps=2)],
    ids=["euler_maruyama", "corrected_exponential"],
)
def test_stochastic_integrators_are_of_weak_order_one(integrator: Any) -> None:
    """For a Gaussian every step is affine, so that mean and variance follow exactly."""
    law = noised_mixture([1.0], [[1.5]], [[[0.2]]])

    def moments(times: Any) -> Any:
        alpha = law.noise.alpha(1.0)
        begin = 1.5 * alpha, 0.2 * alpha**2 + 1.0 - alpha**2

        def advance(carry: Any, at: Any) -> tuple[Any, None]:
            mean, variance = carry
            s, t = at
            none = jnp.zeros((integrator.noises, 1))
            step = lambda x, z: integrator.step(law, s, t, x, z)  # noqa: E731
            slope, gain = jax.jacfwd(step, (0, 1))(jnp.full(1, mean), none)
            after = slope[0, 0] ** 2 * variance + jnp.sum(gain**2)
            return (step(jnp.full(1, mean), none)[0], after), None

        return jax.lax.scan(advance, begin, (times[:-1], times[1:]))[0]

    found = jax.jit(moments)
    alpha = law.noise.alpha(END)
    truth = np.array([1.5 * alpha, 0.2 * alpha**2 + 1 - alpha**2])
    errors = []
    for steps in (200, 400):
        errors.append(np.abs(np.asarray(found(law.noise.grid(steps, END))) - truth).max())
    assert abs(np.log2(errors[0] / errors[1]) - 1) < 0.2, errors


def test_the_likelihood_of_the_probability_flow_is_exact_up_to_its_order() -> None:
    law = Line(Noise(0.1, 60.0))  # enough noise that p_1 is N(0, 1) to rounding
    x = np.array([[-1.4], [0.1], [1.0]])
    truth = np.array([law.log_density(v, END) for v in x])
    errors = []
    for steps in (64, 128):
        times = law.noise.grid(steps, END)
        log_prob = jax.jit(jax.vmap(lambda v, t=times: ProbabilityFlow("rk4").log_prob(law, v, t)))
        errors.append(np.abs(np.asarray(log_prob(x)) - truth).max())
    assert abs(np.log2(errors[0] / errors[1]) - 4) < 0.4 and errors[1] < 1e-4, errors


def test_noise_and_mixtures_agree_with_their_definitions() -> None:
    noise = Noise()
    t = np.array([1e-3, 0.1, 0.5, 1.0])
    assert np.allclose(noise.time(noise.log_snr(t)), t)
    assert np.allclose(noise.alpha(t) ** 2 + noise.sigma(t) ** 2, 1)
    slope = jax.vmap(jax.grad(noise.log_alpha))(jnp.asarray(t))
    assert np.allclose(slope, -0.5 * noise.beta(t))
    law = noised_mixture(Line.shares, Line.means[:, None], Line.variances[:, None, None])
    for t in (0.0, 0.3, 1.0):
        x = jnp.array([0.7])
        assert np.isclose(law.log_density(x, t), Line().log_density(x, t))
        assert np.allclose(law.score(x, t), Line().score(x, t))


def test_integrators_are_interchangeable() -> None:
    law = Line()
    times = law.noise.grid(40, END)
    for integrator in (EulerMaruyama(), Multistep(2), PredictorCorrector()):
        x = denoise(jax.random.key(5), integrator, law, 2000, times)
        # The bias of 40 steps, and five standard errors of a distribution function.
        gap = law.cdf(np.asarray(x), END)
        assert abs(gap.mean() - 0.5) < 0.03 + 5 * np.sqrt(1 / 12 / 2000)


def test_a_learned_score_is_nearer_to_the_truth_than_a_gaussian() -> None:
    rng = np.random.default_rng(9)
    left = rng.random((4000, 1)) < 0.3
    z = rng.standard_normal((4000, 1))
    x = np.where(left, -1.5 + np.sqrt(0.3) * z, 1 + np.sqrt(0.5) * z)
    law, points = Line(), np.linspace(-2.5, 2.5, 21)[:, None]

    def error(model: Any) -> float:
        total = 0.0
        for t in (0.1, 0.3):
            off = jax.vmap(lambda v, t=t: model.score(v, t) - law.score(v, t))(points)
            total += float(jnp.mean(off**2) * law.noise.sigma(t) ** 2)
        return total

    plain = learn_score(jax.random.key(0), x, 16, Schedule(50, 64, 1e-12))
    learned = learn_score(jax.random.key(0), x, 16, Schedule(500, 256, 1e-2))
    assert error(learned) < 0.15 * error(plain)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ProbabilityFlow("rk5"), "Did you mean 'rk4'"),
        (lambda: Exponential(4), "1, 2 or 3"),
        (lambda: Multistep(0), "1, 2 or 3"),
        (lambda: PredictorCorrector(Multistep(2)), "one-step"),
        (lambda: Noise().grid(10, 0.0), "end"),
        (lambda: Noise().grid(10, 0.1, "even"), "spacing"),
        (lambda: denoise(jax.random.key(0), EulerMaruyama, Line(), 5, [1.0, 0.5]), "integrator"),
        (lambda: denoise(jax.random.key(0), EulerMaruyama(), Line(), 5, [0.5, 1.0]), "descend"),
        (lambda: noised_mixture([1.0], [[0.0]], [[[-1.0]]]), "positive definite"),
        (lambda: noised_mixture([1.0], [0.0], [[[1.0]]]), r"\[K\]"),
    ],
)
def test_settings_out_of_range(make: Any, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        make()
