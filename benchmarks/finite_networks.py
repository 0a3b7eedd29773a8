"""Exact inference on classic Bayesian networks, side by side with pgmpy and pyAgrum.

For each network: all posterior marginals given some evidence, by ppcore, by pyAgrum's
LazyPropagation and by pgmpy's VariableElimination (one query a node, which is faster there than its
BeliefPropagation), with the largest difference. Times are medians of repeated queries with new
evidence values on the same nodes; declaring the model and its first query (which finds the
elimination order) are reported apart. pgmpy is timed once, on at most ``QUERIES`` nodes, and scaled
to all.

Run ``python -m benchmarks.finite_networks [network …]``; needs ``pgmpy`` and ``pyagrum``, whose
files and engines it uses.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import ppcore as pp
from benchmarks.bif import Bayes, read
from ppcore import dist

DEFAULT = (
    "asia sachs child insurance alarm hailfinder hepar2 win95pts andes pigs water barley "
    "pathfinder diabetes munin2"
).split()

QUERIES = 30


def declare(net: Bayes) -> Any:
    """The network as a model, one categorical site a node."""

    @pp.model
    def network() -> None:
        wires: dict[str, Any] = {}
        for node, above in net.parents.items():
            rows = net.tables[node]
            chosen = pp.math.get_at(rows, tuple(wires[p] for p in above)) if above else rows
            wires[node] = pp.sample(node, dist.Categorical(chosen))

    return network()


def evidence_for(net: Bayes, seed: int, n: int) -> list[dict[str, int]]:
    """Evidence on the last few leaves, drawn from the network itself so that it is possible."""
    rng = np.random.default_rng(seed)
    inner = {p for above in net.parents.values() for p in above}
    leaves = [v for v in net.parents if v not in inner][-3:]
    out = []
    for _ in range(n):
        state: dict[str, int] = {}
        for node, above in net.parents.items():
            row = net.tables[node][tuple(state[p] for p in above)]
            state[node] = int(rng.choice(len(row), p=row))
        out.append({v: state[v] for v in leaves})
    return out


def median_ms(run: Callable[[dict[str, int]], Any], cases: list[dict[str, int]]) -> float:
    seconds = []
    for case in cases:
        began = time.perf_counter()
        run(case)
        seconds.append(time.perf_counter() - began)
    return 1e3 * float(np.median(seconds))


def ours(model: Any, nodes: list[str]) -> Callable[[dict[str, int]], dict[str, np.ndarray]]:
    def run(case: dict[str, int]) -> dict[str, np.ndarray]:
        solution = model.observe(case).solve(["tensor"])
        return {n: solution.marginal(n).probs for n in nodes if n not in case}

    return run


def agrum_net(net: Bayes) -> Any:
    """The network as pyAgrum's."""
    import pyagrum as gum

    bn = gum.BayesNet()
    for node, states in net.states.items():
        bn.add(gum.LabelizedVariable(node, node, len(states)))
    for node, above in net.parents.items():
        for p in above:
            bn.addArc(p, node)
    for node, above in net.parents.items():
        cpt = bn.cpt(node)
        names = list(cpt.names)  # the node itself, then its parents in pyAgrum's own order
        axes = [(*above, node).index(n) for n in reversed(names)]
        cpt[:] = np.ascontiguousarray(net.tables[node].transpose(axes))
    return bn


def agrum(net: Bayes, nodes: list[str]) -> Callable[[dict[str, int]], dict[str, np.ndarray]]:
    import pyagrum as gum

    engine = gum.LazyPropagation(agrum_net(net))

    def run(case: dict[str, int]) -> dict[str, np.ndarray]:
        engine.setEvidence(case)
        engine.makeInference()
        return {n: engine.posterior(n).toarray() for n in nodes if n not in case}

    return run


def pgm(net: Bayes, nodes: list[str]) -> Callable[[dict[str, int]], dict[str, np.ndarray]]:
    from pgmpy.factors.discrete import TabularCPD
    from pgmpy.inference import VariableElimination
    from pgmpy.models import DiscreteBayesianNetwork

    bn = DiscreteBayesianNetwork()
    bn.add_nodes_from(net.parents)
    bn.add_edges_from((p, n) for n, above in net.parents.items() for p in above)
    for node, above in net.parents.items():
        rows = net.tables[node]
        flat = np.moveaxis(rows, -1, 0).reshape(rows.shape[-1], -1)
        bn.add_cpds(TabularCPD(node, rows.shape[-1], flat, list(above), list(rows.shape[:-1])))
    engine = VariableElimination(bn)

    def run(case: dict[str, int]) -> dict[str, np.ndarray]:
        return {
            n: engine.query([n], evidence=case, show_progress=False).values
            for n in nodes
            if n not in case
        }

    return run


def compare(name: str, net: Bayes, repeats: int, slow: bool) -> dict[str, Any]:
    nodes = list(net.parents)
    cases = evidence_for(net, 0, repeats + 1)
    began = time.perf_counter()
    model = declare(net)
    declared = time.perf_counter()
    mine = ours(model, nodes)
    found = mine(cases[0])
    row: dict[str, Any] = {
        "network": name,
        "nodes": len(nodes),
        "declare_ms": 1e3 * (declared - began),
        "first_ms": 1e3 * (time.perf_counter() - declared),
        "ppcore_ms": median_ms(mine, cases[1:]),
    }
    theirs = agrum(net, nodes)
    began = time.perf_counter()
    expected = theirs(cases[0])
    row["pyagrum_first_ms"] = 1e3 * (time.perf_counter() - began)
    row["error"] = max(float(np.abs(found[n] - expected[n]).max()) for n in found)
    row["pyagrum_ms"] = median_ms(theirs, cases[1:])
    if slow:
        some = nodes[:: max(len(nodes) // QUERIES, 1)]
        scale = len(found) / sum(n not in cases[1] for n in some)
        row["pgmpy_ms"] = scale * median_ms(pgm(net, some), cases[1:2])
    return row


def main() -> None:
    import pgmpy

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=DEFAULT)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--no-pgmpy", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folder = Path(pgmpy.__file__).parent / "utils" / "example_models"
    rows = []
    for name in options.networks:
        net = read(folder / f"{name}.bif.gz")
        row = compare(name, net, options.repeats, not options.no_pgmpy)
        rows.append(row)
        shown = (f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items())
        print("  ".join(shown), flush=True)
    if options.json:
        packages = ("ppcore", "pyagrum", "pgmpy", "numpy")
        about = {p: version(p) for p in packages} | {"python": platform.python_version()}
        options.json.write_text(json.dumps({"versions": about, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
