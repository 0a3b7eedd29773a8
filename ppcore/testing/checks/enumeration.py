"""E[Ẑ Σ W f] = Z π(f) exactly, over every random choice of a stage on finite models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import ProperlyWeighted
from ppcore.population import equally_weighted
from ppcore.testing.checks.base import Check
from ppcore.testing.models import FINITE, FiniteTarget
from ppcore.testing.result import Finding
from ppcore.testing.session import Session

TOLERANCE = 1e-12


def weighted_law(stage: Any, target: FiniteTarget, particles: int) -> Any:
    """E[Ẑ Σ W 1{x_i = s}] for every state s, from prior draws; float[S]."""
    source = target.tempered(jnp.zeros(()))

    def program(key: Any) -> Any:
        k_start, k_stage = random.split(key)
        start = equally_weighted(source.sample_reference(k_start, particles))
        end = stage(k_stage, source, target, start)
        hits = target.code(end.x)[:, None] == jnp.arange(len(target.states))
        return jnp.exp(end.log_z) * (end.weights @ hits)

    return random.expectation(program)


def run(session: Session) -> Iterator[Finding]:
    """On each finite model, the weighted law equals γ to 1e-12 (relative to Z).

    Without a promise on the evidence, both are normalised first.
    """
    subject = session.subject
    contract = subject.contract
    assert isinstance(contract, ProperlyWeighted)
    for name in subject.finite or ("finite_line", "finite_grid"):
        target = FINITE[name]()
        gamma = np.exp(np.asarray(target.log_gamma))
        law = np.asarray(weighted_law(subject.stage, target, subject.particles))
        yield _judge(name, law, gamma, contract.unbiased_evidence)


def _judge(name: str, law: np.ndarray, gamma: np.ndarray, unbiased: bool) -> Finding:
    if not np.all(np.isfinite(law)):
        return Finding(name, False, "the expectation is not finite: a weight is NaN or infinite.")
    z, got = gamma.sum(), law.sum()
    if unbiased and abs(got - z) > TOLERANCE * z:
        return Finding(name, False, f"E[Ẑ] = {got:.12g}, but Z = {z:.12g}.")
    gap = abs(law / (z if unbiased else got) - gamma / z).max()
    if gap > TOLERANCE:
        s = int(np.argmax(abs(law - gamma)))
        return Finding(
            name,
            False,
            f"E[Ẑ ΣW 1(state {s})] = {law[s]:.9g}, but γ = {gamma[s]:.9g} (off by {gap:.1e} of Z).",
        )
    return Finding(name, True, f"E[Ẑ ΣWf] = ∫fγ to {max(gap, 1e-16):.0e} over all traces")


CHECK = Check(
    name="enumeration",
    law="E[Ẑ Σ W f] = Z π(f), exactly",
    applies=lambda s: (
        s.stage is not None and isinstance(s.contract, ProperlyWeighted) and s.finite != ()
    ),
    run=run,
)
