"""Conformal correction: what it promises, and its fast form against an obvious one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.calibration import LARGEST_OFFSET, calibrated, conformal_offsets, series_scale
from models.forecast import between_levels
from tests.support.histories import a_history, daily_usage

LEVELS = (0.5, 0.9, 0.99)


def slow_offset(scores: list[float], level: float) -> float:
    """The ceil((n + 1) level)-th smallest score, or the largest."""
    return sorted(scores)[min(math.ceil(round((len(scores) + 1) * level, 9)), len(scores)) - 1]


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=40)
def test_offsets_are_their_definition(seed: int, cutoffs: int, series: int) -> None:
    """For any misses, missing samples and scales: the series' conformal quantile shrunk to the pooled one."""
    rng = np.random.default_rng(seed)
    actual = np.where(rng.random((cutoffs, series, 6)) < 0.3, np.nan, rng.uniform(0, 1, (cutoffs, series, 6)))
    forecast = np.sort(rng.uniform(0, 1, (cutoffs, series, 3, 6)), axis=2)
    scale = rng.uniform(2, 3, (cutoffs, series))

    fast = conformal_offsets(actual, forecast, scale, LEVELS)

    for k, level in enumerate(LEVELS):
        scores = [
            [
                (actual[c, i, h] - forecast[c, i, k, h]) / scale[c, i]
                for c in range(cutoffs)
                for h in range(6)
                if not np.isnan(actual[c, i, h])
            ]
            for i in range(series)
        ]
        pooled = [score for own in scores for score in own]
        fleet = slow_offset(pooled, level) if pooled else 0.0
        for i in range(series):
            seen = sum(not np.isnan(actual[c, i]).all() for c in range(cutoffs))
            own = slow_offset(scores[i], level) if scores[i] else 0.0
            expected = seen / (seen + 100) * own + 100 / (seen + 100) * fleet
            assert fast[i, k] == pytest.approx(expected, abs=1e-12)


def test_calibration_brings_coverage_to_the_level() -> None:
    """A forecast that is too low throughout covers as often as its level says, on days it was not calibrated on."""
    rng = np.random.default_rng(0)
    exact = np.quantile(rng.standard_normal(100_000), LEVELS)
    actual = 10 + rng.standard_normal((60, 5, 20))
    forecast = np.broadcast_to((9.2 + 0.7 * exact)[None, None, :, None], (60, 5, 3, 20))
    scale = np.full((60, 5), 4.0)

    offsets = conformal_offsets(actual[:30], forecast[:30], scale[:30], LEVELS)
    after = np.stack([calibrated(f, s, offsets) for f, s in zip(forecast[30:], scale[30:], strict=True)])
    covered = (actual[30:, :, None, :] <= after).mean(axis=(0, 1, 3))

    np.testing.assert_allclose(covered, LEVELS, atol=0.02)
    assert ((actual[30:, :, None, :] <= forecast[30:]).mean(axis=(0, 1, 3)) < np.asarray(LEVELS) - 0.03).all()


def test_a_quantile_that_ties_is_not_moved() -> None:
    """Where most outcomes are the zero that was forecast, what the fleet misses by is no reason to leave it."""
    rng = np.random.default_rng(0)
    actual = rng.uniform(1, 2, (20, 5, 8))
    actual[:, 0] = np.where(rng.random((20, 8)) < 0.3, 2.0, 0.0)
    forecast = np.broadcast_to(np.asarray([0.5, 0.8, 0.9])[:, None], (20, 5, 3, 8)).copy()
    forecast[:, 0, 0] = 0.0

    offsets = conformal_offsets(actual, forecast, np.ones((20, 5)), LEVELS)

    assert offsets[0, 0] == 0
    assert (offsets[1:] > 0.5).all()


def test_one_wild_miss_moves_a_forecast_only_so_far() -> None:
    """A sample of 1e12 in the calibration days does not make a forecast of 1e12."""
    actual = np.full((2, 1, 3), 1e12)
    forecast = np.ones((2, 1, 3, 3))

    offsets = conformal_offsets(actual, forecast, np.ones((2, 1)), LEVELS)

    assert (offsets == LARGEST_OFFSET).all()


def test_nothing_to_learn_from_moves_nothing() -> None:
    """No samples, or usage that did not move, give offsets of zero."""
    forecast = np.ones((2, 1, 3, 3))

    assert (conformal_offsets(np.full((2, 1, 3), np.nan), forecast, np.ones((2, 1)), LEVELS) == 0).all()
    assert (conformal_offsets(np.full((2, 1, 3), 5.0), forecast, np.zeros((2, 1)), LEVELS) == 0).all()
    assert conformal_offsets(np.empty((0, 1, 3)), forecast[:0], np.empty((0, 1)), LEVELS).tolist() == [[0.0] * 3]


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.floats(0, 10))
def test_calibrated_quantiles_never_cross_nor_go_below_zero(offsets: list[float], scale: float) -> None:
    """Whatever the offsets of the levels are."""
    values = np.asarray([[[1.0, 2.0], [1.5, 2.0], [4.0, 9.0]]])

    moved = calibrated(values, np.asarray([scale]), np.asarray([offsets]))

    assert (np.diff(moved, axis=1) >= 0).all()
    assert (moved >= 0).all()


def test_the_scale_follows_the_unit_and_ignores_one_wild_sample() -> None:
    """Ten times the usage is ten times the scale; one sample of 1e12 is not seen; a constant has none."""
    usage = daily_usage(series=2)
    wild = usage.copy()
    wild[0, -5] = 1e12

    scale = series_scale(a_history(usage))

    np.testing.assert_allclose(series_scale(a_history(usage * 10)), scale * 10)
    np.testing.assert_allclose(series_scale(a_history(wild)), scale, rtol=0.1)
    assert series_scale(a_history(np.full((1, 50), 3.0))) == 0
    assert series_scale(a_history(np.full((1, 50), np.nan))) == 0


def test_offsets_at_other_levels_lie_between() -> None:
    """Linear between the fitted levels, and the nearest one's outside of them."""
    offsets = np.asarray([[0.0, 0.4, 1.0]])

    np.testing.assert_allclose(between_levels(offsets, LEVELS, (0.1, 0.7, 0.9, 0.995)), [[0.0, 0.2, 0.4, 1.0]])
