"""Neural posterior estimation: a conditional flow fitted to draws of parameters and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from ppcore.contract import Amortised, Contract
from ppcore.engine import Learned, Report
from ppcore.errors import SettingsError
from ppcore.settings import check_between, check_count
from ppcore_amortised.conditional import ConditionalFlow, Shape, create
from ppcore_amortised.training import Training, train

FLAT = 1e-9


@dataclass(frozen=True)
class NPE:
    """q(x | y) that maximises E log q(x | y) over the joint: the posterior, for every y at once.

    The expectation is over prior draws x and data y simulated at them, so that no likelihood is
    needed; its maximum over all densities is p(x | y). q is the average of several autoregressive
    spline flows in standard units, each trained on other simulations and stopped on those it holds
    out. Exchangeable rows of data go through one network each and are averaged. What the training
    missed shows in ``calibrate``, and in the importance weights at the data.

    Parameters
    ----------
    members : int
        Networks that are averaged.
    layers, width, blocks, bins : int
        Layers of each flow, units and residual blocks of its networks, bins of its splines.
    reach : float
        A spline bends [−reach, reach] standard units.
    epochs, batch, rate, patience, falls, fall, decay, held_out
        See :class:`ppcore_amortised.training.Training`.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range.

    Source: Papamakarios & Murray 2016, arXiv:1605.06376; Radev et al. 2020, arXiv:2003.06281 (one
    training for all data); Durkan et al. 2019, arXiv:1906.04032.

    >>> NPE(members=1).contract
    Amortised()
    """

    members: int = 4
    layers: int = 5
    width: int = 64
    blocks: int = 2
    bins: int = 8
    reach: float = 5.0
    epochs: int = 300
    batch: int = 128
    rate: float = 1e-3
    patience: int = 8
    falls: int = 2
    fall: float = 0.2
    decay: float = 1e-2
    held_out: float = 0.1
    default_simulations: ClassVar[int] = 10_000

    def __post_init__(self) -> None:
        for name in ("members", "layers", "width", "blocks"):
            check_count(name, getattr(self, name), 1)
        check_count("bins", self.bins, 2)
        check_between("reach", self.reach, 0, 1e3)
        _ = self.training

    @property
    def training(self) -> Training:
        """How it is trained."""
        names = Training.__dataclass_fields__
        return Training(**{name: getattr(self, name) for name in names})

    @property
    def contract(self) -> Contract:
        return Amortised()

    def learn(self, key: Any, x: Any, y: Any, rows: int, report: Report) -> Learned:
        """See :class:`ppcore.engine.AmortisedEngine`.

        Raises :class:`ppcore.errors.SettingsError` for fewer than 20 simulations, or a number of
        rows that the data cannot be split into.
        """
        x, y = np.asarray(x, float), np.asarray(y, float)
        if len(x) < 20:
            raise SettingsError(f"{len(x)} simulations are too few to learn from: give thousands.")
        if y.shape[1] % rows:
            raise SettingsError(f"rows={rows} do not divide data of {y.shape[1]} numbers.")
        shape = Shape(
            x.shape[1],
            rows,
            y.shape[1] // rows,
            self.members,
            self.layers,
            self.width,
            self.blocks,
            self.bins,
            self.reach,
        )
        units = standard_units(x, y, rows)
        in_units = (
            (x - units["x_mean"]) / units["x_scale"],
            (y - units["y_mean"]) / units["y_scale"],
        )
        rng = np.random.default_rng([int(w) for w in np.asarray(jax.random.key_data(key)).ravel()])
        made = train(rng, shape, *in_units, self.training, report)
        stats = {"loss": made.losses, "held_out": made.held_out}
        return Learned(ConditionalFlow(made.networks, units, shape), stats, made.notes)

    def pack(self, density: ConditionalFlow) -> dict[str, np.ndarray]:
        """See :class:`ppcore.engine.AmortisedEngine`."""
        leaves = jax.tree.leaves(density.networks)
        shape = {f"shape.{k}": np.asarray(v) for k, v in asdict(density.shape).items()}
        units = {f"units.{k}": np.asarray(v) for k, v in density.units.items()}
        return {**shape, **units, **{f"leaf.{i}": np.asarray(v) for i, v in enumerate(leaves)}}

    def unpack(self, arrays: Mapping[str, np.ndarray]) -> ConditionalFlow:
        """See :class:`ppcore.engine.AmortisedEngine`."""

        def under(prefix: str) -> dict[str, np.ndarray]:
            whole = {k: v for k, v in arrays.items() if k.startswith(prefix + ".")}
            return {k[len(prefix) + 1 :]: v for k, v in whole.items()}

        shape = Shape(**{k: v.item() for k, v in under("shape").items()})
        structure = jax.tree.structure(create(np.random.default_rng(0), shape))
        leaves = under("leaf")
        nets = jax.tree.unflatten(structure, [leaves[str(i)] for i in range(len(leaves))])
        return ConditionalFlow(nets, under("units"), shape)


def standard_units(x: np.ndarray, y: np.ndarray, rows: int) -> dict[str, np.ndarray]:
    """Means and standard deviations; rows share theirs, so that they stay exchangeable."""
    flat = y.reshape(-1, y.shape[1] // rows)
    made = {"x_mean": x.mean(0), "x_scale": x.std(0)}
    made |= {"y_mean": np.tile(flat.mean(0), rows), "y_scale": np.tile(flat.std(0), rows)}
    # What never varies is of no use, and is not divided by zero.
    return {k: np.where(v < FLAT, 1.0, v) if k.endswith("scale") else v for k, v in made.items()}
