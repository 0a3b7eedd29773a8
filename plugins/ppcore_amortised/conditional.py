"""A density of parameters given data: autoregressive affine and spline layers, several networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import Amortised, Contract
from ppcore_amortised import networks, splines

LOG_2PI = 1.8378770664093453
STEEP = 3.0


@dataclass(frozen=True)
class Shape:
    """What decides the shapes of a :class:`ConditionalFlow`; static.

    Attributes
    ----------
    dim : int
        d, parameters.
    rows, row : int
        The data are float[rows · row]; several rows are exchangeable.
    members : int
        Networks whose densities are averaged.
    layers, width, blocks, bins : int
        Of each flow, its conditioners and its splines.
    reach : float
        A spline bends [−reach, reach].
    """

    dim: int
    rows: int
    row: int
    members: int = 4
    layers: int = 4
    width: int = 64
    blocks: int = 2
    bins: int = 8
    reach: float = 5.0

    @property
    def data(self) -> int:
        """m = rows · row."""
        return self.rows * self.row


def create(rng: np.random.Generator, shape: Shape) -> Any:
    """Parameters of one member: near N(0, I) whatever the data, until trained."""
    context = networks.context_size(shape.rows, shape.row, shape.width)
    each = 2 + splines.sizes(shape.bins)
    layers = [
        networks.conditioner(rng, shape.dim, context, shape.width, shape.blocks, each)
        for _ in range(shape.layers)
    ]
    embedding = networks.embedding(rng, shape.rows, shape.row, shape.width)
    return {"embedding": embedding, "layers": jax.tree.map(lambda *v: np.stack(v), *layers)}


def _moved(net: Any, z: Any, context: Any) -> tuple[Any, Any, Any]:
    raw = networks.condition(net, z, context)
    # Bounded: one wild step of training cannot make a scale of e^{±30}, which none comes back from.
    return raw[..., 0], STEEP * jnp.tanh(raw[..., 1] / STEEP), raw[..., 2:]


def whiten(shape: Shape, net: Any, z: Any, context: Any) -> tuple[Any, Any]:
    """u(z; context) and log|det ∂u/∂z|; z: float[..., d]. One pass of every network.

    The coordinates are turned round after every layer, so that all layers are one program.
    """

    def layer(carry: tuple[Any, Any], part: Any) -> tuple[Any, None]:
        z, total = carry
        shift, log_scale, raw = _moved(part, z, context)
        z, bent = splines.forward(raw, (z - shift) * jnp.exp(log_scale), shape.reach)
        return (z[..., ::-1], total + jnp.sum(log_scale + bent, axis=-1)), None

    return jax.lax.scan(layer, (z, jnp.zeros(z.shape[:-1], z.dtype)), net["layers"])[0]


def colour(shape: Shape, net: Any, u: Any, context: Any) -> Any:
    """z with u(z; context) = u, coordinate by coordinate: d passes of every network."""

    def layer(u: Any, part: Any) -> tuple[Any, None]:
        u = u[..., ::-1]

        def solve(j: Any, z: Any) -> Any:
            shift, log_scale, raw = _moved(part, z, context)
            found = splines.inverse(raw, u, shape.reach) * jnp.exp(-log_scale) + shift
            return jnp.where(jnp.arange(shape.dim) == j, found, z)

        return jax.lax.fori_loop(0, shape.dim, solve, jnp.zeros_like(u)), None

    return jax.lax.scan(layer, u, net["layers"], reverse=True)[0]


def log_density(shape: Shape, net: Any, z: Any, y: Any) -> Any:
    """log q(z | y) of one member in standard units; z: float[..., d], y: float[..., m]."""
    u, log_det = whiten(shape, net, z, networks.embed(net["embedding"], shape.rows, y))
    return log_det - 0.5 * jnp.sum(u**2, axis=-1) - 0.5 * shape.dim * LOG_2PI


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class ConditionalFlow:
    """q(x | y) = 1/M Σ_m N(u_m(x; y); 0, I) |∂u_m/∂x|: normalised for every y.

    Networks are kept in single precision and computed in that of x, so that the law that is drawn
    from and the one that is evaluated are the same to the last bits of double precision.

    Attributes
    ----------
    networks : pytree
        Of the members: a leading axis of length M on every leaf.
    units : dict of str to array
        Centres and scales of x and y: ``x_mean``, ``x_scale``: float[d]; ``y_mean``, ``y_scale``:
        float[m].
    shape : Shape

    Source: Papamakarios, Pavlakou & Murray 2017, arXiv:1705.07057; Durkan, Bekasov, Murray &
    Papamakarios 2019, arXiv:1906.04032; Lakshminarayanan, Pritzel & Blundell 2017,
    arXiv:1612.01474 (several networks).
    """

    networks: Any
    units: dict[str, Any]
    shape: Shape
    contract: ClassVar[Contract] = Amortised()

    def tree_flatten(self) -> tuple[tuple[Any, Any], Shape]:
        return (self.networks, self.units), self.shape

    @classmethod
    def tree_unflatten(cls, shape: Shape, leaves: tuple[Any, Any]) -> ConditionalFlow:
        return cls(leaves[0], leaves[1], shape)

    @property
    def dim(self) -> int:
        """d."""
        return self.shape.dim

    @property
    def data_dim(self) -> int:
        """m."""
        return self.shape.data

    def _at(self, y: Any) -> tuple[Any, Any, Any]:
        """Networks and units in the precision at hand, and the data in standard units."""
        dtype = jnp.result_type(float)
        nets, units = jax.tree.map(lambda v: jnp.asarray(v, dtype), (self.networks, self.units))
        return nets, units, (jnp.asarray(y, dtype) - units["y_mean"]) / units["y_scale"]

    def log_prob(self, x: Any, y: Any) -> Any:
        """log q(x | y); x: float[d], y: float[m]."""
        nets, units, data = self._at(y)
        z = (x - units["x_mean"]) / units["x_scale"]
        each = jax.vmap(lambda net: log_density(self.shape, net, z, data))(nets)
        members = jnp.log(jnp.asarray(self.shape.members, each.dtype))
        return jax.nn.logsumexp(each) - members - jnp.sum(jnp.log(units["x_scale"]))

    def sample(self, key: Any, y: Any, n: int) -> Any:
        """``n`` independent draws given y: float[m] -> float[n, d].

        Every member makes n, of which each row keeps one.
        """
        k_which, k_noise = random.split(key)
        made = self._members(k_noise, y, n)
        which = random.categorical(k_which, jnp.zeros(self.shape.members), (n,))
        return made[which, jnp.arange(n)]

    def strata(self, key: Any, y: Any, n: int) -> Any:
        """M ⌈n/M⌉ draws, equally many of every member: Σ f(x_i)/n is unbiased for E_q[f]."""
        made = self._members(key, y, -(-n // self.shape.members))
        return made.reshape(-1, self.dim)

    def _members(self, key: Any, y: Any, each: int) -> Any:
        """``each`` draws of every member: float[M, each, d]."""
        nets, units, data = self._at(y)
        u = random.normal(key, (self.shape.members, each, self.dim), data.dtype)

        def draw(net: Any, u: Any) -> Any:
            context = networks.embed(net["embedding"], self.shape.rows, data)
            return colour(self.shape, net, u, jnp.broadcast_to(context, (each, *context.shape)))

        return units["x_mean"] + units["x_scale"] * jax.vmap(draw)(nets, u)
