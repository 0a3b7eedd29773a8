"""Log densities of mixed models: finite latent sites summed out, the others on R^d.

A functor in which a wire is a function of finite variables with traced numbers. Every stochastic
box adds factors over the variables; what is left to do is one sum of products,

    log γ(z) = log Σ_k Π p(k | …) p(t(z) | k, …) p(y | k, t(z), …) + Σ log |det ∂t/∂z|,

and the variables' exact conditional given z and the data, for draws of them afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np

from ppcore.diagram import Box, Diagram
from ppcore.errors import UnsupportedError
from ppcore.semantics.finite import NOBODY, Finite, Network, TooLarge
from ppcore.semantics.finite_dist import computed, finite_values, is_delta
from ppcore.semantics.interpret import distribution_of
from ppcore.semantics.log_density import bijection
from ppcore.semantics.mixed_alike import Alike, together
from ppcore.semantics.mixed_dist import elementwise, log_prob
from ppcore.semantics.mixed_ops import apply, known, plain
from ppcore.semantics.sum_product import Batch, Summed, batches, sum_out


class NotSummable(UnsupportedError):
    """A discrete latent site cannot be summed out; ``box`` names what is in the way."""

    def __init__(self, box: str, why: str):
        super().__init__(f"The discrete latent sites cannot be summed out: {box!r} {why}")
        self.box, self.why = box, why


@dataclass(frozen=True, eq=False)
class Term:
    """Factors of a site's elements, ``log``: float[*cards, *shape], before they are batched."""

    kind: str  # "label" (of a discrete latent site), "latent" or "evidence"
    slots: tuple[np.ndarray, ...]
    log: Any
    name: str = ""  # the site, of what Mixed.add added


@dataclass(eq=False)
class Mixed:
    """What a walk through a diagram finds.

    Attributes
    ----------
    net : Network
        The finite variables.
    terms : list of Term
        Factors over them.
    own : dict
        {site: log weight that depends on no variable}, Jacobians included.
    latents : set of str
        Continuous latent sites met.
    sites : dict of str to Finite
        Every latent and named site.
    """

    net: Network = field(default_factory=Network)
    terms: list[Term] = field(default_factory=list)
    own: dict[str, Any] = field(default_factory=dict)
    latents: set[str] = field(default_factory=set)
    sites: dict[str, Finite] = field(default_factory=dict)
    alike: Alike = field(default_factory=Alike, repr=False)

    def add(self, kind: str, name: str, slots: tuple[np.ndarray, ...], log: Any) -> None:
        """Multiply in a site's factors."""
        if slots:
            self.terms.append(Term(kind, slots, log, name))
        else:
            self.own[name] = self.own.get(name, 0.0) + log.sum()

    def pin(self, value: Finite, domain: np.ndarray, label: str) -> Finite:
        """New variables equal to a value that takes values in ``domain``."""
        made = self.net.fresh(value.shape, domain, label)
        k = len(value.slots)
        hit = np.expand_dims(value.table, k) == domain.reshape(-1, *(1,) * len(value.shape))
        with np.errstate(divide="ignore"):
            self.terms.append(
                Term("label", (*value.slots, made.slots[0]), np.log(hit.astype(float)))
            )
        return made

    def equations(self) -> list[Term]:
        """Terms that array boxes added: which value a derived variable has."""
        found = [
            Term("label", tuple(np.array([v]) for v in f.scope), f.log[..., None])
            for f in self.net.factors
        ]
        return found

    @cached_property
    def log_prior(self) -> Any:
        """log p(continuous latent sites), Jacobians included."""
        own = sum((v for n, v in self.own.items() if n in self.latents), jnp.zeros(()))
        if all(t.kind != "latent" for t in self.terms):
            return own  # the labels' probabilities sum to one
        return own + self._sum(("label", "latent")).log_total

    @cached_property
    def log_total(self) -> Any:
        """log p(continuous latent sites, evidence)."""
        return sum(self.own.values(), self.summed.log_total)

    @cached_property
    def summed(self) -> Summed:
        """The sum over all labels."""
        return self._sum(("label", "latent", "evidence"))

    def _sum(self, kinds: tuple[str, ...]) -> Summed:
        factors: list[Batch] = []
        rest: Any = 0.0
        wanted = [t for t in [*self.terms, *self.equations()] if t.kind in kinds]
        for slots, log in together([(t.slots, t.log) for t in wanted]):
            made, alone = batches(slots, jnp.asarray(log))
            factors.extend(made)
            rest = rest + alone
        try:
            found = sum_out(factors, self.net.cards)
        except TooLarge as error:
            names = sorted(set(self.net.labels))
            raise NotSummable(names[0], f"and what depends on it: {error.args[0]}.") from None
        return Summed(found.log_total + rest, found.steps, found.cards)

    def values_at(self, state: Any) -> dict[str, Any]:
        """{site: value} for positions of all variables among their values: int[n]."""
        return {name: value_at(value, state) for name, value in self.sites.items()}


