"""Pyro's NUTS as an engine: its Python on the host, over the compiled density and gradient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import torch

from ppcore.contract import Consistent, Contract
from ppcore.engine import Report, Warm
from ppcore.settings import check_between, check_count
from ppcore.torch_view import TorchView
from ppcore.tuning.noise import spawned
from ppcore.tuning.start import scattered
from ppcore_pyro.program import double_precision

BATCH = 64


def words(key: Any) -> list[int]:
    """A key as the seed of a generator on the host."""
    return [int(word) for word in np.asarray(jax.random.key_data(key)).ravel()]


def seed_of(key: Any) -> int:
    """A key as a seed of 32 bits."""
    return int(np.random.SeedSequence(words(key)).generate_state(1)[0])


@dataclass(frozen=True)
class PyroNUTS:
    """One complete run of Pyro's NUTS for every block: its warm-up, then n draws of every chain.

    Pyro keeps what it tunes to itself, so that nothing can be frozen and no kernel is left of which
    invariance could be promised: averages converge, as those of NUTS after a finite adaptation. A
    block is one whole run, from where the last ended; by default all draws make one block. Chains
    run one after the other; each leapfrog step is a call from Python into the compiled program, so
    that the engines ``nuts`` and ``ensemble`` are far faster.

    Parameters
    ----------
    warmup_draws : int
        Draws per chain that Pyro tunes with, and drops.
    target_accept : float
        Mean acceptance probability that the step size is tuned for.
    max_depth : int
        Doublings of a trajectory, at most.
    dense : bool
        Whether the metric is a full matrix.

    Raises
    ------
    ppcore.errors.SettingsError
        If a setting is out of range.

    Source: Hoffman & Gelman 2014, arXiv:1111.4246; Bingham et al. 2019, JMLR 20(28).

    >>> PyroNUTS(warmup_draws=200).contract
    Consistent()
    """

    warmup_draws: int = 300
    target_accept: float = 0.8
    max_depth: int = 10
    dense: bool = False
    contract: ClassVar[Contract] = Consistent()
    compiled: ClassVar[bool] = True
    host: ClassVar[bool] = True
    # Larger than any run: all draws make one block, and so one tuning.
    block_size: ClassVar[int] = 2**31
    default_chains: int = field(default=4, init=False)
    default_draws: int = field(default=500, init=False)

    def __post_init__(self) -> None:
        check_count("warmup_draws", self.warmup_draws, 1)
        check_between("target_accept", self.target_accept, 0, 1)
        check_count("max_depth", self.max_depth, 1)

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        """Scattered starts of finite log density; Pyro tunes in the block.

        Raises :class:`ppcore.errors.StartError` if no finite log density is found.
        """
        host_key, prior_key = spawned(key, 2)
        rng = np.random.default_rng(words(host_key))
        dtype = jnp.result_type(float)
        view = TorchView(target, dtype.name)

        def evaluate(x: np.ndarray) -> tuple[np.ndarray, None]:
            padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % BATCH, axis=0)]).astype(dtype)
            parts = torch.as_tensor(padded).split(BATCH)
            return torch.cat([view.log_density(p) for p in parts]).numpy()[: len(x)], None

        found: Any = evaluate
        x = scattered(found, rng, prior_key, target, (chains, target.dim))[0]
        return Warm((), x.astype(dtype))

    def init(self, key: Any, target: Any, tuned: Any, x: Any) -> Any:
        """The positions ``x``: float[chains, d]; nothing else is carried."""
        return np.asarray(x)

    def block(
        self, key: Any, target: Any, tuned: Any, carry: Any, n: int
    ) -> tuple[Any, Any, dict[str, Any]]:
        """A run of Pyro's: ``warmup_draws`` to tune with, then draws: float[chains, n, d].

        The gradients of the tuning are counted with the first draw.
        """
        x = np.asarray(carry)
        view = TorchView(target, x.dtype.name)
        with double_precision(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(key))
            runs = [self._chain(view, row, n) for row in x]
        draws = np.stack([draws for draws, _ in runs]).astype(x.dtype)
        stats = {name: np.stack([found[name] for _, found in runs]) for name in runs[0][1]}
        return draws[:, -1], draws, stats

    def _chain(self, view: Any, x: np.ndarray, n: int) -> tuple[np.ndarray, dict[str, Any]]:
        """Draws float[n, d] of one chain, and what Pyro says of each."""
        from pyro.infer import MCMC, NUTS

        log_density: list[float] = []
        gradients, before = [], 0
        calls, diverged = 0, []

        def potential(z: dict[str, torch.Tensor]) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return -view.log_density(z["x"][None])[0]

        def see(kernel: Any, z: Any, stage: str, i: int) -> None:
            nonlocal before, diverged
            if not stage.lower().startswith("warm"):
                log_density.append(-float(kernel._potential_energy_last))
                gradients.append(calls - before)
                before = calls
                diverged = kernel.diagnostics()["divergences"]

        kernel = NUTS(
            potential_fn=potential,
            target_accept_prob=self.target_accept,
            max_tree_depth=self.max_depth,
            full_mass=self.dense,
        )
        run = MCMC(
            kernel,
            num_samples=n,
            warmup_steps=self.warmup_draws,
            initial_params={"x": torch.as_tensor(np.array(x, float))},
            hook_fn=see,
            disable_progbar=True,
        )
        run.run()
        diverging = np.zeros(n, bool)
        diverging[diverged] = True
        stats = {
            "log_density": np.array(log_density, x.dtype),
            "diverging": diverging,
            "n_gradients": np.array(gradients, np.int64),
        }
        return run.get_samples()["x"].numpy(), stats
