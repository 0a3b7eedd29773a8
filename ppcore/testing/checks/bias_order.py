"""The stationary bias shrinks like h^p: coupled runs at h, h/2 and h/4."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import Biased
from ppcore.testing.checks.base import Check
from ppcore.testing.models import check_model, feature_scale
from ppcore.testing.result import Finding
from ppcore.testing.session import BATCH, Session

MODEL = "gamma_scale"
TIME_STEPS = 24
SLACK = 0.5


def with_setting(params: Any, name: str, value: Any) -> Any:
    """``params`` with the entry ``name`` replaced, whatever kind of record it is."""
    if isinstance(params, dict):
        return {**params, name: value}
    if hasattr(params, "_replace"):
        return params._replace(**{name: value})
    return replace(params, **{name: value})


def run(session: Session) -> Iterator[Finding]:
    """The slope log₂[(b(h) − b(h/2)) / (b(h/2) − b(h/4))] must not lie below p − ½.

    Chains at h, h/2 and h/4 share start and Brownian path (:class:`ppcore.random.Coupled`), which
    takes most of the noise out of the differences. The half order of slack is for finite h; the
    test is asymptotic, with a one-sided normal bound at the error of one test.
    """
    contract = session.subject.contract
    assert isinstance(contract, Biased)
    model = check_model(MODEL)
    ends = [_ends(session, level) for level in range(3)]
    coarse, fine = ends[0] - ends[1], ends[1] - ends[2]
    if not np.all(np.isfinite(coarse + fine)):
        yield Finding(MODEL, False, "a chain diverged: reduce the step.", np.inf)
        return
    n, z = len(coarse), NormalDist().inv_cdf(1.0 - session.alpha)
    means, errors = coarse.mean(0), coarse.std(0) / np.sqrt(n)
    f = int(np.argmax(np.abs(means) / (errors + 1e-300)))
    name = model.feature_names[f]
    d1, d2 = coarse[:, f], fine[:, f]
    se2 = d2.std() / np.sqrt(n)
    if abs(d1.mean()) < z * errors[f]:
        yield Finding(
            MODEL,
            True,
            f"no bias seen between h and h/2 above {z * errors[f]:.1e} ({name})",
            resolution=float(z * errors[f] / np.asarray(feature_scale(model).spread)[f]),
        )
        return
    # |d2| can only be over-estimated by its noise: use its upper bound's counterpart, so that
    # a slope is called too small only when the data force it.
    d2_low = max(abs(d2.mean()) - z * se2, 1e-300)
    highest = float(np.log2((abs(d1.mean()) + z * errors[f]) / d2_low))
    slope = float(np.log2(abs(d1.mean()) / max(abs(d2.mean()), 1e-300)))
    ok = highest >= contract.order - SLACK
    yield Finding(
        MODEL,
        ok,
        f"bias of {name} falls with slope {slope:.2f} (at most {highest:.2f}) between "
        f"{contract.in_} = {session.subject.step:g}, half and a quarter of it; order "
        f"{contract.order} is claimed",
        order=slope,
    )


def _ends(session: Session, level: int) -> Any:
    """F(X_T) with step h / 2^level; the leaves of each Brownian path are shared by all levels."""
    subject = session.subject
    contract = subject.contract
    assert isinstance(contract, Biased)
    model = check_model(MODEL)
    target = session.typical(model)
    scale = feature_scale(model)
    h = subject.step / 2**level
    params = with_setting(subject.params, contract.in_, jnp.asarray(h))
    kernel = subject.kernel

    def one(key: Any) -> Any:
        k_start, k_init, k_path = jax.random.split(key, 3)
        x = target.sample_reference(k_start, 1)[0] * 0.1
        leaves = jax.random.split(k_path, (TIME_STEPS, 4))
        keys: Any
        if level == 0:
            keys = random.Coupled(
                random.Coupled(leaves[:, 0], leaves[:, 1]),
                random.Coupled(leaves[:, 2], leaves[:, 3]),
            )
        elif level == 1:
            pairs = leaves.reshape(2 * TIME_STEPS, 2)
            keys = random.Coupled(pairs[:, 0], pairs[:, 1])
        else:
            keys = leaves.reshape(4 * TIME_STEPS)
        state = kernel.init(k_init, target, x, params)
        state, _ = jax.lax.scan(
            lambda s, k: (kernel.step(k, target, s, params)[0], None), state, keys
        )
        return scale(model.raw_features(state.x, target))

    run_all = jax.jit(jax.vmap(one))
    parts = [
        np.asarray(run_all(jax.random.split(session.key("bias", b), BATCH)))
        for b in range(4 * session.batches)
    ]
    return np.concatenate(parts)


CHECK = Check(
    name="bias_order",
    law="bias = O(h^p)",
    applies=lambda s: s.kernel is not None and isinstance(s.contract, Biased),
    run=run,
    statistical=True,
)
