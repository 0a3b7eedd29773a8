"""Broken engines that the suite must reject, and correct ones that it must not."""

from __future__ import annotations

from functools import lru_cache

from ppcore import precision
from ppcore.errors import SettingsError, did_you_mean
from ppcore.testing.subject import Subject
from ppcore.testing.zoo.entry import Animal

__all__ = ["Animal", "animals", "zoo_subject"]


@lru_cache(maxsize=1)
def animals() -> dict[str, Animal]:
    """Every mutant and control by name, mutants first.

    >>> sum(not a.control for a in animals().values()) >= 30
    True
    """
    with precision.scope("float64"):
        from ppcore.testing.zoo import (
            combined,
            controls,
            hamiltonian,
            mapped,
            metropolis,
            misbehaved,
            weighted,
        )
    groups = (
        metropolis.MUTANTS,
        hamiltonian.MUTANTS,
        combined.MUTANTS,
        weighted.MUTANTS,
        mapped.MUTANTS,
        misbehaved.MUTANTS,
        controls.CONTROLS,
    )
    found: dict[str, Animal] = {}
    for animal in (a for group in groups for a in group):
        if animal.name in found:
            raise SettingsError(f"Two animals of the zoo are called {animal.name!r}.")
        found[animal.name] = animal
    return found


def zoo_subject(name: str) -> Subject:
    """The subject of one animal, e.g. to check a check."""
    if name not in animals():
        raise SettingsError(f"No animal is called {name!r}. {did_you_mean(name, animals())}")
    return animals()[name].subject
