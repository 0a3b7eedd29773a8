"""Posteriors learnt from simulations: for any data of the same shape, at once."""

from __future__ import annotations

import json
import os
import time
import uuid
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ppcore import precision, registry
from ppcore.contract import Amortised as AmortisedContract
from ppcore.contract import Contract
from ppcore.errors import SettingsError, UnsupportedError, did_you_mean
from ppcore.fit import refined
from ppcore.fit.calibration import Calibration, calibrated
from ppcore.fit.fit import Fit
from ppcore.fit.joint import Joint, joint_of
from ppcore.fit.store import StoreError
from ppcore.report import SamplingWarning
from ppcore.run.describe import engine_settings
from ppcore.run.keys import Keys
from ppcore.run.plan import check_seed, count, versions
from ppcore.run.progress import show

FORMAT = 1
REFINE = ("auto", "none", "importance", "smc")
FEW = 0.5


@dataclass(frozen=True, eq=False)
class Amortised:
    """q(θ | y) ≈ p(θ | y) for every y: trained once on draws of the joint, then frozen.

    Made by ``model.amortise(observe=[...])`` and by :meth:`load`.

    Attributes
    ----------
    joint : Joint
        The model as a simulator.
    density : ConditionalDensity
        q, in unconstrained coordinates.
    engine : AmortisedEngine
        Who learnt it.
    reach : float[2, m]
        The least and the greatest value of each number of the data in the simulations.
    attrs : dict
        Engine, settings, seed, simulations, versions, timings, notes, and how training went.

    >>> import ppcore as pp
    >>> from ppcore import dist
    >>> @pp.model
    ... def mean():
    ...     mu = pp.sample("mu", dist.Normal(0, 1))
    ...     with pp.plate("i", 3):
    ...         pp.sample("y", dist.Normal(mu, 1))
    >>> learnt = mean().amortise(
    ...     observe=["y"], simulations=512, seed=1, members=1, layers=1, width=8, epochs=4)
    >>> learnt
    <amortised mean: mu | y, 512 simulations>
    >>> fit = learnt.posterior(y=[0.1, 0.9, 0.5], draws=500, seed=2)
    >>> fit.draws("mu").shape
    (4, 500)
    """

    joint: Joint
    density: Any
    engine: Any
    reach: np.ndarray
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def contract(self) -> Contract:
        """Calibrated on average over the joint, as far as training went."""
        return AmortisedContract()

    @property
    def notes(self) -> tuple[str, ...]:
        """What training left to say."""
        return tuple(self.attrs["notes"])

    def posterior(
        self,
        values: Mapping[str, Any] | None = None,
        /,
        *,
        draws: int = 1000,
        chains: int = 4,
        seed: int = 0,
        refine: str = "auto",
        **named: Any,
    ) -> Fit:
        """The fit at data ``name=value``: draws of q, corrected by the likelihood where known.

        Parameters
        ----------
        draws, chains : int
        seed : int
        refine : str
            "importance" weighs draws of q by γ/q: E[Ẑ] = Z whatever q is, and k-hat says how far
            to trust it. "smc" carries them from q to the posterior by tempering and moves. "none"
            returns draws of q. "auto" weighs where the model has a density, and does nothing else.

        Raises
        ------
        EvidenceError, SettingsError
            For data that the model cannot have made, or that are missing.
        UnsupportedError
            If a refinement needs the density of a simulator that has none, or of inferred sites
            alone.
        PopulationError
            If all weights vanish.

        Warns
        -----
        SamplingWarning
            If data lie beyond all simulations, or the weights are few.
        """
        given = {**(values or {}), **named}
        if refine not in REFINE:
            raise SettingsError(f"refine={refine!r} is not known. {did_you_mean(refine, REFINE)}")
        if refine in ("importance", "smc") and not self.joint.has_density:
            raise UnsupportedError(
                f"refine={refine!r} needs the density of the inferred sites given the data, and "
                f"this model has none{self._why()}. Use refine='none', and calibrate()."
            )
        model, y = self.joint.given(given)
        seed, outside = check_seed(seed), self._outside(y)
        draws, chains = count("draws", draws), count("chains", chains)
        if outside:
            warnings.warn(outside, SamplingWarning, stacklevel=2)
        made = "importance" if refine == "auto" and self.joint.has_density else refine
        if made in ("none", "auto"):
            return refined.plain(self, model, y, draws, chains, seed, outside)
        return refined.corrected(self, model, y, draws, chains, seed, made)

    def sample(
        self,
        values: Mapping[str, Any] | None = None,
        /,
        *,
        n: int = 1000,
        seed: int = 0,
        **named: Any,
    ) -> dict[str, np.ndarray]:
        """``n`` independent draws of q at data ``name=value``: {site: array[n, ...]}."""
        model, y = self.joint.given({**(values or {}), **named})
        x = self.draws_at(y, count("n", n), Keys(check_seed(seed)).block(0))
        return refined.sites(self.joint, model, x)

    def log_density(
        self, theta: Mapping[str, Any], values: Mapping[str, Any] | None = None, /, **named: Any
    ) -> np.ndarray:
        """log q(θ | y) in the sites' own units, Jacobians included: float[n].

        ``theta`` holds the inferred sites, array[n, ...]; the data are ``name=value``.

        Raises :class:`ppcore.errors.SettingsError` if a site is missing.
        """
        model, y = self.joint.given({**(values or {}), **named})
        missing = [n for n in self.joint.sites if n not in theta]
        if missing:
            raise SettingsError(f"Values of site {missing[0]!r} are missing.")
        return refined.own_density(self, model, y, theta)

    def calibrate(self, simulations: int = 256, draws: int = 99, seed: int = 1) -> Calibration:
        """Ranks of fresh joint draws among draws of q, and coverage of its intervals.

        Where q is the posterior, ranks are uniform: of every coordinate, of log q itself (whose
        ranks give the coverage of highest-density regions), and of the log likelihood where it is
        known.

        Source: Talts et al. 2018, arXiv:1804.06788; Modrák et al. 2023, arXiv:2211.02383;
        Hermans et al. 2022, arXiv:2110.06581.
        """
        n, each = count("simulations", simulations), count("draws", draws)
        return calibrated(self.joint, self.density, n, each, Keys(check_seed(seed)).block(1))

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write everything but the model to ``path``, as a whole or not at all; :meth:`load` reads.

        Raises :class:`~ppcore.fit.store.StoreError` if something is there.
        """
        place = Path(path)
        if place.exists() and not overwrite:
            raise StoreError(f"{place} exists. Pass overwrite=True to replace it.")
        x, y = self.joint.draw(Keys(0).warmup, 3)
        about = {"format": FORMAT, "attrs": self.attrs, "vector": self._layout()}
        arrays = {f"density.{k}": v for k, v in self.engine.pack(self.density).items()}
        beside = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}.npz")
        try:
            with beside.open("wb") as file:
                text = np.asarray(json.dumps(about))
                np.savez(file, about=text, reach=self.reach, x=x, y=y, **arrays)
            os.replace(beside, place)
        except OSError as error:
            raise StoreError(f"{place} cannot be written: {error}.") from error
        finally:
            beside.unlink(missing_ok=True)
        return place

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: Any) -> Amortised:
        """Read what :meth:`save` wrote, for the same model.

        Raises :class:`~ppcore.fit.store.StoreError` if there is nothing to read, or if the model
        simulates other numbers from the same seed than the one it was trained for.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            about = json.loads(str(arrays["about"]))
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(f"{path} is no saved amortised posterior: {error}.") from error
        if int(about["format"]) > FORMAT:
            raise StoreError(f"{path} was saved by a newer ppcore: upgrade ppcore.")
        attrs, where = about["attrs"], about["vector"]
        joint = joint_of(model, where["observe"], where["sites"], where["exchangeable"])
        x, y = joint.draw(Keys(0).warmup, 3)
        if not (_alike(x, arrays["x"]) and _alike(y, arrays["y"])):
            raise StoreError(
                f"{path} was trained for another model: from the same seed this one simulates "
                "other numbers. Declare the model as it was."
            )
        engine = registry.engine(attrs["engine"], attrs["engine_settings"])
        packed = {k[8:]: v for k, v in arrays.items() if k.startswith("density.")}
        return cls(joint, engine.unpack(packed), engine, arrays["reach"], attrs)

    def _layout(self) -> dict[str, Any]:
        vector = self.joint.vector
        plate = "none"
        if vector.rows > 1:
            plate = self.joint.model.dims[vector.names[0]][vector.axes[0]]
        return {"observe": vector.names, "sites": self.joint.sites, "exchangeable": plate}

    def draws_at(self, y: np.ndarray, n: int, key: Any) -> np.ndarray:
        """``n`` draws of q at data y: float[m], unconstrained: float[n, d]."""
        with precision.scope("float64"):
            return np.asarray(_sampled()(self.density, key, y, n))

    def _outside(self, y: np.ndarray) -> str:
        low, high = self.reach
        beyond = (y < low) | (y > high)
        if not beyond.any():
            return ""
        return (
            f"{int(beyond.sum())} of {len(y)} numbers of the data lie beyond all "
            f"{self.attrs['simulations']} simulations, where the networks only extrapolate. Trust "
            "no draw without refine='importance' or 'smc', and check the prior: it hardly ever "
            "makes such data."
        )

    def _why(self) -> str:
        return "" if self.joint.whole else f" (of {', '.join(self.joint.sites)} alone)"

    def __repr__(self) -> str:
        sites, names = ", ".join(self.joint.sites), ", ".join(self.joint.vector.names)
        n = self.attrs["simulations"]
        return f"<amortised {self.joint.model.name}: {sites} | {names}, {n} simulations>"


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-6, atol=1e-9))


