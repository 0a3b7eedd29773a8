"""What a box is called in a picture: spaces, distributions and expressions as short text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ppcore.diagram.box import Box, Hole
from ppcore.space import Space

ATOM, TIGHT, POWER, PRODUCT, SUM, COMPARISON = 6, 5, 4, 3, 2, 1

_INFIX = {
    "add": ("+", SUM),
    "subtract": ("−", SUM),
    "multiply": ("·", PRODUCT),
    "divide": ("/", PRODUCT),
    "true_divide": ("/", PRODUCT),
    "floor_divide": ("//", PRODUCT),
    "remainder": ("%", PRODUCT),
    "matmul": ("@", PRODUCT),
    "dot": ("@", PRODUCT),
    "power": ("^", POWER),
    "float_power": ("^", POWER),
    "less": ("<", COMPARISON),
    "less_equal": ("≤", COMPARISON),
    "greater": (">", COMPARISON),
    "greater_equal": ("≥", COMPARISON),
    "equal": ("=", COMPARISON),
    "not_equal": ("≠", COMPARISON),
}
_SEE_THROUGH = {"deterministic", "astype", "reshape", "broadcast_to", "squeeze", "expand_dims"}
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

Text = tuple[str, int]  # an expression and how tightly it binds
WireText = Callable[[int, int], Text]  # (input of the box, depth left) -> its text


@dataclass(frozen=True)
class Label:
    """What a box of a picture shows.

    ``kind`` is "site", "observed", "deterministic", "expression", "operation", "factor", "scan" or
    "input"; ``title`` and ``note`` are its two lines, ``space`` stands beside the title, and
    ``full`` shows under a pointer.
    """

    kind: str
    title: str
    note: str = ""
    full: str = ""
    space: str = ""


def space_text(space: Space) -> str:
    """A space in a few characters.

    >>> from ppcore.space import Support
    >>> space_text(Space((85,))), space_text(Space((3, 2), "float64", Support("positive", 0.0)))
    ('ℝ⁸⁵', 'ℝ₊³ˣ²')
    >>> space_text(Space((2,), "float64", Support("simplex")))
    'simplex[2]'
    """
    support = space.support
    if support.name == "real":
        base = "ℝ"
    elif support.name in ("positive", "softplus_positive") and not support.lower:
        base = "ℝ₊"
    elif support.name in ("unit_interval", "boolean") or (support.lower, support.upper) == (
        0.0,
        1.0,
    ):
        base = "{0,1}" if support.discrete or support.name == "boolean" else "[0,1]"
    elif support.name in ("interval", "open_interval") and support.upper is not None:
        base = f"[{support.lower:g},{support.upper:g}]".replace("-", "−")
    elif support.name.startswith("integer"):
        base = "ℕ" if support.lower == 0 and support.upper is None else "ℤ"
    else:
        name = support.name.replace("_", " ")
        return name + (f"[{','.join(map(str, space.shape))}]" if space.shape else "")
    return base + "ˣ".join(str(n).translate(_SUPERSCRIPT) for n in space.shape)


def fit(render: Callable[[int], Text], limit: int) -> str | None:
    """The deepest rendering of at most ``limit`` characters, or None."""
    for depth in (9, 6, 4, 3, 2, 1):
        text = render(depth)[0]
        if len(text) <= limit:
            return text
    return None


def bracket(text: Text, at_least: int) -> str:
    """The text, in parentheses if it binds less tightly than ``at_least``."""
    return text[0] if text[1] >= at_least else f"({text[0]})"


def box_text(box: Box, wire: WireText, depth: int = 9) -> Text:
    """A box as an expression of its inputs; what lies deeper than ``depth`` becomes "…".

    ``wire(i, depth)`` gives the text of input i.
    """
    name = operation(box)
    if box.op == "lift":
        _, template, _ = box.spec
    else:
        template = box.spec
    items = getattr(template, "items", None)
    if not isinstance(items, tuple) or len(items) != 2:
        args = [wire(i, depth - 1) for i in range(len(box.dom))]
        named: list[tuple[str, Text]] = []
    else:
        args = [_argument(a, wire, depth - 1) for a in items[0].items]
        keys, values = items[1].keys, items[1].items
        named = [(k, _argument(v, wire, depth - 1)) for k, v in zip(keys, values, strict=True)]
    if args and name in _SEE_THROUGH:
        return args[0]
    if name in _INFIX and len(args) == 2:
        sign, tight = _INFIX[name]
        left, right = bracket(args[0], tight), bracket(args[1], tight + (sign not in "+·"))
        if sign == "^" and args[1][0].isdigit():
            return f"{left}{args[1][0].translate(_SUPERSCRIPT)}", POWER
        space = "" if tight >= POWER or sign in "·/" else " "
        return f"{left}{space}{sign}{space}{right}", tight
    if len(args) == 1 and name in ("negative", "square", "reciprocal", "absolute"):
        inner = bracket(args[0], TIGHT if name == "square" else POWER)
        shown = {"negative": f"−{inner}", "square": f"{inner}²", "reciprocal": f"1/{inner}"}
        tight = {"negative": SUM, "square": POWER, "reciprocal": PRODUCT}.get(name, ATOM)
        return shown.get(name, f"|{args[0][0]}|"), tight
    if name == "getitem" and len(args) == 2:
        index = args[1][0]
        index = index[1:-1] if index.startswith("(") and index.endswith(")") else index
        return f"{bracket(args[0], TIGHT)}[{index}]", TIGHT
    shown_args = [t for t, _ in args] + [f"{k}={t}" for k, (t, _) in named]
    return f"{name}({', '.join(shown_args)})", ATOM


def operation(box: Box) -> str:
    """The short name of a deterministic box's function.

    >>> operation(Box("numpy.linalg.solve", (), ()))
    'solve'
    """
    if box.op == "lift":
        name = getattr(box.spec[0], "__name__", "fn")
        return "fn" if name == "<lambda>" else str(name)
    return box.op.rsplit(".", 1)[-1]


def distribution_text(box: Box, wire: WireText, depth: int) -> Text:
    """The distribution of a sample or observe box, such as "Normal(mu, tau)"; "" if unknown."""
    parts = box.spec if isinstance(box.spec, tuple) else (box.spec,)
    for part in parts:
        if str(getattr(part, "kind", "")).startswith("describe:"):
            return _argument(part, wire, depth)
    return "", ATOM


def distribution_name(box: Box) -> str:
    """The name alone, such as "Normal"."""
    return distribution_text(box, lambda i, depth: ("", ATOM), 9)[0].split("(", 1)[0]


def _argument(value: Any, wire: WireText, depth: int) -> Text:
    """The text of a template: holes are wires, structures have ``kind``, ``keys``, ``items``."""
    if isinstance(value, Hole):
        return wire(value.index, depth)
    kind = getattr(value, "kind", None)
    if kind is not None and isinstance(getattr(value, "items", None), tuple):
        return _structure(str(kind), value.items, wire, depth)
    if hasattr(value, "data") and hasattr(value, "shape"):
        return "data", ATOM
    if isinstance(value, float):
        return f"{value:g}".replace("-", "−"), ATOM if value >= 0 else SUM
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value).replace("-", "−"), ATOM if value >= 0 else SUM
    if callable(value):
        return str(getattr(value, "__name__", "fn")), ATOM
    text = "..." if value is Ellipsis else str(value)
    return text.rsplit(".", 1)[-1] if isinstance(value, str) else text, ATOM


def _structure(kind: str, items: tuple[Any, ...], wire: WireText, depth: int) -> Text:
    if kind == "slice":
        ends = ["" if i is None else _argument(i, wire, depth)[0] for i in items]
        return ":".join(ends[:2] if not ends[2] else ends), COMPARISON
    if depth <= 0 and kind != "describe":
        return "…", ATOM
    if kind.startswith("describe:method:"):
        return _argument(items[0], wire, depth)
    parts = [_argument(i, wire, depth - 1)[0] for i in items if i is not None or kind == "tuple"]
    if kind.startswith("describe:"):
        return f"{kind.rsplit(':', 1)[-1]}({', '.join(parts)})", ATOM
    around = {"list": "[]", "dict": "{}"}.get(kind, "()")
    return f"{around[0]}{', '.join(parts)}{around[1]}", ATOM
