"""NumPyro's NUTS at its best: chains in parallel, and a dense metric where that helps.

Models that NumPyro states in a few lines are written in NumPyro; the others (recursions, hidden
Markov models, differential equations, ordered mixtures) run on the log density of ppcore's model
without rewrites, through ``potential_fn``. The note of each run says which.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

from benchmarks.posteriordb import designs
from benchmarks.posteriordb.drawn import CHAINS, CORRELATED, DRAWS, WARMUP, Drawn, Prepared

sample = numpyro.sample


def linear(x: Any, y: Any) -> None:
    beta = sample("beta", dist.ImproperUniform(dist.constraints.real, (), (x.shape[1],)))
    sigma = sample("sigma", dist.ImproperUniform(dist.constraints.positive, (), ()))
    sample("y", dist.Normal(x @ beta, sigma), obs=y)


def linear_half_cauchy(x: Any, y: Any) -> None:
    beta = sample("beta", dist.ImproperUniform(dist.constraints.real, (), (x.shape[1],)))
    sigma = sample("sigma", dist.HalfCauchy(2.5))
    sample("y", dist.Normal(x @ beta, sigma), obs=y)


def bayesian(x: Any, y: Any) -> None:
    beta = sample("beta", dist.Normal(0, 10).expand([x.shape[1]]).to_event(1))
    sigma = sample("sigma", dist.HalfNormal(10))
    sample("y", dist.Normal(x @ beta, sigma), obs=y)


def autoregression(x: Any, y: Any) -> None:
    alpha = sample("alpha", dist.Normal(0, 10))
    beta = sample("beta", dist.Normal(0, 10).expand([x.shape[1]]).to_event(1))
    sigma = sample("sigma", dist.HalfCauchy(2.5))
    sample("y", dist.Normal(alpha + x @ beta, sigma), obs=y)


def diamonds(x: Any, y: Any) -> None:
    b = sample("b", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    intercept = sample("Intercept", dist.StudentT(3, 8, 10))
    sigma = sample("sigma", dist.FoldedDistribution(dist.StudentT(3, 0, 10)))
    sample("Y", dist.Normal(intercept + x @ b, sigma), obs=y)


def trend(x: Any, y: Any, prior: Any) -> None:
    alpha = sample("alpha", dist.Normal(prior[0], prior[1]))
    beta = sample("beta", dist.Normal(prior[2], prior[3]))
    sigma = sample("sigma", dist.ImproperUniform(dist.constraints.positive, (), ()))
    sample("y", dist.Normal(alpha + beta * x, sigma), obs=y)


def schools_centered(sigma: Any, y: Any) -> None:
    mu = sample("mu", dist.Normal(0, 5))
    tau = sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(sigma)):
        theta = sample("theta", dist.Normal(mu, tau))
        sample("y", dist.Normal(theta, sigma), obs=y)


def schools_noncentered(sigma: Any, y: Any) -> None:
    mu = sample("mu", dist.Normal(0, 5))
    tau = sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(sigma)):
        z = sample("theta_trans", dist.Normal(0, 1))
        theta = numpyro.deterministic("theta", mu + tau * z)
        sample("y", dist.Normal(theta, sigma), obs=y)


def radon(county: Any, floor: Any, counties: int, y: Any) -> None:
    mu = sample("mu_alpha", dist.Normal(0, 10))
    tau = sample("sigma_alpha", dist.HalfNormal(1))
    sigma = sample("sigma_y", dist.HalfNormal(1))
    beta = sample("beta", dist.Normal(0, 10))
    raw = sample("alpha_raw", dist.Normal(0, 1).expand([counties]).to_event(1))
    alpha = mu + tau * raw
    sample("log_radon", dist.Normal(alpha[county] + beta * floor, sigma), obs=y)


def item_response(items: int, people: int, y: Any) -> None:
    sigma_theta = sample("sigma_theta", dist.HalfCauchy(2))
    sigma_a = sample("sigma_a", dist.HalfCauchy(2))
    sigma_b = sample("sigma_b", dist.HalfCauchy(2))
    mu_b = sample("mu_b", dist.Normal(0, 5))
    theta = sample("theta", dist.Normal(0, sigma_theta).expand([people]).to_event(1))
    a = sample("a", dist.LogNormal(0, sigma_a).expand([items]).to_event(1))
    b = sample("b", dist.Normal(mu_b, sigma_b).expand([items]).to_event(1))
    sample("y", dist.Bernoulli(logits=a[:, None] * (theta - b[:, None])), obs=y)


def covariance(x: Any, rho: Any, alpha: Any) -> Any:
    return alpha**2 * jnp.exp(-0.5 * ((x[:, None] - x) / rho) ** 2)


def gaussian_process(x: Any, y: Any) -> None:
    rho = sample("rho", dist.Gamma(25, 4))
    alpha = sample("alpha", dist.HalfNormal(2))
    sigma = sample("sigma", dist.HalfNormal(1))
    matrix = covariance(x, rho, alpha) + sigma * jnp.eye(len(x))
    sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), covariance_matrix=matrix), obs=y)


def poisson_process(x: Any, k: Any) -> None:
    rho = sample("rho", dist.Gamma(25, 4))
    alpha = sample("alpha", dist.HalfNormal(2))
    z = sample("f_tilde", dist.Normal(0, 1).expand([len(x)]).to_event(1))
    factor = jnp.linalg.cholesky(covariance(x, rho, alpha) + 1e-10 * jnp.eye(len(x)))
    f = numpyro.deterministic("f", factor @ z)
    sample("k", dist.Poisson(jnp.exp(f)), obs=k)


def model_of(name: str, data: dict[str, Any]) -> tuple[Callable[..., None], tuple[Any, ...]] | None:
    """The NumPyro model of a posterior with its arguments, or None."""
    if name in designs.FLAT:
        return linear, designs.FLAT[name](data)
    if name in designs.HALF_CAUCHY:
        return linear_half_cauchy, designs.HALF_CAUCHY[name](data)
    made: dict[str, Callable[[], tuple[Callable[..., None], tuple[Any, ...]]]] = {
        "sblrc-blr": lambda: (bayesian, designs.blr(data)),
        "arK-arK": lambda: (autoregression, designs.autoregression(data)),
        "diamonds-diamonds": lambda: (diamonds, designs.diamonds(data)),
        "kilpisjarvi_mod-kilpisjarvi": lambda: (
            trend,
            (
                data["x"].astype(float),
                data["y"],
                [data[n] for n in ("pmualpha", "psalpha", "pmubeta", "psbeta")],
            ),
        ),
        "eight_schools-eight_schools_centered": lambda: (
            schools_centered,
            (data["sigma"].astype(float), data["y"]),
        ),
        "eight_schools-eight_schools_noncentered": lambda: (
            schools_noncentered,
            (data["sigma"].astype(float), data["y"]),
        ),
        "radon_all-radon_variable_intercept_noncentered": lambda: (
            radon,
            (
                data["county_idx"] - 1,
                data["floor_measure"].astype(float),
                int(data["J"]),
                data["log_radon"],
            ),
        ),
        "irt_2pl-irt_2pl": lambda: (item_response, (int(data["I"]), int(data["J"]), data["y"])),
        "gp_pois_regr-gp_regr": lambda: (gaussian_process, (data["x"].astype(float), data["y"])),
        "gp_pois_regr-gp_pois_regr": lambda: (
            poisson_process,
            (data["x"].astype(float), data["k"]),
        ),
    }
    return made[name]() if name in made else None


def prepare(name: str, data: dict[str, Any]) -> Prepared:
    """NumPyro on a posterior, in its own words or on ppcore's log density."""
    jax.config.update("jax_enable_x64", True)
    dense = name in CORRELATED
    metric = "dense metric" if dense else "diagonal metric"
    found = model_of(name, data)
    if found is None:
        return _on_potential(name, data, dense, metric)
    model, arguments = found
    mcmc = _sampler(NUTS(model, dense_mass=dense))

    def fit(seed: int) -> Drawn:
        mcmc.run(jax.random.key(seed), *arguments, extra_fields=("num_steps",))
        draws = mcmc.get_samples(group_by_chain=True)
        sites = {n: np.asarray(v) for n, v in draws.items()}
        return Drawn(sites, *_cost(mcmc), f"NumPyro model, {metric}")

    return Prepared(fit)


