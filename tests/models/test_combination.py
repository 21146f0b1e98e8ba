"""Forecasters are believed by what they have cost: the fast weights against slow, obvious ones, and what must hold."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import catalog
from models.combination import (
    LARGEST_RELATIVE_LOSS,
    LONGEST_MEMORY,
    SHARPNESS,
    SHRINKAGE_CUTOFFS,
    SMALLEST_BEST,
    TAIL_CUTOFFS,
    TAIL_LEVEL,
    TAIL_MARGIN,
    Combination,
    combined,
    part_losses,
)
from models.forecast import FloatArray, ForecastError
from models.parts import FLEET_CORRELATION, HALF_LIFE_SECONDS, part_ends

LEVELS = (0.5, 0.9)
NAMES = ("first", "second", "third")
REACH = np.asarray([300.0, 1200.0])
AT_ONCE = (1e-6, np.full(2, 1e-6))
"""Cutoffs a moment apart whose parts reach no farther: each counts whole, and nothing fades in between."""


def a_record(losses: FloatArray) -> Combination:
    """The record of some cutoffs, [cutoffs, series, forecasters, parts, levels], one after another."""
    record = Combination.without_record(losses.shape[1], NAMES, LEVELS, 4)
    for each in losses:
        record = record.realised(each, *AT_ONCE)
    return record


def some_losses(cutoffs: int, series: int, seed: int = 0) -> FloatArray:
    """Losses for two parts of a horizon of 4 steps."""
    return np.random.default_rng(seed).uniform(0.1, 2.0, (cutoffs, series, len(NAMES), 2, len(LEVELS)))


def slow_weights(losses: FloatArray, siblings: list[list[int]]) -> FloatArray:
    """The weights as their definition reads, one number at a time, without any fading."""
    cutoffs, series, _, parts, levels = losses.shape
    total = losses.sum(axis=0)

    def relative(summed: FloatArray) -> FloatArray:
        best = max(min(summed), SMALLEST_BEST * float(np.mean(summed)))
        return np.asarray(np.minimum(summed / best, LARGEST_RELATIVE_LOSS))

    result = np.empty_like(total)
    for s, p, q in np.ndindex(series, parts, levels):
        level = LEVELS[q]
        outcomes = (1, 3)[p]
        needed = SHRINKAGE_CUTOFFS * (1 + 1 / outcomes) / (4 * level * (1 - level))
        prior = relative(total[:, :, p, q].sum(axis=0))
        for numbers in siblings[::-1]:
            kin = [k for k in range(series) if k != s and numbers[k] == numbers[s] >= 0]
            if not kin:
                continue
            trust = cutoffs * len(kin) / (cutoffs * len(kin) + needed)
            prior = trust * relative(total[kin][:, :, p, q].sum(axis=0)) + (1 - trust) * prior
        trust = cutoffs / (cutoffs + needed)
        believed = trust * relative(total[s, :, p, q]) + (1 - trust) * prior
        weight = np.exp(-SHARPNESS * (believed - believed.min()))
        result[s, :, p, q] = weight / weight.sum()
    return np.asarray(result)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_weights_are_their_definition(cutoffs: int, series: int, seed: int, kinships: int) -> None:
    """For any losses, without siblings and with some by several kinships, a part of them not known."""
    losses = some_losses(cutoffs, series, seed)
    siblings = np.random.default_rng(seed).integers(-1, 3, (kinships, series)).tolist()

    weights = a_record(losses).weights(siblings)

    np.testing.assert_allclose(weights, slow_weights(losses, siblings), rtol=1e-9)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)


def test_without_a_record_all_forecasters_weigh_the_same() -> None:
    """Nothing is known to prefer one by; the same for a series that nobody has met."""
    record = Combination.without_record(2, NAMES, LEVELS, 4)

    np.testing.assert_allclose(record.weights(), 1 / 3)
    np.testing.assert_allclose(record.weights_of_unknown(), 1 / 3)


def test_a_series_of_its_own_kind_learns_its_own_weights() -> None:
    """Two hundred cutoffs in which the third forecaster is best for one series and the first for all others."""
    losses = np.ones((200, 10, 3, 2, 2))
    losses[:, :, 0] = 0.7
    losses[:, 4, 0], losses[:, 4, 2] = 1.0, 0.7

    weights = a_record(losses).weights()

    assert (weights[4, 2] > 0.8).all()
    assert (np.delete(weights, 4, axis=0)[:, 0] > 0.9).all()


@pytest.mark.parametrize(("cutoffs", "series"), [(1, 1), (20, 1), (20, 50)])
def test_of_the_tail_the_longest_memory_is_believed_until_enough_was_seen(cutoffs: int, series: int) -> None:
    """However good another was so far: as the definition reads, at the tail and nowhere else."""
    levels, names = (0.5, 0.95, 0.99), ("first", LONGEST_MEMORY)
    record = Combination.without_record(series, names, levels, 1)
    losses = np.broadcast_to(np.asarray([1.0, 1.2])[None, :, None, None], (series, 2, 1, 3))
    for _ in range(cutoffs):
        record = record.realised(losses, 1e-6, np.asarray([1e-6]))

    weights = record.weights_of_unknown()

    independent = cutoffs * series / (1 + (series - 1) * FLEET_CORRELATION)
    for k, level in enumerate(levels):
        needed = TAIL_CUTOFFS / (4 * level * (1 - level)) if level >= TAIL_LEVEL else 0.0
        trust = independent / (independent + needed)
        behind = trust * 0.2 - (1 - trust) * TAIL_MARGIN
        assert weights[1, 0, k] == pytest.approx(1 / (1 + np.exp(SHARPNESS * behind)))
    assert LONGEST_MEMORY in catalog.names()


def test_a_series_without_a_record_takes_its_siblings_then_the_fleets() -> None:
    """Born just now beside a twin in another namespace: the twin's forecaster is believed, not the fleet's."""
    losses = np.ones((200, 6, 3, 2, 2))
    losses[:, :, 0] = 0.7
    losses[:, 1, 0], losses[:, 1, 2] = 1.0, 0.7
    losses[:, 0] = np.nan
    record = a_record(losses)

    alone, beside_its_twin = record.weights()[0], record.weights([[0, 0, 1, 2, 3, 4]])[0]

    assert (alone[0] > 0.8).all()
    assert (beside_its_twin[2] > 0.8).all()
    np.testing.assert_allclose(record.weights_of_unknown(), alone)


def a_record_of_three_opinions() -> Combination:
    """The first series has no record; the second believes the second forecaster, the third the third, others the
    first."""
    losses = np.ones((400, 8, 3, 2, 2))
    losses[:, :, 0] = 0.7
    for row in (1, 2):
        losses[:, row, 0], losses[:, row, row] = 1.0, 0.7
    losses[:, 0] = np.nan
    return a_record(losses)


UNKNOWN = [-1] * 8
WITH_THE_SECOND, WITH_THE_THIRD = [4, 4, *UNKNOWN[2:]], [0, -1, 0, *UNKNOWN[3:]]


@pytest.mark.parametrize(
    ("siblings", "believed"),
    [
        ([WITH_THE_SECOND, WITH_THE_THIRD], 1),
        ([WITH_THE_THIRD, WITH_THE_SECOND], 2),
        ([UNKNOWN, WITH_THE_THIRD], 2),
        ([[0, 1, 2, 3, 4, 5, 6, 7], WITH_THE_SECOND, WITH_THE_THIRD], 1),
        ([UNKNOWN, UNKNOWN, UNKNOWN], 0),
    ],
)
def test_the_nearest_kinship_in_which_a_series_is_not_alone_is_believed(
    siblings: list[list[int]], believed: int
) -> None:
    """The farther ones and the fleet only where there is none nearer; who is unknown is nobody's sibling."""
    weights = a_record_of_three_opinions().weights(siblings)[0]

    assert (weights[believed] > 0.8).all()


