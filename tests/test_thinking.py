"""The page on how ppcore thinks: its examples run, and its pictures are what the code draws."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from docs.build_thinking import IMAGES, pictures

PAGE = Path(__file__).parent.parent / "docs" / "thinking.md"


def test_the_examples_of_the_page_run() -> None:
    text = PAGE.read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.S))
    test = doctest.DocTestParser().get_doctest(code, {}, PAGE.name, str(PAGE), 0)
    runner = doctest.DocTestRunner()
    report: list[str] = []
    runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)
    assert runner.tries > 30


def test_the_pictures_are_current() -> None:
    drawn = pictures()
    for name, svg in drawn.items():
        assert (IMAGES / f"{name}.svg").read_text() == svg, "run python docs/build_thinking.py"
    shown = set(re.findall(r"img/([\w-]+)\.svg", PAGE.read_text()))
    assert shown == set(drawn) == {p.stem for p in IMAGES.glob("*.svg")}
