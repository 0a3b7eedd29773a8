"""Draws of parameters and data from the joint of a model, as vectors that networks can take."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from ppcore import precision
from ppcore.errors import ModelError, SettingsError, UnsupportedError, did_you_mean
from ppcore.model_target import ModelTarget
from ppcore.semantics.interpret import interpret
from ppcore.semantics.log_density import Jacobian, LogDensity, layout
from ppcore.space import Space

BLOCK = 1024
TINY = 1e-30


@dataclass(frozen=True)
class Vector:
    """How values of the observed sites become float[m]; static.

    Attributes
    ----------
    names : tuple of str
    spaces : tuple of Space
    axes : tuple of int
        Of the exchangeable plate in each site's shape; () without one.
    rows : int
        The plate's size, or 1.
    """

    names: tuple[str, ...]
    spaces: tuple[Space, ...]
    axes: tuple[int, ...] = ()
    rows: int = 1

    def of(self, values: Mapping[str, Any]) -> Any:
        """{site: value} -> float[m], rows of the exchangeable plate one after the other."""
        import jax.numpy as jnp

        parts = []
        for i, (name, space) in enumerate(zip(self.names, self.spaces, strict=True)):
            value = free(jnp.asarray(values[name], jnp.result_type(float)), space)
            if self.axes:
                value = jnp.moveaxis(value, self.axes[i], 0)
            parts.append(value.reshape(self.rows, -1))
        return jnp.concatenate(parts, axis=1).ravel()


def free(value: Any, space: Space) -> Any:
    """Data without bounds: logarithms of what is bounded below or above, logits between bounds.

    Counts become log(1 + n). Supports that are no box, or that parameters move, are left alone.
    """
    import jax.numpy as jnp

    s = space.support
    low = None if s.lower is None else value - s.lower
    high = None if s.upper is None else s.upper - value
    if s.dependent or s.name in ("simplex", "sphere", "circular") or (low is None and high is None):
        return value
    if s.discrete:
        return value if low is None or high is not None else jnp.log1p(low)
    up = jnp.zeros_like(value) if low is None else jnp.log(jnp.maximum(low, TINY))
    down = jnp.zeros_like(value) if high is None else jnp.log(jnp.maximum(high, TINY))
    return up - down


class Values(LogDensity):
    """Entries are unconstrained values; records hold ``value``. No density is evaluated."""

    def latent(self, box: Any, distribution: Any, given: Any, key: Any) -> tuple[Any, Any]:
        from ppcore.semantics.log_density import bijection

        if given is None:
            return super().latent(box, distribution, given, key)
        x = bijection(distribution)(given)
        return x, {"value": x}

    def observed(self, box: Any, distribution: Any, value: Any) -> Any:
        return {}

    def factor(self, box: Any, log_weight: Any) -> Any:
        return {}


@dataclass(frozen=True, eq=False)
class Joint:
    """A model as a simulator of (x, y).

    Attributes
    ----------
    model : Model
        Without evidence.
    target : ModelTarget
        Given some simulated data.
    vector : Vector
        Of the observed sites.
    sites : tuple of str
        The sites that are inferred, in the order of x.
    index : tuple of int
        Where they lie among the target's coordinates.
    has_density : bool
        Whether the target's density is that of the inferred sites given the data.
    """

    model: Any
    target: ModelTarget
    vector: Vector
    sites: tuple[str, ...]
    index: tuple[int, ...]
    has_density: bool

    @property
    def dim(self) -> int:
        """d, of the inferred sites."""
        return len(self.index)

    @property
    def whole(self) -> bool:
        """Whether every continuous site is inferred."""
        return self.dim == self.target.dim

    def draw(self, key: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
        """``n`` draws of (x, y): float[n, d], float[n, m]; draw i depends on key, i alone."""
        import jax

        keys = jax.random.split(key, -(-n // BLOCK) * BLOCK)
        found = [
            _program()(self.target, keys[i : i + BLOCK], self.index, self.vector)
            for i in range(0, n, BLOCK)
        ]
        x, y = (np.concatenate([np.asarray(f[k]) for f in found])[:n] for k in (0, 1))
        return x, y

    def given(self, evidence: Mapping[str, Any]) -> tuple[Any, np.ndarray]:
        """The model with data attached where that can be, and the data as a vector.

        Raises :class:`ppcore.errors.EvidenceError` for an unknown site, a wrong shape, NaN, or a
        value outside the support; :class:`ppcore.errors.SettingsError` if a site is missing.
        """
        for name in self.vector.names:
            if name not in evidence:
                raise SettingsError(f"Data for site {name!r} are missing: posterior({name}=...).")
        for name in evidence:
            if name not in self.vector.names:
                hint = did_you_mean(name, self.vector.names)
                raise SettingsError(f"{name!r} is not what was amortised over. {hint}")
        computed = {n: evidence[n] for n in evidence if n in self.model.deterministics}
        sampled = {n: v for n, v in evidence.items() if n not in computed}
        model = self.model.observe(sampled) if sampled else self.model
        values = dict(model.evidence)
        for name, value in computed.items():
            values[name] = np.asarray(value, float)
            shape = self.model.spaces[name].shape
            if values[name].shape != shape or not np.isfinite(values[name]).all():
                raise SettingsError(
                    f"Data for {name!r} must be finite numbers of shape {shape}, not "
                    f"{values[name].shape}."
                )
        with precision.scope("float64"):
            return model, np.asarray(self.vector.of(values))

    def constrained(self, target: ModelTarget, x: Any) -> dict[str, Any]:
        """x: float[d] -> values of the inferred sites, and of the computed ones if all are."""
        import jax.numpy as jnp

        full = jnp.zeros(target.dim, x.dtype).at[jnp.array(self.index)].set(x)
        z = layout(target.diagram).split(full)
        records = interpret(target.diagram, target.inputs, Values(), z)[1]
        kept = {n: r["value"] for n, r in records.items() if "value" in r}
        return kept if self.whole else {n: kept[n] for n in self.sites}

    def log_jacobian(self, target: ModelTarget, x: Any) -> Any:
        """log |∂θ/∂x| of the inferred sites; float[d] -> float[]."""
        import jax.numpy as jnp

        full = jnp.zeros(target.dim, x.dtype).at[jnp.array(self.index)].set(x)
        z = layout(target.diagram).split(full)
        records = interpret(target.diagram, target.inputs, Jacobian(), z)[1]
        return sum((records[n]["log_jacobian"].sum() for n in self.sites), jnp.zeros((), x.dtype))


@cache
def _program() -> Any:
    from functools import partial

    import jax
    import jax.numpy as jnp

    @partial(jax.jit, static_argnames=("index", "vector"))
    def draw(target: Any, keys: Any, index: tuple[int, ...], vector: Vector) -> Any:
        def one(key: Any) -> Any:
            x, _, values = target.simulate_sites(key)
            return x[jnp.array(index)], vector.of(values)

        return jax.vmap(one)(keys)

    return draw


def joint_of(
    model: Any, observe: Collection[str], sites: Collection[str] | None, exchangeable: str
) -> Joint:
    """A model as a simulator of its sites ``sites`` and its data ``observe``.

    Raises
    ------
    ModelError
        For a name that is no site, evidence that is attached already, or factors.
    UnsupportedError
        For an improper prior, or nothing continuous to infer.
    SettingsError
        If sites must be chosen, or ``exchangeable`` is no plate of all observed sites.
    """
    names = (observe,) if isinstance(observe, str) else tuple(dict.fromkeys(observe))
    _check(model, names)
    computed = [n for n in names if n in model.deterministics]
    if computed and sites is None:
        raise SettingsError(
            f"{computed[0]!r} is computed from other sites, so say which ones to infer: "
            f"sites=[...], among {', '.join(n for n in model.latents if n not in names)}."
        )
    with precision.scope("float64"):
        drawn = model.simulate(0, 1)
        given = {n: drawn[n][0] for n in names if n not in computed}
        target = replace(model, evidence=given).target()
        if target.improper:
            raise UnsupportedError(
                f"The prior of site {target.improper[0]!r} is improper, so there is nothing to "
                "simulate from. Give it a proper distribution."
            )
        wanted = _wanted(model, target, names, sites)
        where = target.site_slices
        index = tuple(i for n in wanted for i in range(where[n].start, where[n].stop))
        whole = len(index) == target.dim and not computed
        dense = whole and _has_density(target)
        spaces = tuple(model.spaces[n] for n in names)
        made = Joint(model, target, Vector(names, spaces), wanted, index, dense)
        return replace(made, vector=_rows(made, exchangeable))


def _check(model: Any, names: tuple[str, ...]) -> None:
    if not names:
        raise ModelError("amortise(observe=[...]) needs the names of the sites that data are for.")
    known = (*model.latents, *model.deterministics)
    for name in names:
        if name in model.observed:
            raise ModelError(f"Site {name!r} has data already; amortise the model without them.")
        if name not in known:
            raise ModelError(f"The model has no site {name!r}. {did_you_mean(name, known)}")
    if model.evidence:
        raise ModelError(
            f"Data are attached to {model.observed[0]!r}, and draws given data are what is to be "
            "learnt. Name it in observe= too, and give its data to posterior(...)."
        )
    factors = model.diagram.named("factor")
    if factors:
        raise ModelError(
            f"Factor {factors[0]!r} weighs the joint, so that forward simulations do not follow "
            "it. Write it as an observed site."
        )


def _wanted(
    model: Any, target: ModelTarget, names: tuple[str, ...], sites: Collection[str] | None
) -> tuple[str, ...]:
    if sites is None:
        wanted = target.latents
    else:
        chosen = (sites,) if isinstance(sites, str) else tuple(sites)
        for name in chosen:
            if name not in target.latents:
                hint = did_you_mean(name, target.latents)
                raise SettingsError(f"{name!r} is no continuous unobserved site. {hint}")
        wanted = tuple(n for n in target.latents if n in chosen)
    if not wanted:
        raise UnsupportedError(
            "There is no continuous unobserved site to infer. Finite models have exact answers: "
            "model.observe(...).infer('exact')."
        )
    moving = [n for n in wanted if model.spaces[n].support.dependent]
    if moving and wanted != target.latents:
        raise UnsupportedError(
            f"The support of {moving[0]!r} depends on other sites: infer all of them (leave "
            "sites= out), or give it a fixed support."
        )
    return wanted


def _has_density(target: ModelTarget) -> bool:
    import jax

    try:
        jax.eval_shape(target.log_density, jax.ShapeDtypeStruct((target.dim,), np.dtype(float)))
    except UnsupportedError:
        return False
    return True


def _rows(joint: Joint, exchangeable: str) -> Vector:
    """The vector with the plate whose copies may change places, if there is one."""
    vector, dims, spaces = joint.vector, joint.model.dims, joint.model.spaces
    shared = [
        plate
        for plate in dims[vector.names[0]]
        if all(dims[n].count(plate) == 1 for n in vector.names)
        and spaces[vector.names[0]].shape[dims[vector.names[0]].index(plate)] > 1
    ]
    if exchangeable == "none" or (exchangeable == "auto" and not joint.has_density):
        return vector
    if exchangeable != "auto" and exchangeable not in shared:
        raise SettingsError(
            f"exchangeable={exchangeable!r} is no plate that all observed sites share. "
            f"{did_you_mean(exchangeable, [*shared, 'auto', 'none'])}"
        )
    for plate in shared if exchangeable == "auto" else [exchangeable]:
        axes = tuple(dims[n].index(plate) for n in vector.names)
        rows = spaces[vector.names[0]].shape[axes[0]]
        if exchangeable != "auto" or _invariant(joint, axes, rows):
            return replace(vector, axes=axes, rows=rows)
    return vector


def _invariant(joint: Joint, axes: tuple[int, ...], rows: int) -> bool:
    """Whether the density keeps its value at random points when copies change places."""
    import jax
    import jax.numpy as jnp

    where = dict(zip(joint.vector.names, axes, strict=True))

    def gap(key: Any, order: Any) -> Any:
        x, target, _ = joint.target.simulate_sites(key)
        moved = tuple(
            jnp.take(e, order, axis=where[n])
            for n, e in zip(target.observed, target.evidence, strict=True)
        )
        a, b = target.log_density(x), replace(target, evidence=moved).log_density(x)
        return jnp.abs(a - b) / (1 + jnp.abs(a))

    rng = np.random.default_rng(0)
    orders = np.stack([np.roll(np.arange(rows), 1), *(rng.permutation(rows) for _ in range(7))])
    gaps = jax.jit(jax.vmap(gap))(jax.random.split(jax.random.key(0), len(orders)), orders)
    return bool((np.asarray(gaps) < 1e-9).all())
