"""Divide-and-conquer SMC: populations of blocks of coordinates, merged along a binary tree.

With an anchor m (the mode) the node of a set S of coordinates targets the slice

    γ_S(x_S) = γ(x_S, m_{−S}).

A leaf is annealed from N(m_S, s_S²) to γ_S. Two nodes are merged by pairing their particles and
annealing from γ_A(x_A) γ_B(x_B) to γ_{A∪B}(x_{A∪B}) with resampling and moves, and

    Ẑ_{A∪B} = Ẑ_A Ẑ_B Π_k Σ_i W_i γ_{b_k}/γ_{b_{k−1}}.

Weights and resampling act on one node at a time, so that the error of a high-dimensional problem
with weak links between its blocks grows with the blocks and not with their product.

Temperatures, scales, steps and numbers of moves of every node are found by a pilot and kept by a
second climb with fresh particles, in which nothing depends on the particles: E[Ẑ] = Z.

Source: Lindsten, Johansen, Naesseth, Kirkpatrick, Schön, Aston & Bouchard-Côté (2017),
arXiv:1406.4993.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.contract import Contract, ProperlyWeighted
from ppcore.engine import Populated, Progress, Report
from ppcore.errors import SettingsError, UnsupportedError, did_you_mean
from ppcore.paths import Between, Tempering
from ppcore.population import Population, require_alive
from ppcore.settings import check_between, check_count
from ppcore.stages.adaptive import AdaptiveAnneal, Chosen, Front, unfinished
from ppcore.stages.tuned import Bounds
from ppcore.tuning.noise import spawned
from ppcore_smc.hmc import HMC
from ppcore_smc.laplace import approach

PROBES = 2048
MOST_LEVELS = 128
"""Temperatures of a node; a pilot that asks for more jumps from the last of them to the end."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Node:
    """Π_r γ_{S_r}(x_{S_r}) · Π_{j in no S_r} N(x_j; m_j, s_j²) on R^d, for up to two sets.

    Attributes
    ----------
    target : Target
    anchor, scale : float[d]
        m and s.
    sets : float[2, d]
        Rows of 0 and 1; a row of zeros is no set.
    """

    target: Any
    anchor: Any
    scale: Any
    sets: Any

    @property
    def dim(self) -> int:
        return int(self.target.dim)

    @property
    def has_reference(self) -> bool:
        return True

    def log_density(self, x: Any) -> Any:
        z = (x - self.anchor) / self.scale
        free = 1.0 - self.sets.sum(0)
        log_free = jnp.sum(free * (-0.5 * z**2 - jnp.log(self.scale) - 0.5 * jnp.log(2 * jnp.pi)))

        def slice_(row: Any) -> Any:
            return self.target.log_density(jnp.where(row > 0, x, self.anchor))

        terms = jax.lax.map(slice_, self.sets)
        used = self.sets.any(axis=1)
        return log_free + jnp.sum(jnp.where(used, terms, 0.0))

    def constrain(self, x: Any) -> dict[str, Any]:
        return self.target.constrain(x)


