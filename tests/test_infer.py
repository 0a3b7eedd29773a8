"""From a model and an engine to a fit: settings, seeds, refusals, speed."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import fitted, posterior, quietly
from walker import Walk

import ppcore as pp
from ppcore import dist, registry
from ppcore.contract import Contract, Density, Invariant
from ppcore.errors import (
    ModelError,
    SettingsError,
    StartError,
    UnsupportedError,
)
from ppcore.fit import infer
from ppcore.report import SamplingWarning
from ppcore.target import DensityTarget


@pytest.fixture
def walk(fresh_registry: None) -> Iterator[str]:
    registry.register(registry.EngineSpec("walk", Walk, contract=Invariant(reversible=True)))
    yield "walk"


def test_the_seed_decides_and_is_recorded() -> None:
    one, two = quietly(posterior(), seed=None), quietly(posterior(), seed=None)
    assert one.attrs["seed"] != two.attrs["seed"]
    again = quietly(posterior(), seed=one.attrs["seed"])
    np.testing.assert_array_equal(again.draws("slope"), one.draws("slope"))


def test_models_infer_through_the_registry(walk: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)
        fit = posterior().infer(walk, draws=500, chains=4, seed=3, progress="off", scale=0.7)
    assert fit.attrs["engine"] == "walk"
    assert fit.attrs["engine_settings"] == {"scale": 0.7}
    np.testing.assert_array_equal(fit.draws("slope"), fitted().draws("slope"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"drws": 10}, "has a setting 'drws'. Did you mean 'draws'?"),
        ({"scal": 1.0}, "has a setting 'scal'. Did you mean 'scale'?"),
        ({"engine": "wlak"}, "Engine 'wlak' is not known. Did you mean 'walk'?"),
        ({"precision": "double"}, "precision='double'"),
        ({"draws": -1}, "draws=-1"),
        ({"chains": 0}, "chains=0"),
        ({"seed": "one"}, "seed='one'"),
        ({"progress": "richh"}, "Did you mean 'rich'?"),
        ({"engine": Walk(), "scale": 2.0}, r"belong in Walk\(...\)"),
        ({"engine": Walk}, "neither a name nor an engine"),
    ],
)
def test_misspelt_settings_are_refused(walk: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        infer(posterior(), **{"engine": walk, **settings})


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot be sampled"):
        infer(lambda x: x, Walk(), progress="off")


def test_a_site_cannot_be_called_like_an_axis() -> None:
    @pp.model
    def odd():
        pp.sample("chain", dist.Normal(0, 1))

    with pytest.raises(ModelError, match="'chain': that is the name of an axis"):
        infer(odd(), Walk(), progress="off")


def test_a_failed_start_names_the_guilty_site() -> None:
    @pp.model
    def impossible():
        width = pp.sample("width", dist.Uniform(0, 1))
        pp.sample("late", dist.Normal(0, width - 2))

    with pytest.raises(StartError, match="site 'late' has log density nan at 16 of 16") as error:
        infer(impossible().observe(late=3.0), Walk(), progress="off")
    assert "'width'" not in str(error.value)


def test_a_plain_density_can_be_inferred() -> None:
    fit = quietly(DensityTarget(lambda x, data: -0.5 * jnp.sum(x**2), 2))
    assert fit.draws("x").shape == (4, 500, 2)
    assert fit.attrs["health"]["rhat"][0].startswith("x[")
    assert list(fit.summary().index) == ["x[0]", "x[1]"]
    with pytest.raises(UnsupportedError, match="made from a plain density"):
        fit.predict()


def test_an_interrupted_run_is_a_fit_of_what_was_drawn(tmp_path: Path) -> None:
    def stop(progress: Any) -> None:
        if progress.phase == "sampling" and progress.done >= 100:
            raise KeyboardInterrupt

    part = quietly(posterior(), progress=stop, checkpoint=tmp_path / "run", seed=None)
    done = part.attrs["draws"]
    assert not part.attrs["complete"] and 100 <= done < 500
    assert "interrupted" in repr(part)
    assert part.predict("y").shape == (4, done, 4)
    whole = quietly(posterior(), checkpoint=tmp_path / "run", seed=None)
    assert whole.attrs["seed"] == part.attrs["seed"], "the saved run's seed is used"
    np.testing.assert_array_equal(whole.draws("slope")[:, :done], part.draws("slope"))


def test_infer_imports_neither_xarray_nor_arviz() -> None:
    script = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
import numpy as np
from walker import Walk
from ppcore.fit import infer
from ppcore.target import DensityTarget
fit = infer(DensityTarget(lambda x, data: -0.5 * (x**2).sum(), 1), Walk(), seed=1, progress="off")
fit.draws("x"), repr(fit)
slow = {{"xarray", "arviz_stats", "arviz_base", "pandas", "arviz", "rich"}} & set(sys.modules)
assert not slow, slow
fit.summary()
assert "arviz" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=120)


@dataclass
class Exact:
    """Standard normal draws of one site."""

    solver: str = "toy"
    log_evidence: float = -1.5
    sites: tuple[str, ...] = ("slope",)

    def marginal(self, site: str) -> str:
        return f"law of {site}"

    def sample(self, key: Any, n: int) -> dict[str, np.ndarray]:
        return {"slope": np.asarray(jax.random.normal(key, (n,)))}


@dataclass(frozen=True)
class AtOnce:
    contract: ClassVar[Contract] = Density()
    default_draws: ClassVar[int] = 100
    solution: Any = field(default_factory=Exact)

    def solve(self, target: Any) -> Any:
        assert target.log_density is not None
        return self.solution


def test_an_engine_that_draws_at_once() -> None:
    fit = infer(posterior(), AtOnce(), seed=1)
    assert fit.draws("slope").shape == (4, 100)
    assert fit.attrs["log_evidence"] == -1.5
    assert fit.solution.marginal("slope") == "law of slope"
    assert fit.summary().loc["slope", "r_hat"] < 1.1
    assert "independent draws" in repr(fit)
    np.testing.assert_array_equal(
        infer(posterior(), AtOnce(), seed=1).draws("slope"), fit.draws("slope")
    )
    with pytest.raises(SettingsError, match="checkpoint= has no meaning"):
        infer(posterior(), AtOnce(), checkpoint="somewhere")


def test_a_second_call_costs_little_beyond_the_draws() -> None:
    quietly(posterior(), draws=100)
    began = time.perf_counter()
    fit = quietly(posterior(), draws=100)
    fit.draws("slope")
    spent = time.perf_counter() - began - fit.attrs["timings"]["total_seconds"]
    assert spent < 0.2
