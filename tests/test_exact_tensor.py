"""The tensor solver: plates, computed sites, scans, underflow, draws and refusals."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest
import scipy.special as sp
import scipy.stats as st

import ppcore as pp
from ppcore import dist
from ppcore.errors import ModelError, SettingsError
from ppcore.exact import NotExact, ZeroEvidenceError
from ppcore.exact.junction_tree import JunctionTree, log_sum
from tests.finite_diagrams import close

RATES = np.array([0.5, 2.0, 4.0])
WEIGHTS = np.array([0.2, 0.3, 0.5])


def mixture(n: int):
    @pp.model
    def labelled():
        shift = pp.sample("shift", dist.Bernoulli(0.3))
        with pp.plate("i", n):
            z = pp.sample("z", dist.Categorical(WEIGHTS))
            pp.sample("count", dist.Poisson(pp.math.get_at(RATES, z) + shift))
        pp.deterministic("total", np.sum(z))
        pp.deterministic("matched", np.sum(z == 1) / n)

    return labelled()


def test_a_plate_is_elementwise_and_agrees_with_enumeration() -> None:
    counts = np.array([0, 3, 5, 1])
    solution = mixture(4).observe(count=counts).solve()
    weight, total, shift = 0.0, np.zeros(9), 0.0
    for s, *z in itertools.product((0, 1), *[range(3)] * 4):
        mass = (0.3 if s else 0.7) * np.prod(WEIGHTS[z] * st.poisson.pmf(counts, RATES[z] + s))
        weight += mass
        total[sum(z)] += mass
        shift += s * mass
    close(solution.log_evidence, np.log(weight))
    close(solution.marginal("total").probs, total / weight)
    close(solution.marginal("shift").mean, shift / weight)
    close(solution.marginal("z").mean.sum(), solution.marginal("total").mean)
    close(solution.marginal("matched").mean, solution.marginal("z").probs[:, 1].mean())


def test_large_plates_stay_cheap_and_sums_are_convolved() -> None:
    counts = np.random.default_rng(0).poisson(2.0, 100)
    solution = mixture(100).observe(count=counts).solve()
    total = solution.marginal("total")
    assert total.probs.shape == (201,)
    close(total.mean, solution.marginal("z").mean.sum())


def test_any_function_of_finite_values_is_a_computed_site() -> None:
    matrix = np.array([[1.0, -2.0, 0.5], [0.3, 0.1, -1.0]])

    @pp.model
    def functions():
        with pp.plate("i", 3):
            x = pp.sample("x", dist.Bernoulli(np.array([0.2, 0.5, 0.9])))
        m = pp.deterministic("m", matrix @ x)
        p = pp.deterministic("p", pp.math.softmax(m))
        pp.deterministic("sorted", np.sort(x)[::-1])
        pp.deterministic("hot", pp.math.one_hot(x[0], 2).sum() + x[[2, 1]].reshape(2, 1).sum())
        pp.sample("y", dist.Categorical(p))

    solution = functions().solve()
    prior = np.array([0.2, 0.5, 0.9])
    mean_m, p_y, ranked, hot = np.zeros(2), np.zeros(2), np.zeros(3), 0.0
    for at in itertools.product((0, 1), repeat=3):
        x = np.array(at)
        mass = np.prod(np.where(x, prior, 1 - prior))
        mean_m += mass * (matrix @ x)
        p_y += mass * sp.softmax(matrix @ x)
        ranked += mass * np.sort(x)[::-1]
        hot += mass * (1 + x[2] + x[1])
    close(solution.marginal("m").mean, mean_m)
    close(solution.marginal("p").mean, p_y)
    close(solution.marginal("y").probs, p_y)
    close(solution.marginal("sorted").mean, ranked)
    close(solution.marginal("hot").mean, hot)


def test_a_scan_is_solved_like_the_forward_recursion() -> None:
    stay = np.array([[0.9, 0.1], [0.3, 0.7]])

    @pp.model
    def hidden(drift):
        def step(z, x):
            z = pp.sample("z", dist.Categorical(pp.math.get_at(stay, z)))
            pp.sample("y", dist.Normal(2.0 * z + x, 1.0))
            return z, None

        pp.scan(step, np.array(0), drift)

    drift = np.linspace(0, 1, 40)
    y = np.random.default_rng(1).normal(1.0, 1.5, 40)
    solution = hidden(drift).observe(y=y).solve()
    alpha, log = np.array([1.0, 0.0]), 0.0
    for value, x in zip(y, drift, strict=True):
        alpha = (alpha @ stay) * st.norm.pdf(value, np.array([0.0, 2.0]) + x, 1.0)
        log += np.log(alpha.sum())
        alpha /= alpha.sum()
    close(solution.log_evidence, log)
    close(solution.marginal("z").probs[-1], alpha)


def test_many_observations_do_not_underflow() -> None:
    @pp.model
    def coin(n):
        bias = pp.sample("bias", dist.Categorical(np.full(3, 1 / 3)))
        with pp.plate("i", n):
            pp.sample("y", dist.Bernoulli(pp.math.get_at(np.array([0.4, 0.5, 0.6]), bias)))

    y = np.arange(20000) % 2
    solution = coin(20000).observe(y=y).solve()
    terms = 10000 * np.log([0.4 * 0.6, 0.25, 0.24]) + np.log(1 / 3)
    close(solution.log_evidence, sp.logsumexp(terms))


def test_logarithms_take_over_where_one_clique_spans_too_much() -> None:
    @pp.model
    def sharp():
        a = pp.sample("a", dist.Categorical(np.full(3, 1 / 3)))
        b = pp.sample("b", dist.Categorical(np.full(3, 1 / 3)))
        pp.factor("far", -2000.0 * a)
        pp.factor("back", 1000.0 * a * b)

    solution = sharp().solve()
    logs = np.array([[-2000.0 * a + 1000.0 * a * b for b in range(3)] for a in range(3)])
    close(solution.log_evidence, sp.logsumexp(logs) - np.log(9))
    close(solution.table("a", "b"), np.exp(logs - sp.logsumexp(logs)))
    draws = solution.sample(jax.random.key(0), 4000)
    expected = np.exp(logs - sp.logsumexp(logs)).sum(1)
    found = np.bincount(draws["a"], minlength=3)
    assert st.chisquare(found[expected > 0.01], 4000 * expected[expected > 0.01]).pvalue > 1e-4


def test_both_arithmetics_agree() -> None:
    rng = np.random.default_rng(2)
    scopes = [(0, 1), (1, 2), (2, 3), (0, 3), (3, 4)]
    logs = [rng.normal(size=(3, 3)) for _ in scopes]
    tops = [x.max() for x in logs]
    logs = [x - t for x, t in zip(logs, tops, strict=True)]
    tables = [np.exp(x) for x in logs]
    fast = JunctionTree(scopes, tables, [0.0] * 5, sum(tops), (3,) * 5, logs)
    slow = JunctionTree(scopes, tables, [1e3] * 5, sum(tops), (3,) * 5, logs)
    assert slow.in_logs and not fast.in_logs
    close(fast.log_total, slow.log_total)
    for v in range(5):
        close(fast.single(v), slow.single(v))
    assert log_sum(np.full(2, -np.inf), (0,)) == -np.inf


def test_draws_follow_the_joint() -> None:
    model = mixture(3).observe(count=np.array([4, 0, 2]))
    solution = model.solve()
    fit = model.infer("exact", seed=3, draws=2500)
    z, shift = fit.draws("z").reshape(-1, 3), fit.draws("shift").reshape(-1)
    expected = solution.table("shift", "z").ravel()
    found = np.bincount(shift * 27 + z @ np.array([9, 3, 1]), minlength=54)
    assert st.chisquare(found, len(z) * expected).pvalue > 1e-4
    assert np.array_equal(fit.draws("total").reshape(-1), z.sum(1))
    again = model.infer("exact", seed=3, draws=2500)
    assert np.array_equal(again.draws("z"), fit.draws("z"))
    close(fit.attrs["log_evidence"], solution.log_evidence)


def test_impossible_evidence_is_refused() -> None:
    @pp.model
    def never():
        x = pp.sample("x", dist.Bernoulli(0.0))
        pp.sample("y", dist.Bernoulli(0.5 * x))

    with pytest.raises(ZeroEvidenceError, match=r"probability zero under the model \(y = 1\)"):
        never().observe(y=1).solve()
    with pytest.raises(ZeroEvidenceError, match="probability zero"):
        never().observe(x=1).infer("exact")


def test_refusals_name_the_box() -> None:
    @pp.model
    def continuous():
        x = pp.sample("x", dist.Gamma(2.0, 1.0))
        pp.sample("n", dist.Poisson(x))

    with pytest.raises(NotExact, match="'x': its values are positive.*not a finite set") as caught:
        continuous().observe(n=3).solve(["tensor"])
    assert caught.value.box == "x" and caught.value.solver == "tensor"

    @pp.model
    def parity():
        with pp.plate("i", 40):
            x = pp.sample("x", dist.Bernoulli(0.5))
        pp.sample("y", dist.Bernoulli(pp.lift(_unknown)(x)))

    with pytest.raises(NotExact, match="depends on 40 finite variables at once"):
        parity().solve(["tensor"])
    with pytest.raises(SettingsError, match="Did you mean 'tensor'"):
        parity().solve(["tensors"])
    with pytest.raises(ModelError, match="no site 'zz'"):
        mixture(1).observe(count=[1]).solve().marginal("zz")


def test_a_value_of_a_hundred_variables_is_refused_not_overflowed() -> None:
    @pp.model
    def tangle():
        with pp.plate("i", 100):
            x = pp.sample("x", dist.Bernoulli(0.5))
        total = x[0] * 0.1
        for i in range(1, 100):
            total = total * 0.7 + x[i]
        pp.sample("y", dist.Normal(total, 1.0))

    with pytest.raises(NotExact, match="finite variables at once"):
        tangle().observe(y=0.0).solve(["tensor"])


def _unknown(x):
    return (x * 0.01).sum()
