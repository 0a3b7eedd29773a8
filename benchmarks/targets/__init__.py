"""Targets that benchmarks share, one family a file; each is a ``DensityTarget`` with data as leaves.

A file's functions return a target, and its truths where they are known: second moments
(:class:`benchmarks.targets.truth.Squares`) or the log evidence.
"""
