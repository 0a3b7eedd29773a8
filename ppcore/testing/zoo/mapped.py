"""Mutants of maps, densities, amortised posteriors and rewrites."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy import stats

from ppcore.contract import Amortised, Contract, Density, Transport
from ppcore.testing.reference.maps import (
    Affine,
    Coupling,
    ExactPosterior,
    GaussianMixture,
    Pushed,
    SinhArcsinh,
    sum_out_last,
)
from ppcore.testing.subject import Subject
from ppcore.testing.zoo.entry import Animal


class LogDetSignFlipped(Coupling):
    def forward_log_det(self, u: Any) -> Any:
        return -self.scale(u)

    def inverse_log_det(self, u: Any) -> Any:
        return self.scale(u)


class LogDetForgotten(Coupling):
    def forward_log_det(self, u: Any) -> Any:
        return jnp.zeros(())

    def inverse_log_det(self, u: Any) -> Any:
        return jnp.zeros(())


class InverseOff(Coupling):
    """Inverts the scale before the shift."""

    def inverse(self, y: Any) -> tuple[Any, Any]:
        u = y[1]
        return jnp.stack([u, y[0] * jnp.exp(-self.scale(u)) - self.shift(u)]), -self.scale(u)


class FirstCoordinateOnly(SinhArcsinh):
    def slope(self, x: Any, a: float) -> Any:
        return super().slope(x, a)[:1]


class DeterminantNotLogged(Affine):
    def log_det(self) -> Any:
        return jnp.exp(super().log_det())


class InverseMapDensity(Pushed):
    """Evaluates the density of the inverse map."""

    def log_prob(self, x: Any) -> Any:
        z, log_det = self.map.forward(x)
        return stats.norm.logpdf(z).sum() + log_det


class LogDetMissing(Pushed):
    def log_prob(self, x: Any) -> Any:
        return stats.norm.logpdf(self.map.inverse(x)[0]).sum()


class Unnormalised(GaussianMixture):
    def log_prob(self, x: Any) -> Any:
        return super().log_prob(x) + 0.3


class WideSampler(GaussianMixture):
    def sample(self, key: Any, n: int) -> Any:
        return 1.1 * super().sample(key, n)


class DetachedDensity(Pushed):
    """The gradient does not flow through the map."""

    def log_prob(self, x: Any) -> Any:
        z, log_det = self.map.inverse(x)
        return stats.norm.logpdf(jax.lax.stop_gradient(z)).sum() + log_det


@dataclass(frozen=True)
class PriorForPosterior:
    """Ignores the data; its ranks of θ are uniform, those of the likelihood are not."""

    contract: Contract = Amortised()

    def draw(self, key: Any, target: Any, n: int) -> Any:
        return target.sample_reference(key, n)


class ForgetsHalf(ExactPosterior):
    """Uses only the first half of the data."""

    def draw(self, key: Any, target: Any, n: int) -> Any:
        half = replace(target, y=target.y[: target.y.shape[0] // 2])
        return super().draw(key, half, n)


def maximised(target: Any) -> Any:
    """Takes the maximum over the last coordinate where it should sum."""
    joint = (target.table_prior + target.table_likelihood).max(axis=-1)
    return replace(target, table_prior=jnp.zeros_like(joint), table_likelihood=joint), tuple(
        range(target.dim - 1)
    )


def normalised(target: Any) -> Any:
    """Sums out the last coordinate, and loses the evidence on the way."""
    after, keep = sum_out_last(target)
    table = after.table_likelihood
    return replace(after, table_likelihood=table - jax.nn.logsumexp(table)), keep


def prior_only(target: Any) -> Any:
    """Prunes a box that carries evidence."""
    after, keep = sum_out_last(target.tempered(jnp.zeros(())))
    shift = jax.nn.logsumexp(target.log_gamma)
    return replace(after, table_likelihood=after.table_likelihood + shift), keep


def mapped(name: str, tmap: Any) -> Subject:
    """A map under test."""
    return Subject(name, Transport(), map=tmap)


def dense(name: str, density: Any) -> Subject:
    """A density under test."""
    return Subject(name, Density(), density=density)


def amortised(name: str, amortiser: Any) -> Subject:
    """An amortised posterior under test."""
    return Subject(name, Amortised(), amortiser=amortiser)


def rewritten(name: str, rewrite: Any) -> Subject:
    """A rewrite under test; it promises equality rather than a contract."""
    return Subject(name, Contract(), rewrite=rewrite)


MUTANTS = (
    Animal(
        mapped("log_det_sign_flipped", LogDetSignFlipped()),
        "both log-determinants have the wrong sign",
        killers=("transport",),
    ),
    Animal(
        mapped("log_det_forgotten", LogDetForgotten()),
        "the log-determinant is zero",
        killers=("transport",),
    ),
    Animal(
        mapped("inverse_off", InverseOff()),
        "the inverse undoes scale and shift in the wrong order",
        killers=("transport",),
    ),
    Animal(
        mapped("log_det_one_coordinate", FirstCoordinateOnly()),
        "the log-determinant counts one coordinate",
        killers=("transport",),
    ),
    Animal(
        mapped("log_det_not_logged", DeterminantNotLogged()),
        "the determinant in place of its log",
        killers=("transport",),
    ),
    Animal(
        dense("inverse_map_density", InverseMapDensity(Coupling())),
        "the density of the inverse map",
        killers=("goodness", "normalisation"),
    ),
    Animal(
        dense("density_log_det_missing", LogDetMissing(Coupling())),
        "a pushed density without its log-determinant",
        killers=("goodness", "normalisation"),
    ),
    Animal(
        dense("density_unnormalised", Unnormalised()),
        "off by a factor 1.35",
        killers=("normalisation",),
    ),
    Animal(
        dense("sampler_too_wide", WideSampler()),
        "samples are 1.1 times too wide",
        killers=("goodness",),
    ),
    Animal(
        dense("mixture_weights_swapped", GaussianMixture(weights=(0.7, 0.3))),
        "the density swaps the mixture's weights",
        killers=("goodness",),
    ),
    Animal(
        dense("gradient_detached", DetachedDensity(Coupling())),
        "the gradient skips the map",
        killers=("gradient",),
    ),
    Animal(
        amortised("posterior_too_narrow", ExactPosterior(narrow=0.8)),
        "an amortised posterior 20 % too narrow",
        killers=("calibration",),
    ),
    Animal(
        amortised("posterior_shifted", ExactPosterior(shift=0.2)),
        "an amortised posterior shifted by 0.2 sd",
        killers=("calibration",),
    ),
    Animal(
        amortised("posterior_is_prior", PriorForPosterior()),
        "an amortised posterior that ignores the data",
        killers=("calibration", "calibration_at_data"),
    ),
    Animal(
        amortised("posterior_forgets_half", ForgetsHalf()),
        "an amortised posterior given half the data",
        killers=("calibration",),
    ),
    Animal(
        rewritten("maximised_out", maximised),
        "a rewrite that maximises where it should sum",
        killers=("rewrite",),
    ),
    Animal(
        rewritten("evidence_lost", normalised),
        "a rewrite that loses the evidence",
        killers=("rewrite",),
    ),
    Animal(
        rewritten("evidence_pruned", prior_only),
        "a rewrite that prunes a likelihood factor",
        killers=("rewrite",),
    ),
)
