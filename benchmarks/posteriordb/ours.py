"""ppcore: the planner's choice, and two engines on the model as it was written."""

from __future__ import annotations

from typing import Any

from benchmarks.posteriordb.drawn import Drawn, Prepare, Prepared


def engine(name: str | None) -> Prepare:
    """ppcore with an engine without rewrites, or with the planner for None."""

    def prepare(posterior_name: str, data: dict[str, Any]) -> Prepared:
        from benchmarks.posteriordb.catalogue import CATALOGUE

        posterior = CATALOGUE[posterior_name]
        model = posterior.build(data)

        def fit(seed: int) -> Drawn:
            if name is None:
                found = model.infer(seed=seed, progress="off")
            else:
                found = model.infer(name, rewrites=False, seed=seed, progress="off")
            sites = {site: found.draws(site) for site in posterior.sites}
            timings = found.attrs["timings"]
            share = timings["sampling_seconds"] / max(timings["total_seconds"], 1e-9)
            note = str(found.plan) if name is None else f"{name}, defaults, no rewrites"
            return Drawn(sites, share, int(found.attrs["gradients"]["sampling"]), note)

        return Prepared(fit)

    return prepare


def prepare_planner(name: str, data: dict[str, Any]) -> Prepared:
    return engine(None)(name, data)


def prepare_ensemble(name: str, data: dict[str, Any]) -> Prepared:
    return engine("ensemble")(name, data)


def prepare_nuts(name: str, data: dict[str, Any]) -> Prepared:
    return engine("nuts")(name, data)
