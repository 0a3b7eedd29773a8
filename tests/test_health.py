"""Diagnostics agree with ArviZ; warnings name the worst coordinates and the next step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import arviz_stats.base
import numpy as np
import pytest
from small import posterior, quietly
from walker import Walk

from ppcore.report import SamplingWarning, assess
from ppcore.report.diagnostics import diagnose, energy_fraction


def chains(shape: tuple[int, ...], memory: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    x = noise.copy()
    for t in range(1, shape[1]):
        x[:, t] = memory * x[:, t - 1] + np.sqrt(1 - memory**2) * noise[:, t]
    return x


@pytest.mark.parametrize("memory", [0.9, 0.3, 0.0, -0.5])
@pytest.mark.parametrize("shape", [(4, 1000, 3), (64, 100, 3), (2, 10, 3)])
def test_diagnostics_are_arvizs(shape: tuple[int, ...], memory: float) -> None:
    x = chains(shape, memory)
    x[..., 0] = np.round(x[..., 0], 1)
    found = diagnose(x)
    stats = arviz_stats.base.array_stats
    axes = {"chain_axis": 0, "draw_axis": 1}
    for j in range(x.shape[2]):
        one = x[..., j]
        assert found.rhat[j] == pytest.approx(stats.rhat(one, **axes), rel=1e-10)
        assert found.ess_bulk[j] == pytest.approx(stats.ess(one, method="bulk", **axes), rel=1e-10)
        tail = stats.ess(one, method="tail", prob=(0.05, 0.95), **axes)
        assert found.ess_tail[j] == pytest.approx(tail, rel=1e-10)
    np.testing.assert_allclose(
        energy_fraction(x[..., 1]), stats.bfmi(x[..., 1], **axes), rtol=1e-10
    )


def test_diagnostics_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = chains((4, 100, 7), 0.5)
    whole = diagnose(x)
    monkeypatch.setattr("ppcore.report.diagnostics.CELLS", 900)
    np.testing.assert_array_equal(diagnose(x).ess_bulk, whole.ess_bulk)


def name(i: int) -> str:
    return f"theta[{i}]"


def warned(x: np.ndarray, **stats: np.ndarray) -> str:
    return "\n".join(assess(x, stats, name).warnings)


def test_good_draws_raise_no_warning() -> None:
    for shape in ((4, 1000, 5), (64, 100, 5)):
        health = assess(chains(shape, 0.0), {"diverging": np.zeros(shape[:2], bool)}, name)
        assert health.warnings == ()
        assert health.divergences == 0 and health.rhat[1] < 1.01  # type: ignore[index]


def test_chains_that_disagree() -> None:
    x = chains((4, 1000, 5), 0.0)
    x[0, :, 3] += 2
    assert "R-hat is above 1.01 for 1 of 5 coordinates, worst: theta[3]" in warned(x)
    assert "draws=2000" in warned(x)


def test_few_effective_draws() -> None:
    text = warned(chains((4, 500, 2), 0.97))
    assert "effective sample size is below 400 (for 4 chains) for 2 of 2" in text
    # Many short chains are judged together: 100 for each of 64 would be every draw there is.
    assert "effective" not in warned(chains((64, 100, 2), 0.5))
    assert "below 800 (for 64 chains)" in warned(chains((64, 20, 2), 0.5))


def test_divergences_are_placed() -> None:
    x = chains((4, 1000, 3), 0.0)
    diverging = x[..., 2] < -2
    text = warned(x, diverging=diverging)
    assert f"{diverging.sum()} of 4000 transitions diverged" in text
    assert "They gather at low values of theta[2]" in text


def test_a_few_divergences_are_counted_and_no_warning() -> None:
    diverging = np.zeros((64, 400), bool)
    diverging[3, :25] = True  # 25 of 25,600
    x = chains((64, 400, 1), 0.0)
    assert "diverged" not in warned(x, diverging=diverging)
    assert assess(x, {"diverging": diverging}, str).divergences == 25
    diverging[4, 0] = True
    assert "26 of 25600 transitions diverged" in warned(x, diverging=diverging)


def test_energies_that_hardly_change() -> None:
    slow = chains((4, 1000, 1), 0.95)[..., 0]
    assert "E-BFMI is 0." in warned(chains((4, 1000, 1), 0.0), energy=slow)
    many = chains((64, 100, 1), 0.0)
    assert "E-BFMI" not in warned(many, energy=many[..., 0])


def test_chains_that_never_moved() -> None:
    x = chains((4, 100, 3), 0.0)
    x[..., 1] = 1.0
    assert "No chain moved in theta[1]" in warned(x)
    x = chains((4, 100, 3), 0.0)
    x[2] = 0.5
    assert "Chains that never moved: 2" in warned(x)
    assert "too few to judge" in warned(chains((4, 2, 1), 0.0))


def test_infer_warns_once_at_the_users_own_line() -> None:
    with pytest.warns(SamplingWarning) as seen:
        fit = posterior().infer(Walk(0.05), draws=50, chains=2, seed=1, progress="off")
    assert len(seen) == 1
    assert Path(seen[0].filename).name == "test_health.py"
    assert "R-hat" in str(seen[0].message) and "slope" in str(seen[0].message)
    assert "\n".join(fit.warnings) == str(seen[0].message)


def test_values_that_overflow_are_told_of() -> None:
    @dataclass(frozen=True)
    class Far(Walk):
        def block(self, key: Any, target: Any, tuned: Any, carry: Any, n: int) -> Any:
            carry, draws, stats = super().block(key, target, tuned, carry, n)
            return carry, draws.at[..., 1].set(800.0), stats

    fit = quietly(posterior(), Far(), draws=20)
    with pytest.warns(SamplingWarning, match="Site 'scale' is not finite in 80 of 80 draws"):
        fit.draws("scale")
