"""Quantiles are asked for at the level that covers what is stated: against a slow version, and what must hold."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.calibration import (
    BEYOND,
    FLEET_SHRINKAGE_CUTOFFS,
    MOST_MISSES,
    NEAR_BOUND,
    SHRINKAGE_CUTOFFS,
    Calibration,
    at_levels,
    grid_of,
    part_coverage,
)
from models.forecast import FloatArray, ForecastError
from models.parts import FLEET_CORRELATION, HALF_LIFE_SECONDS

LEVELS = (0.5, 0.9, 0.99)
GRID = grid_of(LEVELS)
POINTS = (*GRID, *BEYOND)
"""What coverage is followed at: levels, then what lies beyond the highest."""
REACH = np.asarray([300.0, 1200.0])
AT_ONCE = (1e-6, np.full(2, 1e-6))
"""Cutoffs a moment apart whose parts reach no farther: each counts whole, and nothing fades in between."""


def a_record(covered: FloatArray) -> Calibration:
    """The record of some cutoffs, [cutoffs, series, parts, points], of a horizon of four steps in two parts."""
    record = Calibration.without_record(covered.shape[1], LEVELS, 4)
    for each in covered:
        record = record.realised(each, *AT_ONCE)
    return record


def always(shares: tuple[float, ...], *, cutoffs: int = 400, series: int = 3) -> FloatArray:
    """The same coverage at every cutoff, for all series and parts."""
    return np.broadcast_to(np.asarray(shares), (cutoffs, series, 2, len(POINTS))).copy()


def slow_asked(own: FloatArray, fleet: FloatArray, cutoffs: int, series: int, level: float) -> float:
    """The first point of the polygon through (coverage, level) at which the coverage is reached."""
    stated = np.asarray([*GRID, 1.0, 1.0, 1.0])
    independent = cutoffs * series / (1 + (series - 1) * FLEET_CORRELATION)
    trust = independent / (independent + FLEET_SHRINKAGE_CUTOFFS * 4 * stated * (1 - stated))
    fleet = trust * fleet + (1 - trust) * stated
    trust = cutoffs / (cutoffs + SHRINKAGE_CUTOFFS)
    believed = [0.0, *(trust * own + (1 - trust) * fleet)[:-1], 1.0]
    points = [0.0, *POINTS]
    asked = POINTS[-1]
    for k in range(1, len(points)):
        low, high = max(believed[:k]), max(believed[: k + 1])
        if high >= level:
            share = (level - low) / (high - low) if high > low else 1.0
            asked = points[k - 1] + share * (points[k] - points[k - 1])
            break
    highest = MOST_MISSES * level if level <= 0.5 else POINTS[-1]
    return min(max(asked, level / MOST_MISSES, 1 - MOST_MISSES * (1 - level)), highest)


@given(st.integers(1, 60), st.integers(1, 4), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_the_level_asked_for_is_its_definition(cutoffs: int, series: int, seed: int) -> None:
    """For any coverage: the series' own, shrunk to the fleet's, that to what was stated, inverted."""
    covered = np.sort(np.random.default_rng(seed).uniform(0, 1, (cutoffs, series, 2, len(POINTS))), axis=-1)

    asked = a_record(covered).asked(LEVELS, beyond=True)

    own, fleet = covered.mean(axis=0), covered.mean(axis=(0, 1))
    for s, part, k in np.ndindex(series, 2, len(LEVELS)):
        expected = slow_asked(own[s, part], fleet[part], cutoffs, series, LEVELS[k])
        assert asked[s, part, k] == pytest.approx(expected, abs=1e-6)


def test_without_a_record_every_level_is_asked_for_as_it_is() -> None:
    """Nothing is known to correct; the same for a series that nobody has met."""
    record = Calibration.without_record(2, LEVELS, 4)

    np.testing.assert_allclose(record.asked(LEVELS, beyond=True), np.broadcast_to(LEVELS, (2, 2, 3)))
    np.testing.assert_allclose(record.asked_of_unknown((0.3, 0.97), beyond=True), [[0.3, 0.97]] * 2)


def test_asking_for_the_level_covers_what_was_stated() -> None:
    """Forecasts too narrow by a third: asked anew, .9 and .99 cover .9 and .99 of later outcomes, part by part."""
    rng = np.random.default_rng(0)
    samples = np.sort(rng.standard_normal(200_000))
    narrow = np.quantile(samples, GRID) / 1.5
    forecast = np.broadcast_to(narrow[None, :, None], (50, len(GRID), 4))
    record = Calibration.without_record(50, LEVELS, 4)
    for _ in range(60):
        covered = part_coverage(rng.standard_normal((50, 4)), forecast, GRID, record.part_ends)
        record = record.realised(covered, *AT_ONCE)

    served = at_levels(forecast, GRID, record.asked(LEVELS, beyond=True), record.part_ends)

    later = rng.standard_normal((2000, 50, 1, 4))
    share = np.mean(later <= served[None], axis=(0, 1, 3))
    np.testing.assert_allclose(share, [0.5, 0.9, 0.99], atol=0.02)
    assert np.mean(later <= forecast[:, [GRID.index(0.9)]], axis=(0, 1, 3)) < 0.82


def test_a_level_is_never_asked_for_that_leaves_far_more_misses() -> None:
    """However cautious forecasts were until now: twice the misses stated at most; however bold: the farthest beyond."""
    cautious = a_record(always((1.0,) * len(POINTS))).asked(LEVELS, beyond=True)
    bold = a_record(always((0.1,) * len(POINTS))).asked(LEVELS, beyond=True)

    np.testing.assert_allclose(cautious[0, 0], [0.25, 0.8, 0.98])
    assert (bold[0, 0, 1:] > BEYOND[-2]).all()
    assert bold[0, 0, 0] == MOST_MISSES * 0.5


def test_a_short_record_leans_on_the_fleet() -> None:
    """A series with few cutoffs is corrected as the others are; one without any takes the fleet's correction."""
    covered = always((*(np.asarray(GRID) ** 2), 1.0, 1.0, 1.0), cutoffs=60, series=40)
    covered[:, 0] = 1.0
    covered[:57, 0] = np.nan

    record = a_record(covered)

    fleet = record.asked_of_unknown(LEVELS, beyond=True)
    assert (fleet[:, 1] > 0.93).all()
    np.testing.assert_allclose(record.asked(LEVELS, beyond=True)[0], fleet, atol=0.02)


