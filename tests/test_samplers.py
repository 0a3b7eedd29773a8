"""The benchmark of samplers: targets against their truths, and the table's arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.samplers import judge, table
from benchmarks.samplers.__main__ import Results
from benchmarks.samplers.plan import Row, rows
from benchmarks.samplers.problems import PROBLEMS
from benchmarks.samplers.transport_cost import sinkhorn
from ppcore import precision

FREE = [name for name, problem in PROBLEMS.items() if not problem.file]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.mark.parametrize("name", FREE)
def test_targets_have_a_density_where_they_start(name: str) -> None:
    import jax

    with precision.scope("float64"):
        target = PROBLEMS[name].make()
        x = target.sample_reference(jax.random.key(0), 2)
        assert x.shape == (2, target.dim)
        value, slope = jax.vmap(jax.value_and_grad(target.log_density))(x)
        assert np.isfinite(value).all() and np.isfinite(slope).all()
        assert np.isfinite(target.log_prior(x[0]))


@pytest.mark.parametrize("name", [n for n in FREE if PROBLEMS[n].modes and PROBLEMS[n].draw])
def test_exact_draws_have_the_stated_modes(name: str) -> None:
    problem = PROBLEMS[name]
    member = problem.modes.member(problem.draw(rng(), 20_000))
    share = problem.modes.share
    # 600 comparisons in all at z = 5.2: a false alarm once in ten thousand seeds.
    assert np.all(np.abs(member.mean(0) - share) < 5.2 * np.sqrt(share * (1 - share) / 20_000))
    assert np.all(member.sum(1) == round(share.sum()))


@pytest.mark.parametrize("name", ["many_well", "mw5", "mw50"])
def test_evidence_of_wells_is_their_quadrature(name: str) -> None:
    t = np.linspace(-8, 8, 400_001)
    gap = t[1] - t[0]

    def log_mass(log_density: Any) -> float:
        return float(np.log(np.exp(log_density).sum() * gap))

    half = 0.5 * np.log(2 * np.pi)
    found = {
        "many_well": 16 * (log_mass(-(t**4) + 6 * t**2 + 0.5 * t) + half),
        "mw5": 5 * log_mass(-((t**2 - 4) ** 2)),
        "mw50": 5 * log_mass(-((t**2 - 2) ** 2)) + 45 * half,
    }
    assert abs(found[name] - PROBLEMS[name].log_z) < 1e-5


@pytest.mark.parametrize("name", ["rosenbrock36", "ill_gaussian", "mos", "gmm40-50", "gmm9"])
def test_evidence_is_that_of_the_normalised_law(name: str) -> None:
    """log γ − log Z at exact draws has the entropy of their law, where that has a closed form."""
    problem = PROBLEMS[name]
    x = problem.draw(rng(1), 4_000)
    with precision.scope("float64"):
        import jax

        target = problem.make()
        value = np.asarray(jax.vmap(lambda v: target.log_density_fn(v, target.data))(x))
    d = x.shape[1]
    # Minus the entropy: components of a mixture that do not overlap add log K.
    known = {
        "rosenbrock36": -36 * (0.5 * np.log(2 * np.pi) + 0.5) - 9 * np.log(0.1),
        "ill_gaussian": -0.5 * d * (np.log(2 * np.pi) + 1),
        "mos": -np.log(10) - 150 + 75 * np.log(2),
        "gmm40-50": -np.log(40) - 25 * (np.log(2 * np.pi) + 1),
        "gmm9": -np.log(9) - np.log(2 * np.pi * 0.5477**2) - 1,
    }
    error = value.std() / len(value) ** 0.5
    assert abs(value.mean() - problem.log_z - known[name]) < 4.5 * error + 1e-3


def test_clusters_ignore_the_place_and_the_order_of_particles() -> None:
    from benchmarks.targets import particles

    with precision.scope("float64"):
        x = rng().standard_normal((13, 3))
        energy = float(particles.lj13_energy(x.ravel()))
        other = rng(1).permutation(x + np.array([1.0, -2.0, 3.0]))
        assert np.isclose(float(particles.lj13_energy(other.ravel())), energy)
        pairs = [np.linalg.norm(x[i] - x[j]) for i in range(13) for j in range(13) if i != j]
        r = np.maximum(np.array(pairs), particles.CLOSEST**0.5)
        trap = 0.5 * np.sum((x - x.mean(0)) ** 2)
        assert np.isclose(np.sum(r**-12 - 2 * r**-6) + trap, energy)


def test_sinkhorn_of_a_shift_is_its_length() -> None:
    x = rng().standard_normal((256, 2))
    assert abs(sinkhorn(x, x + np.array([30.0, 40.0])) - 50.0) < 0.1
    from scipy.optimize import linear_sum_assignment

    y = rng(1).standard_normal((256, 2))
    cost = np.linalg.norm(x[:, None] - y[None], axis=-1)
    best = cost[linear_sum_assignment(cost)].mean()
    assert best - 1e-3 < sinkhorn(x, y) < best + 0.05 * cost.mean()


def test_effective_size_of_independent_weights_is_the_usual_one() -> None:
    from ppcore.population import Population

    log_weight = rng().standard_normal(500)
    w = np.exp(log_weight) / np.exp(log_weight).sum()
    size = 1 / np.sum(w**2)
    error = ((500 / size - 1) / 500) ** 0.5
    population = Population(np.zeros((500, 1)), log_weight, np.zeros(()))
    attrs = {"log_evidence_error": error, "weights": {"steps": [{}]}}
    fit = SimpleNamespace(population=population, attrs=attrs)
    assert np.isclose(judge.share_of_draws(fit), size / 500)
    attrs["weights"]["steps"] = [{"ess": [450.0]}]
    assert judge.share_of_draws(fit) == 0.9
    kept = judge.drawn(np.arange(500.0)[:, None], w, 400, 0)
    assert kept.shape == (400, 1)
    assert abs(np.bincount(kept[:, 0].astype(int), minlength=500) / 400 - w).max() < 1 / 400


def test_rows_of_the_settings_are_rows_of_the_table(tmp_path: Path) -> None:
    known = rows()
    assert {row.target for row in known} >= {"funnel", "gmm9", "brownian", "lgcp"}
    for target in dict.fromkeys(row.target for row in known):
        assert any(row.engine == "smc" for row in known if row.target == target), target
    assert all(row.problem in PROBLEMS for row in known)
    assert len(rows(["gmm9"], ["smc", "flow"])) == 2
    assert len(rows(["lgcp"], ["smc", "pis"], every=True)) == 2 + len(rows(["lgcp"], ["pis"]))
    with pytest.raises(ValueError, match="Did you mean 'funnel'"):
        rows(["funel"])
    kept = Results(tmp_path / "results.jsonl")
    row = Row("gmm9", "smc", "smc", {}, 10, 1, "gmm9")
    outcome = {"n": 10, "seed": 0, "ess": 0.5, "gradients": 10, "seconds": 2.0}
    outcome |= {"compile_seconds": 1.0, "log_z": 0.01, "modes": 9, "of_modes": 9}
    kept.add(row, outcome)
    kept.add(row, {"seed": None, "error": "stopped"})
    again = Results(tmp_path / "results.jsonl")
    assert json.loads((tmp_path / "results.jsonl").read_text().splitlines()[0])["log_z"] == 0.01
    cells = table.cells(row, PROBLEMS["gmm9"], again.of(row))
    assert "+0.0100" in cells and "stopped" in cells[-2] and "met" in cells[-1]
    again.forget_failures(row)
    assert table.cells(row, PROBLEMS["gmm9"], again.of(row))[-2] == "1"
    absent = table.cells(row, PROBLEMS["gmm9"], [{"seed": None, "absent": "no engine"}])
    assert len(absent) == len(cells) and absent[2] == "no engine"
