"""The law of what a function returns that draws its own random numbers: it can only be drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpyro.distributions import Distribution, constraints

from ppcore.errors import ShapeError, UnsupportedError
from ppcore.space import Space


@dataclass(frozen=True)
class Simulator:
    """A function ``fn(source of randomness, *inputs)``, and what it returns; compared by identity.

    Attributes
    ----------
    fn : callable
        With ``on_host`` it takes a :class:`numpy.random.Generator` and arrays of NumPy; without, a
        JAX key and is traced.
    space : Space
        Of what it returns.
    on_host : bool
    """

    fn: Callable[..., Any]
    space: Space
    on_host: bool

    @property
    def name(self) -> str:
        """What the function is called."""
        return str(getattr(self.fn, "__name__", self.fn))

    def draw(self, key: Any, inputs: tuple[Any, ...]) -> Any:
        """One value, as an array of JAX."""
        import jax
        import jax.numpy as jnp

        if not self.on_host:
            return jnp.asarray(self.fn(key, *inputs))
        from ppcore.recording.lift import call_on_host

        seed = jax.random.bits(key, (4,), jnp.uint32)
        (value,) = call_on_host(self._with_numpy, (self.space,), (seed, *inputs))
        return value

    def _with_numpy(self, seed: np.ndarray, *inputs: np.ndarray) -> list[np.ndarray]:
        rng = np.random.Generator(np.random.PCG64([int(word) for word in seed]))
        value = np.asarray(self.fn(rng, *inputs))
        if value.shape != self.space.shape:
            raise ShapeError(
                f"pp.lift: {self.name!r} returned an array of shape {value.shape}, but result= "
                f"says {self.space.shape}."
            )
        return [value]


class Simulated(Distribution):
    """The law of a :class:`Simulator`'s values given its inputs; without a density.

    Parameters
    ----------
    simulator : Simulator
    *inputs : arrays

    Raises
    ------
    ppcore.errors.UnsupportedError
        From ``log_prob``.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    pytree_data_fields = ("inputs",)
    pytree_aux_fields = ("simulator",)

    def __init__(self, simulator: Simulator, *inputs: Any) -> None:
        self.simulator, self.inputs = simulator, inputs
        super().__init__((), simulator.space.shape, validate_args=False)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        space = self.simulator.space
        base = constraints.integer if space.support.discrete else constraints.real
        return constraints.independent(base, space.ndim) if space.ndim else base

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        """Independent values: [*sample_shape, *shape]."""
        import jax

        if not sample_shape:
            return self.simulator.draw(key, self.inputs)
        keys = jax.random.split(key, sample_shape)
        draw = self.simulator.draw
        for _ in sample_shape:
            draw = jax.vmap(draw, (0, None))
        return draw(keys, self.inputs)

    def log_prob(self, value: Any) -> Any:
        raise UnsupportedError(
            f"The values of {self.simulator.name!r} come from pp.lift(..., random=True): they can "
            "be drawn, and have no density. Learn the posterior from simulations, "
            "model.amortise(observe=[...]), or write the noise with ppcore.dist."
        )
