"""Scores of forecasts that were really given, once their actual usage is known."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.forecast import FloatArray, QuantileForecast, Target
from predictor.serving.accuracy import AccuracyError, AccuracyState, AccuracyTracker, followed_horizons
from predictor.usage.panel import Resource, SeriesKey, UsagePanel

STEP = 300
START = 1_000_000_200
LEVELS = (0.5, 0.9)
HORIZONS = (300, 900)
CART = SeriesKey("shop/Deployment/cart", Resource.CPU)
SEARCH = SeriesKey("shop/Deployment/search", Resource.MEMORY)


def a_tracker(patience_seconds: int = 600) -> AccuracyTracker:
    return AccuracyTracker(LEVELS, HORIZONS, STEP, patience_seconds)


def a_panel(usage: Sequence[Sequence[float]], keys: tuple[SeriesKey, ...] = (CART,), start: int = START) -> UsagePanel:
    return UsagePanel(keys, start, STEP, np.asarray(usage, dtype=np.float64))


def a_forecast(
    cutoff: int, values: FloatArray | Sequence[object], levels: tuple[float, ...] = LEVELS
) -> QuantileForecast:
    return QuantileForecast(
        levels, np.asarray(values, dtype=np.float64), cutoff, STEP, Target(np.asarray(values).shape[2])
    )


def test_a_forecast_is_scored_when_its_step_is_observed() -> None:
    """Said 2 cores at the median and 5 at 0.9 for a step that used 4: the upper one covers, the median is 2 short."""
    tracker = a_tracker()
    tracker.issue([CART], a_forecast(START, [[[2.0] * 3, [5.0] * 3]]))

    before = tracker.observe(a_panel([[1.0]]))
    scored = tracker.observe(a_panel([[1.0, 4.0]]))

    scores = tracker.scores()
    assert (before, scored) == (0, 1)
    assert scores.keys == (CART,)
    assert scores.scored.tolist() == [[1, 0]]
    assert scores.covered[0, :, 0].tolist() == [0, 1]
    assert scores.pinball_sum[0, :, 0] == pytest.approx([0.5 * 2.0, 0.1 * 1.0])
    assert (scores.shortfall_sum[0, 0], scores.excess_sum[0, 0], scores.actual_sum[0, 0]) == (2.0, 0.0, 4.0)


def test_a_forecast_is_scored_once() -> None:
    """Seeing the same samples again, or making the same forecast again, changes no sum."""
    tracker = a_tracker()
    tracker.issue([CART], a_forecast(START, [[[2.0] * 3, [5.0] * 3]]))
    tracker.issue([CART], a_forecast(START, [[[9.0] * 3, [9.0] * 3]]))
    panel = a_panel([[1.0, 4.0]])

    tracker.observe(panel)
    again = tracker.observe(panel)

    assert again == 0
    assert tracker.scores().scored.tolist() == [[1, 0]]
    assert tracker.scores().shortfall_sum[0, 0] == 2.0


def test_a_late_sample_still_scores_its_forecast() -> None:
    """A sample that comes a step late, within the patience, counts like one in time."""
    tracker = a_tracker(patience_seconds=600)
    tracker.issue([CART], a_forecast(START, [[[2.0] * 3, [5.0] * 3]]))

    first = tracker.observe(a_panel([[1.0, np.nan]]))
    late = tracker.observe(a_panel([[1.0, 4.0, 4.0]]))

    assert (first, late) == (0, 1)
    assert tracker.scores().unlabelled.sum() == 0


def test_a_forecast_without_a_sample_is_given_up_and_counted() -> None:
    """A gap is no score: neither covered nor missed, but seen to be missing."""
    tracker = a_tracker(patience_seconds=600)
    tracker.issue([CART], a_forecast(START, [[[2.0] * 3, [5.0] * 3]]))

    tracker.observe(a_panel([[1.0, np.nan, 3.0, np.nan, 3.0, 3.0]]))

    scores = tracker.scores()
    assert scores.unlabelled.tolist() == [[1, 1]]
    assert scores.scored.sum() == 0
    assert tracker.waiting == 0


def test_a_series_without_a_forecast_is_not_scored() -> None:
    """NaN is "no forecast"; a horizon beyond the forecast's end is none either."""
    tracker = a_tracker()
    tracker.issue([CART, SEARCH], a_forecast(START, [[[np.nan], [np.nan]], [[1.0], [1.0]]]))

    tracker.observe(a_panel([[1.0] * 6, [1.0] * 6], (CART, SEARCH)))

    scores = tracker.scores()
    assert scores.scored[list(scores.keys).index(SEARCH)].tolist() == [1, 0]
    assert scores.scored.sum() == 1


def test_what_was_said_for_a_step_is_known_when_the_step_is_observed() -> None:
    """The dashboards draw what was forecast one and three steps ahead for the newest observed step."""
    tracker = a_tracker()
    for step in range(4):
        tracker.issue([CART], a_forecast(START + step * STEP, [[[float(step)] * 3, [10.0 + step] * 3]]))
    panel = a_panel([[1.0] * 4])
    tracker.observe(panel)

    said = tracker.said_for(panel.end_seconds)

    assert said[0].tolist() == [[2.0, 0.0], [12.0, 10.0]]


