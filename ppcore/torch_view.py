"""A target as torch sees it: batched log density and gradient, exchanged without copies.

JAX computes, compiled once for each number of rows. Each reads the other's memory: points by
NumPy's view of a tensor on the host (which JAX takes faster than DLPack) or by DLPack on an
accelerator, results by DLPack. Torch is imported when a view is made, not before.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import jax

from ppcore import precision
from ppcore.errors import PluginError, ShapeError

if TYPE_CHECKING:
    import torch


@jax.jit
def _values(target: Any, x: Any) -> Any:
    return jax.vmap(target.log_density)(x)


@jax.jit
def _values_and_gradients(target: Any, x: Any) -> Any:
    from ppcore.target import value_and_gradient

    return value_and_gradient(target, x)


@jax.jit
def _sites(target: Any, x: Any) -> Any:
    return jax.vmap(target.constrain)(x)


@lru_cache(maxsize=1)
def _density() -> Any:
    """log γ as a torch function, whose gradient JAX has computed along with it."""
    import torch

    class Density(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, view: TorchView) -> torch.Tensor:
            value, gradient = view.value_and_gradient(x)
            ctx.save_for_backward(gradient)
            return value

        @staticmethod
        @torch.autograd.function.once_differentiable  # type: ignore[misc]
        def backward(ctx: Any, above: torch.Tensor) -> tuple[torch.Tensor, None]:
            (gradient,) = ctx.saved_tensors
            return above.unsqueeze(-1) * gradient, None

    return Density


def _handed_over(x: torch.Tensor) -> Any:
    """A tensor's memory, as JAX takes it."""
    if x.device.type == "cpu" or jax.default_backend() == "cpu":
        return x.cpu().numpy()
    return jax.dlpack.from_dlpack(x)


class SeenByTorch:
    """What gives a target ``target.torch()``."""

    def torch(self, dtype: str = "float64") -> TorchView:
        """This density for torch engines: batched, differentiable by torch, without copies.

        Raises :class:`~ppcore.errors.PluginError` if torch is not installed.
        """
        return TorchView(self, dtype)


class TorchView:
    """γ for torch engines: tensors in, tensors out, differentiable by torch.

    The values are those of ``target``, in its precision. A number of rows that was not there
    before compiles a program; keep to a few.

    Parameters
    ----------
    target : Target
        Of any kind.
    dtype : str
        "float64" or "float32", of the tensors and of the computation.

    Raises
    ------
    PluginError
        If torch is not installed.

    >>> import jax.numpy as jnp, pytest
    >>> torch = pytest.importorskip("torch")
    >>> from ppcore.target import DensityTarget
    >>> def normal(x, data): return -0.5 * jnp.sum(x**2)
    >>> view = DensityTarget(normal, 2).torch()
    >>> x = torch.tensor([[1.0, 1.0], [3.0, 2.0]], dtype=torch.float64, requires_grad=True)
    >>> view.log_density(x).sum().backward()
    >>> x.grad.tolist()
    [[-1.0, -1.0], [-3.0, -2.0]]
    """

    def __init__(self, target: Any, dtype: str = "float64") -> None:
        if importlib.util.find_spec("torch") is None:
            raise PluginError(
                "target.torch() needs the module torch, which is not installed: pip install "
                '"ppcore[torch]"'
            )
        import jax.numpy as jnp

        self.dtype: torch.dtype = getattr(importlib.import_module("torch"), dtype)
        self._precision = dtype
        with precision.scope(dtype):
            # Once here, not at every call: leaves of NumPy would be handed over again each time.
            self.target = jax.tree.map(jnp.asarray, target)
        self.dim = int(target.dim)

    def log_density(self, x: torch.Tensor) -> torch.Tensor:
        """log γ at each row; x: float[n, d] -> float[n]. Torch differentiates it, once."""
        if x.requires_grad:
            found: torch.Tensor = _density().apply(x, self)
            return found
        return self._run(_values, x)  # type: ignore[no-any-return]

    def value_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """log γ and ∇ log γ at each row; x: float[n, d] -> float[n], float[n, d]."""
        return self._run(_values_and_gradients, x)  # type: ignore[no-any-return]

    def constrain(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """x: float[n, d] -> {site: [n, …]}, in the model's own coordinates."""
        # Copied: a site that is its coordinate would be the caller's own memory.
        return {name: value.clone() for name, value in self._run(_sites, x).items()}

    def sample_reference(self, seed: int, n: int) -> torch.Tensor:
        """``n`` draws from the prior, unconstrained; float[n, d]."""
        with precision.scope(self._precision):
            return self._out(self.target.sample_reference(jax.random.key(seed), n), None)  # type: ignore[no-any-return]

    def _run(self, program: Any, x: torch.Tensor) -> Any:
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ShapeError(
                f"x has shape {tuple(x.shape)}; it must be [n, {self.dim}], one point a row."
            )
        given = x.detach().to(self.dtype).contiguous()
        with precision.scope(self._precision):
            shared = _handed_over(given)
            # Waited for: torch may write to x as soon as this returns.
            found = jax.block_until_ready(program(self.target, shared))
            return self._out(found, x.device)

    def _out(self, found: Any, device: Any) -> Any:
        from torch.utils import dlpack

        def one(array: Any) -> Any:
            made = dlpack.from_dlpack(array)
            return made if device is None else made.to(device)

        return jax.tree.map(one, found)

    def __repr__(self) -> str:
        return f"<torch view of {type(self.target).__name__}, d = {self.dim}, {self._precision}>"