@dataclass(frozen=True)
class DivideConquer:
    """N particles for γ by merging blocks of coordinates; log Ẑ.

    Parameters
    ----------
    blocks : tuple of tuples of str, or int, optional
        The leaves: sites that belong together, or how many runs of consecutive coordinates. By
        default one leaf for every latent site, or four for a bare density.
    ess : float
        Share of the effective sample size that each temperature of a merge keeps.
    length : float
        Of HMC's trajectories in whitened time.
    pilot : bool
        Climb twice, the first time to find what the second keeps, so that E[Ẑ] = Z for any number
        of particles. Without it half the gradients, and a bias of O(1/N).
    """

    blocks: Any = None
    ess: float = 0.5
    length: float = 1.5707963
    pilot: bool = True
    default_chains = 4
    default_draws = 1024

    def __post_init__(self) -> None:
        if isinstance(self.blocks, int):
            check_count("blocks", self.blocks, 1)
        elif self.blocks is not None:
            rows = tuple(tuple(b) if not isinstance(b, str) else (b,) for b in self.blocks)
            object.__setattr__(self, "blocks", rows)
        check_between("ess", self.ess, 0, 1)
        check_between("length", self.length, 0, 1000)

    @property
    def contract(self) -> Contract:
        """Unbiased evidence only with a pilot."""
        return ProperlyWeighted() if self.pilot else self.anneal().contract

    @property
    def stage(self) -> Tree:
        """The same as a stage, anchored at the moments of the population it is given."""
        return Tree(self)

    def anneal(self) -> AdaptiveAnneal:
        """How a node is reached from its children."""
        return AdaptiveAnneal(HMC(), self.ess, length=self.length)

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` particles; see :class:`ppcore.engine.PopulationEngine`.

        Raises
        ------
        SettingsError
            ``blocks`` names a site that the target does not have, or leaves one out.
        UnsupportedError
            There is neither a mode with a definite Hessian nor a prior to find an anchor.
        PopulationError
            All weights of a merge vanish.
        """
        k_anchor, k_tree = spawned(key, 2)
        leaves = leaves_of(self.blocks, target)
        spent = [0]
        anchor, scale, note = self._anchor(k_anchor, target, spent)

        def grow(k: Any, sets: Any, x: Any, log_z: Any, plan: Levels | None) -> Any:
            node = (target, anchor, scale, sets)
            made, found, gradients = _grow(self.anneal(), k, node, x, log_z, plan)
            spent[0] += int(gradients)
            require_alive(made, "merging", None)
            report(Progress("merging", 1, 1, {}, unit="nodes"))
            return made, found

        climbs = [spawned(k, 4 * len(leaves)) for k in spawned(k_tree, 2)]
        population = _climbs(climbs, self.pilot, leaves, anchor, scale, n, grow)
        return Populated(population, spent[0], None, {}, (f"{len(leaves)} leaves. {note}",))

    def _anchor(self, key: Any, target: Any, spent: list[int]) -> tuple[Any, Any, str]:
        try:
            found = approach(key, target)
        except UnsupportedError:
            if not target.has_reference:
                raise
            x = np.asarray(target.sample_reference(key, PROBES))
            return x.mean(0), x.std(0) + 1e-6, "Anchored at the mean of the prior."
        spent[0] += found.gradients
        law = found.target.source
        scale = np.sqrt(np.sum(np.square(np.asarray(law.factor)), axis=1))
        return np.asarray(law.mean), scale, "Anchored at a mode."


@dataclass(frozen=True)
class Tree:
    """:class:`DivideConquer` from source to target, with anchors from the population's moments."""

    engine: DivideConquer

    @property
    def contract(self) -> Contract:
        return self.engine.contract

    def __call__(self, key: Any, source: Any, target: Any, population: Population) -> Population:
        leaves, stage = leaves_of(self.engine.blocks, target), self.engine.anneal()
        anchor, scale = population.x.mean(0), population.x.std(0) + 1e-6

        def grow(k: Any, sets: Any, x: Any, log_z: Any, plan: Levels | None) -> Any:
            node = (target, anchor, scale, jnp.asarray(sets))
            return grown(stage, k, node, x, log_z, plan)[:2]

        climbs = [list(jax.random.split(k, 4 * len(leaves))) for k in jax.random.split(key)]
        return _climbs(climbs, self.engine.pilot, leaves, anchor, scale, population.size, grow)


def leaves_of(blocks: Any, target: Any) -> list[np.ndarray]:
    """Each leaf's coordinates as a row of 0 and 1: float[d]."""
    d, slices = int(target.dim), getattr(target, "site_slices", {})
    if blocks is None and slices:
        rows: list[Any] = [(site,) for site in slices]
    elif blocks is None or isinstance(blocks, int):
        count = min(4 if blocks is None else blocks, d)
        return [np.isin(np.arange(d), part) * 1.0 for part in np.array_split(np.arange(d), count)]
    else:
        rows = list(blocks)
    found, left = [], set(slices)
    for row in rows:
        mask = np.zeros(d)
        for site in row:
            if site not in left:
                hint = did_you_mean(site, slices) if site not in slices else "It stands twice."
                raise SettingsError(f"blocks: no latent site {site!r} is left. {hint}")
            left.remove(site)
            mask[slices[site]] = 1.0
        found.append(mask)
    if left:
        raise SettingsError(
            f"blocks leaves out the site {sorted(left)[0]!r}; name every site once."
        )
    return [mask for mask in found if mask.any()]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Levels:
    """What one climb of a node found, for another to keep; a leading axis of ``MOST_LEVELS``.

    Attributes
    ----------
    beta, log_step, moves : float[·], float[·], int[·]
    about : Spread
        Scales of the moves.
    """

    beta: Any
    about: Any
    log_step: Any
    moves: Any


Grow = Callable[[Any, Any, Any, Any, "Levels | None"], Any]


def _climbs(
    keys: Any, pilot: bool, leaves: list[np.ndarray], anchor: Any, scale: Any, n: int, grow: Grow
) -> Population:
    plans: list[Any] | None = None
    if pilot:
        _, plans = _climb(keys[0], leaves, anchor, scale, n, grow, None)
    return _climb(keys[1], leaves, anchor, scale, n, grow, plans)[0]


def _climb(
    keys: Any,
    leaves: list[np.ndarray],
    anchor: Any,
    scale: Any,
    n: int,
    grow: Grow,
    plans: list[Any] | None,
) -> tuple[Population, list[Any]]:
    """Leaves, then merges of neighbours until one node is left; and what each node found."""
    d, none = len(leaves[0]), np.zeros(len(leaves[0]))
    at, known, noted = iter(keys), iter(plans or ()), []

    def fresh() -> Any:
        z = jax.random.normal(next(at), (n, d), jnp.result_type(float))
        return anchor + scale * z

    def node(sets: list[Any], x: Any, log_z: Any) -> Population:
        made, found = grow(next(at), np.stack(sets), x, log_z, next(known, None))
        noted.append(found)
        return made  # type: ignore[no-any-return]

    zero = jnp.zeros(())
    nodes = [(mask, node([[none, none], [mask, none]], fresh(), zero)) for mask in leaves]
    while len(nodes) > 1:
        merged = []
        for i in range(0, len(nodes) - 1, 2):
            (a, left), (b, right) = nodes[i], nodes[i + 1]
            # Pairs at random; populations of different nodes are independent.
            other = jax.random.permutation(next(at), right.x)
            x = jnp.where(a > 0, left.x, jnp.where(b > 0, other, fresh()))
            both = node([[a, b], [a + b, none]], x, left.log_z + right.log_z)
            merged.append((a + b, both))
        nodes = merged + nodes[2 * len(merged) :]
    return nodes[0][1], noted


def grown(
    stage: AdaptiveAnneal, key: Any, node: tuple[Any, ...], x: Any, log_z: Any, plan: Levels | None
) -> tuple[Population, Levels | None, Any]:
    """Anneal ``x`` from the node of ``sets[0]`` to that of ``sets[1]``, by ``plan`` if given.

    Parameters
    ----------
    node : (Target, float[d], float[d], float[2, 2, d])
        Target, anchor, scale and sets.

    Returns
    -------
    The population, what was found where there was no plan, and the gradients.
    """
    target, anchor, scale, sets = node
    source, end = (Node(target, anchor, scale, sets[i]) for i in range(2))
    path = stage.path(Tempering(Between(source, end)))
    start = Population(x, jnp.zeros(x.shape[0], x.dtype), jnp.asarray(log_z, x.dtype))
    front = stage.begin(path, start)
    if plan is not None:
        done = jax.lax.while_loop(unfinished, partial(_kept, stage, key, path, plan), front)
        return done.population, None, done.gradients
    step = partial(_found, stage, key, path)
    one = jax.eval_shape(lambda f: step(f)[1], front)
    empty = jax.tree.map(lambda leaf: jnp.zeros((MOST_LEVELS, *leaf.shape), leaf.dtype), one)

    def advance(carry: tuple[Front, Levels]) -> tuple[Front, Levels]:
        after, level = step(carry[0])
        place = carry[0].count
        return after, jax.tree.map(lambda all_, leaf: all_.at[place].set(leaf), carry[1], level)

    def going(carry: tuple[Front, Levels]) -> Any:
        return unfinished(carry[0]) & (carry[0].count < MOST_LEVELS)

    done, levels = jax.lax.while_loop(going, advance, (front, empty))
    last = jnp.arange(MOST_LEVELS) >= done.count - 1
    return done.population, replace(levels, beta=jnp.where(last, 1.0, levels.beta)), done.gradients


def _found(stage: AdaptiveAnneal, key: Any, path: Any, front: Front) -> tuple[Front, Levels]:
    chosen: Chosen = stage.choose(key, path.gauge, front)
    after = stage.move_all(key, path, front, chosen, None)
    return after, Levels(after.beta, chosen.about, after.log_step, after.moves)


def _kept(stage: AdaptiveAnneal, key: Any, path: Any, plan: Levels, front: Front) -> Front:
    level: Levels = jax.tree.map(lambda leaf: leaf[front.count], plan)
    chosen = stage.rechosen(key, path.gauge, front, level.beta, level.about)
    rule = Bounds(level.moves, level.moves, np.float32(1.0), np.float32(0.0))
    front = replace(front, log_step=level.log_step)
    return stage.move_all(key, path, front, chosen, None, rule)


@partial(jax.jit, static_argnums=0)
def _grow(stage: AdaptiveAnneal, *arguments: Any) -> tuple[Population, Levels | None, Any]:
    return grown(stage, *arguments)
