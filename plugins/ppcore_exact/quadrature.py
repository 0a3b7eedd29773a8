"""The engine that integrates what it can, and lays a lattice over the parameters that are left."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import jax
import numpy as np

from ppcore import precision
from ppcore.contract import Contract, Density
from ppcore.errors import SettingsError, did_you_mean
from ppcore.exact import NotExact
from ppcore.exact.protocol import generator
from ppcore.model_target import ModelTarget
from ppcore.rewrite.algebra import algebra
from ppcore.rewrite.build import unobserved
from ppcore.rewrite.lattice_draws import draw
from ppcore.rewrite.protocol import Problem, Rewriting, restore, rewrite
from ppcore.rewrite.quadrature import AT_MOST, Lattice, NoQuadrature, integrate

BATCH = {1: 128, 2: 512, 3: 2048}
"""Lattice points that one call of the compiled density takes."""


@dataclass(frozen=True)
class Quadrature:
    """Draws are independent and follow the posterior, up to the stated error of an integral.

    The model is rewritten first (sufficient statistics; coefficients, group effects and conjugate
    sites integrated out). If at most three parameters φ remain, γ(φ) is integrated on a lattice, φ
    is drawn from it, and the other sites from p(· | φ, y), exactly.

    Parameters
    ----------
    tolerance : float
        Change of log p(y) at a halving of the lattice below which it is fine enough.
    without : tuple of str
        Names of rewrites not to apply.

    >>> import ppcore as pp
    >>> from ppcore import dist
    >>> @pp.model
    ... def line(x):
    ...     slope = pp.sample("slope", dist.Normal(0, 1))
    ...     scale = pp.sample("scale", dist.HalfNormal(1))
    ...     pp.sample("y", dist.Normal(slope * x, scale))
    >>> x = np.array([-1.0, 0.0, 1.0, 2.0])
    >>> fit = line(x).observe(y=2 * x + 0.1).infer(Quadrature(), seed=0)
    >>> round(float(fit.solution.marginal("scale").mean), 3)
    0.204
    """

    tolerance: float = 1e-6
    without: tuple[str, ...] = ()
    contract: ClassVar[Contract] = Density()
    default_draws: ClassVar[int] = 1000

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1:
            raise SettingsError(f"tolerance={self.tolerance!r} must lie between 0 and 1.")

    def solve(self, target: Any) -> QuadratureSolution:
        """The posterior of a model's target.

        Raises
        ------
        NotExact
            More than three parameters remain, none does, or their density does not fall off.
        """
        if not isinstance(target, ModelTarget):
            raise NotExact(
                "quadrature",
                type(target).__name__,
                "it is a bare density, with no boxes to integrate. Declare it with @pp.model.",
            )
        return self.finish(target, rewrite(Problem.of(target), algebra(self.without)))

    def finish(self, target: ModelTarget, found: Rewriting) -> QuadratureSolution:
        """The posterior of a target that has been rewritten; raises as :meth:`solve` does."""
        reduced = ModelTarget(found.problem.diagram, (), found.problem.data, ())
        if not 1 <= reduced.dim <= AT_MOST:
            left = ", ".join(reduced.latents) or "nothing"
            raise NotExact(
                "quadrature",
                left,
                f"{reduced.dim} parameters remain after the rewrites; it takes one to {AT_MOST}. "
                "Use a sampling engine, or 'exact' if nothing remains.",
            )
        evaluate = Batched(reduced)
        try:
            lattice = integrate(evaluate, reduced.dim, self.tolerance)
        except NoQuadrature as reason:
            raise NotExact("quadrature", ", ".join(reduced.latents), str(reason)) from None
        return QuadratureSolution(target, reduced, found, lattice, evaluate)


@dataclass(frozen=True, eq=False)
class Batched:
    """log γ of a target at float[n, d], by one compiled program whatever n is."""

    target: ModelTarget

    def __call__(self, x: np.ndarray) -> np.ndarray:
        size = BATCH[x.shape[1]]
        out = []
        for start in range(0, len(x), size):
            part = x[start : start + size]
            padded = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            out.append(np.asarray(_log_density()(self.target, padded))[: len(part)])
        return np.concatenate(out)


@dataclass(frozen=True, eq=False)
class QuadratureSolution:
    """The posterior as a lattice over φ and exact conditionals of the other sites.

    Attributes
    ----------
    target, reduced : ModelTarget
        Before and after the rewrites.
    found : Rewriting
    lattice : Lattice
    evaluate : callable
        log γ(φ), batched.
    """

    target: ModelTarget
    reduced: ModelTarget
    found: Rewriting
    lattice: Lattice
    evaluate: Batched
    solver: ClassVar[str] = "quadrature"

    @property
    def log_evidence(self) -> float:
        """log p(evidence)."""
        return self.lattice.log_z + self.found.log_constant

    @property
    def log_evidence_error(self) -> float:
        """By how much the last halving of the lattice moved it."""
        return self.lattice.error

    @property
    def sites(self) -> tuple[str, ...]:
        """All sites that are not observed."""
        joint = self.target.joint
        return tuple(str(n) for n in joint.output_names if n not in self.target.observed)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was integrated, and how finely."""
        size, error = len(self.lattice.cells), self.lattice.error
        first = (
            f"Independent draws: {', '.join(self.reduced.latents)} on a lattice of {size} points "
            f"(its last halving moved log p(y) by {error:.0e})."
        )
        return (first, *(f"{name}: {line}" for name, applied, line in self.found.log if applied))

    def sample(self, key: Any, n: int) -> dict[str, np.ndarray]:
        """``n`` independent draws of all sites: {site: array[n, *shape]}."""
        rng = generator(key)
        x = draw(self.evaluate, self.lattice, rng, n)
        return self._values(x, self.found.noise(rng, n), rng)

    def marginal(self, site: str) -> Moments:
        """Mean and variance of a site, summed over the lattice.

        Raises :class:`ppcore.exact.NotExact` for a site that is integrated out: its law is a
        mixture over the lattice, which the draws represent.
        """
        if site not in self.sites:
            raise SettingsError(f"There is no site {site!r}. {did_you_mean(site, self.sites)}")
        if site not in self.reduced.latents:
            raise NotExact("quadrature", site, "its law is a mixture; use the draws of it.")
        points = self.lattice.points
        with precision.scope("float64"):
            values = np.asarray(_constrained()(self.reduced, points)[site])
        mean = np.tensordot(self.lattice.weights, values, 1)
        return Moments(mean, np.tensordot(self.lattice.weights, (values - mean) ** 2, 1))

    def _values(self, x: np.ndarray, noise: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
        words = rng.integers(0, 2**32, (len(x), 2), dtype="uint32")
        keys = jax.random.wrap_key_data(jax.numpy.asarray(words))
        target = self.target
        if not target.labels:  # the evidence has done its work, and is not handed on
            bare = unobserved(Problem.of(target))
            target = ModelTarget(bare.diagram, (), bare.data, ())
        made = _restored()(target, self.found.recoveries, keys, noise, x)
        return {name: np.asarray(value) for name, value in made.items()}


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and variance of a site: float[*shape] each."""

    mean: np.ndarray
    variance: np.ndarray


@cache
def _log_density() -> Any:
    return jax.jit(lambda target, x: jax.vmap(target.log_density)(x))


@cache
def _constrained() -> Any:
    return jax.jit(lambda target, x: jax.vmap(target.constrain)(x))


@cache
def _restored() -> Any:
    def one(target: ModelTarget, recoveries: Any, key: Any, noise: Any, x: Any) -> Any:
        full = restore(recoveries, noise, x)
        return target.complete(key, full) if target.labels else target.constrain(full)

    return jax.jit(jax.vmap(one, (None, None, 0, 0, 0)))
