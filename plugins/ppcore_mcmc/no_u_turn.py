"""The no-U-turn transition as a kernel of one chain, to compose with others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.contract import Contract, Invariant
from ppcore.settings import check_count
from ppcore.tuning.preconditioner import Preconditioner
from ppcore_mcmc.barker import Climbing
from ppcore_mcmc.metropolis import Step
from ppcore_mcmc.nuts_tree import Tree, advance, at_rest


class Growing(NamedTuple):
    """A tree that grows: iterations done, the tree, and what the last one said."""

    i: Any
    tree: Tree
    stats: dict[str, Any]


@dataclass(frozen=True)
class NoUTurn:
    """One transition of NUTS: multinomial draws from a trajectory that doubles until it turns.

    As the engine ``nuts``, whose iterations it shares, for one chain: use it inside Blocks, Cycle
    and other compositions. Leaves γ invariant.

    Parameters
    ----------
    max_tree_depth : int
        At most 2^max_tree_depth − 1 leapfrog steps a transition.

    Raises
    ------
    ppcore.errors.SettingsError
        If ``max_tree_depth`` is not a positive integer.

    Source: Hoffman & Gelman 2014, arXiv:1111.4246; Betancourt 2017, arXiv:1701.02434.

    >>> NoUTurn().contract
    Invariant(reversible=False, irreducible=True)
    """

    max_tree_depth: int = 10
    contract: ClassVar[Contract] = Invariant(reversible=False)
    needs: ClassVar[tuple[str, ...]] = ("gradient",)
    target_accept: ClassVar[float] = 0.8

    def __post_init__(self) -> None:
        check_count("max_tree_depth", self.max_tree_depth, 1)

    def parameters(self, preconditioner: Preconditioner, step: Any, length: Any) -> Step:
        return Step(preconditioner, step)

    def init(self, key: Any, target: Any, x: Any, params: Step) -> Climbing:
        return Climbing(x, *jax.value_and_grad(target.log_density)(x))

    def refresh(self, target: Any, state: Climbing) -> Climbing:
        return Climbing(state.x, *jax.value_and_grad(target.log_density)(state.x))

    def step(
        self, key: Any, target: Any, state: Climbing, params: Step
    ) -> tuple[Climbing, dict[str, Any]]:
        k_momentum, k_tree = random.split(key)
        x, log_density, gradient = (leaf[None] for leaf in state)
        levels, f = max(self.max_tree_depth - 1, 1), params.preconditioner
        tree = at_rest(x, log_density, gradient, levels)
        tree = tree._replace(chosen=tree.chosen._replace(force=f.pull(state.gradient)[None]))
        momentum = random.normal(k_momentum, x.shape, state.x.dtype)
        yes = jnp.ones(1, bool)

        def grow(at: Growing) -> Growing:
            u = random.uniform(jax.random.fold_in(k_tree, at.i), (1, 3), state.x.dtype)
            tuned, limit = (f, params.step_size), self.max_tree_depth
            tree, _, stats = advance(target, tuned, at.tree, momentum, u, yes, limit)
            return Growing(at.i + 1, tree, stats)

        shapes = jax.eval_shape(grow, Growing(jnp.int32(0), tree, {})).stats
        blank = {name: jnp.zeros(of.shape, of.dtype) for name, of in shapes.items()}
        end = jax.lax.while_loop(
            lambda at: at.tree.t[0] < 1, grow, Growing(jnp.int32(0), tree, blank)
        )
        x, log_density, gradient, _ = end.tree.chosen
        info = {name: value[0] for name, value in end.stats.items()}
        return Climbing(x[0], log_density[0], gradient[0]), info