@cache
def _sampled() -> Any:
    import jax

    return jax.jit(lambda density, key, y, n: density.sample(key, y, n), static_argnums=3)


def amortise(
    model: Any,
    observe: Collection[str],
    engine: str | Any = "npe",
    *,
    simulations: int | None = None,
    seed: int = 0,
    sites: Collection[str] | None = None,
    exchangeable: str = "auto",
    progress: Any = None,
    **settings: Any,
) -> Amortised:
    """See :meth:`ppcore.operations.Operations.amortise`."""
    from ppcore.run import cache as compiled

    if isinstance(engine, str):
        name, made = engine, registry.engine(engine, settings)
    elif settings:
        raise SettingsError(f"Settings of an engine object belong in {type(engine).__name__}(...).")
    else:
        name, made = type(engine).__name__.lower(), engine
    if not hasattr(made, "learn"):
        raise SettingsError(f"{name!r} learns no posteriors from simulations. Known: 'npe'.")
    compiled.enable()
    n = count("simulations", made.default_simulations if simulations is None else simulations)
    keys, began = Keys(check_seed(seed)), time.perf_counter()
    joint = joint_of(model, observe, sites, exchangeable)
    with precision.scope("float64"):
        x, y = joint.draw(keys.init, n)
    x, y, notes = _usable(x, y)
    simulated = time.perf_counter()
    with show(progress, 1) as report, precision.scope("float64"):
        learned = made.learn(keys.warmup, x, y, joint.vector.rows, report)
    ended = time.perf_counter()
    said = [*notes, *learned.notes]
    attrs: dict[str, Any] = {
        "engine": name,
        "engine_settings": engine_settings(made),
        "seed": seed,
        "simulations": n,
        "notes": said,
        "versions": versions(),
        "stats": {k: np.asarray(v).tolist() for k, v in learned.stats.items()},
        "timings": {
            "simulation_seconds": simulated - began,
            "training_seconds": ended - simulated,
        },
    }
    for note in said:
        warnings.warn(note, SamplingWarning, stacklevel=3)
    return Amortised(joint, learned.density, made, np.stack([y.min(0), y.max(0)]), attrs)


def _usable(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Simulations that are finite, and what is to say of the others.

    Raises :class:`ppcore.errors.UnsupportedError` if most are not.
    """
    good = np.isfinite(x).all(1) & np.isfinite(y).all(1)
    lost = int((~good).sum())
    if lost > FEW * len(good):
        raise UnsupportedError(
            f"{lost} of {len(good)} simulations are not finite numbers. Make the simulator return "
            "numbers for all that the prior draws, or narrow the prior."
        )
    said = f"{lost} of {len(good)} simulations were not finite and were left out: q is the "
    said += "posterior given that a simulation is finite."
    return x[good], y[good], [said] if lost else []
