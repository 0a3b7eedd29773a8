"""Engines: what a user names in ``infer``. Warm-up and sampling are separate on purpose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ppcore.contract import Contract
from ppcore.exact.protocol import Solution

if TYPE_CHECKING:
    from ppcore.population import Population


@dataclass(frozen=True)
class Progress:
    """One report of an engine at work; ``run`` renders it.

    ``phase`` says what goes on, e.g. "warmup" or "sampling"; ``done`` and ``total`` count
    ``unit``, by default draws per chain;
    ``fields`` hold what to show: per-chain arrays (e.g. ``divergences``: int[chains],
    ``step_size``: float[chains] or float[]) or scalars.
    """

    phase: str
    done: int
    total: int
    fields: dict[str, Any] = field(default_factory=dict)
    unit: str = "draws"


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
    host : bool, optional
        True (with ``compiled``) if ``init`` and ``block`` run on the host, by a sampler of another
        project that JAX cannot trace; the checks then run them one target after another.
    coupled : bool, optional
        True if chains move each other (walkers of an ensemble): what is invariant is then the
        product of the target over all chains.
    finite : bool, optional
        True if only finite targets can be sampled; the checks then use those.
    fitted : bool, optional
        True if ``tuned`` describes a posterior as a whole (a proposal distribution), so that it is
        of no use on other data; the checks then warm up on the prior.
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


@dataclass(frozen=True)
class Populated:
    """One weighted population for the target, and what it cost.

    Attributes
    ----------
    population : Population
        x: float[n, d], log_weight: float[n], log_z: float[]; properly weighted for γ as the
        engine's contract says.
    gradients : int
        Evaluations of γ with its gradient (without one, for a method that uses none), tuning and
        the search for a reference included.
    log_z_error : float or None
        Standard error of log_z as this run alone can tell it (e.g. from the lineages).
    stats : dict of str to array[steps]
        What the engine says of each of its steps, e.g. ``temperature``, ``ess``,
        ``acceptance_rate``.
    notes : tuple of str
        What the user should know.
    """

    population: Population
    gradients: int
    log_z_error: float | None = None
    stats: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@runtime_checkable
class PopulationEngine(Protocol):
    """An engine that carries a whole population to the target at once, with weights.

    It has no chain: ``infer`` calls :meth:`populate` once for each of ``chains`` independent
    repetitions, of ``draws`` particles each, and compares them with each other.

    Attributes
    ----------
    contract : Contract
        ``ProperlyWeighted(...)``.
    default_chains, default_draws : int
        Repetitions, and particles in each, when ``infer`` is not told.
    stage : Stage
        The same algorithm as one traceable stage from the reference (β = 0) to the target:
        what ``ppcore check`` weighs against known evidence. None for an algorithm on the host.
    """

    contract: Contract
    default_chains: int
    default_draws: int

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted particles for the target.

        Everything that it compiles serves all keys and all data of one shape.

        Raises :class:`ppcore.errors.PopulationError` if all weights vanish or one is NaN, with
        the population so far; :class:`ppcore.errors.UnsupportedError` if a reference is needed
        and the target has none.
        """
        ...


@dataclass(frozen=True)
class Learned:
    """A density of parameters given data, learnt from simulations.

    Attributes
    ----------
    density : ConditionalDensity
    stats : dict of str to array
        How training went, e.g. ``loss`` and ``held_out``: float[epochs, ...].
    notes : tuple of str
        What the user should know.
    """

    density: Any
    stats: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class ConditionalDensity(Protocol):
    """q(x | y), normalised in x for every y; a pytree of parameters.

    Attributes
    ----------
    dim, data_dim : int
        d and m.
    """

    dim: int
    data_dim: int

    def sample(self, key: Any, y: Any, n: int) -> Any:
        """``n`` independent draws given y: float[m] -> float[n, d]."""
        ...

    def log_prob(self, x: Any, y: Any) -> Any:
        """log q(x | y); float[d], float[m] -> float[]."""
        ...


@runtime_checkable
class AmortisedEngine(Protocol):
    """An engine that learns the posterior for all data at once, from draws of the joint.

    It needs no density of the model: ``model.amortise`` simulates and calls :meth:`learn` once.

    Attributes
    ----------
    contract : Contract
        ``Amortised()``.
    default_simulations : int
        Used when ``amortise`` is not told.
    """

    contract: Contract
    default_simulations: int

    def learn(self, key: Any, x: Any, y: Any, rows: int, report: Report) -> Learned:
        """The posterior from simulations, x: float[n, d] unconstrained, y: float[n, m].

        With ``rows`` above 1 the data are that many exchangeable rows of m / rows numbers each.
        """
        ...

    def pack(self, density: Any) -> dict[str, Any]:
        """The density as named arrays, from which :meth:`unpack` makes an equal one."""
        ...

    def unpack(self, arrays: Mapping[str, Any]) -> Any:
        """The inverse of :meth:`pack`."""
        ...
