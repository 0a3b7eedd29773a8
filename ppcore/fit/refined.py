"""Fits from a learnt density at some data: its draws, weighed ones, or carried by SMC."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import precision
from ppcore.contract import Contract, Density, importance
from ppcore.engine import Populated, Progress, Report
from ppcore.fit import direct
from ppcore.fit.fit import Fit
from ppcore.fit.infer import infer
from ppcore.fit.record import record
from ppcore.paths import Between
from ppcore.population import equally_weighted, require_alive, reweight
from ppcore.report import SamplingWarning
from ppcore.run.keys import Keys
from ppcore.run.loop import RunResult
from ppcore.semantics.log_density import unconstrain

if TYPE_CHECKING:
    from ppcore.fit.amortised import Amortised
    from ppcore.fit.joint import Joint


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class At:
    """q(· | y) at one y, as a target to anneal from and a law to draw from."""

    density: Any
    y: Any

    @property
    def dim(self) -> int:
        return int(self.density.dim)

    @property
    def has_reference(self) -> bool:
        return True

    def log_density(self, x: Any) -> Any:
        """log q(x | y); float[d] -> float[]."""
        return self.density.log_prob(x, self.y)

    def sample_reference(self, key: Any, n: int) -> Any:
        """``n`` draws; float[n, d]."""
        return self.density.sample(key, self.y, n)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FromLearnt(Between):
    """The path from q(· | y) to the posterior; sites are the posterior's."""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.target.labels)

    @property
    def site_slices(self) -> dict[str, slice]:
        return dict(self.target.site_slices)

    def complete(self, key: Any, x: Any) -> dict[str, Any]:
        return dict(self.target.complete(key, x))


@dataclass(frozen=True)
class Weighed:
    """x_i ~ q(· | y), w_i = γ(x_i)/q(x_i | y): E[Ẑ] = Z, whatever training did.

    Source: Dax et al. 2023, arXiv:2210.05686 (importance sampling from an amortised posterior).
    """

    at: At
    default_chains: ClassVar[int] = 4
    default_draws: ClassVar[int] = 1000
    stage: ClassVar[None] = None

    @property
    def contract(self) -> Contract:
        return importance(Density())

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted draws; see :class:`ppcore.engine.PopulationEngine`."""
        population = weigh(key, self.at, target, n)
        require_alive(population, "importance sampling from the learnt posterior", 1.0)
        report(Progress("sampling", n, n, unit="particles"))
        error = float(jnp.maximum(n / population.ess - 1.0, 0.0) / n) ** 0.5
        return Populated(population, n, error)


@jax.jit(static_argnames="n")
def weigh(key: Any, law: Any, target: Any, n: int) -> Any:
    """Draws of ``law`` with weights γ/q, as a population."""
    x = law.sample_reference(key, n)
    log_q = jax.vmap(law.log_density)(x)
    log_gamma = jax.vmap(lambda t, v: t.log_density(v), (None, 0))(target, x)
    return reweight(equally_weighted(x), log_gamma - log_q)


class Carried:
    """A model whose target begins at a learnt density; all else is the model's."""

    def __init__(self, model: Any, at: At) -> None:
        self._model, self._at = model, at

    def target(self, precision: str = "float64") -> FromLearnt:
        """The path from q to the posterior."""
        return FromLearnt(self._at, self._model.target(precision))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def corrected(
    learnt: Amortised, model: Any, y: np.ndarray, draws: int, chains: int, seed: int, how: str
) -> Fit:
    """The fit by importance weights or by SMC from q."""
    with precision.scope("float64"):
        at = At(learnt.density, jnp.asarray(y))
        run = {"draws": draws, "chains": chains, "seed": seed, "progress": "off"}
        if how == "importance":
            fit = infer(model, Weighed(at), **run)  # type: ignore[arg-type]
        else:
            fit = infer(Carried(model, at), "smc", **run)  # type: ignore[arg-type]
    fit.attrs |= {"engine": f"{learnt.attrs['engine']}, {how}", "model": model.name}
    return fit


def plain(
    learnt: Amortised, model: Any, y: np.ndarray, draws: int, chains: int, seed: int, said: str
) -> Fit:
    """The fit of draws from q as they are."""
    began = time.perf_counter()
    x = learnt.draws_at(y, chains * draws, Keys(seed).block(0))
    shaped = x.reshape(chains, draws, -1)
    seconds = time.perf_counter() - began
    note = f"Independent draws from a density learnt from {learnt.attrs['simulations']} simulations"
    result = RunResult(
        x=shaped,
        stats={},
        tuned=None,
        gradients={"warmup": 0, "sampling": 0},
        notes=(note + "; nothing was corrected at the data.", *learnt.notes),
        timings={
            "warmup_seconds": 0.0,
            "first_draw_seconds": seconds,
            "sampling_seconds": seconds,
            "total_seconds": seconds,
        },
    )
    health = replace(direct.HEALTHY, warnings=(said,) if said else ())
    name = f"{learnt.attrs['engine']}, none"
    attrs = record(model, learnt.engine, name, result, health, seed, "float64")
    drawn = sites(learnt.joint, model, x)
    attrs["latents"] = [n for n in drawn if n in learnt.joint.sites]
    attrs["deterministics"] = [n for n in drawn if n not in learnt.joint.sites]
    attrs["observed"] = list(model.observed)
    values = {k: v.reshape(chains, draws, *v.shape[1:]) for k, v in drawn.items()}
    return Fit(attrs, model=model, result=result, values=lambda: values)


def sites(joint: Joint, model: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """x: float[n, d] -> {site: array[n, ...]}."""
    with precision.scope("float64"):
        drawn = _constrained()(Frozen(joint), model.target(), jnp.asarray(x))
        found = {name: np.asarray(value) for name, value in drawn.items()}
    for name, value in found.items():
        if not np.isfinite(value).all():
            warnings.warn(f"Site {name!r} overflows in some draws.", SamplingWarning, stacklevel=4)
    return found


@dataclass(frozen=True)
class Frozen:
    """A joint as a static argument: its parts that decide a program, compared by value."""

    joint: Joint

    def __hash__(self) -> int:
        return hash((self.joint.sites, self.joint.index))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frozen):
            return False
        mine, theirs = self.joint, other.joint
        return (mine.sites, mine.index) == (theirs.sites, theirs.index)


@cache
def _constrained() -> Any:
    def run(frozen: Frozen, target: Any, x: Any) -> Any:
        return jax.vmap(lambda v: frozen.joint.constrained(target, v))(x)

    return jax.jit(run, static_argnums=0)


def own_density(
    learnt: Amortised, model: Any, y: np.ndarray, theta: Mapping[str, Any]
) -> np.ndarray:
    """log q(θ | y) − log |∂θ/∂x| for each θ: float[n]."""
    joint = learnt.joint
    with precision.scope("float64"):
        target = model.target()
        own = {n: jnp.asarray(theta[n], float) for n in joint.sites}
        lead = next(iter(own.values())).shape[0]
        fill = {
            n: jnp.zeros((lead, *joint.model.spaces[n].shape))
            for n in target.latents
            if n not in own
        }

        def one(given: dict[str, Any]) -> Any:
            full = unconstrain(target.diagram, target.inputs, given)
            x = full[jnp.array(joint.index)]
            return learnt.density.log_prob(x, jnp.asarray(y)) - joint.log_jacobian(target, x)

        return np.asarray(jax.jit(jax.vmap(one))({**own, **fill}))
