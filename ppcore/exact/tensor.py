"""The tensor solver: finite models, exactly, by elimination on a junction tree."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcore.diagram import Box, Diagram
from ppcore.errors import ModelError, did_you_mean
from ppcore.exact.junction_tree import JunctionTree
from ppcore.exact.protocol import FiniteMarginal, NotExact, ZeroEvidenceError, generator
from ppcore.semantics.finite import Factor, Finite, Network, TooLarge
from ppcore.semantics.finite_dist import finite_values, is_delta
from ppcore.semantics.finite_ops import settings
from ppcore.semantics.tensor import NotFinite, contract, network, output_axis
from ppcore.space import Space


def solve_tensor(
    joint: Diagram, data: Sequence[Any], evidence: Mapping[str, Any]
) -> FiniteSolution:
    """The posterior of a model whose latent sites are finite.

    Scalar finite evidence is cut out of the factors, so that other values of it reuse both the
    factors and the elimination order; other evidence becomes part of the factors.

    Parameters
    ----------
    joint, data, evidence
        See :mod:`ppcore.exact`.

    Raises
    ------
    NotExact
        A latent site is not finite, or summing out would take too large a table.
    ZeroEvidenceError
        p(evidence) = 0.
    """
    cut = {n for n, b in _sites(joint).items() if n in evidence and _sliceable(b)}
    bound = {n: v for n, v in evidence.items() if n not in cut}
    try:
        factors = _factors(joint, tuple(data), bound)
    except NotFinite as error:
        raise NotExact("tensor", error.box, error.why) from None
    sites = tuple(str(n) for n in joint.output_names if n is not None and n not in evidence)
    fixed = {}
    for name in cut:
        variable = int(factors.net.sites[name].slots[0])
        values = factors.net.values[variable]
        state = int(np.searchsorted(values, evidence[name]))
        if state >= len(values) or values[state] != evidence[name]:
            raise ZeroEvidenceError(f"Site {name!r} cannot be {evidence[name]}.")
        fixed[variable] = state
    spaces = {str(n): s for n, s in zip(joint.output_names, joint.cod, strict=True)}
    solution = FiniteSolution(factors, fixed, sites, spaces)
    if solution.log_evidence == -np.inf:
        shown = ", ".join(f"{n} = {_short(v)}" for n, v in evidence.items()) or "a factor"
        raise ZeroEvidenceError(
            f"The evidence has probability zero under the model ({shown}), so there is nothing to "
            "condition on. Check the values, or give the model noise that allows them."
        )
    return solution


@dataclass(frozen=True, eq=False)
class Factors:
    """A network with its tables ready: exp(log − max), spans, and the maxima.

    ``defines`` holds for each factor the variable that is a function of its others, or −1.
    """

    net: Network
    scopes: tuple[tuple[int, ...], ...]
    logs: tuple[np.ndarray, ...]
    tables: tuple[np.ndarray, ...]
    spans: tuple[float, ...]
    defines: tuple[int, ...]
    offset: float

    @classmethod
    def of(cls, net: Network) -> Factors:
        scopes, logs, tables, spans, defines, offset = [], [], [], [], [], 0.0
        derived = {f: v for v, f in net.derived.items()}
        for k, f in enumerate(net.factors):
            top = float(f.log.max()) if f.log.size else 0.0
            offset += top
            if not f.scope:
                continue
            log = f.log - top if np.isfinite(top) else np.zeros(f.log.shape)
            low = np.min(log, initial=0.0, where=np.isfinite(log))
            scopes.append(f.scope)
            logs.append(log)
            tables.append(np.exp(log))
            spans.append(-float(low))
            defines.append(derived.get(k, -1))
        return cls(
            net, tuple(scopes), tuple(logs), tuple(tables), tuple(spans), tuple(defines), offset
        )

    def needed(self, wanted: Collection[int]) -> list[int]:
        """Factors without those of functions of other variables that nobody asks for."""
        asked = set(wanted)
        keep = []
        for i in sorted(range(len(self.scopes)), key=lambda i: self.defines[i], reverse=True):
            if self.defines[i] < 0 or self.defines[i] in asked:
                keep.append(i)
                asked.update(self.scopes[i])
        return sorted(keep)


class FiniteSolution:
    """p(sites | evidence) of a finite model; see :class:`ppcore.exact.protocol.Solution`."""

    solver = "tensor"

    def __init__(
        self,
        factors: Factors,
        fixed: Mapping[int, int],
        sites: tuple[str, ...],
        spaces: Mapping[str, Space],
    ):
        self.factors, self.fixed, self.sites, self.spaces = factors, dict(fixed), sites, spaces
        self.net = factors.net
        self._tree = self._grow(())
        self.log_evidence = float(self._tree.log_total)

    def _grow(self, extra: tuple[tuple[int, ...], ...]) -> JunctionTree:
        """The tree given the evidence; ``extra`` scopes are made to lie inside a clique."""
        f, fixed = self.factors, self.fixed
        offset = f.offset
        scopes: list[tuple[int, ...]] = []
        tables, logs, spans = [], [], []
        for i in f.needed({v for scope in extra for v in scope}):
            scope, table, log = f.scopes[i], f.tables[i], f.logs[i]
            if not fixed.keys().isdisjoint(scope):
                at = tuple(fixed.get(v, slice(None)) for v in scope)
                table, log = table[at], log[at]
                scope = tuple(v for v in scope if v not in fixed)
                if not scope:
                    offset += float(log)
                    continue
            scopes.append(scope)
            tables.append(table)
            logs.append(log)
            spans.append(f.spans[i])
        for scope in extra:
            shape = tuple(self.net.cards[v] for v in scope)
            scopes.append(scope)
            tables.append(np.ones(shape))
            logs.append(np.zeros(shape))
            spans.append(0.0)
        try:
            return JunctionTree(scopes, tables, spans, offset, self.net.cards, logs)
        except TooLarge as error:
            label = self.net.labels[max(scopes, key=len)[0]] if scopes else "the model"
            raise NotExact("tensor", label, f"{error.args[0]}.") from None

    def value(self, site: str) -> Finite:
        """A site as a function of the finite variables.

        Raises :class:`ModelError` for a name that is no site.
        """
        if site not in self.net.sites:
            hint = did_you_mean(site, self.net.sites)
            raise ModelError(f"The model has no site {site!r}. {hint}")
        return self.net.sites[site]

    def probabilities(self, scopes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """p(variables | evidence) for several scopes, one axis a variable."""
        free = [tuple(v for v in s if v not in self.fixed) for s in scopes]
        found = [self._tree.joint(s) if s else np.ones(()) for s in free]
        missing = tuple(
            sorted({tuple(sorted(s)) for s, p in zip(free, found, strict=True) if p is None})
        )
        if missing:
            tree = self._grow(missing)
            found = [tree.joint(s) if p is None else p for s, p in zip(free, found, strict=True)]
        out = []
        for scope, p in zip(scopes, found, strict=True):
            assert p is not None
            full = np.zeros([self.net.cards[v] for v in scope])
            full[tuple(self.fixed.get(v, slice(None)) for v in scope)] = p
            out.append(full)
        return out

    def marginal(self, site: str) -> FiniteMarginal:
        """The law of each element of a site."""
        value = self.value(site)
        size = int(np.prod(value.shape, dtype=int))
        columns = [tuple(int(s.reshape(-1)[j]) for s in value.slots) for j in range(size)]
        scopes = [tuple(dict.fromkeys(v for v in c if v >= 0)) for c in columns]
        values, codes = np.unique(value.table, return_inverse=True)
        codes = codes.reshape((*value.cards, size))
        probs = np.zeros((size, len(values)))
        for j, p in enumerate(self.probabilities(scopes)):
            at: list[Any] = []
            for v in columns[j]:
                at.append(0 if v < 0 else _axis(len(p.shape), scopes[j].index(v), p.shape))
            mine = np.broadcast_to(codes[(*at, j)] if at else codes[j], p.shape)
            probs[j] = np.bincount(mine.ravel(), p.ravel(), len(values))
        return FiniteMarginal(values, probs.reshape((*value.shape, len(values))))

    def table(self, *sites: str) -> np.ndarray:
        """p(sites | evidence): one axis for each element of each site, over its space's values.

        Raises :class:`NotExact` for a site whose space is not finite.
        """
        net = copy(self.net)
        net.values, net.labels = list(net.values), list(net.labels)
        net.factors = []
        axes: list[int] = []
        for site in sites:
            value = self.value(site)
            space = self.spaces[site]
            if finite_values(space) is None:
                raise NotExact("tensor", site, f"its values are {space.support}, not a finite set.")
            axes.extend(output_axis(net, value.at(j), space) for j in range(space.size))
        scope = tuple(sorted({v for f in net.factors for v in f.scope} - set(axes)))
        p = self.probabilities([scope])[0]
        with np.errstate(divide="ignore"):
            net.factors.append(Factor(scope, np.log(p)))
        return contract(net, axes, only=True)

    def sample(self, key: Any, n: int) -> dict[str, np.ndarray]:
        """``n`` independent draws of all sites jointly: {site: array[n, *shape]}."""
        drawn = self._tree.sample(generator(key), n)
        drawn.update({v: np.full(n, state) for v, state in self.fixed.items()})
        for v, k in sorted(self.net.derived.items()):
            if v not in drawn:
                *above, _ = self.net.factors[k].scope
                code = self.net.factors[k].log.argmax(-1)
                drawn[v] = code[tuple(drawn[u] for u in above)]
        return {site: settings(self.net.sites[site], drawn, n) for site in self.sites}


def _axis(ndim: int, at: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(shape[at]).reshape([-1 if i == at else 1 for i in range(ndim)])


def _sites(joint: Diagram) -> dict[str, Box]:
    """Sample boxes outside scans and plates."""
    return {str(n.box.name): n.box for n in joint.nodes if n.box.op == "sample"}


def _sliceable(box: Box) -> bool:
    space = box.cod[0]
    return space.shape == () and not is_delta(box) and finite_values(space) is not None


_recent: dict[Any, tuple[tuple[Any, ...], Factors]] = {}


def _factors(joint: Diagram, data: tuple[Any, ...], bound: Mapping[str, Any]) -> Factors:
    """The factors of a joint; those of recent models without bound evidence are kept."""
    if bound:
        return Factors.of(network(joint, data, bound)[0])
    key = (joint, tuple(id(d) for d in data))
    if key not in _recent:
        while len(_recent) >= 8:
            _recent.pop(next(iter(_recent)))
        _recent[key] = (data, Factors.of(network(joint, data)[0]))
    return _recent[key][1]


def _short(value: Any) -> str:
    array = np.asarray(value)
    return str(array) if array.size < 4 else f"an array of shape {array.shape}"
