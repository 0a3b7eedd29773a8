"""What an engine, kernel or stage promises about distributions, as data, and how promises compose.

A contract is a value. Combinators derive the contract of a whole from those of its parts with
the rules below; nothing asserts its own. ``False`` means "not promised", never "known false".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ppcore.errors import CompositionError, did_you_mean


@dataclass(frozen=True)
class Contract:
    """Base of all contracts."""


@dataclass(frozen=True)
class Invariant(Contract):
    """The kernel K leaves the target π invariant: πK = π.

    ``reversible``: π(dx) K(x, dy) is symmetric. ``irreducible``: the chain reaches every set
    of positive target mass from everywhere.
    """

    reversible: bool = False
    irreducible: bool = True


@dataclass(frozen=True)
class ProperlyWeighted(Contract):
    """E[Ẑ Σ W f] = Z π(f) for all bounded f; ``unbiased_evidence``: E[Ẑ] = Z.

    Without ``unbiased_evidence`` the identity holds up to one constant that does not depend on
    f: ratios of expectations are right in the limit, the evidence is not promised.
    """

    unbiased_evidence: bool = True


@dataclass(frozen=True)
class Transport(Contract):
    """An invertible map T with T⁻¹ T = id and the right log-determinant."""


@dataclass(frozen=True)
class Density(Contract):
    """Samples follow the stated, normalised log density."""


@dataclass(frozen=True)
class Biased(Contract):
    """The stationary law differs from the target by O(h^order), h the setting ``in_``."""

    order: int
    in_: str = "step_size"


@dataclass(frozen=True)
class Equivalent(Contract):
    """A rewrite: the same posterior and, up to a stated constant, the same evidence."""


@dataclass(frozen=True)
class Amortised(Contract):
    """Posteriors are calibrated on average over the joint of parameters and data."""


@dataclass(frozen=True)
class Consistent(Contract):
    """Averages along the run converge almost surely to those of the target, for any start.

    The engine adapts while it samples, so that no kernel is left to be invariant: nothing is
    promised of a run of finite length, and no combinator takes such a part.
    """


_KINDS: dict[str, type[Contract]] = {
    c.__name__: c
    for c in (
        Invariant,
        ProperlyWeighted,
        Transport,
        Density,
        Biased,
        Equivalent,
        Amortised,
        Consistent,
    )
}


def cycle(*parts: Contract) -> Contract:
    """K₁K₂…Kₙ one after the other: invariant if every part is, but no longer reversible.

    Irreducibility is not inherited: two flips cancel. One biased part makes a biased whole.

    >>> cycle(Invariant(reversible=True), Invariant(reversible=True))
    Invariant(reversible=False, irreducible=False)
    >>> cycle(Invariant(), Biased(order=2))
    Biased(order=2, in_='step_size')
    """
    _require_parts("cycle", parts)
    if len(parts) == 1:
        return parts[0]
    return _bias(parts) or Invariant(reversible=False, irreducible=False)


def palindrome(*parts: Contract) -> Contract:
    """K₁…Kₙ…K₁: invariant; reversible if every part is.

    >>> palindrome(Invariant(reversible=True), Invariant(reversible=True))
    Invariant(reversible=True, irreducible=False)
    """
    _require_parts("palindrome", parts)
    if len(parts) == 1:
        return parts[0]
    return _bias(parts) or Invariant(reversible=_all_reversible(parts), irreducible=False)


def mix(*parts: Contract) -> Contract:
    """Σ wᵢKᵢ with weights that do not depend on the state: invariant.

    Reversible if every part is; irreducible if any part is, since that one is taken with
    positive probability at every step.

    >>> mix(Invariant(reversible=True), Invariant(reversible=True, irreducible=False))
    Invariant(reversible=True, irreducible=True)
    """
    _require_parts("mix", parts)
    irreducible = any(p.irreducible for p in parts if isinstance(p, Invariant))
    return _bias(parts) or Invariant(_all_reversible(parts), irreducible)


def repeat(part: Contract, times: int) -> Contract:
    """Kⁿ: keeps invariance and reversibility; a periodic kernel may lose irreducibility.

    >>> repeat(Invariant(reversible=True), 3)
    Invariant(reversible=True, irreducible=False)
    """
    _require_parts("repeat", (part,))
    if times == 1 or isinstance(part, Biased):
        return part
    assert isinstance(part, Invariant)
    return replace(part, irreducible=False)


def metropolise(proposal: Contract) -> Contract:
    """A Metropolis–Hastings test with the proposal's full ratio: exact and reversible.

    Removes the bias of a discretisation; positivity of the proposal carries irreducibility.

    >>> metropolise(Biased(order=1))
    Invariant(reversible=True, irreducible=True)
    """
    if isinstance(proposal, Biased | Density):
        return Invariant(reversible=True, irreducible=True)
    if isinstance(proposal, Invariant):
        return Invariant(reversible=True, irreducible=proposal.irreducible)
    if isinstance(proposal, Transport):
        return Invariant(reversible=True, irreducible=False)
    raise CompositionError(_cannot("metropolise", proposal, "a kernel, a density or a transport"))


def precondition(kernel: Contract, transport: Contract) -> Contract:
    """T⁻¹ ∘ K ∘ T with a fixed bijection T: keeps what K promises.

    >>> precondition(Invariant(reversible=True), Transport())
    Invariant(reversible=True, irreducible=True)
    """
    if not isinstance(transport, Transport):
        raise CompositionError(_cannot("precondition", transport, "Transport()"))
    if not isinstance(kernel, Invariant | Biased):
        raise CompositionError(_cannot("precondition", kernel, "a kernel (Invariant or Biased)"))
    return kernel


def push(density: Contract, transport: Contract) -> Contract:
    """The law of T(x), x from a density: a density again, by the change of variables."""
    if isinstance(density, Density) and isinstance(transport, Transport):
        return Density()
    odd = transport if isinstance(density, Density) else density
    raise CompositionError(_cannot("push", odd, "a Density and a Transport"))


def importance(proposal: Contract) -> Contract:
    """Weights γ/q for draws from a known density q: properly weighted, evidence unbiased.

    >>> importance(Density())
    ProperlyWeighted(unbiased_evidence=True)
    """
    if isinstance(proposal, ProperlyWeighted):
        return proposal
    if isinstance(proposal, Density):
        return ProperlyWeighted()
    raise CompositionError(_cannot("importance", proposal, "a Density or a weighted population"))


def stages(*parts: Contract) -> Contract:
    """Stages and moves in sequence on a population.

    Properly weighted parts compose; an invariant move and a transport with its log-determinant
    keep the weights proper. A biased move breaks them: correct it first (``metropolise``) or
    account for it in the path weights.

    >>> stages(Density(), ProperlyWeighted(), Invariant(reversible=True), Transport())
    ProperlyWeighted(unbiased_evidence=True)
    """
    unbiased = True
    for part in parts:
        if isinstance(part, Biased | Amortised | Consistent):
            raise CompositionError(
                f"A {describe(part)} part would leave the population wrongly weighted. Wrap it "
                "in a Metropolis test, or in a stage that weighs its path."
            )
        if isinstance(part, ProperlyWeighted):
            unbiased = unbiased and part.unbiased_evidence
    return ProperlyWeighted(unbiased_evidence=unbiased)


def describe(contract: Contract | None) -> str:
    """A few words for a listing.

    >>> describe(Invariant(reversible=True))
    'invariant, reversible, irreducible'
    >>> describe(Biased(order=2))
    'biased, O(step_size^2)'
    """
    match contract:
        case Invariant(reversible=r, irreducible=i):
            return "invariant" + ", reversible" * r + ", irreducible" * i
        case ProperlyWeighted(unbiased_evidence=u):
            return "properly weighted" + ", unbiased evidence" * u
        case Transport():
            return "transport"
        case Density():
            return "normalised density"
        case Biased(order=p, in_=name):
            return f"biased, O({name}^{p})"
        case Equivalent():
            return "same posterior and evidence"
        case Amortised():
            return "amortised, calibrated on average"
        case Consistent():
            return "consistent averages, adapts while it samples"
        case None:
            return "no promise"
    return type(contract).__name__


def to_dict(contract: Contract) -> dict[str, Any]:
    """A JSON-ready form.

    >>> to_dict(Biased(order=1))
    {'kind': 'Biased', 'order': 1, 'in_': 'step_size'}
    """
    return {"kind": type(contract).__name__, **asdict(contract)}  # type: ignore[call-overload]


def from_dict(data: Mapping[str, Any]) -> Contract:
    """The inverse of :func:`to_dict`.

    >>> from_dict({"kind": "Invariant", "reversible": True})
    Invariant(reversible=True, irreducible=True)
    """
    kind = data.get("kind", "")
    if kind not in _KINDS:
        raise CompositionError(f"No contract is called {kind!r}. {did_you_mean(kind, _KINDS)}")
    cls = _KINDS[kind]
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    for name in data:
        if name != "kind" and name not in known:
            hint = did_you_mean(name, known)
            raise CompositionError(f"Contract {kind} has no field {name!r}. {hint}")
    return cls(**{k: v for k, v in data.items() if k != "kind"})


def _all_reversible(parts: tuple[Contract, ...]) -> bool:
    return all(isinstance(p, Invariant) and p.reversible for p in parts)


def _bias(parts: tuple[Contract, ...]) -> Biased | None:
    """The worst order dominates as the settings shrink together."""
    biased = [p for p in parts if isinstance(p, Biased)]
    if not biased:
        return None
    names = sorted({p.in_ for p in biased})
    return Biased(order=min(p.order for p in biased), in_="+".join(names))


def _require_parts(rule: str, parts: tuple[Contract, ...]) -> None:
    if not parts:
        raise CompositionError(f"{rule}() needs at least one kernel.")
    for part in parts:
        if not isinstance(part, Invariant | Biased):
            raise CompositionError(_cannot(rule, part, "a kernel (Invariant or Biased)"))


def _cannot(rule: str, got: Contract, wanted: str) -> str:
    return f"{rule}() cannot take a {describe(got)} part; it needs {wanted}."
