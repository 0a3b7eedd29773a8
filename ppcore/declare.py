"""What a user declares and holds: ``@pp.model``, and the model with its data."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcore import precision as precision_
from ppcore.diagram import Diagram
from ppcore.errors import EvidenceError, ModelError, SettingsError, did_you_mean
from ppcore.evidence import check_evidence, check_known_bounds
from ppcore.operations import Operations
from ppcore.recording.recorder import Recorder, current, recording
from ppcore.recording.template import is_array
from ppcore.space import Space

if TYPE_CHECKING:
    from ppcore.fit import Fit
    from ppcore.fit.point import PointEstimate
    from ppcore.model_target import ModelTarget


def model(fn: Callable[..., Any]) -> ModelFunction:
    """Turn a function that calls ``pp.sample`` into a model.

    Calling the result records the function's string diagram for these arguments and returns a
    :class:`Model`. Called inside another model it is recorded in place and returns what the
    function returns; wrap that in ``with pp.prefix("left"):`` to keep the names apart.

    >>> import numpy as np
    >>> import ppcore as pp
    >>> from ppcore import dist
    >>> @pp.model
    ... def line(x):
    ...     slope = pp.sample("slope", dist.Normal(0, 1))
    ...     pp.sample("y", dist.Normal(slope * x, 1))
    >>> line(np.arange(3.0))
    <model line: slope, y>
    """
    return ModelFunction(fn)


class ModelFunction:
    """A model without its arguments; call it to get a :class:`Model`."""

    def __init__(self, fn: Callable[..., Any]):
        self.fn = fn
        functools.update_wrapper(self, fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if current() is not None:
            return self.fn(*args, **kwargs)
        args = tuple(_as_array(a) for a in args)
        kwargs = {k: _as_array(a) for k, a in kwargs.items()}
        recorder = Recorder()
        with recording(recorder):
            self.fn(*args, **kwargs)
        if not recorder.sites:
            raise ModelError(
                f"Model {self.fn.__name__!r} has no sites. Declare at least one with "
                "pp.sample(name, distribution)."
            )
        names = tuple(name for name, _ in recorder.sites)
        diagram = recorder.freeze([ref for _, ref in recorder.sites], names)
        given = _argument_names(self.fn, args, kwargs)
        labels = tuple(given.get(id(a), "") for a in recorder.data)
        return Model(self.fn.__name__, diagram, tuple(recorder.data), input_names=labels)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(Model, name):
            call = f"{self.fn.__name__}{inspect.signature(self.fn)}"
            raise AttributeError(f"A model takes its arguments first: {call}.{name}(...).")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<model function {self.fn.__name__}{inspect.signature(self.fn)}>"


def _argument_names(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[int, str]:
    """The model function's name for each array it was given, by identity."""
    bound = inspect.signature(fn).bind(*args, **kwargs)
    return {id(value): name for name, value in bound.arguments.items()}


def _as_array(value: Any) -> Any:
    """Columns of a data frame, lists of numbers and other array likes as NumPy arrays."""
    if isinstance(value, np.ndarray) or not is_array(value):
        if hasattr(value, "to_numpy"):
            return value.to_numpy()
        return value
    return value.to_numpy() if hasattr(value, "to_numpy") else value


