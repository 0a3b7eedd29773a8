"""Operations on diagrams: marginals, conditionals, inversion, surgery, counterfactuals.

Each module defines one operation on the joint diagram; the methods of
:class:`ppcore.declare.Model` call them, and results are computed exactly or lowered to inference.

Sources: Cho & Jacobs, "Disintegration and Bayesian inversion via string diagrams" (2019),
arXiv:1709.00322; Jacobs, Kissinger & Zanasi, "Causal inference by string diagram surgery" (2019),
arXiv:1811.08338.
"""
