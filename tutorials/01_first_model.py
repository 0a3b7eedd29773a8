# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # A first model: partial pooling
#
# Eight case-control studies, one per Chinese city, counted lung cancer among smokers and
# non-smokers. How strong is the association, and does it differ between cities? Each city alone
# is noisy; all together hide differences. A hierarchical model estimates both at once.

# %%
import numpy as np
import statsmodels.api as sm

import ppcore as pp
from ppcore import dist

table = sm.datasets.china_smoking.load_pandas().data
cities = list(table.index)
smokers = table[["smoking_yes_cancer_yes", "smoking_yes_cancer_no"]].to_numpy(int)
others = table[["smoking_no_cancer_yes", "smoking_no_cancer_no"]].to_numpy(int)
cases = np.stack([others[:, 0], smokers[:, 0]])  # [exposure, city]
people = np.stack([others.sum(1), smokers.sum(1)])
table

# %% [markdown]
# ## Declare
#
# A model is a Python function. `pp.sample` names a random value and says how it is distributed;
# the value behaves like a NumPy array. `pp.plate` says that what is inside is repeated
# independently, once per city.
#
# Here `logit` is a city's log odds of cancer without smoking, `log_or` its log odds ratio. The
# cities' log odds ratios vary around `mu` by about `tau`.


# %%
@pp.model
def association(people):
    mu = pp.sample("mu", dist.Normal(0, 2))
    tau = pp.sample("tau", dist.HalfNormal(1))
    with pp.plate("city", people.shape[1]):
        logit = pp.sample("logit", dist.Normal(0, 2))
        z = pp.sample("z", dist.Normal(0, 1))
        log_or = pp.deterministic("log_or", mu + tau * z)
        with pp.plate("exposure", 2):
            log_odds = np.stack([logit, logit + log_or])
            pp.sample("cases", dist.Binomial(people, logits=log_odds))


model = association(people)
model

# %% [markdown]
# ## Look before you fit
#
# Draws from the prior show what the model believes before it sees the data. Prior odds ratios
# should range over what is plausible in epidemiology, and no further than you can defend.

# %%
prior = model.simulate(seed=0, n=1000)
np.round(np.exp(np.quantile(prior["mu"], [0.05, 0.5, 0.95])), 2)

# %% [markdown]
# ## Condition and infer
#
# `observe` attaches data to a site. `infer` draws from the posterior; with no engine named it runs
# 64 chains of Hamiltonian Monte Carlo side by side.

# %%
posterior = model.observe(cases=cases)
fit = posterior.infer(seed=1, progress="off")
fit.summary(["mu", "tau", "log_or"])

# %% [markdown]
# `r_hat` compares the chains with one another and should be below 1.01; `ess_bulk` is the number
# of independent draws that the mean is worth. If something were wrong, `fit.warnings` would say
# what and for which variable.

# %%
assert not fit.warnings, fit.warnings
assert float(fit.summary(["mu", "tau", "log_or"])["r_hat"].astype(float).max()) < 1.02

# %% [markdown]
# The pooled odds ratio of smoking, with a 90 % interval:

# %%
odds_ratio = np.exp(fit.draws("mu"))
np.round(np.quantile(odds_ratio, [0.05, 0.5, 0.95]), 2)

# %% [markdown]
# Partial pooling pulls each city's estimate from its own data toward the others, the more the
# smaller the city. Compare with the raw log odds ratios:

# %%
raw = np.log(smokers[:, 0] * others[:, 1] / (smokers[:, 1] * others[:, 0]))
pooled = fit.draws("log_or").mean((0, 1))
for city, a, b in zip(cities, raw, pooled, strict=True):
    print(f"{city:10s} raw {a:5.2f}   partially pooled {b:5.2f}")
assert np.abs(pooled - pooled.mean()).sum() < np.abs(raw - raw.mean()).sum()

# %% [markdown]
# ## Check the fit
#
# If the model is right, data simulated from the posterior look like the data. In how many
# simulations is the spread of the cases larger than observed? Values near 0 or 1 would be bad.

# %%
simulated = fit.predict("cases", seed=2).to_numpy()  # [chain, draw, exposure, city]
spread = simulated[..., 1, :].std(-1)
p = float((spread > cases[1].std()).mean())
print(f"posterior predictive p-value of the spread: {p:.2f}")
assert 0.01 < p < 0.99

# %% [markdown]
# ## Another engine, the same answer
#
# Engines are interchangeable. Two that agree are more convincing than one.

# %%
again = posterior.infer("nuts", seed=2, progress="off")
difference = abs(again.draws("mu").mean() - fit.draws("mu").mean()) / fit.draws("mu").std()
print(f"difference of the posterior means: {difference:.3f} posterior sd")
assert difference < 0.1

# %% [markdown]
# ## Keep it
#
# `fit.save("smoking.zarr")` writes draws, statistics, settings and versions to one folder in
# ArviZ's layout; `pp.load` brings them back, also on a machine without the model.
