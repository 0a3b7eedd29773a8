"""πP = π exactly, with the transition matrix built by walking every random choice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import Invariant
from ppcore.testing.checks.base import Check
from ppcore.testing.models import FINITE, FiniteTarget
from ppcore.testing.result import Finding
from ppcore.testing.session import Session

TOLERANCE = 1e-12


def transition_matrix(kernel: Any, params: Any, target: FiniteTarget) -> Any:
    """P[x, y] of one step from ``init`` at every state; float[S, S]."""
    states = target.states

    def row(key: Any, x: Any) -> Any:
        k_init, k_step = random.split(key)
        state = kernel.init(k_init, target, x, params)
        moved, _ = kernel.step(k_step, target, state, params)
        return (target.code(moved.x) == jnp.arange(len(states))).astype(float)

    return random.expectation(row, over=states)


def run(session: Session) -> Iterator[Finding]:
    """πP = π to 1e-12; detailed balance if reversible; one closed class if irreducible."""
    subject = session.subject
    contract = subject.contract
    assert isinstance(contract, Invariant)
    for name in subject.finite or tuple(FINITE):
        target = FINITE[name]()
        p = np.asarray(transition_matrix(subject.kernel, subject.params, target))
        pi = np.asarray(jax.nn.softmax(target.log_gamma))
        yield _judge(name, p, pi, contract)


def _judge(name: str, p: np.ndarray, pi: np.ndarray, contract: Invariant) -> Finding:
    if not np.all(np.isfinite(p)) or abs(p.sum(1) - 1).max() > TOLERANCE:
        return Finding(name, False, "a row of the transition matrix does not sum to one.")
    gap = abs(pi @ p - pi).max()
    if gap > TOLERANCE:
        return Finding(name, False, f"max |πP − π| = {gap:.2e} (allowed {TOLERANCE:.0e}).")
    flow = pi[:, None] * p
    skew = abs(flow - flow.T).max()
    if contract.reversible and skew > TOLERANCE:
        return Finding(name, False, f"detailed balance fails by {skew:.2e}: not reversible.")
    links = ((p > 0) | np.eye(len(p), dtype=bool)).astype(float)
    reach = np.linalg.matrix_power(links, len(p)) > 0
    if contract.irreducible and not reach.all():
        i, j = np.argwhere(~reach)[0]
        return Finding(name, False, f"state {j} is never reached from state {i}: reducible.")
    return Finding(name, True, f"πP = π to {gap:.0e} on {len(p)} states")


CHECK = Check(
    name="finite",
    law="πP = π, exactly",
    applies=lambda s: (
        s.kernel is not None and isinstance(s.contract, Invariant) and (s.finite is not None)
    ),
    run=run,
)
