"""Maps matched to draws: bijections, weights with mean Z, couplings, and a guard of heavy tails.

Laws are checked by quadrature and closed forms wherever they have one; what is random has a fixed
seed and is allowed five standard errors.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learned_laws import SHORT, TARGET, draws_of_two_modes, grid, silent, some_flow, two_modes
from ppcore_diffusion import couplings
from ppcore_diffusion.discrete_flow import Pushed, discrete_flow, identity, most_lipschitz
from ppcore_diffusion.learned_proposal import guarded, weighed
from ppcore_diffusion.matching import flow_match, interpolate
from ppcore_diffusion.regression import Schedule, regress
from ppcore_diffusion.samples import samples_of
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import kstest, multivariate_t

from ppcore import contract as rules
from ppcore import precision
from ppcore.errors import SettingsError, UnsupportedError
from ppcore.testing.checks import transport
from ppcore.testing.session import Session
from ppcore.testing.subject import Subject


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with precision.scope("float64"):
        yield


def test_a_discrete_flow_inverts_and_its_log_determinant_is_that_of_its_jacobian() -> None:
    flow = some_flow()
    assert np.isclose(flow.velocity.lipschitz, most_lipschitz(10))
    subject = Subject("flow", rules.Transport(), map=flow)
    findings = list(transport.run(Session(subject, (), 1, 1e-3, 100, True)))
    assert len(findings) == 3 and all(f.ok for f in findings), [f.message for f in findings]


def test_the_bound_of_the_field_holds_and_capping_keeps_its_shape() -> None:
    field = some_flow().velocity
    rng = np.random.default_rng(3)
    x, t = rng.standard_normal((200, 2)), rng.random(200)
    jacobians = jax.vmap(jax.jacfwd(field))(x, t)
    steepest = np.linalg.norm(np.asarray(jacobians), 2, axis=(1, 2)).max()
    assert 0.05 * field.lipschitz < steepest <= field.lipschitz
    assert np.isclose(field.capped(1.0).lipschitz, 1.0)
    assert field.capped(100.0).lipschitz == field.lipschitz


def test_the_derivatives_of_the_inverse_are_those_of_the_solution() -> None:
    law = Pushed(some_flow())
    x = jnp.array([0.4, -0.8])
    found = jax.jit(jax.grad(law.log_prob))(x)
    log_prob = jax.jit(law.log_prob)
    h = 1e-5
    rough = [(log_prob(x + h * e) - log_prob(x - h * e)) / (2 * h) for e in np.eye(2)]
    assert np.allclose(found, np.array(rough), rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def matched() -> Any:
    with precision.scope("float64"):
        return flow_match(jax.random.key(0), draws_of_two_modes(), plan=SHORT)


@pytest.mark.parametrize("when", ["random", "trained"])
def test_weights_have_mean_z_before_and_after_training(when: str, matched: Any) -> None:
    """E[w] = ∫ N(u) γ(T(u))/q(T(u)) du = Z by quadrature, with q as the flow itself states it."""
    flow = some_flow() if when == "random" else matched.map
    u, cell = grid(-14.0, 14.0, 361)

    def one(flow: Any, u: Any) -> Any:
        x, log_det = flow.forward(u)
        return two_modes(x, ()) + log_det

    log_g = np.asarray(jax.jit(jax.vmap(one, (None, 0)))(flow, u))
    assert abs(np.exp(log_g - 1.5).sum() * cell - 1) < 1e-5


def test_training_makes_weights_even(matched: Any) -> None:
    samples = samples_of(draws_of_two_modes())
    shares = {}
    for name, plan in (("before", replace(SHORT, steps=1, rate=1e-12)), ("after", None)):
        made = matched if plan is None else flow_match(jax.random.key(0), samples, plan=plan)
        proposal = guarded(made.density, samples, 0.05)
        population = weighed(jax.random.key(1), proposal, TARGET, 2000)
        shares[name] = float(population.ess) / 2000
        error = np.sqrt((1 / shares[name] - 1) / 2000)
        assert abs(float(population.log_z) - 1.5) < 5 * error
    assert shares["after"] > 0.75 > 0.5 > shares["before"]
    assert float(matched.map.velocity.lipschitz) <= most_lipschitz(SHORT.grid) * (1 + 1e-9)


def test_a_guard_is_counted_and_its_density_is_that_of_the_mixture(matched: Any) -> None:
    samples = samples_of(draws_of_two_modes())
    proposal = guarded(matched.density, samples, 0.1)
    x, log_q = proposal.counted(jax.random.key(2), 40)
    assert x.shape == (40, 2)
    assert np.allclose(log_q, jax.jit(jax.vmap(proposal.log_prob))(x), atol=1e-9)
    axes = proposal.guard.axes
    shift, factor = np.asarray(axes.shift), np.asarray(axes.factor)
    known = multivariate_t(shift, factor @ factor.T, df=3)
    assert np.allclose(jax.jit(jax.vmap(proposal.guard.log_prob))(x), known.logpdf(np.asarray(x)))
    drawn = np.asarray(jax.jit(lambda k: proposal.guard.sample(k, 2000))(jax.random.key(1)))
    assert kstest((drawn[:, 0] - shift[0]) / factor[0, 0], "t", args=(3,)).pvalue > 1e-4
    assert guarded(matched.density, samples, 0.0).map is matched.map


def test_a_flow_between_two_sets_of_draws_carries_one_to_the_other() -> None:
    rng = np.random.default_rng(1)
    source = rng.gamma(2.0, 1.0, (2000, 1))
    target = 5 - 0.3 * rng.gamma(2.0, 1.0, (2000, 1))
    made = flow_match(jax.random.key(3), target, source, replace(SHORT, coupling="entropic"))
    pushed = np.asarray(jax.vmap(lambda x: made.map.forward(x)[0])(source))
    levels = np.linspace(0.05, 0.95, 10)
    gap = np.quantile(pushed, levels) - np.quantile(target, levels)
    assert np.abs(gap).max() < 0.15 * target.std()


def test_rectified_paths_are_straighter(matched: Any) -> None:
    plan = replace(SHORT, coupling="independent", steps=150)
    loose = flow_match(jax.random.key(4), draws_of_two_modes(), plan=plan)
    again = flow_match(jax.random.key(4), draws_of_two_modes(), plan=replace(plan, reflow=1))
    end = loose.losses[-50:].mean()
    assert matched.losses[-50:].mean() < 0.3 * end and again.losses[-50:].mean() < 0.3 * end


def test_interpolants_have_the_velocity_that_they_state() -> None:
    rng = np.random.default_rng(0)
    z, x, t, h = rng.standard_normal((4, 2)), rng.standard_normal((4, 2)), rng.random((4, 1)), 1e-6
    for how in ("linear", "trigonometric"):
        ahead, behind = (interpolate(how, t + s, z, x)[0] for s in (h, -h))
        assert np.allclose((ahead - behind) / (2 * h), interpolate(how, t, z, x)[1], atol=1e-8)
        assert np.allclose(interpolate(how, np.zeros((4, 1)), z, x)[0], z)
        assert np.allclose(interpolate(how, np.ones((4, 1)), z, x)[0], x)


@pytest.mark.parametrize("seed", range(4))
def test_an_assignment_is_the_best_of_all_permutations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z, x = rng.standard_normal((6, 3)), 1 + 2 * rng.standard_normal((6, 3))
    cost = 0.5 * cdist(z, x, "sqeuclidean")
    best = min(cost[range(6), p].sum() for p in itertools.permutations(range(6)))
    found = couplings.assignment(z, x)
    assert sorted(found) == list(range(6))
    assert np.isclose(cost[range(6), found].sum(), best)
    assert np.array_equal(found, linear_sum_assignment(cost)[1])
    assert np.allclose(couplings.costs(z, x), cost)


def test_an_entropic_plan_has_its_marginals_and_tends_to_the_assignment() -> None:
    rng = np.random.default_rng(5)
    z, x = rng.standard_normal((20, 2)), 1 + rng.standard_normal((20, 2))
    cost = couplings.costs(z, x)
    best = cost[range(20), couplings.assignment(z, x)].mean()
    spent = []
    for regularisation in (1.0, 0.1, 0.01):
        plan = couplings.entropic_plan(z, x, regularisation, sweeps=3000)
        assert np.allclose(plan.sum(1), 1 / 20) and np.allclose(plan.sum(0), 1 / 20, atol=1e-4)
        spent.append((plan * cost).sum())
    assert spent[0] > spent[1] > spent[2] and abs(spent[2] - best) < 0.02 * best


@pytest.mark.parametrize("how", ["exact", "independent"])
def test_a_coupling_permutes_the_batch(how: str) -> None:
    rng = np.random.default_rng(6)
    z, x = rng.standard_normal((50, 2)), rng.standard_normal((50, 2))
    found = couplings.paired(rng, z, x, how, group=16)
    assert sorted(map(tuple, found)) == sorted(map(tuple, x))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: couplings.assignment(np.zeros((2, 1)), np.zeros((3, 1))), "one shape"),
        (lambda: couplings.assignment(np.full((2, 1), np.nan), np.zeros((2, 1))), "NaN"),
    ],
)
def test_batches_that_cannot_be_paired(make: Any, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        make()


def test_a_field_that_is_too_steep_for_its_steps_is_refused() -> None:
    steep = some_flow().velocity
    with pytest.raises(UnsupportedError, match="Use at least 10 steps"):
        discrete_flow(steep, 5)
    with pytest.raises(UnsupportedError, match="Lipschitz"):
        discrete_flow(SimpleNamespace(dim=2), 5)
    with pytest.raises(SettingsError, match="3 and 2 coordinates"):
        discrete_flow(steep, 10, identity(3, float))


def test_a_regression_that_diverges_goes_back_to_what_was_good() -> None:
    def rows(rng: np.random.Generator, count: int) -> Any:
        rows.calls += 1
        return np.full(count, np.nan if rows.calls > 1 else 1.0)

    rows.calls = 0
    made = regress(np.random.default_rng(0), jnp.zeros(()), _square, rows, Schedule(100, 2), silent)
    assert len(made.losses) == 100 and "diverged after 100 of 100 steps" in made.notes[0]
    assert 0.0 < float(made.model) < 1.0


def _square(model: Any, row: Any) -> Any:
    return (model - row) ** 2
