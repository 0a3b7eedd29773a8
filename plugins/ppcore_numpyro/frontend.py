"""What ``ppcore.from_numpyro`` and ``model.to_numpyro`` call."""

from __future__ import annotations

from ppcore.foreign import Frontend
from ppcore_numpyro.from_model import from_numpyro
from ppcore_numpyro.to_model import to_numpyro

FRONTEND = Frontend(read=from_numpyro, write=to_numpyro)
