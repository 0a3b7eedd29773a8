"""SMC²: parameters as particles, each with a particle filter of its own, along the data.

For t = 1 … T: every filter takes a step, ω^m ← ω^m p̂(y_t | y_{1:t−1}, θ^m), and where the ω are
worth less than ``threshold`` of the θ particles, these are resampled and moved by particle marginal
Metropolis–Hastings on p(θ, filter | y_{1:t}), with the spread of the particles for its steps.

    Ẑ = Π_t Σ_m W^m p̂(y_t | y_{1:t−1}, θ^m).

Without the adaptation E[Ẑ] = Z for any number of particles of either kind; with it, in the limit.

Source: Chopin, Jacob & Papaspiliopoulos (2013), arXiv:1101.1528.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.contract import Contract, ProperlyWeighted
from ppcore.errors import ModelError, PopulationError, UnsupportedError, did_you_mean
from ppcore.settings import check_between, check_count
from ppcore.stages.resampling import systematic
from ppcore_smc.filtering import Cloud, Proposal, advance
from ppcore_smc.ground import Ground, begin, normalised
from ppcore_smc.parameters import Split, split_target
from ppcore_smc.pmmh import PROPOSALS
from ppcore_smc.smoothing import WeightedPath, completed, drawn_law
from ppcore_smc.theta_walk import check_choice

STUCK = 0.02


class Swarm(NamedTuple):
    """M parameters, each with a filter of N particles at step t.

    Attributes
    ----------
    u : float[M, k]
    log_prior, log_z : float[M]
        log p(u), and log p̂(y_{1:t} | θ).
    ground, cloud, start : pytrees
        Of each filter; leading axis M.
    values, ancestors : pytrees
        Histories, filled up to t: leading axes M, T, N.
    """

    u: Any
    log_prior: Any
    log_z: Any
    ground: Ground
    cloud: Cloud
    start: Any
    values: Any
    ancestors: Any


@dataclass(frozen=True)
class SMC2:
    """Draws of (θ, path) and log Ẑ, learning from the data one step at a time.

    Parameters
    ----------
    theta_particles : int
        M.
    particles : int
        N of each filter.
    runs : int
        Independent runs, whose spread is the evidence's error.
    moves : int
        Metropolis–Hastings steps after each resampling of θ.
    threshold : float
        Resample θ where the ω are worth less than threshold · M.
    proposal : "bootstrap" or "guided"
    """

    theta_particles: int = 128
    particles: int = 64
    runs: int = 4
    moves: int = 3
    threshold: float = 0.5
    proposal: str = "bootstrap"
    contract: ClassVar[Contract] = ProperlyWeighted(unbiased_evidence=False)
    default_draws: ClassVar[int] = 250

    def __post_init__(self) -> None:
        check_count("theta_particles", self.theta_particles, 4)
        check_count("particles", self.particles, 2)
        check_count("runs", self.runs, 1)
        check_count("moves", self.moves, 1)
        check_between("threshold", self.threshold, 0, 1)
        check_choice("proposal", self.proposal, PROPOSALS)

    def solve(self, target: Any) -> SMC2Solution:
        """The posterior of a model's target; computed when draws are first asked for.

        Raises :class:`ppcore.errors.UnsupportedError` if the model is no single scan with its
        evidence in the steps, has a discrete parameter, or an improper prior.
        """
        if getattr(target, "improper", ()):
            raise UnsupportedError(
                f"SMC² starts from draws of the prior, and that of {target.improper[0]!r} is "
                "improper. Give it a proper distribution."
            )
        split = split_target(target)
        if split.space is None:
            raise UnsupportedError(
                f"SMC² needs a model with a pp.scan; {type(target).__name__} is a bare density. "
                "Use 'smc'."
            )
        return SMC2Solution(self, target, split)


class SMC2Solution:
    """p(sites | evidence); see :class:`ppcore.exact.protocol.Solution`.

    Attributes
    ----------
    log_evidence, log_evidence_error : float
        log of the mean Ẑ of the runs, and its standard error from their spread.
    steps : list of dict
        For each run, ``ess`` float[T] of θ, and ``acceptance_rate`` of each round of moves.
    """

    solver = "smc2"

    def __init__(self, engine: SMC2, target: Any, split: Split) -> None:
        assert split.space is not None
        self.engine, self.target, self.split, self.space = engine, target, split, split.space
        names = self.space.joint.output_names
        self.sites = tuple(str(n) for n in names if n is not None and n not in self.space.observed)
        self.steps: list[dict[str, Any]] = []
        self._log_z = np.zeros(0)
        self._drawn: dict[str, np.ndarray] = {}

    def sample(self, key: Any, n: int) -> dict[str, np.ndarray]:
        """``n`` draws of all sites, by the weights of all runs: {site: array[n, *shape]}.

        Raises :class:`ppcore.errors.PopulationError`, naming the step, if all weights vanish.
        """
        k_pick, k_after, *k_runs = jax.random.split(key, 2 + self.engine.runs)
        found = [self._run(k) for k in k_runs]
        self._log_z = np.array([log_z for _, _, log_z in found])
        log_w = np.concatenate([w + z for _, w, z in found])
        sites = {s: np.concatenate([p[s] for p, _, _ in found]) for s in found[0][0]}
        w = np.exp(log_w - log_w.max())
        index = np.asarray(systematic(k_pick, jnp.asarray(w / w.sum()), n))
        latent = {s: v[index] for s, v in sites.items()}
        self._drawn = completed(self.space, self.sites, latent, k_after, n)
        return self._drawn

    def _run(self, key: Any) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
        """One run: sites of M draws, log W, log Ẑ."""
        e = self.engine
        k_start, k_steps, k_moves, k_paths = jax.random.split(key, 4)
        swarm = _begun(e, self.target, k_start)
        log_w, total = (np.asarray(a) for a in normalised(swarm.log_z - np.log(e.theta_particles)))
        sizes, rates, log_z = [], [], float(total)
        for t in range(self.space.length):
            self._alive(log_z, t, swarm, log_w)
            before = np.asarray(swarm.log_z)
            swarm = _advanced(e, jax.random.fold_in(k_steps, t), swarm, t, t + 1)
            step = log_w + np.asarray(swarm.log_z) - before
            log_w, increment = (np.asarray(a) for a in normalised(jnp.asarray(step)))
            log_z += float(increment)
            sizes.append(float(1.0 / np.exp(2.0 * log_w).sum()))
            if sizes[-1] < e.threshold * e.theta_particles and swarm.u.shape[1]:
                now = jax.random.fold_in(k_moves, t)
                swarm, rate = _moved(e, self.target, now, swarm, log_w, t + 1)
                log_w = np.full_like(log_w, -np.log(len(log_w)))
                rates.append(float(rate))
        self._alive(log_z, self.space.length, swarm, log_w)
        self.steps.append({"ess": np.array(sizes), "acceptance_rate": np.array(rates)})
        paths = _paths(self.target, k_paths, swarm)
        return {s: np.asarray(v) for s, v in paths.items()}, log_w, log_z

    def _alive(self, log_z: float, t: int, swarm: Swarm, log_w: np.ndarray) -> None:
        if np.isfinite(log_z):
            return
        where = f"step {t - 1} of the walk" if t else "the start"
        raise PopulationError(
            f"At {where} the weights of all {len(log_w)} parameters vanish: no particle can have "
            "produced the evidence there. Use more particles, proposal='guided', or check the "
            "data at that step.",
            stage=where,
        )

    @property
    def log_evidence(self) -> float:
        return float(np.logaddexp.reduce(self._log_z) - np.log(len(self._log_z)))

    @property
    def log_evidence_error(self) -> float:
        ratio = np.exp(self._log_z - self._log_z.max())
        if len(ratio) < 2:
            return float("nan")
        return float(ratio.std(ddof=1) / ratio.mean() / len(ratio) ** 0.5)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        e = self.engine
        rounds = sum(len(s["acceptance_rate"]) for s in self.steps)
        return (
            f"{e.runs} runs of {e.theta_particles} parameters × {e.particles} particles, "
            f"{rounds} rounds of moves.",
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the runs say against the draws."""
        rates = np.concatenate([s["acceptance_rate"] for s in self.steps])
        found = []
        if rates.size and rates.min() < STUCK:
            found.append(
                f"A round of moves accepted only {rates.min():.1%}: the filters' likelihoods are "
                f"too noisy. Use more particles (particles={4 * self.engine.particles})."
            )
        if self.log_evidence_error > 1.0:
            found.append(
                f"The log evidence is known to ± {self.log_evidence_error:.2f} only: a few runs "
                "carry the draws. Use more particles of either kind."
            )
        return tuple(found)

    def marginal(self, site: str) -> WeightedPath:
        """The draws of a site as equally weighted particles, [T, N, ...]; T = 1 for no path."""
        if site not in self._drawn:
            hint = did_you_mean(site, self.sites)
            raise ModelError(f"No draws of site {site!r}: call sample first. {hint}")
        return drawn_law(self.space, site, self._drawn[site])


