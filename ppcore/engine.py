"""Engines: what a user names in ``infer``. Warm-up and sampling are separate on purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from ppcore.contract import Contract
from ppcore.exact.protocol import Solution


@dataclass(frozen=True)
class Progress:
    """One report of an engine at work; ``run`` renders it.

    ``phase`` is "warmup" or "sampling"; ``done`` and ``total`` count draws per chain;
    ``fields`` hold what to show: per-chain arrays (e.g. ``divergences``: int[chains],
    ``step_size``: float[chains] or float[]) or scalars.
    """

    phase: str
    done: int
    total: int
    fields: dict[str, Any] = field(default_factory=dict)


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Warm:
    """What a warm-up leaves: frozen parameters, start positions, and what it cost.

    Attributes
    ----------
    tuned : pytree
        Parameters for ``init`` and ``block``; never changed afterwards.
    x : float[chains, d]
        Positions to start from.
    gradients : int
        Gradient evaluations spent, all chains together.
    notes : tuple of str
        What the user should know (e.g. "a Laplace start was abandoned: ...").
    """

    tuned: Any
    x: Any
    gradients: int = 0
    notes: tuple[str, ...] = ()


@runtime_checkable
class Engine(Protocol):
    """A sampler of a target, for many chains at once.

    Constructor arguments are the algorithm's parameters; run settings (draws, chains, seed,
    progress) belong to ``infer``. ``init`` and ``block`` are pure and traceable: they work under
    ``jax.jit`` and under ``jax.vmap`` over a batch of targets. ``warmup`` may run on the host.

    Attributes
    ----------
    contract : Contract
        What ``block`` promises for fixed ``tuned``.
    default_chains, default_draws : int
        Used when ``infer`` is not told.
    compiled : bool, optional
        True if ``init`` and ``block`` compile what they need themselves, so that warm-up and
        sampling share one program; they are then called with arrays as they are. Without it,
        ``run`` compiles them.
    block_size : int, optional
        Draws per call of ``block`` that suit the engine; ``run`` chooses otherwise.
    """

    contract: Contract
    default_chains: int
    default_draws: int

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        """Find start positions and tuning; nothing adapts afterwards.

        Raises :class:`ppcore.errors.StartError` if no finite log density is found.
        """
        ...

    def init(self, key: Any, target: Any, tuned: Any, x: Any) -> Any:
        """The carry at positions ``x``: float[chains, d]; caches are computed here."""
        ...

    def block(
        self, key: Any, target: Any, tuned: Any, carry: Any, n: int
    ) -> tuple[Any, Any, dict[str, Any]]:
        """``n`` transitions of every chain: ``(carry, draws, stats)``.

        draws: float[chains, n, d]; stats: name -> array[chains, n]. Engines report at least
        ``log_density``, ``acceptance_rate``, ``diverging`` and ``n_gradients`` where they apply.
        """
        ...


@runtime_checkable
class DirectEngine(Protocol):
    """An engine that draws independent values of the sites themselves, whatever their spaces.

    It has no start, no warm-up and no chain: ``infer`` calls :meth:`solve` once and then
    ``solution.sample(key, n)`` for the draws, integer sites included; ``solution.log_evidence`` and
    ``solution.marginal(site)`` are kept beside them.

    Attributes
    ----------
    contract : Contract
        ``Density()``: the draws follow the stated law.
    default_draws : int
        Used when ``infer`` is not told.
    """

    contract: Contract
    default_draws: int

    def solve(self, target: Any) -> Solution:
        """The posterior of a model's target (``joint``, ``data``, ``observed``, ``evidence``).

        Raises :class:`ppcore.exact.protocol.NotExact` with the box in the way.
        """
        ...
