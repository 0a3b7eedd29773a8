"""A flow of zuko trained by reverse KL in torch, its draws weighed by what they miss."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import torch
import zuko

from ppcore.contract import Contract, Density, importance
from ppcore.engine import Populated, Progress, Report
from ppcore.errors import SettingsError, UnsupportedError, did_you_mean
from ppcore.population import equally_weighted, require_alive, reweight, standard_error
from ppcore.settings import check_between, check_count
from ppcore.torch_view import TorchView
from ppcore.tuning import modes
from ppcore.tuning.noise import spawned

MAPS = ("spline", "affine")
BLOCK, CLIP, LOST = 50, 10.0, 1e4
DEGREES, WIDER = 3.0, 2.0
LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class ZukoFlow:
    """x_i = m + F T(u_i), w_i = γ(x_i)/q(x_i), with T a flow of zuko; E[Ẑ] = Z.

    T is trained in torch by reverse KL, annealed from the Gaussian N(m, F Fᵀ) that climbs to the
    modes suggest; values and gradients of log γ come in batches from the compiled JAX program of
    ``target.torch()``, without copies. It is then frozen and fresh draws are weighed, a share of
    them from a wide Student-t, so that the weights are proper whatever training did.

    Parameters
    ----------
    map : str
        "spline" (rational-quadratic) or "affine"; couplings, autoregressive in one dimension.
    layers, width, bins : int
        Transforms, units of both hidden layers, bins of a spline.
    steps, batch : int
        Of Adam, and draws of each.
    rate : float
        Largest learning rate; falls to a hundredth by a cosine.
    anneal : float
        Share of the steps over which the inverse temperature rises to 1.
    defence : float
        Share of draws from the Student-t; 0 for none.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range or unknown.

    Source: Rezende & Mohamed 2015, arXiv:1505.05770; Durkan et al. 2019, arXiv:1906.04032;
    Rozet et al. 2022, doi:10.5281/zenodo.7625672 (zuko).

    >>> ZukoFlow(map="affine").contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    map: str = "spline"
    layers: int = 4
    width: int = 32
    bins: int = 8
    steps: int = 500
    batch: int = 256
    rate: float = 5e-3
    anneal: float = 0.4
    defence: float = 0.05
    default_chains: ClassVar[int] = 2
    default_draws: ClassVar[int] = 4096
    stage: ClassVar[None] = None

    def __post_init__(self) -> None:
        if self.map not in MAPS:
            raise SettingsError(f"map={self.map!r} is not known. {did_you_mean(self.map, MAPS)}")
        for name in ("layers", "width", "steps"):
            check_count(name, getattr(self, name), 1)
        for name in ("bins", "batch"):
            check_count(name, getattr(self, name), 2)
        check_between("rate", self.rate, 0, 1)
        check_between("anneal", self.anneal, -1e-9, 1)
        check_between("defence", self.defence, -1e-9, 1)

    @property
    def contract(self) -> Contract:
        return importance(Density())

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted draws; see :class:`ppcore.engine.PopulationEngine`.

        Raises :class:`ppcore.errors.UnsupportedError` for a target without gradient,
        :class:`ppcore.errors.StartError` if no start with a finite log density is found, and
        :class:`ppcore.errors.PopulationError` if all weights vanish.
        """
        if not getattr(target, "has_gradient", True) or int(target.dim) < 1:
            raise UnsupportedError(
                "zuko_flow trains a map of R^d by the gradient of the log density, and "
                f"{type(target).__name__} has none. Sum finite sites out, or use 'random_walk'."
            )
        k_explore, k_torch = spawned(key, 2)
        found = modes.explore(k_explore, target)
        view = TorchView(target, np.dtype(jnp.result_type(float)).name)  # target.torch(), for all
        # The caller's own random numbers stay as they were.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence(_words(k_torch)).generate_state(1)[0]))
            law = Law.near(self, found, view.dtype)
            stats, notes = self._train(law, view, report)
            with torch.no_grad():
                x, log_q = law.weighable(n, self.defence)
                log_gamma = view.log_density(x)
        drawn = equally_weighted(jnp.asarray(x.numpy()))
        population = reweight(drawn, jnp.asarray((log_gamma - log_q).numpy()))
        require_alive(population, "importance sampling from the flow", 1.0)
        spent = found.gradients + self.batch * len(stats["loss"]) + n
        notes = (*found.notes, *notes)
        return Populated(population, spent, standard_error(population), stats, notes)

    def _train(
        self, law: Law, view: Any, report: Report
    ) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Adam on E_q[log q − β log γ − (1 − β) log N(m, F Fᵀ)]; the last good block is kept."""
        adam = torch.optim.Adam(law.flow.parameters(), lr=self.rate)
        good, losses, spreads = copy.deepcopy(law.flow.state_dict()), [], []
        notes: tuple[str, ...] = ()
        missed = 0
        for step in range(self.steps):
            at = (step + 0.5) / self.steps
            beta = min(1.0, at / max(self.anneal, 1e-9))
            adam.param_groups[0]["lr"] = self.rate * (0.505 + 0.495 * math.cos(math.pi * at))
            x, log_q, log_first = law.draw(self.batch)
            gap = log_q - beta * view.log_density(x) - (1 - beta) * log_first
            finite = torch.isfinite(gap)
            loss = gap[finite].mean() if finite.any() else torch.tensor(math.nan)
            adam.zero_grad()
            if finite.any():
                loss.backward()
            size = torch.nn.utils.clip_grad_norm_(law.flow.parameters(), CLIP)
            if torch.isfinite(loss) and torch.isfinite(size) and size > 0:
                adam.step()
            else:
                missed += 1
            losses.append(float(loss.detach()))
            spreads.append(float(gap[finite].detach().std()) if finite.sum() > 1 else math.inf)
            if (step + 1) % BLOCK == 0 or step + 1 == self.steps:
                lately = float(np.median(spreads[-BLOCK:]))
                if missed > BLOCK // 2 or not lately < LOST + min(spreads[0], LOST):
                    law.flow.load_state_dict(good)
                    notes = (
                        f"Training diverged before step {step + 1} of {self.steps}: the last good "
                        f"parameters are used. Lower the learning rate (rate={self.rate:g}).",
                    )
                    break
                good, missed = copy.deepcopy(law.flow.state_dict()), 0
                told = {"loss": losses[-1]}
                report(Progress("training", step + 1, self.steps, told, "steps"))
        return {"loss": np.array(losses), "spread": np.array(spreads)}, notes


