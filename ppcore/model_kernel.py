"""Kernels between sites: conditionals that can be called, composed, inverted and sampled."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcore.diagram import Diagram
from ppcore.errors import ModelError, UnsupportedError, did_you_mean
from ppcore.exact.protocol import NotExact

if TYPE_CHECKING:
    from ppcore.declare import Model


@dataclass(frozen=True, eq=False)
class ModelKernel:
    """A Markov kernel given → outputs: a model with open inputs.

    Called with values of the given sites it is a :class:`~ppcore.declare.Model`; called inside a
    model, with random values, it becomes part of that model.

    Attributes
    ----------
    name : str
    diagram : Diagram or None
        Data, then the given sites, → outputs; None if the kernel is only known through inference.
    data : tuple of arrays
    given, outputs : tuples of str
    joint : Model, optional
        The model that an inferred kernel conditions.
    reason : str
        Why there is no diagram.

    >>> import numpy as np
    >>> import ppcore as pp
    >>> from ppcore import dist
    >>> @pp.model
    ... def test():
    ...     ill = pp.sample("ill", dist.Bernoulli(0.01))
    ...     pp.sample("positive", dist.Bernoulli(np.where(ill, 0.9, 0.05)))
    >>> diagnosis = test().disintegrate(given="positive")
    >>> diagnosis
    <kernel test: positive → ill>
    >>> float(diagnosis(positive=1).solve().marginal("ill").mean.round(4))
    0.1538
    """

    name: str
    diagram: Diagram | None
    data: tuple[Any, ...]
    given: tuple[str, ...]
    outputs: tuple[str, ...]
    joint: Any = None
    reason: str = ""

    def __call__(self, values: Mapping[str, Any] | None = None, /, **named: Any) -> Any:
        """The model given values; inside a model, the wires of the outputs by name."""
        from ppcore.recording.recorder import current

        found = {**(values or {}), **named}
        for name in found:
            if name not in self.given:
                hint = did_you_mean(name, self.given)
                raise ModelError(f"Kernel {self.name!r} is not given {name!r}. {hint}")
        for name in self.given:
            if name not in found:
                raise ModelError(f"Kernel {self.name!r} needs a value for {name!r}.")
        recorder = current()
        if recorder is not None:
            return self._record(recorder, found)
        if self.diagram is None:
            observed = self.joint.observe({n: found[n] for n in self.given})
            return observed.marginal(keep=self.outputs)
        from ppcore.declare import Model
        from ppcore.evidence import check_evidence

        spaces = self.diagram.dom[len(self.data) :]
        checked = [
            check_evidence(n, found[n], s, "given") for n, s in zip(self.given, spaces, strict=True)
        ]
        return Model(self.name, self.diagram, (*self.data, *checked))

    def _record(self, recorder: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        from ppcore.causal.rebuild import box_names, copy_nodes, rename
        from ppcore.recording.record import as_wire
        from ppcore.recording.wire import Wire

        diagram = self.explicit()
        names = {n: recorder.claim(n) for n in sorted(box_names(diagram))}
        renamed = rename(diagram, names)
        inputs = [recorder.data_ref(d) for d in self.data]
        inputs += [recorder.ref(as_wire(values[n])) for n in self.given]
        refs = copy_nodes(recorder, renamed, inputs)
        found = {}
        for wire, name in zip(diagram.outputs, diagram.output_names, strict=True):
            ref = refs[wire]
            recorder.sites.append((recorder.prefix + str(name), ref))
            found[str(name)] = Wire(recorder, ref, recorder.space(ref))
        return found

    def explicit(self) -> Diagram:
        """The diagram; raises :class:`UnsupportedError` if the kernel has none."""
        if self.diagram is None:
            raise UnsupportedError(
                f"Kernel {self.name!r} is known only through inference ({self.reason}). Call it "
                "with values and use infer(), or condition the joint instead of composing it."
            )
        return self.diagram

    def tensor(self) -> np.ndarray:
        """The stochastic tensor of a finite kernel: given sites, then outputs."""
        from ppcore.semantics.tensor import tensor

        return tensor(self.explicit(), dict(enumerate(self.data)))

    def marginal(self, keep: Collection[str] | str) -> ModelKernel:
        """The kernel to some of its outputs."""
        from ppcore.causal.marginal import marginal

        names = [keep] if isinstance(keep, str) else list(keep)
        if self.diagram is None:
            for name in names:
                if name not in self.outputs:
                    hint = did_you_mean(name, self.outputs)
                    raise ModelError(f"Kernel {self.name!r} has no output {name!r}. {hint}")
            return replace(self, outputs=tuple(n for n in self.outputs if n in names))
        cut = marginal(self.diagram, names)
        k = len(self.data)
        used = {w for n in cut.nodes for w in n.inputs} | set(cut.outputs)
        kept = [i for i in range(k) if i in used]
        marked = _drop(cut, [i for i in range(k) if i not in used])
        return replace(
            self,
            diagram=marked,
            data=tuple(self.data[i] for i in kept),
            outputs=tuple(str(n) for n in marked.output_names),
        )

    def __rshift__(self, other: Any) -> ModelKernel:
        """This kernel and then another, all outputs kept."""
        from ppcore.causal.compose import compose

        if not isinstance(other, ModelKernel):
            return NotImplemented
        diagram, given = compose(self.explicit(), self.given, other.explicit(), other.given)
        outputs = tuple(str(n) for n in diagram.output_names)
        name = f"{self.name} >> {other.name}"
        return ModelKernel(name, diagram, (*self.data, *other.data), given, outputs)

    def invert(self, prior: Model) -> ModelKernel:
        """Bayesian inversion: outputs → given, for a prior on the given sites.

        p(given | outputs) ∝ p(outputs | given) p(given). Unique up to outputs of probability zero.
        """
        return invert(self, prior)

    def draw(self, detail: str = "sites") -> str:
        """The kernel's diagram as SVG text, the given sites as open wires at the top."""
        from ppcore.diagram.draw import draw_svg

        names = [*[None] * len(self.data), *self.given]
        opened = range(len(self.data), len(names))
        return draw_svg(self.explicit(), detail, input_names=names, shown=opened)

    def _repr_svg_(self) -> str | None:
        return self.draw() if self.diagram is not None else None

    def __repr__(self) -> str:
        how = "" if self.diagram is not None else ", by inference"
        return f"<kernel {self.name}: {', '.join(self.given)} → {', '.join(self.outputs)}{how}>"