@pytest.mark.parametrize("series", [1, 200])
def test_few_cutoffs_correct_little_however_many_series_there_are(series: int) -> None:
    """Forecasts too high at two cutoffs move the median a little, at many all the way; a fleet's tail nearly as far."""
    covered = always((*np.sqrt(GRID), 1.0, 1.0, 1.0), cutoffs=1500, series=series)

    few, many = (a_record(covered[:n]).asked_of_unknown((0.5, 0.99), beyond=False) for n in (2, 1500))

    assert (few[:, 0] > 0.4).all()
    assert (many[:, 0] < 0.27).all()
    if series > 1:
        np.testing.assert_allclose(few[:, 1], many[:, 1], atol=0.005)


def test_series_that_have_just_begun_do_not_unsettle_the_fleet() -> None:
    """Two series that were followed for long; with fifty beside them that nothing was scored of, the levels stay."""
    covered = always((*(np.asarray(GRID) ** 2), 1.0, 1.0, 1.0), series=52)
    covered[:, 2:] = np.nan

    asked = a_record(covered).asked_of_unknown(LEVELS, beyond=True)

    np.testing.assert_allclose(asked, a_record(covered[:, :2]).asked_of_unknown(LEVELS, beyond=True))


def test_outcomes_that_were_seen_already_count_once() -> None:
    """Two cutoffs that share half of their outcomes are one and a half."""
    record = Calibration.without_record(1, LEVELS, 4)
    for _ in range(2):
        record = record.realised(always((*GRID, 1.0, 1.0, 1.0), cutoffs=1, series=1)[0], 600.0, REACH)

    np.testing.assert_allclose(record.evidence, [[2.0, 1.0]], rtol=1e-3)


def test_old_coverage_fades_and_nothing_scored_changes_no_share() -> None:
    """After a half-life a cutoff counts half; NaN leaves the shares as they are."""
    record = a_record(always((*GRID, 1.0, 1.0, 1.0), cutoffs=10))

    after = record.realised(np.full((3, 2, len(POINTS)), np.nan), HALF_LIFE_SECONDS, REACH)

    np.testing.assert_allclose(after.evidence, record.evidence / 2)
    np.testing.assert_allclose(after.covered, record.covered / 2)


