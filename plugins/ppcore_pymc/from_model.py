"""``from_pymc``: a PyMC model as a density with its variables' names, shapes and dims."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppcore.errors import EvidenceError, ModelError, UnsupportedError
from ppcore.foreign import ForeignProgram, Frontend
from ppcore_pymc.graph import Graph, PyMCTarget, places


def from_pymc(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ForeignProgram:
    """A PyMC model: its density in PyMC's own unconstrained coordinates, compiled by JAX.

    log γ(x) = Σ log p(variable) + Σ log |det ∂ transform| + Σ log p(observed) + Σ potentials.
    Observed values and ``pm.Data`` are data of the density; other constants are part of it. There
    is no diagram: PyMC's graph names variables and their parents, not plates.

    Raises
    ------
    ModelError
        If ``model`` is no PyMC model, or has no free variable.
    UnsupportedError
        For discrete free variables, and operations that PyTensor has no JAX form of.
    EvidenceError
        For observed values that are NaN.
    """
    import pymc as pm

    if not isinstance(model, pm.Model):
        raise ModelError(
            f"from_pymc takes a pymc.Model, not {type(model).__name__}: pass what stands after "
            "`with pm.Model() as`."
        )
    if args or kwargs:
        raise ModelError("from_pymc takes the model alone: its data are in it.")
    if not model.free_RVs:
        raise ModelError("The model has no free variable: everything in it is observed.")
    discrete = [v.name for v in model.discrete_value_vars]
    if discrete:
        raise UnsupportedError(
            f"Variable {discrete[0]!r} is discrete and latent, so the model has no density on R^d. "
            "Sum it out (pymc_extras.marginalize, or a pm.Mixture), or declare the model with "
            "ppcore, which sums out finite sites by itself."
        )
    observed = _observed(model)
    graph, data = _graph(model)
    return ForeignProgram(
        str(model.name or "model"),
        PyMCTarget(graph, data),
        tuple(p.name for p in graph.places),
        tuple(v.name for v in model.deterministics),
        observed,
        why="PyMC hands over a graph without plates",
        dims=_dims(model),
    )


def _dims(model: Any) -> dict[str, tuple[str, ...]]:
    """Names of the axes, where PyMC knows all of a variable's."""
    known = model.named_vars_to_dims.items()
    return {name: tuple(map(str, dims)) for name, dims in known if None not in dims}


def _observed(model: Any) -> dict[str, np.ndarray]:
    found = {}
    for variable in model.observed_RVs:
        value = model.rvs_to_values[variable]
        array = np.asarray(value.eval() if not hasattr(value, "data") else value.data)
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise EvidenceError(
                f"Variable {variable.name!r} is observed as NaN at {int(np.isnan(array).sum())} of "
                f"{array.size} places. Leave them out, or mask them (numpy.ma.masked_invalid), "
                "which makes latent variables of them."
            )
        found[variable.name] = array
    return found


def _graph(model: Any) -> tuple[Graph, tuple[np.ndarray, ...]]:
    """The model's graphs in JAX, and its data."""
    value_vars = list(model.value_vars)
    start = model.initial_point(random_seed=0)
    shapes = [np.shape(start[v.name]) for v in value_vars]
    rvs = [model.values_to_rvs[v] for v in value_vars]
    prior = model.logp(vars=model.free_RVs)
    rest = [*model.observed_RVs, *model.potentials]
    likelihood = model.logp(vars=rest) if rest else prior * 0.0
    shown = [*rvs, *model.deterministics]
    values = model.replace_rvs_by_values(shown)
    (densities, constrained), data = _in_jax(value_vars, [[prior, likelihood], values])
    named = tuple(v.name for v in shown)
    where = places([rv.name for rv in rvs], shapes)
    return Graph(densities, constrained, where, named), data


def _in_jax(inputs: list[Any], groups: list[list[Any]]) -> tuple[list[Any], tuple[np.ndarray, ...]]:
    """Each group of outputs as a JAX function of the inputs and of the data among the leaves.

    Raises :class:`ppcore.errors.UnsupportedError` naming an operation without a JAX form.
    """
    from pytensor.compile.mode import JAX
    from pytensor.compile.sharedvalue import SharedVariable
    from pytensor.graph.basic import Constant
    from pytensor.graph.fg import FunctionGraph
    from pytensor.graph.replace import clone_replace
    from pytensor.graph.traversal import graph_inputs
    from pytensor.link.jax.dispatch import jax_funcify
    from pytensor.tensor import constant

    leaves = [v for outputs in groups for v in graph_inputs(outputs)]
    held = list(dict.fromkeys(v for v in leaves if _is_data(v, SharedVariable, Constant)))
    stand_ins = [v.type() for v in held]
    swap = dict(zip(held, stand_ins, strict=True))
    # Shared whole numbers, such as lengths of dims, are what they are now.
    rest = (v for v in leaves if isinstance(v, SharedVariable) and v not in swap)
    swap.update((v, constant(v.get_value())) for v in rest)
    made = []
    for outputs in groups:
        clean = clone_replace(outputs, replace=swap)
        whole = FunctionGraph([*inputs, *stand_ins], clean, clone=True)
        try:
            JAX.optimizer.rewrite(whole)
            made.append(jax_funcify(whole))
        except NotImplementedError as error:
            raise UnsupportedError(
                "PyTensor has no JAX form of an operation in this model "
                f"({str(error).strip().splitlines()[0]}). Write it with operations that have one, "
                "or sample it with PyMC."
            ) from error
    return made, tuple(np.asarray(_number(v)) for v in held)


def _is_data(variable: Any, shared: type, constant: type) -> bool:
    """Shared numbers, and constant arrays of floats: what is static (axes, shapes) stays."""
    kind = getattr(variable.type, "dtype", None)
    if kind is None:
        return False
    if isinstance(variable, shared):
        # Whole numbers may be shapes or axes, which JAX must know beforehand.
        return str(kind).startswith("float")
    if not isinstance(variable, constant):
        return False
    return str(kind).startswith("float") and np.size(_number(variable)) > 1


def _number(variable: Any) -> Any:
    return variable.data if hasattr(variable, "data") else variable.get_value(borrow=True)


FRONTEND = Frontend(read=from_pymc)
"""What ``ppcore.from_pymc`` calls."""
