"""Metropolis within Gibbs: kernels on some sites, the others held where they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ppcore import contract as rules
from ppcore.compose.base import Composed, acceptances, check_parts, moved, scored
from ppcore.compose.cycle import Cycle
from ppcore.compose.restricted import Restricted, restrict
from ppcore.contract import Contract, Invariant
from ppcore.errors import CompositionError, did_you_mean
from ppcore.kernel import check_target

Sites = str | tuple[str, ...]
CONTINUOUS, FINITE = "<continuous>", "<finite>"
SCANS = ("cycle", "palindrome")


class Placed(NamedTuple):
    """The whole position, and the state of the kernel that moves a part of it."""

    x: Any
    inner: Any


@dataclass(frozen=True)
class On(Composed):
    """``kernel`` on the conditional of some sites given the others.

    With u the coordinates of ``sites``: u' ~ K(u, ·) for γ(u, x_rest), x_rest unchanged. Leaves γ
    invariant as K leaves each conditional, reversible if K is, and irreducible never, as nothing
    else moves.

    Parameters
    ----------
    sites : str or tuple of str
        Names; ``CONTINUOUS`` and ``FINITE`` stand for all sites of that kind, maybe none.
    kernel : Kernel

    Raises
    ------
    ppcore.errors.CompositionError
        If ``kernel`` is not one or no site is named; with a target, if it lacks a site or the
        kernel needs a gradient of finite sites.

    Source: Geman & Geman 1984, doi:10.1109/TPAMI.1984.4767596; Tierney 1994,
    doi:10.1214/aos/1176325750.

    >>> from ppcore.testing.reference.metropolis import RandomWalk
    >>> On("mu", RandomWalk()).contract
    Invariant(reversible=True, irreducible=False)
    """

    sites: Sites
    kernel: Any

    def __post_init__(self) -> None:
        check_parts("Blocks", (self.kernel,))
        names = (self.sites,) if isinstance(self.sites, str) else self.sites
        if not isinstance(names, tuple) or not names or not all(isinstance(n, str) for n in names):
            raise CompositionError(
                f"{self.sites!r} names no sites: write a name or a tuple of names."
            )
        object.__setattr__(self, "sites", names)

    @property
    def contract(self) -> Contract:
        """Derived from that of the kernel."""
        inner = rules.cycle(self.kernel.contract)
        return replace(inner, irreducible=False) if isinstance(inner, Invariant) else inner

    @property
    def parts(self) -> tuple[Any, ...]:
        return (self.kernel,)

    @property
    def needs(self) -> tuple[str, ...]:
        """Nothing of the whole target; :meth:`check_target` looks at the conditional."""
        return ()

    @property
    def auxiliary(self) -> tuple[str, ...]:
        return ("inner",) if getattr(self.kernel, "auxiliary", ()) else ()

    @property
    def keeps_finite(self) -> bool:
        return FINITE in self.sites or super().keeps_finite

    def names(self, target: Any) -> tuple[str, ...]:
        """The sites of a target, with ``CONTINUOUS`` and ``FINITE`` spelt out."""
        known = sites_of(target)
        finite = [name for name in getattr(target, "finite_sites", ()) if name in known]
        kinds = {FINITE: finite, CONTINUOUS: [name for name in known if name not in finite]}
        return tuple(name for site in self.sites for name in kinds.get(site, [site]))

    def restricted(self, target: Any, x: Any) -> Restricted:
        """The conditional of the sites, the others as in ``x``: float[d]."""
        names, slices = self.names(target), sites_of(target)
        where = tuple(i for n in names for i in range(slices[n].start, slices[n].stop))
        return Restricted(target, x, names, where)

    def check_target(self, target: Any) -> None:
        """Raise :class:`ppcore.errors.CompositionError` where a site or the kernel does not fit."""
        known = sites_of(target)
        for name in self.names(target):
            if name not in known:
                raise CompositionError(
                    f"Blocks names a site {name!r} that the target does not have. "
                    f"{did_you_mean(name, known)}"
                )
        own = self.restricted(target, None)
        if own.where:
            check_target(self.kernel, own)

    def parameters(self, preconditioner: Any, step: Any, length: Any, target: Any = None) -> Any:
        """As :meth:`Composed.parameters`, with the preconditioner of the sites given the others."""
        own = self.restricted(target, None)
        if not own.where:
            return ((),)
        if preconditioner is not None:
            preconditioner = restrict(preconditioner, own.where)
        return super().parameters(preconditioner, step, length, own)

    def init(self, key: Any, target: Any, x: Any, params: tuple[Any, ...]) -> Placed:
        own = self.restricted(target, x)
        if not own.where:
            return Placed(x, ())
        return Placed(x, self.kernel.init(key, own, x[np.array(own.where)], params[0]))

    def refresh(self, target: Any, state: Placed) -> Placed:
        own = self.restricted(target, state.x)
        if not own.where:
            return state
        inner = moved(state.inner, state.x[np.array(own.where)])
        return Placed(state.x, self.kernel.refresh(own, inner))

    def step(
        self, key: Any, target: Any, state: Placed, params: tuple[Any, ...]
    ) -> tuple[Placed, dict[str, Any]]:
        own = self.restricted(target, state.x)
        if not own.where:
            return state, {}
        inner, info = self.kernel.step(key, own, state.inner, params[0])
        rates = acceptances(self.kernel, info, state.x.dtype)
        return Placed(own.at(inner.x), inner), scored(info, inner) | {"acceptance_rates": rates}


class Blocks(Cycle):
    """Metropolis within Gibbs: each block of sites moves given all others, in turn.

    K = K_1 … K_n with K_b acting on the conditional γ(x_b, x_rest) of its sites. Leaves γ
    invariant if every kernel leaves its conditional so. Not reversible, unless ``scan`` is
    "palindrome". Caches of a block are recomputed once others have moved.

    Parameters
    ----------
    blocks : mapping of site or tuple of sites to Kernel
        Every site of the target in exactly one block. ``CONTINUOUS`` and ``FINITE`` stand for
        all sites of that kind.
    scan : str
        "cycle": 1 … n; "palindrome": 1 … n … 1.

    Raises
    ------
    ppcore.errors.CompositionError
        If a site stands in two blocks, or a value is not a kernel; with a target, if a site is
        unknown or left out, or a kernel needs a gradient of finite sites.

    Source: Geman & Geman 1984, doi:10.1109/TPAMI.1984.4767596; Tierney 1994,
    doi:10.1214/aos/1176325750.

    >>> from ppcore.testing.reference.metropolis import RandomWalk
    >>> Blocks({"mu": RandomWalk(), ("tau", "theta"): RandomWalk()}).sites
    ('mu', 'tau', 'theta')
    """

    def __init__(self, blocks: Mapping[Sites, Any], scan: str = "cycle") -> None:
        if not isinstance(blocks, Mapping) or not blocks:
            raise CompositionError(
                "Blocks takes a mapping {sites: kernel} with at least one block."
            )
        if scan not in SCANS:
            raise CompositionError(f"scan={scan!r} is not known. {did_you_mean(str(scan), SCANS)}")
        self.scan = scan
        super().__init__(*(On(sites, kernel) for sites, kernel in blocks.items()))
        _refuse_twice(self.sites)

    @property
    def sites(self) -> tuple[str, ...]:
        """All sites, in the order of the blocks."""
        return tuple(name for part in self.parts for name in part.sites)

    @property
    def contract(self) -> Contract:
        derive = rules.cycle if self.scan == "cycle" else rules.palindrome
        return derive(*(part.contract for part in self.parts))

    @property
    def order(self) -> tuple[int, ...]:
        there = tuple(range(len(self.parts)))
        return there if self.scan == "cycle" else there + there[-2::-1]

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and self.scan == other.scan  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash((super().__hash__(), self.scan))

    def check_target(self, target: Any) -> None:
        super().check_target(target)
        moving = [name for part in self.parts for name in part.names(target)]
        _refuse_twice(moving)
        missing = [name for name in sites_of(target) if name not in moving]
        if missing:
            raise CompositionError(
                f"No block moves the site {missing[0]!r}, so it would stay where it starts. Add it "
                f"to a block, for example {{({missing[0]!r}, ...): kernel}}."
            )


def _refuse_twice(names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        if name in names[:i]:
            raise CompositionError(
                f"Site {name!r} stands in two blocks. Take it out of one, or compose two moves of "
                "it by Cycle(On(...), On(...))."
            )


def sites_of(target: Any) -> dict[str, slice]:
    """Where each site of a target lies in x; a target without sites has one, "x"."""
    found = getattr(target, "site_slices", None)
    return {"x": slice(0, target.dim)} if found is None else found
