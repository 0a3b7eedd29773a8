"""The suite on engines: it passes good ones, and says clearly what is wrong with bad ones."""

import doctest
import importlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from ppcore import contract as c
from ppcore import registry
from ppcore.cli import main
from ppcore.errors import PPCoreError, SettingsError, UnsupportedError
from ppcore.run import cache
from ppcore.testing import (
    KernelEngine,
    Plan,
    certificate,
    check_engine,
    engine_subject,
    parametrize_engine_checks,
    run_suite,
)
from ppcore.testing.certificate import Certificate
from ppcore.testing.certify import issue, subject_of
from ppcore.testing.reference.metropolis import RandomWalk
from ppcore.testing.result import write_log
from ppcore.testing.subject import Subject
from ppcore.testing.suite import applicable, count_tests
from ppcore.testing.zoo import animals, zoo_subject

WALK = KernelEngine(RandomWalk(), {"step_size": 0.5})
SMALL = Subject("walk", WALK.contract, engine=WALK, models=("normal", "gamma_scale"))
QUICK = Plan(replicates=2000, optimise=False)


@parametrize_engine_checks([SMALL], plan=QUICK)
def test_third_parties_get_one_test_per_check(check):
    check()


@pytest.mark.parametrize("name", ["nuts", "ensemble"])
def test_the_installed_engines_pass_through_the_public_interface(name):
    cache.enable()
    report = check_engine(name, plan=Plan(replicates=2000, optimise=False))
    assert report.ok, "\n".join(map(str, report.failures))
    assert report.resolution is not None and report.resolution < 0.4


def test_the_contract_decides_which_checks_apply():
    names = {check.name for check in applicable(SMALL)}
    assert {"invariance", "reversibility", "rank", "movement", "key_reuse"} <= names
    weaker = replace(SMALL, contract=c.Invariant(reversible=False, irreducible=False))
    lost = names - {check.name for check in applicable(weaker)}
    assert lost == {"reversibility", "rank", "movement"}
    assert count_tests(SMALL, QUICK) == 6
    with pytest.raises(SettingsError, match="Did you mean 'invariance'"):
        applicable(SMALL, ("invarance",))


@pytest.mark.parametrize(
    ("name", "check", "says"),
    [
        ("raises", "outputs", "raised ValueError at misbehaved.py:.*no such luck"),
        ("not_a_number", "outputs", "draws are NaN"),
        ("draws_first", "outputs", r"draws have shape \(5, 2, 2\), expected \[chains, n, d\]"),
        ("single_precision", "outputs", "float32, but x is float64"),
        ("carry_changes", "outputs", "carry"),
        ("looks_at_values", "outputs", "TracerBoolConversionError"),
        ("open_settings", "settings", r"\*\*more|kwargs"),
    ],
)
def test_bad_engines_are_told_what_when_and_how_to_repeat_it(name, check, says):
    report = run_suite(zoo_subject(name), replace(QUICK, only=(check,)))
    (failed,) = report.failures
    assert re.search(says, failed.message)
    text = str(failed)
    assert f"FAIL {check}" in text and f"seed {QUICK.seed}" in text
    assert f"ppcore check {name} --only {check}" in text and f"--seed {QUICK.seed}" in text
    assert report.verdict == f"{name}: rejected by {check}."


def test_expected_failures_are_named_and_strict():
    only = replace(QUICK, only=("settings",))
    known = replace(zoo_subject("open_settings"), expected_failures={"settings": "by design"})
    (result,) = run_suite(known, only).results
    assert result.verdict == "xfail" and "by design" in result.message
    good = replace(SMALL, expected_failures={"settings": "by design"})
    report = run_suite(good, only)
    assert not report.ok and report.failures[0].verdict == "xpass"


def test_a_pass_states_its_resolution_and_never_says_correct():
    report = run_suite(SMALL, replace(QUICK, only=("invariance",)))
    assert report.ok
    assert re.search(r"no bias above 0\.\d+ sd .* at error \de-0\d a test", report.verdict)
    assert "correct" not in report.verdict
    finer = run_suite(SMALL, replace(QUICK, replicates=8000, only=("invariance",)))
    assert finer.resolution < report.resolution


def test_results_are_logged_with_their_e_values(tmp_path):
    report = run_suite(SMALL, replace(QUICK, only=("invariance",)))
    log = tmp_path / "deep" / "log.jsonl"
    write_log(log, report.results)
    write_log(log, report.results)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(rows) == 4
    assert {"log_e", "seed", "alpha", "check", "model"} <= set(rows[0])


def test_what_is_no_engine_is_refused_with_a_reason():
    with pytest.raises(UnsupportedError, match="neither `warmup`, `init` and `block`, nor"):
        subject_of("nothing", object(), c.Density())


