"""A target as a product of shards, γ = Π_c f_c, each with its part of the data and of the prior.

    f_c(x) = prior(x)^{1/C} Π_{i ∈ shard c} p(y_i | x),

Jacobians counted with the prior. A bare density is cut into equal powers, f_c = γ^{1/C}.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.diagram import Box
from ppcore.errors import UnsupportedError
from ppcore.model_target import ModelTarget
from ppcore.semantics.interpret import interpret
from ppcore.semantics.log_density import LogDensity, layout, supported_log_prob
from ppcore.tuning.noise import spawned
from ppcore_smc.smc import SMC


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Shard:
    """f_c as a target without a reference.

    Attributes
    ----------
    target : Target
        The whole.
    share : float[]
        1/C, the power of the prior and of factors; of everything, for a bare density.
    weights : dict of site to float array, or None
        1 for the elements of the shard, 0 for the others.
    """

    target: Any
    share: Any
    weights: Any

    @property
    def dim(self) -> int:
        return int(self.target.dim)

    @property
    def has_reference(self) -> bool:
        return False

    def log_density(self, x: Any) -> Any:
        """log f_c(x); float[d] -> float[]."""
        if self.weights is None:
            return self.share * self.target.log_density(x)
        diagram = self.target.diagram
        handler = _Parts(self.share, self.weights)
        records = interpret(diagram, self.target.inputs, handler, layout(diagram).split(x))[1]
        zero = jnp.zeros((), x.dtype)
        return sum((r["log_prob"].sum() for r in records.values() if "log_prob" in r), zero)

    def constrain(self, x: Any) -> dict[str, Any]:
        return self.target.constrain(x)


class _Parts(LogDensity):
    """The density with priors to a power and observations weighed one by one."""

    def __init__(self, share: Any, weights: Any) -> None:
        self.share, self.weights = share, weights

    def latent(self, box: Box, distribution: Any, given: Any, key: Any) -> tuple[Any, Any]:
        value, record = super().latent(box, distribution, given, key)
        return value, {**record, "log_prob": self.share * record["log_prob"]}

    def observed(self, box: Box, distribution: Any, value: Any) -> Any:
        terms = supported_log_prob(box, distribution, value)
        return {"log_prob": (self.weights[str(box.name)] * terms).sum()}

    def factor(self, box: Box, log_weight: Any) -> Any:
        return {"log_prob": self.share * log_weight.sum()}


def shards_of(target: Any, count: int) -> Shard:
    """All shards at once: leaves with a leading axis of ``count`` (``target`` is shared).

    Elements of every observed site are dealt out in turn; a scalar one goes to the first shard.

    Raises
    ------
    UnsupportedError
        Discrete sites are summed out (shards would not share them), or evidence lies in a scan.
    """
    share = np.full(count, 1.0 / count)
    if not isinstance(target, ModelTarget):
        return Shard(target, share, None)
    if target.labels:
        raise UnsupportedError(
            f"Site {target.labels[0]!r} is discrete and summed out, which couples the data: they "
            "cannot be split into shards. Use 'smc'."
        )
    weights = {}
    for node in target.diagram.nodes:
        box = node.box
        inside = box.body.named("observe") if box.body is not None else ()
        if inside:
            raise UnsupportedError(
                f"The evidence {inside[0]!r} lies in a scan, whose steps cannot be dealt out to "
                "shards. Use 'particle_gibbs' or 'smc'."
            )
        if box.op == "observe":
            batch = tuple(box.spec[1])
            size = int(np.prod(batch, dtype=int))
            owner = np.arange(size) % count
            dealt = (owner == np.arange(count)[:, None]).astype(float)
            weights[str(box.name)] = dealt.reshape(count, *batch)
    return Shard(target, share, weights)


def pick(shards: Shard, c: Any) -> Shard:
    """Shard number ``c``, an integer or a traced one."""
    return replace(
        shards,
        share=shards.share[c],
        weights=jax.tree.map(lambda a: jnp.asarray(a)[c], shards.weights),
    )


@dataclass(frozen=True)
class Drawn:
    """Draws of every shard, equally weighted.

    Attributes
    ----------
    x : float[C, N, d]
    log_z : float[C]
        log ∫ f_c.
    gradients : int
    """

    x: np.ndarray
    log_z: np.ndarray
    gradients: int


def draw_shards(key: Any, shards: Shard, count: int, n: int, report: Any) -> Drawn:
    """``n`` draws of each f_c by tempered SMC from a Gaussian at its mode.

    Raises :class:`ppcore.errors.UnsupportedError` where a shard has no mode with a definite
    Hessian: it holds too few data to determine the parameters.
    """
    x, log_z, gradients = [], [], 0
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    for c, k in enumerate(spawned(key, count)):
        one = jax.tree.map(np.asarray, pick(shards, c))
        try:
            made = SMC(reference="laplace").populate(k, one, n, report)
        except UnsupportedError as error:
            raise UnsupportedError(
                f"Shard {c} of {count} cannot be drawn from by itself: {error} Fewer shards hold "
                f"more data each (shards={max(count // 2, 1)})."
            ) from None
        w = np.exp(np.asarray(made.population.log_weight))
        index = rng.choice(n, n, p=w / w.sum()) if np.ptp(w) > 0 else np.arange(n)
        x.append(np.asarray(made.population.x)[index])
        log_z.append(float(made.population.log_z))
        gradients += made.gradients
    return Drawn(np.stack(x), np.array(log_z), gradients)