def test_siblings_that_have_shown_little_leave_the_word_to_farther_ones() -> None:
    """The namesake is as new as the series itself: the next kinship is believed, not the fleet."""
    record = a_record_of_three_opinions()
    loss, evidence = record.loss.copy(), record.evidence.copy()
    loss[1], evidence[1] = 0.0, 0.0

    weights = replace(record, loss=loss, evidence=evidence).weights([WITH_THE_SECOND, WITH_THE_THIRD])

    assert (weights[0, 2] > 0.8).all()


def test_kinships_in_which_all_are_alone_change_no_bit() -> None:
    """Names as before images and owners were known: the same weights to the bit."""
    record, names = a_record(some_losses(5, 4)), [0, 1, 0, 2]

    np.testing.assert_array_equal(record.weights([names, [-1] * 4, [3, 2, 1, 0]]), record.weights([names]))
    np.testing.assert_array_equal(record.weights([[-1] * 4] * 3), record.weights())


def test_the_order_of_the_series_means_nothing_to_kinships() -> None:
    """Shuffled series with their numbers: the same weights."""
    losses, order = some_losses(5, 6), [3, 0, 5, 2, 4, 1]
    siblings = np.asarray([[0, 0, 1, 2, 3, 4], [-1, 0, 0, 0, -1, 1], [2, 2, 2, -1, -1, 2]])

    weights = a_record(losses).weights(siblings)

    np.testing.assert_allclose(a_record(losses[:, order]).weights(siblings[:, order]), weights[order], rtol=1e-9)


