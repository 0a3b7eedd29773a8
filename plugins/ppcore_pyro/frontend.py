"""What ``ppcore.from_pyro`` and ``model.to_pyro`` call."""

from __future__ import annotations

from ppcore.foreign import Frontend
from ppcore_pyro.from_model import from_pyro
from ppcore_pyro.to_model import to_pyro

FRONTEND = Frontend(read=from_pyro, write=to_pyro)
