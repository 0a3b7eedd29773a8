"""What combinators share: states that hand their caches on, parameters and promises of parts."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.errors import CompositionError
from ppcore.kernel import (
    StepRule,
    check_kernel,
    check_target,
    keeps_finite,
    needs,
    step_rules,
    tunable,
)

CACHES = ("x", "log_density", "gradient")


class Parts(NamedTuple):
    """The position and the states of a composition's parts, whose caches may be out of date."""

    x: Any
    parts: tuple[Any, ...]


class Composed:
    """What follows from :attr:`parts` alone: needs, tuning, checks. Mixed into combinators."""

    @property
    def parts(self) -> tuple[Any, ...]:
        """The kernels that this one is made of."""
        raise AttributeError("parts")

    @property
    def needs(self) -> tuple[str, ...]:
        """All that any part needs."""
        return tuple(dict.fromkeys(need for part in self.parts for need in needs(part)))

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """``("parts",)`` if the state of a part holds random variables of its own."""
        return ("parts",) if any(getattr(part, "auxiliary", ()) for part in self.parts) else ()

    @property
    def power(self) -> float:
        """The power of the target that every part leaves invariant."""
        return float(getattr(self.parts[0], "power", 1.0))

    @property
    def dtype(self) -> str | None:
        """The floating type that some part insists on."""
        return next((d for p in self.parts if (d := getattr(p, "dtype", None)) is not None), None)

    @property
    def keeps_finite(self) -> bool:
        """Whether any part draws finite sites."""
        return any(keeps_finite(part) for part in self.parts)

    @property
    def tunable(self) -> bool:
        """Whether a warm-up has anything to find for a part."""
        return any(tunable(part) for part in self.parts)

    @property
    def step_rules(self) -> tuple[StepRule, ...]:
        """The rules of all parts, one after the other."""
        return tuple(rule for part in self.parts for rule in step_rules(part))

    def parameters(
        self, preconditioner: Any, step: Any, length: Any, target: Any = None
    ) -> tuple[Any, ...]:
        """Parameters of every part; ``step``: float[k], one for each of :attr:`step_rules`."""
        shares = split_steps(self.parts, step)
        return tuple(
            part_parameters(part, preconditioner, share, length, target)
            for part, share in zip(self.parts, shares, strict=True)
        )

    def check_target(self, target: Any) -> None:
        """Raise :class:`ppcore.errors.CompositionError` where a part cannot run on ``target``."""
        for part in self.parts:
            check_target(part, target)


def check_parts(name: str, parts: tuple[Any, ...]) -> None:
    """Raise :class:`ppcore.errors.CompositionError` unless kernels of one kind are given.

    All must leave the same power of the target invariant, and insist on at most one floating type.
    """
    if not isinstance(parts, tuple) or not parts:
        raise CompositionError(f"{name} needs at least one kernel.")
    for part in parts:
        check_kernel(part, name)
    powers = {float(getattr(part, "power", 1.0)): part for part in parts}
    if len(powers) > 1:
        (a, first), (b, second) = sorted(powers.items(), key=lambda item: item[0])[:2]
        raise CompositionError(
            f"The parts of {name} do not meet: {type(first).__name__} leaves the target to the "
            f"power {a:g} invariant and {type(second).__name__} to the power {b:g}. Correct the "
            "tempered one with Metropolise(...)."
        )
    types = {d: part for part in parts if (d := getattr(part, "dtype", None)) is not None}
    if len(types) > 1:
        (a, first), (b, second) = sorted(types.items(), key=lambda item: item[0])[:2]
        raise CompositionError(
            f"The parts of {name} do not meet: {type(first).__name__} holds {a} arrays and "
            f"{type(second).__name__} {b}. Convert one of them."
        )


def split_steps(parts: tuple[Any, ...], step: Any) -> list[Any]:
    """``step`` (float[k]) cut into one share for each part."""
    ends = np.cumsum([len(step_rules(part)) for part in parts])
    return [step[end - len(step_rules(part)) : end] for part, end in zip(parts, ends, strict=True)]


