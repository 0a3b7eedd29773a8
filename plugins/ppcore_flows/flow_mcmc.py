"""Chains that mix proposals from a flow with local moves: jumps between modes, exact in each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random, registry
from ppcore.chains import Chains, KernelEngine, Tuning
from ppcore.compose import Mix
from ppcore.contract import Contract, Invariant
from ppcore.engine import Progress, Report, Warm
from ppcore.errors import CompositionError
from ppcore.population import equally_weighted
from ppcore.settings import check_between, check_count
from ppcore.tuning.noise import spawned
from ppcore_flows.density import weighed
from ppcore_flows.flow import Design, defended, learn
from ppcore_flows.losses import forward_kl
from ppcore_flows.training import Training, require_smooth, train


class Weighed(NamedTuple):
    """``x`` float[d], its ``log_density`` and log importance weight log γ(x) − log q(x)."""

    x: Any
    log_density: Any
    log_weight: Any


@dataclass(frozen=True)
class FlowProposal:
    """y ~ q, accepted with probability min(1, w(y)/w(x)), w = γ/q; ``params`` is q.

    Reversible for γ for every fixed q, and irreducible since q has all of R^d as its support.

    Source: Hastings 1970, doi:10.1093/biomet/57.1.97; Gabrié, Rotskoff & Vanden-Eijnden 2022,
    arXiv:2105.12603.

    >>> FlowProposal().contract
    Invariant(reversible=True, irreducible=True)
    """

    contract: ClassVar[Contract] = Invariant(reversible=True)
    needs: ClassVar[tuple[str, ...]] = ()

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Weighed:
        log_density = target.log_density(x)
        return Weighed(x, log_density, log_density - params.log_prob(x))

    def refresh(self, target: Any, state: Weighed) -> Weighed:
        """As it is: the step weighs its position anew, since other moves may have changed it."""
        return state

    def step(
        self, key: Any, target: Any, state: Weighed, params: Any
    ) -> tuple[Weighed, dict[str, Any]]:
        k_propose, k_accept = random.split(key)
        old = self.init(None, target, state.x, params)
        new = self.init(None, target, params.sample(k_propose, 1)[0], params)
        log_ratio = new.log_weight - old.log_weight
        log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
        probability = jnp.exp(jnp.minimum(0.0, log_ratio))
        accept = random.bernoulli(k_accept, probability)
        kept = Weighed(*(jnp.where(accept, a, b) for a, b in zip(new, old, strict=True)))
        info = {
            "acceptance_rate": probability,
            "log_density": kept.log_density,
            "diverging": jnp.zeros((), bool),
            "n_gradients": jnp.asarray(2, jnp.int32),
        }
        return kept, info


@dataclass(frozen=True)
class FlowMCMC:
    """ρ K_flow + (1 − ρ) K_local: invariant for γ, by the rule of mixtures.

    Warm-up tunes the local kernel on its own (its climbs find modes), trains a flow on the target
    by annealed reverse KL, and then lets the mixed chains run and trains the flow on their draws by
    forward KL, several rounds. After that the flow is frozen: nothing adapts while it samples.

    Wins where several modes lie apart in up to a few dozen dimensions: a flow with an acceptance of
    a few percent is enough. In high dimensions acceptance dies out; use ``neutra`` there.

    Parameters
    ----------
    local : str
        Name of an engine whose kernel makes the local moves ("hmc", "mala", "nuts", ...).
    share : float
        ρ, the probability of a flow proposal.
    rounds, round_draws : int
        Rounds of training on the chains' own draws, and draws of each chain in a round.
    round_steps : int
        Steps of forward KL in a round.
    map, base, layers, width, bins, steps, batch, rate
        See :class:`ppcore_flows.flow.Design` and :class:`ppcore_flows.training.Training`.
    defence : float
        Share of the flow's draws from a wide Student-t.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range or unknown.
    ppcore.errors.CompositionError
        If ``local`` names no engine that runs an invariant kernel.

    Source: Gabrié, Rotskoff & Vanden-Eijnden 2022, arXiv:2105.12603; Samsonov et al. 2022,
    arXiv:2111.02702.

    >>> FlowMCMC().contract
    Invariant(reversible=True, irreducible=True)
    """

    local: str = "hmc"
    share: float = 0.5
    rounds: int = 3
    round_draws: int = 48
    round_steps: int = 150
    map: str = "auto"
    base: str = "auto"
    layers: int = 0
    width: int = 32
    bins: int = 8
    steps: int = 400
    batch: int = 256
    rate: float = 5e-3
    defence: float = 0.05
    default_chains: ClassVar[int] = 64
    default_draws: ClassVar[int] = 400
    compiled: ClassVar[bool] = True
    fitted: ClassVar[bool] = True
    block_size: ClassVar[int] = 80

    def __post_init__(self) -> None:
        check_between("share", self.share, 0, 1)
        check_count("rounds", self.rounds, 0)
        check_count("round_draws", self.round_draws, 16)
        check_count("round_steps", self.round_steps, 1)
        _ = self.design

    @property
    def design(self) -> Design:
        """What flow to train, and how."""
        training = Training(self.steps, self.batch, self.rate)
        shape = (self.map, self.base, self.layers, self.width, self.bins)
        return Design(*shape, training=training, defence=self.defence)

    @cached_property
    def _local(self) -> KernelEngine:
        return local_engine(self.local)

    @cached_property
    def _mixed(self) -> KernelEngine:
        kernels = FlowProposal(), self._local.kernel
        return KernelEngine(Mix(*kernels, weights=(self.share, 1.0 - self.share)))

    @property
    def contract(self) -> Contract:
        return self._mixed.contract

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """Fields of the state that are random variables of their own."""
        return self._mixed.auxiliary

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        """Starts, the local kernel's parameters and the flow; see :class:`FlowMCMC`.

        Raises what :func:`ppcore_flows.flow.learn` raises.
        """
        require_smooth(target, "flow_mcmc")
        k_local, k_learn, k_guard, k_start, k_run, *k_rounds = spawned(key, 5 + 2 * self.rounds)
        warm = self._local.warmup(k_local, target, chains, report)
        made = learn(k_learn, target, self.design, report, "flow_mcmc")
        flow, notes = made.density, [*warm.notes, *made.notes]
        proposal = defended(k_guard, flow, self.defence)
        x, spent = _starts(k_start, proposal, target, np.asarray(warm.x))
        machine = Chains(self._mixed, k_run, target, chains)
        machine.put((proposal, warm.tuned.params), x)
        plan = Training(self.round_steps, self.batch, self.rate, 0.0)
        for i in range(self.rounds):
            rows = machine.run((proposal, warm.tuned.params), self.round_draws)
            pool = rows["x"][self.round_draws // 3 :].reshape(-1, target.dim)
            law = equally_weighted(jnp.asarray(pool))
            fitted = train(k_rounds[2 * i], flow, law, forward_kl, plan, report, 0)
            flow, notes = fitted.density, [*notes, *fitted.notes]
            proposal = defended(k_rounds[2 * i + 1], flow, self.defence)
            report(Progress("flow rounds", i + 1, self.rounds, unit="rounds"))
        cost = warm.gradients + made.evaluations + spent + machine.gradients
        tuned = Tuning((proposal, warm.tuned.params), np.int32(1))
        return Warm(tuned, machine.x, cost, tuple(notes))

    def init(self, key: Any, target: Any, tuned: Tuning, x: Any) -> Any:
        """The states at ``x``: float[chains, d]."""
        return self._mixed.init(key, target, tuned, x)

    def block(
        self, key: Any, target: Any, tuned: Tuning, carry: Any, n: int
    ) -> tuple[Any, Any, dict[str, Any]]:
        """``n`` draws of every chain; draws: float[chains, n, d]."""
        return self._mixed.block(key, target, tuned, carry, n)


def local_engine(name: str) -> KernelEngine:
    """The engine called ``name``, if it runs an invariant kernel.

    Raises :class:`ppcore.errors.CompositionError` if it does not.
    """
    engine = registry.engine(name)
    if not isinstance(engine, KernelEngine) or not isinstance(engine.contract, Invariant):
        raise CompositionError(
            f"local={name!r} is no engine that runs one invariant kernel in lockstep. Use 'hmc', "
            "'mala' or 'nuts'."
        )
    return engine


def _starts(key: Any, proposal: Any, target: Any, local: np.ndarray) -> tuple[np.ndarray, int]:
    """Half of the chains where the local warm-up left them, half from weighted flow draws."""
    chains = len(local)
    k_draw, k_pick = spawned(key, 2)
    population = weighed(k_draw, proposal, target, 16 * chains)
    weights = np.array(population.weights, float)
    if not np.isfinite(weights).all():
        return local, 16 * chains
    rng = np.random.default_rng(np.asarray(jax.random.key_data(k_pick)).ravel())
    pick = rng.choice(16 * chains, chains // 2, p=weights / weights.sum())
    x = local.copy()
    x[: chains // 2] = np.asarray(population.x)[pick]
    return x, 16 * chains
