"""Many chains of Hamiltonian Monte Carlo in lockstep, one small compiled program."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.compiled import jit
from ppcore.contract import Invariant
from ppcore.engine import Report, Warm
from ppcore.settings import check_between, check_count, check_metric
from ppcore.target import value_and_gradient
from ppcore.tuning.adapt import MOST_THIN, Schedule, warm_up
from ppcore.tuning.lbfgs import Evaluate
from ppcore.tuning.metric import RANK, choose
from ppcore.tuning.noise import is_traced, noise, rounded, spawned
from ppcore.tuning.preconditioner import Preconditioner, identity
from ppcore_mcmc.leapfrog import Carry, Phase, leapfrog, log_joint

CHUNK = 16
APART = 100.0
ONCE = np.int32(1)
DIVERGENCE = 1000.0
STATS = ("log_density", "acceptance_rate", "diverging", "energy", "step_size")
# How a draw that is several transitions reports them; all else is that of the last.
GATHER = {"acceptance_rate": "mean", "diverging": "any", "n_gradients": "sum"}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EnsembleTuning:
    """What the warm-up of :class:`Ensemble` freezes.

    Attributes
    ----------
    preconditioner : Preconditioner
        F, shared by all chains.
    step_size : float[]
        ε, in units of the whitened target.
    length : float[]
        Mean trajectory length ε·L in whitened time.
    thin : int[]
        Transitions that make one draw, at most ``MOST_THIN``.
    """

    preconditioner: Preconditioner
    step_size: Any
    length: Any
    thin: Any


class Plan(NamedTuple):
    """The numbers that a chunk of transitions consumes; none depends on the state.

    active: int[], how many of the n slots are transitions; momenta: float[n·chains·d or more],
    flat; step: float[n, chains]; steps: int[n]; log_u: float[n, chains], −inf to accept
    whatever comes.
    """

    active: Any
    momenta: Any
    step: Any
    steps: Any
    log_u: Any


@partial(jax.jit, static_argnames=("n", "chains"))
def _jitter(uniforms: Any, tuned: EnsembleTuning, n: int, chains: int) -> Any:
    """Step sizes, numbers of steps and acceptance thresholds from flat uniforms.

    ε is multiplied by U(0.9, 1.1) for each chain and draw, the length by one U(0.6, 1.4) for all
    chains of a draw (lockstep), so that no trajectory is periodic with the target's frequencies.
    """
    u = uniforms[: n * (2 * chains + 1)].reshape(n, 2 * chains + 1)
    step = tuned.step_size * (0.9 + 0.2 * u[:, :chains])
    length = tuned.length * (0.6 + 0.8 * u[:, -1])
    steps = jnp.clip(jnp.round(length / tuned.step_size), 1, 1024).astype(jnp.int32)
    return step, steps, jnp.log1p(-u[:, chains : 2 * chains])


@jit
def trajectories(
    target: Any, precondition: Preconditioner, carry: Carry, plan: Plan
) -> tuple[Carry, dict[str, Any]]:
    """Hamiltonian trajectories with Metropolis acceptance, all chains in lockstep.

    The only program here that contains the model, and its gradient once. With ``step`` 0, one
    step and ``log_u`` −inf it evaluates log γ and its gradient at ``carry.x``. Slots beyond
    ``plan.active`` are left empty.
    """
    n, chains = plan.step.shape
    dim = carry.x.shape[-1]
    momenta = plan.momenta[: n * chains * dim].reshape(n, chains, dim)

    def draw(i: Any, state: tuple[Carry, dict[str, Any]]) -> tuple[Carry, dict[str, Any]]:
        carry, rows = state
        z, step, steps, log_u = momenta[i], plan.step[i], plan.steps[i], plan.log_u[i]
        start = Phase(*carry[:1], z, *carry[1:], precondition.pull(carry.gradient))
        end = jax.lax.fori_loop(
            0, steps, lambda _, at: leapfrog(target, precondition, at, step[:, None]), start
        )
        before, after = log_joint(start), log_joint(end)
        gain = jnp.where(after == -jnp.inf, -jnp.inf, after - before)
        accept = (log_u <= gain) | (log_u == -jnp.inf)
        new = Carry(
            jnp.where(accept[:, None], end.x, carry.x),
            jnp.where(accept, end.log_density, carry.log_density),
            jnp.where(accept[:, None], end.gradient, carry.gradient),
        )
        kinetic = 0.5 * jnp.sum(jnp.where(accept[:, None], end.z, z) ** 2, axis=-1)
        row = {
            "x": new.x,
            "gradient": new.gradient,
            "log_density": new.log_density,
            "acceptance_rate": jnp.exp(jnp.minimum(gain, 0.0)),
            "diverging": ~(gain > -DIVERGENCE),
            "energy": kinetic - new.log_density,
        }
        return new, {name: rows[name].at[i].set(value) for name, value in row.items()}

    scalar = jnp.zeros((n, chains), carry.x.dtype)
    rows = {name: jnp.zeros_like(momenta) for name in ("x", "gradient")} | {
        "log_density": scalar,
        "acceptance_rate": scalar,
        "diverging": jnp.zeros((n, chains), bool),
        "energy": scalar,
    }
    return jax.lax.fori_loop(0, plan.active, draw, (carry, rows))


def transitions(
    key: Any, index: Any, target: Any, tuned: EnsembleTuning, carry: Carry, n: int, active: Any
) -> tuple[Carry, dict[str, Any]]:
    """``n`` slots of which the first ``active`` are transitions; the others stay put."""
    chains, dim = carry.x.shape
    momenta, uniforms = noise(key, index, n * chains * dim, n * (2 * chains + 1), carry.x.dtype)
    plan = Plan(active, momenta, *_jitter(uniforms, tuned, n, chains))
    carry, out = trajectories(target, tuned.preconditioner, carry, plan)
    return carry, out | {"n_gradients": plan.steps, "step_size": plan.step}


class Chains:
    """The chains of a warm-up on the device, seen from the host (an ``adapt.Machine``)."""

    def __init__(self, key: Any, target: Any, chains: int, dtype: Any) -> None:
        self.key, self.target, self.dtype = key, target, np.dtype(dtype)
        self.rounds = self.gradients = 0
        dim = target.dim
        self.idle = jax.device_put(np.zeros(rounded(CHUNK * chains * dim), dtype))
        self.blank = np.zeros(chains, dtype), np.zeros((chains, dim), dtype)
        self.carry = Carry(self.blank[1], *self.blank)

    def evaluate(self, precondition: Preconditioner, x: np.ndarray) -> tuple[Any, Any]:
        """log γ and its gradient at each row of ``x`` (float[N, d]), by the block's program."""
        chains, dim = self.blank[1].shape
        padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % chains, axis=0)])
        step = np.zeros((CHUNK, chains), self.dtype)
        plan = Plan(np.int32(1), self.idle, step, np.ones(CHUNK, np.int32), step - np.inf)
        ends = [
            trajectories(self.target, precondition, Carry(part, *self.blank), plan)[0]
            for part in padded.astype(step.dtype).reshape(-1, chains, dim)
        ]
        self.gradients += len(padded)
        log_density = np.concatenate([np.asarray(e.log_density) for e in ends])[: len(x)]
        return log_density, np.concatenate([np.asarray(e.gradient) for e in ends])[: len(x)]

    def place(self, precondition: Preconditioner, x: np.ndarray) -> None:
        """Put the chains at ``x``: float[chains, d]."""
        log_density, gradient = self.evaluate(precondition, x)
        self.carry = Carry(x.astype(gradient.dtype), log_density, gradient)

    def advance(
        self, precondition: Preconditioner, step: float, length: float, n: int
    ) -> dict[str, np.ndarray]:
        dtype = self.dtype
        tuned = EnsembleTuning(precondition, dtype.type(step), dtype.type(length), ONCE)
        self.carry, out = transitions(
            self.key, np.int32(self.rounds), self.target, tuned, self.carry, CHUNK, np.int32(n)
        )
        self.rounds += 1
        rows = {name: np.asarray(value)[:n] for name, value in out.items()}
        self.gradients += int(rows["n_gradients"].sum()) * len(self.blank[0])
        return rows

    def copy(self, source: np.ndarray) -> None:
        self.carry = Carry(*(np.asarray(leaf)[source] for leaf in self.carry))


