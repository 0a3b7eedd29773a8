"""Population engines that cannot be traced: averages of whole runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from scipy.stats import t as student

from ppcore.contract import ProperlyWeighted
from ppcore.testing.checks.base import Check
from ppcore.testing.models import CheckModel, feature_scale, raw_features, simulate
from ppcore.testing.result import Finding
from ppcore.testing.session import Session, take

PARTICLES, EXACT = 512, 4096
A_RUN = 600


def run(session: Session) -> Iterator[Finding]:
    """E[Σ W F(x) − π(F)] = 0 for the bounded features F of every model whose posterior and evidence
    are known, by a t test over runs, each on a data set of its own and against exact draws of its
    posterior. One run for every 600 replicates, and at least eight.

    Averages of a finite population may be biased; a bias below the resolution passes. Where the
    contract promises the evidence, E[Ẑ/Z] = 1 and E[Ẑ/Z Σ W F(x)] = π(F) are tested with them;
    where it does not, log Ẑ − log Z is reported and not judged.
    """
    for model in session.models:
        if model.log_evidence is not None and model.posterior is not None:
            yield _model(session, model, model.log_evidence, model.posterior)


def _model(session: Session, model: CheckModel, log_evidence: Any, posterior: Any) -> Finding:
    runs = max(8, session.replicates // A_RUN)
    keys = jax.random.split(session.key("averages", model.name), runs)
    _, targets = simulate(model, keys)
    made = []
    for i in range(runs):
        key, target = session.key("averages", model.name, i), take(targets, model, i)
        populated = session.subject.populator.populate(key, target, PARTICLES, lambda _: None)
        made.append(populated.population)
    known = np.asarray(jax.jit(jax.vmap(log_evidence, (model.axes,)))(targets))
    misses = np.array([float(population.log_z) for population in made]) - known
    draw = jax.jit(jax.vmap(lambda k, t: posterior(k, t, EXACT), (0, model.axes)))
    exact = draw(jax.random.split(session.key("exact", model.name), runs), targets)
    states = np.concatenate([np.stack([np.asarray(p.x) for p in made]), exact], axis=1)
    f = np.asarray(feature_scale(model)(raw_features(model, states, targets)))
    weights = np.stack([np.asarray(population.weights) for population in made])
    wanted = f[:, PARTICLES:]
    seen = np.einsum("rn,rnf->rf", weights, f[:, :PARTICLES])
    scale = wanted.std(1).mean(0)
    d, names = (seen - wanted.mean(1)) / scale, list(model.feature_names)
    contract = session.subject.contract
    assert isinstance(contract, ProperlyWeighted)
    if contract.unbiased_evidence:
        ratio = np.exp(misses)[:, None]
        d = np.concatenate([d, (ratio * seen - wanted.mean(1)) / scale, ratio - 1.0], axis=1)
        names += [f"Ẑ/Z · {name}" for name in names] + ["Ẑ/Z"]
    return _judge(session, model, d, names, misses)


def _judge(
    session: Session, model: CheckModel, d: np.ndarray, names: list[str], misses: np.ndarray
) -> Finding:
    """``d``: float[runs, F], errors in posterior standard deviations (of Ẑ/Z, relative)."""
    runs, features = d.shape
    if not np.all(np.isfinite(d)):
        return Finding(model.name, False, "an average is not finite.", np.inf)
    allowed = float(student.isf(0.5 * session.alpha / features, runs - 1))
    error = d.std(0, ddof=1) / np.sqrt(runs)
    worst = int(np.argmax(np.abs(d.mean(0)) - allowed * error))
    if abs(d.mean(0)[worst]) > allowed * error[worst]:
        return Finding(
            model.name,
            False,
            f"averages of {names[worst]} are off by {d.mean(0)[worst]:+.3f} ± "
            f"{error[worst]:.3f} posterior sd over {runs} runs.",
        )
    resolution = float(np.max((allowed + 1.64) * error))
    return Finding(
        model.name,
        True,
        f"no bias above {resolution:.2f} posterior sd on {features} features over {runs} runs; "
        f"log Ẑ − log Z: {np.mean(misses):+.2f} ± {np.std(misses):.2f}",
        resolution=resolution,
    )


CHECK = Check(
    name="averages",
    law="E[Σ W f(x)] = π(f)",
    applies=lambda s: (
        s.populator is not None and s.stage is None and isinstance(s.contract, ProperlyWeighted)
    ),
    run=run,
    statistical=True,
)
