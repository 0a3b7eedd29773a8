"""What a model gets that asks of random values what they cannot do, or breaks its structure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special

import ppcore as pp
from ppcore import dist
from ppcore.errors import ModelError, ShapeError, UnsupportedError

HERE = __name__.rsplit(".", 1)[-1] + ".py"


def declare(fn: Callable[..., Any], *args: Any) -> pp.Model:
    return pp.model(fn)(*args)


def python_if(x, v):
    if x > 0:
        v = -v
    return v


def in_place(x, v):
    v[0] = x


def add_in_place(x, v):
    total = np.zeros(3)
    total += v


WRONG_USES = {
    "if": (python_if, "cannot decide an `if`.*np.where"),
    "and": (lambda x, v: x > 0 and x < 1, "np.logical_and"),
    "max": (lambda x, v: max(v), "np.maximum"),
    "float": (lambda x, v: float(x), "cannot become a Python number"),
    "range": (lambda x, v: range(x), "cannot index data or count"),
    "math.exp": (lambda x, v: math.exp(x), "np.exp, not math.exp"),
    "item": (lambda x, v: x.item(), "cannot become a Python number"),
    "in place": (in_place, "cannot be changed in place.*x = pp.math.set_at"),
    "out": (add_in_place, "a = a \\+ x"),
    "np.asarray": (lambda x, v: np.asarray(v), "cannot become a NumPy array.*pp.lift"),
    "np.array": (lambda x, v: np.array([x, x]), r"np.stack\(\[a, b\]\)"),
    "scipy": (lambda x, v: scipy.special.logsumexp(v), "ppcore.math .softmax, logsumexp"),
    "index of data": (lambda x, v: np.arange(3)[x], "pp.math.get_at"),
    "mask": (lambda x, v: v[v > 0], "boolean mask.*np.where"),
}


@pytest.mark.parametrize("case", WRONG_USES)
def test_random_values_are_no_numbers(case: str) -> None:
    use, message = WRONG_USES[case]

    def wrong():
        x = pp.sample("x", dist.Normal(0, 1))
        use(x, pp.sample("v", dist.Normal(np.zeros(3), 1)))

    with pytest.raises(ModelError, match=rf"^{HERE}:\d+: a random value .*{message}"):
        declare(wrong)


WRONG_SHAPES = {
    "add": (lambda v: v + np.zeros(4), r"numpy.add\(float64\[3\], float64\[4\]\)"),
    "matmul": (lambda v: np.zeros((2, 2)) @ v, r"numpy.matmul\(float64\[2,2\], float64\[3\]\)"),
    "position": (lambda v: v[3], "index 3 is out of bounds for axis 0 with size 3"),
    "positions": (lambda v: v[np.array([0, 7])], "index 7 is out of bounds"),
    "take": (lambda v: np.take(v, [0, 7]), "index 7 is out of bounds"),
    "axes": (lambda v: v[0, 0], "too many indices"),
}


@pytest.mark.parametrize("case", WRONG_SHAPES)
def test_shape_errors_name_the_line(case: str) -> None:
    use, message = WRONG_SHAPES[case]
    with pytest.raises(ShapeError, match=rf"^{HERE}:\d+: .*{message}"):
        declare(lambda: use(pp.sample("v", dist.Normal(np.zeros(3), 1))))


def test_functions_without_a_meaning_on_random_values() -> None:
    def unique():
        np.unique(pp.sample("v", dist.Normal(np.zeros(3), 1)))

    with pytest.raises(UnsupportedError, match="shape of numpy.unique.* depend on random values"):
        declare(unique)
    with pytest.raises(UnsupportedError, match=r"scipy.special.kv has no JAX.*pp.lift\(fn, result"):
        declare(lambda: scipy.special.kv(1.0, pp.sample("v", dist.Gamma(1.0))))
    with pytest.raises(ModelError, match=r"JAX cannot trace.*pp.lift\(fn, result="):
        declare(lambda: pp.lift(lambda a: np.asarray(a))(pp.sample("v", dist.Normal(0, 1))))


def plate_of_another_size():
    a = pp.sample("a", dist.Normal(np.zeros(4), 1))
    with pp.plate("i", 3):
        pp.sample("y", dist.Normal(a, 1))


def plate_in_itself():
    with pp.plate("i", 3), pp.plate("i", 3):
        pp.sample("y", dist.Normal(0, 1))


def plates_on_one_axis():
    with pp.plate("i", 3, axis=-1), pp.plate("j", 3, axis=-1):
        pp.sample("y", dist.Normal(0, 1))


def plate_with_two_sizes():
    with pp.plate("i", 3):
        pp.sample("y", dist.Normal(0, 1))
    with pp.plate("i", 4):
        pp.sample("z", dist.Normal(0, 1))


def plate(*args, **kwargs):
    def declared():
        with pp.plate(*args, **kwargs):
            pp.sample("y", dist.Normal(0, 1))

    return declared


PLATES = {
    "unbroadcastable": (
        plate_of_another_size,
        r"site 'y' has batch shape \(4,\).*plate 'i' of size 3. Index the parameter",
    ),
    "in itself": (plate_in_itself, "plate 'i' is inside itself"),
    "axis": (plates_on_one_axis, "'j' cannot take axis -1: plate 'i' has it"),
    "two sizes": (plate_with_two_sizes, "plate 'i' has size 4 here and 3 before"),
    "positive axis": (plate("i", 3, axis=0), "axis 0: axes are negative"),
    "no axis": (plate("i", 3, axis="x"), "axis 'x': axes are negative"),
    "empty": (plate("i", 0), "'i' needs a positive integer size, not 0"),
    "fraction": (plate("i", 2.5), "positive integer size, not 2.5"),
    "name": (plate(3, "i"), "name must be a non-empty string, not 3"),
}


@pytest.mark.parametrize("case", PLATES)
def test_plates(case: str) -> None:
    fn, message = PLATES[case]
    with pytest.raises(ModelError, match=rf"^{HERE}:\d+: .*{message}"):
        declare(fn)


def keep_a_value_of_the_step(x):
    kept = []

    def step(carry, _):
        kept.append(pp.sample("z", dist.Normal(carry, 1)))
        return carry, None

    pp.scan(step, x, length=3)
    pp.sample("w", dist.Normal(kept[0], 1))


def site_of_the_scan_outside(x):
    pp.scan(lambda c, _: (pp.sample("x", dist.Normal(c, 1)), None), x, length=3)


def same(carry, _):
    return carry, None


SCANS = {
    "structure": (
        lambda x: pp.scan(lambda c, _: ((c, c), None), x, length=3),
        r"goes in as \* and comes out as \(\*, \*\)",
    ),
    "shape": (
        lambda x: pp.scan(lambda c, _: (np.stack([c, c]), None), x, length=3),
        r"goes in with shape \(\) and comes out with \(2,\)",
    ),
    "dtype": (
        lambda x: pp.scan(lambda c, _: (c > 0, None), x, length=3),
        "goes in as float64 and comes out as bool",
    ),
    "no pair": (lambda x: pp.scan(lambda c, _: c, x, length=3), r"return \(carry, y\)"),
    "no length": (lambda x: pp.scan(same, x), "no length; pass xs"),
    "lengths": (
        lambda x: pp.scan(same, x, (np.zeros(3), np.zeros(4))),
        r"different leading lengths \[3, 4\]",
    ),
    "scalar": (lambda x: pp.scan(same, x, 3.0), "xs need a leading axis"),
    "escape": (keep_a_value_of_the_step, "outside the model or scan that made it. Return it"),
}


@pytest.mark.parametrize("case", SCANS)
def test_scans(case: str) -> None:
    use, message = SCANS[case]
    with pytest.raises(ModelError, match=rf"^{HERE}:\d+: .*{message}"):
        declare(lambda: use(pp.sample("x", dist.Normal(0, 1))))


def test_one_name_inside_and_outside_a_scan() -> None:
    with pytest.raises(ModelError, match="Two sites are named 'x'"):
        declare(lambda: site_of_the_scan_outside(pp.sample("x", dist.Normal(0, 1))))


def test_a_random_value_outside_its_model() -> None:
    kept = []
    declare(lambda: kept.append(pp.sample("x", dist.Normal(0, 1))))
    with pytest.raises(ModelError, match=r"after its model was recorded. Use fit.draws\(name\)"):
        kept[0] + 1
    with pytest.raises(ModelError, match="outside the model or scan that made it"):
        declare(lambda: pp.sample("y", dist.Normal(kept[0], 1)))


@pytest.mark.parametrize("what", ["sample", "plate", "scan", "factor", "deterministic", "prefix"])
def test_outside_a_model(what: str) -> None:
    arguments = {"sample": ("x", dist.Normal(0, 1)), "scan": (same, 0.0, None, 3)}
    with pytest.raises(ModelError, match=rf"pp.{what} was called outside a model.*@pp.model"):
        made = getattr(pp, what)(*arguments.get(what, ("x", 3)[: 1 + (what != "prefix")]))
        made.__enter__()


def test_a_model_without_sites() -> None:
    with pytest.raises(ModelError, match=r"has no sites. Declare at least one with pp.sample"):
        declare(lambda: 3)


def test_data_do_not_go_into_the_model() -> None:
    def given(y: np.ndarray) -> None:
        pp.sample("y", dist.Normal(0, 1), obs=y)  # type: ignore[arg-type]

    with pytest.raises(ModelError, match=r"Drop obs= from site 'y'.*observe\(y=data\)"):
        declare(given, np.zeros(3))
