"""NumPyro's own kernels as engines: its code for every transition, on any target of ppcore."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.contract import Consistent, Contract, Invariant
from ppcore.engine import Progress, Report, Warm
from ppcore.errors import SettingsError
from ppcore.settings import check_between, check_count
from ppcore.tuning.noise import spawned
from ppcore.tuning.start import scattered

BATCH = 64
LARGE = 2**30
"""An iteration that lies behind every warm-up."""


class Walkers(NamedTuple):
    """Positions ``x``: float[chains, d], and the state that NumPyro's kernel keeps."""

    x: Any
    state: Any


def _reseeded(state: Any, key: Any) -> Any:
    """NumPyro's state with generators of the given key, in every place that holds one."""
    keys = jax.random.split(key, 8)
    count = 0

    def visit(node: Any) -> Any:
        nonlocal count
        if not hasattr(node, "_fields"):
            return node
        new = {name: visit(getattr(node, name)) for name in node._fields}
        if "rng_key" in new:
            old = new["rng_key"]
            many = old.shape if jnp.issubdtype(old.dtype, jax.dtypes.prng_key) else old.shape[:-1]
            fresh = jax.random.split(keys[count], many) if many else keys[count]
            if not jnp.issubdtype(old.dtype, jax.dtypes.prng_key):
                fresh = jax.random.key_data(fresh)
            new["rng_key"], count = fresh, count + 1
        return type(node)(**new)

    return visit(state)


def _kernel(plan: Any, target: Any, x: Any, key: Any, tuned: Any) -> tuple[Any, Any]:
    """A kernel of NumPyro on the target, and its state at ``x``: float[chains, d]."""
    made = plan.make(lambda z: -target.log_density(z), tuned)
    words = jax.random.key_data(jax.random.split(key, len(x)))
    return made, made.init(words, plan.warmup_draws, x, (), {})


@partial(jax.jit, static_argnames=("plan",))
def _begin(plan: Any, target: Any, x: Any, key: Any, tuned: Any) -> Any:
    state = _kernel(plan, target, x, key, tuned)[1]
    return state if tuned is None else plan.restored(state, tuned, x)


@partial(jax.jit, static_argnames=("plan", "n"))
def _advance(plan: Any, target: Any, state: Any, key: Any, tuned: Any, n: int) -> Any:
    # ``init`` tells the kernel its sizes; the state it makes is not used, and so not computed.
    made_key, walk_key = jax.random.split(key)
    kernel, _ = _kernel(plan, target, state.z, made_key, tuned)

    def step(state: Any, _: Any) -> Any:
        state = kernel.sample(state, (), {})
        return state, (state.z, plan.said(state))

    state, (draws, stats) = jax.lax.scan(step, _reseeded(state, walk_key), None, length=n)
    turned = {k: jnp.moveaxis(v, 0, 1) for k, v in stats.items()}
    return state, jnp.moveaxis(draws, 0, 1), turned


@jax.jit
def _log_densities(target: Any, x: Any) -> Any:
    return jax.vmap(target.log_density)(x)


def _dealt(tuned: Any, chains: int) -> Any:
    """What m chains have tuned, for any number of them: chain i gets what chain i mod m has."""
    return jax.tree.map(lambda leaf: leaf[np.arange(chains) % len(leaf)], tuned)


class Chains:
    """What the engines of this module share: start, NumPyro's warm-up, blocks with it frozen."""

    warmup_draws: int
    compiled: ClassVar[bool] = True
    default_draws: ClassVar[int] = 1000
    block_size: ClassVar[int] = 500

    def make(self, potential: Any, tuned: Any) -> Any:
        """NumPyro's kernel for a potential −log γ; what is ``tuned`` is None in the warm-up."""
        raise SettingsError(f"{type(self).__name__} names no kernel.")

    def frozen(self, state: Any) -> Any:
        """What the warm-up has tuned."""
        return ()

    def restored(self, state: Any, tuned: Any, x: Any) -> Any:
        """A fresh state at ``x`` with what was tuned."""
        return state

    def said(self, state: Any) -> dict[str, Any]:
        """Statistics of one transition: name -> array[chains]."""
        return {}

    def enough(self, dim: int, chains: int) -> None:
        """Raise if so many chains cannot work."""

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        """``warmup_draws`` transitions of NumPyro's, which tune what it tunes.

        Raises :class:`ppcore.errors.StartError` if no finite log density is found, and
        :class:`ppcore.errors.SettingsError` for a number of chains that cannot work.
        """
        self.enough(target.dim, chains)
        host_key, prior_key, begin_key, walk_key = spawned(key, 4)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(host_key)).ravel())
        dtype = jnp.result_type(float)

        def evaluate(x: np.ndarray) -> tuple[np.ndarray, None]:
            padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % BATCH, axis=0)]).astype(dtype)
            parts = padded.reshape(-1, BATCH, x.shape[1])
            found = [np.asarray(_log_densities(target, part)) for part in parts]
            return np.concatenate(found)[: len(x)], None

        found: Any = evaluate
        x = scattered(found, rng, prior_key, target, (chains, target.dim))[0].astype(dtype)
        state = _begin(self, target, x, begin_key, None)
        state, _, stats = _advance(self, target, state, walk_key, None, self.warmup_draws)
        report(Progress("warmup", self.warmup_draws, self.warmup_draws))
        spent = int(np.sum(stats["n_gradients"])) if "n_gradients" in stats else 0
        return Warm(self.frozen(state), state.z, spent)

    def init(self, key: Any, target: Any, tuned: Any, x: Any) -> Walkers:
        """NumPyro's state at positions ``x``: float[chains, d]."""
        state = _begin(self, target, jnp.asarray(x), key, tuned)
        return Walkers(state.z, state)

    def block(
        self, key: Any, target: Any, tuned: Any, carry: Walkers, n: int
    ) -> tuple[Walkers, Any, dict[str, Any]]:
        """``n`` transitions of every chain; draws: float[chains, n, d]."""
        state, draws, stats = _advance(self, target, carry.state, key, tuned, n)
        return Walkers(state.z, state), draws, stats


