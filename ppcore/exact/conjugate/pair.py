"""What the file of a family offers: how evidence moves its prior's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ppcore.dist import Description
from ppcore.exact.conjugate.forms import SOLVER, Monomial, Site
from ppcore.exact.protocol import NotExact

Parameters = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Evidence:
    """An observed site one of whose arguments is a scaled power of the prior's site.

    Attributes
    ----------
    site : Site
    argument : str
        Which argument.
    form : Monomial
    """

    site: Site
    argument: str
    form: Monomial

    def refuse(self, why: str) -> NotExact:
        """The error that names the observed site."""
        return NotExact(SOLVER, self.site.name, why)

    def require(self, argument: str, default: float | None = None) -> np.ndarray:
        """The value of another argument, which has to be known."""
        value = self.site.known(argument, default)
        if value is None:
            raise self.refuse(f"its {argument} has to be known for the pair to be conjugate.")
        return value

    def index(self) -> np.ndarray:
        """Which element of the prior's site each observation reads: int[*batch]."""
        return np.broadcast_to(self.form.index, self.site.batch)

    def total(self, values: Any, size: int) -> np.ndarray:
        """Sums of per-observation values over the elements that they read: float[size]."""
        full = np.broadcast_to(values, self.site.batch) * self.site.weights
        return np.bincount(self.index().ravel(), full.ravel(), size)

    def sum(self, values: Any) -> float:
        """The sum of per-observation values that count."""
        full = np.broadcast_to(values, self.site.batch)
        return float(full[self.site.weights > 0].sum())


class Family(Protocol):
    """A family of priors: one module each."""

    def prior(self, site: Site) -> Parameters | None:
        """The parameters of a latent site of this family, flattened, or None if it is another.

        Raises :class:`NotExact` if they are random.
        """
        ...

    def update(self, parameters: Parameters, evidence: list[Evidence]) -> tuple[Parameters, float]:
        """The posterior's parameters and log p(evidence)."""
        ...

    def describe_posterior(self, parameters: Parameters, site: Site) -> Description:
        """The named distribution."""
        ...

    def draw(self, rng: np.random.Generator, parameters: Parameters, n: int) -> np.ndarray:
        """``n`` draws: [n, size]."""
        ...


def known_prior(site: Site, names: Mapping[str, float | None]) -> list[np.ndarray]:
    """Known parameters of a prior by name (with defaults), one number per element of the batch."""
    out = []
    for name, default in names.items():
        value = site.known(name, default)
        if value is None:
            raise NotExact(
                SOLVER,
                site.name,
                f"its {name} depends on other random values: the prior of a conjugate pair has "
                "known parameters.",
            )
        out.append(np.broadcast_to(np.asarray(value, float), site.batch).ravel())
    return out


def describe(name: str, **parameters: Any) -> Description:
    """A description of one of NumPyro's distributions."""
    return Description("dist", name, tuple(parameters.items()))


__all__ = ["Evidence", "Family", "Parameters", "describe", "known_prior"]
