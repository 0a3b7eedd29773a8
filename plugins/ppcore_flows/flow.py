"""A flow trained to the target, its draws weighed by what they miss of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.contract import Contract, Density
from ppcore.contract import importance as weighed_by
from ppcore.engine import Populated, Progress, Report
from ppcore.errors import SettingsError, did_you_mean
from ppcore.paths import Between
from ppcore.population import require_alive
from ppcore.settings import check_between, check_count
from ppcore.tuning.noise import spawned
from ppcore_flows.bases import Gaussian, StudentT
from ppcore_flows.density import Defended, Flow, standard_error, weighed
from ppcore_flows.linear import Row, Whiten, diagonal, lower_triangular
from ppcore_flows.losses import chi_square, reverse_kl
from ppcore_flows.maps import KINDS, Architecture, create
from ppcore_flows.start import Found, explore
from ppcore_flows.training import Trained, Training, require_smooth, train

MAPS = ("auto", *KINDS)
DENSE_UP_TO = 128
PILOT, WIDER, GUARD_DEGREES = 1024, 2.0, 3.0
BASES = ("auto", "gaussian", "student_t", "mixture")


@dataclass(frozen=True)
class Design:
    """What flow to train, and how; shared by the engines of this plugin.

    Parameters
    ----------
    map : str
        "affine_coupling", "spline_coupling", "autoregressive", "triangular", or "auto": splines,
        triangular in one dimension.
    base : str
        "gaussian", "student_t", "mixture" (one part for each mode found, learned with the map), or
        "auto": a mixture if several modes are found.
    layers, width, bins : int
        Of the map, its networks, and its splines.
    degrees : float
        Of freedom of a Student-t base.
    training : Training
    polish : int
        Steps on the variance of the weights after the others.
    defence : float
        ε, the share of draws from a wide Student-t that keeps the weights bounded; 0 for none.
    """

    map: str = "auto"
    base: str = "auto"
    layers: int = 4
    width: int = 32
    bins: int = 8
    degrees: float = 5.0
    training: Training = Training()
    polish: int = 0
    defence: float = 0.05

    def __post_init__(self) -> None:
        for name, value, known in (("map", self.map, MAPS), ("base", self.base, BASES)):
            if value not in known:
                raise SettingsError(f"{name}={value!r} is not known. {did_you_mean(value, known)}")
        for name in ("layers", "width"):
            check_count(name, getattr(self, name), 1)
        check_count("bins", self.bins, 2)
        check_between("degrees", self.degrees, 0, 1e6)
        check_count("polish", self.polish, 0)
        check_between("defence", self.defence, -1e-9, 1)

    def architecture(self, dim: int) -> Architecture:
        """Of the map for ``dim`` coordinates."""
        kind = self.map
        if kind == "auto":
            kind = "spline_coupling" if dim > 1 else "triangular"
        return Architecture(kind, dim, self.layers, self.width, bins=self.bins)

    def beginning(self, key: Any, found: Found) -> Flow:
        """The flow before training: near the mixture of Gaussians that was found."""
        dtype = jnp.result_type(float)
        dim = found.means.shape[1]
        if self.base == "gaussian":
            base: Any = Gaussian(dim)
        elif self.base == "mixture":
            base = found.whitened(dtype)
        else:
            base = found.law(dtype, self.degrees if self.base == "student_t" else None).base
        made = create(key, self.architecture(dim))
        # Splines are the identity beyond their reach: an affine map lets the whole move and grow.
        affine = lower_triangular(dim, dtype) if dim <= DENSE_UP_TO else diagonal(dim, dtype)
        return Flow(base, Row((made, affine, found.whitening(dtype))))


def defended(key: Any, flow: Flow, share: float) -> Any:
    """``flow`` with ``share`` of the draws from a Student-t of twice its scale; 0 for none."""
    if share <= 0:
        return flow
    x = np.asarray(sampled(key, flow, PILOT), float)
    middle, dim = np.median(x, axis=0), x.shape[1]
    covariance = np.atleast_2d(np.cov(x.T)) + 1e-9 * np.diag(x.var(0))
    factor = WIDER * np.linalg.cholesky(covariance)
    dtype = jnp.result_type(float)
    axes = Whiten(jnp.asarray(middle, dtype), jnp.asarray(factor, dtype))
    guard = Flow(StudentT(dim, jnp.asarray(np.log(GUARD_DEGREES), dtype)), axes)
    return Defended(flow, guard, jnp.asarray(share, dtype))


@partial(jax.jit, static_argnames="n")
def sampled(key: Any, flow: Any, n: int) -> Any:
    """``n`` draws of a flow."""
    return flow.sample(key, n)


def learn(key: Any, target: Any, design: Design, report: Report, name: str) -> Trained:
    """A flow near ``target``: explore, anneal by reverse KL from what was found, polish.

    Raises :class:`ppcore.errors.UnsupportedError` for a target without gradient,
    :class:`ppcore.errors.SettingsError` for a map that needs more coordinates, and
    :class:`ppcore.errors.StartError` if no start with a finite log density is found.
    """
    require_smooth(target, name)
    design.architecture(int(target.dim))
    k_explore, k_map, k_train, k_polish = spawned(key, 4)
    found = explore(k_explore, target)
    flow = design.beginning(k_map, found)
    law = Between(flow, target)
    plan = design.training
    made = train(k_train, flow, law, reverse_kl, plan, report, plan.batch, annealed=True)
    notes, spent = (*found.notes, *made.notes), found.gradients + made.evaluations
    if design.polish and not made.notes:
        short = replace(plan, steps=design.polish, rate=0.2 * plan.rate, anneal=0.0)
        last = train(k_polish, made.density, target, chi_square, short, report, plan.batch)
        spent += last.evaluations
        notes = (*notes, *last.notes)
        made = Trained(last.density, *_joined(made, last), 0)
    return replace(made, evaluations=spent, notes=notes)


def _joined(a: Trained, b: Trained) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([a.losses, b.losses]), np.concatenate([a.spreads, b.spreads])


@dataclass(frozen=True)
class FlowImportance:
    """x_i = T(u_i), w_i = γ(x_i)/q(x_i): importance sampling from a trained flow; E[Ẑ] = Z.

    T is trained by annealed reverse KL with path gradients from the modes that climbs find, then
    frozen, and fresh draws are weighed, so that the weights are proper whatever training did; how
    good it was is in k̂ and the effective sample size. A mode that no climb reached stays missing,
    and no weight tells: compare repetitions, and run tempered SMC beside it.

    Parameters
    ----------
    map, base, layers, width, bins, degrees, polish, defence
        See :class:`Design`.
    steps, batch, rate, anneal
        See :class:`ppcore_flows.training.Training`.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range or unknown.

    Source: Rezende & Mohamed 2015, arXiv:1505.05770; Müller et al. 2019, arXiv:1808.03856.

    >>> FlowImportance(map="affine_coupling").contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    map: str = "auto"
    base: str = "auto"
    layers: int = 4
    width: int = 32
    bins: int = 8
    degrees: float = 5.0
    steps: int = 600
    batch: int = 256
    rate: float = 5e-3
    anneal: float = 0.5
    polish: int = 0
    defence: float = 0.05
    default_chains: ClassVar[int] = 4
    default_draws: ClassVar[int] = 4096
    stage: ClassVar[None] = None

    def __post_init__(self) -> None:
        _ = self.design

    @property
    def design(self) -> Design:
        """Its parts that say what to train."""
        training = Training(self.steps, self.batch, self.rate, self.anneal)
        shape = (self.map, self.base, self.layers, self.width, self.bins, self.degrees)
        return Design(*shape, training, self.polish, self.defence)

    @property
    def contract(self) -> Contract:
        return weighed_by(Density())

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted draws; see :class:`ppcore.engine.PopulationEngine`.

        Raises what :func:`learn` raises, and :class:`ppcore.errors.PopulationError` if all weights
        vanish.
        """
        k_learn, k_guard, k_draw = spawned(key, 3)
        made = learn(k_learn, target, self.design, report, "flow")
        proposal = defended(k_guard, made.density, self.defence)
        return drawn(k_draw, proposal, made, target, n, report)


def drawn(key: Any, proposal: Any, made: Trained, target: Any, n: int, report: Report) -> Populated:
    """``n`` weighted draws from ``proposal``, with all that training cost."""
    population = weighed(key, proposal, target, n)
    require_alive(population, "importance sampling from what was trained", 1.0)
    report(Progress("sampling", n, n, unit="particles"))
    stats = {"loss": made.losses, "spread": made.spreads}
    error = standard_error(population)
    return Populated(population, made.evaluations + n, error, stats, made.notes)
