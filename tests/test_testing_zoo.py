"""The zoo rerun: every verdict is the one that the published kill matrix states."""

import re
from pathlib import Path

import pytest

from ppcore.run import cache
from ppcore.testing.zoo import animals
from ppcore.testing.zoo import matrix as kill
from ppcore.testing.zoo.write import markdown, page, write

DOCS = Path(__file__).parent.parent / "docs"


def published():
    """{animal: verdict} from the table in docs/."""
    rows = re.findall(
        r"^\| `(\w+)` \|.*\| ([\w ]+) \|$", (DOCS / "kill_matrix.md").read_text(), re.MULTILINE
    )
    return dict(rows)


@pytest.fixture(scope="module")
def found():
    """Every animal, mutants on their declared killers, controls on every check that applies."""
    return kill.run_zoo(prepare=cache.enable, thorough=False)


def test_the_zoo_is_large_enough():
    cage = animals().values()
    mutants = [a for a in cage if not a.control]
    assert len(mutants) >= 30 and sum(a.detectable for a in mutants) >= 28
    assert sum(a.control for a in cage) >= 12


@pytest.mark.slow
def test_every_verdict_is_the_published_one(found):
    assert kill.verdicts(found) == published()


@pytest.mark.slow
def test_every_detectable_mutant_dies_and_no_control_does(found):
    n = kill.summary(found)
    assert n["killed"] == n["detectable"] and n["false alarms"] == 0


def test_the_published_counts_are_those_of_the_table():
    said = published()
    cage = animals()
    assert set(said) == set(cage)
    assert {said[n] for n, a in cage.items() if a.control} == {"clean"}
    assert {said[n] for n, a in cage.items() if a.detectable and not a.control} == {"killed"}
    text = (DOCS / "kill_matrix.md").read_text()
    mutants = sum(a.detectable and not a.control for a in cage.values())
    assert f"{mutants} of {mutants} mutants declared detectable are rejected; 0 of" in text


def test_a_matrix_is_written_from_what_was_found(tmp_path):
    some = ("log_det_forgotten", "affine_map", "tiny_tilt")
    plan = kill.zoo_plan()
    seen = {name: kill.Sighting(name, (), 0.0) for name in some}
    seen |= kill.run_zoo(some[:2], plan, processes=1)
    paths = write(seen, tmp_path)
    assert [p.name for p in paths] == ["kill_matrix.md", "kill_matrix.html"]
    text, html = markdown(seen), page(seen)
    assert "1 of 1 mutants declared detectable are rejected; 0 of 1 controls are" in text
    assert re.search(r"`log_det_forgotten` .* ✗ \| killed", text)
    assert "needs about 1e9 joint draws" in text and "off by" in html
    assert html.count("<tr>") == html.count("</tr>") == 3 + 3


def test_an_unkilled_mutant_or_a_false_alarm_is_called_so():
    seen = {n: kill.Sighting(n, (), 0.0) for n in ("log_det_forgotten", "affine_map")}
    assert kill.verdicts(seen) == {"log_det_forgotten": "missed", "affine_map": "clean"}