@dataclass(frozen=True, eq=False)
class Model(Operations):
    """A model with its data, and evidence once observed: a state, up to normalisation.

    Attributes
    ----------
    name : str
        The function's name.
    diagram : Diagram
        The joint: data → all sites.
    data : tuple of arrays
        Values of the diagram's inputs.
    evidence : dict of str to array
        Observed sites and their values.
    input_names : tuple of str
        What the model function calls each of ``data``; "" for arrays made inside it.
    """

    name: str
    diagram: Diagram
    data: tuple[np.ndarray, ...]
    evidence: dict[str, np.ndarray] = field(default_factory=dict)
    input_names: tuple[str, ...] = ()

    def observe(self, values: Mapping[str, Any] | None = None, /, **named: Any) -> Model:
        """Attach data to sites: the posterior given ``name=values``.

        Names that are no Python identifiers go in a dict: ``observe({"left.y": y})``.

        Raises :class:`EvidenceError` naming the site: unknown name, wrong shape, NaN, or a value
        outside the support.
        """
        given = {**(values or {}), **named}
        if not given:
            raise EvidenceError("observe() was given nothing; pass data as name=values.")
        checked = {n: self._check_evidence(n, v) for n, v in given.items()}
        return replace(self, evidence={**self.evidence, **checked})

    def _check_evidence(self, name: str, value: Any) -> np.ndarray:
        sites = (*self.latents, *self.observed)
        if name not in sites:
            if name in self.deterministics:
                why = "is computed, not sampled, so it cannot be observed. Observe what depends on"
                raise EvidenceError(f"{name!r} {why} it, with a noise model.")
            raise EvidenceError(f"The model has no site {name!r}. {did_you_mean(name, sites)}")
        if name in self.evidence:
            raise EvidenceError(f"Site {name!r} is observed already; start from the model again.")
        space, kind = self.spaces[name], self._distribution_name(name)
        checked = check_evidence(name, value, space, kind)
        if space.support.dependent:
            check_known_bounds(self.diagram, self.data, name, checked, kind)
        return checked

    def _distribution_name(self, name: str) -> str:
        template = next(b.spec[0] for b in self.diagram.boxes() if b.name == name)
        while template.kind.startswith("describe:method"):
            template = template.items[0]
        return str(template.kind.rsplit(":", 1)[-1])

    @property
    def observed(self) -> tuple[str, ...]:
        """Names of the observed sites, in the model's order."""
        return tuple(n for n in self.diagram.named("sample") if n in self.evidence)

    @property
    def latents(self) -> tuple[str, ...]:
        """Names of the unobserved random sites; not those that ``marginal`` has hidden."""
        sites = self.diagram.named("sample")
        return tuple(n for n in sites if n not in self.evidence and n in self.spaces)

    @property
    def deterministics(self) -> tuple[str, ...]:
        """Names of the computed sites."""
        return tuple(n for n in self.diagram.named("deterministic") if n in self.spaces)

    @functools.cached_property
    def spaces(self) -> dict[str, Space]:
        """The space of every site."""
        named = zip(self.diagram.output_names, self.diagram.cod, strict=True)
        return {str(n): s for n, s in named}

    @functools.cached_property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Names of each site's axes: the plate that made an axis, or ``{site}_dim_{i}``."""
        from ppcore.diagram.axes import site_dims

        return site_dims(self.diagram)

    def target(self, precision: str = "float64") -> ModelTarget:
        """The unnormalised density of the unobserved sites on R^d, data as leaves.

        Discrete unobserved sites are summed out of it.

        ``precision`` is "float64" or "float32".
        """
        from ppcore.model_target import ModelTarget
        from ppcore.rewrite.discrete import marginalise_discrete

        if precision not in precision_.PRECISIONS:
            hint = did_you_mean(str(precision), precision_.PRECISIONS)
            raise SettingsError(f"precision={precision!r} is not known. {hint}")
        observed = self.observed
        evidence = tuple(_cast(self.evidence[n], precision) for n in observed)
        diagram, inputs = marginalise_discrete(self.diagram, self.data, observed)
        data = tuple(_cast(a, precision) for a in inputs)
        return ModelTarget(diagram, observed, data, evidence)

    def infer(
        self,
        engine: Any = None,
        *,
        draws: int | None = None,
        chains: int | None = None,
        seed: int | None = None,
        progress: Any = None,
        checkpoint: Any = None,
        precision: str = "float64",
        rewrites: bool | None = None,
        without: Sequence[str] = (),
        **settings: Any,
    ) -> Fit:
        """Draw from the posterior.

        Parameters
        ----------
        engine : str or Engine, optional
            A registered name (``ppcore engines`` lists them) or an engine object. Without one the
            planner rewrites the model and takes the cheapest way that can be checked; ``fit.plan``
            says which, and :meth:`explain` beforehand.
        draws, chains : int, optional
            Draws kept per chain, and chains; the engine's defaults otherwise.
        seed : int, optional
            The same seed gives the same draws; recorded either way.
        progress : "auto", "plain", "off", or a callable, optional
            How to report.
        checkpoint : path, optional
            Save every block there, and resume from it.
        precision : "float64" or "float32"
            Of all arithmetic.
        rewrites : bool, optional
            Whether the model is rewritten into a cheaper one with the same posterior. By default
            only without an engine; draws are of the model's own sites either way.
        without : sequence of str
            Rewrites to leave out (``ppcore rewrites`` lists them).
        **settings
            The engine's own parameters; a name it does not have is an error.
        """
        from ppcore.fit import infer

        return infer(
            self,
            engine,
            draws=draws,
            chains=chains,
            seed=seed,
            progress=progress,
            checkpoint=checkpoint,
            precision=precision,
            rewrites=rewrites,
            without=without,
            **settings,
        )

    def fit_mle(self, start: Mapping[str, Any] | None = None) -> PointEstimate:
        """Maximum likelihood: all continuous unobserved sites are parameters, priors left out.

        Discrete sites are summed out. ``start`` gives values of sites to start from.

        Raises :class:`ppcore.fit.point.EstimationError` if there is no single maximum, naming the
        direction that the data do not identify.
        """
        from ppcore.fit.point import point_estimate

        return point_estimate(self, "mle", start)

    def fit_map(self, start: Mapping[str, Any] | None = None) -> PointEstimate:
        """The mode of the posterior density of the continuous sites, in their own units.

        No Jacobian is involved: it is the density of the sites themselves that is maximised.
        Otherwise as :meth:`fit_mle`.
        """
        from ppcore.fit.point import point_estimate

        return point_estimate(self, "map", start)

    def simulate(self, seed: int = 0, n: int = 1) -> dict[str, np.ndarray]:
        """``n`` forward draws of every site: {name: array[n, ...]}; evidence is ignored."""
        return self._simulate(seed, {}, n)

    def simulate_given(self, seed: int, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Draw all other sites given values [N, ...] of some: the posterior predictive."""
        arrays = self._draws_of(values)
        given = {n: v for n, v in arrays.items() if n in self.diagram.named("sample")}
        n = len(next(iter(given.values()))) if given else 1
        drawn = self._simulate(seed, given, n)
        return {k: v for k, v in drawn.items() if k not in given}

    def _draws_of(self, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Values [N, ...] of sites, checked against their shapes and each other."""
        arrays = {n: np.asarray(v) for n, v in values.items()}
        unknown = [n for n in arrays if n not in self.spaces]
        if unknown:
            raise ModelError(
                f"The model has no site {unknown[0]!r}. {did_you_mean(unknown[0], self.spaces)}"
            )
        for name, value in arrays.items():
            if value.ndim == 0 or value.shape[1:] != self.spaces[name].shape:
                raise ModelError(
                    f"Values of site {name!r} have shape {value.shape}; the model's is "
                    f"{self.spaces[name].shape}, behind one axis of draws. Observe or drop it if "
                    "it belongs to other data."
                )
        lengths = {n: len(v) for n, v in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise ModelError(f"Sites are given different numbers of draws: {lengths}.")
        return arrays

    def _simulate(self, seed: int, given: dict[str, Any], n: int) -> dict[str, np.ndarray]:
        import jax

        from ppcore.semantics.batched import simulate_many

        with precision_.scope("float64"):
            drawn = simulate_many(self.diagram, self.data, given, jax.random.key(seed), n)
        # JAX sorts dictionaries; users read sites in the model's order.
        order = [k for k in self.spaces if k in drawn]
        return {k: np.asarray(drawn[k]) for k in [*order, *(k for k in drawn if k not in order)]}

    def pointwise_log_likelihood(self, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """log p(y_i | θ) per draw and element: {observed site: array[N, *batch]}.

        ``values`` holds the latent sites, [N, ...].
        """
        from ppcore.semantics.batched import pointwise_many

        target = self.target()
        missing = [n for n in self.latents if n not in values]
        if missing:
            raise ModelError(
                f"Values of site {missing[0]!r} are missing; give those of all latents."
            )
        latents = self._draws_of({n: values[n] for n in self.latents})
        with precision_.scope("float64"):
            found = pointwise_many(target.diagram, target.inputs, latents)
            return {k: np.asarray(v) for k, v in found.items()}

    def to_numpyro(self) -> Callable[[], None]:
        """The model, data and evidence included, as a NumPyro program without arguments.

        Plates, scans and discrete sites keep their names, so that NumPyro's own inference,
        enumeration and guides apply to it.
        """
        from ppcore.frontends import write

        return write("numpyro", self)  # type: ignore[no-any-return]

    def to_pyro(self) -> Callable[[], None]:
        """The model, data and evidence included, as a Pyro program without arguments.

        Plates and discrete sites keep their names; a scan becomes a loop, its site ``z`` the sites
        ``z_0``, ``z_1``, …. Pyro's own inference, enumeration and guides apply to it.
        """
        from ppcore.frontends import write

        return write("pyro", self)  # type: ignore[no-any-return]

    def draw(self, detail: str = "sites") -> str:
        """The model's diagram as SVG text, observed sites shaded.

        ``detail`` is "sites" (array operations gathered into expressions) or "boxes" (all).
        """
        from ppcore.diagram.draw import draw_svg

        return draw_svg(self.diagram, detail, input_names=self.input_names, observed=self.observed)

    def _repr_svg_(self) -> str:
        return self.draw()

    def _repr_html_(self) -> str:
        return f"<figure>{self.draw()}<figcaption>{self!r}</figcaption></figure>".replace(
            repr(self), repr(self).replace("<", "&lt;").replace(">", "&gt;")
        )

    def __repr__(self) -> str:
        names = list(self.latents) + list(self.deterministics)
        given = f" | {', '.join(self.observed)}" if self.evidence else ""
        return f"<model {self.name}: {', '.join(names)}{given}>"


def _cast(array: Any, precision: str) -> np.ndarray:
    values = np.asarray(array)
    return values.astype(precision) if values.dtype.kind == "f" else values
