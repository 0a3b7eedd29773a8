"""Inference kernels: pure functions on states, with a contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ppcore.contract import Contract
from ppcore.errors import CompositionError, did_you_mean

PARTS = ("contract", "init", "step", "refresh")
NEEDS = {
    "gradient": (
        "its log density cannot be differentiated (it has finite coordinates, or says so). Move "
        "those coordinates with a kernel that needs no gradient: Blocks({sites: kernel, ...})"
    ),
    "reference": (
        "it has no reference to draw from (a prior is improper, or a plain density came without "
        "`sample_reference_fn`). Give every site a proper prior"
    ),
}


@runtime_checkable
class Kernel(Protocol):
    """A Markov kernel on the state space of a target.

    Parameters are data (``params``, a pytree), so that a kernel adapts nothing by itself.
    A state is a pytree with a field ``x`` (float[d]); other fields are caches.

    What a kernel may say besides, as class attributes and methods:

    - ``needs``: what it asks of a target, of "gradient" and "reference"; ``()`` by default.
    - ``auxiliary``: fields of the state that are random variables of their own.
    - ``parameters(preconditioner, step, length) -> params``: what a warm-up found, in whitened
      units, as the kernel's parameters. A kernel without it has none and is not tuned.
    - ``target_accept``: the mean acceptance to tune the step size for; None leaves it alone.
    - ``error_order``: p, where errors in log γ grow like step^p; see
      :class:`ppcore.tuning.step_size.StepSize`.
    - ``first_step``: the step size to begin with; by default ½ d^(−1/2p).
    - ``learns_length``: whether ``length`` means anything and is worth a search.
    - ``step_rules``: of a composed kernel, one rule for each step size; ``step`` is then
      float[k], ``parameters`` takes the target as a fourth argument, and info has
      ``acceptance_rates``: float[k], NaN where a part did not move.
    - ``keeps_finite``: it moves finite sites, which its target must therefore keep
      (:class:`ppcore.labelled_target.LabelledTarget`).
    - ``power``: the kernel leaves γ_{power·β} invariant in place of γ_β (1 by default).
    - ``dtype``: the only floating type that it can run in ("float64", "float32").
    - ``propose(key, target, state, params) -> state, log_ratio``: where it would go, and
      log γ(y) q(y, x) − log γ(x) q(x, y), for a Metropolis–Hastings test of that move.
    """

    contract: Contract

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Any:
        """The state at position ``x`` (float[d])."""
        ...

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        """One transition: ``(state, info)``."""
        ...

    def refresh(self, target: Any, state: Any) -> Any:
        """The same position with caches recomputed, for a target that has moved."""
        ...


@dataclass(frozen=True)
class StepRule:
    """How one step size is tuned; see :class:`Kernel`."""

    target_accept: float | None
    error_order: float
    first: float | None


def step_rules(kernel: Any) -> tuple[StepRule, ...]:
    """One rule for every step size of a kernel; none for one that is not tuned."""
    own = getattr(kernel, "step_rules", None)
    if own is not None:
        return tuple(own)
    if not hasattr(kernel, "parameters"):
        return ()
    blind = "gradient" not in needs(kernel)
    return (
        StepRule(
            getattr(kernel, "target_accept", 0.3 if blind else 0.8),
            float(getattr(kernel, "error_order", 1.0 if blind else 2.0)),
            getattr(kernel, "first_step", None),
        ),
    )


def keeps_finite(kernel: Any) -> bool:
    """Whether a kernel draws finite sites of a model."""
    return bool(getattr(kernel, "keeps_finite", False))


def tunable(kernel: Any) -> bool:
    """Whether a warm-up has anything to find for a kernel.

    >>> tunable(object())
    False
    """
    return bool(getattr(kernel, "tunable", hasattr(kernel, "parameters")))


def check_kernel(kernel: Any, where: str) -> None:
    """Raise :class:`ppcore.errors.CompositionError` unless ``kernel`` is one, for use ``where``.

    >>> check_kernel(3, "Cycle")
    Traceback (most recent call last):
    ppcore.errors.CompositionError: Cycle takes kernels, and int is not one: it has no 'contract'.
    """
    name = kernel.__name__ if isinstance(kernel, type) else type(kernel).__name__
    if isinstance(kernel, type):
        raise CompositionError(f"{where} takes kernels, not classes: write {name}(...).")
    for part in PARTS:
        if not hasattr(kernel, part):
            raise CompositionError(
                f"{where} takes kernels, and {name} is not one: it has no {part!r}."
            )
    for need in needs(kernel):
        if need not in NEEDS:
            raise CompositionError(
                f"{name} needs {need!r}, which no target offers. {did_you_mean(need, NEEDS)}"
            )
    try:
        hash(kernel)
    except TypeError as error:
        raise CompositionError(
            f"{where} takes kernels that can be hashed (compiled programs are kept by them), and "
            f"{name} cannot ({error}). Make it a frozen dataclass; arrays are parameters."
        ) from error


def needs(kernel: Any) -> tuple[str, ...]:
    """What a kernel asks of its target."""
    return tuple(getattr(kernel, "needs", ()))


def check_target(kernel: Any, target: Any) -> None:
    """Raise :class:`ppcore.errors.CompositionError` where the target lacks what a kernel needs.

    A target says that it has no gradient by ``has_gradient = False``. A kernel with a method
    ``check_target(target)`` is asked as well (blocks look for their sites).
    """
    own = getattr(kernel, "check_target", None)
    if own is not None:
        own(target)
    for need in needs(kernel):
        if not getattr(target, f"has_{need}", need == "gradient"):
            raise CompositionError(
                f"{type(kernel).__name__} needs a {need}, which {type(target).__name__} does not "
                f"have: {NEEDS[need]}."
            )
    dtype, running = getattr(kernel, "dtype", None), _running()
    if dtype is not None and dtype != running:
        raise CompositionError(
            f"{type(kernel).__name__} holds {dtype} arrays, but this run computes in {running}. "
            f"Run with precision={dtype!r}, or convert the arrays of its map."
        )


def _running() -> str:
    import jax.numpy as jnp

    return str(jnp.result_type(float))
