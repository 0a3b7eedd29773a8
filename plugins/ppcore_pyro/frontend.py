"""What ``ppcore.from_pyro`` calls."""

from __future__ import annotations

from ppcore.foreign import Frontend
from ppcore_pyro.from_model import from_pyro

FRONTEND = Frontend(read=from_pyro)
