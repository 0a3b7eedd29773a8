"""nutpie's NUTS as an engine: Rust chains on host threads over the compiled gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import numpy as np

from ppcore import precision
from ppcore.contract import Consistent, Contract
from ppcore.engine import Report, Warm
from ppcore.errors import PPCoreError, SettingsError, StartError, did_you_mean
from ppcore.settings import check_between, check_count
from ppcore.tuning.noise import spawned
from ppcore.tuning.start import scattered

BATCH = 64
METRICS = ("diagonal", "low_rank")


@jax.jit
def _value_and_gradient(target: Any, x: Any) -> tuple[Any, Any]:
    return jax.value_and_grad(lambda v: target.log_density(v))(x)


@jax.jit
def _log_densities(target: Any, x: Any) -> Any:
    return jax.vmap(target.log_density)(x)


@dataclass(frozen=True)
class Nutpie:
    """One complete run of nutpie for every block: its tuning, then n draws of every chain.

    nutpie cannot be handed a state, a step size or a metric, so what it tunes cannot be frozen by
    ppcore and no kernel is left of which invariance could be promised: averages converge, as those
    of NUTS after a finite adaptation. A block is one whole run, from where the last ended; by
    default all draws make one block. A run saved in smaller blocks (``block_size``) tunes anew in
    each. Chains run on threads of the host, and each gradient is a call into Python: the engines
    ``nuts`` and ``ensemble`` stay in one compiled program.

    Parameters
    ----------
    tune : int
        Draws per chain that nutpie tunes with, and drops.
    target_accept : float
        Mean acceptance probability that the step size is tuned for.
    max_depth : int
        Doublings of a trajectory, at most.
    metric : str
        "diagonal", or "low_rank" (nutpie's low-rank modified mass matrix).

    Raises
    ------
    ppcore.errors.SettingsError
        If a setting is out of range.

    Source: Seyboldt, Carlson & Carpenter 2026, arXiv:2603.18845; Hoffman & Gelman 2014,
    arXiv:1111.4246.

    >>> Nutpie(tune=300).contract
    Consistent()
    """

    tune: int = 400
    target_accept: float = 0.8
    max_depth: int = 10
    metric: str = "diagonal"
    contract: ClassVar[Contract] = Consistent()
    compiled: ClassVar[bool] = True
    host: ClassVar[bool] = True
    # Larger than any run: all draws make one block, and so one tuning.
    block_size: ClassVar[int] = 2**31
    default_chains: int = field(default=4, init=False)
    default_draws: int = field(default=1000, init=False)

    def __post_init__(self) -> None:
        check_count("tune", self.tune, 50)
        check_between("target_accept", self.target_accept, 0, 1)
        check_count("max_depth", self.max_depth, 1)
        if self.metric not in METRICS:
            hint = did_you_mean(str(self.metric), METRICS)
            raise SettingsError(f"metric={self.metric!r} is not known. {hint}")

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        """Scattered starts of finite log density; nutpie tunes in the block.

        Raises :class:`ppcore.errors.StartError` if no finite log density is found.
        """
        host_key, prior_key = spawned(key, 2)
        rng = np.random.default_rng(seed_of(host_key))
        dtype = jax.numpy.result_type(float)

        def evaluate(x: np.ndarray) -> tuple[np.ndarray, None]:
            padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % BATCH, axis=0)]).astype(dtype)
            parts = padded.reshape(-1, BATCH, x.shape[1])
            found = [np.asarray(_log_densities(target, part)) for part in parts]
            return np.concatenate(found)[: len(x)], None

        found: Any = evaluate
        x = scattered(found, rng, prior_key, target, (chains, target.dim))[0]
        return Warm((), x.astype(dtype))

    def init(self, key: Any, target: Any, tuned: Any, x: Any) -> Any:
        """The positions ``x``: float[chains, d]; nothing else is carried."""
        return np.asarray(x)

    def block(
        self, key: Any, target: Any, tuned: Any, carry: Any, n: int
    ) -> tuple[Any, Any, dict[str, Any]]:
        """A run of nutpie: ``tune`` draws that are dropped, then draws: float[chains, n, d].

        The gradients of the tuning are counted with the first draw. Chains start at rows of
        ``carry``, each at one drawn at random.

        Raises :class:`ppcore.errors.StartError` if nutpie refuses the start, and
        :class:`ppcore.errors.PPCoreError` if it fails later.
        """
        import nutpie

        x = np.asarray(carry)
        model = compiled(target, x)
        try:
            trace = nutpie.sample(
                model,
                draws=n,
                tune=self.tune,
                chains=len(x),
                seed=seed_of(key),
                progress_bar=False,
                save_warmup=True,
                low_rank_modified_mass_matrix=self.metric == "low_rank",
                target_accept=self.target_accept,
                maxdepth=self.max_depth,
            )
        except RuntimeError as error:
            kind = StartError if "init" in str(error).lower() else PPCoreError
            raise kind(f"nutpie gave up: {error}") from error
        draws = np.asarray(trace.posterior["x"]).astype(x.dtype)
        if draws.shape[1] < n:
            # nutpie answers an interrupt with the draws so far; ppcore stops at its last block.
            raise KeyboardInterrupt
        said = trace.sample_stats
        gradients = np.asarray(said["n_steps"]).astype(np.int64)
        gradients[:, 0] += np.asarray(trace.warmup_sample_stats["n_steps"]).sum(1).astype(np.int64)
        stats = {
            "log_density": np.asarray(said["logp"]).astype(x.dtype),
            "diverging": np.asarray(said["diverging"]),
            "n_gradients": gradients,
            "step_size": np.asarray(said["step_size"]).astype(x.dtype),
        }
        return draws[:, -1], draws, stats


def compiled(target: Any, starts: np.ndarray) -> Any:
    """The target for nutpie, with chains that start at the rows of ``starts``: float[chains, d].

    The precision is set in each call, since it belongs to a thread and nutpie has its own.
    """
    from nutpie.compiled_pyfunc import from_pyfunc

    dim, dtype = starts.shape[1], starts.dtype

    def make_log_density() -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        def log_density(x: np.ndarray) -> tuple[float, np.ndarray]:
            with precision.scope(dtype.name):
                value, gradient = _value_and_gradient(target, x.astype(dtype))
            return float(value), np.asarray(gradient, float)

        return log_density

    def make_expand(seed: int, other: int, chain: int) -> Callable[[np.ndarray], dict[str, Any]]:
        return lambda x: {"x": np.asarray(x, float)}

    return from_pyfunc(
        dim,
        make_log_density,
        make_expand,
        [np.dtype(float)],
        [(dim,)],
        ["x"],
        make_initial_point_fn=lambda seed: np.asarray(
            starts[np.random.default_rng(seed).integers(len(starts))], float
        ),
    )


def seed_of(key: Any) -> int:
    """A key as a seed of 32 bits."""
    words = np.asarray(jax.random.key_data(key)).ravel()
    return int(np.random.SeedSequence([int(word) for word in words]).generate_state(1)[0])
