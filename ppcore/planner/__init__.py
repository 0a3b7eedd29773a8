"""The planner: from a model to the cheapest way to its posterior that can be checked.

:func:`ppcore.planner.rewriting.prepare` rewrites a model; :func:`ppcore.planner.choose.choose` then
tries, in turn: exact solution, quadrature of what little is left, importance sampling from
Gaussians at the modes with a certificate, and Markov chains; tempered SMC where there are modes
that chains would not travel between. What it did and why is a :class:`ppcore.planner.plan.Plan`.
"""