def from_diagram(
    diagram: Diagram, outputs: Sequence[str], given: Sequence[str] = (), name: str = "diagram"
) -> Any:
    """A diagram built by hand, of boxes given by their tensors, as a model or as a kernel.

    Parameters
    ----------
    diagram : Diagram
        Of :func:`ppcore.semantics.tensor.stochastic` boxes with scalar wires.
    outputs, given : sequences of str
        Names for its output and its input wires.

    Returns
    -------
    Model if the diagram has no inputs, otherwise ModelKernel.

    >>> import numpy as np
    >>> from ppcore.semantics.tensor import stochastic
    >>> coin = stochastic(np.array([0.3, 0.7]), (), (2,))
    >>> flip = stochastic(np.array([[0.9, 0.1], [0.2, 0.8]]), (2,), (2,))
    >>> model = from_diagram(coin >> flip, ["side"])
    >>> model.solve().marginal("side").probs.round(2)
    array([0.41, 0.59])
    """
    from ppcore.causal.lower import lower
    from ppcore.declare import Model

    if (len(outputs), len(given)) != (len(diagram.outputs), len(diagram.dom)):
        raise ModelError(
            f"The diagram has {len(diagram.dom)} inputs and {len(diagram.outputs)} outputs; "
            f"{len(given)} and {len(outputs)} names are given."
        )
    made, tables = lower(diagram, outputs)
    if not given:
        return Model(name, made, tables)
    return ModelKernel(name, made, tables, tuple(given), tuple(outputs))


def _drop(diagram: Diagram, unused: Collection[int]) -> Diagram:
    """The diagram without some unused inputs."""
    from ppcore.causal.rebuild import copy_nodes
    from ppcore.recording.recorder import Recorder

    if not unused:
        return diagram
    recorder = Recorder()
    inputs = [None if i in unused else recorder.add_input(s).ref for i, s in enumerate(diagram.dom)]
    refs = copy_nodes(recorder, diagram, inputs)
    return recorder.freeze([refs[w] for w in diagram.outputs], diagram.output_names)


def disintegrate(model: Model, given: Sequence[str], keep: Sequence[str] | None) -> ModelKernel:
    """p(keep | given) of a model: cut out, computed, or left to inference."""
    from ppcore.causal.disintegrate import finite, forward
    from ppcore.causal.linear import linear
    from ppcore.causal.marginal import marginal

    sites = [n for n in model.spaces if n not in model.evidence]
    for name in (*given, *(keep or ())):
        if name not in sites:
            raise ModelError(f"The model has no site {name!r}. {did_you_mean(name, sites)}")
    both = set(given) & set(keep or ())
    if both or not given:
        what = f"{sorted(both)[0]!r} is both given and kept" if both else "nothing is given"
        raise ModelError(f"disintegrate: {what}.")
    left = [n for n in sites if n not in given] if keep is None else list(keep)
    base = ModelKernel(model.name, None, (), tuple(given), tuple(left), model)
    if not model.evidence:
        cut = forward(marginal(model.diagram, [*given, *left]), given)
        if cut is not None:
            found = replace(base, diagram=cut, data=tuple(model.data), joint=None)
            return found.marginal(left)
    reasons = []
    for way in (finite, linear):
        try:
            diagram, tables = way(model.diagram, model.data, given, left, model.evidence)
        except NotExact as error:
            reasons.append(str(error))
        else:
            return replace(base, diagram=diagram, data=tables, joint=None)
    return replace(base, reason=" ".join(reasons))


def invert(kernel: ModelKernel, prior: Model) -> ModelKernel:
    """Bayesian inversion of a kernel for a prior on its given sites."""
    joint = push(prior, kernel)
    return disintegrate(joint, kernel.outputs, kernel.given)


def push(model: Model, kernel: ModelKernel) -> Model:
    """The joint of a model and a kernel that its sites feed."""
    from ppcore.causal.compose import compose

    diagram, left = compose(model.diagram, (), kernel.explicit(), kernel.given)
    if left:
        raise ModelError(
            f"Model {model.name!r} has no site {left[0]!r}, which kernel {kernel.name!r} is given. "
            f"{did_you_mean(left[0], model.spaces)}"
        )
    names = [*model.input_names, *[""] * (len(model.data) - len(model.input_names))]
    return replace(
        model,
        name=f"{model.name} >> {kernel.name}",
        diagram=diagram,
        data=(*model.data, *kernel.data),
        input_names=(*names, *[""] * len(kernel.data)),
    )
