"""Any kernel as an engine: tuned without gradients, the same on the host and in a trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ppcore_mcmc.parallel_tempering import ParallelTempering

from ppcore import precision, random
from ppcore.chains import KernelEngine, Tuning
from ppcore.compose import Cycle
from ppcore.contract import Contract, Invariant
from ppcore.errors import CompositionError, SettingsError, StartError
from ppcore.target import DensityTarget
from ppcore.testing import run_suite
from ppcore.testing.checks.finite_kernel import transition_matrix
from ppcore.testing.models import FINITE
from ppcore.testing.reference.gibbs import FiniteMetropolis
from ppcore.testing.reference.metropolis import MALA
from ppcore.testing.subject import engine_subject
from ppcore.testing.suite import Plan
from ppcore.tuning.preconditioner import Dense
from ppcore.tuning.search import search
from ppcore.tuning.step_size import Steps, StepSize


class At(NamedTuple):
    x: Any
    log_density: Any


@dataclass(frozen=True)
class Walk:
    """Random-walk Metropolis with everything that a warm-up may ask of a kernel."""

    target_accept: float = 0.3
    contract: ClassVar[Contract] = Invariant(reversible=True)
    error_order: ClassVar[float] = 1.0

    def parameters(self, preconditioner: Any, step: Any, length: Any) -> Any:
        return {"preconditioner": preconditioner, "step_size": step}

    def init(self, key: Any, target: Any, x: Any, params: Any) -> At:
        return At(x, target.log_density(x))

    def refresh(self, target: Any, state: At) -> At:
        return At(state.x, target.log_density(state.x))

    def step(self, key: Any, target: Any, state: At, params: Any) -> tuple[At, Any]:
        k_move, k_accept = random.split(key)
        z = random.normal(k_move, state.x.shape, state.x.dtype)
        y = state.x + params["step_size"] * params["preconditioner"].push(z)
        new = At(y, target.log_density(y))
        rate = jnp.exp(jnp.minimum(0.0, new.log_density - state.log_density))
        accept = random.bernoulli(k_accept, rate)
        state = At(*(jnp.where(accept, a, b) for a, b in zip(new, state, strict=True)))
        return state, {"acceptance_rate": rate}


COVARIANCE = np.array([[4.0, 1.9], [1.9, 1.0]])
MEAN = np.array([30.0, -10.0])


def correlated(x: Any, data: Any) -> Any:
    return -0.5 * (x - data[1]) @ data[0] @ (x - data[1])


def gaussian() -> DensityTarget:
    return DensityTarget(correlated, 2, (jnp.asarray(np.linalg.inv(COVARIANCE)), jnp.asarray(MEAN)))


def silent(_: Any) -> None:
    return None


def test_a_search_without_gradients_finds_where_the_mass_is() -> None:
    with precision.scope("float64"):
        target = gaussian()
        density = jax.jit(jax.vmap(target.log_density))
        rng = np.random.default_rng(0)
        start = search(lambda x: (np.asarray(density(x)), None), rng, None, target, 64)
    assert start.factor is not None
    found = start.factor @ start.factor.T
    assert np.allclose(found, COVARIANCE, rtol=0.3)
    assert np.all(np.abs(start.x.mean(0) - MEAN) < 5 * np.sqrt(np.diag(COVARIANCE) / 64))


def test_warm_up_without_gradients_learns_scale_and_correlation() -> None:
    with precision.scope("float64"):
        target, engine = gaussian(), KernelEngine(Walk(), warmup_draws=640, max_warmup_draws=640)
        warm = engine.warmup(jax.random.key(0), target, 32, silent)
        factor = np.asarray(warm.tuned.params["preconditioner"].factor)
        assert np.allclose(factor @ factor.T, COVARIANCE, rtol=0.3)
        assert warm.gradients == 0
        carry = engine.init(jax.random.key(1), target, warm.tuned, warm.x)
        carry, draws, stats = engine.block(jax.random.key(2), target, warm.tuned, carry, 100)
        assert draws.shape == (32, 100, 2) and set(stats) == {"acceptance_rate", "log_density"}
        assert abs(stats["acceptance_rate"].mean() - 0.3) < 0.06

        def traced(carry: Any) -> Any:
            return engine.block(jax.random.key(2), target, warm.tuned, carry, 20)[1]

        host = engine.block(jax.random.key(2), target, warm.tuned, carry, 20)[1]
        assert np.allclose(jax.jit(traced)(carry), host, rtol=1e-12)


def test_each_part_of_a_composition_gets_a_step_size_of_its_own() -> None:
    with precision.scope("float64"):
        kernel = Cycle(Walk(0.2), Walk(0.6))
        engine = KernelEngine(kernel, warmup_draws=160, max_warmup_draws=160)
        warm = engine.warmup(jax.random.key(0), gaussian(), 32, silent)
        bold, shy = (float(p["step_size"]) for p in warm.tuned.params)
    assert bold > 1.5 * shy


def test_thinned_draws_are_the_last_of_their_transitions() -> None:
    with precision.scope("float64"):
        target, engine = gaussian(), KernelEngine(Walk())
        metric = np.linalg.cholesky(COVARIANCE)
        params = engine.parameters(target, Dense(metric), np.float64(1.0), 1.0)
        x = MEAN + np.zeros((3, 2))
        one, four = Tuning(params, np.int32(1)), Tuning(params, np.int32(4))
        carry = engine.init(jax.random.key(1), target, one, x)
        _, often, _ = engine.block(jax.random.key(2), target, one, carry, 1)
        _, seldom, stats = engine.block(jax.random.key(2), target, four, carry, 1)
        assert not np.allclose(often, seldom)
        assert np.all(stats["acceptance_rate"] <= 1.0)


def test_good_manners() -> None:
    subject = engine_subject(KernelEngine(Walk(), warmup_draws=32, max_warmup_draws=32))
    manners = ("frozen", "resume", "seed", "key_reuse", "outputs")
    report = run_suite(subject, Plan(only=manners, optimise=False))
    assert report.ok, [r.message for r in report.results if r.verdict != "pass"]


def test_a_kernel_with_nothing_to_tune_starts_from_the_reference() -> None:
    with precision.scope("float64"):
        target, engine = FINITE["finite_grid"](), KernelEngine(FiniteMetropolis(), warmup_draws=64)
        warm = engine.warmup(jax.random.key(0), target, 256, silent)
        carry = engine.init(jax.random.key(1), target, warm.tuned, warm.x)
        _, draws, _ = engine.block(jax.random.key(2), target, warm.tuned, carry, 16)
        pi = np.asarray(jax.nn.softmax(target.log_gamma))
        share = np.bincount(np.asarray(target.code(draws[:, -1])), minlength=6) / 256
        assert np.all(np.abs(share - pi) < 5 * np.sqrt(pi * (1 - pi) / 256))
        with pytest.raises(StartError, match="starts from reference draws"):
            engine.warmup(jax.random.key(0), gaussian(), 4, silent)


def test_two_replicas_leave_a_finite_target_alone_exactly() -> None:
    with precision.scope("float64"):
        target, kernel = FINITE["finite_line"](), ParallelTempering(FiniteMetropolis(), replicas=2)
        p = np.asarray(transition_matrix(kernel, (), target))
        pi = np.asarray(jax.nn.softmax(target.log_gamma))
    assert abs(pi @ p - pi).max() < 1e-14
    with precision.scope("float64"), pytest.raises(CompositionError, match="no proper one"):
        KernelEngine(kernel).init(None, gaussian(), None, None)


def test_steps_are_tuned_side_by_side() -> None:
    steps = Steps((StepSize(0.0, order=1.0), StepSize(0.0), StepSize(0.0)))
    moved = steps.update(np.array([0.9, 0.5, np.nan]), (0.3, None, 0.5))
    assert moved.now[0] > 1.0 and moved.now[1] == 1.0 and moved.now[2] == 1.0


@pytest.mark.parametrize(
    ("build", "error", "says"),
    [
        (lambda: KernelEngine(3), CompositionError, "int is not one"),
        (lambda: KernelEngine(Walk), CompositionError, "not classes"),
        (lambda: KernelEngine(Walk([])), CompositionError, "hashed"),  # type: ignore[arg-type]
        (lambda: KernelEngine(Walk(), warmup_draws=3), SettingsError, "warmup_draws=3"),
        (lambda: KernelEngine(Walk(), target_accept=1.5), SettingsError, "target_accept"),
        (lambda: KernelEngine(Walk(), metric="dens"), SettingsError, "'dense'"),
        (lambda: KernelEngine(MALA(), most_thin=0), SettingsError, "most_thin"),
        (lambda: ParallelTempering(Walk(), replicas=1), SettingsError, "replicas"),
        (lambda: ParallelTempering(Walk(), hottest=1.0), SettingsError, "hottest"),
    ],
)
def test_bad_input_is_refused_when_built(build: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        build()
