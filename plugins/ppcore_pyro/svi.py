"""Pyro's variational guides as importance proposals: trained by its SVI, then weighed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO, autoguide
from torch.distributions import constraints

from ppcore.contract import Contract, Density, importance
from ppcore.engine import Populated, Progress, Report
from ppcore.errors import SettingsError, StartError, did_you_mean
from ppcore.population import equally_weighted, require_alive, reweight, standard_error
from ppcore.settings import check_between, check_count
from ppcore.torch_view import TorchView
from ppcore_pyro.nuts import seed_of
from ppcore_pyro.program import double_precision

GUIDES = ("normal", "low_rank", "multivariate", "iaf")
EVERY = 50


def _program(view: Any) -> Any:
    """The target as a Pyro program: one vector of unconstrained coordinates."""

    def program() -> None:
        x = pyro.sample("x", dist.ImproperUniform(constraints.real_vector, (), (view.dim,)))
        pyro.factor("log_density", view.log_density(x[None])[0])

    return program


@dataclass(frozen=True)
class PyroSVI:
    """x ~ q, Pyro's automatic guide after SVI, with weights γ(x)/q(x): E[Ẑ] = Z.

    The guide is trained on E_q[log q − log γ] by Adam, the target's density and gradient from its
    compiled program; whatever came of that, draws from it are weighed by the target, so that the
    population is properly weighted. How far the raw guide can be trusted is what k̂ of the weights
    says. Guides other than "iaf" are Gaussians in the unconstrained coordinates.

    Parameters
    ----------
    guide : str
        "normal" (AutoDiagonalNormal), "low_rank" (AutoLowRankMultivariateNormal), "multivariate"
        (AutoMultivariateNormal) or "iaf" (AutoIAFNormal).
    rank : int
        Of "low_rank".
    steps, rate
        Of Adam.
    particles : int
        Draws for each estimate of the loss, one after the other.
    scale : float
        Standard deviations that Gaussians begin with.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range or unknown.

    Source: Kucukelbir et al. 2017, arXiv:1603.00788; Kingma et al. 2016, arXiv:1606.04934; Yao et
    al. 2018, arXiv:1802.02538 (k̂); Bingham et al. 2019, JMLR 20(28).

    >>> PyroSVI("low_rank").contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    guide: str = "multivariate"
    rank: int = 4
    steps: int = 800
    rate: float = 2e-2
    particles: int = 2
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

        Raises :class:`ppcore.errors.StartError` if the loss becomes NaN or infinite, and
        :class:`ppcore.errors.PopulationError` if all weights vanish.
        """
        dtype = jnp.result_type(float)
        view = TorchView(target, dtype.name)
        store = pyro.get_param_store()
        with double_precision(), torch.random.fork_rng(devices=[]), store.scope():
            torch.manual_seed(seed_of(key))
            guide, losses = self._trained(view, report)
            q = guide.get_posterior()
            with torch.no_grad():
                x = q.sample(torch.Size((n,)))
                ratio = view.log_density(x).double() - q.log_prob(x)
        draws, log_weight = x.numpy(), ratio.numpy()
        usable = np.isfinite(draws).all(1) & ~np.isnan(log_weight)
        log_weight = np.where(usable, log_weight, -np.inf)
        draws = np.where(usable[:, None], draws, 0.0).astype(dtype)
        population = reweight(
            equally_weighted(jnp.asarray(draws)), jnp.asarray(log_weight.astype(dtype))
        )
        require_alive(population, "importance sampling from the guide", 1.0)
        loss = np.array([part.mean() for part in np.array_split(losses, min(4, len(losses)))])
        gradients = self.steps * self.particles
        return Populated(population, gradients, standard_error(population), {"loss": loss})

    def _trained(self, view: Any, report: Report) -> tuple[Any, np.ndarray]:
        guide = self._guide(view)
        optimiser = pyro.optim.Adam({"lr": self.rate})
        elbo = Trace_ELBO(num_particles=self.particles)
        svi = SVI(guide.model, guide, optimiser, elbo)
        losses = []
        for step in range(self.steps):
            losses.append(float(svi.step()))
            if not np.isfinite(losses[-1]):
                raise StartError(
                    f"The loss of the guide became {losses[-1]} at step {step}. Check that the "
                    "observed data lie in the support of the likelihood, lower `rate` or `scale`, "
                    "or use an engine that searches for a start (nuts, smc)."
                )
            if step % EVERY == 0 or step == self.steps - 1:
                shown = {"loss": losses[-1]}
                report(Progress("training", step + 1, self.steps, shown, "steps"))
        return guide, np.array(losses)

    def _guide(self, view: Any) -> Any:
        program = _program(view)
        start = pyro.infer.autoguide.init_to_value(values={"x": torch.zeros(view.dim)})
        # Of one coordinate any Gaussian is diagonal, and an autoregressive map has nothing to see.
        if self.guide == "normal" or view.dim == 1:
            return autoguide.AutoDiagonalNormal(program, start, init_scale=self.scale)
        if self.guide == "low_rank":
            rank = min(self.rank, view.dim)
            return autoguide.AutoLowRankMultivariateNormal(program, start, self.scale, rank)
        if self.guide == "multivariate":
            return autoguide.AutoMultivariateNormal(program, start, self.scale)
        return autoguide.AutoIAFNormal(
            program, hidden_dim=[max(8, 2 * view.dim)] * 2, init_loc_fn=start, num_transforms=2
        )
