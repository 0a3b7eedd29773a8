"""False-alarm rates of the statistical checks on a correct engine, over 400 runs each."""

import numpy as np
import pytest
from scipy import stats

from ppcore import precision
from ppcore.testing import KernelEngine
from ppcore.testing.betting import Bet
from ppcore.testing.checks import invariance, rank, reversibility
from ppcore.testing.models import pool
from ppcore.testing.reference.metropolis import RandomWalk
from ppcore.testing.session import BATCH, Session
from ppcore.testing.subject import engine_subject

RUNS, SIZE = 400, 500
LEVELS = (0.05, 0.01)


@pytest.fixture(scope="module")
def peaks():
    """Log e-values of 400 runs of 500 joint draws, per test."""
    engine = KernelEngine(RandomWalk(), {"step_size": 0.5})
    found = {"invariance": [], "reversibility": [], "rank": []}
    with precision.scope("float64"):
        model = pool(("gamma_scale",))["gamma_scale"]
        session = Session(engine_subject(engine), (model,), 424_242, 1e-3, RUNS * SIZE, False)
        rng = np.random.default_rng(5)
        for batch in range(RUNS * SIZE // BATCH):
            after, before = session.paths(model, batch), session.paths(model, batch, 1)
            d = {
                "invariance": invariance.differences(after),
                "reversibility": reversibility.antisymmetric(after),
                "rank": rank.scores(after, before, rng),
            }
            for name, values in d.items():
                assert np.abs(values).max() <= 1.0
                for part in np.split(values, BATCH // SIZE):
                    found[name].append(Bet.start(part.shape[1]).update(part).peak)
    return {name: np.array(v) for name, v in found.items()}


@pytest.mark.parametrize("alpha", LEVELS)
@pytest.mark.parametrize("test", ["invariance", "reversibility", "rank"])
def test_false_alarms_stay_below_their_level(peaks, test, alpha):
    """The count is below the 99.9 % quantile of a binomial with the nominal rate."""
    assert len(peaks[test]) == RUNS
    alarms = int(np.sum(peaks[test] >= -np.log(alpha)))
    print(f"{test}: {alarms} of {RUNS} at {alpha}")
    assert alarms <= stats.binom.ppf(0.999, RUNS, alpha)


def test_the_mean_wealth_of_a_bet_is_one():
    """E[W_n] = 1 exactly for mean-zero differences, here over 4,000 bets of 20 coin tosses."""
    rng = np.random.default_rng(3)
    wealth = []
    for _ in range(4000):
        bet = Bet.start(1).update(rng.choice([-0.3, 0.3], size=(20, 1)))
        wealth.append(np.exp(np.logaddexp.reduce(bet.log_wealth.ravel())) / bet.log_wealth.size)
    error = np.std(wealth) / np.sqrt(len(wealth))
    assert abs(np.mean(wealth) - 1.0) < 4.0 * error


def test_resolution_is_what_the_same_test_rejects():
    """A shift of the stated size is rejected in at least 90 of 100 fresh runs."""
    rng = np.random.default_rng(8)
    alpha, n = 1e-4, 2000
    null = rng.uniform(-0.4, 0.4, (n, 3))
    delta = float(Bet.start(3).update(null).resolution(alpha).max())
    shift = np.array([delta, 0.0, 0.0])
    hits = sum(
        Bet.start(3).update(rng.uniform(-0.4, 0.4, (n, 3)) + shift).rejects(alpha)
        for _ in range(100)
    )
    assert hits >= 90
