"""The Kalman solver: linear-Gaussian chains of any length, in time linear in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import precision
from ppcore.diagram import Diagram
from ppcore.errors import ModelError, UnsupportedError, did_you_mean
from ppcore.exact.chain import Chain, find_chain, in_order
from ppcore.exact.chain_form import Plan, plan, steps, walked
from ppcore.exact.gaussian import GaussianSolution, solve_gaussian
from ppcore.exact.kalman import drawn, filtered, inverses, smoothed
from ppcore.exact.protocol import GaussianMarginal, NotExact, ZeroEvidenceError, generator
from ppcore.semantics.gaussian import NotGaussian, Wire
from ppcore.semantics.gaussian_kernel import GaussianKernel, disintegrate

JOINT_LIMIT = 4096
"""Elements of a path up to which its full covariance is made."""


def solve_kalman(
    joint: Diagram, data: Sequence[Any], evidence: Mapping[str, Any]
) -> KalmanSolution:
    """The posterior of a model whose scan is a linear-Gaussian chain.

    What comes before the scan may be any linear-Gaussian model with its own evidence; random values
    that the step uses become part of the state. Sites that depend on the chain's results are drawn
    forwards. Time and memory are linear in the length.

    Parameters
    ----------
    joint, data, evidence
        See :mod:`ppcore.exact`; the log evidence is the density of
        :func:`ppcore.exact.gaussian.solve_gaussian`.

    Raises
    ------
    NotExact
        There is not one scan, or a box is not linear-Gaussian.
    ZeroEvidenceError
        Evidence contradicts what the model says without noise.
    """
    chain = find_chain(joint, evidence, "kalman")
    given = {n: np.asarray(v) for n, v in evidence.items()}
    inside = set(chain.box.body.named("sample")) if chain.box.body is not None else set()
    try:
        start = solve_gaussian(
            chain.before, data, {n: v for n, v in given.items() if n not in inside}
        )
    except NotExact as error:
        raise NotExact("kalman", error.box, error.why) from None
    sites = tuple(str(n) for n in joint.output_names if n is not None and n not in evidence)
    return KalmanSolution(chain, start, joint, tuple(data), given, sites)


@dataclass(frozen=True, eq=False)
class PathMarginal:
    """The Gaussian law of a site of a chain: step by step, and jointly where that is not too large.

    Attributes
    ----------
    mean : float[T, *shape]
    covs : float[T, *shape, *shape]
        The covariance at each step.
    """

    mean: np.ndarray
    covs: np.ndarray
    full: Any

    @property
    def variance(self) -> np.ndarray:
        """float[T, *shape]."""
        length, n = len(self.mean), int(np.prod(self.mean.shape[1:], dtype=int))
        blocks = self.covs.reshape(length, n, n)
        return np.diagonal(blocks, axis1=1, axis2=2).reshape(self.mean.shape)

    @property
    def cov(self) -> np.ndarray:
        """float[T, *shape, T, *shape]; raises :class:`UnsupportedError` for long paths."""
        return np.asarray(self.full()).reshape(self.mean.shape * 2)


class KalmanSolution:
    """p(sites | evidence) of a chain; see :class:`ppcore.exact.protocol.Solution`."""

    solver = "kalman"

    def __init__(
        self,
        chain: Chain,
        start: GaussianSolution,
        joint: Diagram,
        data: tuple[Any, ...],
        evidence: Mapping[str, np.ndarray],
        sites: tuple[str, ...],
    ):
        self.chain, self.start, self.sites = chain, start, sites
        self._joint, self._data, self._evidence = joint, data, dict(evidence)
        with precision.scope("float64"):
            self._filter()

    def _filter(self) -> None:
        chain, form = self.chain, self.start.form
        wires = []
        for name, space in zip(chain.inputs, chain.box.dom, strict=True):
            if name not in form.offsets:
                raise NotExact("kalman", name, "it is not an affine function of random values.")
            random = bool(form.columns[name].any())
            wires.append(Wire(form.offsets[name].reshape(space.shape).astype(space.dtype), random))
        try:
            self.plan: Plan = plan(chain.box, wires, self._evidence)
        except NotGaussian as error:
            raise NotExact("kalman", error.box, error.why) from None
        spec = chain.box.spec
        for at in range(spec.carry, spec.carry + spec.xs):
            if self.plan.degrees[at]:
                raise NotExact("kalman", chain.inputs[at], "the stacked inputs are random.")
        inputs, given = walked(self.plan, [w.value for w in wires], self._evidence)
        self.forms = jax.tree_util.tree_map(np.asarray, steps(self.plan, inputs, given))
        names = [chain.inputs[i] for i in self.plan.state_inputs]
        self.before = (
            self.start.joint(*names) if names else GaussianKernel.state([], np.zeros((0, 0)))
        )
        root = square(self.before.factor)
        found = filtered(self.before.mean, root, self.forms)
        self.last, kept = jax.tree_util.tree_map(np.asarray, found)
        self.means, self.roots, logs, off = kept
        worst = int(np.argmax(off)) if len(off) else 0
        if len(off) and off[worst] > 1:
            step = len(off) - 1 - worst if spec.reverse else worst
            raise ZeroEvidenceError(
                f"The evidence at step {step} of the scan has density zero: without noise the "
                "model leaves it no choice. Check the values, or give the site noise."
            )
        self.log_evidence = self.start.log_evidence + float(np.sum(logs))

    @cached_property
    def inverse(self) -> dict[str, Any]:
        """The inverse kernel of every step: u | next state, evidence."""
        with precision.scope("float64"):
            return inverses(self.forms, self.means, self.roots)  # type: ignore[no-any-return]

    @cached_property
    def smooth(self) -> tuple[GaussianKernel, np.ndarray, np.ndarray]:
        """The state before the first step, and u's means [T, size] and roots [T, size, p]."""
        with precision.scope("float64"):
            (mean, root), (means, roots) = smoothed(self.last, self.inverse)
        first = GaussianKernel.state(np.asarray(mean), np.asarray(root))
        return first, np.asarray(means), np.asarray(roots)

    def filter_state(self, t: int) -> GaussianKernel:
        """x before step ``t`` of the walk given the evidence of earlier steps (T: the last)."""
        if t == len(self.means):
            return GaussianKernel.state(np.asarray(self.last[0]), np.asarray(self.last[1]))
        return GaussianKernel.state(np.asarray(self.means[t]), np.asarray(self.roots[t]))

    def marginal(self, site: str) -> GaussianMarginal | PathMarginal:
        """The law of one site; of a site in the scan, a :class:`PathMarginal`."""
        if site not in self.sites:
            raise ModelError(
                f"The model has no unobserved site {site!r}. {did_you_mean(site, self.sites)}"
            )
        if site in self.forms["c"]:
            _, means, roots = self.smooth
            c, big_c = np.asarray(self.forms["c"][site]), np.asarray(self.forms["C"][site])
            length, shape = len(c), c.shape[1:]
            flat = big_c.reshape(length, -1, self.plan.size)
            mean = c + np.einsum("tij,tj->ti", flat, means).reshape(c.shape)
            root = flat @ roots
            covs = (root @ root.swapaxes(1, 2)).reshape(length, *shape, *shape)
            turn = self.chain.box.spec.reverse
            return PathMarginal(
                in_order(mean, turn), in_order(covs, turn), lambda: self._path_cov(flat)
            )
        if site in self.chain.after or site not in self.start.form.offsets:
            raise NotExact("kalman", site, "its law is computed by drawing only; use draws of it.")
        state = self._backwards(site)
        shape = self.start.form.shapes[site]
        return GaussianMarginal(state.mean.reshape(shape), state.cov.reshape((*shape, *shape)))

    def _backwards(self, *sites: str) -> GaussianKernel:
        """Sites before the scan: the smoothed first state through the inverse of what made it."""
        names = [self.chain.inputs[i] for i in self.plan.state_inputs]
        if not names:
            return self.start.joint(*sites)
        kernel = disintegrate(self.start.joint(*names, *sites), self.plan.state)[1]
        return self.smooth[0].then(kernel)

    def _path_cov(self, flat: np.ndarray) -> np.ndarray:
        """Cov(site_s, site_t), from the inverse kernels composed between s and t."""
        length, n, _ = flat.shape
        if length * n > JOINT_LIMIT:
            raise UnsupportedError(
                f"The covariance of a path of {length * n} elements is too large to make. Use "
                "`covs` (step by step), or draws."
            )
        _, _, roots = self.smooth
        gain, k = np.asarray(self.inverse["gain"]), self.plan.state
        out = np.zeros((length, n, length, n))
        ahead = np.zeros((k, length, n))  # Cov(x before step t + 1, site at every later step)
        for t in reversed(range(length)):
            own = roots[t] @ roots[t].T
            later = np.einsum("ij,jtn->itn", gain[t], ahead)
            later[:, t] = own @ flat[t].T
            out[t] = np.einsum("mi,itn->mtn", flat[t], later)
            out[:, :, t] = np.where(
                (np.arange(length) > t)[:, None, None], out[t].transpose(1, 2, 0), out[:, :, t]
            )
            ahead = later[:k]
        if self.chain.box.spec.reverse:
            out = out[::-1, :, ::-1]
        return out

    def sample(self, key: Any, n: int) -> dict[str, np.ndarray]:
        """``n`` independent draws of all sites jointly: {site: array[n, *shape]}."""
        with precision.scope("float64"):
            first, u = drawn(self.last, self.inverse, key, n)
            out = {}
            for site, c in self.forms["c"].items():
                if site in self.sites:
                    value = c[:, None] + jnp.einsum("t...j,tnj->tn...", self.forms["C"][site], u)
                    value = in_order(np.asarray(value), self.chain.box.spec.reverse)
                    out[site] = np.moveaxis(value, 0, 1)
        out.update(self._draw_before(np.asarray(first), key, n))
        missing = [s for s in self.sites if s not in out]
        if missing:
            out.update(self._draw_after(out, missing, key, n))
        return {site: out[site] for site in self.sites}

    def _draw_before(self, first: np.ndarray, key: Any, n: int) -> dict[str, np.ndarray]:
        form = self.start.form
        sites = [s for s in self.sites if s in form.offsets and s not in self.forms["c"]]
        if not sites:
            return {}
        names = [self.chain.inputs[i] for i in self.plan.state_inputs]
        kernel = disintegrate(self.start.joint(*names, *sites), self.plan.state)[1]
        z = generator(jax.random.fold_in(key, 1)).standard_normal((n, kernel.factor.shape[1]))
        flat = first @ kernel.matrix.T + kernel.offset + z @ kernel.factor.T
        ends = np.cumsum([len(form.offsets[s]) for s in sites])[:-1]
        parts = np.split(flat, ends, axis=1)
        return {s: p.reshape(n, *form.shapes[s]) for s, p in zip(sites, parts, strict=True)}

    def _draw_after(
        self, drawn_sites: dict[str, Any], missing: list[str], key: Any, n: int
    ) -> dict[str, np.ndarray]:
        """Computed sites, and sites behind the scan, given the drawn ones."""
        from ppcore.semantics.batched import simulate_many

        given = {k: np.broadcast_to(v, (n, *v.shape)) for k, v in self._evidence.items()}
        given.update(drawn_sites)
        latent = {k: v for k, v in given.items() if k in self._joint.named("sample")}
        with precision.scope("float64"):
            found = simulate_many(self._joint, self._data, latent, key, n)
            return {s: np.asarray(found[s]) for s in missing}


def square(factor: np.ndarray) -> np.ndarray:
    """A square root with exactly as many columns as rows."""
    m, q = factor.shape
    if q > m:
        factor = np.asarray(np.linalg.qr(factor.T, mode="r")).T
    return np.pad(factor, ((0, 0), (0, m - factor.shape[1])))
