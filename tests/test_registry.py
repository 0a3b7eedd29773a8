"""Plugins: found, listed without being imported, loaded by name, reported when they fail."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ppcore import registry
from ppcore.contract import Invariant
from ppcore.engine import AmortisedEngine, DirectEngine, Engine, PopulationEngine
from ppcore.errors import PluginError, SettingsError
from ppcore.hooks import EngineSpec, Origin, Spec

pytestmark = pytest.mark.usefixtures("fresh_registry")

OFFER = """
from ppcore.contract import Invariant
from ppcore.hooks import EngineSpec, hookimpl

@hookimpl
def ppcore_engines():
    return [EngineSpec({name!r}, load="{module}:Thing", contract=Invariant(), {more})]

class Thing:
    contract = Invariant()
"""


@dataclass(frozen=True)
class Coin:
    """Something with settings; the registry asks no more of an engine."""

    bias: float
    sides: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.bias <= 1:
            raise ValueError(f"bias={self.bias} is not in [0, 1]")


COIN = EngineSpec("coin", load=Coin, contract=Invariant())


def offer(name: str, module: str, more: str = "") -> str:
    return OFFER.format(name=name, module=module, more=more)


def test_every_installed_engine_keeps_its_word() -> None:
    known = registry.catalog()
    assert [plugin for plugin in known.plugins if plugin.error] == []
    assert "nuts" in known.engines
    for name, spec in known.engines.items():
        assert spec.origin is not None and spec.origin.distribution
        assert spec.summary and spec.reference
        if registry.unavailable(spec) is None:
            engine = registry.engine(name)
            assert engine.contract == spec.contract
            assert isinstance(engine, Engine | DirectEngine | PopulationEngine | AmortisedEngine)
            settings = registry.setting_names(registry.resolve(name))
            assert not {"contract", "default_chains", "default_draws"} & settings.keys()


def test_an_engine_can_be_registered_by_a_notebook() -> None:
    registry.register(COIN)
    registry.register(COIN)
    assert registry.engine("coin", {"bias": 0.5}) == Coin(0.5)
    other = EngineSpec("coin", load=Coin, contract=Invariant(reversible=True))
    with pytest.raises(PluginError, match="replace_existing"):
        registry.register(other)
    registry.register(other, replace_existing=True)
    assert registry.spec("coin").contract == Invariant(reversible=True)


def test_a_notebook_cannot_take_the_name_of_a_plugin() -> None:
    with pytest.raises(PluginError, match="taken by ppcore .* Choose another name"):
        registry.register(
            EngineSpec("nuts", load=Coin, contract=Invariant()), replace_existing=True
        )


def test_misspelt_names_get_a_suggestion() -> None:
    registry.register(COIN)
    with pytest.raises(SettingsError, match="Engine 'coyn' is not known. Did you mean 'coin'"):
        registry.engine("coyn")
    with pytest.raises(SettingsError, match="no setting 'side'. Did you mean 'sides'"):
        registry.engine("coin", {"bias": 0.5, "side": 3})
    with pytest.raises(SettingsError, match="needs the setting 'bias'"):
        registry.engine("coin")
    with pytest.raises(SettingsError, match=r"refuses \(bias=2\): bias=2 is not in \[0, 1\]"):
        registry.engine("coin", {"bias": 2})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Spec("x", "no_colon"), "package.module:attribute"),
        (lambda: Spec("x", "m:X", requires="jax"), r"such as \('jax',\)"),
        (lambda: EngineSpec("x", "m:X", contract=Invariant), "instance"),
        (
            lambda: EngineSpec("x", "m:X", contract=Invariant(), needs=("gradients",)),
            "Did you mean 'gradient'",
        ),
        (lambda: EngineSpec("x", "m:X", contract=Invariant(), needs="gradient"), "tuple"),
    ],
)
def test_specs_without_meaning_are_refused(make: Callable[[], Spec], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        make()


def test_a_missing_requirement_names_the_extra() -> None:
    origin = Origin("flows", "strangers-flows", "2.0")
    spec = Spec("f", "m:F", requires=("json", "absent"), extra="torch", origin=origin)
    reason = registry.unavailable(spec)
    assert reason is not None and reason.endswith('pip install "strangers-flows[torch]"')
    registry.register(EngineSpec("g", "m:F", requires=("absent", "lost"), contract=Invariant()))
    with pytest.raises(PluginError, match="modules absent and lost, which are not installed"):
        registry.resolve("g")


def test_a_failing_import_names_the_distribution_and_what_to_do() -> None:
    registry.register(EngineSpec("h", "json:Absent", contract=Invariant()))
    with pytest.raises(PluginError, match="AttributeError.*--no-plugin"):
        registry.resolve("h")


def test_the_same_name_twice_is_refused_and_both_are_named(
    distribution: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution("first-dist", "one", offer("clash", "first_dist"))
    site = distribution("second-dist", "two", offer("clash", "second_dist"))
    monkeypatch.syspath_prepend(site)
    registry.refresh()
    with pytest.raises(PluginError, match=r"first-dist 1.0 .*'one'.* and second-dist 1.0"):
        registry.resolve("clash")
    assert "nuts" in registry.catalog().engines
    monkeypatch.setenv(registry.BLOCK, "two")
    assert registry.spec("clash").origin == Origin("one", "first-dist", "1.0")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import module_that_is_nowhere", "No module named 'module_that_is_nowhere'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        (offer("x", "m", "needs=('wings',)"), "Known: gradient, reference"),
        (offer("x", "m").replace("ppcore_engines", "ppcore_engine"), "Did you mean 'ppcore_eng"),
        (offer("x", "m").replace("return [", "return [1, "), "must return a list of EngineSpec"),
        (offer("x", "m").replace("engines()", "engines(context)"), "context"),
    ],
)
def test_a_broken_plugin_is_reported_and_the_others_work(
    source: str, said: str, distribution: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"broken-{abs(hash(source))}"
    monkeypatch.syspath_prepend(distribution(name, "broken", source))
    registry.refresh()
    known = registry.catalog()
    (broken,) = [plugin for plugin in known.plugins if plugin.error]
    assert broken.origin == Origin("broken", name, "1.0")
    assert said in broken.error
    assert "nuts" in known.engines
    with pytest.raises(SettingsError, match="Not in use: plugin 'broken'"):
        registry.engine("zzz")


def test_the_environment_allows_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(registry.ALLOW, "mcmd")
    known = registry.catalog()
    assert not known.engines
    assert any("PPCORE_PLUGINS names 'mcmd'" in note for note in known.notes)
    assert any("Did you mean 'mcmc'" in note for note in known.notes)
    monkeypatch.setenv(registry.ALLOW, "mcmc")
    assert "nuts" in registry.catalog().engines
    monkeypatch.setenv(registry.BLOCK, "mcmc")
    assert "nuts" not in registry.catalog().engines
    with pytest.raises(SettingsError, match="blocked by PPCORE_NO_PLUGINS=mcmc"):
        registry.engine("nuts")


WALK = """
import jax, jax.numpy as jnp
from ppcore import registry
from ppcore.engine import Engine
from ppcore.precision import scope
from ppcore.target import DensityTarget

