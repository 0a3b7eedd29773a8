"""NumPyro's variational guides as importance proposals: trained by its SVI, then weighed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import SVI, Trace_ELBO, autoguide
from numpyro.optim import Adam

from ppcore.contract import Contract, Density, importance
from ppcore.engine import Populated, Progress, Report
from ppcore.errors import PopulationError, SettingsError, StartError, did_you_mean
from ppcore.population import Population, equally_weighted
from ppcore.settings import check_between, check_count
from ppcore.tuning.noise import spawned

GUIDES = ("normal", "low_rank", "multivariate", "iaf", "laplace")


def _program(target: Any) -> None:
    """The target as a NumPyro program: one vector of unconstrained coordinates."""
    flat = dist.ImproperUniform(dist.constraints.real_vector, (), (target.dim,))
    x = numpyro.sample("x", flat)
    numpyro.factor("log_density", target.log_density(x))


def _guide(name: str, rank: int, scale: float, dim: int) -> Any:
    initial = {"init_loc_fn": numpyro.infer.init_to_value(values={"x": jnp.zeros(dim)})}
    # Of one coordinate any Gaussian is diagonal, and an autoregressive map has nothing to go by.
    if name == "laplace":
        return autoguide.AutoLaplaceApproximation(_program, **initial)
    initial["init_scale"] = scale
    if name == "normal" or dim == 1:
        return autoguide.AutoDiagonalNormal(_program, **initial)
    if name == "low_rank":
        return autoguide.AutoLowRankMultivariateNormal(_program, rank=min(rank, dim), **initial)
    if name == "multivariate":
        return autoguide.AutoMultivariateNormal(_program, **initial)
    del initial["init_scale"]
    hidden = [max(8, 2 * dim)] * 2
    return autoguide.AutoIAFNormal(_program, num_flows=2, hidden_dims=hidden, **initial)


@partial(jax.jit, static_argnames=("plan",))
def _trained(plan: Any, target: Any, key: Any) -> tuple[Any, Any]:
    """The guide's parameters after all steps, and the loss of each."""
    guide = _guide(plan.guide, plan.rank, plan.scale, target.dim)
    svi = SVI(_program, guide, Adam(plan.rate), Trace_ELBO(num_particles=plan.particles))
    state = svi.init(key, target)

    def step(state: Any, _: Any) -> Any:
        return svi.stable_update(state, target)

    state, losses = jax.lax.scan(step, state, None, length=plan.steps)
    return svi.get_params(state), losses


@partial(jax.jit, static_argnames=("plan", "n"))
def _drawn(plan: Any, target: Any, params: Any, key: Any, n: int) -> tuple[Any, Any]:
    """x ~ q and log γ(x)/q(x)."""
    guide = _guide(plan.guide, plan.rank, plan.scale, target.dim)
    with numpyro.handlers.block(), numpyro.handlers.seed(rng_seed=0):
        guide(target)
    q = guide.get_posterior(params)
    x, inside = q.sample_with_intermediates(key, (n,))
    # A flow has not to be inverted where it has just been.
    log_q = q.log_prob(x, inside) if inside else q.log_prob(x)
    if log_q.ndim == 2:  # NumPyro's diagonal normal is one for each coordinate
        log_q = log_q.sum(axis=1)
    ratio = jax.vmap(target.log_density)(x) - log_q
    return x, jnp.where(jnp.isnan(ratio), -jnp.inf, ratio)


