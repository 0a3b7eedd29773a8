"""``jax.jit`` with less for XLA to do: most of the wait for a small program is its compilation."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial, update_wrapper
from typing import Any

BRIEF: dict[str, Any] = {"xla_cpu_use_fusion_emitters": False}
"""Loops by the plainer of XLA's two emitters: a quarter to a half less to compile, and as fast."""

QUICK: dict[str, Any] = {**BRIEF, "xla_backend_optimization_level": 0}
"""No optimisation of machine code either: a quarter of the compilation, two to four times the run
time. For programs that work for milliseconds."""


class Jitted:
    """A function compiled with ``options`` where they apply, and as ``jax.jit`` has it elsewhere.

    They apply on a CPU, to a call that is not part of another program, and where XLA knows them.

    >>> import jax.numpy as jnp
    >>> double = Jitted(lambda x: 2 * x, QUICK)
    >>> float(double(jnp.ones(()))), float(jit(lambda x: double(x) + 1)(jnp.ones(())))
    (2.0, 3.0)
    """

    def __init__(self, fn: Callable[..., Any], options: dict[str, Any], **settings: Any) -> None:
        self.fn, self.options, self.settings = fn, options, settings
        self.usable = True
        update_wrapper(self, fn)

    @cached_property
    def _plain(self) -> Any:
        import jax

        return jax.jit(self.fn, **self.settings)

    @cached_property
    def _brief(self) -> Any:
        import jax

        if jax.default_backend() != "cpu":
            return self._plain
        return jax.jit(self.fn, compiler_options=self.options, **self.settings)

    def __call__(self, *args: Any, **named: Any) -> Any:
        if self.usable:
            try:
                return self._brief(*args, **named)
            except Exception as error:
                said = str(error)
                if "No such compile option" in said:
                    self.usable = False
                elif "top-level" not in said:
                    raise
        return self._plain(*args, **named)

    def lower(self, *args: Any, **named: Any) -> Any:
        """As ``jax.jit`` has it."""
        return (self._brief if self.usable else self._plain).lower(*args, **named)


def jit(
    fn: Callable[..., Any] | None = None, options: dict[str, Any] = BRIEF, **settings: Any
) -> Any:
    """``jax.jit`` with ``options`` of XLA's; also a decorator with arguments.

    >>> @jit(static_argnames="n")
    ... def power(x, n):
    ...     return x**n
    >>> int(power(3, n=2))
    9
    """
    if fn is None:
        return partial(jit, options=options, **settings)
    return Jitted(fn, options, **settings)
