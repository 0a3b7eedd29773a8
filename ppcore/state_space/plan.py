"""What is static about a state-space model: which sites are parameters, starts and states."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ppcore.diagram import Diagram
from ppcore.errors import UnsupportedError
from ppcore.exact.chain import Chain, NoChain, find_chain
from ppcore.exact.protocol import NotExact


@dataclass(frozen=True, eq=False)
class Plan:
    """What is static about a state-space model.

    Attributes
    ----------
    chain : Chain
        What comes before, and the scan.
    parameters : tuple of str
        θ: latent sites before the scan that its steps read, or that have nothing to do with it.
    initial : tuple of str
        Latent sites before the scan that only its first carry depends on.
    states : tuple of str
        Latent sites of a step.
    sources : tuple of frozenset of str
        The latent sites that each of the scan's inputs depends on.
    memory : int or None
        After how many steps, their sites given, the carry has forgotten where it started; None
        if never.
    """

    chain: Chain
    parameters: tuple[str, ...]
    initial: tuple[str, ...]
    states: tuple[str, ...]
    sources: tuple[frozenset[str], ...]
    memory: int | None


@lru_cache(maxsize=64)
def plan_of(joint: Diagram, observed: tuple[str, ...]) -> Plan:
    """The plan of a joint diagram given evidence at ``observed``; refuses what is no chain."""
    try:
        chain = find_chain(joint, observed, "particle")
    except NoChain as error:
        raise UnsupportedError(
            f"Particle methods need a model with one pp.scan: {error.why} Use an engine such as "
            "'nuts' or 'smc', which need none."
        ) from None
    except NotExact as error:
        raise UnsupportedError(f"Particle methods stop at {error.box!r}: {error.why}") from None
    body, spec = chain.box.body, chain.box.spec
    assert body is not None
    for box in body.boxes():
        if box.op == "scan" and set(box.body.named("sample") if box.body else ()) - set(observed):
            raise UnsupportedError(
                "A step of the scan holds a scan with random sites of its own, which particle "
                "methods do not walk. Write the inner chain as a plate, or as one vector."
            )
    sources = _sources(chain, observed)
    k, n = spec.carry, spec.carry + spec.xs
    constant = [i for i in range(k) if body.outputs[i] == i]
    read = frozenset().union(*(sources[i] for i in (*constant, *range(k, len(sources)))))
    started = frozenset().union(*sources[:k]) - read
    latent = [s for s in chain.before.named("sample") if s not in observed]
    return Plan(
        chain,
        tuple(s for s in latent if s not in started),
        tuple(s for s in latent if s in started),
        tuple(s for s in body.named("sample") if s not in observed),
        sources,
        _memory(body, k, n, observed, [bool(s & started) for s in sources[:k]]),
    )


def _sources(chain: Chain, observed: tuple[str, ...]) -> tuple[frozenset[str], ...]:
    """The latent sites that each input of the scan depends on, through other sites too."""
    before = chain.before
    sets: list[frozenset[str]] = [frozenset()] * len(before.dom)
    for node in before.nodes:
        made = frozenset().union(*(sets[w] for w in node.inputs))
        inside = [node.box, *(node.box.body.boxes() if node.box.body is not None else ())]
        own = {str(b.name) for b in inside if b.op == "sample" and b.name not in observed}
        if node.box.op == "sample" and node.box.name in observed:
            made = frozenset()
        sets.extend([made | own] * len(node.box.cod))
    return tuple(sets[w] for w in before.outputs[len(before.outputs) - len(chain.inputs) :])


def _memory(
    body: Diagram, k: int, n: int, observed: tuple[str, ...], started: list[bool]
) -> int | None:
    """How many steps, sites given, it takes the random carry to be forgotten.

    Only components that can differ between particles count: those that start at random, or that
    steps make from random values.
    """
    reads: list[set[int]] = [{i} if i < k else set() for i in range(len(body.dom))]
    random_: list[set[int] | None] = [{i} if i < k else set() for i in range(len(body.dom))]
    for node in body.nodes:
        latent = any(
            b.op == "sample" and b.name not in observed
            for b in (node.box, *(node.box.body.boxes() if node.box.body is not None else ()))
        )
        through = set().union(*(reads[w] for w in node.inputs))
        below = [random_[w] for w in node.inputs]
        mixed = None if latent or None in below else set().union(*(b for b in below if b))
        if node.box.op == "sample" and node.box.name in observed:
            mixed = set()
        reads.extend([set() if node.box.op == "sample" else through] * len(node.box.cod))
        random_.extend([mixed] * len(node.box.cod))
    differs = list(started)
    for _ in range(k):
        outs = [random_[w] for w in body.outputs[:k]]
        differs = [
            d or o is None or any(differs[i] for i in o) for d, o in zip(differs, outs, strict=True)
        ]
    depends = np.array(
        [[i in reads[w] and differs[i] for i in range(k)] for w in body.outputs[:k]], bool
    ).reshape(k, k)
    power, steps = np.eye(k, dtype=bool), 0
    while power.any():
        if steps > k:
            return None
        power, steps = (depends.astype(int) @ power.astype(int)) > 0, steps + 1
    return max(steps, 1)