@dataclass(frozen=True)
class Law:
    """x = m + F z with z from a flow of zuko; tensors of one dtype.

    Attributes
    ----------
    flow : zuko.flows.Flow
    mean : Tensor[d]
    factor : Tensor[d, d]
        F, lower triangular.
    """

    flow: Any
    mean: torch.Tensor
    factor: torch.Tensor

    @classmethod
    def near(cls, design: ZukoFlow, found: Any, dtype: torch.dtype) -> Law:
        """An untrained flow around the moments of the modes that were found."""
        mean, covariance = found.moments()
        dim = len(mean)
        settings: dict[str, Any] = {
            "transforms": design.layers,
            "hidden_features": (design.width, design.width),
        }
        if dim > 1:
            settings["passes"] = 2  # couplings: both directions in one pass
        if design.map == "spline":
            flow = zuko.flows.NSF(dim, bins=design.bins, **settings)
        else:
            flow = zuko.flows.MAF(dim, **settings)
        lower = np.linalg.cholesky(covariance)
        return cls(flow.to(dtype), *(torch.as_tensor(v, dtype=dtype) for v in (mean, lower)))

    @property
    def dim(self) -> int:
        """d."""
        return len(self.mean)

    @property
    def log_volume(self) -> torch.Tensor:
        """log |det F|."""
        return self.factor.diagonal().log().sum()

    def draw(self, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draws with log q and log N(m, F Fᵀ), differentiable: [n, d], [n], [n]."""
        z, log_q = self.flow().rsample_and_log_prob((n,))
        first = -0.5 * (z**2).sum(-1) - 0.5 * self.dim * LOG_2PI
        return self.mean + z @ self.factor.T, log_q - self.log_volume, first - self.log_volume

    def weighable(self, n: int, share: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws of (1 − ε) q + ε t, t a Student-t of twice the scale, with their log density."""
        z, _ = self.flow().rsample_and_log_prob((n,))
        if share > 0:
            normal = torch.randn(n, self.dim, dtype=z.dtype)
            chi2 = torch.distributions.Chi2(torch.tensor(DEGREES, dtype=z.dtype)).sample((n, 1))
            wide = WIDER * normal / (chi2 / DEGREES).sqrt()
            z = torch.where(torch.rand(n, 1, dtype=z.dtype) < share, wide, z)
        log_q = self.flow().log_prob(z)
        if share > 0:
            log_q = torch.logaddexp(log_q + math.log1p(-share), _student(z) + math.log(share))
        return self.mean + z @ self.factor.T, log_q - self.log_volume


def _student(z: torch.Tensor) -> torch.Tensor:
    """Log density of the wide Student-t at each row."""
    dim = z.shape[1]
    size = math.lgamma(0.5 * (DEGREES + dim)) - math.lgamma(0.5 * DEGREES)
    scale = dim * (math.log(WIDER) + 0.5 * math.log(DEGREES * math.pi))
    square = (z**2).sum(-1) / (WIDER**2 * DEGREES)
    return size - scale - 0.5 * (DEGREES + dim) * torch.log1p(square)


def _words(key: Any) -> list[int]:
    import jax

    return [int(word) for word in np.asarray(jax.random.key_data(key)).ravel()]
