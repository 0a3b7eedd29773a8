"""Translations of posteriordb's posteriors, checked by differences of their log density.

Δ is log p at draw 1 of chain 1 minus log p at draw 1000 of chain 1 of the reference draws, in the
model's own parameters, so that constants cancel. The numbers below were computed from the formulas
of the models, independently of ppcore.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.posteriordb.catalogue import CATALOGUE
from benchmarks.posteriordb.database import Database, DatabaseError, join, split
from benchmarks.posteriordb.report import Row, tally
from benchmarks.posteriordb.score import score
from ppcore import Model, precision
from ppcore.semantics.interpret import interpret
from ppcore.semantics.log_density import LogDensity, bijection, layout

# A copy of posteriordb may stand in a sibling directory of the repository.
SIBLING = Path(__file__).parents[2] / "shared" / "posteriordb" / "posterior_database"
FOLDER = Path(os.environ.get("PPCORE_POSTERIORDB", SIBLING))

needs_data = pytest.mark.skipif(
    not (FOLDER / "posteriors").is_dir(),
    reason="no copy of posteriordb: set PPCORE_POSTERIORDB to its posterior_database",
)

DIFFERENCES = {
    "arK-arK": 3.374276,
    "arma-arma11": -2.444014,
    "bball_drive_event_0-hmm_drive_0": 5.440045,
    "diamonds-diamonds": 5.568720,
    "earnings-earn_height": 0.233817,
    "earnings-log10earn_height": -1.901207,
    "earnings-logearn_interaction": -2.863916,
    "eight_schools-eight_schools_centered": 3.828085,
    "eight_schools-eight_schools_noncentered": 1.272336,
    "garch-garch11": -0.097935,
    "gp_pois_regr-gp_pois_regr": -1.294338,
    "gp_pois_regr-gp_regr": 0.501306,
    "hmm_example-hmm_example": 0.192283,
    "hudson_lynx_hare-lotka_volterra": 4.640166,
    "kidiq-kidscore_interaction": -5.690953,
    "kidiq-kidscore_momiq": 2.589229,
    "kidiq_with_mom_work-kidscore_mom_work": 0.523928,
    "kilpisjarvi_mod-kilpisjarvi": -1.169927,
    "low_dim_gauss_mix-low_dim_gauss_mix": -0.425293,
    "mesquite-logmesquite_logvas": -1.674872,
    "mesquite-mesquite": -2.565902,
    "nes1976-nes": 3.764317,
    "nes2000-nes": -1.792341,
    "one_comp_mm_elim_abs-one_comp_mm_elim_abs": 6.580175,
    "sblrc-blr": 1.036945,
}


class Jacobian(LogDensity):
    """Entries are values z on R^k; records hold log |det ∂x/∂z| of each latent site."""

    def latent(self, box: Any, distribution: Any, given: Any, key: Any) -> tuple[Any, Any]:
        t = bijection(distribution)
        x = t(given)
        return x, {"log_det": t.log_abs_det_jacobian(given, x).sum()}


def log_density(model: Model, values: dict[str, np.ndarray]) -> float:
    """log p at values of the latent sites: the target's density less its Jacobians."""
    target = model.target()
    with precision.scope("float64"):
        x = target.unconstrain({n: np.asarray(values[n], float) for n in target.latents})
        z = layout(target.diagram).split(x)
        records = interpret(target.diagram, target.inputs, Jacobian(), z)[1]
        log_det = sum(float(np.sum(r["log_det"])) for r in records.values() if "log_det" in r)
        return float(target.log_density(x)) - log_det


@needs_data
@pytest.mark.parametrize("name", DIFFERENCES)
def test_log_density_differences_equal_those_of_the_formulas(name: str) -> None:
    database, posterior = Database(FOLDER), CATALOGUE[name]
    reference = database.reference(name)
    assert reference is not None
    data = database.data(name)
    model, gathered = posterior.build(data), posterior.latents(join(reference), data)
    first, last = (
        log_density(model, {k: v[0, draw] for k, v in gathered.items()}) for draw in (0, 999)
    )
    assert abs(first - last - DIFFERENCES[name]) < 1e-5


@needs_data
@pytest.mark.parametrize("name", DIFFERENCES)
def test_elements_are_named_as_in_the_reference(name: str) -> None:
    database, posterior = Database(FOLDER), CATALOGUE[name]
    reference = database.reference(name)
    assert reference is not None
    found = posterior.elements(join(reference))
    assert found.keys() == reference.keys()
    for label, values in posterior.on_scale(reference).items():
        np.testing.assert_array_equal(found[label], values)


