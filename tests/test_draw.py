"""Pictures: well formed, complete, deterministic, and with boxes that do not overlap."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from random_diagrams import REAL, VECTOR, P, Q, R, diagrams, shuffled

import ppcore as pp
from ppcore import dist
from ppcore.diagram import Box, Diagram, Node
from ppcore.diagram.draw import draw_svg
from ppcore.diagram.label import space_text
from ppcore.errors import SettingsError
from ppcore.space import Space, Support

SVG = "{http://www.w3.org/2000/svg}"
DETAILS = ("sites", "boxes")
BOXES = ("site", "observed", "deterministic", "expression", "operation", "factor")
FRAMES = ("plate", "scan")

Rectangle = tuple[float, float, float, float]


def parse(svg: str) -> ET.Element:
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    return root


def rectangles(svg: str, kinds: tuple[str, ...]) -> list[tuple[str, Rectangle]]:
    """(name, (left, top, right, bottom)) of every box or frame of these kinds."""
    found = []
    for group in parse(svg).iter(f"{SVG}g"):
        if group.get("class") in kinds:
            r = group.find(f"{SVG}rect")
            x, y, w, h = (float(r.get(a)) for a in ("x", "y", "width", "height"))
            found.append((group.get("data-name"), (x, y, x + w, y + h)))
    return found


def inside(a: Rectangle, b: Rectangle) -> bool:
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


def overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def classes(svg: str) -> dict[str, str]:
    return {g.get("data-name"): g.get("class") for g in parse(svg).iter(f"{SVG}g")}


def texts(svg: str) -> list[str]:
    return [t.text for t in parse(svg).iter(f"{SVG}text")]


@pp.model
def eight_schools(sigma):
    mu = pp.sample("mu", dist.Normal(0, 5))
    tau = pp.sample("tau", dist.HalfCauchy(5))
    with pp.plate("school", len(sigma)):
        z = pp.sample("z", dist.Normal(0, 1))
        theta = pp.deterministic("theta", mu + tau * z)
        pp.sample("y", dist.Normal(theta, sigma))


@pp.model
def radon(floor, county, counties):
    mu = pp.sample("mu", dist.Normal(0, 5))
    tau = pp.sample("tau", dist.HalfNormal(1))
    slope = pp.sample("slope", dist.Normal(0, 2))
    sigma = pp.sample("sigma", dist.HalfNormal(1))
    with pp.plate("county", counties):
        alpha = pp.sample("alpha", dist.Normal(mu, tau))
    with pp.plate("home", len(floor)):
        pp.sample("log_radon", dist.Normal(alpha[county] + slope * floor, sigma))


@pp.model
def cities(x):
    mu = pp.sample("mu", dist.Normal(0, 1))
    w = pp.sample("w", dist.Dirichlet(np.ones(3)))
    with pp.plate("state", 10):
        a = pp.sample("a", dist.Normal(mu, 1))
        with pp.plate("city", 4):
            b = pp.sample("b", dist.Normal(a, 1))
            pp.sample("y", dist.Poisson(np.exp(b + x * w[0])))
        pp.sample("total", dist.Normal(b.sum(0), 1))
    pp.factor("soft", -(mu**2))


@pp.model
def walk(n):
    phi = pp.sample("phi", dist.Uniform(-1, 1))
    scale = pp.sample("scale", dist.HalfNormal(1))
    first = pp.sample("first", dist.Normal(0, 1))

    def step(x, _):
        x = pp.sample("x", dist.Normal(phi * x, scale))
        pp.sample("y", dist.Normal(x, 1.0))
        return x, None

    pp.scan(step, first, None, length=n)


MODELS = {
    "eight schools": lambda: eight_schools(np.ones(8)).observe(y=np.zeros(8)),
    "radon": lambda: radon(np.zeros(919), np.arange(919) % 85, 85).observe(log_radon=np.zeros(919)),
    "cities": lambda: cities(np.ones((4, 10))).observe(y=np.zeros((4, 10), int)),
    "walk": lambda: walk(200).observe(y=np.zeros(200)),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


@pytest.mark.parametrize("detail", DETAILS)
def test_models_are_drawn_whole(model, detail):
    svg = draw_svg(model.diagram, detail, observed=model.observed)
    shown = texts(svg)
    for name in model.diagram.named("sample"):
        assert name in shown
        assert classes(svg)[name] == ("observed" if name in model.observed else "site")
    for name in model.deterministics:
        assert classes(svg)[name] == "deterministic"
    boxes = [r for _, r in rectangles(svg, BOXES)]
    assert not any(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize("detail", DETAILS)
def test_a_conditioned_model_shades_its_evidence(model, detail):
    svg = model.draw(detail)
    found = {n for n, c in classes(svg).items() if c == "observed"}
    assert found == set(model.observed)


def test_array_operations_become_expressions():
    model = MODELS["radon"]()
    names = [None] * len(model.diagram.dom)
    svg = draw_svg(model.diagram, input_names=names)
    found = [n for n, _ in rectangles(svg, ("expression", "operation"))]
    assert found == ["alpha[data] + slope·data"]
    named = {VECTOR.dtype: "floor", "int64": "county"}
    given_names = [named[s.dtype] for s in model.diagram.dom]
    assert "alpha[county] + slope·floor" in texts(draw_svg(model.diagram, input_names=given_names))
    boxes = {n for n, _ in rectangles(draw_svg(model.diagram, "boxes"), ("operation",))}
    assert boxes == {"getitem", "multiply", "add"}


def test_plates_are_nested_in_one_another_and_hold_their_members():
    svg = MODELS["cities"]().draw()
    frames = dict(rectangles(svg, FRAMES))
    boxes = dict(rectangles(svg, BOXES))
    state, city = frames["state, 10"], frames["city, 4"]
    assert inside(city, state)
    assert all(inside(boxes[n], city) for n in ("b", "y", "exp(b + x·w[0])"))
    assert all(inside(boxes[n], state) and not overlap(boxes[n], city) for n in ("a", "total"))
    assert not any(overlap(boxes[n], state) for n in ("mu", "w", "soft"))


def test_two_plates_stand_apart():
    frames = dict(rectangles(MODELS["radon"]().draw(), FRAMES))
    assert not overlap(frames["county, 85"], frames["home, 919"])


def test_a_scan_holds_its_steps():
    svg = MODELS["walk"]().draw()
    frame = dict(rectangles(svg, ("scan",)))["scan, T = 200"]
    boxes = dict(rectangles(svg, BOXES))
    assert inside(boxes["x"], frame) and inside(boxes["y"], frame)
    assert not overlap(boxes["phi"], frame)
    assert "Normal(phi·x[t−1], scale)" in texts(svg)


def test_a_factor_is_a_square_with_its_formula():
    svg = MODELS["cities"]().draw()
    ((_, (left, top, right, bottom)),) = rectangles(svg, ("factor",))
    assert right - left == pytest.approx(bottom - top)
    assert "soft: −mu²" in texts(svg)


random_pictures = hypothesis_settings(max_examples=60)


@random_pictures
@given(diagrams(max_nodes=9, named=True, plates=True), st.sampled_from(DETAILS), st.integers(0, 99))
def test_random_diagrams(d, detail, seed):
    """Well formed; boxes apart from each other; frames apart or one inside the other."""
    svg = draw_svg(d, detail)
    assert svg == draw_svg(shuffled(d, seed), detail), "equal diagrams, equal pictures"
    boxes = [r for _, r in rectangles(svg, BOXES)]
    frames = [r for _, r in rectangles(svg, FRAMES)]
    assert not any(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    for i, a in enumerate(frames):
        for b in frames[:i]:
            assert inside(a, b) or inside(b, a) or not overlap(a, b)
        assert all(inside(r, a) or not overlap(r, a) for r in boxes)
    root = parse(svg)
    page = (0.0, 0.0, float(root.get("width")), float(root.get("height")))
    assert all(inside(r, page) for r in boxes + frames)
    if detail == "boxes":
        assert len(boxes) == len(d.nodes)
    stochastic = {n.box.name for n in d.nodes if not n.box.deterministic}
    assert stochastic <= set(texts(svg))


@random_pictures
@given(diagrams(max_nodes=9), st.sampled_from(DETAILS))
def test_anonymous_diagrams_can_be_drawn(d, detail):
    parse(draw_svg(d, detail))


def test_equal_pictures_in_different_processes(run_python):
    script = (
        "from ppcore.diagram import Box, Diagram, Node; from ppcore.space import Space\n"
        "real = Space(); sites = [Box('sample', (), (real,), name=n) for n in 'abcd']\n"
        "ends = [Box('observe', (real, real), (), name=n, normalized=False) for n in 'uvw']\n"
        "nodes = [Node(b, ()) for b in sites]\n"
        "nodes += [Node(b, (i, i + 1)) for i, b in enumerate(ends)]\n"
        "print(Diagram((), tuple(nodes), ()).draw())"
    )
    out = [run_python("-c", script, PYTHONHASHSEED=str(seed)) for seed in (1, 2)]
    assert out[0].stdout.startswith("<svg"), out[0].stderr
    assert out[0].stdout == out[1].stdout


def test_text_is_escaped():
    box = Box("sample", (), (REAL,), name='<b> & "c"')
    svg = draw_svg(Diagram.of(box))
    assert '<b> & "c"' in texts(svg)
    assert "<b>" not in svg


def test_inputs_and_outputs_of_a_kernel_are_labelled():
    d = Diagram(
        (REAL, VECTOR), (Node(Box("f", (REAL, VECTOR), (VECTOR,)), (0, 1)),), (2,), ("out",)
    )
    for detail in DETAILS:
        shown = texts(draw_svg(d, detail, input_names=("x", None)))
        assert {"x", "ℝ³", "out", "f"} <= set(shown)


def test_the_order_of_inputs_and_outputs_is_kept_between_boxes():
    shown = draw_svg(Diagram.swap(REAL, VECTOR), "boxes", input_names=("a", "b"))
    place = {t.text: float(t.get("x")) for t in parse(shown).iter(f"{SVG}text")}
    assert place["a"] < place["b"] and place["ℝ³"] < place["ℝ"]


def test_a_plate_around_an_empty_picture_and_an_empty_diagram():
    parse(draw_svg(Diagram.id(())))
    effect = Box("observe", (), (), name="y", plates=(R, Q), normalized=False)
    frames = rectangles(draw_svg(Diagram.of(effect)), FRAMES)
    assert [n for n, _ in frames] == ["r, 5", "q, 2"]


def test_an_expression_stands_in_the_plate_of_its_readers():
    shared, row = Space((3,)), {"plates": (P,)}
    d = Diagram(
        (),
        (
            Node(Box("sample", (), (shared,), name="a", **row), ()),
            Node(Box("numpy.exp", (shared,), (shared,), deterministic=True), (0,)),
            Node(Box("sample", (shared,), (shared,), name="b", **row), (1,)),
            Node(Box("sample", (shared,), (shared,), name="c", **row), (1,)),
        ),
        (),
    )
    svg = draw_svg(d)
    ((_, plate),) = rectangles(svg, ("plate",))
    assert all(inside(r, plate) for _, r in rectangles(svg, BOXES))
    assert len(rectangles(svg, ("expression",))) == 1
    assert len(rectangles(draw_svg(d, "boxes"), ("plate",))) == 2


def test_an_unknown_detail_is_refused():
    with pytest.raises(SettingsError, match="Did you mean 'sites'"):
        draw_svg(Diagram.id((REAL,)), "site")


def test_text_outside_boxes_reads_on_white_and_on_black():
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    svg = draw_svg(Diagram.id((REAL,)))
    grey = re.search(r"\.outside\{[^}]*fill:(#\w{6})", svg).group(1)
    light = luminance(grey)
    assert 1.05 / (light + 0.05) > 4 and (light + 0.05) / 0.05 > 4


@pytest.mark.parametrize(
    ("space", "text"),
    [
        (Space((), "float64", Support("interval", -1.0, 1.0)), "[−1,1]"),
        (Space((2,), "float64", Support("unit_interval", 0.0, 1.0)), "[0,1]²"),
        (Space((), "int64", Support("boolean", 0.0, 1.0, discrete=True)), "{0,1}"),
        (Space((4,), "int64", Support("boolean", discrete=True)), "{0,1}⁴"),
        (Space((), "int64", Support("integer_above", 0.0, None, discrete=True)), "ℕ"),
        (Space((3, 3), "float64", Support("corr_cholesky")), "corr cholesky[3,3]"),
    ],
)
def test_spaces_in_few_characters(space, text):
    assert space_text(space) == text
