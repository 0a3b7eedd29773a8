"""What a population engine returns: shapes, finite numbers, the seed's doing, one trace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ppcore.engine import Progress
from ppcore.testing.checks.base import Check
from ppcore.testing.checks.rig import same
from ppcore.testing.models import CONJUGATE, simulate
from ppcore.testing.models.conjugate import NormalTarget
from ppcore.testing.result import Finding
from ppcore.testing.session import Session, take

PARTICLES = 64
TRACED: list[int] = []


@jax.tree_util.register_pytree_node_class
class Counted(NormalTarget):
    """The conjugate normal model, which notes each time that its likelihood is traced."""

    def parts(self, x: Any) -> tuple[Any, Any]:
        TRACED.append(1)
        return super().parts(x)


def run(session: Session) -> Iterator[Finding]:
    """N particles of x's dtype, weights and evidence finite; one key twice gives the same bits,
    another key others; another key and other data of the same shape trace nothing anew."""
    engine, name = session.subject.populator, CONJUGATE.name
    _, batch = simulate(CONJUGATE, jax.random.split(session.key("populated"), 2))
    first, other = (Counted(take(batch, CONJUGATE, i).y) for i in range(2))
    keys = [session.key("populated", i) for i in range(2)]
    made = engine.populate(keys[0], first, PARTICLES, _silent)
    wrong = _problem(made, np.asarray(first.y).dtype)
    if wrong is not None:
        yield Finding(name, False, wrong)
        return
    TRACED.clear()
    again = engine.populate(keys[0], first, PARTICLES, _silent)
    changed = engine.populate(keys[1], other, PARTICLES, _silent)
    if TRACED:
        yield Finding(
            name, False, f"another seed and other data traced the model {len(TRACED)} times anew."
        )
    elif not same(made.population, again.population):
        yield Finding(name, False, "the same key gave another population.")
    elif same(made.population.x, changed.population.x):
        yield Finding(name, False, "another key gave the same population: the key is ignored.")
    else:
        yield Finding(name, True, "shapes and values as promised; the key decides; one trace")


def _problem(made: Any, dtype: np.dtype) -> str | None:
    population = made.population
    shapes = [np.shape(a) for a in (population.x, population.log_weight, population.log_z)]
    want = [(PARTICLES, 2), (PARTICLES,), ()]
    if shapes != want:
        return f"x, log_weight, log_z have shapes {shapes}, expected {want}."
    if np.asarray(population.x).dtype != dtype:
        return f"x is {np.asarray(population.x).dtype}, but the data are {dtype}."
    if not np.all(np.isfinite(population.x)) or not np.isfinite(population.log_z):
        return "x or log_z is not finite."
    if not isinstance(made.gradients, int) or made.gradients < 1:
        return f"gradients={made.gradients!r}: count the evaluations of the target."
    return None


def _silent(_: Progress) -> None:
    return None


CHECK = Check(
    name="populated",
    law="populations are what the protocol says; one trace per shape",
    applies=lambda s: s.populator is not None,
    run=run,
    manners=True,
)
