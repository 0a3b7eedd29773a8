"""Resampling: N equally weighted particles from N weighted ones, unbiased and with little noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from ppcore import random
from ppcore.contract import Contract, ProperlyWeighted
from ppcore.errors import SettingsError, did_you_mean
from ppcore.population import Population
from ppcore.settings import check_between
from ppcore.stages.base import Stage

ROUNDING = 1e-12


def multinomial(key: Any, w: Any, n: int | None = None) -> Any:
    """``n`` independent ancestors, P(i) = W_i; int[n].

    Parameters
    ----------
    key : key or Script
    w : float[N]
        Weights that sum to one.
    n : int
        How many to draw; by default N.

    Source: Gordon, Salmond & Smith 1993, doi:10.1049/ip-f-2.1993.0015.
    """
    n = w.shape[0] if n is None else n
    return random.categorical(key, jnp.log(w), (n,))


def stratified(key: Any, w: Any, n: int | None = None) -> Any:
    """One uniform in each of ``n`` equal strata of the cumulative weights; int[n].

    Source: Kitagawa 1996, doi:10.1080/10618600.1996.10474692.
    """
    n = w.shape[0] if n is None else n
    edges = jnp.cumsum(w)
    cells = jnp.clip(n * edges - jnp.arange(n)[:, None], 0.0, 1.0)
    u = random.uniform(key, (n,), w.dtype, cells=cells)
    return _at(edges, (jnp.arange(n) + u) / n)


def systematic(key: Any, w: Any, n: int | None = None) -> Any:
    """One uniform shared by all ``n`` strata: ⌊nW_i⌋ or ⌈nW_i⌉ copies of each; int[n].

    Source: Carpenter, Clifford & Fearnhead 1999, doi:10.1049/ip-rsn:19990255.
    """
    n = w.shape[0] if n is None else n
    edges = jnp.cumsum(w)
    u = random.uniform(key, (), w.dtype, cells=jnp.mod(n * edges, 1.0))
    return _at(edges, (jnp.arange(n) + u) / n)


def residual(key: Any, w: Any, n: int | None = None) -> Any:
    """⌊nW_i⌋ copies each, the rest by multinomial draws of the remainders; int[n].

    Source: Liu & Chen 1998, doi:10.1080/01621459.1998.10473765.
    """
    n = w.shape[0] if n is None else n
    copies = jnp.floor(n * w + ROUNDING)
    sure = jnp.searchsorted(jnp.cumsum(copies), jnp.arange(n), side="right")
    rest = jnp.clip(n * w - copies, 0.0, 1.0)
    drawn = random.categorical(key, jnp.where(rest.sum() > 0, jnp.log(rest), 0.0), (n,))
    return jnp.where(jnp.arange(n) < copies.sum(), jnp.minimum(sure, w.shape[0] - 1), drawn)


def ssp(key: Any, w: Any, n: int | None = None) -> Any:
    """Srinivasan's sampling process: ⌊nW_i⌋ or ⌈nW_i⌉ copies, negatively associated; int[n].

    Remainders meet in pairs (a, b): with δ = min(1 − a, b), ε = min(a, 1 − b), they become
    (a + δ, b − δ) with probability ε/(δ + ε) and (a − ε, b + ε) else, so that one of them is an
    integer and both keep their means. Consistent for any order of the particles, unlike
    :func:`systematic`.

    Source: Gerber, Chopin & Whiteley 2019, arXiv:1707.01845.
    """
    size = w.shape[0]
    n = size if n is None else n
    whole = jnp.floor(n * w + ROUNDING)
    part = jnp.clip(n * w - whole, 0.0, 1.0)

    def meet(key: Any, carry: Any, j: Any) -> tuple[Any, None]:
        up, i, a = carry
        b = part[j]
        more, less = jnp.minimum(1.0 - a, b), jnp.minimum(a, 1.0 - b)
        both = more + less
        p = jnp.where(both > 0, less / jnp.where(both > 0, both, 1.0), 1.0)
        first = random.bernoulli(key, p)
        a, b = jnp.where(first, a + more, a - less), jnp.where(first, b - more, b + less)
        # Whichever is an integer now is settled; the other goes on to the next meeting.
        done = (a < ROUNDING) | (a > 1.0 - ROUNDING)
        up = up.at[i].set(jnp.where(done, jnp.round(a), up[i]))
        up = up.at[j].set(jnp.where(done, up[j], jnp.round(b)))
        return (up, jnp.where(done, j, i), jnp.where(done, b, a)), None

    begin = (jnp.zeros(size, w.dtype), jnp.asarray(0), part[0])
    (up, i, a), _ = random.scan(meet, key, begin, jnp.arange(1, size), size - 1)
    copies = whole + up.at[i].set(jnp.round(a))
    index = jnp.searchsorted(jnp.cumsum(copies), jnp.arange(n), side="right")
    return jnp.minimum(index, size - 1)


SCHEMES: dict[str, Callable[..., Any]] = {
    "multinomial": multinomial,
    "stratified": stratified,
    "systematic": systematic,
    "residual": residual,
    "ssp": ssp,
}


def check_scheme(scheme: str) -> None:
    """Raise :class:`ppcore.errors.SettingsError` for a scheme that does not exist.

    >>> check_scheme("systematic")
    """
    if scheme not in SCHEMES:
        raise SettingsError(f"scheme={scheme!r} is not known. {did_you_mean(scheme, SCHEMES)}")


@dataclass(frozen=True)
class Resample(Stage):
    """Draw N ancestors by their weights where ESS ≤ threshold · N; weights are equal after.

    E[number of copies of i] = N W_i, so a proper population stays proper, and log_z stays.

    Parameters
    ----------
    scheme : str
        "systematic", "stratified", "residual", "multinomial" or "ssp".
    threshold : float
        1 resamples always, 0.5 when half of the particles are wasted.

    Source: Liu & Chen 1995, doi:10.1080/01621459.1995.10476549, for the threshold.

    >>> Resample("systemtic")
    Traceback (most recent call last):
    ppcore.errors.SettingsError: scheme='systemtic' is not known. Did you mean 'systematic'?
    """

    scheme: str = "systematic"
    threshold: float = 1.0

    def __post_init__(self) -> None:
        check_scheme(self.scheme)
        check_between("threshold", self.threshold, 0, 1 + ROUNDING)

    @property
    def contract(self) -> Contract:
        return ProperlyWeighted()

    def along(self, key: Any, path: Any, at: Any, population: Population) -> Population:
        return self.chosen(key, population)[0]

    def chosen(self, key: Any, population: Population) -> tuple[Population, Any]:
        """The population after, and the ancestor of each of its particles: int[N]."""
        n = population.size
        index = SCHEMES[self.scheme](key, population.weights, n)
        do = population.ess <= self.threshold * n * (1 + ROUNDING)
        index = jnp.where(do, index, jnp.arange(n))
        log_weight = jnp.where(do, 0.0, population.log_weight)
        return Population(population.x[index], log_weight, population.log_z), index


def _at(edges: Any, u: Any) -> Any:
    return jnp.minimum(jnp.searchsorted(edges, u, side="right"), edges.shape[0] - 1)