def value_at(value: Finite, state: Any) -> Any:
    """A value where the variables have given positions: array[*shape]."""
    if value.constant:
        return jnp.asarray(value.table)
    size = int(np.prod(value.shape, dtype=int))
    index = [
        jnp.where(flat == NOBODY, 0, state[flat]) for flat in (s.reshape(-1) for s in value.slots)
    ]
    flat = jnp.asarray(value.table).reshape((*value.cards, -1))
    return flat[(*index, np.arange(size))].reshape(value.shape)


def mixed(diagram: Diagram, inputs: Sequence[Any], z: Mapping[str, Any]) -> Mixed:
    """The factors of a conditioned diagram at unconstrained values ``z`` of its continuous sites.

    Raises
    ------
    NotSummable
        A discrete latent site takes infinitely many values, or a value depends on too many at once.
    """
    out = Mixed()
    walk(diagram, [plain(v) for v in inputs], z, out)
    return out


def walk(
    diagram: Diagram, inputs: Sequence[Finite], z: Mapping[str, Any], out: Mixed
) -> list[Finite]:
    """Add a diagram's factors to ``out``; returns the diagram's outputs."""
    wires = list(inputs)
    for node in diagram.nodes:
        values = [wires[i] for i in node.inputs]
        try:
            wires.extend(_box(node.box, values, z, out))
        except TooLarge as error:
            raise NotSummable(str(node.box), f"is in the way: {error.args[0]}.") from None
    return [wires[i] for i in diagram.outputs]


def _box(box: Box, values: list[Finite], z: Mapping[str, Any], out: Mixed) -> list[Finite]:
    name = str(box.name)
    if box.op in ("sample", "observe"):
        box = elementwise(box)
    if box.op == "sample":
        made = _label(box, values, out) if is_label(box) else _latent(box, values, z[name], out)
        out.sites[name] = made
        return [made]
    if box.op == "observe":
        if not values[-1].constant:
            raise NotSummable(name, "is observed as a value that depends on a discrete latent.")
        slots, log = log_prob(box, values[:-1], values[-1].table, all_values=False)
        out.add("evidence", name, slots, log)
        return []
    if box.op == "factor":
        out.add("evidence", name, values[0].slots, values[0].table)
        return []
    if box.op == "scan":
        from ppcore.semantics.mixed_scan import scan

        return scan(box, values, z, out)
    if box.op == "plate":
        assert box.body is not None
        return walk(box.body, values, z, out)
    made_all = out.alike.outputs(box, values, out.net, lambda: apply(box, values, out.net))
    if box.op == "deterministic":
        out.sites[name] = made_all[0]
    return made_all


def is_label(box: Box) -> bool:
    """Whether a box is a discrete latent site."""
    return box.op == "sample" and box.cod[0].support.discrete


def labels(diagram: Diagram) -> tuple[str, ...]:
    """Names of a conditioned diagram's discrete latent sites."""
    return tuple(str(b.name) for b in diagram.boxes() if is_label(b))


def require_finite(box: Box) -> np.ndarray:
    """What an element of a discrete latent site can be.

    Raises :class:`NotSummable` if that is not a finite set.
    """
    support, event = finite_values(box.cod[0]), elementwise(box).spec[2]
    if support is None or event:
        what = "is a random vector" if event else f"takes values in {box.cod[0].support}"
        raise NotSummable(
            str(box.name),
            f"{what}, not in a finite set of numbers that is known beforehand. Observe it, give it "
            "a distribution of bounded support (dist.Categorical, dist.Binomial with constant "
            "total_count), or write the marginal distribution instead (a Poisson count with a "
            "Gamma rate is dist.GammaPoisson).",
        )
    return support


def _label(box: Box, values: list[Finite], out: Mixed) -> Finite:
    if is_delta(box) and all(known(v) for v in values):
        return computed(box, values)
    support = require_finite(box).astype(int)
    slots, log = out.alike.factors(
        box, values, lambda: log_prob(box, values, support, all_values=True)
    )
    made = out.net.fresh(box.cod[0].shape, support, str(box.name))
    out.terms.append(Term("label", (*slots, made.slots[0]), log))
    return made


def _latent(box: Box, values: list[Finite], z: Any, out: Mixed) -> Finite:
    name = str(box.name)
    if box.cod[0].support.dependent and not all(v.constant for v in values):
        raise NotSummable(
            name,
            "has a support that depends on a discrete latent, so it has no coordinates of its own. "
            "Write it as a location and scale of a site with a fixed support.",
        )
    some = [v.table if v.constant else v.table[(0,) * len(v.slots)] for v in values]
    t = bijection(distribution_of(box, some))
    x = t(z)
    out.latents.add(name)
    out.own[name] = t.log_abs_det_jacobian(z, x).sum()
    out.add("latent", name, *log_prob(box, values, x, all_values=False))
    return plain(x)
