"""The log-density semantics: log γ(x) on R^d, supports removed by bijections.

For each continuous latent site with support S, the bijection t: R^k → S of NumPyro gives
log γ(z) = Σ_latent [log p(t(z)) + log |det ∂t/∂z|] + Σ_observed log p(y) + Σ_factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ppcore.diagram import Box, Diagram
from ppcore.errors import UnsupportedError
from ppcore.semantics.interpret import Handler, Records, interpret


def bijection(distribution: Any) -> Any:
    """NumPyro's bijection from R^k onto the support.

    Raises :class:`ppcore.errors.UnsupportedError` for a support that R^k cannot be mapped onto.
    """
    from numpyro.distributions import biject_to

    try:
        return biject_to(distribution.support)
    except NotImplementedError:
        support = str(getattr(distribution.support, "__name__", distribution.support))
        raise UnsupportedError(
            f"A {type(distribution).__name__} cannot be a latent site: no bijection maps R^k onto "
            f"its support ({support}). Write it by free parameters (a point on the sphere is "
            "z / |z| of a normal vector z), or observe it."
        ) from None


def supported_log_prob(box: Box, distribution: Any, value: Any) -> Any:
    """log p(value), −inf outside a support that depends on other values.

    Constant supports are checked once, when data are attached; NumPyro's densities do not check.
    """
    try:
        log_prob = distribution.log_prob(value)
    except UnsupportedError as error:
        raise UnsupportedError(f"Site {box.name!r}: {error}") from None
    if not box.dom[-1].support.dependent:
        return log_prob
    import jax.numpy as jnp

    return jnp.where(distribution.support(jnp.asarray(value)), log_prob, -jnp.inf)


class LogDensity(Handler):
    """Entries are unconstrained values z; records hold ``value`` and ``log_prob`` (summed)."""

    def latent(self, box: Box, distribution: Any, given: Any, key: Any) -> tuple[Any, Any]:
        t = bijection(distribution)
        x = t(given)
        jacobian = t.log_abs_det_jacobian(given, x).sum()
        return x, {"value": x, "log_prob": distribution.log_prob(x).sum() + jacobian}

    def observed(self, box: Box, distribution: Any, value: Any) -> Any:
        return {"log_prob": supported_log_prob(box, distribution, value).sum()}

    def factor(self, box: Box, log_weight: Any) -> Any:
        return {"log_prob": log_weight.sum()}

    def named(self, box: Box, value: Any) -> Any:
        return {"value": value}


class Terms(LogDensity):
    """As :class:`LogDensity`, but observed sites and factors keep the shape of their terms."""

    def observed(self, box: Box, distribution: Any, value: Any) -> Any:
        return {"log_prob": supported_log_prob(box, distribution, value)}

    def factor(self, box: Box, log_weight: Any) -> Any:
        return {"log_prob": log_weight}


class Jacobian(Handler):
    """Entries are unconstrained values z; records hold ``log_jacobian``."""

    def latent(self, box: Box, distribution: Any, given: Any, key: Any) -> tuple[Any, Any]:
        if box.cod[0].support.discrete:
            return _zeros(box), {}
        t = bijection(distribution)
        x = t(given)
        return x, {"log_jacobian": t.log_abs_det_jacobian(given, x).sum()}


class Unconstrain(Handler):
    """Entries are values in the support; records hold ``z``."""

    def latent(self, box: Box, distribution: Any, given: Any, key: Any) -> tuple[Any, Any]:
        if box.cod[0].support.discrete:
            # Summed out: no coordinates of its own, and no support depends on it.
            return _zeros(box), {}
        return given, {"z": bijection(distribution).inv(given)}


class Pointwise(Handler):
    """Entries are values in the support; records hold ``log_prob`` per element."""

    def latent(self, box: Box, distribution: Any, given: Any, key: Any) -> tuple[Any, Any]:
        return given, {}

    def observed(self, box: Box, distribution: Any, value: Any) -> Any:
        return {"log_prob": supported_log_prob(box, distribution, value)}


class _Shapes(Handler):
    """Finds the shape of each site's unconstrained value (of one step, inside scans)."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

    def latent(self, box: Box, distribution: Any, given: Any, key: Any) -> tuple[Any, Any]:
        import jax.numpy as jnp

        space = box.cod[0]
        if space.support.discrete:
            from ppcore.semantics.mixed import require_finite

            require_finite(box)
            return _zeros(box), {}
        self.shapes[str(box.name)] = tuple(bijection(distribution).inverse_shape(space.shape))
        return jnp.zeros(space.shape, jnp.result_type(float)), {}