def test_old_losses_fade() -> None:
    """Forty cutoffs for the first, then as many for the second a few half-lives later: the second is believed."""
    early, late = np.ones((40, 1, 3, 2, 2)), np.ones((40, 1, 3, 2, 2))
    early[:, :, 0], late[:, :, 1] = 0.5, 0.5
    record = a_record(early)
    for each in late:
        record = record.realised(each, HALF_LIFE_SECONDS / 10, REACH)

    weights = record.weights()

    assert (weights[0, 1] > 0.9).all()
    assert (record.evidence < 80).all()


def test_what_was_not_scored_says_nothing() -> None:
    """A cutoff without samples, or at which one forecaster gave no answer, leaves a record as it fades."""
    losses = some_losses(3, 2)
    record = a_record(losses)
    unscored = losses[0].copy()
    unscored[1, 2] = np.nan
    unscored[0] = np.nan

    after = record.realised(unscored, 0.0, REACH)

    np.testing.assert_array_equal(after.loss, record.loss)
    np.testing.assert_array_equal(after.evidence, record.evidence)


def test_an_idle_series_does_not_disturb_the_fleet() -> None:
    """Where no forecaster errs there is nothing to prefer, and nothing to tell others."""
    losses = some_losses(50, 4)
    with_idle = losses.copy()
    with_idle[:, 0] = 0.0

    weights = a_record(with_idle).weights()

    np.testing.assert_allclose(weights[1:], a_record(losses[:, 1:]).weights())
    assert np.isfinite(weights[0]).all()


def test_a_hopeless_forecaster_changes_nothing_between_the_others() -> None:
    """One that errs a hundred times as much gets no weight, and does not make the others look alike."""
    losses = np.ones((100, 1, 3, 2, 2))
    losses[:, :, 1] = 1.2
    hopeless = losses.copy()
    losses[:, :, 2], hopeless[:, :, 2] = 5.0, 500.0

    np.testing.assert_allclose(a_record(hopeless).weights(), a_record(losses).weights())
    assert (a_record(hopeless).weights()[0, 2] < 1e-6).all()


def test_another_unit_changes_no_weight() -> None:
    """Losses in millicores or bytes: what counts is their proportion."""
    losses = some_losses(20, 3)

    np.testing.assert_allclose(a_record(losses * 2.0**20).weights(), a_record(losses).weights(), rtol=1e-12)


def test_part_losses_are_mean_pinball_in_each_part() -> None:
    """Worked by hand: actual 2, forecast 1 (under) and 4 (over), at the median and at 0.9."""
    actual = np.asarray([[2.0, 2.0, np.nan, 2.0]])
    low, high = np.full((1, 2, 4), 1.0), np.full((1, 2, 4), 4.0)

    losses = part_losses(actual, [low, high], LEVELS, (1, 4))

    np.testing.assert_allclose(losses[0, 0], [[0.5, 0.9], [0.5, 0.9]])
    np.testing.assert_allclose(losses[0, 1], [[1.0, 0.2], [1.0, 0.2]])


