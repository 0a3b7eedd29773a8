"""What a wrong model or wrong data get: an error that names site, value, constraint and remedy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import ppcore as pp
from ppcore import dist, errors
from ppcore.errors import EvidenceError, ModelError, ShapeError, UnknownNameError, UnsupportedError

HERE = __name__.rsplit(".", 1)[-1] + ".py"


def declare(fn: Callable[..., Any], *args: Any) -> pp.Model:
    return pp.model(fn)(*args)


def site(distribution: Callable[[], Any]) -> pp.Model:
    return declare(lambda: pp.sample("theta", distribution()))


def line(x):
    b = pp.sample("b", dist.Normal(0, 1))
    pp.deterministic("twice", 2 * b)
    with pp.plate("i", len(x)):
        pp.sample("y", dist.Normal(b * x, 1))


@pytest.fixture
def model() -> pp.Model:
    return declare(line, np.arange(3.0))


MISSPELT = {
    "distribution": (lambda: dist.Nromal(0, 1), "'Nromal'. Did you mean 'Normal'"),
    "constraint": (lambda: dist.constraints.positve, "'positve'. Did you mean 'positive'"),
    "transform": (lambda: dist.transforms.ExpTransfrom, "Did you mean 'ExpTransform'"),
    "method": (lambda: dist.Normal(0, 1).expnad([3]), "'expnad'. Did you mean 'expand'"),
    "function": (lambda: pp.smaple, "'smaple'. Did you mean 'sample'"),
    "math": (lambda: pp.math.sofmax, "'sofmax'. Did you mean 'softmax'"),
}


@pytest.mark.parametrize("case", MISSPELT)
def test_misspelt_names_suggest_the_nearest(case: str) -> None:
    make, message = MISSPELT[case]
    with pytest.raises(AttributeError, match=message):
        make()


def test_misspelt_parameter() -> None:
    with pytest.raises(ModelError, match=r"Normal\(loc=0.0, scale=1.0\).*'scal'.*mean 'scale'"):
        dist.Normal(0, scal=1)


def test_misspelt_attribute_of_a_random_value() -> None:
    with pytest.raises(UnknownNameError, match="no attribute 'summ'. Did you mean 'sum'"):
        declare(lambda: pp.sample("x", dist.Normal(np.zeros(3), 1)).summ())


def test_two_sites_with_one_name() -> None:
    def twice():
        pp.sample("x", dist.Normal(0, 1))
        pp.sample("x", dist.Normal(0, 1))

    with pytest.raises(ModelError, match=rf"'x' \(first at {HERE}:\d+, again at .*prefix"):
        declare(twice)

    def factor_and_site():
        pp.sample("x", dist.Normal(0, 1))
        pp.factor("x", 0.0)

    with pytest.raises(ModelError, match="Two sites are named 'x'"):
        declare(factor_and_site)


@pytest.mark.parametrize("wrong", [dist.Normal, dist.constraints.positive, 3.0])
def test_something_that_is_no_distribution(wrong: Any) -> None:
    with pytest.raises(ModelError, match=rf"{HERE}:\d+: pp.sample\('x', …\) takes a distribution"):
        declare(lambda: pp.sample("x", wrong))


def test_names_are_strings() -> None:
    with pytest.raises(ModelError, match="name must be a non-empty string, not 3"):
        declare(lambda: pp.sample(3, dist.Normal(0, 1)))


OBSERVED = {
    "unknown": ({"z": 1.0}, "no site 'z'"),
    "computed": ({"twice": 1.0}, "'twice' is computed"),
    "shape": ({"y": np.zeros(4)}, r"'y' have shape \(4,\), the site has shape \(3,\).*plate"),
    "scalar": ({"y": 1.0}, r"shape \(\), the site has shape \(3,\)"),
    "nan": ({"y": [0, np.nan, 1]}, r"'y' hold NaN, first at index \(1,\). Drop"),
    "infinite": ({"y": [0, np.inf, 1]}, r"'y' \(Normal\) hold inf at index \(1,\).*finite"),
    "object": ({"y": np.array([1, "a", 2], object)}, "'y' have dtype object; convert"),
    "strings": ({"y": ["a", "b", "c"]}, "'y' have dtype <U1"),
    "dates": ({"y": np.zeros(3, "datetime64[D]")}, "dtype datetime64"),
    "complex": ({"y": np.zeros(3, complex)}, "dtype complex128"),
    "masked": ({"y": np.ma.array([1.0, 2, 3], mask=[0, 1, 0])}, "'y' are a masked array"),
    "ragged": ({"y": [[1], [1, 2], [3]]}, "'y' are no array of numbers"),
    "nothing": ({}, "given nothing"),
}


@pytest.mark.parametrize("case", OBSERVED)
def test_observed_data(case: str, model: pp.Model) -> None:
    values, message = OBSERVED[case]
    with pytest.raises(EvidenceError, match=message):
        model.observe(values)


def test_observed_twice(model: pp.Model) -> None:
    once = model.observe(y=np.zeros(3))
    with pytest.raises(EvidenceError, match="'y' is observed already"):
        once.observe(y=np.ones(3))
    assert (once.evidence["y"] == 0).all()
    assert model.evidence == {}, "an observed model leaves the original as it was"


HALF = np.array([0.5, 0.5])
OUTSIDE = {
    "simplex": (lambda: dist.Dirichlet(np.ones(3)), [0.2, 0.2, 0.2], "sum to 1"),
    "negative count": (lambda: dist.Poisson(2.0), -1, "hold -1,.*integer of at least 0"),
    "fraction": (lambda: dist.Poisson(2.0), 1.5, "hold 1.5,.*integer"),
    "trials": (lambda: dist.Binomial(5, 0.5), 7, "hold 7,.*integer from 0 to 5"),
    "array of trials": (
        lambda: dist.Binomial(np.array([5, 8]), 0.5),
        [5, 9],
        r"hold 9 at index \(1,\), above its bound 8",
    ),
    "computed bound": (
        lambda: dist.Uniform(np.log(np.array([1.0, 9])), 5.0),
        [1, 1],
        r"hold 1.0 at index \(1,\), below its bound 2.19",
    ),
    "boolean": (lambda: dist.Bernoulli(0.5), 2, "must be 0 or 1"),
    "boolean fraction": (lambda: dist.Bernoulli(0.5), 0.5, "hold 0.5"),
    "category": (lambda: dist.Categorical(probs=np.ones(3) / 3), 3, "integer from 0 to 2"),
    "ordinal": (lambda: dist.OrderedLogistic(0.0, np.array([0, 1.0])), 3, "from 0 to 2"),
    "multinomial": (lambda: dist.Multinomial(4, probs=HALF), [1, 1], "counts that sum to 4"),
    "inflated": (lambda: dist.ZeroInflatedPoisson(0.5, 1.0), -1, "of at least 0"),
    "zero": (lambda: dist.Gamma(1.0, 1.0), 0.0, "greater than 0"),
    "interval": (lambda: dist.Uniform(0, 2), 3, "between 0 and 2"),
    "unit": (lambda: dist.Beta(1.0, 1.0), 1.2, "between 0 and 1"),
    "truncated": (lambda: dist.TruncatedNormal(0, 1, low=0.5), 0.2, "at least 0.5"),
    "angle": (lambda: dist.VonMises(0.0, 1.0), 4.0, "angle between -3.14"),
    "correlation": (lambda: dist.LKJCholesky(2), 2 * np.eye(2), "Cholesky factor"),
    "covariance": (lambda: dist.Wishart(4.0, scale_matrix=np.eye(2)), -np.eye(2), "definite"),
    "mixture": (
        lambda: dist.MixtureSameFamily(dist.Categorical(probs=HALF), dist.Gamma(np.ones(2))),
        -1.0,
        "greater than 0",
    ),
    "ordered": (
        lambda: dist.ImproperUniform(dist.constraints.ordered_vector, (), (3,)),
        [1, 0, 2],
        "increasing",
    ),
    "one of many": (
        lambda: dist.Poisson(1.0).expand([2, 2]),
        [[0, 1], [-3, 1]],
        r"hold -3 at index \(1, 0\)",
    ),
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_data_outside_the_support(case: str) -> None:
    distribution, value, message = OUTSIDE[case]
    with pytest.raises(EvidenceError, match=rf"(?s)site 'theta' \(\w+\).*{message}"):
        site(distribution).observe(theta=value)


def test_data_beyond_a_random_bound_have_density_zero() -> None:
    def bounded():
        high = pp.sample("high", dist.Uniform(1, 3))
        pp.sample("y", dist.Uniform(0, high).expand([2]))

    target = declare(bounded).observe(y=[0.5, 2.0]).target()
    with jax.enable_x64(True):
        at = [float(target.log_density(target.unconstrain({"high": h}))) for h in (1.5, 2.5)]
    assert at[0] == -math.inf
    assert math.isfinite(at[1])


WRONG_CONSTANTS = {
    "negative": (
        lambda: dist.Normal(0, -1),
        "Normal's parameter scale = -1 must be greater than 0",
    ),
    "zero": (lambda: dist.Normal(0, 0.0), "scale = 0.0 must be greater than 0. np.exp"),
    "array": (lambda: dist.Normal(0, np.array([1, -2.0])), r"scale holds -2.0 at index \(1,\)"),
    "nan": (lambda: dist.Normal(np.nan, 1), "loc holds NaN"),
    "infinite": (lambda: dist.Normal(np.inf, 1), "loc = inf must be finite"),
    "string": (lambda: dist.Normal("a", 1), "loc must be a number.*not 'a'"),
    "none": (lambda: dist.Normal(None, 1), "loc must be a number.*not None"),
    "empty interval": (lambda: dist.Uniform(2, 2), "Uniform needs low < high"),
    "some empty": (lambda: dist.Uniform(np.array([0, 3.0]), 2), "needs low < high"),
    "truncation": (lambda: dist.TruncatedNormal(0, 1, low=2, high=1), "needs low < high"),
    "probability": (lambda: dist.Bernoulli(1.5), "probs = 1.5 must be between 0 and 1.*expit"),
    "simplex": (lambda: dist.Categorical(probs=[0.5, 0.7]), r"probs holds \[0.5 0.7\].*sum to 1"),
    "trials": (lambda: dist.Binomial(2.5, 0.5), "total_count = 2.5 must be an integer"),
    "asymmetric": (
        lambda: dist.MultivariateNormal(np.zeros(2), np.array([[1, 0.5], [0, 1]])),
        "covariance_matrix holds .*symmetric positive definite",
    ),
    "not triangular": (
        lambda: dist.MultivariateNormal(np.zeros(2), scale_tril=np.ones((2, 2))),
        "scale_tril.*lower triangular",
    ),
    "decreasing": (
        lambda: dist.OrderedLogistic(0.0, np.array([1.0, 0])),
        "cutpoints.*increasing order",
    ),
    "expanded": (lambda: dist.Normal(0, -1).expand([3]).to_event(1), "Normal's parameter scale"),
    "mixing weights": (
        lambda: dist.MixtureSameFamily(dist.Categorical(probs=[0.5, 0.7]), dist.Normal([0, 1], 1)),
        "Categorical's parameter probs",
    ),
    "component": (
        lambda: dist.MixtureGeneral(
            dist.Categorical(probs=HALF), [dist.Normal(0, 1), dist.Normal(0, -1)]
        ),
        "Normal's parameter scale = -1",
    ),
    "truncated base": (
        lambda: dist.LeftTruncatedDistribution(dist.Normal(0, -1), low=0.0),
        "Normal's parameter scale = -1",
    ),
    "inflated base": (
        lambda: dist.ZeroInflatedDistribution(dist.Poisson(-1.0), gate=0.5),
        "Poisson's parameter rate = -1.0",
    ),
}


@pytest.mark.parametrize("case", WRONG_CONSTANTS)
def test_constant_parameters_are_checked_at_declaration(case: str) -> None:
    distribution, message = WRONG_CONSTANTS[case]
    with pytest.raises(ModelError, match=rf"(?s)^{HERE}:\d+: site 'theta': .*{message}"):
        site(distribution)


@pytest.mark.parametrize(
    "distribution",
    [
        lambda: dist.Normal(np.zeros(3), np.ones(2)),
        lambda: dist.Normal(np.zeros(3), 1).expand([2]),
        lambda: dist.Normal(0, 1).to_event(1),
        lambda: dist.LKJCholesky(1),
    ],
)
def test_parameters_that_do_not_fit_together(distribution: Callable[[], Any]) -> None:
    with pytest.raises(ShapeError, match=rf"^{HERE}:\d+: site 'theta': the parameters of .*do not"):
        site(distribution)


@pytest.mark.parametrize(
    "data",
    [np.array(["a", 1], object), np.array(["a", "b"]), np.zeros(2, "datetime64[D]")],
    ids=["object", "strings", "dates"],
)
def test_arguments_that_are_no_numbers(data: np.ndarray) -> None:
    with pytest.raises(ModelError, match=rf"^{HERE}:\d+: data of dtype .* integer codes"):
        declare(line, data)


def test_masked_arguments() -> None:
    with pytest.raises(ModelError, match="a masked array cannot enter a model"):
        declare(line, np.ma.array([1.0, 2, 3], mask=[0, 1, 0]))


def test_improper_priors_cannot_be_drawn_from() -> None:
    model = site(lambda: dist.ImproperUniform(dist.constraints.real, (), ()))
    with pytest.raises(UnsupportedError, match="'theta' has an improper prior"):
        model.simulate()
    target = model.target()
    assert target.improper == ("theta",)
    with pytest.raises(UnsupportedError, match="prior of site 'theta' is improper"):
        target.sample_reference(jax.random.key(0), 2)


def test_unbounded_discrete_latents_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="theta"):
        assert site(lambda: dist.Poisson(2.0)).target().dim


def test_values_for_simulation(model: pp.Model) -> None:
    with pytest.raises(ModelError, match="no site 'bb'. Did you mean 'b'"):
        model.simulate_given(0, {"bb": np.zeros(2)})
    with pytest.raises(ModelError, match=r"'b' have shape \(2, 3\); the model's is \(\)"):
        model.simulate_given(0, {"b": np.zeros((2, 3))})
    with pytest.raises(ModelError, match="different numbers of draws: {'b': 2, 'y': 3}"):
        model.simulate_given(0, {"b": np.zeros(2), "y": np.zeros((3, 3))})
    with pytest.raises(ModelError, match="Values of site 'b' are missing"):
        model.observe(y=np.zeros(3)).pointwise_log_likelihood({})


def test_precision_is_one_of_two(model: pp.Model) -> None:
    with pytest.raises(errors.SettingsError, match="precision='float16'.*Did you mean 'float"):
        model.target("float16")


def test_a_lifted_function_keeps_its_word() -> None:
    def wrong():
        v = pp.sample("v", dist.Normal(np.zeros(3), 1))
        pp.deterministic("d", pp.lift(lambda a: np.zeros(4), result=((3,), "float64"))(v))

    with pytest.raises(Exception, match=r"returned \[\(4,\)\], but result= says \[\(3,\)\]"):
        declare(wrong).simulate()
