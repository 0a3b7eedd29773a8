"""Write the pictures of docs/thinking.md: each operation on a model, before and after.

Run ``python docs/build_thinking.py``; the pictures are made by the operations themselves, so they
show what the code does. Equal code gives equal files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

import ppcore as pp
from ppcore import dist
from ppcore.diagram import Diagram
from ppcore.diagram.draw import draw_svg
from ppcore.semantics.tensor import stochastic

IMAGES = Path(__file__).parent / "img"
OMEGA = np.array([0.2, 0.02, 0.05, 0.1, 0.02, 0.01, 0.1, 0.5]).reshape(2, 2, 2)
HIDDEN = nx.DiGraph([("h", "smoking"), ("h", "cancer"), ("smoking", "tar"), ("tar", "cancer")])


@pp.model
def sprinkler() -> None:
    """The garden: rain makes the sprinkler unlikely, and either wets the grass."""
    rain = pp.sample("rain", dist.Bernoulli(0.2))
    on = pp.sample("on", dist.Bernoulli(np.where(rain, 0.01, 0.4)))
    pp.sample("wet", dist.Bernoulli(0.1 + 0.8 * np.maximum(rain, on)))


@pp.model
def smokers() -> None:
    """Smoking, tar and cancer as observed: one factorisation of the joint."""
    pair = OMEGA.sum(2)
    smoking = pp.sample("smoking", dist.Bernoulli(pair[1].sum()))
    p_tar = pp.math.get_at(pair[:, 1] / pair.sum(1), smoking)
    tar = pp.sample("tar", dist.Bernoulli(p_tar))
    p_cancer = pp.math.get_at(OMEGA[:, :, 1] / pair, (smoking, tar))
    pp.sample("cancer", dist.Bernoulli(p_cancer))


@pp.model
def dose() -> None:
    """A functional model: the response is a function of the dose and of its own noise."""
    severity = pp.sample("severity", dist.Normal(0, 1))
    given = pp.sample("given", dist.Normal(severity, 0.5))
    pp.sample("response", dist.Normal(2 * given - severity, 1))


@pp.model
def weather(steps: int) -> None:
    """A hidden Markov model, kept as one box."""
    stay = np.array([[0.9, 0.1], [0.3, 0.7]])

    def step(state: Any, _: Any) -> tuple[Any, None]:
        state = pp.sample("state", dist.Categorical(pp.math.get_at(stay, state)))
        pp.sample("seen", dist.Normal(2.0 * state, 1.0))
        return state, None

    pp.scan(step, np.array(0), None, steps)


def pictures() -> dict[str, str]:
    """{file name: SVG}."""
    garden, patients = sprinkler(), smokers()
    coin = stochastic(np.array([0.3, 0.7]), (), (2,), name="coin")
    flip = stochastic(np.array([[0.9, 0.1], [0.2, 0.8]]), (2,), (2,), name="flip")
    (bit,) = coin.cod
    return {
        "compose": draw_svg(coin >> Diagram.copy(bit) >> (flip @ Diagram.id((bit,)))),
        "model": garden.draw(),
        "observe": garden.observe(wet=1).draw(),
        "marginal": garden.marginal(keep=["rain", "on"]).draw(),
        "disintegrate-forward": garden.disintegrate(given="rain").draw(),
        "disintegrate-finite": garden.disintegrate(given="wet", keep="rain").draw(),
        "do": garden.do(on=1).draw(),
        "do-kernel": garden.do(on=dist.Bernoulli(0.5)).draw(),
        "smokers": patients.draw(),
        "front-door": patients.front_door("smoking", "tar", "cancer", graph=HIDDEN).draw(),
        "dose": dose().draw(),
        "twin": dose()
        .twin(observe={"severity": 0.0, "given": 1.0, "response": 1.0}, do={"given": 2.0})
        .draw(),
        "scan": weather(100).draw(),
    }


def main() -> None:
    """Write all pictures."""
    IMAGES.mkdir(exist_ok=True)
    for name, svg in pictures().items():
        (IMAGES / f"{name}.svg").write_text(svg)


if __name__ == "__main__":
    main()
