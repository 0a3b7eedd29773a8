"""What a user sees while an engine works: a live table, plain lines, or HTML in a notebook."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

import numpy as np

from ppcore.engine import Progress, Report
from ppcore.errors import SettingsError, did_you_mean

MODES = ("auto", "rich", "plain", "notebook", "off")
FEW_CHAINS = 8
_SUMMED = ("divergences",)
_BAR = 16


class Renderer(Protocol):
    """Shows reports; ``interval`` seconds pass between two of them."""

    interval: float

    def update(self, progress: Progress, seconds: float) -> None: ...

    def close(self) -> None: ...


@contextmanager
def show(progress: bool | str | Report | None, chains: int) -> Iterator[Report]:
    """Where an engine's reports go, as a callable; what is shown is closed at the end.

    Parameters
    ----------
    progress : None, bool, str or callable
        ``"rich"``: a live table in a terminal, one line for each of up to eight chains, one for
        all of more. ``"plain"``: a line every few seconds. ``"notebook"``: HTML in the cell's
        output. ``"off"`` or False: nothing. None, True or ``"auto"``: what suits the place. A
        callable is handed every :class:`ppcore.engine.Progress`.

    Raises
    ------
    SettingsError
        For another value.
    """
    if callable(progress) and not isinstance(progress, (bool, str)):
        yield progress
        return
    renderer = _renderer(progress, chains)
    if renderer is None:
        yield _ignore
        return
    throttle = Throttle(renderer)
    try:
        yield throttle
    finally:
        throttle.close()


class Throttle:
    """Hands a renderer as many reports as it can show; a closed terminal ends the showing only."""

    def __init__(self, renderer: Renderer, clock: Callable[[], float] = time.perf_counter) -> None:
        self.renderer, self.clock = renderer, clock
        self.began = self.shown = clock()
        self.last: Progress | None = None
        self.failed = False

    def __call__(self, progress: Progress) -> None:
        now = self.clock()
        self.last = progress
        if now - self.shown >= self.renderer.interval:
            self.shown, self.last = now, None
            self._guarded(lambda: self.renderer.update(progress, now - self.began))

    def close(self) -> None:
        """Show the last report, if it was held back, and end."""
        last, seconds = self.last, self.clock() - self.began
        if last is not None:
            self._guarded(lambda: self.renderer.update(last, seconds))
        self._guarded(self.renderer.close)

    def _guarded(self, act: Callable[[], None]) -> None:
        if self.failed:
            return
        try:
            act()
        except (OSError, ValueError, UnicodeError):
            self.failed = True


@dataclass(frozen=True)
class Row:
    """One line of a table: whose it is, how far it is, and values as text by their titles."""

    who: str
    done: int
    total: int
    values: dict[str, str]

    @property
    def bar(self) -> str:
        filled = _BAR * self.done // max(self.total, 1)
        return "━" * filled + "─" * (_BAR - filled)


def rows(progress: Progress, chains: int) -> list[Row]:
    """One row for each of a few chains, or one for all of many.

    >>> report = Progress("sampling", 5, 10, {"divergences": np.array([0, 2]), "step_size": 0.25})
    >>> [row.values for row in rows(report, 2)]
    [{'divergences': '0', 'step size': '0.25'}, {'divergences': '2', 'step size': '0.25'}]
    """
    fields = {name.replace("_", " "): np.asarray(v) for name, v in progress.fields.items()}
    fields = {name: v for name, v in fields.items() if v.ndim <= 1 and v.dtype.kind in "biufSU"}
    if chains > FEW_CHAINS:
        pooled = {name: _text(_pool(name, v)) for name, v in fields.items()}
        return [Row(f"{chains} chains", progress.done, progress.total, pooled)]
    if progress.unit != "draws":
        pooled = {name: _text(_pool(name, v)) for name, v in fields.items()}
        return [Row("", progress.done, progress.total, pooled)]
    made = []
    for chain in range(chains):
        own = {
            name: _text(v[chain] if v.shape == (chains,) else _pool(name, v))
            for name, v in fields.items()
        }
        made.append(Row(f"chain {chain}", progress.done, progress.total, own))
    return made


def line(progress: Progress, chains: int, seconds: float) -> str:
    """A report as one line of text.

    >>> line(Progress("sampling", 5, 10, {"divergences": np.array([0, 2])}), 2, 1.23)
    'sampling: 5/10 draws of 2 chains, divergences 2, 1.2 s'
    """
    values = [
        f"{name.replace('_', ' ')} {_text(_pool(name, np.asarray(v)))}"
        for name, v in progress.fields.items()
        if np.asarray(v).dtype.kind in "biufSU"
    ]
    of = f" of {chains} chains" if progress.unit == "draws" else ""
    what = f"{progress.phase}: {progress.done}/{progress.total} {progress.unit}{of}"
    return ", ".join([what, *values, f"{seconds:.1f} s"])


class Plain:
    """Lines on a stream, at most one every ``interval`` seconds."""

    def __init__(self, chains: int, stream: TextIO | None = None, interval: float = 5.0) -> None:
        self.chains, self.interval = chains, interval
        self.stream = sys.stderr if stream is None else stream

    def update(self, progress: Progress, seconds: float) -> None:
        print(line(progress, self.chains, seconds), file=self.stream, flush=True)

    def close(self) -> None:
        pass


class Rich:
    """A table that is redrawn in place."""

    interval = 0.1

    def __init__(self, chains: int, console: Any = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self.chains = chains
        self.live = Live(console=console or Console(stderr=True), auto_refresh=False)
        self.live.start()

    def update(self, progress: Progress, seconds: float) -> None:
        from rich.table import Table

        made = rows(progress, self.chains)
        titles = list(made[0].values)
        table = Table(box=None, pad_edge=False)
        for title in (f"{progress.phase} {seconds:.1f} s", "", progress.unit):
            table.add_column(title, no_wrap=True)
        for title in titles:
            table.add_column(title, justify="right", no_wrap=True)
        for row in made:
            cells = [row.values[title] for title in titles]
            table.add_row(row.who, row.bar, f"{row.done}/{row.total}", *cells)
        self.live.update(table, refresh=True)

    def close(self) -> None:
        self.live.stop()


class Notebook:
    """The same table as HTML, in a cell's output that is updated."""

    interval = 0.2

    def __init__(self, chains: int, display: Callable[..., Any] | None = None) -> None:
        if display is None:
            from IPython import display as ipython

            display = ipython.display
        self.chains, self.display = chains, display
        self.handle: Any = None

    def update(self, progress: Progress, seconds: float) -> None:
        page = _Page(as_html(progress, self.chains, seconds))
        if self.handle is None:
            # Without a display (IPython outside a notebook) there is no handle to update.
            self.handle = self.display(page, display_id=True) or _NoHandle()
        else:
            self.handle.update(page)

    def close(self) -> None:
        pass


