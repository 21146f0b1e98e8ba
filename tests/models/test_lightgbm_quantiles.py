"""What the learned forecaster adds, and what keeps it safe."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from models.ascending import Ascending
from models.baselines.seasonal_naive import SeasonalNaive
from models.forecast import DEFAULT_LEVELS, ForecastError, ForecasterState, QuantileForecast, Target
from models.learned.features import PAST_SECONDS, Past, origin_features, step_features
from models.learned.lightgbm_quantiles import LightGBMQuantiles
from models.learned.mixture import horizon_blocks
from models.weighted import weighted_quantiles
from tests.support.histories import MONDAY, a_history, daily_usage, mixed_usage

LEVELS = np.asarray([0.1, 0.5, 0.9])


@cache
def a_state() -> ForecasterState:
    small = LightGBMQuantiles(rounds=12, maximum_rows=3000, threads=1)
    return small.fit(a_history(mixed_usage()), Target(16)).to_state()


def a_fitted() -> LightGBMQuantiles:
    return LightGBMQuantiles.from_state(a_state())


def pinball(made: QuantileForecast, actual: np.ndarray) -> float:
    miss = actual[:, None, :] - made.values
    return float((miss * (np.asarray(made.levels)[:, None] - (miss < 0))).mean())


def test_it_learns_what_seasonal_naive_cannot() -> None:
    """Where each day has a level of its own, the newest samples tell more than yesterday's."""
    rng = np.random.default_rng(0)
    levels_of_days = np.repeat(rng.uniform(0.5, 4, (6, 14)), 96, axis=1)
    usage = daily_usage(series=6, days=14) / 4.0 ** np.arange(6)[:, None] * levels_of_days
    cut = 13 * 96 + 30
    past, actual = a_history(usage[:, :cut]), usage[:, cut : cut + 16]

    learned = LightGBMQuantiles(rounds=30, maximum_rows=6000, threads=1).fit(past.last(12 * 96), Target(16))
    made = learned.predict(past, Target(16), DEFAULT_LEVELS)

    assert learned.texts_
    assert pinball(made, actual) < 0.7 * pinball(SeasonalNaive().predict(past, Target(16), DEFAULT_LEVELS), actual)


def test_the_guard_caps_every_forecast() -> None:
    """No forecast passes its multiple of the largest sample seen, whatever was learned."""
    made = a_fitted()
    history = a_history(mixed_usage())
    ceiling = 0.3 * np.nanmax(history.last(8 * 96).usage, axis=1)[:, None, None]
    free = made.predict(history, Target(16), DEFAULT_LEVELS).values

    made.cap_factor = 0.3
    capped = made.predict(history, Target(16), DEFAULT_LEVELS).values

    np.testing.assert_array_equal(capped, np.minimum(free, ceiling))
    assert (capped < free).any()


def test_too_little_history_means_nothing_learned_but_a_forecast() -> None:
    """A fleet of an hour's age gets the empirical quantiles."""
    young = LightGBMQuantiles().fit(a_history(np.ones((2, 4))), Target(48))

    assert young.texts_ == {}
    assert (
        LightGBMQuantiles.from_state(young.to_state())
        .predict(a_history(np.ones((2, 4))), Target(3), (0.5,))
        .values.tolist()
        == [[[1.0] * 3]] * 2
    )


def test_it_says_when_it_was_not_fitted_or_the_grid_is_another() -> None:
    """Both are mistakes of the caller, named as such."""
    with pytest.raises(ForecastError, match="was not fitted"):
        LightGBMQuantiles().predict(a_history(np.ones(10)), Target(1), (0.5,))
    with pytest.raises(ForecastError, match="was not fitted"):
        LightGBMQuantiles().to_state()
    with pytest.raises(ForecastError, match="steps of 900 s and cannot forecast steps of 60 s"):
        a_fitted().predict(a_history(np.ones(10), step_seconds=60), Target(1), (0.5,))


