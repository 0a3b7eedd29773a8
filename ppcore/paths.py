"""Paths between two laws, and the one formula for the weights of all that walks along them.

With laws γ_0 (normalised) … γ_K = γ, forward kernels F_k and backward kernels B_k,

    log w = log γ(x_K) − log γ_0(x_0) + Σ_k [log B_k(x_k | x_{k+1}) − log F_k(x_{k+1} | x_k)]

has E_F[w] = Z whatever F and B are (Jarzynski 1997, doi:10.1103/PhysRevLett.78.2690; Neal 2001,
arXiv:physics/9803008; Del Moral, Doucet & Jasra 2006, doi:10.1111/j.1467-9868.2006.00553.x).
The increments log G_k = log γ_{k+1}(x_{k+1}) − log γ_k(x_k) + log B_k − log F_k telescope to it,
so that a population may be resampled between them. :func:`follow` walks; a :class:`Transition`
is a choice of F and B.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.errors import UnsupportedError
from ppcore.population import Population, reweight


@runtime_checkable
class Path(Protocol):
    """Laws γ_b for b from 0 to 1; a pytree. ``b`` is a number or a leaf, never static."""

    @property
    def target(self) -> Any: ...

    @property
    def dim(self) -> int: ...

    def at(self, b: Any) -> Any:
        """γ_b as a :class:`ppcore.target.Target`."""
        ...

    @property
    def gauge(self) -> Any:
        """What compares temperatures: ``gauge.log_ratio(change, a, b)`` = log γ_b(x) − log γ_a(x).

        A pytree without the model, so that programs of it serve all models.
        """
        ...

    def change(self, x: Any) -> Any:
        """What the gauge needs to know of x: arrays; x: float[d]."""
        ...


def scaled(b: Any, log_g: Any) -> Any:
    """b · log_g with 0 · (−∞) = 0, since a density to the power zero is one.

    >>> float(scaled(0.0, -jnp.inf))
    0.0
    """
    return jnp.where(b == 0, 0.0, b * jnp.where(b == 0, 0.0, log_g))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Linear:
    """log γ_b − log γ_a = (b − a) · top · change."""

    top: Any

    def log_ratio(self, change: Any, a: Any, b: Any) -> Any:
        return scaled((b - a) * self.top, change)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cumulative:
    """log γ_b − log γ_a from the log likelihoods of the first 0 … m data: float[m + 1]."""

    def log_ratio(self, change: Any, a: Any, b: Any) -> Any:
        return self.seen(change, b) - self.seen(change, a)

    def seen(self, change: Any, b: Any) -> Any:
        """Log likelihood of the first b · m data, the last of them in part."""
        m = change.shape[0] - 1
        whole = jnp.clip(jnp.floor(b * m), 0, m).astype(int)
        rest = b * m - whole
        after = change[jnp.minimum(whole + 1, m)] - change[whole]
        return change[whole] + scaled(rest, after)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Between:
    """γ_b = source^(1−b) · target^b, as a target whose reference is ``source``.

    Attributes
    ----------
    source, target : Target
        ``source`` normalised, if evidence is wanted; it must be able to draw, if draws are.
    beta : float
        b.
    """

    source: Any
    target: Any
    beta: Any = 1.0

    @property
    def dim(self) -> int:
        return int(self.target.dim)

    @property
    def has_reference(self) -> bool:
        return bool(self.source.has_reference)

    def log_prior(self, x: Any) -> Any:
        return self.source.log_density(x)

    def log_likelihood(self, x: Any) -> Any:
        return self.target.log_density(x) - self.source.log_density(x)

    def log_density(self, x: Any) -> Any:
        from_source = scaled(1.0 - self.beta, self.source.log_density(x))
        return from_source + scaled(self.beta, self.target.log_density(x))

    def sample_reference(self, key: Any, n: int) -> Any:
        return self.source.sample_reference(key, n)

    def constrain(self, x: Any) -> dict[str, Any]:
        return self.target.constrain(x)

    def tempered(self, beta: Any) -> Between:
        return replace(self, beta=beta)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tempering:
    """γ_b = prior × likelihood^b of a target; of a :class:`Between`, the geometric path."""

    target: Any

    @property
    def dim(self) -> int:
        return int(self.target.dim)

    @property
    def gauge(self) -> Linear:
        return Linear(getattr(self.target, "beta", 1.0))

    def at(self, b: Any) -> Any:
        return self.target.tempered(b * self.gauge.top)

    def change(self, x: Any) -> Any:
        return self.target.log_likelihood(x)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DataTempering:
    """γ_b = prior × Π_i likelihood_i^{w_i}, w_i = clip(b m − i, 0, 1): the m data one by one.

    At b = j/m exactly the first j data have been seen. The target must have ``parts(x)``, which
    gives (log prior, one log-likelihood term per datum: float[m]).

    Each law is its own target: ``at(b).log_likelihood`` is that of the data seen so far.

    Source: Chopin 2002, doi:10.1093/biomet/89.3.539.
    """

    target: Any
    share: Any = 1.0

    @property
    def dim(self) -> int:
        return int(self.target.dim)

    @property
    def beta(self) -> float:
        """The likelihood seen so far counts as it is."""
        return 1.0

    @property
    def has_reference(self) -> bool:
        return bool(self.target.has_reference)

    @property
    def gauge(self) -> Cumulative:
        return Cumulative()

    def at(self, b: Any) -> DataTempering:
        return replace(self, share=b)

    def change(self, x: Any) -> Any:
        """Log likelihoods of the first 0 … m data; float[m + 1]."""
        terms = self.target.parts(x)[1]
        return jnp.concatenate([jnp.zeros(1, terms.dtype), jnp.cumsum(terms)])

    def log_prior(self, x: Any) -> Any:
        return self.target.log_prior(x)

    def log_likelihood(self, x: Any) -> Any:
        return self.gauge.seen(self.change(x), self.share)

    def log_density(self, x: Any) -> Any:
        return self.log_prior(x) + self.log_likelihood(x)

    def sample_reference(self, key: Any, n: int) -> Any:
        return self.target.sample_reference(key, n)

    def constrain(self, x: Any) -> dict[str, Any]:
        return self.target.constrain(x)


def data_path(target: Any) -> DataTempering:
    """The path that takes in the data of ``target`` one by one.

    Raises :class:`ppcore.errors.UnsupportedError` for a target whose likelihood has no terms.
    """
    if not hasattr(target, "parts"):
        raise UnsupportedError(
            "Data cannot be taken in one by one: this target does not split its likelihood. "
            "Temper it instead (path='temperature'), or give it parts(x) -> (log_prior, terms)."
        )
    return DataTempering(target)


def increment(old: Any, new: Any, x: Any, y: Any, log_b_over_f: Any) -> Any:
    """log G = log γ_new(y) − log γ_old(x) + [log B(x | y) − log F(y | x)]; float[].

    The formula of this module, of which every other weight is a case: reweighting in place
    (y = x, B = F), a map (log B/F = log |det ∂y/∂x|), a Langevin step with any backward kernel.
    """
    return new.log_density(y) - old.log_density(x) + log_b_over_f


@runtime_checkable
class Transition(Protocol):
    """A choice of F and B from γ_a to γ_b, one particle at a time.

    Attributes
    ----------
    early : bool
        log G depends on where the particle was only: then the population is weighed, and may be
        resampled, before it moves.
    """

    early: bool

    def weigh(self, path: Path, a: Any, b: Any, x: Any, params: Any) -> Any:
        """log G of an early transition; x: float[d] -> float[]."""
        ...

    def step(self, key: Any, path: Path, a: Any, b: Any, x: Any, params: Any) -> tuple[Any, Any]:
        """``(y, log G)`` with y ~ F(· | x); log G is ignored if early."""
        ...


@dataclass(frozen=True)
class Reversal:
    """F = Kⁿ, K invariant for γ_b, and B its reversal: log G = log γ_b(x) − log γ_a(x).

    log B(x | y) − log F(y | x) = log γ_b(x) − log γ_b(y) by invariance, so the general formula
    keeps no term of y. This is the transition of annealed importance sampling and of SMC.

    Parameters
    ----------
    kernel : Kernel
    steps : int
        n.
    """

    kernel: Any
    steps: int = 1
    early = True

    def weigh(self, path: Path, a: Any, b: Any, x: Any, params: Any) -> Any:
        return path.gauge.log_ratio(path.change(x), a, b)

    def step(self, key: Any, path: Path, a: Any, b: Any, x: Any, params: Any) -> tuple[Any, Any]:
        y, _ = apply(key, self.kernel, path.at(b), x, params, self.steps)
        return y, jnp.zeros((), x.dtype)


@dataclass(frozen=True)
class Markov:
    """F and B given by their log densities, as in Monte Carlo diffusions and learned samplers.

    Parameters
    ----------
    forward : callable
        ``(key, path, a, b, x, params) -> y``.
    log_b_over_f : callable
        ``(path, a, b, x, y, params) -> float[]``, log B(x | y) − log F(y | x).
    """

    forward: Callable[..., Any]
    log_b_over_f: Callable[..., Any]
    early = False

    def weigh(self, path: Path, a: Any, b: Any, x: Any, params: Any) -> Any:
        raise UnsupportedError("This transition is weighed after its step.")

    def step(self, key: Any, path: Path, a: Any, b: Any, x: Any, params: Any) -> tuple[Any, Any]:
        y = self.forward(key, path, a, b, x, params)
        ratio = self.log_b_over_f(path, a, b, x, y, params)
        return y, increment(path.at(a), path.at(b), x, y, ratio)


def apply(key: Any, kernel: Any, law: Any, x: Any, params: Any, steps: int) -> tuple[Any, Any]:
    """``steps`` transitions of one particle for ``law``: (x, info of each step)."""
    k_init, k_steps = random.split(key)
    state = kernel.init(k_init, law, x, params)

    def move(k: Any, state: Any, _: Any) -> tuple[Any, Any]:
        return kernel.step(k, law, state, params)

    state, info = random.scan(move, k_steps, state, jnp.zeros(steps), steps)
    return state.x, info


def follow(
    key: Any,
    path: Path,
    betas: Any,
    transition: Transition,
    population: Population,
    resample: Callable[[Any, Population], Population] | None = None,
    params: Any = (),
    params_vary: bool = False,
) -> Population:
    """Carry a population from γ_{b_0} to γ_{b_K}, properly weighted at each of them.

    Parameters
    ----------
    key : key or Script
    path : Path
    betas : float[K + 1]
        b_0 ≤ … ≤ b_K.
    transition : Transition
    population : Population
        Proper for γ_{b_0}.
    resample : callable, optional
        ``(key, population) -> population``, after each weighing.
    params : pytree
        For the transition; with ``params_vary``, with a leading axis of K.
    """
    betas = jnp.asarray(betas, population.x.dtype)
    count = betas.shape[0] - 1
    varying = params if params_vary else ()

    def weighed(k: Any, population: Population, log_g: Any) -> Population:
        population = reweight(population, log_g)
        return population if resample is None else resample(k, population)

    def advance(key: Any, population: Population, at: Any) -> tuple[Population, None]:
        a, b, own = at
        own = own if params_vary else params
        k_resample, k_move = random.split(key)
        if transition.early:
            log_g = jax.vmap(lambda x: transition.weigh(path, a, b, x, own))(population.x)
            population = weighed(k_resample, population, log_g)
        x, log_g = random.each(
            lambda k, x: transition.step(k, path, a, b, x, own), k_move, population.x
        )
        population = Population(x, population.log_weight, population.log_z)
        if not transition.early:
            population = weighed(k_resample, population, log_g)
        return population, None

    xs = (betas[:-1], betas[1:], varying)
    return random.scan(advance, key, population, xs, count)[0]