@dataclass(frozen=True)
class NumPyroSVI:
    """x ~ q, NumPyro's automatic guide after SVI, with weights γ(x)/q(x): E[Ẑ] = Z.

    The guide is trained on E_q[log q − log γ] by Adam on its own random numbers; whatever came of
    that, draws from it are weighed by the target, so that the population is properly weighted. How
    far the raw guide can be trusted is what k̂ of the weights says. Guides other than "iaf" are
    Gaussians in the unconstrained coordinates.

    Parameters
    ----------
    guide : str
        "normal" (AutoDiagonalNormal), "low_rank" (AutoLowRankMultivariateNormal), "multivariate"
        (AutoMultivariateNormal), "iaf" (AutoIAFNormal) or "laplace" (AutoLaplaceApproximation).
    rank : int
        Of "low_rank".
    steps, rate
        Of Adam.
    particles : int
        Draws for each estimate of the loss.
    scale : float
        Standard deviations that Gaussians begin with.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range or unknown.

    Source: Kucukelbir et al. 2017, arXiv:1603.00788; Kingma et al. 2016, arXiv:1606.04934; Yao et
    al. 2018, arXiv:1802.02538 (k̂); Phan, Pradhan & Jankowiak 2019, arXiv:1912.11554.

    >>> NumPyroSVI("iaf").contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    guide: str = "multivariate"
    rank: int = 4
    steps: int = 2000
    rate: float = 1e-2
    particles: int = 8
    scale: float = 0.1
    default_chains: ClassVar[int] = 4
    default_draws: ClassVar[int] = 4000
    stage: ClassVar[None] = None

    def __post_init__(self) -> None:
        if self.guide not in GUIDES:
            hint = did_you_mean(str(self.guide), GUIDES)
            raise SettingsError(f"guide={self.guide!r} is not known. {hint}")
        for name in ("rank", "steps", "particles"):
            check_count(name, getattr(self, name), 1)
        check_between("rate", self.rate, 0, 1)
        check_between("scale", self.scale, 0, 100)

    @property
    def contract(self) -> Contract:
        return importance(Density())

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted draws; see :class:`ppcore.engine.PopulationEngine`.

        Raises :class:`ppcore.errors.StartError` if the loss is finite nowhere, and
        :class:`ppcore.errors.PopulationError` if all weights vanish.
        """
        train_key, draw_key = spawned(key, 2)
        params, losses = _trained(self, target, train_key)
        found = np.asarray(losses)
        if not np.isfinite(found).any():
            raise StartError(
                "SVI met no finite loss: the log density is not finite around 0 in unconstrained "
                "coordinates. Check that the observed data lie in the support of the likelihood, "
                "or use an engine that searches for a start (nuts, smc)."
            )
        report(Progress("training", self.steps, self.steps, {"loss": float(found[-1])}, "steps"))
        x, log_weight = _drawn(self, target, params, draw_key, n)
        finite = np.isfinite(np.asarray(x)).all(1)
        log_weight = jnp.where(finite, log_weight, -jnp.inf)
        x = jnp.where(finite[:, None], x, 0.0)
        return weighed(x, log_weight, found, self.steps * self.particles)


def weighed(x: Any, log_weight: Any, losses: Any, gradients: int) -> Populated:
    """The population of draws with log γ/q: Ẑ is the mean of γ/q.

    Raises :class:`ppcore.errors.PopulationError` if all weights vanish.
    """
    top = float(np.max(log_weight))
    if not np.isfinite(top):
        raise PopulationError(
            "No draw from the guide has a finite log density, so none can be weighed. Train it "
            "longer (steps=...), or use an engine that goes in steps (smc).",
            equally_weighted(x),
            "weighing",
            1.0,
        )
    ratio = np.exp(np.asarray(log_weight) - top)
    log_z = top + np.log(ratio.mean())
    error = float(ratio.std(ddof=1) / ratio.mean() / len(ratio) ** 0.5) if len(ratio) > 1 else None
    population = Population(x, log_weight, jnp.asarray(log_z, x.dtype))
    means = np.array([part.mean() for part in np.array_split(losses, min(4, len(losses)))])
    last = losses[-max(1, len(losses) // 4) :]
    falling = len(means) > 1 and means[-2] - means[-1] > 0.5 + np.std(last)
    notes = ("The loss was still falling when the training ended: raise `steps`.",) * bool(falling)
    return Populated(population, gradients, error, {"loss": means}, notes)
