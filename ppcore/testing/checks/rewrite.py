"""A rewritten model has the same evidence and the same posterior."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.testing.checks.base import Check
from ppcore.testing.models import FINITE
from ppcore.testing.result import Finding
from ppcore.testing.session import Session

TOLERANCE = 1e-12


def compare_tables(before: Any, after: Any, keep: Sequence[int]) -> str | None:
    """Compare two unnormalised joint tables exactly; None, or what differs.

    Parameters
    ----------
    before : float[n₁, …, n_d]
        log γ of the model as declared.
    after : float[…]
        log γ of the rewritten model, over the kept coordinates only, in the order of ``keep``.
    keep : sequence of int
        Axes of ``before`` that the rewrite kept; the others were summed out.
    """
    log_before = np.asarray(before)
    gone = tuple(i for i in range(log_before.ndim) if i not in keep)
    order = np.argsort(np.argsort(keep))
    want = np.transpose(np.exp(log_before).sum(axis=gone), order)
    got = np.exp(np.asarray(after))
    if got.shape != want.shape:
        return f"the table has shape {got.shape}, expected {want.shape}."
    z, z_after = want.sum(), got.sum()
    if abs(z_after - z) > TOLERANCE * z:
        return f"the evidence became {z_after:.12g}; it was {z:.12g}."
    gap = abs(got - want).max() / z
    return f"the posterior differs by {gap:.1e}." if gap > TOLERANCE else None


def compare_densities(
    before: Callable[[Any], Any],
    after: Callable[[Any], Any],
    points: Any,
    constant: float | None = 0.0,
    tolerance: float = 1e-9,
) -> str | None:
    """Compare two log densities at ``points``: float[n, d]; None, or what differs.

    ``constant`` is the stated difference after − before; None allows any one constant.
    """
    gap = jax.vmap(after)(points) - jax.vmap(before)(points)
    shift = jnp.median(gap) if constant is None else constant
    worst = float(jnp.max(jnp.abs(gap - shift)))
    if not worst <= tolerance:
        return f"the log density differs by {worst:.1e} beyond the stated constant."
    return None


def run(session: Session) -> Iterator[Finding]:
    """Apply the rewrite to every finite model and compare exactly."""
    rewrite = session.subject.rewrite
    assert rewrite is not None
    for name in session.subject.finite or ("finite_grid", "finite_hidden_chain"):
        target = FINITE[name]()
        after, keep = rewrite(target)
        before = target.log_gamma.reshape(target.sizes)
        wrong = compare_tables(before, after.log_gamma.reshape(after.sizes), keep)
        yield Finding(name, wrong is None, wrong or "same evidence and posterior to 1e-12")


CHECK = Check(
    name="rewrite",
    law="same evidence, same posterior",
    applies=lambda s: s.rewrite is not None,
    run=run,
)
