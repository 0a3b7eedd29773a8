"""Check models as declared models, for engines that solve diagrams; their answers are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcore import dist
from ppcore.model_target import ModelTarget
from ppcore.recording.record import record
from ppcore.recording.recorder import Recorder, recording
from ppcore.recording.scan import scan
from ppcore.recording.sites import plate, sample
from ppcore.rewrite.discrete import marginalise_discrete
from ppcore.testing.models.formulas import DESIGN, OBS_SD, PHI, REGRESSION_SD, STATE_SD

HALF = dist.Normal(0.0, 0.5)
TIMES = np.linspace(-1.0, 1.0, 9)


@dataclass(frozen=True)
class Declared:
    """A model of the pool, declared.

    Attributes
    ----------
    declare : callable
        The model function, without arguments.
    evidence : callable
        The pool's y, float[3, 3], as ``{site: array}``.
    x : callable
        Draws ``{site: array[n, ...]}`` in the pool's coordinates, float[n, 3].
    """

    declare: Callable[[], None]
    evidence: Callable[[Any], dict[str, Any]]
    x: Callable[[Mapping[str, Any]], Any]


def declared_target(declare: Callable[[], None], evidence: Mapping[str, Any]) -> ModelTarget:
    """The target of a model function given its evidence."""
    recorder = Recorder()
    with recording(recorder):
        declare()
    names = tuple(name for name, _ in recorder.sites)
    diagram = recorder.freeze([ref for _, ref in recorder.sites], names)
    observed = tuple(n for n in diagram.named("sample") if n in evidence)
    joint, data = marginalise_discrete(diagram, tuple(recorder.data), observed)
    return ModelTarget(joint, observed, data, tuple(np.asarray(evidence[n]) for n in observed))


def _normal() -> None:
    with plate("group", 3, axis=-2):
        theta = sample("theta", dist.Normal(0.0, 1.0))
        with plate("datum", 3):
            sample("y", dist.Normal(theta, 1.0))


def _regression() -> None:
    with plate("coefficient", 3):
        beta = sample("theta", dist.Normal(0.0, 1.0))
    with plate("datum", 9):
        sample("y", dist.Normal(DESIGN @ beta, REGRESSION_SD))


def _state_space() -> None:
    a = sample("a", dist.Normal(0.0, 1.0))
    b = sample("b", dist.Normal(PHI * a, STATE_SD))
    c = sample("c", dist.Normal(PHI * b, STATE_SD))
    with plate("datum", 3):
        for name, state in (("a", a), ("b", b), ("c", c)):
            sample(f"y_{name}", dist.Normal(state, OBS_SD))


def _gamma_scale() -> None:
    with plate("group", 3, axis=-2):
        rate = sample("theta", dist.Gamma(2.0, 1.0))
        with plate("datum", 3):
            sample("y", dist.Gamma(2.0, rate))


def _beta_binomial() -> None:
    with plate("group", 3, axis=-2):
        p = sample("theta", dist.Beta(2.0, 2.0))
        with plate("datum", 3):
            sample("y", dist.Binomial(5, p))


def _simplex() -> None:
    p = sample("theta", dist.Dirichlet(np.full(4, 2.0)))
    with plate("datum", 9):
        sample("y", dist.Categorical(p))


def _bounded() -> None:
    with plate("group", 3, axis=-2):
        theta = sample("theta", dist.Uniform(0.0, 1.0))
        with plate("datum", 3):
            sample("y", dist.Normal(4.0 * theta - 2.0, 1.0))


def _robust() -> None:
    level, log_scale = sample("level", dist.Normal(0.0, 1.0)), sample("log_scale", HALF)
    slope = sample("slope", dist.Normal(0.0, 1.0))
    with plate("datum", 9):
        sample("y", dist.StudentT(3.0, level + slope * TIMES, np.exp(log_scale)))


def _flat(draws: Mapping[str, Any]) -> Any:
    theta = np.asarray(draws["theta"])
    return theta.reshape(len(theta), -1)


def _log(draws: Mapping[str, Any]) -> Any:
    return np.log(_flat(draws))


def _logit(draws: Mapping[str, Any]) -> Any:
    p = _flat(draws)
    return np.log(p) - np.log1p(-p)


def _log_ratios(draws: Mapping[str, Any]) -> Any:
    log_p = np.log(_flat(draws))
    return log_p[:, :3] - log_p[:, 3:]


def _coefficients(draws: Mapping[str, Any]) -> Any:
    return np.stack([np.asarray(draws[n]) for n in ("level", "log_scale", "slope")], axis=1)


def _states(draws: Mapping[str, Any]) -> Any:
    return np.stack([np.asarray(draws[name]) for name in "abc"], axis=1)


DECLARED: dict[str, Declared] = {
    "normal": Declared(_normal, lambda y: {"y": y}, _flat),
    "regression": Declared(_regression, lambda y: {"y": y.ravel()}, _flat),
    "state_space": Declared(
        _state_space, lambda y: {f"y_{n}": row for n, row in zip("abc", y, strict=True)}, _states
    ),
    "gamma_scale": Declared(_gamma_scale, lambda y: {"y": y}, _log),
    "beta_binomial": Declared(_beta_binomial, lambda y: {"y": y.astype(int)}, _logit),
    "simplex": Declared(_simplex, lambda y: {"y": y.ravel().astype(int)}, _log_ratios),
    "bounded": Declared(_bounded, lambda y: {"y": y}, _logit),
    "robust": Declared(_robust, lambda y: {"y": y.ravel()}, _coefficients),
}


def _hidden_chain() -> None:
    move = np.array([[0.8, 0.2], [0.3, 0.7]])
    emit = np.array([[0.9, 0.2, 0.6], [0.3, 0.8, 0.5]])
    z = sample("z0", dist.Categorical(np.array([0.5, 0.5])))
    sample("y0", dist.Bernoulli(_at(emit[:, 0], z)))
    for t in (1, 2):
        z = sample(f"z{t}", dist.Categorical(_at(move, z)))
        sample(f"y{t}", dist.Bernoulli(_at(emit[:, t], z)))


def _at(table: Any, row: Any) -> Any:
    return record("getitem", (table, row), {})


def hidden_chain_target() -> ModelTarget:
    """The declared counterpart of the finite model ``finite_hidden_chain``; sites z0, z1, z2."""
    return declared_target(_hidden_chain, {f"y{t}": 1 for t in range(3)})


def series_target(y: Any) -> ModelTarget:
    """The pool's ``state_space`` given y, float[3, 3], as one scan; its evidence is the same."""

    def declare() -> None:
        def step(state: Any, _: Any) -> tuple[Any, None]:
            with plate("datum", 3):
                sample("y", dist.Normal(state, OBS_SD))
            return sample("state", dist.Normal(PHI * state, STATE_SD)), None

        scan(step, sample("start", dist.Normal(0.0, 1.0)), length=3)

    return declared_target(declare, {"y": y})