def part_parameters(kernel: Any, preconditioner: Any, share: Any, length: Any, target: Any) -> Any:
    """A part's parameters from its share of the step sizes; () where it takes none."""
    if not hasattr(kernel, "parameters"):
        return ()
    if hasattr(kernel, "step_rules"):
        return kernel.parameters(preconditioner, share, length, target)
    return kernel.parameters(preconditioner, share[0], length)


def moved(state: Any, x: Any) -> Any:
    """``state`` at position ``x``, its caches as they were."""
    return state._replace(x=x) if hasattr(state, "_replace") else dataclasses.replace(state, x=x)


def carried(kernel: Any, target: Any, own: Any, latest: Any) -> Any:
    """The state ``own`` of ``kernel`` at the position of ``latest``, with caches that are right.

    Where ``own`` is a position with log density and gradient, and ``latest`` knows them, they are
    taken over; everything else is recomputed by ``kernel.refresh``.
    """
    names = _names(own)
    if set(names) <= set(CACHES) & set(_names(latest)):
        return type(own)(**{name: getattr(latest, name) for name in names})
    return kernel.refresh(target, moved(own, latest.x))


def _names(state: Any) -> tuple[str, ...]:
    found = getattr(state, "_fields", None)
    return tuple(found if found is not None else (f.name for f in dataclasses.fields(state)))


def acceptances(kernel: Any, info: dict[str, Any], dtype: Any) -> Any:
    """A part's acceptance for each of its step sizes: float[k], NaN where it says nothing."""
    rules = step_rules(kernel)
    if hasattr(kernel, "step_rules"):
        return info.get("acceptance_rates", jnp.full(len(rules), jnp.nan, dtype))
    rate = jnp.asarray(info.get("acceptance_rate", jnp.nan), dtype)
    return jnp.full(len(rules), rate)


def scored(info: dict[str, Any], state: Any) -> dict[str, Any]:
    """``info`` with the log density that the state keeps, if it does."""
    kept = getattr(state, "log_density", None)
    return info if kept is None else {"log_density": kept} | info


def joined(infos: list[dict[str, Any]], dtype: Any) -> dict[str, Any]:
    """One info for several transitions in a row, without ``acceptance_rates``.

    Mean acceptance, any divergence, all gradients, the last log density.
    """
    out: dict[str, Any] = {}
    rates = [jnp.asarray(i["acceptance_rate"], dtype) for i in infos if "acceptance_rate" in i]
    if rates:
        out["acceptance_rate"] = jnp.nanmean(jnp.stack(rates))
    if any("diverging" in i for i in infos):
        out["diverging"] = jnp.any(
            jnp.stack([jnp.asarray(i.get("diverging", False)) for i in infos])
        )
    if any("n_gradients" in i for i in infos):
        out["n_gradients"] = sum(jnp.asarray(i.get("n_gradients", 0), jnp.int32) for i in infos)
    if "log_density" in infos[-1]:
        out["log_density"] = infos[-1]["log_density"]
    return out


def branch(key: Any, index: Any, branches: list[Any], operand: Any) -> Any:
    """``branches[index](key, operand)``; under a script all run, so that all are walked."""
    import jax

    if isinstance(key, random.Coupled):
        return jax.lax.switch(index, branches, key, operand)
    if not isinstance(key, random.Script):
        # Batched, a switch runs every branch and selects among operands: each has a key of its
        # own, as plain numbers, so that no key is used twice.
        impl = jax.random.key_impl(key)
        words = jax.random.key_data(random.split(key, len(branches)))

        def own(i: int, run: Any) -> Any:
            return lambda w, x: run(jax.random.wrap_key_data(w[i], impl=impl), x)

        return jax.lax.switch(index, [own(i, r) for i, r in enumerate(branches)], words, operand)
    made = [run(key, operand) for run in branches]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves)[index], *made)
