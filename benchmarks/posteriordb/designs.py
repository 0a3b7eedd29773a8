"""Design matrices and outcomes of the regressions, in NumPy alone, for every library alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Data = dict[str, Any]
Design = tuple[np.ndarray, np.ndarray]


def columns(*given: Any) -> np.ndarray:
    """Columns as a float matrix; numbers are repeated.

    >>> columns(1, np.array([2, 3])).tolist()
    [[1.0, 2.0], [1.0, 3.0]]
    """
    return np.stack(np.broadcast_arrays(*given), axis=1).astype(float)


def logearn_interaction(data: Data) -> Design:
    height, male = data["height"], data["male"]
    return columns(1, height, male, height * male), np.log(data["earn"])


def earn_height(data: Data) -> Design:
    return columns(1, data["height"]), data["earn"]


def log10earn_height(data: Data) -> Design:
    return columns(1, data["height"]), np.log10(data["earn"])


def kidscore_mom_work(data: Data) -> Design:
    work = data["mom_work"]
    return columns(1, work == 2, work == 3, work == 4), data["kid_score"]


def mesquite(data: Data) -> Design:
    names = ("diam1", "diam2", "canopy_height", "total_height", "density", "group")
    return columns(1, *(data[n] for n in names)), data["weight"]


def logmesquite_logvas(data: Data) -> Design:
    one, two, canopy = data["diam1"], data["diam2"], data["canopy_height"]
    x = columns(
        1,
        np.log(one * two * canopy),
        np.log(one * two),
        np.log(one / two),
        np.log(data["total_height"]),
        np.log(data["density"]),
        data["group"],
    )
    return x, np.log(data["weight"])


def nes(data: Data) -> Design:
    age = data["age_discrete"]
    first = (1, data["real_ideo"], data["race_adj"], age == 2, age == 3, age == 4)
    return columns(*first, data["educ1"], data["gender"], data["income"]), data["partyid7"]


def kidscore_momiq(data: Data) -> Design:
    return columns(1, data["mom_iq"]), data["kid_score"]


def kidscore_interaction(data: Data) -> Design:
    school, iq = data["mom_hs"], data["mom_iq"]
    return columns(1, school, iq, school * iq), data["kid_score"]


def blr(data: Data) -> Design:
    return data["X"].astype(float), data["y"]


def diamonds(data: Data) -> Design:
    x = data["X"][:, 1:].astype(float)
    return x - x.mean(axis=0), data["Y"]


def autoregression(data: Data) -> Design:
    """Lags y_{t−1}, …, y_{t−K}, and y_t from t = K + 1 on."""
    y, k = data["y"], int(data["K"])
    return np.stack([y[k - lag : len(y) - lag] for lag in range(1, k + 1)], axis=1), y[k:]


FLAT: dict[str, Callable[[Data], Design]] = {
    "earnings-logearn_interaction": logearn_interaction,
    "earnings-earn_height": earn_height,
    "earnings-log10earn_height": log10earn_height,
    "kidiq_with_mom_work-kidscore_mom_work": kidscore_mom_work,
    "mesquite-mesquite": mesquite,
    "mesquite-logmesquite_logvas": logmesquite_logvas,
    "nes1976-nes": nes,
    "nes2000-nes": nes,
}
"""Those whose coefficients and scale have flat priors."""

HALF_CAUCHY: dict[str, Callable[[Data], Design]] = {
    "kidiq-kidscore_momiq": kidscore_momiq,
    "kidiq-kidscore_interaction": kidscore_interaction,
}
"""Those with flat coefficients and a half-Cauchy(2.5) scale."""
