"""What the engines that learn from draws share: where draws come from, and what becomes of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from ppcore import registry
from ppcore.contract import Contract, Density
from ppcore.contract import importance as weighed_by
from ppcore.engine import Populated, Progress, Report
from ppcore.errors import SettingsError, UnsupportedError
from ppcore.population import require_alive
from ppcore.settings import check_between, check_count
from ppcore.tuning.noise import spawned
from ppcore_diffusion.learned_proposal import guarded, weighed
from ppcore_diffusion.samples import Samples, samples_of


@dataclass(frozen=True)
class FromDraws(ABC):
    """x_i ~ q, w_i = γ(x_i)/q(x_i), q learned from earlier draws and then frozen; E[Ẑ] = Z.

    An engine is a subclass with a ``name``, a way to learn (:meth:`learned`) and settings for it.

    Parameters
    ----------
    earlier : Fit, Population or float[n, d], optional
        Earlier draws of this posterior, of any engine, in unconstrained coordinates; they may be
        rough, since they only teach. By default the engine makes its own.
    warm : str
        The population engine that makes them.
    pilots : int
        Particles that it uses.
    defence : float
        ε, the share of draws from a Student-t twice as wide as the earlier draws; 0 for none.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range or unknown, or the draws cannot be learned from.
    """

    earlier: Any = None
    warm: str = "smc"
    pilots: int = 1024
    defence: float = 0.05
    default_chains: ClassVar[int] = 4
    default_draws: ClassVar[int] = 4096
    stage: ClassVar[None] = None
    name: ClassVar[str]

    def __post_init__(self) -> None:
        check_count("pilots", self.pilots, 16)
        if self.earlier is not None:
            samples_of(self.earlier, "earlier")
        elif not isinstance(self.warm, str):
            raise SettingsError(
                f"warm={self.warm!r} must be the name of a population engine, like 'smc'."
            )
        check_between("defence", self.defence, -1e-9, 1)

    @property
    def contract(self) -> Contract:
        return weighed_by(Density())

    @abstractmethod
    def learned(self, key: Any, samples: Samples, report: Report) -> Learned:
        """The density that is learned from ``samples``, in JAX's current precision."""

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted draws; see :class:`ppcore.engine.PopulationEngine`.

        Raises what the warm start raises, :class:`ppcore.errors.UnsupportedError` for a target with
        finite sites, and :class:`ppcore.errors.PopulationError` if all weights vanish.
        """
        k_warm, k_learn, k_draw = spawned(key, 3)
        settings = self.earlier, self.warm, self.pilots
        known = learning(k_warm, target, *settings, report, self.name)
        made = self.learned(k_learn, known.samples, report)
        proposal = guarded(made.density, known.samples, self.defence)
        population = weighed(k_draw, proposal, target, n)
        require_alive(population, "importance sampling from what was learned", 1.0)
        report(Progress("sampling", n, n, unit="particles"))
        error = float(jnp.maximum(n / population.ess - 1.0, 0.0) / n) ** 0.5
        notes = (*known.notes, *made.notes)
        return Populated(population, known.gradients + n, error, {"loss": made.losses}, notes)


@dataclass(frozen=True)
class Learned:
    """A density with ``sample_and_log_prob``, the losses of its training, and what happened."""

    density: Any
    losses: np.ndarray
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Learning:
    """Draws to learn from, and what they cost."""

    samples: Samples
    gradients: int = 0
    notes: tuple[str, ...] = ()


def learning(
    key: Any, target: Any, earlier: Any, warm: str, pilots: int, report: Report, name: str
) -> Learning:
    """``earlier`` draws; or, if None, ``pilots`` particles of the engine called ``warm``.

    Raises
    ------
    ppcore.errors.UnsupportedError
        For a target with finite coordinates or none, and for a ``warm`` that has no ``populate``.
    ppcore.errors.SettingsError
        If the draws do not fit the target.
    """
    kept = tuple(getattr(target, "finite_sites", ()))
    if not getattr(target, "has_gradient", True):
        what = f" (finite sites {', '.join(map(repr, kept))} are kept)" if kept else ""
        raise UnsupportedError(
            f"{name} learns a density on R^d, and {type(target).__name__} has no gradient{what}. "
            "Sum the finite sites out, or use an engine that needs no gradient."
        )
    if int(target.dim) < 1:
        raise UnsupportedError(f"{name} needs at least one unknown; this target has dimension 0.")
    if earlier is not None:
        return Learning(samples_of(earlier, "earlier", int(target.dim)))
    engine = registry.engine(warm)
    if not hasattr(engine, "populate"):
        raise UnsupportedError(
            f"warm={warm!r} makes no weighted population. Use 'smc', or run {warm!r} first and "
            "pass its fit: earlier=fit."
        )

    def tell(progress: Progress) -> None:
        report(Progress("warm start", progress.done, progress.total, unit=progress.unit))

    made = engine.populate(key, target, pilots, tell)
    found = samples_of(made.population, f"the draws of the warm start by {warm!r}")
    notes = (f"Learned from {pilots} particles of {warm!r}, worth {found.ess:.0f}.", *made.notes)
    return Learning(found, made.gradients, notes)
