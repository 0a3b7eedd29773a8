"""What an exact solver returns: evidence, marginals, i.i.d. draws, or a reason why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ppcore.dist import Description, build
from ppcore.errors import EvidenceError, UnsupportedError


class NotExact(UnsupportedError):
    """A solver cannot treat a model exactly.

    Attributes
    ----------
    solver : str
        Which one ("tensor", "gaussian", "conjugate", or "exact" when all were tried).
    box : str
        The site or operation in the way.
    why : str
        What about it, and what to do instead.

    >>> print(NotExact("tensor", "mu", "its support is real, not finite."))
    The tensor solver stops at 'mu': its support is real, not finite.
    """

    def __init__(self, solver: str, box: str, why: str):
        super().__init__(f"The {solver} solver stops at {box!r}: {why}")
        self.solver, self.box, self.why = solver, box, why


class ZeroEvidenceError(EvidenceError):
    """The evidence has probability zero, so there is nothing to condition on."""


@dataclass(frozen=True, eq=False)
class FiniteMarginal:
    """The law of each element of a finite site.

    Attributes
    ----------
    values : array[K]
        What an element can be, ascending.
    probs : float[*shape, K]
        Probabilities, element by element (elements may be dependent).

    >>> FiniteMarginal(np.array([0, 1]), np.array([0.25, 0.75])).mean
    array(0.75)
    """

    values: np.ndarray
    probs: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """float[*shape]."""
        return np.asarray(self.probs @ self.values.astype(float))

    @property
    def variance(self) -> np.ndarray:
        """float[*shape]."""
        values = self.values.astype(float)
        return np.asarray(self.probs @ values**2 - self.mean**2)


@dataclass(frozen=True, eq=False)
class GaussianMarginal:
    """A Gaussian, possibly degenerate.

    Attributes
    ----------
    mean : float[*shape]
    cov : float[*shape, *shape]
    """

    mean: np.ndarray
    cov: np.ndarray

    @property
    def variance(self) -> np.ndarray:
        """float[*shape]."""
        n = self.mean.size
        return np.diagonal(self.cov.reshape(n, n)).reshape(self.mean.shape)


@dataclass(frozen=True, eq=False)
class NamedMarginal:
    """A distribution of a named family, its parameters numbers or arrays."""

    distribution: Description

    def build(self) -> Any:
        """NumPyro's distribution; enter ``precision.scope`` before using it."""
        return build(self.distribution, lambda v: v)

    @property
    def mean(self) -> np.ndarray:
        """float[*shape]."""
        return np.asarray(self.build().mean)

    @property
    def variance(self) -> np.ndarray:
        """float[*shape]."""
        return np.asarray(self.build().variance)


Marginal = FiniteMarginal | GaussianMarginal | NamedMarginal


@runtime_checkable
class Solution(Protocol):
    """The posterior of a model, exactly: p(sites | evidence) and p(evidence).

    Attributes
    ----------
    solver : str
        Which solver made it.
    log_evidence : float
        log p(evidence), factors included.
    sites : tuple of str
        Sites of the joint diagram's outputs that are not observed.
    """

    solver: str
    log_evidence: float
    sites: tuple[str, ...]

    def marginal(self, site: str) -> Marginal:
        """The law of one unobserved or computed site given the evidence."""
        ...

    def sample(self, key: Any, n: int) -> dict[str, np.ndarray]:
        """``n`` independent draws of all ``sites`` jointly: {site: array[n, *shape]}."""
        ...


def generator(key: Any) -> np.random.Generator:
    """NumPy's generator, seeded by the bits of a JAX key: for draws made on the host."""
    import jax

    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
