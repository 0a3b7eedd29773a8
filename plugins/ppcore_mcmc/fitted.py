"""Chains whose kernel needs a distribution fitted to the target: a warm-up that learns a Student-t.

Elliptical slice sampling leaves γ invariant whatever its pseudo-prior is, so it can walk while the
pseudo-prior is still being learnt; the independence sampler, which would be stuck meanwhile, takes
over the distribution once it is frozen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from ppcore.chains import CHUNK, Chains, KernelEngine, Tuning
from ppcore.engine import Progress, Report, Warm
from ppcore.settings import check_count
from ppcore.tuning.length import autocorrelation_time
from ppcore.tuning.noise import spawned
from ppcore.tuning.preconditioner import identity
from ppcore.tuning.search import search
from ppcore_mcmc.elliptical_slice import EllipticalSlice
from ppcore_mcmc.independence import Independence
from ppcore_mcmc.pseudo_prior import StudentT, fitted

IDLE, BRISK, MOST_THIN = 4.0, 3.0, 16
TRAVEL = 0.5


@dataclass(frozen=True)
class FittedEngine(KernelEngine):
    """Runs ``kernel`` with a frozen T_ν(m, F Fᵀ) as its parameters; see :mod:`ppcore_mcmc.fitted`.

    The warm-up starts from Gaussians fitted to weighted draws, and walks by elliptical slice
    sampling while m and F are refitted, at doubling intervals, to the later half of all draws. It
    needs no gradient.

    Parameters
    ----------
    kernel : EllipticalSlice or Independence
    dof : int or None
        ν of the distribution that is fitted; None is a Gaussian.
    warmup_draws, max_warmup_draws : int
        Draws per chain to fit with once the chains have arrived, and the most in all.
    proposal : Normalised, optional
        Used as it is, and nothing is fitted; a pytree.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.
    """

    dof: int | None = 5
    proposal: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dof is not None:
            check_count("dof", self.dof, 1)

    @property
    def fitted(self) -> bool:
        """Whether the chains stand still where the distribution does not fit."""
        return not isinstance(self.kernel, EllipticalSlice)

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        """A frozen distribution and positions for ``chains`` chains, on the host.

        Raises :class:`ppcore.errors.StartError` if no finite log density is found.
        """
        if self.proposal is not None:
            return self._with_proposal(key, target, chains, report)
        host_key, prior_key, pilot_key, own_key = spawned(key, 4)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(host_key)).ravel())
        pilot = KernelEngine(EllipticalSlice(self.dof))
        machine = Chains(pilot, pilot_key, target, chains)
        same = identity("diagonal", target.dim, 0, machine.dtype)
        start = search(partial(machine.evaluate, same), rng, prior_key, target, chains)
        q = self._fit(start.x, machine)
        machine.put(q, start.x)
        q, draws = self._learn(machine, q, start.x, report)
        x = machine.x
        if not isinstance(self.kernel, EllipticalSlice):
            machine = Chains(self, own_key, target, chains)
            machine.put(q, x)
        tail = machine.run(q, 2 * CHUNK)["x"]
        thin = _thin(tail, _later_half(draws), self.most_thin or MOST_THIN)
        return Warm(Tuning(q, np.int32(thin)), machine.x, 0)

    def _learn(
        self, machine: Chains, q: StudentT, x: np.ndarray, report: Report
    ) -> tuple[StudentT, list[np.ndarray]]:
        """The distribution after rounds of draws, and those draws.

        While the chains still travel (the mean of a round is ``TRAVEL`` standard deviations of q
        from that of the round before) only the last round counts, and counting starts anew; q is
        stretched along the way, since its ellipses reach no further than it does.
        """
        rounds, limit = -(-self.warmup_draws // CHUNK), -(-self.max_warmup_draws // CHUNK)
        draws: list[np.ndarray] = []
        done, refit, middle = 0, 1, x.mean(0)
        while len(draws) < rounds and done < limit:
            out = machine.run(q, CHUNK)["x"]
            before, middle = middle, out.mean((0, 1))
            way, done = middle - before, done + 1
            report(Progress("warmup", done * CHUNK, (done + rounds - len(draws) - 1) * CHUNK))
            if np.abs(q.inverse @ way).max() > TRAVEL:
                draws, refit = [out], 1
                flat = _later_half(draws)
                q = self._fit(np.concatenate([flat, flat + 2 * way, flat - 2 * way]), machine)
                continue
            draws.append(out)
            if len(draws) >= min(refit, rounds):
                q, refit = self._fit(_later_half(draws), machine, q), 2 * refit
        if len(draws) == 1:
            q = self._fit(_later_half(draws), machine)
        return q, draws

    def _with_proposal(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        draw_key, own_key = spawned(key, 2)
        machine = Chains(self, own_key, target, chains)
        machine.put(self.proposal, np.asarray(self.proposal.sample(draw_key, chains)))
        rounds, draws = -(-self.warmup_draws // CHUNK), []
        for i in range(1, rounds + 1):
            draws.append(machine.run(self.proposal, CHUNK)["x"])
            report(Progress("warmup", i * CHUNK, rounds * CHUNK))
        later = _later_half(draws)
        thin = _thin(np.concatenate(draws[-2:]), later, self.most_thin or MOST_THIN)
        return Warm(Tuning(self.proposal, np.int32(thin)), machine.x, 0)

    def _fit(self, draws: np.ndarray, machine: Chains, before: Any = None) -> StudentT:
        return fitted(draws.astype(machine.dtype), self.dof, before)


def _later_half(draws: list[np.ndarray]) -> np.ndarray:
    """The later half of the rounds of draws, float[n, chains, d] each, as float[N, d]."""
    both = np.concatenate(draws[len(draws) // 2 :])
    return both.reshape(-1, both.shape[-1])


def _thin(tail: np.ndarray, pooled: np.ndarray, most: int) -> int:
    """Transitions that make draws nearly independent: 1 up to an autocorrelation time of ``IDLE``,
    else enough for one of about ``BRISK``."""
    time = autocorrelation_time(tail, pooled.mean(0), pooled.var(0))
    return 1 if time < IDLE else min(math.ceil(time / BRISK), most)


def elliptical_slice(
    dof: int | None = 5, max_tries: int = 32, warmup_draws: int = 320, most_thin: int | None = None
) -> FittedEngine:
    """Chains of :class:`ppcore_mcmc.elliptical_slice.EllipticalSlice`, as an engine.

    Parameters
    ----------
    dof : int or None
        ν of the pseudo-prior; None is a Gaussian.
    max_tries : int
        Most angles tried in a transition.
    warmup_draws : int
        Draws per chain to fit the pseudo-prior with.
    most_thin : int, optional
        The most transitions that may make one draw; by default 16.

    >>> elliptical_slice(dof=10).contract.reversible
    True
    """
    kernel = EllipticalSlice(dof, max_tries)
    return FittedEngine(kernel, warmup_draws, max(warmup_draws, 1280), most_thin=most_thin, dof=dof)


def independence(
    proposal: Any = None,
    dof: int | None = 5,
    warmup_draws: int = 320,
    most_thin: int | None = None,
) -> FittedEngine:
    """Chains of :class:`ppcore_mcmc.independence.Independence`, as an engine.

    Parameters
    ----------
    proposal : Normalised, optional
        A pytree with ``sample(key, n)`` and ``log_prob(x)``, such as a flow that was trained; by
        default a Student-t is fitted in warm-up.
    dof : int or None
        ν of the Student-t; None is a Gaussian, which gets stuck where γ has heavier tails.
    warmup_draws : int
        Draws per chain to fit it with.
    most_thin : int, optional
        The most transitions that may make one draw; by default 16.

    >>> independence().dof
    5
    """
    return FittedEngine(
        Independence(),
        warmup_draws,
        max(warmup_draws, 1280),
        most_thin=most_thin,
        dof=dof,
        proposal=proposal,
    )