class _NoHandle:
    def update(self, page: Any) -> None:
        pass


@dataclass(frozen=True)
class _Page:
    text: str

    def _repr_html_(self) -> str:
        return self.text


def as_html(progress: Progress, chains: int, seconds: float) -> str:
    """A report as an HTML table."""
    made = rows(progress, chains)
    titles = [f"{progress.phase} {seconds:.1f} s", "", progress.unit, *made[0].values]
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    body = ""
    for row in made:
        bar = f'<progress value="{row.done}" max="{row.total}"></progress>'
        cells = [html.escape(row.who), bar, f"{row.done}/{row.total}"]
        cells += [html.escape(value) for value in row.values.values()]
        body += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _renderer(progress: bool | str | Report | None, chains: int) -> Renderer | None:
    if progress is None or progress is True:
        progress = "auto"
    elif progress is False:
        progress = "off"
    if not isinstance(progress, str) or progress not in MODES:
        hint = did_you_mean(str(progress), MODES)
        raise SettingsError(f"progress={progress!r} is not known. {hint}")
    if progress == "auto":
        progress = _suitable()
    if progress == "off":
        return None
    made: dict[str, Callable[[int], Renderer]] = {"rich": Rich, "plain": Plain}
    return made.get(progress, Notebook)(chains)


def _suitable() -> str:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None and type(shell).__name__ == "ZMQInteractiveShell":
        return "notebook"
    return "rich" if sys.stderr is not None and sys.stderr.isatty() else "plain"


def _ignore(progress: Progress) -> None:
    pass


def _pool(name: str, values: np.ndarray) -> Any:
    if values.ndim == 0 or values.dtype.kind in "SU":
        return values if values.ndim == 0 else values.ravel()[0]
    return values.sum() if name in _SUMMED else values.mean()


def _text(value: Any) -> str:
    value = np.asarray(value).item()
    return f"{value:.3g}" if isinstance(value, float) else str(value)
