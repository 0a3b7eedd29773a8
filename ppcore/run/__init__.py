"""Running engines: blocks, checkpoints, progress, and the compilation cache."""

from ppcore.run.checkpoint import CheckpointError
from ppcore.run.checks import EngineError
from ppcore.run.loop import RunResult, run

__all__ = ["CheckpointError", "EngineError", "RunResult", "run"]