@dataclass(frozen=True)
class Ensemble:
    """Hamiltonian Monte Carlo with many chains that share everything but their positions.

    Each transition draws z ~ N(0, I), follows the Hamiltonian −log γ(x) + ½ zᵀz by L leapfrog
    steps of size ε (x moves along F z) and accepts with probability min(1, exp(−ΔH)). ε and L are
    drawn anew for every transition, independently of the state, so that each chain is reversible
    with respect to γ for fixed ``tuned``. A draw is the last of ``tuned.thin`` transitions.

    Parameters
    ----------
    warmup_draws : int
        Draws per chain to adapt with, from scattered starts; half as many from a Laplace start.
    max_warmup_draws : int
        Adaptation goes on until the chains have settled, up to here.
    target_accept : float
        Mean acceptance probability to tune ε for, in (0, 1); half way from it to 1 if chains
        diverge late in warm-up.
    length : float
        Mean trajectory length εL in whitened time; π/2 makes draws from a Gaussian independent.
    learn_length : bool
        Whether warm-up may lengthen it where that yields more effective draws per gradient, and
        make each draw the last of several transitions where chains move slowly all the same.
    metric : str
        "auto", "dense", "low_rank" or "diagonal". "auto" is dense, or low_rank above 128
        coordinates; where a dense one serves badly, warm-up tries a diagonal one beside it.
    rank : int
        Directions of a low-rank metric.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.

    Source: Duane et al. 1987, doi:10.1016/0370-2693(87)91197-X; Hoffman, Radul & Sountsov 2021
    (jittered lengths, shared adaptation), proceedings.mlr.press/v130/hoffman21a.html.

    >>> Ensemble(target_accept=0.9).default_chains
    64
    """

    warmup_draws: int = 320
    max_warmup_draws: int = 1280
    target_accept: float = 0.8
    length: float = 1.5707963
    learn_length: bool = True
    metric: str = "auto"
    rank: int = RANK
    contract: Invariant = field(default=Invariant(reversible=True), init=False)
    compiled: ClassVar[bool] = True
    block_size: ClassVar[int] = 5 * CHUNK
    default_chains: int = field(default=64, init=False)
    default_draws: int = field(default=400, init=False)

    def __post_init__(self) -> None:
        check_count("warmup_draws", self.warmup_draws, 16)
        check_count("max_warmup_draws", self.max_warmup_draws, self.warmup_draws)
        check_between("target_accept", self.target_accept, 0, 1)
        check_between("length", self.length, 0, 1000)
        check_metric(self.metric, self.rank)

    def evaluator(self, target: Any, chains: int) -> Evaluate:
        """log γ and its gradient at rows of float[N, d], by the program that draws will use."""
        machine = Chains(None, target, chains, jnp.result_type(float))
        kind = choose(self.metric, target.dim)
        return partial(machine.evaluate, identity(kind, target.dim, self.rank, machine.dtype))

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        """Starts, step size and preconditioner for ``chains`` chains, on the host.

        Raises :class:`ppcore.errors.StartError` if no finite log density is found.
        """
        schedule = Schedule(
            self.warmup_draws,
            self.max_warmup_draws,
            CHUNK,
            self.target_accept,
            self.length,
            self.learn_length,
            APART,
            MOST_THIN if self.learn_length else 1,
        )
        machine_key, start_key = spawned(key, 2)
        machine = Chains(machine_key, target, chains, jnp.result_type(float))
        end = warm_up(machine, start_key, target, chains, self.metric, self.rank, schedule, report)
        dtype = machine.dtype
        thin = np.int32(end.thin)
        step, length = dtype.type(end.step.final), dtype.type(end.length.best)
        tuned = EnsembleTuning(end.precondition, step, length, thin)
        return Warm(tuned, np.asarray(machine.carry.x), machine.gradients, tuple(end.notes))

    def init(self, key: Any, target: Any, tuned: EnsembleTuning, x: Any) -> Carry:
        """Positions ``x`` (float[chains, d]) with their log densities and gradients."""
        if is_traced(target, tuned, x):
            return Carry(x, *value_and_gradient(target, x))
        x = np.asarray(x)
        machine = Chains(None, target, len(x), x.dtype)
        machine.place(tuned.preconditioner, x)
        return machine.carry

    def block(
        self, key: Any, target: Any, tuned: EnsembleTuning, carry: Carry, n: int
    ) -> tuple[Carry, Any, dict[str, Any]]:
        """``n`` draws of every chain, ``tuned.thin`` transitions each; draws: float[chains, n, d].

        Runs the warm-up's program on chunks of transitions, so that no ``n`` compiles anything.
        """
        if is_traced(key, target, tuned, carry):
            if n <= CHUNK:
                carry, out = _kept(key, 0, target, tuned, carry, n, n)
            else:
                carry, out = _scanned(key, target, tuned, carry, n)
            return carry, *_by_chain(out, n, jnp)
        parts, thin = [], int(tuned.thin)
        for chunk in range(-(-n // CHUNK)):
            active = min(CHUNK, n - chunk * CHUNK)
            swept = []
            for sweep in range(thin):
                index = np.int32(chunk * MOST_THIN + sweep)
                carry, out = transitions(key, index, target, tuned, carry, CHUNK, np.int32(active))
                swept.append({name: np.asarray(value)[:active] for name, value in out.items()})
            parts.append(_thinned(swept, thin))
        rows = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        return carry, *_by_chain(rows, n, np)


def _thinned(swept: list[dict[str, Any]], thin: int) -> dict[str, Any]:
    """Rows of kept draws from those of all transitions: the last of each ``thin``.

    Acceptance rates are averaged, gradients added, and a draw diverges if any transition did.
    """
    rows = {}
    for name in swept[0]:
        every = np.concatenate([rows_[name] for rows_ in swept])
        every = every.reshape(-1, thin, *every.shape[1:])
        gather = GATHER.get(name)
        rows[name] = every[:, -1] if gather is None else getattr(np, gather)(every, axis=1)
    return rows


def _kept(
    key: Any, chunk: Any, target: Any, tuned: EnsembleTuning, carry: Carry, n: int, active: Any
) -> tuple[Carry, dict[str, Any]]:
    """As the host's loop over one chunk, inside a JAX trace: ``n`` slots of kept draws.

    Sweep j makes transitions j·active, …, (j + 1)·active − 1, of which number g belongs to draw
    g // thin.
    """
    thin = jnp.asarray(tuned.thin, jnp.int32)
    slots = jnp.arange(n, dtype=jnp.int32)

    def sweep(j: Any, state: tuple[Carry, dict[str, Any]]) -> tuple[Carry, dict[str, Any]]:
        carry, kept = state
        index = chunk * MOST_THIN + j
        carry, out = transitions(key, index, target, tuned, carry, n, active)
        g = j * active + slots
        draw = jnp.where(slots < active, g // thin, n)
        last = jnp.where((g + 1) % thin == 0, draw, n)
        return carry, {
            name: kept[name].at[draw].add(value.astype(kept[name].dtype), mode="drop")
            if name in GATHER
            else kept[name].at[last].set(value, mode="drop")
            for name, value in out.items()
        }

    shapes = jax.eval_shape(lambda: transitions(key, chunk, target, tuned, carry, n, active)[1])
    blank = {
        name: jnp.zeros(of.shape, jnp.int32 if of.dtype == bool else of.dtype)
        for name, of in shapes.items()
    }
    carry, kept = jax.lax.fori_loop(0, thin, sweep, (carry, blank))
    kept["acceptance_rate"] = kept["acceptance_rate"] / thin
    return carry, kept | {"diverging": kept["diverging"] > 0}


def _scanned(
    key: Any, target: Any, tuned: EnsembleTuning, carry: Carry, n: int
) -> tuple[Carry, dict[str, Any]]:
    """Chunk after chunk as one traced loop, with the streams that the host loop would use."""
    chunks = -(-n // CHUNK)

    def chunk(carry: Carry, i: Any) -> tuple[Carry, dict[str, Any]]:
        active = jnp.minimum(CHUNK, n - i * CHUNK)
        return _kept(key, i, target, tuned, carry, CHUNK, active)

    carry, out = jax.lax.scan(chunk, carry, jnp.arange(chunks, dtype=jnp.int32))
    return carry, {name: v.reshape(chunks * CHUNK, *v.shape[2:]) for name, v in out.items()}


def _by_chain(rows: dict[str, Any], n: int, xp: Any) -> tuple[Any, dict[str, Any]]:
    """Draws and statistics with the chain axis first, from rows [n or more, chains, ...]."""
    stats = {name: xp.swapaxes(rows[name][:n], 0, 1) for name in STATS}
    steps = xp.broadcast_to(rows["n_gradients"][:n], stats["log_density"].shape)
    return xp.swapaxes(rows["x"][:n], 0, 1), stats | {"n_gradients": steps}
