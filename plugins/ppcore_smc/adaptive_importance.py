"""Adaptive importance sampling: a mixture learnt from all pilot draws, then a fresh sample from it.

Round t draws x ~ q_t and gives every draw so far, of whatever round, the weight

    w_i = γ(x_i) / (1/t) Σ_{s ≤ t} q_s(x_i)          (adaptive multiple importance sampling),

tempered where these are worth too little, and fits q_{t+1} to them. The draws that count come from
the last mixture, mixed with the reference ρ and frozen, so that Ẑ stays unbiased:

    q = (1 − ε) q_T + ε ρ,    w_i = γ(x_i)/q(x_i),    Ẑ = mean w.

With ``control_variates``, H_k = q_k/q − 1 over the parts of q have E_q[H] = 0, and the regression
of every f w on H is one reweighting, w_i (1 − H̄ᵀ (HᵀH/n)⁻¹ H_i): a single sample then serves all
integrands, each with the variance of its own regression.

Source: Cornuet, Marin, Mira & Robert (2012), arXiv:0907.1254; Owen & Zhou (2000),
doi:10.1080/01621459.2000.10473909 (controls); Leluc, Portier, Segers & Zhuman (2022),
arXiv:2205.11890 (with adaptation).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import Contract, ProperlyWeighted
from ppcore.engine import Populated, Progress, Report
from ppcore.errors import SettingsError
from ppcore.population import Population, require_alive
from ppcore.settings import check_between, check_count
from ppcore.stages.reference import Prior
from ppcore.tuning.noise import spawned
from ppcore_smc.laplace import approach
from ppcore_smc.mixture import Mixture, fitted

HALVINGS = 40
LOWEST = -1e10


@dataclass(frozen=True)
class AMIS:
    """Weighted draws from a mixture of Student-t fitted to the target; log Ẑ = log mean w.

    Properly weighted with E[Ẑ] = Z (without ``control_variates``), for problems of up to a few
    dozen dimensions.

    Parameters
    ----------
    components : int
        K of the mixture.
    rounds : int
        Of adaptation.
    pilots : int
        Draws of each round.
    defence : float
        ε, the share of the reference in the last mixture.
    worth : float
        Weights are tempered until they are worth this share of the draws.
    reference : "auto", "prior" or "laplace"
        ρ, where the first round begins; "auto" is the prior where it is proper.
    control_variates : bool
        Reweigh by regression on the parts of q. The evidence then has a bias of O(1/N).
    """

    components: int = 4
    rounds: int = 10
    pilots: int = 1024
    defence: float = 0.1
    worth: float = 0.2
    reference: str = "auto"
    control_variates: bool = False
    default_chains = 4
    default_draws = 2048

    def __post_init__(self) -> None:
        check_count("components", self.components, 1)
        check_count("rounds", self.rounds, 1)
        check_count("pilots", self.pilots, 16)
        check_between("defence", self.defence, 0, 1)
        check_between("worth", self.worth, 0, 1)
        if self.reference not in ("auto", "prior", "laplace"):
            raise SettingsError(
                f"reference={self.reference!r} must be 'auto', 'prior' or 'laplace'."
            )

    @property
    def contract(self) -> Contract:
        return ProperlyWeighted(unbiased_evidence=not self.control_variates)

    @property
    def stage(self) -> Adapted:
        """The same as a stage: the population it is given says how many to draw."""
        return Adapted(self)

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted draws; see :class:`ppcore.engine.PopulationEngine`.

        Raises :class:`ppcore.errors.UnsupportedError` without a reference, and
        :class:`ppcore.errors.PopulationError` if all weights vanish.
        """
        k_reference, k_run = spawned(key, 2)
        spent, notes = 0, tuple[str, ...]()
        if self.reference == "laplace" or (self.reference == "auto" and not target.has_reference):
            found = approach(k_reference, target)
            target, spent, notes = found.target, found.gradients, found.notes
        Prior().require(target)
        population, worth = _run(self, k_run, target, n)
        require_alive(population, "adaptive importance sampling", 1.0)
        report(Progress("sampling", n, n, unit="particles"))
        error = float(max(n / population.ess - 1.0, 0.0) / n) ** 0.5
        spent += n + self.rounds * self.pilots
        return Populated(population, spent, error, {"worth": np.asarray(worth)}, notes)


@dataclass(frozen=True)
class Adapted:
    """:class:`AMIS` from source to target, whatever the population was."""

    engine: AMIS

    @property
    def contract(self) -> Contract:
        return self.engine.contract

    def __call__(self, key: Any, source: Any, target: Any, population: Population) -> Population:
        return adapted(self.engine, key, target, population.size)[0]


@partial(jax.jit, static_argnums=(0, 3))
def _run(engine: AMIS, key: Any, target: Any, n: int) -> tuple[Population, Any]:
    return adapted(engine, key, target, n)


def adapted(engine: AMIS, key: Any, target: Any, n: int) -> tuple[Population, Any]:
    """``n`` weighted draws, and what the weights were worth in each round; traceable."""
    k_pilot, k_final = random.split(key)
    mixture, worth = _learn(engine, k_pilot, target)
    k_which, k_mixture, k_prior = random.split(k_final, 3)
    reference = random.bernoulli(k_which, engine.defence, (n,))
    x = jnp.where(
        reference[:, None], target.sample_reference(k_prior, n), mixture.sample(k_mixture, n)
    )
    shares = jnp.append(mixture.log_share + jnp.log1p(-engine.defence), jnp.log(engine.defence))
    log_rho = jax.vmap(target.log_prior)(x)
    parts = jnp.concatenate([mixture.log_parts(x), log_rho[:, None]], axis=1)
    log_q = jax.nn.logsumexp(shares + parts, axis=1)
    log_w = _usable(jax.lax.map(target.log_density, x, batch_size=256) - log_q)
    if engine.control_variates:
        log_w = _controlled(log_w, parts - log_q[:, None])
    log_z = jax.nn.logsumexp(log_w) - jnp.log(n)
    return Population(x, jnp.where(jnp.isneginf(log_z), 0.0, log_w), log_z), worth