def density(x, data):
    return -0.5 * jnp.sum(((x - data["mean"]) / data["sd"]) ** 2)

engine = registry.engine("walk", {"rounds": 6})
assert isinstance(engine, Engine)
with scope("float64"):
    data = {"mean": jnp.array([1.0, -2.0]), "sd": jnp.array([1.0, 10.0])}
    target = DensityTarget(density, 2, data)
    warm = engine.warmup(jax.random.key(0), target, 256, lambda progress: None)
    carry = engine.init(jax.random.key(1), target, warm.tuned, warm.x)
    carry, draws, stats = engine.block(jax.random.key(2), target, warm.tuned, carry, 500)
    z = (draws[:, -1] - data["mean"]) / data["sd"]
assert draws.shape == (256, 500, 2) and draws.dtype == "float64"
assert all(stat.shape == (256, 500) for stat in stats.values())
# 256 independent chains: |mean of z| and |mean of z² − 1| stay below 4.5 standard errors, so each
# of the four comparisons fails wrongly with probability 7e-6 over the choice of seed.
assert abs(z.mean(0)).max() < 4.5 / 16 and abs((z**2).mean(0) - 1).max() < 4.5 * 2**0.5 / 16
print("ran", registry.spec("walk").origin)
"""


def test_a_strangers_engine_is_installed_listed_and_run(third_party: Path, run_python) -> None:
    listed = run_python("-m", "ppcore.cli", "engines", "--json", path=(third_party,))
    assert listed.returncode == 0, listed.stderr
    engines = {engine["name"]: engine for engine in json.loads(listed.stdout)["engines"]}
    assert engines["walk"]["origin"] == {
        "plugin": "walk",
        "distribution": "ppcore-walk",
        "version": "0.3.1",
    }
    assert engines["walk"]["contract"]["reversible"] is True
    ran = run_python("-c", WALK, path=(third_party,))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "ran ppcore-walk 0.3.1\n"


def test_a_strangers_engine_can_be_left_out(third_party: Path, run_python) -> None:
    command = ["-m", "ppcore.cli", "engines", "--no-plugin", "walk"]
    listed = run_python(*command, path=(third_party,))
    assert listed.returncode == 0, listed.stderr
    assert "nuts" in listed.stdout
    assert "random-walk" not in listed.stdout
    assert "blocked: plugin 'walk' of ppcore-walk 0.3.1" in listed.stdout


def test_the_page_on_engines_quotes_the_engine_that_is_tested() -> None:
    root = Path(__file__).parent
    sources = "".join(
        path.read_text()
        for pattern in ("*.toml", "ppcore_walk/*.py")
        for path in (root / "third_party").glob(pattern)
    )
    page = (root.parent / "CONTRIBUTING.md").read_text()
    quoted = re.findall(r"```(?:toml|python)\n(.*?)```", page, re.DOTALL)
    assert len(quoted) == 5
    for block in quoted:
        assert block in sources, block
