"""The no-U-turn sampler as a finite-state machine: each iteration, one leapfrog a chain.

Chains never wait for one another's trees. A chain's outcome depends on its own momenta, its own
uniforms (one triple for each iteration) and nothing else, and it makes exactly as many transitions
as it is asked for, so stopping times bias nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppcore.tuning.preconditioner import Preconditioner
from ppcore_mcmc.leapfrog import Phase, leapfrog, log_joint

DIVERGENCE = 1000.0


class Point(NamedTuple):
    """A state that can be returned; x, gradient, force: float[chains, d]; log_density: [chains]."""

    x: Any
    log_density: Any
    gradient: Any
    force: Any


class Corners(NamedTuple):
    """Momenta at the corners of the current block of 2^ℓ leaves, for each level ℓ = 1, 2, …

    ``first``, ``left``, ``right``: the block's first momentum, the last of its first half and the
    first of its second half: float[levels, chains, d]; ``before``, ``middle``: sums of momenta
    before the block and up to its middle.
    """

    first: Any
    left: Any
    right: Any
    before: Any
    middle: Any


class Tree(NamedTuple):
    """Everything about each chain's transition in progress; leading axis: chains.

    ``start``: the next iteration draws a momentum first. ``t``: transitions done. ``depth``:
    doublings done. ``leaf``: leaves of the doubling in progress. ``forward``: its direction.
    ``backward_edge``, ``forward_edge``: the trajectory's ends. ``now``: where the integrator is.
    ``chosen`` / ``candidate``: the multinomial draws of the tree / the doubling, with
    ``log_weight`` / ``candidate_weight``: log Σ exp(H₀ − H), and ``energy`` /
    ``candidate_energy``. ``total`` / ``partial``: sums of momenta. ``joint``: −H₀.
    ``acceptance``: Σ min(1, exp(H₀ − H)) over ``leaves`` leaves.
    """

    start: Any
    t: Any
    depth: Any
    leaf: Any
    forward: Any
    backward_edge: Phase
    forward_edge: Phase
    now: Phase
    chosen: Point
    candidate: Point
    log_weight: Any
    candidate_weight: Any
    total: Any
    partial: Any
    corners: Corners
    joint: Any
    acceptance: Any
    leaves: Any
    energy: Any
    candidate_energy: Any


def pick(mask: Any, a: Any, b: Any) -> Any:
    """``a`` where ``mask`` (bool[chains]) else ``b``, for trees of arrays led by chains."""
    return jax.tree.map(
        lambda u, v: jnp.where(mask.reshape(mask.shape + (1,) * (u.ndim - mask.ndim)), u, v), a, b
    )


def _turned(total: Any, first: Any, last: Any) -> Any:
    """ρ·z₋ ≤ 0 or ρ·z₊ ≤ 0 over the last axis: going on would bring the ends closer."""
    return (jnp.sum(total * first, -1) <= 0) | (jnp.sum(total * last, -1) <= 0)


def turned(total: Any, left: Any, right: Any, ends: tuple[Any, Any, Any, Any]) -> Any:
    """The generalised U-turn of a tree and of each half extended by the other's nearest leaf.

    ``total``, ``left``, ``right``: sums of momenta of the tree and its halves; ``ends``: the
    momenta first, last of the left half, first of the right half, last.

    Source: Betancourt 2013, arXiv:1304.1920; the checks across halves as in Stan since 2.21.
    """
    first, left_last, right_first, last = ends
    return (
        _turned(total, first, last)
        | _turned(left + right_first, first, right_first)
        | _turned(right + left_last, left_last, last)
    )


def at_rest(x: Any, log_density: Any, gradient: Any, levels: int, xp: Any = jnp) -> Tree:
    """Chains about to draw a momentum at ``x``: float[chains, d]; arrays of module ``xp``."""
    chains = x.shape[0]
    zeros, scalar = xp.zeros_like(x), xp.zeros(chains, x.dtype)
    whole, yes = xp.zeros(chains, xp.int32), xp.ones(chains, bool)
    phase = Phase(x, zeros, log_density, gradient, zeros)
    point = Point(x, log_density, gradient, zeros)
    corners = Corners(*(xp.zeros((levels, *x.shape), x.dtype) for _ in range(5)))
    return Tree(
        start=yes,
        t=whole,
        depth=whole,
        leaf=whole,
        forward=yes,
        backward_edge=phase,
        forward_edge=phase,
        now=phase,
        chosen=point,
        candidate=point,
        log_weight=scalar,
        candidate_weight=scalar,
        total=zeros,
        partial=zeros,
        corners=corners,
        joint=scalar,
        acceptance=scalar,
        leaves=whole,
        energy=scalar,
        candidate_energy=scalar,
    )


def _open(tree: Tree, momentum: Any, uniform: Any) -> Tree:
    """Start a transition where one is due, and a doubling where the last is complete."""
    here = Phase(
        tree.chosen.x, momentum, tree.chosen.log_density, tree.chosen.gradient, tree.chosen.force
    )
    fresh, zero = tree.start, jnp.zeros_like(tree.joint)
    joint = jnp.where(fresh, log_joint(here), tree.joint)
    backward_edge = pick(fresh, here, tree.backward_edge)
    forward_edge = pick(fresh, here, tree.forward_edge)
    doubling = fresh | (tree.leaf == 0)
    forward = jnp.where(doubling, uniform < 0.5, tree.forward)
    edge = pick(forward, forward_edge, backward_edge)
    return tree._replace(
        start=jnp.zeros_like(fresh),
        depth=jnp.where(fresh, 0, tree.depth),
        leaf=jnp.where(fresh, 0, tree.leaf),
        forward=forward,
        backward_edge=backward_edge,
        forward_edge=forward_edge,
        now=pick(doubling, edge, tree.now),
        log_weight=jnp.where(fresh, zero, tree.log_weight),
        candidate_weight=jnp.where(doubling, -jnp.inf, tree.candidate_weight),
        total=pick(fresh, momentum, tree.total),
        partial=pick(doubling, jnp.zeros_like(momentum), tree.partial),
        joint=joint,
        acceptance=jnp.where(fresh, zero, tree.acceptance),
        leaves=jnp.where(fresh, 0, tree.leaves),
        energy=jnp.where(fresh, -joint, tree.energy),
    )


def _mark(corners: Corners, tree: Tree, z: Any, partial: Any) -> tuple[Corners, Any]:
    """Record the new leaf in every block it bounds; whether a block that it completes turned."""
    levels = corners.first.shape[0]
    size = 2 ** jnp.arange(1, levels + 1, dtype=jnp.int32)[:, None]
    place = tree.leaf[None, :] & (size - 1)

    def put(where: Any, new: Any, old: Any) -> Any:
        return jnp.where(where[..., None], new[None], old)

    corners = Corners(
        first=put(place == 0, z, corners.first),
        left=put(place == size // 2 - 1, z, corners.left),
        right=put(place == size // 2, z, corners.right),
        before=put(place == 0, partial - z, corners.before),
        middle=put(place == size // 2 - 1, partial, corners.middle),
    )
    left, right = corners.middle - corners.before, partial[None] - corners.middle
    ends = (corners.first, corners.left, corners.right, jnp.broadcast_to(z, left.shape))
    level = jnp.arange(1, levels + 1)[:, None]
    complete = (place == size - 1) & (level <= tree.depth[None, :])
    return corners, jnp.any(complete & turned(left + right, left, right, ends), axis=0)


def advance(
    target: Any,
    tuned: tuple[Preconditioner, Any],
    tree: Tree,
    momentum: Any,
    uniforms: Any,
    active: Any,
    limit: int,
) -> tuple[Tree, Any, dict[str, Any]]:
    """One leapfrog of every chain: ``(tree, ended, statistics of the transition if it ended)``.

    Multinomial sampling within a doubling, biased progressive sampling between doublings.

    Parameters: ``tuned``: F and ε; ``momentum``: float[chains, d], N(0, I), used where one starts;
    ``uniforms``: float[chains, 3] for the direction, the leaf and the doubling; ``active``:
    bool[chains], the others stay where they are; ``limit``: the maximal depth.

    Source: Hoffman & Gelman 2014, arXiv:1111.4246; Betancourt 2017, arXiv:1701.02434.
    """
    precondition, step_size = tuned
    tree = _open(tree, momentum, uniforms[:, 0])
    signed = jnp.where(tree.forward, step_size, -step_size)[:, None]
    now = leapfrog(target, precondition, tree.now, signed)
    after = log_joint(now)
    gain = jnp.where(after == -jnp.inf, -jnp.inf, after - tree.joint)
    diverging = ~(gain > -DIVERGENCE)
    weight = jnp.logaddexp(tree.candidate_weight, gain)
    take = jnp.log1p(-uniforms[:, 1]) < gain - weight
    take = take | (tree.leaf == 0)
    point = Point(now.x, now.log_density, now.gradient, now.force)
    partial = tree.partial + now.z
    corners, turning = _mark(tree.corners, tree, now.z, partial)
    tree = tree._replace(
        now=now,
        candidate=pick(take, point, tree.candidate),
        candidate_energy=jnp.where(take, -after, tree.candidate_energy),
        candidate_weight=weight,
        partial=partial,
        corners=corners,
        leaf=tree.leaf + 1,
        acceptance=tree.acceptance + jnp.exp(jnp.minimum(gain, 0.0)),
        leaves=tree.leaves + 1,
    )
    complete = (tree.leaf == 1 << tree.depth) & ~diverging & ~turning & active
    tree, turned_whole = _join(tree, complete, uniforms[:, 2])
    ended = diverging | turning | (complete & (turned_whole | (tree.depth >= limit)))
    stats = {
        "log_density": tree.chosen.log_density,
        "acceptance_rate": tree.acceptance / tree.leaves,
        "energy": tree.energy,
        "diverging": diverging,
        "tree_depth": tree.depth,
        "n_gradients": tree.leaves,
    }
    ended = ended & active
    return tree._replace(start=ended | ~active, t=tree.t + ended), ended, stats


def _join(tree: Tree, complete: Any, uniform: Any) -> tuple[Tree, Any]:
    """Add the doubling to the trajectory where it is ``complete``; whether the whole turned."""
    swap = complete & (jnp.log1p(-uniform) < tree.candidate_weight - tree.log_weight)
    near = pick(tree.forward, tree.forward_edge.z, tree.backward_edge.z)
    far = pick(tree.forward, tree.backward_edge.z, tree.forward_edge.z)
    total = tree.total + tree.partial
    ends = (far, near, tree.corners.first[-1], tree.now.z)
    turned_whole = turned(total, tree.total, tree.partial, ends)
    joined = tree._replace(
        depth=tree.depth + complete,
        leaf=jnp.where(complete, 0, tree.leaf),
        backward_edge=pick(complete & ~tree.forward, tree.now, tree.backward_edge),
        forward_edge=pick(complete & tree.forward, tree.now, tree.forward_edge),
        chosen=pick(swap, tree.candidate, tree.chosen),
        energy=jnp.where(swap, tree.candidate_energy, tree.energy),
        log_weight=jnp.where(
            complete, jnp.logaddexp(tree.log_weight, tree.candidate_weight), tree.log_weight
        ),
        total=pick(complete, total, tree.total),
    )
    return joined, turned_whole
