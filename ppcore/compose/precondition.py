"""A kernel in other coordinates."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import contract as rules
from ppcore.compose.base import Composed, acceptances, check_parts, moved
from ppcore.contract import Contract, Transport
from ppcore.errors import CompositionError
from ppcore.tuning.preconditioner import Dense, LowRank, Preconditioner, identity


class Mapped(NamedTuple):
    """The position x = T(u), and the kernel's state at u."""

    x: Any
    inner: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Affine:
    """T(u) = shift + F u, F dense or low-rank; log|det| = log|det F|.

    Parameters
    ----------
    shift : float[d]
    preconditioner : Preconditioner
        F.

    >>> import numpy as np
    >>> y, log_det = Affine(np.ones(2), Dense(2.0 * np.eye(2))).forward(np.array([1.0, 0.0]))
    >>> y.tolist(), round(float(log_det), 4)
    ([3.0, 1.0], 1.3863)
    """

    shift: Any
    preconditioner: Preconditioner
    contract: ClassVar[Contract] = Transport()

    @property
    def dim(self) -> int:
        """d."""
        return int(self.shift.shape[0])

    def forward(self, u: Any) -> tuple[Any, Any]:
        """``(shift + F u, log|det F|)``; u: float[d]."""
        return self.shift + self.preconditioner.push(u), self._log_det()

    def inverse(self, x: Any) -> tuple[Any, Any]:
        """``(F⁻¹(x − shift), −log|det F|)``; x: float[d]."""
        f, centred = self.preconditioner, x - self.shift
        if isinstance(f, LowRank):
            scaled = centred / f.scale
            inner = ((scaled @ f.basis) * (1.0 / f.stretch - 1.0)) @ f.basis.T
            return scaled + inner, -self._log_det()
        return jnp.linalg.solve(f.factor, centred), -self._log_det()

    def _log_det(self) -> Any:
        f = self.preconditioner
        if isinstance(f, LowRank):
            return jnp.sum(jnp.log(jnp.abs(f.scale))) + jnp.sum(jnp.log(jnp.abs(f.stretch)))
        return jnp.linalg.slogdet(jnp.asarray(f.factor))[1]


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Pulled:
    """γ(T(u)) |det ∂T/∂u|: a target in the coordinates u = T⁻¹(x)."""

    whole: Any
    map: Any

    def tree_flatten(self) -> tuple[tuple[Any, Any], None]:
        return (self.whole, self.map), None

    @classmethod
    def tree_unflatten(cls, _: None, leaves: tuple[Any, Any]) -> Pulled:
        return cls(*leaves)

    @property
    def dim(self) -> int:
        return int(self.whole.dim)

    @property
    def beta(self) -> Any:
        return self.whole.beta

    @property
    def has_reference(self) -> bool:
        return bool(self.whole.has_reference)

    @property
    def has_gradient(self) -> bool:
        """As the target in its own coordinates."""
        return bool(getattr(self.whole, "has_gradient", True))

    def log_density(self, u: Any) -> Any:
        x, log_det = self.map.forward(u)
        return self.whole.log_density(x) + log_det

    def log_prior(self, u: Any) -> Any:
        x, log_det = self.map.forward(u)
        return self.whole.log_prior(x) + log_det

    def log_likelihood(self, u: Any) -> Any:
        return self.whole.log_likelihood(self.map.forward(u)[0])

    def sample_reference(self, key: Any, n: int) -> Any:
        """``n`` draws from the prior, mapped: float[n, d]."""
        return jax.vmap(lambda x: self.map.inverse(x)[0])(self.whole.sample_reference(key, n))

    def constrain(self, u: Any) -> dict[str, Any]:
        return self.whole.constrain(self.map.forward(u)[0])  # type: ignore[no-any-return]

    def tempered(self, beta: Any) -> Pulled:
        return replace(self, whole=self.whole.tempered(beta))