def test_a_solver_that_is_wrong_is_found_out():
    """Evidence off by a constant, and draws of another law, each die of their own check."""
    exact = registry.engine("exact")

    class Wrong:
        contract = c.Density()

        def __init__(self, shift=0.0, narrow=1.0):
            self.shift, self.narrow = shift, narrow

        def solve(self, target):
            solution, narrow = exact.solve(target), self.narrow

            class Off:
                log_evidence = solution.log_evidence + self.shift

                def sample(self, key, n):
                    drawn = solution.sample(key, n)
                    for name, value in drawn.items():
                        if np.issubdtype(value.dtype, np.floating):
                            drawn[name] = value.mean(0) + narrow * (value - value.mean(0))
                    return drawn

            return Off()

    for engine, check in ((Wrong(shift=1e-6), "solved"), (Wrong(narrow=0.8), "solved_draws")):
        subject = subject_of("wrong", engine, engine.contract)
        report = run_suite(subject, replace(QUICK, only=(check,)))
        assert "normal" in {r.model for r in report.failures}, report


def test_a_biased_engine_is_measured_by_its_kernel():
    subject = subject_of("ula", registry.engine("ula"), c.Biased(order=1))
    assert "bias_order" in {check.name for check in applicable(subject)}
    assert float(subject.params.step_size) > 0


def test_subjects_take_the_name_and_contract_of_their_engine():
    subject = engine_subject(WALK)
    assert subject.name == "KernelEngine" and subject.contract == WALK.contract


class TestCertificates:
    def test_they_are_kept_side_by_side(self, tmp_path):
        path = tmp_path / "certificates.json"
        assert certificate.read(path) == {}
        for name in ("a", "b"):
            certificate.write(_certificate(name), path)
        certificate.write(replace(_certificate("a"), passed=False), path)
        kept = certificate.read(path)
        assert set(kept) == {"a", "b"} and kept["a"].short.startswith("failed")
        assert kept["b"].short == "passed, < 0.03 sd (x 1.0)"

    def test_a_damaged_file_is_named(self, tmp_path):
        path = tmp_path / "certificates.json"
        path.write_text('{"a": {"engine": ')
        with pytest.raises(PPCoreError, match=re.escape(str(path))):
            certificate.read(path)

    def test_a_change_of_code_shows(self):
        held = _certificate("a")
        assert certificate.status(held, "ppcore.contract").endswith("code changed since")
        same = replace(held, code=certificate.code_hash("ppcore.contract"))
        assert certificate.status(same, "ppcore.contract") == same.short

    def test_issued_by_name_and_listed(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv(certificate.FOLDER_VARIABLE, str(tmp_path))
        report = run_suite(SMALL, replace(QUICK, only=("settings",)))
        made = issue("nuts", report, QUICK)
        assert made.engine == "nuts" and made.code == certificate.code_hash("ppcore_mcmc.nuts")
        monkeypatch.setattr(certificate, "shipped", lambda specs: {})
        assert main(["engines"]) == 0
        listed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
        assert "passed" in listed["nuts"] and "never checked" in listed["ensemble"]


class TestCommand:
    def test_an_animal_can_be_checked_by_name(self, capsys):
        assert main(["check", "affine_map"]) == 0
        assert "passed 3 tests of transport" in capsys.readouterr().out
        assert main(["check", "log_det_forgotten", "--only", "transport"]) == 1
        assert "reproduce: ppcore check log_det_forgotten" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["check"], "Name an engine"),
            (["check", "nuts", "--zoo"], "Name an engine"),
            (["check", "nust"], "Did you mean 'nuts'"),
            (["check", "affine_map", "--only", "transprt"], "Did you mean 'transport'"),
            (["check", "affine_map", "--model", "funel"], "Did you mean 'funnel'"),
            (["check", "affine_map", "--replicates", "0"], "at least 1"),
            (["check", "nuts", "--set", "max_depth"], "KEY=VALUE"),
            (["check", "nuts", "--expect", "frozn=a counter"], "Did you mean 'frozen'"),
            (["check", "nuts", "--expect", "frozen"], "CHECK=REASON"),
            (["check", "nuts", "--ship", "--only", "frozen"], "--ship checks engines as they are"),
        ],
    )
    def test_mistakes(self, arguments, says, capsys):
        assert main(arguments) == 2
        assert says in capsys.readouterr().err


def test_every_animal_is_described():
    for animal in animals().values():
        assert animal.note
        assert animal.control or animal.killers or not animal.detectable
        assert animal.detectable or animal.why_not


def _certificate(name):
    return Certificate(
        engine=name,
        version="x 1.0",
        code="0" * 12,
        passed=True,
        resolution=0.03,
        budget=1e-3,
        seed=1,
        tests=9,
        contract="invariant",
        verdict="passed",
        date="2026-01-01",
    )


@pytest.mark.parametrize(
    "module",
    ["cli.check", "testing.certificate", "testing.parametrize", "testing.suite", "testing.zoo"],
)
def test_examples_in_docstrings_run(module):
    found = doctest.testmod(importlib.import_module(f"ppcore.{module}"))
    assert found.failed == 0 and found.attempted > 0