def _on_potential(name: str, data: dict[str, Any], dense: bool, metric: str) -> Prepared:
    began = time.perf_counter()
    from benchmarks.posteriordb.catalogue import CATALOGUE

    posterior = CATALOGUE[name]
    target = posterior.build(data).target()
    excused = time.perf_counter() - began
    mcmc = _sampler(NUTS(potential_fn=lambda x: -target.log_density(x), dense_mass=dense))
    constrain = jax.jit(jax.vmap(jax.vmap(target.constrain)))

    def fit(seed: int) -> Drawn:
        start, key = jax.random.split(jax.random.key(seed))
        x = jax.random.uniform(start, (CHAINS, target.dim), minval=-2.0, maxval=2.0)
        mcmc.run(key, init_params=x, extra_fields=("num_steps",))
        values = constrain(mcmc.get_samples(group_by_chain=True))
        sites = {n: np.asarray(values[n]) for n in posterior.sites}
        return Drawn(sites, *_cost(mcmc), f"ppcore's log density, {metric}")

    return Prepared(fit, excused)


def _sampler(kernel: NUTS) -> MCMC:
    return MCMC(
        kernel,
        num_warmup=WARMUP,
        num_samples=DRAWS,
        num_chains=CHAINS,
        chain_method="parallel",
        progress_bar=False,
    )


def _cost(mcmc: MCMC) -> tuple[float, int]:
    steps = int(np.asarray(mcmc.get_extra_fields()["num_steps"]).sum())
    return DRAWS / (DRAWS + WARMUP), steps