@needs_data
def test_radon_between_two_points() -> None:
    name = "radon_all-radon_variable_intercept_noncentered"
    model = CATALOGUE[name].build(Database(FOLDER).data(name))
    zero, one = np.array(0.0), np.array(1.0)
    a = {"alpha_raw": np.zeros(386), "beta": zero, "mu_alpha": zero}
    b = {"alpha_raw": np.sin(np.arange(1, 387)), "beta": np.array(-0.5), "mu_alpha": one}
    a |= {"sigma_alpha": one, "sigma_y": one}
    b |= {"sigma_alpha": np.array(0.5), "sigma_y": np.array(0.8)}
    assert abs(log_density(model, b) - log_density(model, a) - 412.102543) < 1e-5


@needs_data
def test_item_response_between_two_points() -> None:
    name = "irt_2pl-irt_2pl"
    model = CATALOGUE[name].build(Database(FOLDER).data(name))
    scales = ("sigma_theta", "sigma_a", "sigma_b", "mu_b")
    i, j = np.arange(1, 21), np.arange(1, 101)
    a = dict(zip(scales, map(np.array, (1.0, 1.0, 1.0, 0.0)), strict=True))
    b = dict(zip(scales, map(np.array, (1.2, 0.5, 0.9, 0.3)), strict=True))
    a |= {"theta": np.zeros(100), "a": np.ones(20), "b": np.zeros(20)}
    b |= {"theta": np.sin(j), "a": np.exp(0.3 * np.cos(i)), "b": 0.5 * np.sin(i)}
    assert abs(log_density(model, b) - log_density(model, a) + 141.912187) < 1e-5


@needs_data
def test_every_posterior_of_the_copy_has_a_model() -> None:
    assert set(Database(FOLDER).names) <= set(CATALOGUE)


def test_elements_join_into_arrays_and_split_again() -> None:
    values = np.random.default_rng(0).normal(size=(2, 5, 3, 4))
    elements = split("w", values)
    assert list(elements)[:2] == ["w[1,1]", "w[1,2]"]
    np.testing.assert_array_equal(join(elements)["w"], values)


def test_a_folder_in_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="no folder `posteriors`"):
        Database(tmp_path)


def test_an_unknown_posterior_is_refused_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "posteriors").mkdir()
    (tmp_path / "posteriors" / "arK-arK.json").write_text('{"data_name": "arK"}')
    with pytest.raises(DatabaseError, match="Did you mean 'arK-arK'"):
        Database(tmp_path).data("arK-arL")


def test_scores_name_the_element_that_is_furthest_off() -> None:
    rng = np.random.default_rng(0)
    reference = {"a": rng.normal(size=(10, 1000)), "b": 3 + rng.normal(size=(10, 1000))}
    near = {name: rng.normal(v.mean(), 1, (4, 2000)) for name, v in reference.items()}
    assert score(near, reference).shortfalls() == []
    far = near | {"a": near["a"] + 0.3}
    said = score(far, reference).shortfalls()
    assert len(said) == 1 and said[0].startswith("mean of a off by 0.3")
    wide = near | {"a": 2 * near["a"]}
    assert [s[:12] for s in score(wide, reference).shortfalls()] == ["mean of a² o"]
    apart = near | {"b": near["b"] + 0.2 * np.array([[1], [-1], [1], [-1]])}
    assert [s[:5] for s in score(apart, reference).shortfalls()] == ["R-hat"]


def test_draws_that_are_not_numbers_are_out_of_bounds() -> None:
    draws = {"a": np.full((4, 100), np.nan)}
    assert (
        len(score(draws, {"a": np.random.default_rng(0).normal(size=(4, 100))}).shortfalls()) == 3
    )


def test_the_tally_counts_posteriors_without_reference_apart() -> None:
    good: dict[str, Any] = {"shortfalls": []}
    failed = {"error": "StartError: no start"}
    rows = [Row("x", True, good), Row("y", False, good), Row("z", True, failed)]
    assert tally(rows) == [
        "1 of 2 with reference draws within bounds",
        "1 of 1 without reference draws with R-hat below 1.02",
        "out: z: StartError: no start",
    ]