def _controlled(log_w: Any, log_h: Any) -> Any:
    """Weights times 1 − H̄ᵀ(HᵀH/n)⁻¹(H − H̄); as they are where one would turn negative."""
    h = jnp.exp(log_h) - 1.0
    mean = h.mean(0)
    centred = h - mean
    gram = centred.T @ centred / h.shape[0]
    gram = gram + 1e-9 * jnp.diag(jnp.diagonal(gram) + 1e-9)
    factor = 1.0 - centred @ jnp.linalg.solve(gram, mean)
    return jnp.where((factor > 0.0).all(), log_w + jnp.log(jnp.maximum(factor, 1e-30)), log_w)


def _learn(engine: AMIS, key: Any, target: Any) -> tuple[Mixture, Any]:
    """The mixture after ``rounds`` rounds, all draws reweighed by all proposals at every round."""
    rounds, m, d = engine.rounds, engine.pilots, target.dim
    k_first, k_rest = random.split(key)
    x = target.sample_reference(k_first, m)
    dtype = x.dtype
    log_gamma = jax.lax.map(target.log_density, x, batch_size=256)
    # Rows of rounds to come have no weight until they are drawn.
    empty = jnp.full(rounds * m, -jnp.inf, dtype)
    all_x = jnp.zeros((rounds * m, d), dtype).at[:m].set(x)
    all_gamma = empty.at[:m].set(_usable(log_gamma))
    log_sum = empty.at[:m].set(jax.vmap(target.log_prior)(x))
    k_fit, k_rounds = random.split(k_rest)
    w, worth = _tempered(all_gamma - jnp.maximum(log_sum, LOWEST), m, engine.worth)
    first = fitted(k_fit, all_x, w, engine.components)

    def round_(state: Any, now: Any) -> tuple[Any, Any]:
        mixture, all_x, all_gamma, log_sum, past = state
        t, k = now
        k_draw, k_fit = random.split(k)
        x = mixture.sample(k_draw, m)
        log_gamma = _usable(jax.lax.map(target.log_density, x, batch_size=256))
        past = jax.tree.map(lambda p, c: p.at[t].set(c), past, mixture)
        # Old draws meet the new proposal, new draws all of them.
        old = jnp.logaddexp(log_sum, mixture.log_density(all_x))
        parts = jax.lax.map(lambda q: q.log_density(x), past)
        drawn = (jnp.arange(rounds) >= 1) & (jnp.arange(rounds) <= t)
        parts = jnp.where(drawn[:, None], parts, -jnp.inf)
        new = jnp.logaddexp(jax.nn.logsumexp(parts, axis=0), jax.vmap(target.log_prior)(x))
        at = t * m
        all_x = jax.lax.dynamic_update_slice(all_x, x, (at, 0))
        all_gamma = jax.lax.dynamic_update_slice(all_gamma, log_gamma, (at,))
        log_sum = jax.lax.dynamic_update_slice(old, new, (at,))
        w, worth = _tempered(all_gamma - jnp.maximum(log_sum, LOWEST), m, engine.worth)
        mixture = fitted(k_fit, all_x, w, engine.components)
        return (mixture, all_x, all_gamma, log_sum, past), worth

    past = jax.tree.map(lambda c: jnp.repeat(c[None], rounds, 0), first)
    state = (first, all_x, all_gamma, log_sum, past)
    along = (jnp.arange(1, rounds), random.split(k_rounds, rounds - 1))
    if rounds == 1:
        return first, worth[None]
    (mixture, *_), later = jax.lax.scan(round_, state, along)
    return mixture, jnp.concatenate([worth[None], later])


def _usable(log_w: Any) -> Any:
    return jnp.where(jnp.isnan(log_w), -jnp.inf, log_w)


def _tempered(log_w: Any, round_: int, share: float) -> tuple[Any, Any]:
    """w^b, b ≤ 1 the largest worth ``share`` of one round's draws; and ESS in rounds at b = 1."""

    def size(b: Any) -> Any:
        w = jax.nn.softmax(jnp.where(jnp.isneginf(log_w), -jnp.inf, b * log_w))
        return 1.0 / jnp.sum(w**2)

    goal = jnp.minimum(share * round_, jnp.sum(jnp.isfinite(log_w)) * 0.99)

    def halve(_: Any, ends: Any) -> Any:
        low, high = ends
        middle = 0.5 * (low + high)
        fits = size(middle) >= goal
        return jnp.where(fits, middle, low), jnp.where(fits, high, middle)

    zero, one = jnp.zeros((), log_w.dtype), jnp.ones((), log_w.dtype)
    low, _ = jax.lax.fori_loop(0, HALVINGS, halve, (zero, one))
    whole = size(one)
    b = jnp.where(whole >= goal, one, low)
    return jax.nn.softmax(jnp.where(jnp.isneginf(log_w), -jnp.inf, b * log_w)), whole / round_