@dataclass(frozen=True)
class Precondition(Composed):
    """``kernel`` on u = T⁻¹(x) with the density γ(T(u)) |det ∂T/∂u|, seen as a kernel on x.

    Leaves γ invariant if the kernel leaves the transformed density so, and is reversible with it.
    A T that turns γ into something near N(0, I) makes any kernel fast. The step size is tuned; the
    map takes the place of the preconditioner, which is the identity for the kernel.

    Parameters
    ----------
    kernel : Kernel
    map : Map
        :class:`Affine` with a dense or low-rank factor, or any :class:`ppcore.transport.Map` that
        is a pytree (a fitted flow).

    Raises
    ------
    ppcore.errors.CompositionError
        If ``map`` is no transport, its arrays have several floating types, or, with a target, its
        dimension is another.

    Source: Parno & Marzouk 2018, arXiv:1412.5492; Hoffman et al. 2019, arXiv:1903.03704.

    >>> from ppcore.testing.reference.maps import Coupling
    >>> from ppcore.testing.reference.metropolis import RandomWalk
    >>> Precondition(RandomWalk(), Coupling()).contract
    Invariant(reversible=True, irreducible=True)
    """

    kernel: Any
    map: Any = field(compare=False)
    token: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_parts("Precondition", (self.kernel,))
        for part in ("forward", "inverse", "contract"):
            if not hasattr(self.map, part):
                raise CompositionError(
                    f"Precondition takes a map with `forward`, `inverse` and a Transport() "
                    f"contract; {type(self.map).__name__} has no {part!r}."
                )
        rules.precondition(self.kernel.contract, self.map.contract)
        leaves, structure = jax.tree.flatten(self.map)
        # Kernels are told apart by value, as compiled programs are kept by them.
        content = hashlib.sha256(f"{type(self.map)}{structure}".encode())
        for leaf in leaves:
            content.update(f"{np.shape(leaf)}".encode() + np.asarray(leaf).tobytes())
        object.__setattr__(self, "token", content.hexdigest())
        kinds = {str(np.asarray(leaf).dtype) for leaf in leaves if _floating(leaf)}
        if len(kinds) > 1:
            raise CompositionError(
                f"The arrays of {type(self.map).__name__} have the types {sorted(kinds)}: convert "
                "them to one."
            )

    @property
    def contract(self) -> Contract:
        """Derived from those of the kernel and the map."""
        return rules.precondition(self.kernel.contract, self.map.contract)

    @property
    def parts(self) -> tuple[Any, ...]:
        return (self.kernel,)

    @property
    def dtype(self) -> str | None:
        """That of the map's arrays."""
        kinds = [str(np.asarray(a).dtype) for a in jax.tree.leaves(self.map) if _floating(a)]
        return kinds[0] if kinds else super().dtype

    @property
    def auxiliary(self) -> tuple[str, ...]:
        return ("inner",) if getattr(self.kernel, "auxiliary", ()) else ()

    def check_target(self, target: Any) -> None:
        """Raise :class:`ppcore.errors.CompositionError` where the dimensions do not meet."""
        super().check_target(Pulled(target, self.map))
        dim = getattr(self.map, "dim", None)
        if dim is not None and dim != target.dim:
            raise CompositionError(
                f"Precondition's {type(self.map).__name__} maps R^{dim}, and the target lives on "
                f"R^{target.dim}. Fit the map to draws of this target."
            )

    def parameters(
        self, preconditioner: Any, step: Any, length: Any, target: Any = None
    ) -> tuple[Any, ...]:
        """The map, and the kernel's parameters for the identity as preconditioner."""
        plain = None
        if preconditioner is not None:
            kind = "dense" if isinstance(preconditioner, Dense) else "low_rank"
            plain = identity(kind, target.dim, 0, np.asarray(step).dtype)
        return (self.map, *super().parameters(plain, step, length, Pulled(target, self.map)))

    def init(self, key: Any, target: Any, x: Any, params: tuple[Any, ...]) -> Mapped:
        bijection, own = params
        u = bijection.inverse(x)[0]
        return Mapped(x, self.kernel.init(key, Pulled(target, bijection), u, own))

    def refresh(self, target: Any, state: Mapped) -> Mapped:
        """The kernel's caches recomputed at T⁻¹(x)."""
        inner = moved(state.inner, self.map.inverse(state.x)[0])
        return Mapped(state.x, self.kernel.refresh(Pulled(target, self.map), inner))

    def step(
        self, key: Any, target: Any, state: Mapped, params: tuple[Any, ...]
    ) -> tuple[Mapped, dict[str, Any]]:
        bijection, own = params
        inner, info = self.kernel.step(key, Pulled(target, bijection), state.inner, own)
        rates = acceptances(self.kernel, info, state.x.dtype)
        x = bijection.forward(inner.x)[0]
        return Mapped(x, inner), info | {"acceptance_rates": rates}


def _floating(leaf: Any) -> bool:
    return np.issubdtype(np.asarray(leaf).dtype, np.floating)
