"""The mean of the draws, with an error that knows that they are correlated."""

from __future__ import annotations

import numpy as np

from ppcore.estimators.estimate import Estimate, standard_error


def plain_mean(values: np.ndarray) -> Estimate:
    """(1/N) Σ f(θ_i) with MCSE sd(f)/√ESS(f).

    Parameters
    ----------
    values : float[chains, draws, m]

    Source: Flegal, Haran & Jones (2008), doi:10.1214/08-STS257; the ESS of Vehtari et al. (2021).

    >>> values = np.random.default_rng(0).normal(size=(4, 1000, 1))
    >>> bool(abs(plain_mean(values).value[0]) < 4 * plain_mean(values).mcse[0])
    True
    """
    value = values.reshape(-1, values.shape[-1]).mean(axis=0)
    return Estimate(value, standard_error(values), "mean", np.ones_like(value))
