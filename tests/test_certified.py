"""Every engine in the listing: cheap checks on each run of the tests, and a shipped certificate.

The statistical checks take ``ppcore check`` half a minute an engine; what a certificate says of
them holds for the code that it names. Here run those that are exact or deterministic, in the form
that compiles least: blocks as the engine runs them itself, two chains, the shortest warm-up.
"""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ppcore import precision, registry
from ppcore.contract import Biased
from ppcore.run import cache
from ppcore.testing import certificate
from ppcore.testing.certify import subject_of
from ppcore.testing.session import Session
from ppcore.testing.suite import applicable, run_check

ROOT = Path(__file__).parent.parent
OURS = {
    name: spec
    for name, spec in sorted(registry.catalog().engines.items())
    if spec.origin is not None and spec.origin.distribution == "ppcore"
}
CHEAP = ("settings", "outputs", "populated", "seed", "key_reuse", "frozen", "resume", "solved")
SHORT = {"warmup_draws": 16, "max_warmup_draws": 16, "iterations": 25, "polish": 0}
QUICKER = {"zuko_flow": {"steps": 10, "batch": 32, "layers": 1}}


class AsItIs(Session):
    """Runs blocks as the engine runs them, so that warm-up and checks share its own programs."""

    def jit(self, fn):
        return fn

    def tuned(self, model):
        if model.name not in self._tuned:
            engine = self.subject.engine
            chains = 8 if getattr(engine, "coupled", False) else 2
            key, target = self.key("warmup"), self.typical(model)
            self._tuned[model.name] = engine.warmup(key, target, chains, lambda _: None).tuned
        return self._tuned[model.name]


@pytest.mark.parametrize("name", OURS)
def test_cheap_checks(name):
    spec = OURS[name]
    reason = registry.unavailable(spec)
    if reason is not None:
        pytest.skip(reason)
    cache.enable()
    known = registry.setting_names(registry.resolve(name))
    short = {k: v for k, v in SHORT.items() if k in known} | QUICKER.get(name, {})
    engine = registry.engine(name, short)
    assert engine.contract == spec.contract, "the listing and the engine promise different things"
    subject = subject_of(name, engine, spec.contract)
    with precision.scope("float64"):
        session = AsItIs(subject, (), seed=1, alpha=1e-4, replicates=2000)
        checks = [check for check in applicable(subject) if check.name in CHEAP]
        failed = [r for check in checks for r in run_check(session, check) if not r.ok]
    assert len(checks) >= 1 and not failed, "\n".join(map(str, failed))


# Engines whose full checks have not been run; none may stay here once it has a certificate.
UNCERTIFIED = {
    **dict.fromkeys(
        (
            "numpyro_nuts",
            "numpyro_sa",
            "numpyro_aies",
            "numpyro_ess",
            "pyro_nuts",
            "pyro_svi",
        ),
        "of their checks only those in test_foreign_engines.py",
    ),
    "amis": "its evidence check takes longer than has been given to it",
    "dynesty": "not run",
    "npe": "its calibration check trains two ensembles first: not run",
    "zuko_flow": "not run",
    **dict.fromkeys(
        (
            "flow",
            "flow_mcmc",
            "neutra",
            "full_rank",
            "low_rank_gaussian",
            "boosted",
            "craft",
            "aft",
            "snf",
            "mixflow",
            "mode_smc",
            "cmcd",
            "scld",
            "mcd",
            "dbs",
            "dds",
            "dis",
            "pis",
            "ud_mcd",
            "ud_cmcd",
            "ud_dbs",
            "flow_matching",
            "schroedinger_bridge",
        ),
        "not run",
    ),
}


def test_every_engine_ships_a_valid_certificate():
    wrong = dict(certificate.to_ship(OURS.values()))
    for name in UNCERTIFIED:
        assert wrong.pop(name, None) == "missing", f"{name} has one: take it off the list."
    said = ", ".join(f"{name} ({what})" for name, what in wrong.items())
    assert not wrong, f"Certificates to ship: {said}. Run: ppcore check --ship {' '.join(wrong)}"