@partial(jax.jit, static_argnums=0)
def _begun(engine: SMC2, target: Any, key: Any) -> Swarm:
    split = split_target(target)
    k_theta, k_begin = jax.random.split(key)
    x = target.sample_reference(k_theta, engine.theta_particles)
    keys = jax.random.split(k_begin, engine.theta_particles)
    return jax.vmap(lambda k, u: _filter_from(engine, split, k, u))(keys, x[:, split.index])


def _filter_from(engine: SMC2, split: Split, key: Any, u: Any) -> Swarm:
    """One parameter with the filter before its first step."""
    space = split.space
    assert space is not None
    k_theta, k_begin, k_shape = jax.random.split(key, 3)
    theta, log_prior = split.theta(k_theta, u)
    n, length = engine.particles, space.length
    start = begin(k_begin, space, theta, n)
    cloud = Cloud(start.carry, jnp.arange(n), start.log_weight)
    shapes = jax.eval_shape(
        lambda: _step(engine, k_shape, start.ground, cloud, jnp.asarray(0)).values
    )
    values = jax.tree.map(lambda s: jnp.zeros((length, *s.shape), s.dtype), shapes)
    ancestors = jnp.zeros((length, n), cloud.root.dtype)
    return Swarm(u, log_prior, start.log_z, start.ground, cloud, start.values, values, ancestors)


