"""``ppcore demo``: two hierarchical models on real data, with a check of what they predict."""

from __future__ import annotations

import argparse
import inspect
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppcore.cli.summary import table
from ppcore.errors import PluginError

SPLIT = 1950


@dataclass(frozen=True)
class Panel:
    """Firms' investment by year: codes and logarithms, centred on the years that are fitted."""

    firms: tuple[str, ...]
    firm: np.ndarray
    log_value: np.ndarray
    log_capital: np.ndarray
    log_invest: np.ndarray

    def arguments(self) -> dict[str, Any]:
        """What the model ``investment`` takes."""
        return {
            "firm": self.firm,
            "firms": len(self.firms),
            "log_value": self.log_value,
            "log_capital": self.log_capital,
        }

    def design(self) -> np.ndarray:
        """float[n, 3]: one, log value, log capital."""
        return np.column_stack([np.ones(len(self.firm)), self.log_value, self.log_capital])


def run(arguments: argparse.Namespace) -> int:
    """Fit both models, print their tables and checks, and save the fits."""
    from ppcore.cli import demo_models as models

    out = Path(arguments.out)
    engine = [arguments.engine] if arguments.engine else []
    print("\nEIGHT SCHOOLS: effects of coaching, each reported with its own error (Rubin 1981).\n")
    posterior = models.eight_schools(models.ERRORS).observe(effect=models.EFFECTS)
    fit = _fit(posterior, models.eight_schools, engine, arguments)
    inside = _inside(_all(fit.predict("effect", seed=arguments.seed)), models.EFFECTS)
    print(f"Predictive check: {inside.sum()} of 8 observed effects lie in their 90% intervals.")
    _save(fit, out / "eight_schools.zarr")

    fitted, held_out = _panel()
    print(
        "\nINVESTMENT of 11 firms, 1935-1954 (Grunfeld 1958): each firm has a level and\n"
        "a response to its capital of its own, drawn from distributions that all firms share.\n"
        "Fitted to the years to 1950; those after are held out and predicted.\n"
    )
    posterior = models.investment(**fitted.arguments()).observe(log_invest=fitted.log_invest)
    fit = _fit(posterior, models.investment, engine, arguments)
    future = models.investment(**held_out.arguments())
    forecast = _all(fit.predict("log_invest", seed=arguments.seed, model=future))
    _compare(fitted, held_out, forecast)
    _save(fit, out / "investment.zarr")
    return 0


def _fit(posterior: Any, declared: Any, engine: list[str], arguments: argparse.Namespace) -> Any:
    print(inspect.getsource(declared.fn))
    start = time.perf_counter()
    fit = posterior.infer(*engine, seed=arguments.seed)
    print(f"\n{time.perf_counter() - start:.1f} s, compilation included\n")
    print(table(fit))
    print()
    return fit


def _compare(fitted: Panel, held_out: Panel, forecast: np.ndarray) -> None:
    """Errors of the forecast beside those of one line for all firms, and of one line a firm."""
    together = held_out.design() @ _least_squares(fitted)
    apart = np.empty_like(together)
    for firm in range(len(held_out.firms)):
        mine = held_out.firm == firm
        apart[mine] = held_out.design()[mine] @ _least_squares(fitted, fitted.firm == firm)
    print("Predictive check: root mean square error of log investment in the years held out")
    for name, predicted in (
        ("one line for all firms (least squares)", together),
        ("a line for each firm (least squares)", apart),
        ("partial pooling (this fit)", forecast.mean(0)),
    ):
        error = np.sqrt(np.mean((held_out.log_invest - predicted) ** 2))
        print(f"  {name:40} {error:.3f}")
    inside = _inside(forecast, held_out.log_invest)
    print(f"  {inside.sum()} of {inside.size} lie in their 90% predictive intervals.")


def _least_squares(panel: Panel, rows: Any = slice(None)) -> np.ndarray:
    return np.linalg.lstsq(panel.design()[rows], panel.log_invest[rows], rcond=None)[0]


def _inside(replicated: np.ndarray, observed: np.ndarray) -> np.ndarray:
    low, high = np.quantile(replicated, [0.05, 0.95], axis=0)
    return (low <= observed) & (observed <= high)


def _all(predicted: Any) -> np.ndarray:
    """array[chain, draw, n] -> array[chain · draw, n]."""
    values = np.asarray(predicted)
    return values.reshape(-1, values.shape[-1])


def _save(fit: Any, path: Path) -> None:
    fit.save(path, overwrite=True)
    print(f"Saved in {path}: `ppcore summary {path}`, or ppcore.load({str(path)!r}) in Python.")


def _panel() -> tuple[Panel, Panel]:
    """The years to fit and the years to predict."""
    try:
        from statsmodels.datasets import grunfeld
    except ImportError as error:
        raise PluginError(
            "The firms' data ship in statsmodels, which is not installed: "
            'pip install "ppcore[test]" (or pip install statsmodels)'
        ) from error
    table = grunfeld.load_pandas().data
    names, code = np.unique(table["firm"].to_numpy(str), return_inverse=True)
    early = table["year"].to_numpy() <= SPLIT
    logs = {c: np.log(table[c].to_numpy(float)) for c in ("invest", "value", "capital")}
    value, capital = (logs[c] - logs[c][early].mean() for c in ("value", "capital"))

    def part(rows: np.ndarray) -> Panel:
        return Panel(tuple(names), code[rows], value[rows], capital[rows], logs["invest"][rows])

    return part(early), part(~early)
