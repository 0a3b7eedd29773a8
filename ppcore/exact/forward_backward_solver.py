"""The forward–backward solver: chains with finitely many states, in time linear in the length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import numpy as np
from scipy.special import logsumexp

from ppcore import precision
from ppcore.diagram import Diagram
from ppcore.errors import ModelError, did_you_mean
from ppcore.exact.chain import Chain, find_chain, in_order
from ppcore.exact.chain_table import codes_of, settings, tabulate, weigh
from ppcore.exact.forward_backward import (
    drawn,
    filtered,
    inverses,
    settings_law,
    smoothed,
    transitions,
)
from ppcore.exact.protocol import FiniteMarginal, NotExact, ZeroEvidenceError

SOLVER = "forward_backward"
VALUES = 4096
"""Different values of a computed site up to which its law is listed."""


def solve_forward_backward(
    joint: Diagram, data: Sequence[Any], evidence: Mapping[str, Any]
) -> ForwardBackwardSolution:
    """The posterior of a model whose scan is a chain with finitely many states.

    The sites of a step are finite; its evidence may be anything. What comes before the scan is
    finite too, and the values that the step captures are not random. Sites that depend on the
    chain's results are drawn forwards. Everything is done in log space, so nothing underflows.

    Parameters
    ----------
    joint, data, evidence
        See :mod:`ppcore.exact`.

    Raises
    ------
    NotExact
        There is not one scan, a site is not finite, or there are too many states.
    ZeroEvidenceError
        The evidence has probability zero.
    """
    chain = find_chain(joint, evidence, SOLVER)
    sites = tuple(str(n) for n in joint.output_names if n is not None and n not in evidence)
    given = {n: np.asarray(v) for n, v in evidence.items()}
    with precision.scope("float64"):
        return ForwardBackwardSolution(chain, joint, tuple(data), given, sites)


class ForwardBackwardSolution:
    """p(sites | evidence) of a finite chain; see :class:`ppcore.exact.protocol.Solution`."""

    solver = SOLVER

    def __init__(
        self,
        chain: Chain,
        joint: Diagram,
        data: tuple[Any, ...],
        evidence: Mapping[str, np.ndarray],
        sites: tuple[str, ...],
    ):
        self.chain, self.sites = chain, sites
        self._joint, self._data, self._evidence = joint, data, dict(evidence)
        spec, body = chain.box.spec, chain.box.body
        assert body is not None
        inside = body.named("sample")
        settings(body, tuple(evidence), SOLVER)
        inputs = self._enumerate_before({n: v for n, v in evidence.items() if n not in inside})
        k, n = spec.carry, spec.carry + spec.xs
        for name, values in zip(chain.inputs[k:], inputs[k:], strict=True):
            if not (values == values[:1]).all():
                raise NotExact(SOLVER, name, "it is random; what a step captures must be known.")
        own = {n: evidence[n] for n in inside if n in evidence}
        self.table = tabulate(
            chain.box,
            inputs[:k],
            in_order([v[0] for v in inputs[k:n]], spec.reverse),
            [v[0] for v in inputs[n:]],
            in_order(own, spec.reverse),
            SOLVER,
        )
        self._first = codes_of(inputs[:k], self.table)
        self._filter()

    def _enumerate_before(self, evidence: dict[str, Any]) -> list[np.ndarray]:
        """All settings u of the sites before the scan, their log weights, and the scan's inputs."""
        before = self.chain.before
        self._before = settings(before, tuple(evidence), SOLVER)
        moved = Diagram(
            before.dom,
            before.nodes,
            before.outputs[len(before.outputs) - len(self.chain.inputs) :],
            self.chain.inputs,
        )
        dummy = [np.zeros(1)] if not before.dom else [np.asarray(v)[None] for v in self._data]
        log, _, values = weigh(moved, 0, dummy, self._before, ([], evidence), [])
        self._log_before = np.asarray(log)[0, 0]
        self._computed_before = {n: np.asarray(v)[0, 0] for n, v in values.items()}
        return [self._computed_before[name] for name in self.chain.inputs]

    def _filter(self) -> None:
        total = float(logsumexp(self._log_before))
        if total == -np.inf:
            raise ZeroEvidenceError("The evidence before the scan has probability zero.")
        start = np.full(len(self.table.states[0]), -np.inf)
        np.logaddexp.at(start, self._first, self._log_before - total)
        self._start = start
        self._m = transitions(self.table.log, self.table.following)
        found = filtered(start, self._m)
        self.alphas, self.last, self.norms = (np.asarray(v) for v in found)
        bad = np.flatnonzero(~np.isfinite(self.norms))
        if len(bad):
            at = int(bad[0])
            step = len(self.norms) - 1 - at if self.chain.box.spec.reverse else at
            raise ZeroEvidenceError(
                f"The evidence up to step {step} of the scan has probability zero under the model, "
                "so there is nothing to condition on. Check the values, or the transitions."
            )
        self.log_evidence = total + float(np.sum(self.norms))

    @cached_property
    def inverse(self) -> Any:
        """log p(state before step t | state after it, evidence): float[T, C, C]."""
        with precision.scope("float64"):
            return inverses(self.alphas, self.last, self.norms, self._m)

    @cached_property
    def smooth(self) -> tuple[np.ndarray, np.ndarray]:
        """p(state) before the first step [C] and after each one [T, C], given all evidence."""
        with precision.scope("float64"):
            first, after = smoothed(self.last, self.inverse)
            return np.asarray(first), np.asarray(after)

    @cached_property
    def _law(self) -> np.ndarray:
        with precision.scope("float64"):
            t, after = self.table, self.smooth[1]
            found = settings_law(self.alphas, self.last, self.norms, t.log, t.following, after)
            return np.asarray(found)

    @cached_property
    def _law_before(self) -> np.ndarray:
        """p(u | evidence) of the sites before the scan."""
        start = self._start[self._first]
        prior = self._log_before - logsumexp(self._log_before)
        known = np.isfinite(start)
        share = np.exp(np.where(known, prior - np.where(known, start, 0.0), -np.inf))
        return np.asarray(share * self.smooth[0][self._first])

    def marginal(self, site: str) -> FiniteMarginal:
        """The law of each element of a site (stacked for sites in the scan)."""
        if site not in self.sites:
            raise ModelError(
                f"The model has no unobserved site {site!r}. {did_you_mean(site, self.sites)}"
            )
        if site in self.table.settings:
            found = _law_of(self.table.settings[site], self._law.sum(1))
        elif site in self.table.computed:
            found = self._computed_law(site)
        elif site in self._before or site in self._computed_before:
            values = {**self._computed_before, **self._before}[site]
            law = _law_of(values, self._law_before[None])
            return FiniteMarginal(law.values, law.probs[0])
        else:
            raise NotExact(SOLVER, site, "its law is computed by drawing only; use draws of it.")
        turn = self.chain.box.spec.reverse
        return FiniteMarginal(found.values, in_order(found.probs, turn))

    def _computed_law(self, site: str) -> FiniteMarginal:
        table = np.asarray(self.table.computed[site])
        length, c, s, *shape = table.shape
        values, codes = np.unique(table, return_inverse=True)
        if len(values) > VALUES:
            why = f"it takes {len(values)} different values; use draws of it."
            raise NotExact(SOLVER, site, why)
        codes = codes.reshape(length, c * s, -1)
        law = self._law.reshape(length, c * s)
        probs = np.zeros((length, codes.shape[2], len(values)))
        rows = np.arange(length)
        for i in range(c * s):
            for j in range(codes.shape[2]):
                probs[rows, j, codes[:, i, j]] += law[:, i]
        return FiniteMarginal(values, probs.reshape(length, *shape, len(values)))

    def sample(self, key: Any, n: int) -> dict[str, np.ndarray]:
        """``n`` independent draws of all sites jointly: {site: array[n, *shape]}."""
        t, turn = self.table, self.chain.box.spec.reverse
        key, own, behind = jax.random.split(key, 3)
        with precision.scope("float64"):
            states, chosen = (
                np.asarray(v) for v in drawn(self.last, self.inverse, t.log, t.following, key, n)
            )
        out = {}
        for site, values in t.settings.items():
            out[site] = np.moveaxis(in_order(values[chosen], turn), 0, 1)
        rows = np.arange(len(chosen))[:, None]
        for site, values in t.computed.items():
            picked = np.asarray(values)[rows, states[:-1], chosen]
            out[site] = np.moveaxis(in_order(picked, turn), 0, 1)
        out.update(self._draw_before(states[0], own))
        missing = [s for s in self.sites if s not in out]
        if missing:
            out.update(self._draw_after(out, missing, behind, n))
        return {site: out[site] for site in self.sites}

    def _draw_before(self, first: np.ndarray, key: Any) -> dict[str, np.ndarray]:
        allowed = np.where(self._first == first[:, None], self._log_before, -np.inf)
        u = np.asarray(jax.random.categorical(key, allowed))
        known = {**self._computed_before, **self._before}
        return {n: v[u] for n, v in known.items() if n in self.sites}

    def _draw_after(
        self, drawn_sites: dict[str, Any], missing: list[str], key: Any, n: int
    ) -> dict[str, np.ndarray]:
        """Sites behind the scan given the drawn ones."""
        from ppcore.semantics.batched import simulate_many

        given = {k: np.broadcast_to(v, (n, *v.shape)) for k, v in self._evidence.items()}
        given.update(drawn_sites)
        latent = {k: v for k, v in given.items() if k in self._joint.named("sample")}
        with precision.scope("float64"):
            found = simulate_many(self._joint, self._data, latent, key, n)
            return {s: np.asarray(found[s]) for s in missing}


def _law_of(values: np.ndarray, law: np.ndarray) -> FiniteMarginal:
    """The law of values[S, *shape] under law[T, S]: probs[T, *shape, K]."""
    known, codes = np.unique(values, return_inverse=True)
    codes = codes.reshape(len(values), -1)
    hit = (codes[:, :, None] == np.arange(len(known))).astype(float)
    probs = np.einsum("ts,sjk->tjk", law, hit)
    return FiniteMarginal(known, probs.reshape(len(law), *values.shape[1:], len(known)))