def _step(engine: SMC2, key: Any, ground: Ground, cloud: Cloud, t: Any) -> Any:
    element = jax.tree.map(lambda a: a[t], ground.elements)
    proposal: Proposal = PROPOSALS[engine.proposal]
    return advance(key, ground, cloud, element, proposal, "systematic", 0.5)


def _walked(engine: SMC2, key: Any, one: Swarm, first: Any, last: Any) -> Swarm:
    """One filter's steps first, …, last − 1."""

    def body(t: Any, s: Swarm) -> Swarm:
        made = _step(engine, jax.random.fold_in(key, t), s.ground, s.cloud, t)
        cloud = jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), made.cloud, s.cloud)
        values = jax.tree.map(lambda b, v: b.at[t].set(v), s.values, made.values)
        ancestors = s.ancestors.at[t].set(made.ancestors)
        log_z = s.log_z + made.increment
        return s._replace(cloud=cloud, values=values, ancestors=ancestors, log_z=log_z)

    return jax.lax.fori_loop(first, last, body, one)


@partial(jax.jit, static_argnums=0)
def _advanced(engine: SMC2, key: Any, swarm: Swarm, first: Any, last: Any) -> Swarm:
    keys = jax.random.split(key, engine.theta_particles)
    return jax.vmap(lambda k, s: _walked(engine, k, s, first, last))(keys, swarm)


@partial(jax.jit, static_argnums=0)
def _moved(
    engine: SMC2, target: Any, key: Any, swarm: Swarm, log_w: Any, t: Any
) -> tuple[Swarm, Any]:
    """Resampled by ω, then ``moves`` rounds of Metropolis–Hastings with filters up to step t."""
    split = split_target(target)
    k_resample, k_moves = jax.random.split(key)
    m, k = swarm.u.shape
    w = jnp.exp(log_w)
    centred = swarm.u - w @ swarm.u
    spread = (w[:, None] * centred).T @ centred
    size = jnp.diagonal(spread)
    factor = jnp.linalg.cholesky(spread + jnp.diag(1e-6 * size + 1e-10))
    index = systematic(k_resample, w)
    swarm = jax.tree.map(lambda a: a[index], swarm)

    def move(swarm: Swarm, now: Any) -> tuple[Swarm, Any]:
        k_walk, k_filter, k_accept = jax.random.split(now, 3)
        z = jax.random.normal(k_walk, (m, k), swarm.u.dtype)
        u = swarm.u + 2.38 / k**0.5 * z @ factor.T

        def propose(kk: Any, v: Any) -> Swarm:
            k_begin, k_walk = jax.random.split(kk)
            return _walked(engine, k_walk, _filter_from(engine, split, k_begin, v), 0, t)

        new = jax.vmap(propose)(jax.random.split(k_filter, m), u)
        log_ratio = new.log_prior + new.log_z - swarm.log_prior - swarm.log_z
        p = jnp.where(jnp.isnan(log_ratio), 0.0, jnp.minimum(1.0, jnp.exp(log_ratio)))
        yes = jax.random.uniform(k_accept, (m,), p.dtype) < p

        def pick(a: Any, b: Any) -> Any:
            return jnp.where(yes.reshape(-1, *[1] * (a.ndim - 1)), a, b)

        return jax.tree.map(pick, new, swarm), p.mean()

    swarm, rates = jax.lax.scan(move, swarm, jax.random.split(k_moves, engine.moves))
    return swarm, rates.mean()


@jax.jit
def _paths(target: Any, key: Any, swarm: Swarm) -> Any:
    """The sites of every parameter with a path of its filter, traced through its ancestors."""
    split = split_target(target)
    space = split.space
    assert space is not None

    def one(kk: Any, s: Swarm) -> Any:
        k_last, k_theta = jax.random.split(kk)
        last = jax.random.categorical(k_last, s.cloud.log_weight)

        def back(index: Any, now: Any) -> tuple[Any, Any]:
            values, ancestors = now
            return ancestors[index], jax.tree.map(lambda a: a[index], values)

        first, inside = jax.lax.scan(back, last, (s.values, s.ancestors), reverse=True)
        before = {site: s.start[site][first] for site in space.plan.initial}
        return {**split.theta(k_theta, s.u)[0], **before, **space.turned(inside)}

    return jax.vmap(one)(jax.random.split(key, len(swarm.u)), swarm)
