"""Stan programs through BridgeStan's functions, in a library written by hand and compiled here.

A Stan program itself is compiled only where ``BRIDGESTAN`` names BridgeStan's sources.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

import ppcore as pp
from ppcore import precision
from ppcore.errors import ModelError, PluginError, UnsupportedError

pytest.importorskip("bridgestan")

pytestmark = pytest.mark.filterwarnings("ignore::ppcore.frontends.DensityOnlyWarning")
Y = 1.5


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    made = tmp_path_factory.mktemp("stan") / "by_hand_model.so"
    source = Path(__file__).parent / "bridgestan_abi.c"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", str(source), "-o", str(made), "-lm"], check=True
    )
    return str(made)


def by_hand(x: Any) -> float:
    mu, tau = x[0], np.exp(x[1])
    known = stats.norm.logpdf(mu) + stats.expon.logpdf(tau) + x[1] + stats.norm.logpdf(Y, mu)
    return float(known + stats.norm.logpdf(x[2:]).sum())


def test_density_gradient_and_sites(library: str) -> None:
    model = pp.from_stan(library, {"y": Y})
    assert model.latents == ("mu", "tau", "m") and model.deterministics == ("both",)
    assert model.capabilities == {"gradient"}
    assert "on its threads" in model.notes[0]
    x = np.random.default_rng(0).normal(size=(5, 8))
    with precision.scope("float64"):
        target = model.target()
        value, slope = jax.vmap(jax.value_and_grad(target.log_density))(x)
        sites = jax.jit(jax.vmap(target.constrain))(x)
    np.testing.assert_allclose(value, [by_hand(row) for row in x], rtol=1e-12)
    np.testing.assert_allclose(slope[:, 0], Y - 2 * x[:, 0], rtol=1e-12)
    np.testing.assert_allclose(slope[:, 1], 1 - np.exp(x[:, 1]), rtol=1e-12)
    np.testing.assert_allclose(sites["tau"], np.exp(x[:, 1]))
    # Stan puts the first index out first: m.1.1, m.2.1, m.1.2, ...
    np.testing.assert_allclose(sites["m"], x[:, 2:].reshape(5, 3, 2).swapaxes(1, 2))
    assert target.site_slices["m"] == slice(2, 8)


class Named:
    """A program with a tuple of a scalar and a matrix, a complex number and a vector."""

    names = ("t:1", "t:2.1.1", "t:2.2.1", "t:2.1.2", "t:2.2.2", "z.real", "z.imag", "b.1", "b.2")

    def param_num(self) -> int:
        return len(self.names)

    def param_unc_num(self) -> int:
        return len(self.names)

    def param_unc_names(self) -> list[str]:
        return list(self.names)

    def param_names(self, include_tp: bool) -> list[str]:
        return [*self.names, "pair:1.1", "pair:1.2", "pair:2.1", "pair:2.2"]

    def model_info(self) -> str:
        return "STAN_THREADS=true"


def test_tuples_and_complex_numbers_are_vectors_in_stans_order() -> None:
    from ppcore_stan.from_program import described

    made = described(Named())
    assert [(s.name, s.shape) for s in made.latents] == [("t", (5,)), ("z", (2,)), ("b", (2,))]
    assert made.places == (("t", slice(0, 5)), ("z", slice(5, 7)), ("b", slice(7, 9)))
    (pair,) = made.computed
    assert (pair.name, pair.at, pair.shape) == ("pair", slice(9, 13), (4,))


@pytest.mark.filterwarnings("ignore::ppcore.report.SamplingWarning")
def test_it_runs(library: str) -> None:
    """μ | y ~ N(y/2, 1/2), within 5 of the standard errors that the fit itself states."""
    fit = pp.from_stan(library, '{"y": 1.5}').infer("nuts", seed=1, chains=4, draws=200)
    assert fit.sites == {"mu": (), "tau": (), "m": (2, 3), "both": (2,)}
    error = float(np.asarray(fit.summary(["mu"])["mcse_mean"], float)[0])
    assert abs(fit.draws("mu").mean() - Y / 2) < 5 * error


def test_points_that_stan_rejects_have_no_density(library: str) -> None:
    with precision.scope("float64"):
        target = pp.from_stan(library, {"y": Y}).target()
        x = np.zeros(8)
        x[1] = 20.0
        assert float(target.log_density(x)) == -np.inf


def test_what_it_cannot_do(library: str) -> None:
    target = pp.from_stan(library, {"y": Y}).target()
    with pytest.raises(UnsupportedError, match="without a prior"):
        target.sample_reference(jax.random.key(0), 3)


def test_bad_input(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"refuses its data.*name=y.*Pass it"):
        pp.from_stan(library, {"x": 1.0})
    with pytest.raises(ModelError, match="'y' hold NaN"):
        pp.from_stan(library, {"y": np.nan})
    with pytest.raises(ModelError, match="There is no Stan program"):
        pp.from_stan(tmp_path / "none.stan")
    with pytest.raises(ModelError, match="no file"):
        pp.from_stan(library, tmp_path / "none.json")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PluginError, match="apt-get install"):
        pp.from_stan("parameters { real x; } model { x ~ std_normal(); }")


def test_a_program_that_does_not_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the compiler said is what the user reads, however BridgeStan was told."""
    import bridgestan
    from ppcore_stan import from_program

    def refuses(path: Path, **_: Any) -> Path:
        raise RuntimeError(
            "Command make failed with code 2.\nstdout:\n--- Translating ---\nstderr:\n"
            "Semantic error in 'p.stan', line 2, column 23:\nIdentifier 'nope' not in scope.\n"
            "make: *** [p.hpp] Error 1"
        )

    monkeypatch.setattr(bridgestan, "compile_model", refuses)
    monkeypatch.setattr(from_program.shutil, "which", lambda tool: f"/bin/{tool}")
    with pytest.raises(ModelError, match="does not compile") as said:
        pp.from_stan("parameters { real mu; }\nmodel { mu ~ normal(0, nope); }")
    assert "Identifier 'nope' not in scope" in str(said.value)
    assert "make:" not in str(said.value)


@pytest.mark.skipif("BRIDGESTAN" not in os.environ, reason="no sources of BridgeStan")
def test_a_real_program() -> None:
    code = """
    data { int<lower=0> n; vector[n] y; }
    parameters { real mu; real<lower=0> sigma; simplex[3] p; }
    model { mu ~ normal(0, 5); sigma ~ exponential(1); y ~ normal(mu, sigma); }
    """
    y = np.array([0.3, -1.0, 2.0])
    model = pp.from_stan(code, {"n": 3, "y": y})
    with precision.scope("float64"):
        target = model.target()
        x = np.array([0.4, -0.2, 0.1, 0.3])
        given = target.constrain(x)
        ours = float(target.log_density(x))
    sigma = np.exp(-0.2)
    known = stats.norm.logpdf(0.4, 0, 5) + stats.expon.logpdf(sigma) - 0.2
    known += stats.norm.logpdf(y, 0.4, sigma).sum()
    np.testing.assert_allclose(np.asarray(given["p"]).sum(), 1)
    assert given["p"].shape == (3,) and target.site_slices["p"] == slice(2, 4)
    assert np.isfinite(ours) and abs(float(given["sigma"]) - sigma) < 1e-12
    with pytest.raises(ModelError, match="not in scope"):
        pp.from_stan("parameters { real mu; }\nmodel { mu ~ normal(0, nope); }")
