"""What is stored with the draws: who made them, with which settings, at what cost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ppcore.report import Health
from ppcore.run.checks import name_of
from ppcore.run.describe import engine_settings, type_name
from ppcore.run.loop import RunResult
from ppcore.run.plan import versions

FORMAT = 1
STRUCTURED = (
    "engine_settings",
    "complete",
    "gradients",
    "timings",
    "versions",
    "notes",
    "warnings",
    "latents",
    "deterministics",
    "observed",
    "health",
    "weights",
    "plan",
    "rewrites",
)


def record(
    model: Any,
    engine: Any,
    name: str | None,
    result: RunResult,
    health: Health,
    seed: int,
    precision: str,
) -> dict[str, Any]:
    """The effective settings of engine and run, what they depend on, and how it went."""
    found = versions()
    return {
        "ppcore_format": FORMAT,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "inference_library": "ppcore",
        "inference_library_version": found["ppcore"],
        "model": str(getattr(model, "name", None) or type(model).__name__),
        "engine": name or name_of(engine),
        "engine_type": type_name(type(engine)),
        "engine_settings": engine_settings(engine),
        "contract": repr(getattr(engine, "contract", None)),
        "chains": result.x.shape[0],
        "draws": result.x.shape[1],
        "block_size": result.block_size,
        "seed": seed,
        "precision": precision,
        "complete": result.complete,
        "gradients": result.gradients,
        "timings": result.timings,
        "versions": found,
        "notes": list(result.notes),
        "warnings": list(health.warnings),
        "latents": list(getattr(model, "latents", ())),
        "deterministics": list(getattr(model, "deterministics", ())),
        "observed": list(getattr(model, "observed", ())),
        "health": {
            "divergences": health.divergences,
            "rhat": health.rhat and list(health.rhat),
            "ess": health.ess and list(health.ess),
            "energy": health.energy,
        },
    }


def as_text(record: dict[str, Any], sites: dict[str, tuple[int, ...]]) -> list[str]:
    """The record as a few lines: what was done, at what cost, and whether it can be trusted."""
    timings, gradients, health = record["timings"], record["gradients"], record["health"]
    done = "" if record["complete"] else " (interrupted)"
    seconds = timings.get("total_seconds", 0.0)
    lines = [
        f"{record['model']} by {record['engine']}: {record['chains']} chains × "
        f"{record['draws']} draws{done}, seed {record['seed']}",
        f"{seconds:.2f} s (warm-up {timings.get('warmup_seconds', 0.0):.2f} s), "
        f"{sum(gradients.values()):,} gradients, {record['precision']}",
    ]
    said = []
    if health["rhat"]:
        said.append(f"R-hat ≤ {health['rhat'][1]:.3f} ({health['rhat'][0]})")
    if health["ess"]:
        said.append(f"ESS ≥ {health['ess'][1]:,.0f} ({health['ess'][0]})")
    if health["divergences"] is not None:
        said.append(f"{health['divergences']} divergences")
    if health["energy"] is not None:
        said.append(f"E-BFMI {health['energy']:.2f}")
    lines.append(", ".join(said) if said else "independent draws")
    if record.get("weights"):
        lines.append(_weights(record))
    shown = [
        f"{name}[{', '.join(map(str, shape))}]" if shape else name
        for name, shape in list(sites.items())[:12]
    ]
    lines.append(f"sites: {', '.join(shown)}{', ...' if len(sites) > 12 else ''}")
    return lines


def _weights(record: dict[str, Any]) -> str:
    """Evidence, effective size and k-hat of a weighted population, in one line."""
    found, error = record["weights"], record.get("log_evidence_error")
    known = [k for k in found["k_hat"] if k is not None]
    said = [
        f"log evidence {record['log_evidence']:.3f}" + (f" ± {error:.2g}" if error else ""),
        f"weights worth ≥ {min(found['ess']):,.0f} of {record['draws']} particles",
        *([f"k-hat ≤ {max(known):.2f}"] if known else []),
    ]
    return ", ".join(said)
