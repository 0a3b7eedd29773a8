"""One of several kernels, chosen at random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from ppcore import contract as rules
from ppcore import random
from ppcore.compose.base import Composed, Parts, acceptances, branch, check_parts, moved, scored
from ppcore.contract import Contract
from ppcore.errors import CompositionError
from ppcore.kernel import step_rules


class Mix(Composed):
    """Σᵢ wᵢ Kᵢ: one part, taken with a probability that does not depend on the state.

    Leaves π invariant if every part does; reversible if every part is; irreducible if any is. In
    lockstep all parts are computed and one is kept, so a mixture costs their sum.

    Parameters
    ----------
    *kernels : Kernel
    weights : sequence of float, optional
        Positive, in any normalisation; equal by default.

    Raises
    ------
    ppcore.errors.CompositionError
        If something is not a kernel, the parts leave different things invariant, or the weights
        are not as many positive numbers.

    Source: Tierney 1994, doi:10.1214/aos/1176325750.

    >>> from ppcore.testing.reference.metropolis import MALA, RandomWalk
    >>> Mix(RandomWalk(), MALA(), weights=(1, 3)).contract
    Invariant(reversible=True, irreducible=True)
    """

    def __init__(self, *kernels: Any, weights: Sequence[float] | None = None) -> None:
        check_parts("Mix", kernels)
        given = [1.0] * len(kernels) if weights is None else [float(w) for w in weights]
        if len(given) != len(kernels) or not all(0 < w < math.inf for w in given):
            raise CompositionError(
                f"Mix of {len(kernels)} kernels has weights={weights!r}: give as many positive "
                "numbers."
            )
        self._kernels, self.weights = kernels, tuple(w / sum(given) for w in given)

    @property
    def contract(self) -> Contract:
        """Derived from those of the parts."""
        return rules.mix(*(kernel.contract for kernel in self._kernels))

    @property
    def parts(self) -> tuple[Any, ...]:
        return self._kernels

    def _identity(self) -> tuple[Any, ...]:
        return self._kernels, self.weights

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mix) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        return f"Mix({', '.join(map(repr, self._kernels))}, weights={self.weights})"

    def init(self, key: Any, target: Any, x: Any, params: tuple[Any, ...]) -> Parts:
        keys = random.split(key, len(self.parts))
        states = zip(self.parts, keys, params or [()] * len(self.parts), strict=True)
        return Parts(x, tuple(part.init(k, target, x, p) for part, k, p in states))

    def refresh(self, target: Any, state: Parts) -> Parts:
        """Nothing: a part refreshes itself when it is taken."""
        return state

    def step(
        self, key: Any, target: Any, state: Parts, params: tuple[Any, ...]
    ) -> tuple[Parts, dict[str, Any]]:
        params = params or ((),) * len(self.parts)
        k_which, k_move = random.split(key)
        which = random.categorical(k_which, jnp.log(jnp.asarray(self.weights, state.x.dtype)))
        dtype = state.x.dtype
        every = {i: jnp.full(len(step_rules(p)), jnp.nan, dtype) for i, p in enumerate(self.parts)}

        def taking(i: int) -> Any:
            part = self.parts[i]

            def run(k: Any, state: Parts) -> tuple[Parts, dict[str, Any]]:
                own = part.refresh(target, moved(state.parts[i], state.x))
                new, info = part.step(k, target, own, params[i])
                states = [new if j == i else moved(s, new.x) for j, s in enumerate(state.parts)]
                rates = [acceptances(part, info, dtype) if j == i else every[j] for j in every]
                info = scored(info, new)
                if "log_density" not in info:
                    info["log_density"] = target.log_density(new.x)
                out = {
                    "acceptance_rate": jnp.asarray(info.get("acceptance_rate", 1.0), dtype),
                    "log_density": jnp.asarray(info["log_density"], dtype),
                    "diverging": jnp.asarray(info.get("diverging", False), bool),
                    "n_gradients": jnp.asarray(info.get("n_gradients", 0), jnp.int32),
                }
                return Parts(new.x, tuple(states)), out | {
                    "acceptance_rates": jnp.concatenate(rates)
                }

            return run

        return branch(k_move, which, [taking(i) for i in range(len(self.parts))], state)  # type: ignore[no-any-return]
