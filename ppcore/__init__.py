"""ppcore: declare a model in plain NumPy; hold it as a string diagram; run it with any engine.

Names are loaded when first used, so that importing ppcore costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "model": "ppcore.declare",
    "Model": "ppcore.declare",
    "sample": "ppcore.recording.sites",
    "plate": "ppcore.recording.sites",
    "prefix": "ppcore.recording.sites",
    "deterministic": "ppcore.recording.sites",
    "factor": "ppcore.recording.sites",
    "param": "ppcore.recording.param",
    "scan": "ppcore.recording.scan",
    "lift": "ppcore.recording.lift",
    "ModelKernel": "ppcore.model_kernel",
    "from_diagram": "ppcore.model_kernel",
    "from_log_density": "ppcore.frontends",
    "from_numpyro": "ppcore.frontends",
    "from_pymc": "ppcore.frontends",
    "from_pyro": "ppcore.frontends",
    "from_stan": "ppcore.frontends",
    "Fit": "ppcore.fit",
    "load": "ppcore.fit",
    "Amortised": "ppcore.fit.amortised",
    "Diagram": "ppcore.diagram",
    "Box": "ppcore.diagram",
    "Space": "ppcore.space",
    "Support": "ppcore.space",
    "hookimpl": "ppcore.hooks",
}
_MODULES = ("contract", "dist", "errors", "math", "random", "registry", "target", "testing")

__all__ = [*sorted(_EXPORTS), *_MODULES]

if TYPE_CHECKING:
    from ppcore.declare import Model as Model
    from ppcore.declare import model as model
    from ppcore.diagram import Box as Box
    from ppcore.diagram import Diagram as Diagram
    from ppcore.fit import Fit as Fit
    from ppcore.fit import load as load
    from ppcore.fit.amortised import Amortised as Amortised
    from ppcore.frontends import from_log_density as from_log_density
    from ppcore.frontends import from_numpyro as from_numpyro
    from ppcore.frontends import from_pymc as from_pymc
    from ppcore.frontends import from_pyro as from_pyro
    from ppcore.frontends import from_stan as from_stan
    from ppcore.hooks import hookimpl as hookimpl
    from ppcore.model_kernel import ModelKernel as ModelKernel
    from ppcore.model_kernel import from_diagram as from_diagram
    from ppcore.recording.lift import lift as lift
    from ppcore.recording.param import param as param
    from ppcore.recording.scan import scan as scan
    from ppcore.recording.sites import deterministic as deterministic
    from ppcore.recording.sites import factor as factor
    from ppcore.recording.sites import plate as plate
    from ppcore.recording.sites import prefix as prefix
    from ppcore.recording.sites import sample as sample
    from ppcore.space import Space as Space
    from ppcore.space import Support as Support


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        home = importlib.import_module(_EXPORTS[name])
        value = getattr(home, name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"ppcore.{name}")
    from ppcore.errors import did_you_mean

    raise AttributeError(f"ppcore has no {name!r}. {did_you_mean(name, __all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
