"""Which draw of the source goes with which draw of the target: couplings of two batches.

Paths between partners that optimal transport has chosen hardly cross, so that the average velocity
at a point is close to that of the one path through it, and the flow is nearly straight. The
marginals of a coupling are those of the batches whatever the rule, so that none changes the law
that the flow ends in.

Source: Pooladian et al. 2023, arXiv:2304.14772; Tong et al. 2024, arXiv:2302.00482; Cuturi 2013,
arXiv:1306.0895 (entropic).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.errors import SettingsError, did_you_mean
from ppcore.settings import check_between, check_count

COUPLINGS = ("exact", "entropic", "independent")


def costs(z: Any, x: Any) -> np.ndarray:
    """½|z_i − x_j|²; float[n, d], float[m, d] -> float[n, m]."""
    z, x = np.asarray(z, float), np.asarray(x, float)
    cross = z @ x.T
    return 0.5 * (z**2).sum(1)[:, None] + 0.5 * (x**2).sum(1)[None] - cross


def assignment(z: Any, x: Any) -> np.ndarray:
    """The permutation σ that makes Σ ½|z_i − x_σ(i)|² least, exactly; int[n].

    Parameters
    ----------
    z, x : float[n, d]

    Raises
    ------
    ppcore.errors.SettingsError
        If the two differ in shape, or hold NaN or infinity.

    Source: Crouse 2016, doi:10.1109/TAES.2016.140952, as SciPy has it.

    >>> assignment([[0.0], [1.0], [5.0]], [[4.0], [0.9], [-3.0]]).tolist()
    [2, 1, 0]
    """
    from scipy.optimize import linear_sum_assignment

    z, x = np.asarray(z, float), np.asarray(x, float)
    if z.ndim != 2 or z.shape != x.shape:
        raise SettingsError(
            f"Two batches of one shape [n, d] can be paired, not {z.shape} and {x.shape}."
        )
    if not (np.isfinite(z).all() and np.isfinite(x).all()):
        raise SettingsError("A batch to be paired holds NaN or infinity.")
    return np.asarray(linear_sum_assignment(costs(z, x))[1])


def entropic_plan(z: Any, x: Any, regularisation: float = 0.05, sweeps: int = 200) -> np.ndarray:
    """The plan π that makes Σ π_ij c_ij + ε Σ π_ij log π_ij least, by Sinkhorn; float[n, m].

    Rows sum to 1/n exactly, columns to 1/m as far as the sweeps have come. ε is
    ``regularisation`` times the mean cost.

    Raises :class:`ppcore.errors.SettingsError` if ε or the number of sweeps is not positive.
    """
    check_between("regularisation", regularisation, 0, np.inf)
    check_count("sweeps", sweeps, 1)
    cost = costs(z, x)
    scaled = -cost / (regularisation * max(float(cost.mean()), 1e-300))
    return np.asarray(_sinkhorn(jnp.asarray(scaled), sweeps))


def _sweep(_: Any, state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
    scaled, rows, columns = state
    n, m = scaled.shape
    columns = -jnp.log(m) - jax.nn.logsumexp(scaled + rows[:, None], axis=0)
    rows = -jnp.log(n) - jax.nn.logsumexp(scaled + columns[None], axis=1)
    return scaled, rows, columns


@jax.jit
def _sinkhorn(scaled: Any, sweeps: Any) -> Any:
    begin = (scaled, jnp.zeros_like(scaled[:, 0]), jnp.zeros_like(scaled[0]))
    scaled, rows, columns = jax.lax.fori_loop(0, sweeps, _sweep, begin)
    return jnp.exp(scaled + rows[:, None] + columns[None])


def check_coupling(how: Any) -> None:
    """Raise :class:`ppcore.errors.SettingsError` for a coupling that does not exist.

    >>> check_coupling("exact")
    """
    if how not in COUPLINGS:
        raise SettingsError(f"coupling={how!r} is not known. {did_you_mean(str(how), COUPLINGS)}")


def paired(
    rng: np.random.Generator, z: np.ndarray, x: np.ndarray, how: str, group: int = 64
) -> np.ndarray:
    """``x`` in the order in which its rows go with those of ``z``; float[n, d].

    Parameters
    ----------
    how : "exact", "entropic" or "independent"
        The best assignment; a partner drawn from the entropic plan; as they come.
    group : int
        Rows that look for partners among each other; the best assignment takes time ~ group³.
    """
    if how == "independent":
        return x
    found = []
    for start in range(0, len(z), group):
        a, b = z[start : start + group], x[start : start + group]
        found.append(b[assignment(a, b) if how == "exact" else _entropic(rng, a, b)])
    return np.concatenate(found)


def _entropic(rng: np.random.Generator, z: np.ndarray, x: np.ndarray) -> np.ndarray:
    edges = np.cumsum(entropic_plan(z, x), axis=1)
    u = rng.random(len(z))[:, None] * edges[:, -1:]
    return np.minimum((edges < u).sum(1), len(x) - 1)
