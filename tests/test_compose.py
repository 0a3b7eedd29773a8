"""Compositions of kernels: exact laws on finite targets, derived promises, ends that must meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from ppcore import precision, random
from ppcore.chains import KernelEngine
from ppcore.compose import (
    Affine,
    Blocks,
    Cycle,
    Metropolise,
    Mix,
    On,
    Palindrome,
    Precondition,
    Repeat,
    Temper,
)
from ppcore.contract import Biased, Contract, Invariant, Transport
from ppcore.errors import CompositionError
from ppcore.target import DensityTarget
from ppcore.testing.checks.finite_kernel import transition_matrix
from ppcore.testing.models import FINITE
from ppcore.testing.reference.gibbs import FiniteGibbs, FiniteMetropolis, FiniteRandomScan
from ppcore.testing.reference.metropolis import Independence, Langevin, Position
from ppcore.testing.subject import Subject
from ppcore.testing.suite import Plan, run_suite
from ppcore.tuning.preconditioner import Dense, LowRank


class Kept(NamedTuple):
    x: Any
    log_density: Any


@dataclass(frozen=True)
class Cached:
    """x ↦ x + 1 or x − 1 on one axis of a finite grid, cyclic; it keeps its log density."""

    sizes: tuple[int, ...] | None = None
    contract: ClassVar[Contract] = Invariant(reversible=True)

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Any:
        return Kept(x, target.log_density(x))

    def refresh(self, target: Any, state: Any) -> Any:
        return Kept(state.x, target.log_density(state.x))

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        k_move, k_accept = random.split(key)
        sizes = np.array(self.sizes or target.sizes)
        axis, up = divmod(random.randint(k_move, (), 2 * len(sizes)), 2)
        y = state.x.at[axis].add(2.0 * up - 1.0) % jnp.asarray(sizes, state.x.dtype)
        new = Kept(y, target.log_density(y))
        accept = random.bernoulli(k_accept, jnp.exp(jnp.minimum(0.0, new[1] - state.log_density)))
        return Kept(*(jnp.where(accept, a, b) for a, b in zip(new, state, strict=True))), {}


@dataclass(frozen=True)
class Lopsided:
    """Proposes the state 0 … 0 with probability ½, else any state; unadjusted, with its ratio."""

    contract: ClassVar[Contract] = Biased(order=1)

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Any:
        return Position(x)

    def refresh(self, target: Any, state: Any) -> Any:
        return state

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        return self.propose(key, target, state, params)[0], {}

    def propose(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        log_q = jnp.log(0.5 / len(target.states) + 0.5 * (jnp.arange(len(target.states)) == 0))
        code = random.categorical(key, log_q)
        y = target.states[code]
        gain = target.log_density(y) - target.log_density(state.x)
        return Position(y), gain + log_q[target.code(state.x)] - log_q[code]


@dataclass(frozen=True)
class Backwards:
    """The grid read from its far end: x_i ↦ n_i − 1 − x_i."""

    contract: ClassVar[Contract] = Transport()
    sizes: tuple[int, ...] = (2, 3)

    def forward(self, x: Any) -> tuple[Any, Any]:
        return jnp.asarray(self.sizes, x.dtype) - 1 - x, jnp.zeros((), x.dtype)

    inverse = forward


WALK, SCAN, GIBBS, KEPT = FiniteMetropolis(), FiniteRandomScan(), FiniteGibbs(), Cached()
LINE, GRID, BOTH = ("finite_line",), ("finite_grid",), ("finite_line", "finite_grid")

EXACT = {
    "cycle": (Cycle(WALK, Independence()), LINE),
    "cycle of caches": (Cycle(KEPT, WALK, KEPT), GRID),
    "palindrome": (Palindrome(WALK, Independence()), LINE),
    "palindrome of three": (Palindrome(KEPT, Independence(), SCAN), LINE),
    "mix": (Mix(WALK, Independence(), weights=(1, 3)), BOTH),
    "mix of caches": (Mix(KEPT, WALK), GRID),
    "repeat": (Repeat(KEPT, 3), GRID),
    "blocks": (Blocks({"x0": GIBBS, "x1": KEPT}), GRID),
    "blocks there and back": (Blocks({"x0": KEPT, "x1": SCAN}, scan="palindrome"), GRID),
    "joint block": (Blocks({("x2", "x0"): KEPT, "x1": GIBBS}), ("finite_hidden_chain",)),
    "metropolise": (Metropolise(Lopsided()), BOTH),
    "metropolised tempering": (Metropolise(Temper(KEPT, 0.3)), BOTH),
    "precondition": (Precondition(Cached((2, 3)), Backwards()), GRID),
    "nested": (
        Mix(Cycle(Blocks({"x0": KEPT, "x1": GIBBS}), Metropolise(Temper(WALK, 0.5))), KEPT),
        GRID,
    ),
    "preconditioned blocks": (
        Cycle(Precondition(Cached((2, 3)), Backwards()), On("x1", KEPT)),
        GRID,
    ),
}


def params_of(kernel: Any, target: Any) -> Any:
    with precision.scope("float64"):
        return kernel.parameters(None, np.ones(0), 1.0, target)


@pytest.mark.parametrize("name", EXACT)
def test_invariant_exactly(name: str) -> None:
    kernel, finite = EXACT[name]
    for model in finite:
        params = params_of(kernel, FINITE[model]())
        subject = Subject(name, kernel.contract, kernel=kernel, params=params, finite=(model,))
        report = run_suite(subject, Plan(only=("finite",)))
        assert report.ok, [r.message for r in report.results]


def test_transition_matrices_multiply() -> None:
    with precision.scope("float64"):
        target = FINITE["finite_line"]()

        def p(kernel: Any) -> Any:
            params = params_of(kernel, target) if hasattr(kernel, "parameters") else ()
            return np.asarray(transition_matrix(kernel, params, target))

        a, b = p(KEPT), p(Independence())
        assert np.allclose(p(Cycle(KEPT, Independence())), a @ b, atol=1e-14)
        assert np.allclose(p(Palindrome(KEPT, Independence())), a @ b @ a, atol=1e-14)
        mixed = p(Mix(KEPT, Independence(), weights=(1, 3)))
        assert np.allclose(mixed, 0.25 * a + 0.75 * b, atol=1e-14)
        assert np.allclose(p(Repeat(KEPT, 3)), a @ a @ a, atol=1e-14)


def test_a_tempered_kernel_leaves_the_tempered_target_alone() -> None:
    with precision.scope("float64"):
        target = FINITE["finite_grid"]()
        kernel = Temper(KEPT, 0.3)
        p = np.asarray(transition_matrix(kernel, params_of(kernel, target), target))
        log_gamma = np.asarray(target.tempered(0.3).log_gamma)
        pi = np.exp(log_gamma) / np.exp(log_gamma).sum()
        assert abs(pi @ p - pi).max() < 1e-14


@pytest.mark.parametrize(
    "metric",
    [
        Dense(np.array([[2.0, 0.0], [0.5, 0.3]])),
        LowRank(np.array([2.0, 0.5]), np.array([[0.6], [0.8]]), np.array([3.0])),
    ],
)
def test_affine_maps_invert_with_the_right_determinant(metric: Any) -> None:
    with precision.scope("float64"):
        made = Affine(np.array([0.3, -1.0]), metric)
        u = jnp.array([0.7, -0.2])
        x, log_det = made.forward(u)
        jacobian = np.array([made.forward(e)[0] - made.forward(0 * e)[0] for e in jnp.eye(2)]).T
        assert np.isclose(log_det, np.log(abs(np.linalg.det(jacobian))))
        back, minus = made.inverse(x)
        assert np.allclose(back, u) and np.isclose(minus, -log_det)


def test_contracts_are_derived() -> None:
    reversible = Invariant(reversible=True)
    assert Palindrome(WALK, WALK).contract == Invariant(reversible=True, irreducible=False)
    assert Mix(WALK, On("x0", WALK)).contract == reversible
    assert Cycle(WALK, Langevin()).contract == Biased(order=1)
    assert Metropolise(Lopsided()).contract == reversible
    assert Blocks({"x0": WALK, "x1": WALK}).contract == Invariant(False, False)


def log_normal(x: Any, data: Any) -> Any:
    return -0.5 * jnp.sum(x**2)


@dataclass(frozen=True)
class Single(Langevin):
    dtype: ClassVar[str] = "float32"


@dataclass(frozen=True)
class Steep(Langevin):
    needs: ClassVar[tuple[str, ...]] = ("gradient",)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Cycle(), "at least one kernel"),
        (lambda: Cycle(WALK, 3), "int is not one"),
        (lambda: Cycle(WALK, FiniteMetropolis), r"write FiniteMetropolis\(...\)"),
        (lambda: Cycle(WALK, Temper(WALK, 0.5)), "do not meet.*power 0.5"),
        (lambda: KernelEngine(Temper(WALK, 0.5)), "power 0.5.*Metropolise"),
        (lambda: Mix(WALK, WALK, weights=(1,)), "as many positive"),
        (lambda: Mix(WALK, WALK, weights=(1, -1)), "as many positive"),
        (lambda: Repeat(WALK, 0), "positive integer"),
        (lambda: Temper(WALK, -0.5), "at least 0"),
        (lambda: Metropolise(WALK), "has none"),
        (lambda: Metropolise(Lopsided(), target_accept=2), "between 0 and 1"),
        (lambda: Precondition(WALK, WALK), "no 'forward'"),
        (lambda: Blocks({}), "at least one block"),
        (lambda: Blocks({"x0": WALK, ("x1", "x0"): WALK}), "'x0' stands in two blocks"),
        (lambda: Blocks({"x0": WALK}, scan="zyklus"), "scan="),
        (lambda: Blocks({3: WALK}), "3 names no sites"),
        (
            lambda: Cycle(Single(), Precondition(WALK, Affine(np.zeros(2), Dense(np.eye(2))))),
            "float",
        ),
    ],
)
def test_what_does_not_compose_is_refused_when_built(build: Any, says: str) -> None:
    with pytest.raises(CompositionError, match=says):
        build()


@pytest.mark.parametrize(
    ("kernel", "says"),
    [
        (Steep(), "Steep needs a gradient"),
        (Cycle(WALK, Steep()), "Steep needs a gradient"),
        (Blocks({"x0": WALK, "x1": Steep()}), "Steep needs a gradient"),
        (Blocks({"x0": WALK, "x2": WALK}), "'x2'.*Known: x0, x1"),
        (Blocks({"x0": WALK}), "No block moves the site 'x1'"),
        (Single(), "float32.*float64"),
        (Precondition(WALK, Affine(np.zeros(3), Dense(np.eye(3)))), "R\\^3"),
    ],
)
def test_what_the_target_lacks_is_said_before_anything_is_traced(kernel: Any, says: str) -> None:
    with precision.scope("float64"), pytest.raises(CompositionError, match=says):
        KernelEngine(kernel).init(None, FINITE["finite_grid"](), None, None)


def test_a_kernel_that_needs_a_reference_is_refused_without_one() -> None:
    @dataclass(frozen=True)
    class Prior(Independence):
        needs: ClassVar[tuple[str, ...]] = ("reference",)

    target = DensityTarget(log_normal, 2)
    with precision.scope("float64"), pytest.raises(CompositionError, match="needs a reference"):
        KernelEngine(Prior()).init(None, target, None, None)
