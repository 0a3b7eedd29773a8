"""Any kernel as an engine: chains in lockstep, one shared warm-up, one compiled program."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.contract import Contract
from ppcore.engine import Progress, Report, Warm
from ppcore.errors import CompositionError, StartError
from ppcore.kernel import check_kernel, check_target, keeps_finite, needs, step_rules, tunable
from ppcore.labelled_target import LabelledTarget
from ppcore.settings import check_between, check_count, check_metric
from ppcore.target import value_and_gradient
from ppcore.tuning.adapt import Adapted, Schedule, warm_up
from ppcore.tuning.metric import RANK
from ppcore.tuning.noise import is_traced, spawned
from ppcore.tuning.preconditioner import Preconditioner

CHUNK = 16
BATCH = 256
APART = 100.0
MOST_THIN = 8
MOST_THIN_BLIND = 48
# How a draw that is several transitions reports them; all else is that of the last.
MEAN, SUM, ANY = ("acceptance_rate",), ("n_gradients",), ("diverging",)
# What the warm-up looks at, and statistics leave out.
SEVERAL = ("acceptance_rates",)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tuning:
    """What the warm-up of :class:`KernelEngine` freezes.

    Attributes
    ----------
    params : pytree
        The kernel's parameters, shared by all chains.
    thin : int[]
        Transitions that make one draw.
    """

    params: Any
    thin: Any

    @property
    def step_size(self) -> Any:
        """The step size among the parameters, where they name one."""
        params = self.params
        if isinstance(params, dict):
            return params.get("step_size")
        return getattr(params, "step_size", None)


@partial(jax.jit, static_argnames=("kernel",))
def started(kernel: Any, key: Any, target: Any, params: Any, x: Any) -> Any:
    """The states at ``x``: float[chains, d], caches included."""
    keys = jax.random.split(key, x.shape[0])
    state = jax.vmap(kernel.init, (0, None, 0, None))(keys, target, x, params)
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), state)


@partial(jax.jit, static_argnames=("kernel", "slots"))
def transitions(
    kernel: Any, key: Any, target: Any, tuned: Tuning, state: Any, at: tuple[Any, Any], slots: int
) -> tuple[Any, dict[str, Any]]:
    """Draws ``at[0]``, …, ``at[0] + at[1] − 1`` of a block, each ``tuned.thin`` transitions.

    Draw i uses the keys fold_in(fold_in(key, i), j) for its transitions j, whatever chunk it is
    made in. The only program here that moves; slots beyond ``at[1]`` are left empty. Rows hold
    ``x``, the cached ``gradient`` and ``log_density``, and all scalars of the kernel's info.
    """
    first, active = at
    chains = state.x.shape[0]

    def move(key: Any, state: Any) -> tuple[Any, dict[str, Any]]:
        keys = jax.random.split(key, chains)
        new, info = jax.vmap(kernel.step, (0, None, 0, None))(keys, target, state, tuned.params)
        strong = jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), new, state)
        return strong, {n: v for n, v in info.items() if jnp.ndim(v) == 1 or n in SEVERAL}

    shapes = jax.eval_shape(move, key, state)[1]
    zero = {name: jnp.zeros(v.shape, _summed(v.dtype, name)) for name, v in shapes.items()}

    def draw(i: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        state, rows = carry
        own = jax.random.fold_in(key, first + i)

        def once(j: Any, inner: tuple[Any, Any]) -> tuple[Any, Any]:
            state, before = inner
            state, info = move(jax.random.fold_in(own, j), state)
            return state, {name: _gather(name, before[name], v) for name, v in info.items()}

        state, info = jax.lax.fori_loop(0, tuned.thin, once, (state, zero))
        row = _row(state, info)
        return state, {name: rows[name].at[i].set(value) for name, value in row.items()}

    blank = jax.tree.map(
        lambda v: jnp.zeros((slots, *v.shape), v.dtype), jax.eval_shape(_row, state, zero)
    )
    state, rows = jax.lax.fori_loop(0, active, draw, (state, blank))
    for name in MEAN:
        if name in rows:
            rows[name] = rows[name] / tuned.thin
    return state, rows


def _row(state: Any, info: dict[str, Any]) -> dict[str, Any]:
    cached = {n: getattr(state, n) for n in ("gradient", "log_density") if hasattr(state, n)}
    return cached | info | {"x": state.x}


def _summed(dtype: Any, name: str) -> Any:
    return jnp.result_type(float) if name in MEAN else dtype


def _gather(name: str, before: Any, value: Any) -> Any:
    if name in MEAN or name in SUM:
        return before + value.astype(before.dtype)
    return before | value if name in ANY else value


@partial(jax.jit, static_argnames=("gradient",))
def evaluated(target: Any, x: Any, gradient: bool) -> tuple[Any, Any]:
    """log γ, and its gradient if asked for, at each row of ``x``: float[N, d]."""
    if gradient:
        return value_and_gradient(target, x)
    return jax.vmap(lambda t, v: t.log_density(v), (None, 0))(target, x), None


class Chains:
    """The chains of a warm-up on the device, seen from the host (an ``adapt.Machine``)."""

    def __init__(self, engine: KernelEngine, key: Any, target: Any, chains: int) -> None:
        self.engine, self.target, self.chains = engine, target, chains
        self.key, self.init_key = spawned(key, 2)
        self.dtype = np.dtype(jnp.result_type(float))
        self.rounds = self.gradients = 0
        self.state: Any = None
        self.blind = "gradient" not in needs(engine.kernel)

    @property
    def x(self) -> np.ndarray:
        """Where the chains are: float[chains, d]."""
        return np.asarray(self.state.x)

    def evaluate(self, precondition: Preconditioner, x: np.ndarray) -> tuple[Any, Any]:
        """log γ and, if the kernel uses it, its gradient at each row of ``x``: float[N, d]."""
        size = BATCH if self.blind else self.chains
        padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % size, axis=0)])
        parts = [
            evaluated(self.target, part, not self.blind)
            for part in padded.astype(self.dtype).reshape(-1, size, x.shape[1])
        ]
        log_density = np.concatenate([np.asarray(value) for value, _ in parts])[: len(x)]
        if self.blind:
            return log_density, None
        self.gradients += len(padded)
        return log_density, np.concatenate([np.asarray(g) for _, g in parts])[: len(x)]

    def place(self, precondition: Preconditioner, x: np.ndarray) -> None:
        """Put the chains at ``x``: float[chains, d]."""
        ones = self.engine.ones(self.dtype)
        self.put(self.engine.parameters(self.target, precondition, ones, 1.0), x)

    def put(self, params: Any, x: np.ndarray) -> None:
        """As :meth:`place`, with the kernel's parameters given."""
        self.init_key, now = spawned(self.init_key, 2)
        start = np.asarray(x, self.dtype)
        self.state = started(self.engine.kernel, now, self.target, params, start)

    def advance(
        self, precondition: Preconditioner, step: Any, length: float, n: int
    ) -> dict[str, np.ndarray]:
        """``n`` draws of every chain, one transition each."""
        step = np.asarray(step, self.dtype)[()]
        return self.run(self.engine.parameters(self.target, precondition, step, length), n)

    def run(self, params: Any, n: int) -> dict[str, np.ndarray]:
        """As :meth:`advance`, with the kernel's parameters given."""
        tuned, parts = Tuning(params, np.int32(1)), []
        for active in [CHUNK] * (n // CHUNK) + [n % CHUNK] * (n % CHUNK > 0):
            at = np.int32(self.rounds * CHUNK), np.int32(active)
            self.state, rows = transitions(
                self.engine.kernel, self.key, self.target, tuned, self.state, at, CHUNK
            )
            self.rounds += 1
            parts.append({name: np.asarray(value)[:active] for name, value in rows.items()})
        rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        shape = rows["x"].shape[:2]
        spent = rows.get("n_gradients", np.full(shape, 0 if self.blind else 1))
        self.gradients += int(spent.sum())
        rest = {"log_density": 0.0, "acceptance_rate": 1.0, "diverging": False}
        blank = {name: np.full(shape, value) for name, value in rest.items()}
        return blank | rows | {"n_gradients": spent}

    def copy(self, source: np.ndarray) -> None:
        """Chain i goes on from where chain ``source[i]`` is."""
        self.state = jax.tree.map(lambda leaf: np.asarray(leaf)[source], self.state)


@dataclass(frozen=True)
class KernelEngine:
    """Runs ``kernel`` with many chains in lockstep, tuned together; promises what it promises.

    A draw is the last of ``tuned.thin`` transitions x' ~ K(x, ·; params) of the kernel, with
    parameters that the warm-up froze. The warm-up is that of :mod:`ppcore.tuning.adapt`: starts
    from a climb (or, for a kernel that needs no gradient, from Gaussians fitted to weighted
    draws), a step size for the acceptance rate, and a preconditioner from pooled draws and
    gradients. A kernel without ``parameters`` is not tuned: it starts from reference draws and
    runs for ``warmup_draws`` transitions.

    Parameters
    ----------
    kernel : Kernel
        Static and hashable; see :class:`ppcore.kernel.Kernel` for what it may declare.
    warmup_draws : int
        Draws per chain to adapt with, from scattered starts; half as many from a good start.
    max_warmup_draws : int
        Adaptation goes on until the chains have settled, up to here.
    target_accept : float, optional
        Mean acceptance probability to tune the step size for; by default the kernel's.
    length : float
        First trajectory length in whitened time, for kernels that have one.
    learn_length : bool, optional
        Whether warm-up may lengthen it; by default, whether the kernel says so.
    metric : str
        "auto", "dense", "low_rank" or "diagonal".
    rank : int
        Directions of a low-rank metric.
    most_thin : int, optional
        The most transitions that may make one draw; by default 8, or 48 without gradients.
    default_chains, default_draws : int
        Used when ``infer`` is not told.

    Raises
    ------
    ppcore.errors.CompositionError
        If ``kernel`` is not one; in ``warmup`` and ``init``, if the target lacks what it needs.
    ppcore.errors.SettingsError
        If a parameter is out of range.

    Source: Neal 2011, arXiv:1206.1901 (tuning by acceptance); Roberts & Rosenthal 2001,
    doi:10.1214/ss/1015346320 (optimal acceptance rates).
    """

    kernel: Any
    warmup_draws: int = 320
    max_warmup_draws: int = 1280
    target_accept: float | None = None
    length: float = 1.5707963
    learn_length: bool | None = None
    metric: str = "auto"
    rank: int = RANK
    most_thin: int | None = None
    default_chains: int = 64
    default_draws: int = 400
    compiled: ClassVar[bool] = True
    block_size: ClassVar[int] = 5 * CHUNK

    def __post_init__(self) -> None:
        check_kernel(self.kernel, "KernelEngine")
        check_count("warmup_draws", self.warmup_draws, 16)
        check_count("max_warmup_draws", self.max_warmup_draws, self.warmup_draws)
        if self.target_accept is not None:
            check_between("target_accept", self.target_accept, 0, 1)
        check_between("length", self.length, 0, 1000)
        check_metric(self.metric, self.rank)
        power = getattr(self.kernel, "power", 1.0)
        if power != 1.0:
            raise CompositionError(
                f"{type(self.kernel).__name__} leaves the target to the power {power:g} invariant, "
                "not the target. Correct it with Metropolise(...)."
            )
        if self.most_thin is not None:
            check_count("most_thin", self.most_thin, 1)
        check_count("default_chains", self.default_chains, 1)
        check_count("default_draws", self.default_draws, 1)

    @property
    def contract(self) -> Contract:
        """That of the kernel."""
        return self.kernel.contract  # type: ignore[no-any-return]

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """Fields of the state that are random variables of their own."""
        return tuple(getattr(self.kernel, "auxiliary", ()))

    def parameters(
        self, target: Any, precondition: Preconditioner | None, step: Any, length: float
    ) -> Any:
        """The kernel's parameters for what a warm-up found, as arrays."""
        if not hasattr(self.kernel, "parameters"):
            return ()
        found: tuple[Any, ...] = (precondition, step, np.asarray(step).dtype.type(length))
        if hasattr(self.kernel, "step_rules"):
            found = (*found, target)
        return jax.tree.map(np.asarray, self.kernel.parameters(*found))

    def ones(self, dtype: Any) -> Any:
        """Step sizes of 1, as the kernel takes them."""
        several = hasattr(self.kernel, "step_rules")
        return np.ones(len(step_rules(self.kernel)) if several else (), dtype)[()]

    def target_for(self, target: Any) -> Any:
        """The target that the kernel moves on: with finite sites kept, if it draws them."""
        labels = getattr(target, "labels", ())
        return LabelledTarget(target) if keeps_finite(self.kernel) and labels else target

    def schedule(self) -> Schedule:
        """How long to warm up, and what for."""
        kernel, blind = self.kernel, "gradient" not in needs(self.kernel)
        rules, several = step_rules(kernel), hasattr(kernel, "step_rules")
        if self.target_accept is not None:
            rules = tuple(replace(rule, target_accept=self.target_accept) for rule in rules)
        thin = self.most_thin
        if thin is None:
            thin = MOST_THIN_BLIND if blind else MOST_THIN
        learn = self.learn_length
        return Schedule(
            self.warmup_draws,
            self.max_warmup_draws,
            CHUNK,
            None if several else rules[0].target_accept,
            self.length,
            bool(getattr(kernel, "learns_length", False)) if learn is None else learn,
            APART,
            thin,
            not blind,
            2.0 if several else rules[0].error_order,
            None if several else rules[0].first,
            rules if several else (),
        )

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        """Starts and parameters for ``chains`` chains, on the host.

        Raises :class:`ppcore.errors.StartError` if no finite log density is found.
        """
        check_target(self.kernel, target)
        machine_key, start_key = spawned(key, 2)
        machine = Chains(self, machine_key, target, chains)
        if not tunable(self.kernel):
            return _burnt_in(machine, start_key, self.warmup_draws, report)
        end = warm_up(
            machine, start_key, target, chains, self.metric, self.rank, self.schedule(), report
        )
        return Warm(self.tuning(end, machine), machine.x, machine.gradients, tuple(end.notes))

    def tuning(self, end: Adapted, machine: Chains) -> Tuning:
        """What is frozen at the end of a warm-up."""
        step = np.asarray(end.step.final, machine.dtype)[()]
        found = self.parameters(machine.target, end.precondition, step, end.length.best)
        return Tuning(found, np.int32(end.thin))

    def init(self, key: Any, target: Any, tuned: Tuning, x: Any) -> Any:
        """The states at ``x``: float[chains, d], with the kernel's caches."""
        check_target(self.kernel, target)
        return started(self.kernel, key, target, tuned.params, x)

    def block(
        self, key: Any, target: Any, tuned: Tuning, carry: Any, n: int
    ) -> tuple[Any, Any, dict[str, Any]]:
        """``n`` draws of every chain, ``tuned.thin`` transitions each; draws: float[chains, n, d].

        Runs the warm-up's program on chunks of draws, so that no ``n`` compiles anything.
        """
        if is_traced(key, target, tuned, carry):
            at = jnp.int32(0), jnp.int32(n)
            carry, rows = transitions(self.kernel, key, target, tuned, carry, at, n)
            return carry, *_by_chain(rows, jnp)
        parts = []
        for first in range(0, n, CHUNK):
            active = min(CHUNK, n - first)
            at = np.int32(first), np.int32(active)
            carry, rows = transitions(self.kernel, key, target, tuned, carry, at, CHUNK)
            parts.append({name: np.asarray(value)[:active] for name, value in rows.items()})
        rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return carry, *_by_chain(rows, np)


def _burnt_in(machine: Chains, key: Any, draws: int, report: Report) -> Warm:
    """Reference draws after ``draws`` transitions, for a kernel that has nothing to tune."""
    target, name = machine.target, type(machine.engine.kernel).__name__
    if not target.has_reference:
        raise StartError(
            f"{name} starts from reference draws, and {type(target).__name__} has none: give "
            "every site a proper prior."
        )
    x = np.asarray(target.sample_reference(key, machine.chains))
    params = machine.engine.parameters(target, None, machine.engine.ones(machine.dtype), 1.0)
    machine.put(params, x)
    done = 0
    while done < draws:
        n = min(5 * CHUNK, draws - done)
        machine.run(params, n)
        done += n
        report(Progress("warmup", done, draws))
    return Warm(Tuning(params, np.int32(1)), machine.x, machine.gradients)


def _by_chain(rows: dict[str, Any], xp: Any) -> tuple[Any, dict[str, Any]]:
    """Draws and statistics with the chain axis first, from rows [n, chains, ...]."""
    rows = {name: xp.swapaxes(value, 0, 1) for name, value in rows.items()}
    draws = rows.pop("x")
    for name in ("gradient", *SEVERAL):
        rows.pop(name, None)
    return draws, rows
