"""Classic Bayesian networks: marginals, evidence and interventions agree with other packages'."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bif import Bayes, read
from benchmarks.finite_networks import agrum, agrum_net, declare, evidence_for, ours

pytest.importorskip("pyagrum")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pgmpy = pytest.importorskip("pgmpy")

FOLDER = Path(pgmpy.__file__).parent / "utils" / "example_models"
SMALL = ("asia", "cancer", "earthquake", "survey", "sachs", "child", "insurance", "alarm")
LARGE = ("hailfinder", "hepar2", "win95pts", "water", "andes")


def network(name: str) -> Bayes:
    return read(FOLDER / f"{name}.bif.gz")


@pytest.mark.parametrize("name", SMALL + LARGE)
def test_marginals_given_evidence_agree(name: str) -> None:
    net = network(name)
    nodes = list(net.parents)
    mine, theirs = ours(declare(net), nodes), agrum(net, nodes)
    for case in evidence_for(net, 1, 3):
        found, expected = mine(case), theirs(case)
        for node in found:
            np.testing.assert_allclose(found[node], expected[node], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", SMALL)
def test_the_evidence_agrees(name: str) -> None:
    import pyagrum as gum

    net = network(name)
    model = declare(net)
    for case in evidence_for(net, 2, 3):
        engine = gum.LazyPropagation(agrum_net(net))
        engine.setEvidence(case)
        found = model.observe(case).solve().log_evidence
        assert found == pytest.approx(np.log(engine.evidenceProbability()), abs=1e-10)


@pytest.mark.parametrize("name", ("asia", "child", "alarm", "win95pts"))
def test_interventions_agree_with_the_mutilated_network(name: str) -> None:
    net = network(name)
    rng = np.random.default_rng(3)
    nodes = list(net.parents)
    inner = sorted({p for above in net.parents.values() for p in above if net.parents[p]})
    for node in rng.choice(inner, 3, replace=False):
        size = len(net.states[node])
        value = int(rng.integers(size))
        cut = Bayes(
            net.states,
            {n: () if n == node else above for n, above in net.parents.items()},
            {**net.tables, node: np.eye(size)[value]},
        )
        found = declare(net).do({str(node): value}).solve()
        expected = agrum(cut, nodes)({})
        for other in nodes:
            p = found.marginal(other)
            q = np.zeros(len(net.states[other]))
            q[p.values.astype(int)] = p.probs
            np.testing.assert_allclose(q, expected[other], rtol=0, atol=1e-10)
