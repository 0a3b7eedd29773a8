"""What is shown while an engine works, in a terminal, a log, a notebook, or nowhere."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from ppcore.engine import Progress
from ppcore.errors import SettingsError
from ppcore.run import progress as module
from ppcore.run.progress import Notebook, Plain, Rich, Throttle, as_html, line, rows, show

REPORT = Progress(
    "sampling",
    30,
    40,
    {"divergences": np.array([0, 2]), "step_size": jnp.array([0.5, 0.25]), "acceptance": 0.8123},
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Seen:
    """A renderer that keeps what it is handed."""

    interval = 1.0

    def __init__(self) -> None:
        self.reports: list[Progress] = []
        self.closed = 0

    def update(self, progress: Progress, seconds: float) -> None:
        self.reports.append(progress)

    def close(self) -> None:
        self.closed += 1


def report(done: int) -> Progress:
    return Progress("sampling", done, 100)


def test_a_few_chains_have_a_line_each_and_many_share_one() -> None:
    first, second = rows(REPORT, 2)
    assert first.values == {"divergences": "0", "step size": "0.5", "acceptance": "0.812"}
    assert second.values == {"divergences": "2", "step size": "0.25", "acceptance": "0.812"}
    many = Progress("sampling", 3, 4, {"divergences": np.ones(64, int), "step_size": np.ones(64)})
    (pooled,) = rows(many, 64)
    assert pooled.who == "64 chains"
    assert pooled.values == {"divergences": "64", "step size": "1"}


def test_fields_that_cannot_be_shown_are_left_out() -> None:
    odd = Progress("warmup", 0, 0, {"metric": np.eye(3), "fn": len, "stage": "metric"})
    assert rows(odd, 1)[0].values == {"stage": "metric"}
    assert "metric" in line(odd, 1, 0.0)


def test_reports_are_rate_limited_and_the_last_is_shown() -> None:
    clock, seen = Clock(), Seen()
    throttle = Throttle(seen, clock)
    for done in range(1, 41):
        clock.now += 0.1
        throttle(report(done))
    throttle.close()
    assert len(seen.reports) <= 5
    assert seen.reports[-1].done == 40
    assert seen.closed == 1


def test_a_quick_run_shows_its_end_once() -> None:
    seen = Seen()
    throttle = Throttle(seen, Clock())
    throttle(report(50))
    throttle(report(100))
    throttle.close()
    assert [shown.done for shown in seen.reports] == [100]


def test_a_closed_terminal_ends_the_showing_only() -> None:
    tries = []

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            tries.append(text)
            raise ValueError("I/O operation on closed file")

    throttle = Throttle(Plain(2, Closed(), interval=0.0))
    throttle(report(1))
    throttle(report(2))
    throttle.close()
    assert len(tries) == 1, "nothing is written to a terminal that has gone"


def test_plain_lines() -> None:
    stream = io.StringIO()
    throttle = Throttle(Plain(2, stream, interval=0.0))
    throttle(REPORT)
    throttle.close()
    expected = "sampling: 30/40 draws of 2 chains, divergences 2, step size 0.375, acceptance 0.812"
    assert stream.getvalue().startswith(expected)
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("chains", [2, 64])
def test_the_table_in_a_terminal(chains: int) -> None:
    stream = io.StringIO()
    renderer = Rich(chains, Console(file=stream, force_terminal=True, width=80))
    fields = {"divergences": np.zeros(chains, int), "step_size": 0.25, "acceptance": 0.8}
    renderer.update(Progress("sampling", 1000, 1000, fields), 12.3)
    renderer.close()
    text = stream.getvalue()
    assert "…" not in text, "the table does not fit 80 columns"
    for part in ("1000/1000", "divergences", "step size", "0.25"):
        assert part in text
    named = {row.split("━")[0].strip() for row in text.splitlines() if "━" in row}
    assert named == ({"chain 0", "chain 1"} if chains == 2 else {"64 chains"})


def test_a_notebook_updates_one_output() -> None:
    shown: list[str] = []
    updates: list[str] = []

    class Handle:
        def update(self, page: Any) -> None:
            updates.append(page._repr_html_())

    def display(page: Any, *, display_id: bool) -> Handle:
        assert display_id
        shown.append(page._repr_html_())
        return Handle()

    renderer = Notebook(2, display)
    renderer.update(report(1), 0.1)
    renderer.update(REPORT, 0.2)
    renderer.close()
    assert len(shown) == 1 and len(updates) == 1
    assert '<progress value="30" max="40">' in updates[0]


def test_html_is_escaped() -> None:
    page = as_html(Progress("warmup", 0, 1, {"<b>": "<script>"}), 1, 0.0)
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_where_progress_goes(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Progress] = []
    with show(seen.append, 2) as shown:
        shown(REPORT)
    assert seen == [REPORT]
    for quiet in (False, "off"):
        with show(quiet, 2) as shown:
            shown(REPORT)
    assert capsys.readouterr().err == ""
    for plain in (None, True, "auto", "plain"):
        with show(plain, 2) as shown:
            shown(REPORT)
        assert capsys.readouterr().err.count("30/40") == 1


def test_an_unknown_way_of_showing_is_refused() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'plain'"):
        with show("plane", 1):
            pass
    with pytest.raises(SettingsError, match="progress=3"):
        with show(3, 1):  # type: ignore[arg-type]
            pass


def test_a_terminal_gets_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert module._suitable() == "rich"


def test_rich_is_imported_only_when_it_shows() -> None:
    script = (
        "import sys; from ppcore.run.progress import show, Progress\n"
        "with show('plain', 1) as s: s(Progress('sampling', 1, 1))\n"
        "assert 'rich' not in sys.modules and 'IPython' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, env=_environment())


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
