"""Networks of the conditional flow: a masked residual network, and what makes data a context.

Parameters are dictionaries of arrays; inputs have any number of leading axes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SMALL = 1e-2


def dense(rng: np.random.Generator, inputs: int, outputs: int, size: float = 1.0) -> dict[str, Any]:
    """Weights of standard deviation size/√inputs, biases of zero."""
    weight = size * rng.standard_normal((inputs, outputs)) / max(1, inputs) ** 0.5
    return {"w": weight, "b": np.zeros(outputs)}


def apply(layer: dict[str, Any], x: Any, mask: np.ndarray | None = None) -> Any:
    """x W + b, with the weights masked."""
    weight = layer["w"] if mask is None else layer["w"] * mask.astype(layer["w"].dtype)
    return x @ weight + layer["b"]


def perceptron(rng: np.random.Generator, widths: tuple[int, ...]) -> list[dict[str, Any]]:
    """Layers from widths[0] to widths[-1]."""
    return [dense(rng, a, b) for a, b in pairwise(widths)]


def perceive(layers: list[dict[str, Any]], x: Any) -> Any:
    """The perceptron at x, smooth after every layer but the last."""
    for layer in layers[:-1]:
        x = jax.nn.silu(apply(layer, x))
    return apply(layers[-1], x)


def degrees(dim: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Of inputs, 1 … d, and of hidden units, 0 … d − 1 in turn.

    A unit of degree h sees inputs of degrees up to h; 0 sees the context alone.

    >>> degrees(2, 3)
    (array([1, 2]), array([0, 1, 0]))
    """
    return np.arange(dim) + 1, np.arange(width) % dim


def conditioner(
    rng: np.random.Generator, dim: int, context: int, width: int, blocks: int, each: int
) -> dict[str, Any]:
    """A residual network from (x, context) to ``each`` numbers for every coordinate."""
    return {
        "x": dense(rng, dim, width),
        "context": dense(rng, context, width),
        "blocks": [
            {
                "first": dense(rng, width, width),
                "context": dense(rng, context, width),
                "second": dense(rng, width, width, 0.3),
            }
            for _ in range(blocks)
        ],
        "out": dense(rng, width, dim * each, SMALL),
    }


def condition(net: dict[str, Any], x: Any, context: Any) -> Any:
    """What moves coordinate i, given those before it: float[..., d, each].

    Source: Germain, Gregor, Murray & Larochelle 2015, arXiv:1502.03509 (the masks).
    """
    dim, width = x.shape[-1], net["x"]["b"].shape[-1]
    own, hidden = degrees(dim, width)
    within = hidden[:, None] <= hidden[None, :]
    h = apply(net["x"], x, own[:, None] <= hidden[None, :]) + apply(net["context"], context)
    for block in net["blocks"]:
        inner = apply(block["first"], jax.nn.silu(h), within) + apply(block["context"], context)
        h = h + apply(block["second"], jax.nn.silu(inner), within)
    each = net["out"]["b"].shape[-1] // dim
    last = np.repeat(hidden[:, None] < own[None, :], each, axis=1)
    out = apply(net["out"], jax.nn.silu(h), last)
    return out.reshape(*out.shape[:-1], dim, each)


def embedding(rng: np.random.Generator, rows: int, width: int, hidden: int) -> dict[str, Any]:
    """From data float[..., rows · width] to a context of ``hidden`` (+ width) numbers.

    One row goes through a perceptron, and also as it is. Several rows are exchangeable: each goes
    through the same perceptron, and what comes out is averaged, so that their order is forgotten
    exactly, and then goes through a second one.
    """
    made: dict[str, Any] = {"each": perceptron(rng, (width, hidden, hidden))}
    if rows > 1:
        made["all"] = perceptron(rng, (hidden, hidden, hidden))
    return made


def embed(net: dict[str, Any], rows: int, y: Any) -> Any:
    """The context of data.

    Source: Zaheer et al. 2017, arXiv:1703.06114 (sums over sets).
    """
    if rows == 1:
        return jnp.concatenate([y, perceive(net["each"], y)], axis=-1)
    parts = perceive(net["each"], y.reshape(*y.shape[:-1], rows, -1))
    return perceive(net["all"], jax.nn.silu(parts).mean(-2))


def context_size(rows: int, width: int, hidden: int) -> int:
    """How many numbers :func:`embed` gives."""
    return hidden + width if rows == 1 else hidden
