"""Which model belongs to which posterior, and how its draws correspond to the reference's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.posteriordb import equations, mixtures, processes, regression, schools, series
from benchmarks.posteriordb.database import split
from ppcore import Model

Values = dict[str, np.ndarray]


def _as_they_are(values: Values, data: dict[str, Any]) -> Values:
    return values


def _standardised(values: Values, data: dict[str, Any]) -> Values:
    """θ̃_j = (θ_j − μ)/τ."""
    mu, tau = values["mu"][..., None], values["tau"][..., None]
    return values | {"theta_trans": (values["theta"] - mu) / tau}


def _whitened(values: Values, data: dict[str, Any]) -> Values:
    """f̃ = L⁻¹ f."""
    x = data["x"].astype(float)
    rho, alpha = (values[n][..., None, None] for n in ("rho", "alpha"))
    matrix = alpha**2 * np.exp(-0.5 * (np.subtract.outer(x, x) / rho) ** 2)
    factor = np.linalg.cholesky(matrix + 1e-10 * np.eye(len(x)))
    return values | {"f_tilde": np.linalg.solve(factor, values["f"][..., None])[..., 0]}


@dataclass(frozen=True)
class Posterior:
    """One posterior of the database as a ppcore model.

    Attributes
    ----------
    build : callable
        From the database's data to the model with its evidence.
    sites : tuple of str
        What is compared: sites, latent or computed, named as the reference names its parameters.
    latents : callable
        From reference draws, gathered by site, and the data to values of the latent sites.
    by_log : tuple of str
        Elements that are judged on the log scale, because their variance is infinite.
    """

    build: Callable[[dict[str, Any]], Model]
    sites: tuple[str, ...]
    latents: Callable[[Values, dict[str, Any]], Values] = _as_they_are
    by_log: tuple[str, ...] = ()

    def elements(self, draws: Values) -> Values:
        """Draws of sites [chains, draws, *shape] as the reference's elements, "beta[1]", …."""
        found: Values = {}
        for site in self.sites:
            found |= split(site, np.asarray(draws[site]))
        return self.on_scale(found)

    def on_scale(self, elements: Values) -> Values:
        """Elements with those of ``by_log`` replaced by their logarithms."""
        return {k: np.log(v) if k in self.by_log else v for k, v in elements.items()}


_COEFFICIENTS = ("beta", "sigma")


def _linear(build: Callable[[dict[str, Any]], Model]) -> Posterior:
    return Posterior(build, _COEFFICIENTS)


CATALOGUE: dict[str, Posterior] = {
    "arK-arK": Posterior(series.ar_k, ("alpha", "beta", "sigma")),
    "arma-arma11": Posterior(series.arma11, ("mu", "phi", "theta", "sigma")),
    "bball_drive_event_0-hmm_drive_0": Posterior(
        mixtures.hmm_drive, ("theta1", "theta2", "phi", "lambda")
    ),
    "diamonds-diamonds": Posterior(regression.diamonds, ("b", "Intercept", "sigma")),
    "earnings-earn_height": _linear(regression.earn_height),
    "earnings-log10earn_height": _linear(regression.log10earn_height),
    "earnings-logearn_interaction": _linear(regression.logearn_interaction),
    "eight_schools-eight_schools_centered": Posterior(
        schools.eight_schools_centered, ("theta", "mu", "tau")
    ),
    "eight_schools-eight_schools_noncentered": Posterior(
        schools.eight_schools_noncentered, ("theta", "mu", "tau"), _standardised
    ),
    "garch-garch11": Posterior(series.garch11, ("mu", "alpha0", "alpha1", "beta1")),
    "gp_pois_regr-gp_pois_regr": Posterior(
        processes.gp_pois_regr, ("rho", "alpha", "f"), _whitened
    ),
    "gp_pois_regr-gp_regr": Posterior(processes.gp_regr, ("rho", "alpha", "sigma")),
    "hmm_example-hmm_example": Posterior(mixtures.hmm_example, ("theta1", "theta2", "mu")),
    "hudson_lynx_hare-lotka_volterra": Posterior(
        equations.lotka_volterra, ("theta", "z_init", "sigma")
    ),
    "irt_2pl-irt_2pl": Posterior(
        schools.item_response, ("sigma_theta", "theta", "sigma_a", "a", "mu_b", "sigma_b", "b")
    ),
    "kidiq-kidscore_interaction": _linear(regression.kidscore_interaction),
    "kidiq-kidscore_momiq": _linear(regression.kidscore_momiq),
    "kidiq_with_mom_work-kidscore_mom_work": _linear(regression.kidscore_mom_work),
    "kilpisjarvi_mod-kilpisjarvi": Posterior(regression.kilpisjarvi, ("alpha", "beta", "sigma")),
    "low_dim_gauss_mix-low_dim_gauss_mix": Posterior(
        mixtures.low_dim_gauss_mix, ("mu", "sigma", "theta")
    ),
    "mesquite-logmesquite_logvas": _linear(regression.logmesquite_logvas),
    "mesquite-mesquite": _linear(regression.mesquite),
    "nes1976-nes": _linear(regression.nes),
    "nes2000-nes": _linear(regression.nes),
    "one_comp_mm_elim_abs-one_comp_mm_elim_abs": Posterior(
        equations.one_compartment, ("k_a", "K_m", "V_m", "sigma"), by_log=("K_m", "V_m")
    ),
    "radon_all-radon_variable_intercept_noncentered": Posterior(
        schools.radon_intercepts, ("alpha_raw", "beta", "mu_alpha", "sigma_alpha", "sigma_y")
    ),
    "sblrc-blr": _linear(regression.blr),
}
