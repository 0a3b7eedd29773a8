"""What checks return: findings, results, and the report that collects them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Finding:
    """What one check found on one model.

    Attributes
    ----------
    model : str
        The model, or "-" where none is involved.
    ok : bool
    message : str
        What was seen; on a pass, what would have been seen.
    log_e : float, optional
        Log e-value; repeated runs with fresh seeds may add them.
    resolution : float, optional
        The smallest bias that would have been rejected, in standard deviations of its feature.
    order : float, optional
        The order of a bias, as measured.
    """

    model: str
    ok: bool
    message: str
    log_e: float | None = None
    resolution: float | None = None
    order: float | None = None


@dataclass(frozen=True)
class Result:
    """A finding with its provenance.

    ``verdict`` is "pass", "fail", "xfail" (failed as declared) or "xpass" (declared to fail, and
    did not: an error, since expected failures are strict).
    """

    subject: str
    check: str
    model: str
    verdict: str
    message: str
    seed: int
    alpha: float | None = None
    log_e: float | None = None
    resolution: float | None = None
    seconds: float = 0.0
    order: float | None = None

    @property
    def ok(self) -> bool:
        return self.verdict in ("pass", "xfail")

    @property
    def reproduce(self) -> str:
        """The command that repeats this check alone."""
        only = f"--only {self.check}" + ("" if self.model == "-" else f" --model {self.model}")
        return f"ppcore check {self.subject} {only} --seed {self.seed}"

    def __str__(self) -> str:
        where = "" if self.model == "-" else f" on {self.model}"
        line = f"{self.verdict.upper()} {self.check}{where}: {self.message}"
        return line if self.ok else f"{line}\n    seed {self.seed}; reproduce: {self.reproduce}"


@dataclass(frozen=True)
class Report:
    """All results of one subject."""

    subject: str
    contract: str
    results: tuple[Result, ...] = ()
    seconds: float = 0.0
    budget: float = 1e-3
    notes: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        return all(r.ok for r in self.results)

    @property
    def failures(self) -> tuple[Result, ...]:
        return tuple(r for r in self.results if not r.ok)

    @property
    def failed_checks(self) -> tuple[str, ...]:
        """Names of the checks that failed, each once, in order."""
        return tuple(dict.fromkeys(r.check for r in self.failures))

    @property
    def resolution(self) -> float | None:
        """The coarsest resolution among the statistical checks of invariance or weight."""
        found = [r.resolution for r in self.results if r.resolution is not None]
        return max(found) if found else None

    @property
    def order(self) -> float | None:
        """The order of the bias, as measured; None where none was seen."""
        found = [r.order for r in self.results if r.order is not None]
        return min(found) if found else None

    @property
    def verdict(self) -> str:
        """One sentence; never "correct"."""
        if not self.results:
            return f"{self.subject}: nothing to check for {self.contract}."
        if not self.ok:
            names = ", ".join(self.failed_checks)
            return f"{self.subject}: rejected by {names}."
        done = f"{self.subject}: passed {len(self.results)} tests of {self.contract}"
        if self.resolution is None:
            return f"{done}; all of them exact or deterministic."
        least = min(r.alpha for r in self.results if r.alpha is not None)
        return (
            f"{done}; no bias above {self.resolution:.3f} sd on the features tested, at error "
            f"{least:.0e} a test and {self.budget:.0e} overall."
        )


def write_log(path: Path, results: Iterable[Result]) -> None:
    """Append every result to a file of JSON lines, e-values included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as out:
        for result in results:
            out.write(json.dumps(_finite(asdict(result))) + "\n")


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {
        k: (str(v) if isinstance(v, float) and not math.isfinite(v) else v) for k, v in row.items()
    }