def test_a_part_without_a_point_has_no_loss() -> None:
    """No sample, or no answer by one of the forecasters."""
    actual = np.asarray([[2.0, np.nan, np.nan, np.nan], [2.0, 2.0, 2.0, 2.0]])
    answers, holes = np.ones((2, 2, 4)), np.ones((2, 2, 4))
    holes[1, :, 0] = np.nan

    losses = part_losses(actual, [answers, holes], LEVELS, (1, 4))

    assert np.isnan(losses[0, :, 1]).all()
    assert np.isnan(losses[1, :, 0]).all()
    assert np.isfinite(losses[1, :, 1]).all()


def test_the_combination_is_the_weighted_mean_of_quantiles() -> None:
    """Of each step's own part, and never crossing."""
    weights = np.zeros((1, 3, 2, 2))
    weights[0, 0, 0], weights[0, 1, 0], weights[0, 1, 1] = 0.25, 0.75, 1.0
    forecasts = {0: np.asarray([[[1.0] * 4, [3.0] * 4]]), 1: np.asarray([[[2.0] * 4, [5.0] * 4]])}

    made = combined(forecasts, weights, (1, 4), LEVELS, LEVELS)

    np.testing.assert_allclose(made[0, :, 0], [1.75, 4.5])
    np.testing.assert_allclose(made[0, :, 1:], [[2.0] * 3, [5.0] * 3])


def test_a_forecaster_without_an_answer_gives_its_weight_to_the_others() -> None:
    """And where none has one there is none."""
    weights = np.full((2, 3, 2, 2), 1 / 3)
    answers = np.full((2, 2, 4), 2.0)
    silent = np.full((2, 2, 4), np.nan)
    answers[1] = np.nan

    made = combined({0: answers, 2: silent}, weights, (1, 4), LEVELS, LEVELS)

    np.testing.assert_allclose(made[0], 2.0)
    assert np.isnan(made[1]).all()


def test_levels_between_the_fitted_weigh_in_proportion() -> None:
    """Half way between the levels, half way between the weights; beyond them as the nearest."""
    weights = np.zeros((1, 3, 2, 2))
    weights[0, 0, :, 0], weights[0, 1, :, 1] = 1.0, 1.0
    forecasts = {0: np.full((1, 3, 4), 1.0), 1: np.full((1, 3, 4), 3.0)}

    made = combined(forecasts, weights, (1, 4), LEVELS, (0.2, 0.7, 0.99))

    np.testing.assert_allclose(made[0, :, 0], [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("horizon", "ends"), [(1, (1,)), (4, (1, 4)), (48, (1, 4, 12, 24, 48)), (50, (1, 4, 12, 24, 48, 50))]
)
def test_a_horizon_is_cut_into_parts(horizon: int, ends: tuple[int, ...]) -> None:
    """Fine at first, then coarser, the last part ending with it."""
    assert part_ends(horizon) == ends


def test_a_record_that_is_none_is_refused() -> None:
    """Losses that are not numbers, or of another shape."""
    record = a_record(some_losses(2, 2))
    with pytest.raises(ForecastError, match="needs losses like it"):
        replace(record, loss=record.loss[:1])
    with pytest.raises(ForecastError, match="finite and not negative"):
        replace(record, loss=np.where(record.loss > 0, np.nan, 0.0))


@given(st.integers(0, 10_000))
@settings(deadline=None)
def test_nothing_is_lost_above_a_bound(seed: int) -> None:
    """Pinball loss of the smaller of forecast and bound where demand was cut off, of the forecast elsewhere."""
    rng = np.random.default_rng(seed)
    actual = np.where(rng.random((3, 4)) < 0.2, np.nan, rng.uniform(0, 4, (3, 4)))
    is_bound = rng.random((3, 4)) < 0.5
    made = [np.sort(rng.uniform(0, 4, (3, 2, 4)), axis=1) for _ in range(2)]

    losses = part_losses(actual, made, LEVELS, (1, 4), is_bound)

    for s, f, p, q in np.ndindex(losses.shape):
        total = []
        for h in range((0, 1)[p], (1, 4)[p]):
            y, forecast = actual[s, h], made[f][s, q, h]
            gap = y - (min(forecast, y) if is_bound[s, h] else forecast)
            total.append(max(LEVELS[q] * gap, (LEVELS[q] - 1) * gap))
        known = [each for each in total if not np.isnan(each)]
        expected = np.mean(known) if known else np.nan
        np.testing.assert_allclose(losses[s, f, p, q], expected)
