"""Run the zoo and write its kill matrix: animals × checks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

from ppcore.contract import describe
from ppcore.testing.checks import CHECKS
from ppcore.testing.result import Report, Result
from ppcore.testing.suite import Plan, applicable, count_tests, run_suite
from ppcore.testing.zoo import Animal, animals

REPLICATES = 10_000


@dataclass(frozen=True)
class Sighting:
    """What the suite made of one animal.

    Attributes
    ----------
    name : str
    results : tuple of Result
    seconds : float
    """

    name: str
    results: tuple[Result, ...]
    seconds: float

    def cell(self, check: str) -> str:
        """ "kill", "pass" or "" for a check that was not run."""
        found = [r for r in self.results if r.check == check]
        if not found:
            return ""
        return "pass" if all(r.ok for r in found) else "kill"

    @property
    def killed_by(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(r.check for r in self.results if not r.ok))


def zoo_plan() -> Plan:
    """The plan of a zoo run: one error budget over every statistical test of every animal."""
    plan = Plan(replicates=REPLICATES, optimise=False)
    tests = sum(count_tests(a.subject, plan) for a in animals().values())
    return replace(plan, tests=tests)


def checks_of(animal: Animal, thorough: bool = True) -> tuple[str, ...]:
    """The checks run on an animal: all for controls and for those that break the protocol, else
    the checks of its law and its declared killers; the latter alone if not ``thorough``."""
    found = applicable(animal.subject)
    if animal.killers and not thorough:
        return animal.killers
    manners = {c.name for c in found if c.manners}
    if animal.control or (animal.killers and set(animal.killers) <= manners):
        return tuple(c.name for c in found)
    return tuple(c.name for c in found if not c.manners or c.name in animal.killers)


def visit(name: str, plan: Plan, thorough: bool = True) -> Sighting:
    """Run the suite on one animal."""
    animal = animals()[name]
    report: Report = run_suite(animal.subject, replace(plan, only=checks_of(animal, thorough)))
    return Sighting(name, report.results, report.seconds)


def run_zoo(
    names: Sequence[str] | None = None,
    plan: Plan | None = None,
    processes: int | None = None,
    progress: Callable[[Sighting, int, int], None] | None = None,
    prepare: Callable[[], object] | None = None,
    thorough: bool = True,
) -> dict[str, Sighting]:
    """Visit every animal, in as many processes as there are cores.

    Parameters
    ----------
    names : sequence of str, optional
        Default: the whole zoo.
    plan : Plan, optional
    processes : int, optional
        1 stays in this process.
    progress : callable, optional
        Called with (sighting, number done, number in all).
    prepare : callable, optional
        Called once in every process first; a module-level function.
    thorough : bool
        Off, mutants face only their declared killers: enough to reproduce the verdicts.
    """
    names = tuple(animals()) if names is None else tuple(names)
    plan = plan or zoo_plan()
    count = min(processes or os.cpu_count() or 1, len(names))
    found: dict[str, Sighting] = {}

    def keep(sighting: Sighting) -> None:
        found[sighting.name] = sighting
        if progress is not None:
            progress(sighting, len(found), len(names))

    if count == 1:
        if prepare is not None:
            prepare()
        for name in names:
            keep(visit(name, plan, thorough))
    else:
        # Animals that share a family of models share compiled programs: keep neighbours together.
        fresh, shares = get_context("spawn"), _shares(names, plan, thorough)
        with ProcessPoolExecutor(count, mp_context=fresh, initializer=prepare) as pool:
            for sightings in pool.map(_visit_many, *zip(*shares, strict=True)):
                for sighting in sightings:
                    keep(sighting)
    return {name: found[name] for name in names}


def _shares(names: Sequence[str], *rest: object) -> list[tuple[object, ...]]:
    size = 12
    return [(tuple(names[i : i + size]), *rest) for i in range(0, len(names), size)]


def _visit_many(names: Sequence[str], plan: Plan, thorough: bool) -> list[Sighting]:
    import jax

    jax.clear_caches()
    return [visit(name, plan, thorough) for name in names]


def verdicts(found: Mapping[str, Sighting]) -> dict[str, str]:
    """Per animal: "killed", "survived" (as declared for an undetectable one), "missed" (a
    detectable one that passed, or died only of checks not declared), "clean" or "false alarm"."""
    return {name: _verdict(animals()[name], s) for name, s in found.items()}


def _verdict(animal: Animal, sighting: Sighting) -> str:
    killed = sighting.killed_by
    if animal.control:
        return "false alarm" if killed else "clean"
    if not animal.detectable:
        return "killed" if killed else "survived"
    return "killed" if set(killed) & set(animal.killers) else "missed"


def summary(found: Mapping[str, Sighting]) -> dict[str, int]:
    """Counts behind the headline."""
    said = verdicts(found)
    cage = {name: animals()[name] for name in found}
    return {
        "mutants": sum(not a.control for a in cage.values()),
        "detectable": sum(not a.control and a.detectable for a in cage.values()),
        "killed": sum(
            said[n] == "killed" for n, a in cage.items() if not a.control and a.detectable
        ),
        "controls": sum(a.control for a in cage.values()),
        "false alarms": sum(v == "false alarm" for v in said.values()),
    }


def headline(found: Mapping[str, Sighting]) -> str:
    """The counts in a sentence."""
    n = summary(found)
    return (
        f"{n['killed']} of {n['detectable']} mutants declared detectable are rejected; "
        f"{n['false alarms']} of {n['controls']} controls are; "
        f"{n['mutants'] - n['detectable']} mutants are declared undetectable."
    )


def columns(found: Mapping[str, Sighting]) -> tuple[str, ...]:
    """Checks that were run on anything, in the order of the pyramid."""
    return tuple(c.name for c in CHECKS if any(s.cell(c.name) for s in found.values()))


def describe_claim(animal: Animal) -> str:
    """What the animal claims, in a few words."""
    rewrite = animal.subject.rewrite is not None
    return "same evidence and posterior" if rewrite else describe(animal.subject.contract)
