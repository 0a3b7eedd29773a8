"""What a user holds after inference: draws, diagnostics, predictions, and a file of them."""

from ppcore.fit.fit import Fit
from ppcore.fit.infer import infer
from ppcore.fit.store import load

__all__ = ["Fit", "infer", "load"]
