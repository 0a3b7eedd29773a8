"""Targets that benchmarks share, a family a file: ``DensityTarget``s with data as leaves.

A file's functions return a target, and its truths where they are known: second moments
(:class:`benchmarks.targets.truth.Squares`) or the log evidence.
"""
