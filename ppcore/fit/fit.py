"""A fit: draws with the record of how they were made, and what can be asked of them."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcore.errors import SettingsError, UnsupportedError
from ppcore.fit import plotting, predictive, store
from ppcore.fit.record import as_text
from ppcore.fit.tree import dataset, stats_dataset, tree
from ppcore.fit.weights import LogEvidence, restored, stored
from ppcore.run.plan import check_seed, count

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from ppcore.estimators import Estimate
    from ppcore.planner.plan import Plan
    from ppcore.population import Population


class Fit:
    """Draws from a posterior in ArviZ's layout, and how they were made.

    Made by ``infer`` and by :func:`ppcore.load`. Groups are built when they are first asked for.

    Attributes
    ----------
    attrs : dict
        Effective settings of engine and run, seed, versions, contract, gradients, timings,
        notes, warnings.
    data : xarray.DataTree
        Groups posterior, sample_stats and observed_data, and those that :meth:`predict`,
        :meth:`prior` and :meth:`log_likelihood` added.
    warnings : tuple of str
        What the diagnostics found wrong, each with the next step.
    result : RunResult or None
        The draws in unconstrained coordinates and the tuned parameters; None for a loaded fit.
    solution : Solution or None
        For an exact engine, the posterior itself: ``solution.marginal(site)``, ``log_evidence``.
    population : Population or None
        For a population engine, all particles of all runs in unconstrained coordinates, with
        their weights and log_z; NumPy arrays.
    """

    def __init__(
        self,
        attrs: dict[str, Any],
        *,
        data: xr.DataTree | None = None,
        model: Any = None,
        result: Any = None,
        values: Callable[[], Mapping[str, np.ndarray]] | None = None,
        solution: Any = None,
        population: Any = None,
        recover: Any = None,
    ) -> None:
        self.attrs, self.result, self.solution = attrs, result, solution
        self._population, self._recover = population, recover
        self._data, self._model, self._values = data, model, values
        self._drawn: Mapping[str, np.ndarray] | None = None

    @property
    def data(self) -> xr.DataTree:
        if self._data is None:
            self._data = tree(self._groups(), self.attrs)
        return self._data

    @property
    def population(self) -> Population | None:
        if self._population is None and self._data is not None:
            if "population" in self._data.children:
                self._population = restored(self._data["population"].to_dataset())
        return self._population

    @property
    def log_evidence(self) -> LogEvidence:
        """log Z, the log probability of the data, with its standard error (0 where exact).

        Raises :class:`~ppcore.errors.UnsupportedError` for a fit by an engine that knows none.
        """
        if "log_evidence" not in self.attrs:
            raise UnsupportedError(
                f"The engine {self.attrs['engine']!r} does not estimate the evidence. Use a "
                "population engine (infer('smc')), or 'exact' where the model allows it."
            )
        error = self.attrs.get("log_evidence_error")
        return LogEvidence(float(self.attrs["log_evidence"]), error)

    @property
    def plan(self) -> Plan:
        """What the planner chose and why; printed, a few lines.

        Raises :class:`~ppcore.errors.UnsupportedError` for a fit by an engine that was named.
        """
        if "plan" not in self.attrs:
            raise UnsupportedError(
                f"There was nothing to plan: the engine {self.attrs['engine']!r} was named. Call "
                "infer() without an engine for the planner's choice."
            )
        from ppcore.planner.plan import Plan

        return Plan.from_data(self.attrs["plan"])

    @property
    def posterior(self) -> xr.Dataset:
        """The draws of all latent and computed sites, as an xarray Dataset."""
        return self.data["posterior"].to_dataset()

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(self.attrs["warnings"])

    @property
    def sites(self) -> dict[str, tuple[int, ...]]:
        """The shape of every site that was drawn."""
        if self._data is None and self._drawn is None and self._model is not None:
            spaces = self._model.spaces
            names = [*self.attrs["latents"], *self.attrs["deterministics"]]
            return {name: tuple(spaces[name].shape) for name in names if name in spaces}
        return {name: value.shape[2:] for name, value in self._all_draws().items()}

    def draws(self, name: str) -> np.ndarray:
        """The draws of one site: array[chain, draw, ...].

        Raises :class:`~ppcore.errors.SettingsError` for a site that was not drawn.
        """
        drawn = self._all_draws()
        return drawn[predictive.pick(name, drawn, "is no site that was drawn")]

    def summary(
        self,
        var_names: str | Sequence[str] | None = None,
        *,
        ci_prob: float | None = None,
        ci_kind: str | None = None,
        digits: int | None = 3,
    ) -> pd.DataFrame:
        """Mean, sd, credible interval, Monte Carlo error, ESS and R-hat of every scalar.

        Parameters
        ----------
        var_names : str or sequence of str, optional
            Sites; by default all.
        ci_prob : float, optional
            Probability of the interval, 0.89 unless ArviZ is told otherwise.
        ci_kind : "eti" or "hdi", optional
            Equal-tailed or highest-density interval.
        digits : int, optional
            Digits to keep, counted from the first of the standard deviation; None for all.
        """
        from ppcore.fit.summary import summarise

        return summarise(self.data, self._known(var_names), ci_prob, ci_kind, digits)

    def expect(
        self,
        f: Any,
        method: str = "auto",
        *,
        order: int | None = None,
        model: Any = None,
    ) -> Estimate:
        """E[f] under the posterior, with its Monte Carlo standard error.

        Parameters
        ----------
        f : str or callable
            A site's name, or a function of one draw, ``lambda s: s["a"] * s["b"]``, which may
            return an array of several expectations; ``s`` holds the value of every site.
        method : str
            "mean" of the draws; "control_variates", Stein's, from the gradient of the density;
            "rao_blackwell", a site's conditional means where the diagram gives them; for weighted
            populations "weights", or "psis" with the largest weights smoothed. "auto" takes psis
            for populations, control variates where they lower every error, and else the mean.
        order : 1 or 2, optional
            Of the control variates; by default as the number of draws allows.
        model : Model or Target, optional
            For a fit that was loaded, or made from a plain density.

        Returns an Estimate with ``value``, ``mcse``, ``method`` and ``variance_reduction``, of f's
        shape. Raises :class:`~ppcore.errors.SettingsError` for an unknown method or site, or an f
        that is not finite, and :class:`~ppcore.errors.UnsupportedError` where a method is no use.

        >>> import ppcore as pp
        >>> from ppcore import dist
        >>> @pp.model
        ... def mean():
        ...     mu = pp.sample("mu", dist.Normal(0, 10))
        ...     with pp.plate("i", 3):
        ...         pp.sample("y", dist.Normal(mu, 1))
        >>> fit = mean().observe(y=[1.0, 2.0, 3.0]).infer(draws=200, chains=4, seed=1)
        >>> exact = 6 / (3 + 1 / 100)
        >>> abs(float(fit.expect("mu", "control_variates")) - exact) < 1e-6
        True
        """
        from ppcore.fit.expect import expect

        held = self._model if model is None else model
        return expect(self, f, method, order, held, self._recover)

    def plot(
        self,
        kind: str = "trace",
        var_names: str | Sequence[str] | None = None,
        *,
        chains: int = 8,
    ) -> Any:
        """Draw one of ArviZ's plots: "trace", "forest", "rank", "pair", "ess", "ppc_dist", ...

        Plots that draw every chain by itself (trace, rank, autocorr) show at most ``chains`` of
        them, evenly spaced; all others use all draws. Predictions and pointwise log likelihoods
        are computed first where a plot needs them. Returns ArviZ's PlotCollection.

        Raises :class:`~ppcore.errors.PluginError` if arviz_plots is not installed, and
        :class:`~ppcore.errors.SettingsError` for an unknown kind (with the nearest one).
        """
        draw = plotting.find(kind)
        if kind in plotting.NEED_LIKELIHOOD:
            self.log_likelihood()
        if kind.startswith("ppc") and "posterior_predictive" not in self.data.children:
            self.predict()
        if kind in plotting.NEED_PRIOR and "prior" not in self.data.children:
            self.prior()
        names = self._known(var_names)
        shown = plotting.few_chains(self.data, kind, count("chains", chains))
        return draw(shown, **({} if names is None else {"var_names": names}))

    def predict(self, name: str | None = None, *, seed: int = 0, model: Any = None) -> Any:
        """Draw sites given the posterior: ỹ ~ p(y | θ), θ the draws.

        Parameters
        ----------
        name : str, optional
            A site; by default all observed sites, as a Dataset.
        seed : int
        model : Model, optional
            The same model at other data or covariates; its sites that the fit drew must have the
            shapes they had. Without it the predictions are those of the fit's own model, and are
            kept in ``data["posterior_predictive"]``.

        Returns
        -------
        xarray.DataArray[chain, draw, ...], or a Dataset of them.
        """
        check_seed(seed)
        used = predictive.able("predict", self._model if model is None else model, "simulate_given")
        made = predictive.predict(self, used, seed)
        own = {"seed": seed, "model": str(getattr(used, "name", ""))}
        observed = {site: made[site] for site in self.attrs["observed"] if site in made}
        if model is None and observed:
            self._keep("posterior_predictive", dataset(observed, used.dims, attrs=own))
        if name is None:
            return dataset(observed, used.dims, attrs=own)
        if name not in made and name in self.sites:
            raise SettingsError(
                f"Site {name!r} was drawn with the fit, so it is not predicted: "
                f"fit.draws({name!r})."
            )
        predictive.pick(name, made, "cannot be predicted")
        return dataset({name: made[name]}, used.dims, attrs=own)[name]

    def prior(self, name: str | None = None, *, draws: int = 1000, seed: int = 0) -> Any:
        """Draw all sites from the prior; kept in ``data["prior"]`` and ``["prior_predictive"]``.

        Returns
        -------
        xarray.DataArray[chain=1, draw, ...] of the site ``name``, or a Dataset of all sites.
        """
        check_seed(seed)
        model = predictive.able("prior", self._model, "simulate")
        drawn = model.simulate(seed, count("draws", draws))
        made = {site: np.asarray(value)[None] for site, value in drawn.items()}
        if name is not None:
            predictive.pick(name, made, "is no site of the model")
        observed = self.attrs["observed"]
        for group, of in (("prior", False), ("prior_predictive", True)):
            values = {site: v for site, v in made.items() if (site in observed) is of}
            if values:
                self._keep(group, dataset(values, model.dims, attrs={"seed": seed}))
        return dataset(made, model.dims) if name is None else dataset(made, model.dims)[name]

    def log_likelihood(self) -> xr.Dataset:
        """log p(y_i | θ) of every observation and draw; kept in ``data["log_likelihood"]``."""
        if "log_likelihood" not in self.data.children:
            model = predictive.able("log_likelihood", self._model, "pointwise_log_likelihood")
            made = predictive.log_likelihood(self, model)
            self._keep("log_likelihood", dataset(made, model.dims))
        return self.data["log_likelihood"].to_dataset()

    def loo(self, name: str | None = None) -> Any:
        """Expected log predictive density by Pareto-smoothed leave-one-out cross-validation.

        Σ_i log p(y_i | y_−i), from the draws alone. Warns where k-hat > 0.7, naming the
        observations that the estimate cannot be trusted for.

        Source: Vehtari, Gelman, Gabry (2017), doi:10.1007/s11222-016-9696-4.

        Returns ArviZ's ELPDData, with its pointwise values.

        Raises :class:`~ppcore.errors.UnsupportedError` if discrete sites were summed out: given
        the drawn labels the likelihood is another one, and far too hopeful.
        """
        for label in predictive.labels(self._model):
            raise UnsupportedError(
                f"loo would be conditional on the drawn values of {label!r}, which is not the "
                "predictive density of new data. Write a mixture as "
                "dist.MixtureSameFamily(dist.Categorical(probs), components), without the site "
                f"{label!r}, and fit that."
            )
        sites = {str(site): None for site in self.log_likelihood().data_vars}
        if name is None and len(sites) > 1:
            raise SettingsError(f"Say which site to leave out of: {', '.join(sites)}.")
        site = next(iter(sites)) if name is None else name
        return predictive.loo(self.data, predictive.pick(site, sites, "is not observed"))

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write all groups to a zarr store at ``path``, as a whole or not at all.

        Raises :class:`~ppcore.fit.store.StoreError` if ``path`` exists and ``overwrite`` is not
        set. :func:`ppcore.load` reads it.
        """
        return store.save(self.data, path, overwrite=overwrite)

    def _groups(self) -> dict[str, xr.Dataset]:
        dims = getattr(self._model, "dims", {})
        about = {
            key: self.attrs[key]
            for key in (
                "created_at",
                "inference_library",
                "inference_library_version",
                "seed",
                "complete",
            )
        }
        groups = {"posterior": dataset(self._all_draws(), dims, attrs=about)}
        if self._population is not None:
            groups["population"] = stored(self._population, about)
        if self.result.stats:
            groups["sample_stats"] = stats_dataset(self.result.stats, about)
        evidence = getattr(self._model, "evidence", {})
        if evidence:
            observed = {site: np.asarray(value) for site, value in evidence.items()}
            groups["observed_data"] = dataset(observed, dims, sampled=False)
        return groups

    def _all_draws(self) -> Mapping[str, np.ndarray]:
        if self._drawn is None:
            if self._values is not None:
                found = self._values()
            else:
                group = self.data["posterior"].to_dataset()
                found = {str(site): value.values for site, value in group.items()}
            # Neither JAX nor zarr keeps the order in which the model declares its sites.
            declared = [*self.attrs["latents"], *self.attrs["deterministics"]]
            order = {site: i for i, site in enumerate(declared)}
            self._drawn = dict(sorted(found.items(), key=lambda kv: order.get(kv[0], len(order))))
        return self._drawn

    def _keep(self, group: str, made: xr.Dataset) -> None:
        import xarray as xr

        self.data[group] = xr.DataTree(made)

    def _known(self, var_names: str | Sequence[str] | None) -> list[str] | None:
        if var_names is None:
            return None
        names = [var_names] if isinstance(var_names, str) else list(var_names)
        for name in names:
            self.draws(name)
        return names

    def __repr__(self) -> str:
        lines = [
            f"<Fit of {line}" if i == 0 else f"  {line}"
            for i, line in enumerate(as_text(self.attrs, self.sites))
        ]
        lines += [f"  note: {note}" for note in self.attrs["notes"]]
        lines += [f"  warning: {text}" for text in self.warnings] or ["  no warnings"]
        return "\n".join(
            [*lines, "  .summary() .plot() .predict() .draws(name) .data .save(path)>"]
        )

    def _repr_html_(self) -> str:
        first, *rest = (html.escape(line) for line in as_text(self.attrs, self.sites))
        rest += [f"note: {html.escape(note)}" for note in self.attrs["notes"]]
        found = [f"<b>warning:</b> {html.escape(text)}" for text in self.warnings]
        items = "".join(f"<li>{line}</li>" for line in [*rest, *(found or ["no warnings"])])
        return f"<div><b>Fit of {first}</b><ul>{items}</ul></div>"