def test_coverage_is_counted_by_part() -> None:
    """A point without a sample or a forecast does not count at all."""
    actual = np.asarray([[1.0, 2.0, np.nan, 3.0]])
    forecast = np.asarray([[[1.1, 1.0, 1.0, np.nan], [2.0, 2.5, 2.0, 2.0]]])

    covered = part_coverage(actual, forecast, (0.8, 0.9), (1, 3, 4))

    np.testing.assert_array_equal(covered[:, :, :2], [[[1.0, 1.0], [0.0, 1.0], [np.nan, np.nan]]])


def test_ties_speak_neither_for_nor_against_a_forecast() -> None:
    """An idle series, forecast at zero at every level, asks for what is stated; so does a mostly idle one."""
    zeros = np.zeros((1, len(GRID), 4))
    np.testing.assert_allclose(part_coverage(np.zeros((1, 4)), zeros, GRID, (4,))[:, :, : len(GRID)], [[GRID]])
    mostly = np.where(np.asarray(GRID) > 0.8, 3.0, 0.0)[None, :, None]

    covered = part_coverage(np.asarray([[0.0] * 4 + [3.0]]), np.repeat(mostly, 5, axis=2), GRID, (5,))

    at = dict(zip(POINTS, covered[0, 0], strict=True))
    assert at[0.5] == pytest.approx(0.8 * 0.5 / 0.9)
    assert at[0.8] == pytest.approx(0.8 * 0.8 / 0.9)
    assert at[0.9] == pytest.approx(0.8 + 0.2 * (0.9 - 0.8) / (1 - 0.8))


@given(st.integers(0, 1000))
def test_quantiles_at_other_levels_never_cross(seed: int) -> None:
    """Levels asked for ascend with those stated, so what is served does as well."""
    rng = np.random.default_rng(seed)
    covered = np.sort(rng.uniform(0, 1, (4, 2, 2, len(POINTS))), axis=-1)
    values = np.sort(rng.uniform(0, 5, (2, len(GRID), 4)), axis=1)
    record = a_record(covered)

    served = at_levels(values, GRID, record.asked((0.4, 0.6, 0.9, 0.95, 0.99), beyond=True), record.part_ends)

    assert (np.diff(served, axis=1) >= 0).all()
    assert ((served >= values[:, :1]) & (served <= 3 * values[:, -1:])).all()


def test_what_was_never_seen_may_be_asked_for() -> None:
    """Where one outcome in twenty exceeds even the highest quantile, but never by far, .99 lies a little beyond it."""
    record = a_record(always((*(0.95 * np.asarray(GRID)), 1.0, 1.0, 1.0)))
    values = np.sort(np.random.default_rng(0).uniform(1, 2, (3, len(GRID), 4)), axis=1)

    served = at_levels(values, GRID, record.asked(LEVELS, beyond=True), record.part_ends)

    assert (served[:, -1] > values[:, -1]).all()
    tail = values[:, -1] - values[:, GRID.index(0.8)]
    assert (served[:, -1] <= values[:, -1] + (BEYOND[0] - 1) * tail).all()
    within = at_levels(values, GRID, record.asked(LEVELS, beyond=False), record.part_ends)
    np.testing.assert_array_equal(within[:, -1], values[:, -1])


def test_a_record_of_another_shape_is_refused() -> None:
    """A file that was cut, or numbers that are none, are not half-read."""
    record = Calibration.without_record(2, LEVELS, 4)

    with pytest.raises(ForecastError, match="needs coverage like it"):
        Calibration(record.levels, record.part_ends, record.covered[:1], record.evidence)
    with pytest.raises(ForecastError, match="finite"):
        Calibration(record.levels, record.part_ends, record.covered - 1, record.evidence)