def test_a_workload_that_is_gone_is_forgotten_but_stays_in_the_totals() -> None:
    """Memory follows the workloads in sight; the fleet's sums never fall."""
    tracker = a_tracker(patience_seconds=600)
    tracker.issue([CART, SEARCH], a_forecast(START, [[[2.0] * 3, [5.0] * 3]] * 2))
    tracker.observe(a_panel([[1.0, 4.0], [1.0, 4.0]], (CART, SEARCH)))
    before = tracker.totals()

    tracker.observe(a_panel([[1.0, 4.0] + [4.0] * 6], (CART,)))

    after = tracker.totals()
    assert tracker.scores().keys == (CART,)
    assert {key.resource for key in after.keys} == {Resource.CPU, Resource.MEMORY}
    assert (after.scored >= before.scored).all()
    assert after.scored.tolist() == [[1, 1], [1, 0]]


def test_memory_is_bounded_while_nothing_is_observed() -> None:
    """With Prometheus gone for a day, only as many cutoffs wait as horizon and patience allow."""
    tracker = a_tracker(patience_seconds=600)

    for step in range(288):
        tracker.issue([CART], a_forecast(START + step * STEP, [[[2.0] * 3, [5.0] * 3]]))

    assert len(tracker.cutoffs) == (900 + 600) // STEP + 2
    assert tracker.scores().unlabelled.sum() == 2 * (288 - len(tracker.cutoffs))


@given(
    usage=st.lists(st.floats(0, 100) | st.just(float("nan")), min_size=8, max_size=24),
    said=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=24, max_size=24),
)
def test_sums_equal_the_obvious_slow_way(usage: list[float], said: list[tuple[float, float]]) -> None:
    """Followed step by step as it happens, the sums are those of a loop over all forecasts and samples afterwards."""
    tracker = a_tracker(patience_seconds=600)
    for step in range(len(usage)):
        tracker.observe(a_panel([usage[: step + 1]]))
        low, high = sorted(said[step])
        tracker.issue([CART], a_forecast(START + step * STEP, [[[low] * 3, [high] * 3]]))
    tracker.observe(a_panel([usage]))

    scored, covered, pinball, bias = 0, [0, 0], [0.0, 0.0], 0.0
    for step, both in enumerate(said[: len(usage)]):
        target = step + 3
        if target < len(usage) and not np.isnan(usage[target]):
            scored += 1
            values = [float(np.float32(v)) for v in sorted(both)]
            bias += values[0] - usage[target]
            for i, (level, value) in enumerate(zip(LEVELS, values, strict=True)):
                miss = usage[target] - value
                covered[i] += miss <= 0
                pinball[i] += level * miss if miss > 0 else (level - 1) * miss
    scores = tracker.scores()
    assert scores.scored[0, 1] == scored
    assert scores.covered[0, :, 1].tolist() == covered
    assert scores.pinball_sum[0, :, 1] == pytest.approx(pinball, abs=1e-6)
    assert scores.excess_sum[0, 1] - scores.shortfall_sum[0, 1] == pytest.approx(bias, abs=1e-6)


def test_a_tracker_goes_on_from_its_state() -> None:
    """After a restart the same samples give the same sums."""
    tracker = a_tracker()
    tracker.issue([CART, SEARCH], a_forecast(START, [[[2.0] * 3, [5.0] * 3]] * 2))
    tracker.observe(a_panel([[1.0, 4.0], [1.0, 4.0]], (CART, SEARCH)))
    tracker.observe(a_panel([[4.0] * 8], (CART,)))
    tracker.issue([CART], a_forecast(START + 7 * STEP, [[[2.0] * 3, [5.0] * 3]]))

    again = AccuracyTracker.from_state(tracker.to_state())

    later = a_panel([[4.0] * 12])
    assert again.observe(later) == tracker.observe(later) == 2
    for name in ("scored", "covered", "pinball_sum", "unlabelled"):
        assert np.array_equal(getattr(again.scores(), name), getattr(tracker.scores(), name))
        assert np.array_equal(getattr(again.totals(), name), getattr(tracker.totals(), name))


def test_a_foreign_state_is_refused() -> None:
    """A state with a piece missing, or that points at series it does not hold, is an error and not a guess."""
    tracker = a_tracker()
    tracker.issue([CART], a_forecast(START, [[[2.0] * 3, [5.0] * 3]]))
    state = tracker.to_state()
    without = {name: array for name, array in state.arrays.items() if name != "covered"}

    with pytest.raises(AccuracyError, match="covered"):
        AccuracyTracker.from_state(AccuracyState(state.parameters, without))
    with pytest.raises(AccuracyError, match="no series"):
        AccuracyTracker.from_state(replace(state, arrays={**state.arrays, "slots": state.arrays["slots"] + 5}))


def test_other_levels_or_another_grid_are_refused() -> None:
    """Sums over different levels or steps would mean nothing."""
    tracker = a_tracker()

    with pytest.raises(AccuracyError, match="levels"):
        tracker.issue([CART], a_forecast(START, [[[2.0] * 3]], levels=(0.5,)))
    with pytest.raises(AccuracyError, match="steps of 60"):
        tracker.observe(UsagePanel((CART,), START, 60, np.ones((1, 2))))
    with pytest.raises(AccuracyError, match="multiples"):
        AccuracyTracker(LEVELS, (450,), STEP)


def test_horizons_that_fall_off_the_grid_are_not_followed() -> None:
    """An hourly grid follows 1 h and 4 h; a daily one its first step."""
    assert followed_horizons(300, 14_400) == (300, 1800, 3600, 14_400)
    assert followed_horizons(3600, 14_400) == (3600, 14_400)
    assert followed_horizons(86_400, 86_400) == (86_400,)