def test_biased_engines_ship_their_measured_order():
    """Of those that walk: what the bias of a population engine shrinks with is no step size."""
    for name, made in certificate.shipped(OURS.values()).items():
        if registry.unavailable(OURS[name]) is not None:
            continue
        walks = not hasattr(registry.engine(name), "populate")
        if isinstance(OURS[name].contract, Biased) and walks:
            assert made.order is not None or made.resolution is not None, name


def imported_by_ast(path: Path, name: str, top: str):
    """What a file imports below ``top``, by Python's own parser."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_a_hash_covers_what_an_engine_imports_of_its_package():
    modules = {certificate.module_of(spec.load) for spec in OURS.values()}
    for module in modules:
        top, files = module.split(".")[0], certificate.closure(module)
        assert module in files
        for name, path in files.items():
            for found in imported_by_ast(path, name, top):
                below = ROOT.joinpath("plugins", *found.split(".")).with_suffix(".py")
                if found.startswith(top + ".") and below.is_file():
                    assert found in files, f"{module}: {name} imports {found}"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with two engines, one of which uses a helper; ``name -> spec``."""
    root = tmp_path / "some_engines"
    root.mkdir()
    (root / "__init__.py").write_text("")
    (root / "walk.py").write_text("from some_engines import (\n    steps,\n)\n")
    (root / "steps.py").write_text("from . import far\n")
    (root / "far.py").write_text("X = 1\n")
    (root / "jump.py").write_text("import json\n")
    monkeypatch.syspath_prepend(tmp_path)
    certificate._root.cache_clear()
    specs = [SimpleNamespace(name=n, load=f"some_engines.{n}:X") for n in ("walk", "jump")]
    return root, specs


def issued(name, root, **changes):
    code = certificate.code_hash(f"some_engines.{name}")
    made = certificate.Certificate(
        name, "some 1.0", code, True, 0.1, 1e-3, 1, 9, "invariant", "passed", "2026-01-01"
    )
    certificate.write(replace(made, **changes), root / certificate.FILE)


def forget():
    for held in (certificate._source, certificate._imported, certificate._root):
        held.cache_clear()


def test_another_engine_of_the_package_changes_nothing_and_a_helper_does(package):
    root, specs = package
    assert set(certificate.closure("some_engines.walk")) == {
        f"some_engines.{n}" for n in ("walk", "steps", "far")
    }
    for name in ("walk", "jump"):
        issued(name, root)
    assert certificate.to_ship(specs) == {}
    (root / "__init__.py").write_text("LIST = ['walk', 'jump', 'fly']\n")
    (root / "fly.py").write_text("")
    forget()
    assert certificate.to_ship(specs) == {}
    (root / "far.py").write_text("X = 2\n")
    forget()
    assert certificate.to_ship(specs) == {"walk": "of other code"}
    issued("jump", root, passed=False)
    assert certificate.to_ship(specs)["jump"] == "failed"
    (root / certificate.FILE).unlink()
    assert certificate.to_ship(specs) == {"walk": "missing", "jump": "missing"}


def test_the_users_own_certificate_counts_unless_only_the_shipped_one_is_of_this_code(package):
    root, specs = package
    issued("walk", root)
    own = root.parent / "own.json"
    assert certificate.known(specs, own)["walk"].resolution == 0.1
    mine = replace(certificate.shipped(specs)["walk"], resolution=0.02)
    certificate.write(mine, own)
    assert certificate.known(specs, own)["walk"].resolution == 0.02
    certificate.write(replace(mine, code="0" * 12), own)
    assert certificate.known(specs, own)["walk"].resolution == 0.1


def test_a_listing_shows_the_measured_order(package):
    root, _ = package
    issued("walk", root, order=1.04, resolution=None)
    made = certificate.read(root / certificate.FILE)["walk"]
    assert made.short == "passed, order 1.04 (some 1.0)"
