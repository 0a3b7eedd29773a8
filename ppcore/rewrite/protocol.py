"""What a rewrite is: a diagram with its data becomes another with the same posterior and evidence.

A :class:`Problem` is an unnormalised state with all its evidence inside. A rewrite returns a
cheaper problem and how to go back:
∫ γ_before(x) f(x) dx = exp(log_constant) ∫ γ_after(x′) E[f(recover(key, x′))] dx′ for every f,
so that posterior and evidence are kept; sites that were integrated out are drawn by ``recover``
from their exact conditional given the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ppcore.diagram import Diagram


@dataclass(frozen=True, eq=False)
class Problem:
    """A conditioned diagram and the values of its inputs.

    Attributes
    ----------
    diagram : Diagram
        Data and evidence → latent and computed sites; observed sites are effects inside.
    data : tuple of arrays
        One for every input of the diagram. They stay data: new values of the same shapes give the
        same diagram, so that nothing is compiled twice.
    """

    diagram: Diagram
    data: tuple[Any, ...]

    @classmethod
    def of(cls, target: Any) -> Problem:
        """The problem of a model's target; ``ModelTarget(p.diagram, (), p.data, ())`` goes back."""
        return cls(target.diagram, tuple(target.inputs))

    @property
    def latents(self) -> tuple[str, ...]:
        """Names of the unobserved random sites."""
        return self.diagram.named("sample")


@runtime_checkable
class Recovery(Protocol):
    """The way back; a JAX pytree whose data are leaves, traceable under ``jit`` and ``vmap``.

    One whose draws are functions of standard normals says how many, ``noise_size``, and has
    ``given(x, z)`` with z: float[noise_size]; that noise can be made without a compiled program.
    """

    def __call__(self, key: Any, x: Any) -> Any:
        """Coordinates float[d′] of the problem after -> float[d] of the problem before.

        Sites that were integrated out are drawn with ``key``; without any it is not used.
        """
        ...


@dataclass(frozen=True, eq=False)
class Rewritten:
    """What applying a rewrite gives.

    Attributes
    ----------
    problem : Problem
        The cheaper problem.
    recover : Recovery or None
        None if the coordinates are the same.
    did : str
        What it did, in one line.
    log_constant : float
        log of the normaliser before over the normaliser after.
    """

    problem: Problem
    recover: Recovery | None
    did: str
    log_constant: float = 0.0


@dataclass(frozen=True)
class NotApplicable:
    """A rewrite has nothing to do here; ``reason`` names the site in the way."""

    reason: str


@runtime_checkable
class Rewrite(Protocol):
    """A rewrite that can be named and switched off."""

    @property
    def name(self) -> str:
        """What a user types."""
        ...

    @property
    def summary(self) -> str:
        """One line for listings."""
        ...

    def apply(self, problem: Problem) -> Rewritten | NotApplicable:
        """The cheaper problem, or why there is none. Runs on the host, once per data set."""
        ...


@dataclass(frozen=True, eq=False)
class Rewriting:
    """Several rewrites, one after the other.

    Attributes
    ----------
    problem : Problem
        What is left.
    recoveries : tuple of Recovery
        The ways back, in the order in which the rewrites were applied.
    log_constant : float
        log of the normaliser before over the normaliser after, of all together.
    log : tuple of (name, applied, line)
        What each did, or why it did nothing.
    """

    problem: Problem
    recoveries: tuple[Recovery, ...]
    log_constant: float
    log: tuple[tuple[str, bool, str], ...]

    def recover(self, key: Any, x: Any) -> Any:
        """float[d′] -> float[d] of the first problem; ``key`` serves all that is drawn."""
        import jax

        for i, back in enumerate(reversed(self.recoveries)):
            x = back(jax.random.fold_in(key, i) if len(self.recoveries) > 1 else key, x)
        return x

    def noise(self, rng: Any, n: int) -> tuple[Any, ...]:
        """What ``n`` draws of :meth:`given` need, made on the host: an array with n rows each."""
        import jax

        made = []
        for back in self.recoveries:
            size = getattr(back, "noise_size", None)
            if size is not None:
                made.append(rng.standard_normal((n, size)))
            else:
                words = rng.integers(0, 2**32, (n, 2), dtype="uint32")
                made.append(jax.random.wrap_key_data(words))
        return tuple(made)

    def given(self, noise: tuple[Any, ...], x: Any) -> Any:
        """One draw: a row of each part of :meth:`noise` and float[d′] -> float[d]."""
        return restore(self.recoveries, noise, x)


def restore(recoveries: tuple[Recovery, ...], noise: tuple[Any, ...], x: Any) -> Any:
    """All ways back in turn, the last first, each with its own noise; a pure function of arrays.

    >>> restore((), (), 1.0)
    1.0
    """
    for back, z in zip(reversed(recoveries), reversed(noise), strict=True):
        given = getattr(back, "given", None)
        x = back(z, x) if given is None else given(x, z)
    return x


def rewrite(problem: Problem, rewrites: Sequence[Rewrite]) -> Rewriting:
    """Apply each rewrite in turn to what the ones before it left.

    >>> from ppcore.diagram import Diagram
    >>> rewrite(Problem(Diagram((), (), ()), ()), ()).log
    ()
    """
    recoveries: list[Recovery] = []
    log: list[tuple[str, bool, str]] = []
    constant = 0.0
    for one in rewrites:
        made = one.apply(problem)
        if isinstance(made, NotApplicable):
            log.append((one.name, False, made.reason))
            continue
        log.append((one.name, True, made.did))
        problem = made.problem
        constant += made.log_constant
        if made.recover is not None:
            recoveries.append(made.recover)
    return Rewriting(problem, tuple(recoveries), constant, tuple(log))
