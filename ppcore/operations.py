"""Operations on models: each is defined on the diagram, and gives a model or a kernel again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcore.errors import EvidenceError, ModelError, did_you_mean

if TYPE_CHECKING:
    import networkx

    from ppcore.causal.identify import Estimand
    from ppcore.declare import Model
    from ppcore.exact.protocol import Solution
    from ppcore.fit.amortised import Amortised
    from ppcore.model_kernel import ModelKernel
    from ppcore.planner.explain import Explanation


class Operations:
    """What every :class:`ppcore.declare.Model` can do besides being observed and inferred."""

    def solve(self: Any, solvers: Sequence[str] | None = None) -> Solution:
        """The exact posterior: evidence, marginals and independent draws.

        Raises :class:`ppcore.exact.protocol.NotExact` with the box in the way if there is none,
        and :class:`ppcore.exact.protocol.ZeroEvidenceError` if the evidence is impossible.

        >>> import numpy as np
        >>> import ppcore as pp
        >>> from ppcore import dist
        >>> @pp.model
        ... def coin():
        ...     fair = pp.sample("fair", dist.Bernoulli(0.5))
        ...     pp.sample("heads", dist.Bernoulli(np.where(fair, 0.5, 0.9)))
        >>> coin().observe(heads=1).solve().marginal("fair").probs.round(4)
        array([0.6429, 0.3571])
        """
        from ppcore.exact import solve

        return solve(self.diagram, self.data, self.evidence, solvers)

    def explain(self: Any, *, rewrites: bool = True, without: Sequence[str] = ()) -> Explanation:
        """What ``infer()`` would do: the diagram before and after, every rewrite, cost, the plan.

        Pilots run, draws are not made. Print it, or show it in a notebook.

        Raises :class:`~ppcore.errors.SettingsError` for a name in ``without`` that is no rewrite.

        >>> import numpy as np
        >>> import ppcore as pp
        >>> from ppcore import dist
        >>> @pp.model
        ... def line(x):
        ...     slope = pp.sample("slope", dist.Normal(0, 1))
        ...     pp.sample("y", dist.Normal(slope * x, 1))
        >>> line(np.arange(3.0)).observe(y=np.ones(3)).explain().plan.choice
        'quadrature'
        """
        from ppcore.planner.explain import explain

        return explain(self, rewrites, without)

    def amortise(
        self: Any,
        observe: Collection[str],
        engine: Any = "npe",
        *,
        simulations: int | None = None,
        seed: int = 0,
        sites: Collection[str] | None = None,
        exchangeable: str = "auto",
        progress: Any = None,
        **settings: Any,
    ) -> Amortised:
        """Learn the posterior for all data at once, from draws of the joint; no density is needed.

        Parameters
        ----------
        observe : names
            The sites that data will be for; computed ones too (summaries), with ``sites``.
        engine : str or AmortisedEngine
        simulations : int, optional
            Draws of the joint; the engine's default otherwise.
        seed : int
        sites : names, optional
            The continuous sites to infer; by default all. Others are integrated out by drawing.
        exchangeable : str
            A plate whose copies may change places, "none", or "auto": one under whose permutations
            the density is found not to change.
        progress
            As for :meth:`infer`.
        **settings
            The engine's own parameters.

        Returns an :class:`~ppcore.fit.amortised.Amortised`, with ``posterior(y=...)``.

        Raises
        ------
        ModelError, SettingsError
            For unknown names, attached data, or factors.
        UnsupportedError
            For an improper prior, nothing continuous to infer, or simulations that are not finite.
        """
        from ppcore.fit.amortised import amortise

        return amortise(
            self,
            observe,
            engine,
            simulations=simulations,
            seed=seed,
            sites=sites,
            exchangeable=exchangeable,
            progress=progress,
            **settings,
        )

    def marginal(self: Any, keep: Collection[str] | str) -> Model:
        """The model of some of its sites: the others are summed out, or sampled and dropped.

        Boxes that only served what was discarded are deleted. Observed sites stay. Predictions
        draw what was summed out afresh: ỹ ~ p(y | kept sites).

        Raises :class:`ModelError` for a name that is no site.
        """
        from ppcore.causal.marginal import marginal

        names = [keep] if isinstance(keep, str) else list(keep)
        return _with(self, marginal(self.diagram, [*names, *self.evidence]), _labelled(self))

    def do(self: Any, values: Mapping[str, Any] | None = None, /, **named: Any) -> Model:
        """Intervene: replace the mechanism of sites, ``do(x=1)``.

        A site can be held at a value (an array of its shape), drawn from another distribution
        (``do(x=dist.Bernoulli(0.5))``), or made by a function whose arguments are named after
        other sites (``do(x=lambda z: dist.Normal(z, 1))``). It keeps its name; everything that
        does not depend on it keeps its law.

        Raises
        ------
        ModelError
            For a name that is no site, or a function that reads what depends on the site.
        EvidenceError
            A value is outside the site's support, or evidence was attached to the site or to what
            depends on it before the intervention.

        >>> import numpy as np
        >>> import ppcore as pp
        >>> from ppcore import dist
        >>> @pp.model
        ... def wet():
        ...     rain = pp.sample("rain", dist.Bernoulli(0.2))
        ...     sprinkler = pp.sample("sprinkler", dist.Bernoulli(np.where(rain, 0.01, 0.4)))
        ...     pp.sample("grass", dist.Bernoulli(0.1 + 0.8 * np.maximum(rain, sprinkler)))
        >>> observed = wet().observe(sprinkler=1).solve().marginal("rain").mean
        >>> done = wet().do(sprinkler=1).solve().marginal("rain").mean
        >>> float(observed.round(4)), float(done.round(4))
        (0.0062, 0.2)
        """
        from ppcore.causal.do import do
        from ppcore.causal.graph import descendant_sites

        new = {**(values or {}), **named}
        if not new:
            raise ModelError("do() was given nothing; pass x=value, or a distribution.")
        diagram, data = self.diagram, _labelled(self)
        for name, mechanism in new.items():
            _require_site(self, name)
            below = {name, *descendant_sites(diagram, name)}
            late = next((n for n in self.evidence if n in below), None)
            if late is not None:
                raise EvidenceError(
                    f"do({name}=…) comes after evidence at {late!r}, which it changes. Intervene "
                    "first and observe then; for what would have happened in the observed case, "
                    "use twin(observe=…, do=…)."
                )
            diagram, data = do(diagram, data, name, _checked(self, name, mechanism))
        return _with(self, diagram, data)

    def disintegrate(
        self: Any, given: Collection[str] | str, keep: Collection[str] | str | None = None
    ) -> ModelKernel:
        """The conditional p(keep | given) as a kernel that can be called, composed and sampled.

        Cut out of the diagram where that gives it; computed where the sites are finite or linear-
        Gaussian; otherwise inferred when it is called with values. Evidence of the model is
        conditioned on too.
        """
        from ppcore.model_kernel import disintegrate

        given = [given] if isinstance(given, str) else list(given)
        keep = [keep] if isinstance(keep, str) else keep
        return disintegrate(self, given, None if keep is None else list(keep))

    def __rshift__(self: Any, kernel: Any) -> Model:
        """The joint of this model and a kernel whose given sites are sites of it."""
        from ppcore.model_kernel import ModelKernel, push

        return push(self, kernel) if isinstance(kernel, ModelKernel) else NotImplemented

    def twin(
        self: Any, observe: Mapping[str, Any] | None = None, do: Mapping[str, Any] | None = None
    ) -> Model:
        """The counterfactual model: given what was observed, had ``do`` been done instead.

        Sites of the world that might have been are named ``cf.<site>``. All randomness must be in
        exogenous root sites, or in sites whose distribution is a function of a noise of its own
        (location-scale families and a few more).

        Raises :class:`ppcore.errors.UnsupportedError` naming a site for which that is not so.

        >>> import numpy as np
        >>> import ppcore as pp
        >>> from ppcore import dist
        >>> @pp.model
        ... def study():
        ...     gift = pp.sample("gift", dist.Bernoulli(0.3))
        ...     hours = pp.sample("hours", dist.Bernoulli(0.5))
        ...     pp.deterministic("passed", np.maximum(gift, hours))
        >>> seen = study().twin(observe={"passed": 1}, do={"hours": 0})
        >>> float(seen.solve().marginal("cf.passed").mean.round(4))
        0.4615
        """
        from ppcore.causal.twin import twin

        seen, held = dict(observe or {}), dict(do or {})
        for name in (*seen, *held):
            _require_site(self, name)
        computed = [n for n in seen if n in self.deterministics]
        values = {n: _checked(self, n, v, fixed=True) for n, v in held.items()}
        diagram, data = twin(self.diagram, _labelled(self), values, computed)
        made = _with(self, diagram, data)
        return made.observe(seen) if seen else made

    def front_door(
        self: Any,
        treatment: str,
        mediator: str,
        outcome: str,
        graph: networkx.DiGraph | None = None,
    ) -> ModelKernel:
        """p(outcome | do(treatment)) from the joint alone, by comb disintegration.

        The causal graph may have hidden causes; by default it is that of the model itself, but
        only the joint of the three sites is used.

        Raises :class:`ppcore.causal.front_door.NotIdentifiable` if the front-door criterion fails.

        >>> import networkx as nx
        >>> import numpy as np
        >>> import ppcore as pp
        >>> from ppcore import dist
        >>> joint = np.array([0.2, 0.02, 0.05, 0.1, 0.02, 0.01, 0.1, 0.5]).reshape(2, 2, 2)
        >>> st = joint.sum(2)
        >>> @pp.model
        ... def patients():
        ...     smokes = pp.sample("smokes", dist.Bernoulli(st[1].sum()))
        ...     p_tar = pp.math.get_at(st[:, 1] / st.sum(1), smokes)
        ...     tar = pp.sample("tar", dist.Bernoulli(p_tar))
        ...     p_cancer = pp.math.get_at(joint[:, :, 1] / st, (smokes, tar))
        ...     pp.sample("cancer", dist.Bernoulli(p_cancer))
        >>> patients().disintegrate(given="smokes", keep="cancer").tensor()[:, 1].round(4)
        array([0.3243, 0.8095])
        >>> hidden = [("h", "smokes"), ("h", "cancer"), ("smokes", "tar"), ("tar", "cancer")]
        >>> effect = patients().front_door("smokes", "tar", "cancer", graph=nx.DiGraph(hidden))
        >>> effect.tensor()[:, 1].round(4)
        array([0.4577, 0.7465])
        """
        from ppcore.causal.front_door import comb, require_front_door
        from ppcore.causal.graph import site_graph
        from ppcore.model_kernel import ModelKernel

        for name in (treatment, mediator, outcome):
            _require_site(self, name)
        found = site_graph(self.diagram) if graph is None else graph
        require_front_door(found, treatment, mediator, outcome)
        diagram, data = comb(self.diagram, self.data, treatment, mediator, outcome)
        return ModelKernel(f"{self.name}: do({treatment})", diagram, data, (treatment,), (outcome,))

    def identify(
        self: Any,
        outcome: str,
        do: Collection[str] | str,
        given: Collection[str] | str = (),
        graph: networkx.DiGraph | None = None,
    ) -> Estimand:
        """p(outcome | do(…), given) as an expression in the joint of the observed sites (ID, IDC).

        Nodes of ``graph`` that are no sites of the model are hidden causes. Needs the package
        ``y0`` (``pip install 'ppcore[causal]'``).

        Raises :class:`ppcore.causal.front_door.NotIdentifiable` if there is no such expression.
        """
        from ppcore.causal.graph import site_graph
        from ppcore.causal.identify import identify

        found = site_graph(self.diagram) if graph is None else graph
        hidden = [n for n in found if n not in self.spaces]
        one = [do] if isinstance(do, str) else list(do)
        z = [given] if isinstance(given, str) else list(given)
        return identify(found, hidden, outcome, one, z)

    def d_separated(
        self: Any,
        a: Collection[str] | str,
        b: Collection[str] | str,
        given: Collection[str] | str = (),
    ) -> bool:
        """Whether the diagram makes ``a`` independent of ``b`` given ``given`` and the evidence.

        True is a proof. Computed sites whose arguments are given count as given.
        """
        from ppcore.causal.graph import d_separated

        x, y, z = ({s} if isinstance(s, str) else set(s) for s in (a, b, given))
        return d_separated(self.diagram, x, y, z, set(self.evidence))

    def ancestors(self: Any, site: str) -> frozenset[str]:
        """Sites that ``site`` depends on."""
        from ppcore.causal.graph import ancestors

        return ancestors(self.diagram, site)

    def markov_blanket(self: Any, site: str) -> frozenset[str]:
        """Sites given which all others say nothing about ``site``."""
        from ppcore.causal.graph import markov_blanket

        return markov_blanket(self.diagram, site)

    def site_graph(self: Any) -> networkx.DiGraph:
        """The directed acyclic graph of sites, for networkx."""
        from ppcore.causal.graph import site_graph

        return site_graph(self.diagram)


def _labelled(model: Any) -> tuple[Any, ...]:
    names = [*model.input_names, *[""] * (len(model.data) - len(model.input_names))]
    return tuple(_Named(d, n) for d, n in zip(model.data, names, strict=True))


class _Named:
    """A data input with the name it has in the model function."""

    def __init__(self, value: Any, name: str):
        self.value, self.name = value, name


def _with(model: Any, diagram: Any, data: Sequence[Any]) -> Model:
    from ppcore.causal.rebuild import tidy

    diagram, kept = tidy(diagram, data)
    named = [d if isinstance(d, _Named) else _Named(d, "") for d in kept]
    return replace(  # type: ignore[no-any-return, type-var]
        model,
        diagram=diagram,
        data=tuple(d.value for d in named),
        input_names=tuple(d.name for d in named),
    )


def _require_site(model: Any, name: str) -> None:
    if name not in model.spaces:
        raise ModelError(f"The model has no site {name!r}. {did_you_mean(name, model.spaces)}")


def _checked(model: Any, name: str, value: Any, fixed: bool = False) -> Any:
    """A value for a site, checked against its space; distributions and functions as they are."""
    from ppcore.dist import Description
    from ppcore.evidence import check_evidence

    if isinstance(value, Description) or callable(value):
        if fixed:
            raise ModelError(f"twin(do={name}): give a value, not a distribution or a function.")
        return value
    array = np.asarray(value)
    space = model.spaces[name]
    if array.dtype.kind in "biuf" and array.shape != space.shape and array.ndim == 0:
        array = np.full(space.shape, array)
    return check_evidence(name, array, space, "do()")
