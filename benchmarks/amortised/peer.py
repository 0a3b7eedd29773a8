"""Run by a Python that has ``sbi``: trains its NPE on given simulations, and scores draws.

``python peer.py train IN.npz OUT.npz`` with ``theta``, ``y``, ``observed`` and ``draws``, ``seed``,
``density``; ``python peer.py score IN.npz OUT.npz`` with pairs ``a0``, ``b0``, ``a1``, …
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import torch
from sbi.utils.metrics import c2st

WIDER = {"hidden_features": 64, "num_transforms": 8}


def train(given: Any) -> dict[str, Any]:
    """Draws for each observed data set, and the seconds that training took."""
    from sbi.inference import NPE
    from sbi.neural_nets import posterior_nn
    from sbi.utils import BoxUniform

    torch.manual_seed(int(given["seed"]))
    theta = torch.as_tensor(given["theta"], dtype=torch.float32)
    y = torch.as_tensor(given["y"], dtype=torch.float32)
    density = str(given["density"])
    if density.endswith("+"):
        density = posterior_nn(density[:-1], **WIDER)
    if "low" in given:
        low, high = (torch.as_tensor(given[k], dtype=torch.float32) for k in ("low", "high"))
        prior: Any = BoxUniform(low, high)
    else:
        loc, scale = (torch.as_tensor(given[k], dtype=torch.float32) for k in ("loc", "scale"))
        prior = torch.distributions.Independent(torch.distributions.LogNormal(loc, scale), 1)
    began = time.perf_counter()
    learner = NPE(prior, density_estimator=density, show_progress_bars=False)
    estimate = learner.append_simulations(theta, y).train()
    seconds = time.perf_counter() - began
    posterior = learner.build_posterior(estimate)
    drawn = []
    for observed in given["observed"]:
        x = torch.as_tensor(observed, dtype=torch.float32)[None]
        made = posterior.sample((int(given["draws"]),), x=x, show_progress_bars=False)
        drawn.append(made.numpy())
    epochs = learner.summary["epochs_trained"][-1]
    return {"draws": np.stack(drawn), "seconds": seconds, "epochs": epochs}


def score(given: Any) -> dict[str, Any]:
    """C2ST of every pair: 0.5 where a classifier cannot tell them apart, 1 where it always can."""
    found = []
    for i in range(len(given.files) // 2):
        a, b = (torch.as_tensor(given[f"{k}{i}"], dtype=torch.float32) for k in "ab")
        found.append(float(c2st(a, b, seed=1)))
    return {"c2st": np.array(found)}


if __name__ == "__main__":
    torch.set_num_threads(2)
    what, source, where = sys.argv[1:]
    with np.load(source, allow_pickle=False) as loaded:
        np.savez(where, **{"train": train, "score": score}[what](loaded))
