"""Invertible maps of R^d from flowjax, as pytrees whose leaves are the trainable arrays alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from flowjax import bijections as bij
from jax.nn.initializers import glorot_uniform

from ppcore import precision
from ppcore.contract import Contract, Transport
from ppcore.errors import SettingsError, UnsupportedError, did_you_mean
from ppcore.settings import check_between, check_count

COUPLED = ("affine_coupling", "spline_coupling", "autoregressive")
KINDS = (*COUPLED, "triangular", "residual", "sylvester", "continuous")
SMALL = 1e-2
LOG_SCALE = 8.0


@dataclass(frozen=True)
class Architecture:
    """What decides the shape of a :class:`FlowMap`; static, so that equal ones share programs.

    Parameters
    ----------
    kind : str
        "affine_coupling", "spline_coupling", "autoregressive", "triangular", "residual",
        "sylvester" or "continuous"; only the first four become a :class:`FlowMap`.
    dim : int
        d.
    layers : int
        Layers, each followed by a permutation of the coordinates.
    width, depth : int
        Of the hidden layers of the networks.
    bins : int
        Bins of a spline.
    reach : float
        A spline bends [−reach, reach] and leaves what is beyond as it is.
    fast_inverse : bool
        Which direction of an autoregressive map is one pass: T⁻¹ (for densities, MAF) or T (for
        draws, IAF). The other takes d passes.

    Raises
    ------
    ppcore.errors.SettingsError
        If a value is out of range, the kind is unknown, or it needs more than one coordinate.
    """

    kind: str
    dim: int
    layers: int = 6
    width: int = 32
    depth: int = 2
    bins: int = 8
    reach: float = 5.0
    fast_inverse: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingsError(f"No map is called {self.kind!r}. {did_you_mean(self.kind, KINDS)}")
        for name in ("layers", "width", "depth"):
            check_count(name, getattr(self, name), 1)
        check_count("bins", self.bins, 2)
        check_between("reach", self.reach, 0, 1e6)
        check_count("dim", self.dim, 1)
        if self.dim < 2 and self.kind in COUPLED:
            raise SettingsError(
                f"map={self.kind!r} moves some coordinates given the others, and this target has "
                "only one. Use map='triangular', or one of the Gaussian engines."
            )


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class FlowMap:
    """A bijection T of R^d made of flowjax layers; near the identity until trained.

    Attributes
    ----------
    leaves : tuple of float arrays
        All that can be trained.
    architecture : Architecture
    """

    leaves: tuple[Any, ...]
    architecture: Architecture
    contract: ClassVar[Contract] = Transport()

    def tree_flatten(self) -> tuple[tuple[Any, ...], Architecture]:
        return self.leaves, self.architecture

    @classmethod
    def tree_unflatten(cls, static: Architecture, leaves: Any) -> FlowMap:
        return cls(tuple(leaves), static)

    @property
    def dim(self) -> int:
        """d."""
        return self.architecture.dim

    def forward(self, x: Any) -> tuple[Any, Any]:
        """``(T(x), log|det ∂T/∂x|)``; x: float[d]."""
        return self._bijection().transform_and_log_det(x)  # type: ignore[no-any-return]

    def inverse(self, y: Any) -> tuple[Any, Any]:
        """``(T⁻¹(y), log|det ∂T⁻¹/∂y|)``; y: float[d]."""
        return self._bijection().inverse_and_log_det(y)  # type: ignore[no-any-return]

    def _bijection(self) -> Any:
        structure, fixed = _skeleton(self.architecture, str(self.leaves[0].dtype))
        own = iter(self.leaves)
        leaves = [next(own) if leaf is None else leaf for leaf in fixed]
        return paramax.unwrap(jax.tree.unflatten(structure, leaves))


def create(key: Any, architecture: Architecture) -> Any:
    """A map with random networks and small last layers, so that it begins near the identity."""
    a = architecture
    # Each family in its own file, of which "continuous" needs a library more than the others.
    if a.kind == "residual":
        from ppcore_flows.residual import residual

        return residual(key, a.dim, a.layers, a.width)
    if a.kind == "sylvester":
        from ppcore_flows.sylvester import sylvester

        return sylvester(key, a.dim, a.layers)
    if a.kind == "continuous":
        try:
            from ppcore_flows.continuous import continuous
        except ModuleNotFoundError as error:
            raise UnsupportedError(
                f"map='continuous' integrates with {error.name}, which is not installed: "
                "pip install diffrax. The other maps do without."
            ) from error
        return continuous(key, a.dim, a.width)
    leaves = jax.tree.leaves(_build(key, a))
    return FlowMap(tuple(v for v in leaves if eqx.is_inexact_array(v)), a)


def affine_coupling(key: Any, dim: int, layers: int = 6, width: int = 32) -> FlowMap:
    """y_B = s(x_A) x_B + t(x_A), y_A = x_A, halves permuted between layers (RealNVP).

    Source: Dinh, Sohl-Dickstein & Bengio 2017, arXiv:1605.08803.

    >>> import jax
    >>> affine_coupling(jax.random.key(0), 3).contract
    Transport()
    """
    return create(key, Architecture("affine_coupling", dim, layers, width))


def spline_coupling(
    key: Any, dim: int, layers: int = 6, width: int = 32, bins: int = 8, reach: float = 5.0
) -> FlowMap:
    """y_B = s σ(x_B) + t, with σ a monotone rational-quadratic spline, and all given by x_A.

    Source: Durkan, Bekasov, Murray & Papamakarios 2019, arXiv:1906.04032.
    """
    return create(key, Architecture("spline_coupling", dim, layers, width, bins=bins, reach=reach))


def autoregressive(
    key: Any, dim: int, layers: int = 4, width: int = 32, fast_inverse: bool = True
) -> FlowMap:
    """y_i = s(x_{<i}) x_i + t(x_{<i}), or its inverse, with one masked network a layer.

    With ``fast_inverse`` (MAF) T⁻¹ is one pass, as densities of data need; without (IAF) T is.

    Source: Papamakarios, Pavlakou & Murray 2017, arXiv:1705.07057; Kingma et al. 2016,
    arXiv:1606.04934.
    """
    return create(
        key, Architecture("autoregressive", dim, layers, width, fast_inverse=fast_inverse)
    )


def triangular(key: Any, dim: int, layers: int = 6, bins: int = 8, reach: float = 5.0) -> FlowMap:
    """y = L σ(x), σ a spline for each coordinate, L lower triangular; without any network.

    For any d, one included, and the cheapest: correlated, skewed and heavy-shouldered laws.

    Source: Marzouk, Moselhy, Parno & Spantini 2016, arXiv:1602.05023; Durkan et al. 2019,
    arXiv:1906.04032.
    """
    return create(key, Architecture("triangular", dim, layers, bins=bins, reach=reach))


def _build(key: Any, a: Architecture) -> Any:
    keys, turns = jax.random.split(key, a.layers), jnp.asarray(permutations(a.dim, a.layers))
    layers = eqx.filter_vmap(lambda k, p: _layer(k, p, a))(keys, turns)
    scanned = bij.Scan(layers)
    return bij.Invert(scanned) if a.kind == "autoregressive" and a.fast_inverse else scanned


def _layer(key: Any, turn: Any, a: Architecture) -> Any:
    if a.kind == "triangular":
        layer = _triangular(key, a)
    elif a.kind == "autoregressive":
        layer = bij.MaskedAutoregressive(
            key,
            transformer=_scaling(),
            dim=a.dim,
            nn_width=a.width,
            nn_depth=a.depth,
            nn_activation=jax.nn.silu,
        )
        layer = _quiet(layer, lambda m: m.masked_autoregressive_mlp.layers[-1])
    else:
        layer = bij.Coupling(
            key,
            transformer=_scaling() if a.kind == "affine_coupling" else _bent(a),
            untransformed_dim=a.dim // 2,
            dim=a.dim,
            nn_width=a.width,
            nn_depth=a.depth,
            nn_activation=jax.nn.silu,
        )
        layer = _quiet(layer, lambda m: m.conditioner.layers[-1])
    return layer if a.dim == 1 else bij.Chain([layer, bij.Permute(turn)])


def permutations(dim: int, layers: int) -> np.ndarray:
    """What follows each layer: int[layers, d]; together they are the identity.

    The first half of the coordinates is given, the rest moves. Of 64 orders each layer takes the
    one by which most coordinates move given others for the first time: about 2 log₂ d layers reach
    all pairs, where random orders leave out many.

    >>> permutations(2, 2).tolist()
    [[1, 0], [1, 0]]
    """
    rng = np.random.default_rng([dim, layers])
    orders = [np.arange(dim)]
    half, met = dim // 2, np.eye(dim, dtype=bool)
    for _ in range(layers - 1):
        last = orders[-1]
        met[np.ix_(last[:half], last[half:])] = True
        swapped = np.concatenate([last[dim - half :], last[: dim - half]])
        choices = [swapped, *(rng.permutation(dim) for _ in range(63))]
        new = [np.sum(~met[np.ix_(c[:half], c[half:])]) for c in choices]
        orders.append(choices[int(np.argmax(new))])
    places = [np.argsort(order) for order in orders]
    following = [*orders[1:], np.arange(dim)]
    return np.stack([place[after] for place, after in zip(places, following, strict=True)])


def enough_layers(dim: int) -> int:
    """2 ⌈log₂ d⌉, and at least four.

    >>> enough_layers(2), enough_layers(10)
    (4, 8)
    """
    return max(4, 2 * (dim - 1).bit_length())


def _scaling() -> Any:
    """x ↦ s x + t with log s = 8 tanh(raw/8), which is 0 at raw = 0.

    Nearly linear in what the network gives: scales that grow or shrink exponentially along a
    coordinate, as in a funnel, are the easy case.
    """
    scale: Any = paramax.Parameterize(
        lambda raw: jnp.exp(LOG_SCALE * jnp.tanh(raw / LOG_SCALE)), jnp.zeros(())
    )
    return eqx.tree_at(lambda affine: affine.scale, bij.Affine(), replace=scale)


def _spline(a: Architecture) -> Any:
    return bij.RationalQuadraticSpline(knots=a.bins, interval=a.reach)


def _bent(a: Architecture) -> Any:
    # A spline is the identity beyond its reach, so that on its own it could shift nothing far.
    return bij.Chain([_spline(a), _scaling()])


def _triangular(key: Any, a: Architecture) -> Any:
    splines = eqx.filter_vmap(lambda: _spline(a), axis_size=a.dim)()
    lower = SMALL * glorot_uniform()(key, (a.dim, a.dim))
    lower = lower.at[jnp.diag_indices(a.dim)].set(1.0)
    return bij.Chain(
        [
            bij.Vmap(splines, in_axes=eqx.if_array(0)),
            bij.TriangularAffine(jnp.zeros(a.dim), lower),
        ]
    )


def _quiet(layer: Any, last: Any) -> Any:
    def shrink(leaf: Any) -> Any:
        return SMALL * leaf if eqx.is_inexact_array(leaf) else leaf

    return eqx.tree_at(last, layer, replace_fn=lambda part: jax.tree.map(shrink, part))


@lru_cache(maxsize=64)
def _skeleton(architecture: Architecture, dtype: str) -> tuple[Any, tuple[Any, ...]]:
    """The structure of a flowjax module, and its leaves with None where arrays are trained.

    Made once for each architecture: flowjax keeps functions in its structures, which would make
    two modules that differ in nothing compile twice. In a thread of its own, since the caller may
    be tracing, and what is made here outlives the trace.
    """

    def made() -> Any:
        with precision.scope(dtype):
            return jax.tree.flatten(_build(jax.random.key(0), architecture))

    with ThreadPoolExecutor(1) as alone:
        leaves, structure = alone.submit(made).result()
    return structure, tuple(None if eqx.is_inexact_array(v) else v for v in leaves)
