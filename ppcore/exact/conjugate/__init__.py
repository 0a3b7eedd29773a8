"""The conjugate solver: exponential-family pairs, exactly; one pair or family a module."""

from ppcore.exact.conjugate.solve import ConjugateSolution, solve_conjugate

__all__ = ["ConjugateSolution", "solve_conjugate"]
