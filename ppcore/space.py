"""Spaces: the types of wires (shape, dtype and support)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Support:
    """The subset of R^n (or of the integers) on which a wire's values lie.

    ``name`` is the field's term ("real", "positive", "interval", "simplex",
    "corr_cholesky", "integer_interval", …). ``lower`` and ``upper`` hold constant bounds;
    bounds that depend on other wires are None, and ``dependent`` is True: whether a value lies
    inside can then only be told when the density is evaluated.
    """

    name: str = "real"
    lower: float | None = None
    upper: float | None = None
    discrete: bool = False
    dependent: bool = False

    def __str__(self) -> str:
        if self.lower is None and self.upper is None:
            return self.name
        low = "-inf" if self.lower is None else f"{self.lower:g}"
        high = "inf" if self.upper is None else f"{self.upper:g}"
        return f"{self.name}[{low}, {high}]"


REAL = Support()
BOOLEAN = Support("boolean", 0.0, 1.0, discrete=True)
INTEGER = Support("integer", discrete=True)


@dataclass(frozen=True)
class Space:
    """The type of a wire.

    Parameters
    ----------
    shape : tuple of int
        The array's shape.
    dtype : str
        NumPy's name of the dtype ("float64", "int64", "bool", …).
    support : Support
        Where the values lie.

    >>> print(Space((3,), "float64", Support("positive")))
    float64[3] positive
    """

    shape: tuple[int, ...] = ()
    dtype: str = "float64"
    support: Support = REAL

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "dtype", np.dtype(self.dtype).name)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=int))

    def accepts(self, other: Space) -> bool:
        """Whether a wire of space ``other`` may be plugged in here.

        Shapes and dtypes must agree; the support must be the same, or this one the whole line.
        """
        if (self.shape, self.dtype) != (other.shape, other.dtype):
            return False
        return self.support == other.support or self.support.name in ("real", "integer")

    def __str__(self) -> str:
        dims = ",".join(map(str, self.shape))
        return f"{self.dtype}[{dims}] {self.support}"


def natural_space(shape: tuple[int, ...], dtype: str) -> Space:
    """The space of all arrays of a shape and dtype.

    >>> print(natural_space((2,), "int64"))
    int64[2] integer
    """
    kind = np.dtype(dtype).kind
    support = {"b": BOOLEAN, "i": INTEGER, "u": INTEGER}.get(kind, REAL)
    return Space(shape, dtype, support)
