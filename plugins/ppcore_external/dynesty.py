"""dynesty's nested sampling as an engine: evidence, and draws from every mode it has seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.contract import Contract, ProperlyWeighted
from ppcore.engine import Populated, Progress, Report
from ppcore.errors import PopulationError, SettingsError, UnsupportedError, did_you_mean
from ppcore.population import Population, equally_weighted
from ppcore.settings import check_between, check_count
from ppcore.tuning.noise import spawned

FITTED = 4096
SAMPLES = ("auto", "unif", "rwalk", "slice", "rslice")
# Log densities below are one plateau for nested sampling, which cannot order infinities.
FLOOR = -1e30


@jax.jit
def _from_cube(middle: Any, scale: Any, u: Any) -> Any:
    """Quantiles of Student's t with two degrees of freedom, moved and scaled; u in (0, 1)^d."""
    u = jnp.clip(u, 1e-15, 1 - 1e-15)
    return middle + scale * (2 * u - 1) / jnp.sqrt(2 * u * (1 - u))


@jax.jit
def _log_ratio(target: Any, middle: Any, scale: Any, x: Any) -> Any:
    """log γ(x)/q(x), q the density of :func:`_from_cube`."""
    t = (x - middle) / scale
    log_q = -1.5 * jnp.log(2 + t**2).sum() - jnp.log(scale).sum()
    ratio = target.log_density(x) - log_q
    return jnp.where(jnp.isnan(ratio), FLOOR, jnp.maximum(ratio, FLOOR))


@partial(jax.jit, static_argnames="n")
def _spread(key: Any, target: Any, n: int) -> tuple[Any, Any, Any, Any]:
    """Median and half the central 68 % of reference draws, coordinate by coordinate; the draws, and
    whether γ is positive at any."""
    x = target.sample_reference(key, n)
    low, middle, high = jnp.quantile(x, jnp.array([0.16, 0.5, 0.84], x.dtype), axis=0)
    alive = jnp.isfinite(jax.vmap(target.log_density)(x)).any()
    return middle, jnp.maximum(0.5 * (high - low), 1e-9), x, alive


def _dead(population: Population) -> PopulationError:
    return PopulationError(
        "dynesty found no point where the model can have produced the data. Check that they lie in "
        "the support of the likelihood, and hold no NaN.",
        population,
        "nested sampling",
        1.0,
    )


@dataclass(frozen=True)
class Dynesty:
    """dynesty's ``NestedSampler``, for Z = ∫ γ and weighted draws from γ/Z.

    Nested sampling needs a prior as a map from the unit cube, and a ppcore target offers only
    draws and a density of its reference. So it runs on a pseudo-prior q, a product of Student's t
    (two degrees of freedom) placed at the quantiles of reference draws, with the "likelihood"
    γ/q: Z = ∫ q · (γ/q) exactly, whatever q is, and heavy tails keep γ/q bounded where the prior's
    are no heavier. A q far from the prior costs iterations only. The points that it leaves are
    resampled to the ``n`` particles asked for, whose weights are therefore equal.

    The evidence has the error dynesty states, and a bias where the constrained moves do not forget
    their start, which shrinks with ``live`` and dynesty's own number of walks: no unbiasedness is
    promised.

    Parameters
    ----------
    live : int
        Live points; work and accuracy grow with it.
    sample : str
        How dynesty moves within a contour: "auto", "unif", "rwalk", "slice" or "rslice".
    bound : str
        "multi" (ellipsoids), "single" or "none".
    dlogz : float
        Stop once the live points could raise log Z by no more than this.

    Raises
    ------
    ppcore.errors.SettingsError
        If a setting is out of range.

    Source: Skilling 2006, doi:10.1214/06-BA127; Speagle 2020, arXiv:1904.02180.

    >>> Dynesty(live=100).contract
    ProperlyWeighted(unbiased_evidence=False)
    """

    live: int = 500
    sample: str = "rwalk"
    bound: str = "multi"
    dlogz: float = 0.1
    contract: ClassVar[Contract] = ProperlyWeighted(unbiased_evidence=False)
    stage: ClassVar[Any] = None
    default_chains: int = field(default=2, init=False)
    default_draws: int = field(default=2000, init=False)

    def __post_init__(self) -> None:
        check_count("live", self.live, 10)
        check_between("dlogz", self.dlogz, 0, 100)
        for name, known in (("sample", SAMPLES), ("bound", ("multi", "single", "none"))):
            value = getattr(self, name)
            if value not in known:
                raise SettingsError(f"{name}={value!r} is not known. {did_you_mean(value, known)}")

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` draws, and the evidence; see :class:`ppcore.engine.PopulationEngine`.

        Raises :class:`ppcore.errors.UnsupportedError` without a proper prior, and
        :class:`ppcore.errors.PopulationError` if no point has a positive density.
        """
        import dynesty

        if not target.has_reference:
            raise UnsupportedError(
                "dynesty starts from the prior, and this target has none to draw from. Give every "
                "site a proper prior, or use an engine that needs none (emcee, stretch)."
            )
        host_key, prior_key = spawned(key, 2)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(host_key)).ravel())
        middle, scale, draws, alive = _spread(prior_key, target, FITTED)
        if not alive:
            raise _dead(equally_weighted(draws))
        sampler = dynesty.NestedSampler(
            lambda x: float(_log_ratio(target, middle, scale, x.astype(middle.dtype))),
            lambda u: np.asarray(_from_cube(middle, scale, u.astype(middle.dtype)), float),
            target.dim,
            nlive=self.live,
            bound=self.bound,
            sample=self.sample,
            rstate=rng,
        )
        sampler.run_nested(dlogz=self.dlogz, print_progress=False)
        found = sampler.results
        report(Progress("sampling", n, n, unit="particles"))
        return self._kept(found, rng, n, middle.dtype)

    def _kept(self, found: Any, rng: np.random.Generator, n: int, dtype: Any) -> Populated:
        """``n`` points by systematic resampling of dynesty's weighted ones."""
        calls, log_z = int(np.sum(found.ncall)), float(found.logz[-1])
        log_w = np.asarray(found.logwt, float)
        weights = np.exp(log_w - log_w.max())
        weights /= weights.sum()
        edges = np.cumsum(weights)
        index = np.searchsorted(edges, (np.arange(n) + rng.random()) / n, side="right")
        x = np.asarray(found.samples, float)[np.minimum(index, len(edges) - 1)]
        x = rng.permutation(x).astype(dtype)
        population = equally_weighted(jnp.asarray(x))
        if log_z < 0.5 * FLOOR:
            raise _dead(population)
        ess = float(1 / (weights**2).sum())
        made = Population(population.x, population.log_weight, jnp.asarray(log_z, dtype))
        notes = (
            (
                f"{n} draws were resampled from nested points that are worth {ess:.0f}: "
                "raise `live` for more.",
            )
            if n > ess
            else ()
        )
        stats = {"ess": np.array([ess]), "iterations": np.array([int(found.niter)])}
        return Populated(made, calls, float(found.logzerr[-1]), stats, notes)