def test_mapie_asks_for_the_same_levels() -> None:
    """Split conformal prediction by MAPIE, on the levels at which forecasts first cover what happened, agrees."""
    from mapie.regression import SplitConformalRegressor
    from sklearn.dummy import DummyRegressor

    rng = np.random.default_rng(0)
    levels = tuple(np.round(np.arange(0.02, 1.0, 0.02), 2).tolist())
    cutoffs, normal = 3000, NormalDist()
    narrow = np.asarray([normal.inv_cdf(level) / 1.5 for level in grid_of(levels)])[None, :, None]
    outcomes = rng.standard_normal(cutoffs)
    record = Calibration.without_record(1, levels, 1)
    for each in outcomes:
        covered = part_coverage(np.full((1, 1), each), narrow, record.levels, record.part_ends)
        record = record.realised(covered, 1e-6, np.full(1, 1e-6))
    first_covered = np.asarray([normal.cdf(1.5 * each) for each in outcomes])

    asked = record.asked((0.5, 0.8, 0.9), beyond=False)[0, 0]

    nothing, zeros = np.zeros((2, 1)), np.zeros((cutoffs, 1))
    constant = DummyRegressor(strategy="constant", constant=0.0).fit(nothing, [0.0, 0.0])
    theirs = SplitConformalRegressor(constant, confidence_level=[0.5, 0.8, 0.9], prefit=True)
    theirs.conformalize(zeros, first_covered)
    np.testing.assert_allclose(asked, theirs.predict_interval(nothing[:1])[1][0, 1], atol=0.01)


def slow_level(bound: float, quantiles: FloatArray) -> float:
    """The level that a forecast gives to less than what is as good as the bound, by looking from below."""
    reach = bound * (1 - NEAR_BOUND)
    below = [k for k, value in enumerate(quantiles) if value < reach]
    if not below:
        return 0.0
    if len(below) == len(quantiles):
        return GRID[-1]
    low, high = quantiles[below[-1]], quantiles[below[-1] + 1]
    return float(GRID[below[-1]] + (reach - low) / (high - low) * (GRID[below[-1] + 1] - GRID[below[-1]]))


@given(st.integers(0, 10_000))
@settings(deadline=None)
def test_a_bound_lies_evenly_above_its_level(seed: int) -> None:
    """What it exceeds is missed, what reaches it covers what is left of the levels in proportion."""
    rng = np.random.default_rng(seed)
    actual, is_bound = rng.uniform(0, 4, (3, 4)), rng.random((3, 4)) < 0.5
    forecast = np.sort(rng.choice([0.0, 1.0, 1.5, 2.0, 2.01, 3.0], (3, len(GRID), 4)), axis=1)

    covered = part_coverage(actual, forecast, GRID, (1, 2, 3, 4), is_bound)[:, :, : len(GRID)]

    plain = part_coverage(actual, forecast, GRID, (1, 2, 3, 4))[:, :, : len(GRID)]
    for s, h in np.ndindex(actual.shape):
        if is_bound[s, h]:
            least = slow_level(float(actual[s, h]), forecast[s, :, h])
            missed = forecast[s, :, h] < actual[s, h] * (1 - NEAR_BOUND)
            expected = np.where(missed, 0.0, (np.asarray(GRID) - least) / (1 - least))
        else:
            expected = plain[s, h]
        np.testing.assert_allclose(covered[s, h], expected)


@pytest.mark.parametrize("level", [0.3, 0.55, 0.79, 0.9, 0.97])
def test_what_is_cut_off_does_not_ask_for_lower_levels(level: float) -> None:
    """Forecasts of demand that are right, outcomes cut off at a quantile of it: every level is asked for as it is."""
    rng = np.random.default_rng(0)
    demand = rng.lognormal(size=(1, 20_000))
    forecast = np.broadcast_to(np.quantile(demand, GRID)[None, :, None], (1, len(GRID), 20_000))
    limit = np.quantile(demand, level)
    usage, is_bound = np.minimum(demand, limit), demand >= limit

    covered, plain = (part_coverage(usage, forecast, GRID, (20_000,), each) for each in (is_bound, None))

    off = covered[0, 0, : len(GRID)] - GRID
    assert (np.abs(off) < 0.3 * (1 - np.asarray(GRID))).all()
    assert (np.abs(off) < 0.03).all()
    above = [k for k, each in enumerate(GRID) if each > level]
    assert (plain[0, 0, above] == 1).all(), "as usage the bounds say that every forecast above them was too high"


def test_what_is_always_at_its_limit_asks_for_nothing() -> None:
    """Usage that varies a little around a limit, forecast as it is: nothing to learn, no level moves far."""
    rng = np.random.default_rng(0)
    usage = rng.uniform(0.985, 1.02, (1, 5000))
    forecast = np.broadcast_to(np.quantile(usage, GRID)[None, :, None], (1, len(GRID), 5000))

    covered = part_coverage(usage, forecast, GRID, (5000,), np.ones(usage.shape, dtype=np.bool_))

    np.testing.assert_allclose(covered[0, 0, : len(GRID)], GRID, atol=0.01)
