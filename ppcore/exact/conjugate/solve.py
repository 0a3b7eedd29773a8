"""Conjugate models: find the pairs in the diagram, add up statistics, name the posteriors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ppcore import precision
from ppcore.diagram import Diagram, Hole
from ppcore.dist import Description
from ppcore.errors import ModelError, did_you_mean
from ppcore.exact.conjugate import beta, dirichlet, gamma, gaussian, inverse_gamma, wishart
from ppcore.exact.conjugate.forms import (
    SOLVER,
    Affine,
    Known,
    Monomial,
    Other,
    Site,
    Sites,
    read,
    stripped,
)
from ppcore.exact.conjugate.gaussian import KNOWN, GaussianPart, Noise
from ppcore.exact.conjugate.pair import Evidence, Parameters
from ppcore.exact.protocol import NamedMarginal, NotExact, generator
from ppcore.semantics.interpret import distribution_of

FAMILIES: tuple[ModuleType, ...] = (beta, gamma, inverse_gamma, dirichlet)
_POWER = {gamma: 1.0, inverse_gamma: -1.0}


def solve_conjugate(
    joint: Diagram, data: Sequence[Any], evidence: Mapping[str, Any]
) -> ConjugateSolution:
    """The posterior of a model made of conjugate pairs.

    A parameter may enter its likelihoods directly, through an index, or through scalings and powers
    (``np.sqrt(v)``, ``1 / t``, ``exposure * rate``). Gaussian sites whose scales are all known, or
    all proportional to one unknown standard deviation, are solved jointly (regression). Sites
    without evidence below them are drawn forward.

    Parameters
    ----------
    joint, data, evidence
        See :mod:`ppcore.exact`.

    Raises
    ------
    NotExact
        Evidence depends on something that is part of no pair, naming it.

    >>> import ppcore as pp
    >>> from ppcore import dist
    >>> @pp.model
    ... def coin():
    ...     p = pp.sample("p", dist.Beta(1, 1))
    ...     with pp.plate("toss", 3):
    ...         pp.sample("heads", dist.Bernoulli(p))
    >>> coin().observe(heads=[1, 1, 0]).solve(["conjugate"]).marginal("p").distribution
    Beta(concentration1=array(3.), concentration0=array(2.))
    """
    given = {n: np.asarray(v) for n, v in evidence.items()}
    with precision.scope("float64"):
        sites = read(joint, data, given)
        return ConjugateSolution(sites, joint, tuple(data), given)


class ConjugateSolution:
    """p(sites | evidence) of conjugate pairs; see :class:`ppcore.exact.protocol.Solution`."""

    solver = SOLVER

    def __init__(
        self, sites: Sites, joint: Diagram, data: tuple[Any, ...], evidence: dict[str, Any]
    ):
        self._sites, self._joint, self._data, self._evidence = sites, joint, data, evidence
        self.sites = tuple(
            str(n) for n in joint.output_names if n is not None and n not in evidence
        )
        self._matrices, done = wishart.solve_matrices(sites)
        self._gaussian: GaussianPart = gaussian.solve_rows(sites, done)
        self.families: dict[str, ModuleType] = {}
        self.parameters: dict[str, Parameters] = {}
        log = sites.constant + self._gaussian.log + sum(p.log for p in self._matrices)
        pairs, known = _pairs(sites, done)
        log += sum(_log_prob(site, joint) for site in known)
        for name, site in sites.latent.items():
            log += self._update(name, site, pairs.pop(name, []))
        for name, rest in pairs.items():
            raise NotExact(SOLVER, name, _no_prior(sites.latent[name], rest[0]))
        unknown = {name for name, _ in self._gaussian.half} - {"", *self.families}
        for name in unknown:
            raise NotExact(SOLVER, name, "its prior depends on other random values.")
        self.log_evidence = float(log)

    def _update(self, name: str, site: Site, evidence: list[Evidence]) -> float:
        """Find the family of a site and move its parameters; the log evidence."""
        noisy = any(n == name for n, _ in self._gaussian.half)
        for family in FAMILIES:
            try:
                prior = family.prior(site)
            except NotExact:
                if evidence or noisy:
                    raise
                return 0.0
            if prior is None:
                continue
            if family in _POWER:
                more = self._gaussian.exponents(name, site.space.size)
                made, log = gamma.update_with(prior, evidence, _POWER[family], more)
            else:
                made, log = family.update(prior, evidence)
            self.families[name], self.parameters[name] = family, made
            return float(log)
        if evidence:
            raise NotExact(SOLVER, name, _no_prior(site, evidence[0]))
        return 0.0

    def _variance(self, noise: Noise) -> tuple[float, float] | None:
        """(a, b) of v ~ InverseGamma(a, b), or None for known noise."""
        if noise == KNOWN:
            return None
        found = self.parameters[noise[0]]
        return float(found["a"][noise[1]]), float(found["b"][noise[1]])

    def marginal(self, site: str) -> NamedMarginal:
        """The named law of one site.

        Raises :class:`ModelError` for an unknown name, :class:`NotExact` for a site whose law has
        no name: use draws of it.
        """
        if site not in self.sites:
            raise ModelError(
                f"The model has no unobserved site {site!r}. {did_you_mean(site, self.sites)}"
            )
        found = self._named(site)
        if found is None:
            raise NotExact(SOLVER, site, "its law given the evidence has no name. Use draws of it.")
        return NamedMarginal(found)

    def _named(self, site: str) -> Description | None:
        latent = self._sites.latent.get(site)
        if site in self.families:
            assert latent is not None
            family: Any = self.families[site]
            found: Description = family.describe_posterior(self.parameters[site], latent)
            return found
        for part in self._matrices:
            if part.site.name == site:
                return part.description()
            if any(m.site == site for m in part.means):
                assert latent is not None
                return part.mean_description(site, latent.space.shape)
        form = self._sites.computed.get(site)
        if latent is not None and site in self._sites.offsets and site not in self._gaussian.free:
            start, n = self._sites.offsets[site], latent.space.size
            columns = np.zeros((self._sites.dim, n))
            columns[start : start + n] = np.eye(n)
            shape = latent.space.shape
            form = Affine(np.zeros(shape), columns.reshape(-1, *shape))
        if isinstance(form, Affine) and self._covered(form):
            return gaussian.marginal(form, self._gaussian, self._variance)
        return None

    def _covered(self, form: Affine) -> bool:
        columns = form.columns.reshape(len(form.columns), -1).any(1)
        at = [c.at for c in self._gaussian.components]
        return set(np.flatnonzero(columns)) <= set(np.concatenate([np.zeros(0, int), *at]).tolist())

    def sample(self, key: Any, n: int) -> dict[str, np.ndarray]:
        """``n`` independent draws of all sites jointly: {site: array[n, *shape]}."""
        rng = generator(key)
        flat: dict[str, np.ndarray] = {}
        for name, family in self.families.items():
            flat[name] = family.draw(rng, self.parameters[name], n)
        for part in self._matrices:
            flat.update(part.draw(rng, n))
        flat.update(self._draw_gaussian(rng, flat, n))
        latent = self._sites.latent
        out = {k: v.reshape(n, *latent[k].space.shape) for k, v in flat.items()}
        if any(s not in out for s in self.sites):
            out.update(self._forward(out, key, n))
        return {s: out[s] for s in self.sites}

    def _draw_gaussian(
        self, rng: np.random.Generator, drawn: dict[str, np.ndarray], n: int
    ) -> dict[str, np.ndarray]:
        beta_all = np.zeros((n, self._sites.dim))
        for c in self._gaussian.components:
            sd = np.ones(n)
            if c.noise != KNOWN:
                name, at = c.noise
                v = drawn[name][:, at]
                sd = np.sqrt(v) if self.families[name] is inverse_gamma else 1 / np.sqrt(v)
            z = rng.standard_normal((n, len(c.mean)))
            beta_all[:, c.at] = c.mean + sd[:, None] * (z @ c.factor.T)
        done = {m.site for p in self._matrices for m in p.means}
        return {
            name: beta_all[:, start : start + self._sites.latent[name].space.size]
            for name, start in self._sites.offsets.items()
            if name not in self._gaussian.free and name not in done
        }

    def _forward(self, drawn: dict[str, np.ndarray], key: Any, n: int) -> dict[str, np.ndarray]:
        """Sites with no evidence below them, and computed ones, given the others."""
        from ppcore.semantics.batched import simulate_many

        given = {k: np.broadcast_to(v, (n, *v.shape)) for k, v in self._evidence.items()}
        given.update(drawn)
        with precision.scope("float64"):
            found = simulate_many(self._joint, self._data, given, key, n)
            return {s: np.asarray(found[s]) for s in self.sites if s not in drawn}


def _pairs(sites: Sites, done: set[str]) -> tuple[dict[str, list[Evidence]], list[Site]]:
    """Observed sites by the latent site that one of their arguments is; and those of none."""
    pairs: dict[str, list[Evidence]] = {}
    known = []
    for site in sites.observed.values():
        if site.name in done or site.family in ("Normal", "MultivariateNormal"):
            continue
        random = {k: f for k, f in site.arguments.items() if isinstance(f, Monomial | Affine)}
        other = next((f for f in site.arguments.values() if isinstance(f, Other)), None)
        if other is not None:
            raise NotExact(SOLVER, other.box, f"{other.why}, and {site.name!r} depends on it.")
        if not random:
            known.append(site)
            continue
        (argument, form), *more = random.items()
        if more or isinstance(form, Affine):
            raise NotExact(
                SOLVER,
                site.name,
                f"{site.family}'s {' and '.join(random)} are random; no conjugate prior is known "
                "for that.",
            )
        pairs.setdefault(form.site, []).append(Evidence(site, argument, form))
    return pairs, known


def _no_prior(site: Site, evidence: Evidence) -> str:
    return (
        f"{site.family} is no conjugate prior for the {evidence.argument} of "
        f"{evidence.site.family} (site {evidence.site.name!r}). Use a sampling engine, or a "
        "conjugate prior: Beta for probabilities, Gamma for rates, Dirichlet for categories, "
        "InverseGamma for a variance."
    )


def _log_prob(site: Site, joint: Diagram) -> float:
    """log p of evidence that depends on nothing random."""
    box = next(b for b in joint.boxes() if b.name == site.name)
    holes: dict[int, np.ndarray] = {}
    template = stripped(box.spec[0])[0]
    for name, item in zip(template.keys, template.items, strict=True):
        form = site.arguments.get(name)
        if isinstance(item, Hole) and isinstance(form, Known):
            holes[item.index] = form.value
    if len(holes) < len(box.dom):
        raise NotExact(SOLVER, site.name, "its parameters are nested distributions.")
    d = distribution_of(box, [holes[i] for i in range(len(box.dom))])
    return float(np.asarray(d.log_prob(site.value)).sum())
