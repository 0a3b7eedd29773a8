"""Whether draws can be trusted: one look at all coordinates, with the worst of them by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ppcore.report.diagnostics import MANY_CHAINS, diagnose, energy_fraction, nested_rhat

RHAT, ESS_PER_CHAIN, ENERGY, K_HAT = 1.01, 100, 0.3, 0.7
FEW_CHAINS = 8
"""Above this many chains each may be short: then the draws are judged together."""
DIVERGENT = 1e-3
"""A larger share of divergent transitions is a warning; a smaller one is only counted. Long runs
with random step sizes reject a few proposals like this wherever there is a scale parameter."""


class SamplingWarning(UserWarning):
    """Draws may not represent the posterior; the message says where and what to do next."""


@dataclass(frozen=True)
class Health:
    """What the diagnostics say of all draws.

    Attributes
    ----------
    divergences : int or None
        Transitions that diverged; None if the engine does not say.
    rhat, ess : (str, float) or None
        The worst coordinate by name, and its R̂ (nested R̂ from ``MANY_CHAINS`` chains on), or the
        smaller of its bulk and tail effective sample sizes.
    energy : float or None
        The smallest E-BFMI of a few chains, or that of many together.
    warnings : tuple of str
        What is wrong, worst coordinates first, each with the next step.
    """

    divergences: int | None
    rhat: tuple[str, float] | None
    ess: tuple[str, float] | None
    energy: float | None
    warnings: tuple[str, ...] = ()


def assess(x: np.ndarray, stats: dict[str, np.ndarray], name: Callable[[int], str]) -> Health:
    """Judge draws in unconstrained coordinates.

    Ranks, and so R̂ and the bulk size, are the same for a scalar site in its own coordinates.

    Parameters
    ----------
    x : float[chains, draws, d]
    stats : dict of str to array[chains, draws]
        ``diverging`` and ``energy`` are looked at.
    name : callable
        What to call coordinate i.
    """
    chains, draws, _ = x.shape
    found = diagnose(x)
    rhat = found.rhat if chains < MANY_CHAINS else nested_rhat(x)
    ess = np.fmin(found.ess_bulk, found.ess_tail)
    diverging, energy = stats.get("diverging"), stats.get("energy")
    fraction = None if energy is None or draws < 4 else _fraction(energy)
    warnings: list[str] = []
    if draws < 4:
        warnings.append(f"{draws} draws per chain are too few to judge. Ask for more: draws=...")
    else:
        warnings += _stuck(x, name)
    if diverging is not None and diverging.mean() > DIVERGENT:
        warnings.append(_diverged(x, diverging, name))
    warnings += _disagreement(rhat, chains, draws, name)
    warnings += _inefficiency(ess, chains, name)
    if fraction is not None and fraction < ENERGY:
        warnings.append(
            f"E-BFMI is {fraction:.2f}, below {ENERGY}: momentum draws change the energy too "
            "little to reach the tails. Reparameterise (a non-centred form) or bound the scales' "
            "priors."
        )
    return Health(
        divergences=None if diverging is None else int(diverging.sum()),
        rhat=_worst(rhat, name, largest=True),
        ess=_worst(ess, name, largest=False),
        energy=fraction,
        warnings=tuple(warnings),
    )


def enough(chains: int) -> int:
    """The effective sample size to ask for: 100 for each of a few chains, 800 for many."""
    return ESS_PER_CHAIN * min(chains, FEW_CHAINS)


def _disagreement(
    rhat: np.ndarray, chains: int, draws: int, name: Callable[[int], str]
) -> Iterator[str]:
    high = rhat > RHAT
    if not high.any():
        return
    worst = _list(-rhat, high, lambda i: f"{name(i)} ({rhat[i]:.3f})")
    more = f"Draw more (draws={2 * draws})"
    other = "reparameterise the sites named, or start from a longer warm-up"
    which = "R-hat" if chains < MANY_CHAINS else "Nested R-hat"
    yield (
        f"{which} is above {RHAT} for {_share(high)}, worst: {worst}. The chains do not agree yet. "
        f"{more}; if it stays, {other}. fit.plot('trace') shows which chains differ."
    )


def _inefficiency(ess: np.ndarray, chains: int, name: Callable[[int], str]) -> Iterator[str]:
    need = enough(chains)
    low = ess < need
    if low.any():
        worst = _list(ess, low, lambda i: f"{name(i)} ({ess[i]:.0f})")
        yield (
            f"The effective sample size is below {need} (for {chains} chains) for {_share(low)}, "
            f"worst: {worst}. Intervals of these are unreliable. Draw more (draws=...), or "
            "reparameterise the sites named."
        )


def _diverged(x: np.ndarray, diverging: np.ndarray, name: Callable[[int], str]) -> str:
    bad = diverging.astype(bool)
    count, where = int(bad.sum()), ""
    if 5 <= count < bad.size:
        # Divergences gather where the density bends most: the neck of a funnel, say.
        spread = x.std(axis=(0, 1))
        shift = (x[bad].mean(axis=0) - x.mean(axis=(0, 1))) / np.where(spread > 0, spread, np.inf)
        worst = int(np.argmax(np.abs(shift)))
        side = "low" if shift[worst] < 0 else "high"
        where = f" They gather at {side} values of {name(worst)}."
    return (
        f"{count} of {bad.size} transitions diverged: the draws miss a part of the posterior that "
        f"bends too sharply for the step size.{where} Reparameterise (a non-centred form of the "
        "site above a scale), or ask the engine for smaller steps (target_accept=0.95)."
    )


def _stuck(x: np.ndarray, name: Callable[[int], str]) -> Iterator[str]:
    still = np.ptp(x, axis=1) == 0
    if still.all(axis=0).any():
        everywhere = still.all(axis=0)
        names = _list(np.zeros(len(everywhere)), everywhere, name)
        yield f"No chain moved in {names}: these are starting points, not draws."
    elif still.all(axis=1).any():
        chains = ", ".join(str(c) for c in np.flatnonzero(still.all(axis=1))[:5])
        yield f"Chains that never moved: {chains}. Ask the engine for smaller steps."


def _fraction(energy: np.ndarray) -> float:
    each = energy_fraction(energy)
    if len(each) <= FEW_CHAINS:
        return float(np.min(each))
    spread = energy.var(axis=1)
    return float(np.sum(each * spread) / np.sum(spread))


def _worst(
    values: np.ndarray, name: Callable[[int], str], *, largest: bool
) -> tuple[str, float] | None:
    if np.isnan(values).all():
        return None
    index = int(np.nanargmax(values) if largest else np.nanargmin(values))
    return name(index), float(values[index])


def _list(order: np.ndarray, chosen: np.ndarray, text: Callable[[int], str], most: int = 3) -> str:
    ranked = [int(i) for i in np.argsort(order, kind="stable") if chosen[i]]
    shown = ", ".join(text(i) for i in ranked[:most])
    return shown + (", ..." if len(ranked) > most else "")


def _share(chosen: np.ndarray) -> str:
    return f"{int(chosen.sum())} of {chosen.size} coordinates"