@dataclass(frozen=True)
class NumPyroNUTS(Chains):
    """NumPyro's NUTS with its own windowed warm-up; K γ = γ once that is over.

    Every transition is NumPyro's, a multinomial choice along a doubled trajectory, at the step
    size and metric that its warm-up has left. Chains run side by side in one compiled program, and
    each waits for the longest trajectory; the engine ``nuts`` does not.

    Parameters
    ----------
    warmup_draws : int
    target_accept : float
        Mean acceptance probability that the step size is tuned for.
    max_depth : int
        Doublings of a trajectory, at most.
    dense : bool
        Whether the metric is a full matrix.

    Raises
    ------
    ppcore.errors.SettingsError
        If a setting is out of range.

    Source: Hoffman & Gelman 2014, arXiv:1111.4246; Betancourt 2017, arXiv:1701.02434; Phan,
    Pradhan & Jankowiak 2019, arXiv:1912.11554.

    >>> NumPyroNUTS(dense=True).contract
    Invariant(reversible=False, irreducible=True)
    """

    warmup_draws: int = 500
    target_accept: float = 0.8
    max_depth: int = 10
    dense: bool = False
    contract: ClassVar[Contract] = Invariant()
    default_chains: int = field(default=4, init=False)

    def __post_init__(self) -> None:
        check_count("warmup_draws", self.warmup_draws, 1)
        check_between("target_accept", self.target_accept, 0, 1)
        check_count("max_depth", self.max_depth, 1)

    def make(self, potential: Any, tuned: Any) -> Any:
        from numpyro.infer import NUTS

        return NUTS(
            potential_fn=potential,
            target_accept_prob=self.target_accept,
            max_tree_depth=self.max_depth,
            dense_mass=self.dense,
        )

    def frozen(self, state: Any) -> Any:
        return state.adapt_state

    def restored(self, state: Any, tuned: Any, x: Any) -> Any:
        behind = jnp.full_like(state.i, LARGE)
        return state._replace(adapt_state=_dealt(tuned, len(x)), i=behind)

    def said(self, state: Any) -> dict[str, Any]:
        return {
            "log_density": -state.potential_energy,
            "acceptance_rate": state.accept_prob,
            "diverging": state.diverging,
            "n_gradients": state.num_steps,
        }


@dataclass(frozen=True)
class NumPyroSA(Chains):
    """NumPyro's sample adaptive MCMC: each chain proposes from a Gaussian fitted to N points.

    One transition draws z ~ N(mean, covariance of the points), and leaves out one of the N + 1
    points with probability proportional to q(point | the others)/γ(point); a draw is one of those
    kept, at random. The proposal is another at every transition, so only averages are promised. No
    gradient; for some tens of dimensions at most, with a long warm-up.

    Parameters
    ----------
    warmup_draws : int
    points : int
        N; 0 is NumPyro's choice, 2 d.
    dense : bool
        Whether the covariance is full.

    Raises
    ------
    ppcore.errors.SettingsError
        If a setting is out of range.

    Source: Zhu 2019, "Sample adaptive MCMC", NeurIPS 32.

    >>> NumPyroSA(points=20).contract
    Consistent()
    """

    warmup_draws: int = 5000
    points: int = 0
    dense: bool = True
    contract: ClassVar[Contract] = Consistent()
    auxiliary: ClassVar[tuple[str, ...]] = ("points",)
    # The points are draws of one posterior: of no use on other data.
    fitted: ClassVar[bool] = True
    default_chains: int = field(default=4, init=False)
    default_draws: ClassVar[int] = 10_000

    def __post_init__(self) -> None:
        check_count("warmup_draws", self.warmup_draws, 1)
        check_count("points", self.points, 0)
        if self.points == 1:
            raise SettingsError("points=1 have no covariance: give 2 or more, or 0 for 2 d.")

    def make(self, potential: Any, tuned: Any) -> Any:
        from numpyro.infer import SA

        return SA(
            potential_fn=potential,
            # Of a line, 2 d = 2 points would be one and its proposal.
            adapt_state_size=self.points or None,
            dense_mass=self.dense,
        )

    def frozen(self, state: Any) -> Any:
        return state.adapt_state

    def restored(self, state: Any, tuned: Any, x: Any) -> Any:
        behind = jnp.full_like(state.i, LARGE)
        return state._replace(adapt_state=_dealt(tuned, len(x)), i=behind, z=x)

    def said(self, state: Any) -> dict[str, Any]:
        return {"log_density": -state.potential_energy, "acceptance_rate": state.accept_prob}