@pytest.mark.parametrize("share", [0.0, 0.4, 0.99])
def test_a_truncated_booster_is_refused(share: float) -> None:
    """A text cut anywhere never reaches LightGBM, which would end the process on some."""
    state = a_fitted().to_state()
    cut = {level: text[: int(len(text) * share)] for level, text in state.texts.items()}

    with pytest.raises(ForecastError, match="are damaged"):
        LightGBMQuantiles.from_state(replace(state, texts=cut))


def test_a_missing_booster_is_refused() -> None:
    """One for each level, or none."""
    state = a_fitted().to_state()

    with pytest.raises(ForecastError, match="needs a booster for each"):
        LightGBMQuantiles.from_state(replace(state, texts={"0.5": state.texts["0.5"]}))


def test_a_peak_that_was_not_learned_is_refused() -> None:
    """What was learned for an hour's peak says nothing about a day's, nor about steps."""
    history = a_history(mixed_usage())
    learned = LightGBMQuantiles(rounds=3, maximum_rows=2000, threads=1).fit(history, Target(4, is_peak=True))

    for other in (Target(8, is_peak=True), Target(4)):
        with pytest.raises(ForecastError, match="cannot forecast"):
            learned.predict(history, other, DEFAULT_LEVELS)


def test_another_seed_is_another_model() -> None:
    """The seed is in force, so that its sameness elsewhere means something."""
    history = a_history(mixed_usage())
    one, two = (
        LightGBMQuantiles(rounds=3, maximum_rows=2000, seed=n, threads=1).fit(history, Target(16)) for n in (1, 2)
    )

    assert one.texts_["0.5"].split("Tree=0")[1] != two.texts_["0.5"].split("Tree=0")[1]


def test_weighted_quantiles_are_their_definition() -> None:
    """The smallest sample at which the weight of all samples up to it reaches the level."""
    rng = np.random.default_rng(0)
    past = np.where(rng.random((20, 30)) < 0.2, np.nan, rng.integers(0, 6, (20, 30)))
    weights = rng.uniform(0.1, 1, (2, 30))
    blocks = rng.integers(0, 2, (20, 3))

    fast = weighted_quantiles(past, blocks, weights, LEVELS)

    for row in range(20):
        for column in range(3):
            weight = weights[blocks[row, column]]
            known = ~np.isnan(past[row])
            for i, level in enumerate(LEVELS):
                reached = [
                    v
                    for v in np.unique(past[row, known])
                    if weight[known & (past[row] <= v)].sum() >= level * weight[known].sum() - 1e-12
                ]
                assert fast[row, column, i] == min(reached)


def test_the_newest_samples_weigh_most_for_the_nearest_step() -> None:
    """And less the farther ahead, for some hours; each weighting shares out all of its weight."""
    blocks = horizon_blocks(Target(288).ahead, 8 * 288, 300)

    assert blocks.weights[blocks.of_step[0], -1] > 0.5
    newest = blocks.weights[blocks.of_step, -1][:48]
    assert (np.diff(newest) <= 0).all()
    np.testing.assert_allclose(blocks.weights.sum(axis=1), 1, atol=0.02)


def test_features_of_the_same_phase_are_yesterdays_and_last_weeks() -> None:
    """The step one day and one week before the target, the hour and the weekday are what they say."""
    step = 900
    steps = PAST_SECONDS // step
    usage = np.arange(steps, dtype=np.float64)[None, :]
    cutoff = MONDAY + (steps - 1) * step
    past = Past(usage, Ascending.of(usage), usage, np.asarray([cutoff]), step)

    row = step_features(past, np.asarray([[3]]))[0]

    assert row[0] == steps - 1 + 3 - 96
    assert row[1] == steps - 1 + 3 - 7 * 96
    target = (cutoff + 3 * step - MONDAY) / 3600
    assert row[-2] == target % 24
    assert row[-1] == target // 24 % 7
    assert origin_features(past)[0, 0] == steps - 1
