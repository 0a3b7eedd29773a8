"""Contracts: composition rules, each compared with what the composite does exactly."""

import doctest
import itertools

import numpy as np
import pytest

from ppcore import contract as c
from ppcore.errors import CompositionError

REVERSIBLE = c.Invariant(reversible=True)
PLAIN = c.Invariant(reversible=False)
STUCK = c.Invariant(reversible=True, irreducible=False)


def test_examples():
    assert doctest.testmod(c).failed == 0


@pytest.mark.parametrize(
    ("whole", "expected"),
    [
        (c.cycle(REVERSIBLE), REVERSIBLE),
        (c.cycle(REVERSIBLE, REVERSIBLE), c.Invariant(False, False)),
        (c.palindrome(REVERSIBLE, REVERSIBLE), c.Invariant(True, False)),
        (c.palindrome(REVERSIBLE, PLAIN), c.Invariant(False, False)),
        (c.mix(REVERSIBLE, STUCK), c.Invariant(True, True)),
        (c.mix(STUCK, STUCK), STUCK),
        (c.mix(PLAIN, STUCK), PLAIN),
        (c.repeat(REVERSIBLE, 1), REVERSIBLE),
        (c.repeat(PLAIN, 2), c.Invariant(False, False)),
        (c.cycle(REVERSIBLE, c.Biased(2), c.Biased(1)), c.Biased(1)),
        (c.mix(c.Biased(1, "h"), c.Biased(2, "eps")), c.Biased(1, "eps+h")),
        (c.metropolise(c.Biased(1)), REVERSIBLE),
        (c.metropolise(c.Transport()), c.Invariant(True, False)),
        (c.metropolise(c.cycle(REVERSIBLE, c.Biased(3))), REVERSIBLE),
        (c.precondition(PLAIN, c.Transport()), PLAIN),
        (c.push(c.Density(), c.Transport()), c.Density()),
        (c.importance(c.Density()), c.ProperlyWeighted()),
        (c.stages(c.ProperlyWeighted(), REVERSIBLE, c.Transport()), c.ProperlyWeighted()),
        (c.stages(c.ProperlyWeighted(False), REVERSIBLE), c.ProperlyWeighted(False)),
    ],
)
def test_rules(whole, expected):
    assert whole == expected


@pytest.mark.parametrize(
    "build",
    [
        lambda: c.cycle(),
        lambda: c.cycle(REVERSIBLE, c.Density()),
        lambda: c.mix(c.Transport()),
        lambda: c.metropolise(c.Amortised()),
        lambda: c.precondition(REVERSIBLE, c.Density()),
        lambda: c.push(c.Transport(), c.Transport()),
        lambda: c.importance(c.Biased(1)),
        lambda: c.stages(c.ProperlyWeighted(), c.Biased(1)),
        lambda: c.from_dict({"kind": "Invarian"}),
        lambda: c.from_dict({"kind": "Invariant", "reversibel": True}),
    ],
)
def test_what_does_not_compose_says_so(build):
    with pytest.raises(CompositionError, match=r"needs|Wrap|Did you mean|at least"):
        build()


def test_round_trip():
    for contract in (REVERSIBLE, c.Biased(3, "h"), c.ProperlyWeighted(False), c.Amortised()):
        assert c.from_dict(c.to_dict(contract)) == contract


def _metropolis(pi, proposal):
    n = len(pi)
    p = np.zeros((n, n))
    for i, j in itertools.permutations(range(n), 2):
        p[i, j] = proposal[i, j] * min(1.0, pi[j] * proposal[j, i] / (pi[i] * proposal[i, j]))
    return p + np.diag(1.0 - p.sum(1))


@pytest.fixture
def matrices():
    """Two reversible kernels of one distribution, exactly."""
    rng = np.random.default_rng(0)
    pi = rng.dirichlet(np.ones(4))
    kernels = [_metropolis(pi, rng.dirichlet(np.ones(4), size=4)) for _ in range(2)]
    return pi, *kernels


def _keeps(contract, pi, p):
    flow = pi[:, None] * p
    assert np.allclose(pi @ p, pi, atol=1e-14)
    if contract.reversible:
        assert np.allclose(flow, flow.T, atol=1e-14)
    return np.abs(flow - flow.T).max()


def test_rules_hold_for_exact_kernels(matrices):
    pi, a, b = matrices
    assert _keeps(REVERSIBLE, pi, a) < 1e-14
    assert _keeps(c.cycle(REVERSIBLE, REVERSIBLE), pi, a @ b) > 1e-4
    _keeps(c.palindrome(REVERSIBLE, REVERSIBLE), pi, a @ b @ a)
    _keeps(c.mix(REVERSIBLE, REVERSIBLE), pi, 0.3 * a + 0.7 * b)
    _keeps(c.repeat(REVERSIBLE, 3), pi, a @ a @ a)


def test_irreducibility_is_not_inherited_by_a_cycle():
    flip = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert not c.cycle(REVERSIBLE, REVERSIBLE).irreducible
    assert np.array_equal(flip @ flip, np.eye(2))
