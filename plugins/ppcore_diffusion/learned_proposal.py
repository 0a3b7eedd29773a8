"""What the engines that learn from draws share: where draws come from, a guard, and weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random, registry
from ppcore.contract import Contract, Density
from ppcore.engine import Populated, Progress, Report
from ppcore.errors import SettingsError, UnsupportedError
from ppcore.population import Population, equally_weighted, require_alive, reweight
from ppcore.settings import check_count
from ppcore_diffusion.discrete_flow import Affine
from ppcore_diffusion.samples import Samples, samples_of

DEGREES, WIDER = 3.0, 2.0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StudentT:
    """shift + factor t, t spherical Student-t with three degrees of freedom.

    Attributes
    ----------
    axes : Affine
    """

    axes: Affine
    contract: ClassVar[Contract] = Density()

    @property
    def dim(self) -> int:
        return self.axes.dim

    def sample(self, key: Any, n: int) -> Any:
        """``n`` independent draws; float[n, d]."""
        z = random.normal(key, (n, self.dim + int(DEGREES)))
        # χ² of three degrees from three normals: no gamma generator to compile.
        chi2 = jnp.sum(z[:, self.dim :] ** 2, axis=1, keepdims=True)
        u = z[:, : self.dim] * jnp.sqrt(DEGREES / chi2)
        return jax.vmap(lambda v: self.axes.forward(v)[0])(u)

    def log_prob(self, x: Any) -> Any:
        """log q(x); float[d] -> float[]."""
        u, log_det = self.axes.inverse(x)
        d = self.dim
        gamma = jax.scipy.special.gammaln
        norm = (
            gamma(0.5 * (DEGREES + d)) - gamma(0.5 * DEGREES) - 0.5 * d * jnp.log(DEGREES * jnp.pi)
        )
        return norm - 0.5 * (DEGREES + d) * jnp.log1p(jnp.sum(u**2) / DEGREES) + log_det


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Guarded:
    """(1 − ε) q + ε g: weights are bounded by those of the wide, heavy-tailed g over ε.

    Attributes
    ----------
    density, guard : Normalised
        q and g; q with ``sample_and_log_prob``.
    share : float
        ε; static.

    Source: Hesterberg 1995, doi:10.1080/00401706.1995.10484303; Owen & Zhou 2000,
    doi:10.1080/01621459.2000.10473909.
    """

    density: Any
    guard: Any
    share: float = field(metadata={"static": True})
    contract: ClassVar[Contract] = Density()

    @property
    def dim(self) -> int:
        return int(self.density.dim)

    def counted(self, key: Any, n: int) -> tuple[Any, Any]:
        """n − m draws of q and m = ⌈εn⌉ of g, and log((1 − m/n) q + (m/n) g) at all of them.

        Σ_i γ(x_i)/(n q_m(x_i)) has the mean Z with fixed counts, as it has with counts that are
        drawn; and only m points have to go back through the map. float[n, d], float[n].

        Source: Veach & Guibas 1995, doi:10.1145/218380.218498 (the balance heuristic).
        """
        m = min(n - 1, math.ceil(self.share * n))
        if m == 0:
            x, log_q = self.density.sample_and_log_prob(key, n)
            return x, log_q
        k_density, k_guard = random.split(key)
        own, log_own = self.density.sample_and_log_prob(k_density, n - m)
        other = self.guard.sample(k_guard, m)
        log_other = jax.vmap(self.density.log_prob)(other)
        x = jnp.concatenate([own, other])
        log_q = jnp.log1p(-m / n) + jnp.concatenate([log_own, log_other])
        return x, jnp.logaddexp(log_q, jnp.log(m / n) + jax.vmap(self.guard.log_prob)(x))

    def sample_and_log_prob(self, key: Any, n: int) -> tuple[Any, Any]:
        """Independent draws and their log density: float[n, d], float[n]."""
        x = self.sample(key, n)
        return x, jax.vmap(self.log_prob)(x)

    def sample(self, key: Any, n: int) -> Any:
        """``n`` independent draws; float[n, d]."""
        k_which, k_density, k_guard = random.split(key, 3)
        from_guard = random.bernoulli(k_which, self.share, (n,))
        own, other = self.density.sample(k_density, n), self.guard.sample(k_guard, n)
        return jnp.where(from_guard[:, None], other, own)

    def log_prob(self, x: Any) -> Any:
        """log((1 − ε) q(x) + ε g(x)); float[d] -> float[]."""
        own = math.log1p(-self.share) + self.density.log_prob(x)
        return jnp.logaddexp(own, math.log(self.share) + self.guard.log_prob(x))


def guarded(density: Any, samples: Samples, share: float) -> Any:
    """``density`` with ``share`` of the draws from a Student-t twice as wide as ``samples``."""
    if share <= 0:
        return density
    shift, factor = samples.moments()
    dtype = jnp.result_type(float)
    axes = Affine(jnp.asarray(shift, dtype), jnp.asarray(WIDER * factor, dtype))
    return Guarded(density, StudentT(axes), float(share))


def weigh(key: Any, density: Any, target: Any, n: int) -> Population:
    """x_i ~ q, w_i = γ(x_i)/q(x_i), log Ẑ = log mean w: properly weighted whatever q is.

    Draws where γ is NaN count as impossible.
    """
    draw = getattr(density, "counted", density.sample_and_log_prob)
    x, log_q = draw(key, n)
    log_gamma = jax.vmap(lambda t, v: t.log_density(v), (None, 0))(target, x)
    log_w = jnp.where(jnp.isnan(log_gamma), -jnp.inf, log_gamma) - log_q
    return reweight(equally_weighted(x), log_w)


weighed = partial(jax.jit, static_argnames="n")(weigh)


def populated(
    key: Any,
    proposal: Any,
    target: Any,
    n: int,
    report: Report,
    spent: int,
    stats: dict[str, Any],
    notes: tuple[str, ...],
) -> Populated:
    """``n`` weighted draws of ``proposal``; ``spent`` gradients went before.

    Raises :class:`ppcore.errors.PopulationError` if all weights vanish.
    """
    population = weighed(key, proposal, target, n)
    require_alive(population, "importance sampling from what was learned", 1.0)
    report(Progress("sampling", n, n, unit="particles"))
    error = float(jnp.maximum(n / population.ess - 1.0, 0.0) / n) ** 0.5
    return Populated(population, spent + n, error, stats, notes)


@dataclass(frozen=True)
class Learning:
    """Draws to learn from, and what they cost."""

    samples: Samples
    gradients: int = 0
    notes: tuple[str, ...] = ()


def check_earlier(earlier: Any, warm: Any, pilots: Any) -> None:
    """Whether ``earlier`` draws can be learned from, or else ``warm`` is the name of an engine.

    Raises :class:`ppcore.errors.SettingsError`.
    """
    check_count("pilots", pilots, 16)
    if earlier is not None:
        samples_of(earlier, "earlier")
    elif not isinstance(warm, str):
        raise SettingsError(f"warm={warm!r} must be the name of a population engine, like 'smc'.")


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


def fresh(key: Any) -> np.random.Generator:
    """A generator for the host."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
