"""The same posterior with each library, written as its documentation would have it.

Every function imports its library, declares the model, and returns ``fit(seed)``, whose draws are
{name: float[chains, draws, ...]} on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SIGMA = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
CHAINS, WARMUP, DRAWS = 4, 1000, 1000

Fit = Callable[[int], dict[str, Any]]


def ppcore_engine(name: str) -> Callable[[], Fit]:
    """ppcore with an engine at its defaults."""

    def prepare() -> Fit:
        import jax  # noqa: F401
        import numpyro.distributions  # noqa: F401

        from benchmarks.posteriordb.schools import noncentered

        def fit(seed: int) -> dict[str, Any]:
            model = noncentered(SIGMA).observe(y=Y)
            found = model.infer(name, seed=seed, progress="off")
            return {site: found.draws(site) for site in ("mu", "tau", "theta")}

        return fit

    return prepare


def numpyro_nuts() -> Fit:
    """NUTS in its best mode on a CPU: chains in parallel on two host devices."""
    import numpyro

    numpyro.set_host_device_count(2)
    import jax
    import jax.numpy as jnp
    import numpyro.distributions as dist
    from numpyro.infer import MCMC, NUTS

    jax.config.update("jax_enable_x64", True)

    def model(sigma: Any, y: Any) -> None:
        mu = numpyro.sample("mu", dist.Normal(0, 5))
        tau = numpyro.sample("tau", dist.HalfCauchy(5))
        with numpyro.plate("school", len(sigma)):
            z = numpyro.sample("z", dist.Normal(0, 1))
            theta = numpyro.deterministic("theta", mu + tau * z)
            numpyro.sample("y", dist.Normal(theta, sigma), obs=y)

    sigma, y = jnp.asarray(SIGMA), jnp.asarray(Y)
    mcmc = MCMC(
        NUTS(model),
        num_warmup=WARMUP,
        num_samples=DRAWS,
        num_chains=CHAINS,
        chain_method="parallel",
        progress_bar=False,
    )

    def fit(seed: int) -> dict[str, Any]:
        mcmc.run(jax.random.key(seed), sigma, y)
        draws = mcmc.get_samples(group_by_chain=True)
        return {name: np.asarray(draws[name]) for name in ("mu", "tau", "theta")}

    return fit


def blackjax_nuts() -> Fit:
    """NUTS after window adaptation, vectorised over chains in one compiled program."""
    import blackjax
    import jax
    import jax.numpy as jnp
    from jax.scipy import stats

    jax.config.update("jax_enable_x64", True)
    sigma, y = jnp.asarray(SIGMA), jnp.asarray(Y)

    def log_density(x: Any) -> Any:
        tau = jnp.exp(x["log_tau"])
        prior = stats.norm.logpdf(x["mu"], 0, 5) + stats.cauchy.logpdf(tau, 0, 5) + x["log_tau"]
        prior += stats.norm.logpdf(x["z"]).sum()
        return prior + stats.norm.logpdf(y, x["mu"] + tau * x["z"], sigma).sum()

    def chain(key: Any) -> Any:
        start, adapt, sample = jax.random.split(key, 3)
        z = jax.random.uniform(start, (len(Y) + 2,), minval=-2.0, maxval=2.0)
        x = {"mu": z[0], "log_tau": z[1], "z": z[2:]}
        warmup = blackjax.window_adaptation(blackjax.nuts, log_density)
        (state, tuned), _ = warmup.run(adapt, x, num_steps=WARMUP)
        step = blackjax.nuts(log_density, **tuned).step

        def advance(state: Any, key: Any) -> Any:
            state, _ = step(key, state)
            return state, state.position

        return jax.lax.scan(advance, state, jax.random.split(sample, DRAWS))[1]

    program = jax.jit(jax.vmap(chain))

    def fit(seed: int) -> dict[str, Any]:
        x = {
            k: np.asarray(v)
            for k, v in program(jax.random.split(jax.random.key(seed), CHAINS)).items()
        }
        tau = np.exp(x["log_tau"])
        return {"mu": x["mu"], "tau": tau, "theta": x["mu"][..., None] + tau[..., None] * x["z"]}

    return fit


def _pymc_model() -> Any:
    import pymc as pm

    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 5)
        tau = pm.HalfCauchy("tau", 5)
        z = pm.Normal("z", 0, 1, shape=len(Y))
        theta = pm.Deterministic("theta", mu + tau * z)
        pm.Normal("y", theta, SIGMA, observed=Y)
    return model


def pymc_nuts() -> Fit:
    """PyMC's own sampler with its defaults."""
    import pymc as pm

    model = _pymc_model()

    def fit(seed: int) -> dict[str, Any]:
        found = pm.sample(
            DRAWS, tune=WARMUP, chains=CHAINS, random_seed=seed, progressbar=False, model=model
        )
        return {name: found.posterior[name].values for name in ("mu", "tau", "theta")}

    return fit


def nutpie_nuts() -> Fit:
    """nutpie on PyMC's model, compiled by numba at the first fit."""
    import nutpie

    model = _pymc_model()
    compiled: list[Any] = []

    def fit(seed: int) -> dict[str, Any]:
        if not compiled:
            compiled.append(nutpie.compile_pymc_model(model))
        found = nutpie.sample(
            compiled[0], draws=DRAWS, tune=WARMUP, chains=CHAINS, seed=seed, progress_bar=False
        )
        return {name: found.posterior[name].values for name in ("mu", "tau", "theta")}

    return fit


@dataclass(frozen=True)
class Contender:
    """A library's way to the posterior; it takes part if all of ``needs`` are installed."""

    prepare: Callable[[], Fit]
    needs: tuple[str, ...] = ()
    settings: str = f"{CHAINS} chains x ({WARMUP} + {DRAWS})"
    environment: dict[str, str] = field(default_factory=dict)


_TWO_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}

CONTENDERS: dict[str, Contender] = {
    "ppcore ensemble": Contender(ppcore_engine("ensemble"), settings="defaults"),
    "ppcore nuts": Contender(ppcore_engine("nuts"), settings="defaults"),
    "NumPyro NUTS": Contender(numpyro_nuts, ("numpyro",), environment=_TWO_DEVICES),
    "BlackJAX NUTS": Contender(blackjax_nuts, ("blackjax",)),
    "nutpie, PyMC model": Contender(nutpie_nuts, ("nutpie", "pymc")),
    "PyMC NUTS": Contender(pymc_nuts, ("pymc",)),
}