def _zeros(box: Box) -> Any:
    import jax.numpy as jnp

    return jnp.zeros(box.cod[0].shape, int)


@dataclass(frozen=True)
class Layout:
    """Where each latent site's unconstrained value lies in x: float[d]."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(int(np.prod(s, dtype=int)) for s in self.shapes)

    @property
    def dim(self) -> int:
        return sum(self.sizes)

    @property
    def slices(self) -> dict[str, slice]:
        ends = np.cumsum(self.sizes, dtype=int)
        return {
            n: slice(int(e - k), int(e))
            for n, e, k in zip(self.names, ends, self.sizes, strict=True)
        }

    def split(self, x: Any) -> dict[str, Any]:
        """float[d] -> {site: unconstrained array}."""
        at = self.slices
        return {n: x[at[n]].reshape(s) for n, s in zip(self.names, self.shapes, strict=True)}

    def join(self, z: dict[str, Any]) -> Any:
        """{site: unconstrained array} -> float[d]."""
        import jax.numpy as jnp

        if not self.names:
            return jnp.zeros(0)
        return jnp.concatenate([jnp.ravel(z[n]) for n in self.names])


def _scan_lengths(diagram: Diagram) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for node in diagram.nodes:
        box = node.box
        if box.body is not None:
            lead = (box.spec.length,) if box.op == "scan" else ()
            found.update({n: lead + t for n, t in _scan_lengths(box.body).items()})
        elif box.name is not None:
            found[box.name] = ()
    return found


@lru_cache(maxsize=256)
def layout(diagram: Diagram) -> Layout:
    """The layout of a conditioned diagram's latent sites.

    Discrete latent sites have no place in x: they are summed out.

    Raises :class:`UnsupportedError` naming a discrete latent site that cannot be.
    """
    import jax

    from ppcore import precision

    shapes = _Shapes()

    def run(*inputs: Any) -> Any:
        interpret(diagram, inputs, shapes, {})
        return 0

    with precision.scope("float64"):
        jax.eval_shape(
            run, *[jax.ShapeDtypeStruct(s.shape, np.dtype(s.dtype)) for s in diagram.dom]
        )
    lead = _scan_lengths(diagram)
    names = tuple(n for n in diagram.named("sample") if n in shapes.shapes)
    return Layout(names, tuple(lead[n] + shapes.shapes[n] for n in names))


def log_density_records(diagram: Diagram, inputs: tuple[Any, ...], x: Any) -> Records:
    """Per site: ``log_prob`` (summed, Jacobian included) and ``value`` at x: float[d]."""
    z = layout(diagram).split(x)
    records = interpret(diagram, inputs, LogDensity(), z)[1]
    return {
        name: {k: (v.sum() if k == "log_prob" else v) for k, v in record.items()}
        for name, record in records.items()
    }


def likelihood_terms(diagram: Diagram, inputs: tuple[Any, ...], x: Any) -> Any:
    """Log densities of the evidence and of factors at x: float[d], element by element; float[m]."""
    import jax.numpy as jnp

    where = layout(diagram)
    records = interpret(diagram, inputs, Terms(), where.split(x))[1]
    terms = [
        jnp.ravel(record["log_prob"])
        for name, record in records.items()
        if "log_prob" in record and name not in where.names
    ]
    return jnp.concatenate([jnp.zeros(0, x.dtype), *terms])


def log_jacobian(diagram: Diagram, inputs: tuple[Any, ...], x: Any) -> Any:
    """Σ log |det ∂t/∂z| over the continuous latent sites at x: float[d]."""
    import jax.numpy as jnp

    records = interpret(diagram, inputs, Jacobian(), layout(diagram).split(x))[1]
    parts = (r["log_jacobian"].sum() for r in records.values() if "log_jacobian" in r)
    return sum(parts, jnp.zeros((), x.dtype))


def unconstrain(diagram: Diagram, inputs: tuple[Any, ...], values: dict[str, Any]) -> Any:
    """{latent site: value in its support} -> x: float[d]."""
    records = interpret(diagram, inputs, Unconstrain(), values)[1]
    where = layout(diagram)
    return where.join({n: records[n]["z"] for n in where.names})


def pointwise(diagram: Diagram, inputs: tuple[Any, ...], values: dict[str, Any]) -> dict[str, Any]:
    """log p(y_i | θ) for each observed site, element by element of its batch shape."""
    records = interpret(diagram, inputs, Pointwise(), values)[1]
    return {n: records[n]["log_prob"] for n in diagram.named("observe")}
