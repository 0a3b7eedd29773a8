"""A flow trained to the target, its draws weighed by what they miss of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.compose.precondition import Pulled
from ppcore.contract import Contract, Density
from ppcore.contract import importance as weighed_by
from ppcore.engine import Populated, Progress, Report
from ppcore.errors import SettingsError, UnsupportedError, did_you_mean
from ppcore.paths import Between
from ppcore.population import require_alive
from ppcore.settings import check_between, check_count
from ppcore.tuning.noise import spawned
from ppcore_flows.bases import Gaussian, StudentT
from ppcore_flows.bootstrap import Bootstrap, bootstrapped
from ppcore_flows.circle import angles, recut
from ppcore_flows.density import Defended, Flow, standard_error, weighed
from ppcore_flows.linear import Row, Whiten, diagonal, lower_triangular
from ppcore_flows.losses import reverse_kl
from ppcore_flows.maps import KINDS, Architecture, create, enough_layers
from ppcore_flows.start import Found, explore
from ppcore_flows.training import Trained, Training, require_smooth, train

MAPS = ("auto", *KINDS)
DENSE_UP_TO = 128
PILOT, WIDER, GUARD_DEGREES = 1024, 2.0, 3.0
MOST_OUTSIDE = 0.5
BASES = ("auto", "gaussian", "student_t", "mixture")
LOSSES = ("reverse_kl", "forward_kl", "fab")


@dataclass(frozen=True)
class Design:
    """What flow to train, and how; shared by the engines of this plugin.

    Parameters
    ----------
    map : str
        "affine_coupling", "spline_coupling", "autoregressive", "triangular", "residual",
        "sylvester", "continuous" (needs diffrax), or "auto": splines, triangular in one dimension.
    base : str
        "gaussian", "student_t", "mixture" (one part for each mode found, learned with the map), or
        "auto": a mixture if several modes are found.
    layers, width, bins : int
        Of the map, its networks, and its splines; 0 layers: as many as let every coordinate move
        given every other, about 2 log₂ d.
    degrees : float
        Of freedom of a Student-t base.
    training : Training
    polish : int
        Steps of "fab" after the others, at a fifth of their rate.
    defence : float
        ε, the share of draws from a wide Student-t that keeps the weights bounded; 0 for none.
    loss : str
        "reverse_kl" (annealed, path gradients), "fab" (the variance of the weights) or "forward_kl"
        (both on points found by annealing from the flow; see :mod:`ppcore_flows.bootstrap`).
    bootstrap : Bootstrap
        How those points are found.
    """

    map: str = "auto"
    base: str = "auto"
    layers: int = 0
    width: int = 32
    bins: int = 8
    degrees: float = 5.0
    training: Training = Training()
    polish: int = 0
    defence: float = 0.05
    loss: str = "reverse_kl"
    bootstrap: Bootstrap = Bootstrap()

    def __post_init__(self) -> None:
        named = (
            ("map", self.map, MAPS),
            ("base", self.base, BASES),
            ("loss", self.loss, LOSSES),
        )
        for name, value, known in named:
            if value not in known:
                raise SettingsError(f"{name}={value!r} is not known. {did_you_mean(value, known)}")
        check_count("layers", self.layers, 0)
        check_count("width", self.width, 1)
        check_count("bins", self.bins, 2)
        check_between("degrees", self.degrees, 0, 1e6)
        check_count("polish", self.polish, 0)
        check_between("defence", self.defence, -1e-9, 1)

    def architecture(self, dim: int) -> Architecture:
        """Of the map for ``dim`` coordinates."""
        kind = self.map
        if kind == "auto":
            kind = "spline_coupling" if dim > 1 else "triangular"
        layers = self.layers or enough_layers(dim)
        return Architecture(kind, dim, layers, self.width, bins=self.bins)

    def beginning(self, key: Any, found: Found) -> Flow:
        """The flow before training: near the mixture of Gaussians that was found."""
        dtype = jnp.result_type(float)
        if self.base == "gaussian":
            base: Any = Gaussian(found.means.shape[1])
        elif self.base == "mixture":
            base = found.whitened(dtype)
        else:
            base = found.law(dtype, self.degrees if self.base == "student_t" else None).base
        return self.around(key, base, found.whitening(dtype))

    def around(self, key: Any, base: Any, axes: Whiten) -> Flow:
        """The flow before training, on a base and fixed axes."""
        dtype, dim = axes.shift.dtype, axes.dim
        made = create(key, self.architecture(dim))
        # Splines are the identity beyond their reach: an affine map lets the whole move and grow.
        affine = lower_triangular(dim, dtype) if dim <= DENSE_UP_TO else diagonal(dim, dtype)
        return Flow(base, Row((made, affine, axes)))


def guarded(key: Any, flow: Any, share: Any) -> Defended:
    """``flow`` with ``share`` of the draws from a Student-t of twice its scale; can be traced."""
    x = flow.sample(key, PILOT)
    middle, dim = jnp.median(x, axis=0), x.shape[1]
    off = x - jnp.mean(x, axis=0)
    covariance = off.T @ off / (PILOT - 1)
    covariance = covariance + 1e-9 * jnp.diag(jnp.diagonal(covariance))
    axes = Whiten(middle, WIDER * jnp.linalg.cholesky(covariance))
    guard = Flow(StudentT(dim, jnp.log(jnp.asarray(GUARD_DEGREES, x.dtype))), axes)
    return Defended(flow, guard, jnp.asarray(share, x.dtype))


_guarded = jax.jit(guarded)


def defended(key: Any, flow: Flow, share: float) -> Any:
    """As :func:`guarded`; ``flow`` itself where the share is 0."""
    return flow if share <= 0 else _guarded(key, flow, share)


def learn(key: Any, target: Any, design: Design, report: Report, name: str) -> Trained:
    """A flow near ``target``: explore, anneal by reverse KL from what was found, polish.

    Raises :class:`ppcore.errors.UnsupportedError` for a target without gradient,
    :class:`ppcore.errors.SettingsError` for a map that needs more coordinates, and
    :class:`ppcore.errors.StartError` if no start with a finite log density is found.
    """
    require_smooth(target, name)
    design.architecture(int(target.dim))
    k_explore, k_map, k_train, k_polish, k_cut = spawned(key, 5)
    flow, found = begun(k_explore, k_map, k_cut, target, design)
    plan, how = design.training, design.bootstrap
    if design.loss == "reverse_kl":
        law = Between(flow, target)
        made = train(k_train, flow, law, reverse_kl, plan, report, plan.batch, annealed=True)
    else:
        how = replace(how, alpha=2.0 if design.loss == "fab" else 1.0)
        made = bootstrapped(k_train, flow, target, how, plan, report)
    notes, spent = (*found.notes, *made.notes), found.gradients + made.evaluations
    if design.polish and not made.notes:
        short = replace(plan, steps=design.polish, rate=0.2 * plan.rate, anneal=0.0)
        how = replace(how, alpha=2.0)
        last = bootstrapped(k_polish, made.density, target, how, short, report)
        spent += last.evaluations
        notes = (*notes, *last.notes)
        made = Trained(last.density, *_joined(made, last), 0)
    return replace(made, evaluations=spent, notes=notes)


def begun(
    k_explore: Any, k_map: Any, k_cut: Any, target: Any, design: Design
) -> tuple[Flow, Found]:
    """The flow before training, and what climbs found; angles are cut open away from the mass."""
    which = angles(target)
    if not which:
        found = explore(k_explore, target)
        return design.beginning(k_map, found), found
    cut = recut(k_cut, target, which)
    found = explore(k_explore, Pulled(target, cut))
    flow = design.beginning(k_map, found)
    return Flow(flow.base, Row((*flow.map.maps, cut))), found


def _joined(a: Trained, b: Trained) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([a.losses, b.losses]), np.concatenate([a.spreads, b.spreads])


@dataclass(frozen=True)
class FlowImportance:
    """x_i = T(u_i), w_i = γ(x_i)/q(x_i): importance sampling from a trained flow; E[Ẑ] = Z.

    T is trained from the modes that climbs find, by annealed reverse KL with path gradients or on
    points that annealing away from the flow finds ("fab", "forward_kl"), then frozen, and fresh
    draws are weighed, so that the weights are proper whatever training did; how good it was is in
    k̂ and the effective sample size. A mode that nothing reached stays missing, and no weight
    tells: compare repetitions, and run tempered SMC beside it.

    Parameters
    ----------
    map, base, layers, width, bins, degrees, polish, defence, loss
        See :class:`Design`.
    steps, batch, rate, anneal
        See :class:`ppcore_flows.training.Training`.
    temperatures, leapfrogs, reuse
        See :class:`ppcore_flows.bootstrap.Bootstrap`.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range or unknown.

    Source: Rezende & Mohamed 2015, arXiv:1505.05770; Müller et al. 2019, arXiv:1808.03856; Midgley
    et al. 2023, arXiv:2208.01893 ("fab").

    >>> FlowImportance(map="affine_coupling").contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    map: str = "auto"
    base: str = "auto"
    layers: int = 0
    width: int = 32
    bins: int = 8
    degrees: float = 5.0
    steps: int = 600
    batch: int = 256
    rate: float = 5e-3
    anneal: float = 0.5
    polish: int = 200
    defence: float = 0.05
    loss: str = "reverse_kl"
    temperatures: int = 4
    leapfrogs: int = 4
    reuse: int = 5
    default_chains: ClassVar[int] = 4
    default_draws: ClassVar[int] = 4096

    def __post_init__(self) -> None:
        _ = self.design

    @property
    def design(self) -> Design:
        """Its parts that say what to train."""
        training = Training(self.steps, self.batch, self.rate, self.anneal)
        shape = (self.map, self.base, self.layers, self.width, self.bins, self.degrees)
        walk = Bootstrap(2.0, self.temperatures, self.leapfrogs, self.reuse)
        return Design(*shape, training, self.polish, self.defence, self.loss, walk)

    @property
    def contract(self) -> Contract:
        return weighed_by(Density())

    @property
    def stage(self) -> Any:
        """A short training of a small map, and the same weights; see ``learned.Learned``."""
        from ppcore_flows.learned import Learned

        return Learned(self)

    def around(self, key: Any, axes: Whiten) -> Flow:
        """A small flow about ``axes``, before training."""
        small = replace(self.design, layers=2, width=8, bins=4)
        return small.around(key, Gaussian(axes.dim), axes)

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
    """``n`` weighted draws from ``proposal``, with all that training cost.

    Raises :class:`ppcore.errors.UnsupportedError` where more than half of the draws have no density
    at all: the posterior ends at an edge that no map of R^d onto R^d reaches.
    """
    population = weighed(key, proposal, target, n)
    require_alive(population, "importance sampling from what was trained", 1.0)
    outside = float(np.mean(np.isneginf(np.asarray(population.log_weight))))
    edge = (
        f"{outside:.0%} of the proposal's draws fall where the density is zero: the posterior ends "
        "at an edge inside R^d, which no invertible map of R^d reaches. Give the site a support "
        "(dist.Uniform, dist.TruncatedNormal, …) in place of a density that is cut off"
    )
    if outside > MOST_OUTSIDE:
        raise UnsupportedError(f"{edge}, or use an engine that trains nothing, such as 'smc'.")
    notes = (*made.notes, f"{edge}. The weights are right.") if outside > 0.01 else made.notes
    report(Progress("sampling", n, n, unit="particles"))
    stats = {"loss": made.losses, "spread": made.spreads}
    error = standard_error(population)
    return Populated(population, made.evaluations + n, error, stats, notes)
