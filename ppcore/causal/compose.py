"""Sequential composition by name: the sites of one diagram feed the given sites of another.

Sites are copied, never consumed: the composite has the sites of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppcore.causal.rebuild import box_names, copy_nodes, rename
from ppcore.diagram import Diagram
from ppcore.errors import CompositionError
from ppcore.recording.recorder import Recorder


def compose(
    first: Diagram,
    first_given: Sequence[str],
    second: Diagram,
    second_given: Sequence[str],
) -> tuple[Diagram, tuple[str, ...]]:
    """``first >> second`` and the names of the inputs that stay open.

    The last inputs of each diagram are its given sites, those before them are data; the composite
    takes the data of the first, the data of the second, and then what is still given.

    Raises
    ------
    CompositionError
        A site is made by both, or a given site has another space than the one that feeds it.
    """
    clash = set(first.output_names) & set(second.output_names) - {None}
    if clash:
        raise CompositionError(
            f"Both kernels make a site {sorted(map(str, clash))[0]!r}. Rename one, or discard it "
            "with marginal(keep=…)."
        )
    first = _apart(first, second)
    second = _apart(second, first)
    k, m = len(first.dom) - len(first_given), len(second.dom) - len(second_given)
    open_given = [*first_given]
    for name in second_given:
        if name not in first.output_names and name not in open_given:
            open_given.append(name)
    spaces = dict(zip(second_given, second.dom[m:], strict=True))
    spaces.update(zip(first_given, first.dom[k:], strict=True))
    recorder = Recorder()
    first_in = [recorder.add_input(s).ref for s in first.dom[:k]]
    second_in = [recorder.add_input(s).ref for s in second.dom[:m]]
    entering = {n: recorder.add_input(spaces[n]).ref for n in open_given}
    refs = copy_nodes(recorder, first, [*first_in, *(entering[n] for n in first_given)])
    made: dict[Any, Any] = dict(entering)
    made.update(zip(first.output_names, (refs[w] for w in first.outputs), strict=True))
    for name, space in zip(second_given, second.dom[m:], strict=True):
        there = recorder.space(made[name])
        if (there.shape, there.dtype) != (space.shape, space.dtype) or (
            space.support.name not in ("real", "integer") and there.support != space.support
        ):
            raise CompositionError(
                f"Cannot compose at {name!r}: {there} leaves, {space} is expected."
            )
    later = copy_nodes(recorder, second, [*second_in, *(made[n] for n in second_given)])
    outputs = [refs[w] for w in first.outputs] + [later[w] for w in second.outputs]
    names = first.output_names + second.output_names
    return recorder.freeze(outputs, names), tuple(open_given)


def _apart(diagram: Diagram, other: Diagram) -> Diagram:
    """The diagram with discarded sites renamed that are called as boxes of ``other`` are.

    They are boxes of their own: two with one name would share their randomness.
    """
    taken = box_names(diagram) | box_names(other)
    new: dict[str, str] = {}
    for name in sorted(box_names(diagram) & box_names(other)):
        if name in diagram.output_names:
            continue
        fresh = f"{name}.hidden"
        while fresh in taken:
            fresh += "'"
        taken.add(fresh)
        new[name] = fresh
    return rename(diagram, new)
