"""What is known at a cutoff that demand of the coming steps is some multiple of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.forecast import FloatArray
from models.signals import recent_signals

MINUTES_A_DAY = 1440


def values(usage: FloatArray, step_seconds: int = 60, lead_steps: int = 2) -> dict[str, float]:
    lead = np.full(len(usage), lead_steps)
    return {each.name: float(each.of(usage, lead)[0, 0]) for each in recent_signals(step_seconds)}


def test_each_signal_is_what_its_name_says() -> None:
    """On eight days of minutes that rise by one each, but for what a day and a week ago held."""
    usage = np.arange(8.0 * MINUTES_A_DAY)[None]
    last = usage[0, -1]

    found = values(usage)

    assert found["the newest sample"] == last
    assert found["the highest of the last 7 d"] == last
    assert found["the highest of the last 90 min"] == last
    assert found["the mean of the last 5 min"] == last - 2
    assert found["the mean of the last 30 min"] == last - 14.5
    # The means of the last and of the five minutes before lie five apart.
    assert found["the trend of the last 10 min"] == last - 2 + 2.5
    # The coming minute and the two after it, a day before.
    assert found["the highest at this time a day ago"] == last + 3 - MINUTES_A_DAY
    assert found["the highest at this time a week ago"] == last + 3 - 7 * MINUTES_A_DAY
    level = (last - 7) / (last - 7 - MINUTES_A_DAY)
    assert found["the highest at this time a day ago, at today's level"] == pytest.approx((last + 3 - 1440) * level)


def test_a_season_is_looked_at_as_far_as_each_lead_reaches() -> None:
    """Of two workloads with the same usage, each by its own lead time."""
    usage = np.tile(np.arange(2.0 * MINUTES_A_DAY), (2, 1))
    (signal,) = [each for each in recent_signals(60) if each.name == "the highest at this time a day ago"]

    assert signal.of(usage, np.array([0, 5])).tolist() == [[1440.0], [1445.0]]


@given(st.lists(st.one_of(st.just(np.nan), st.floats(0.0, 1e6)), min_size=3, max_size=60), st.integers(0, 9))
def test_the_past_is_looked_at_as_it_was_then(samples: list[float], lead_steps: int) -> None:
    """What is known after each of several steps is, to the bit, what was known when it was the last one."""
    usage, lead = np.array([samples]), np.array([lead_steps])
    for step_seconds in (600, 6 * 3600):
        for signal in recent_signals(step_seconds):
            past = signal.of(usage, lead, 3)
            for back in range(3):
                then = signal.of(usage[:, : usage.shape[1] - back], lead)
                np.testing.assert_array_equal(past[:, 2 - back], then[:, 0], err_msg=signal.name)


def test_coarse_steps_make_fewer_signals() -> None:
    """Five minutes are one step of five minutes, once, and nothing is told apart that is the same."""
    names = [each.name for each in recent_signals(300)]

    assert len(names) == len(set(names))
    assert "the highest of the last 20 min" in names


def test_what_is_too_short_is_not_known() -> None:
    """A past of an hour says nothing of yesterday; the rest of the signals are there."""
    found = values(np.ones((1, 60)))

    assert np.isnan(found["the highest at this time a day ago"])
    assert np.isnan(found["the highest at this time a week ago, at today's level"])
    assert found["the highest of the last 90 min"] == 1.0


def test_today_is_never_taken_for_more_than_five_times_yesterday() -> None:
    """Where next to nothing was used at this time yesterday, the ratio says little."""
    usage = np.full((1, 2 * MINUTES_A_DAY), 1e-9)
    usage[0, -20:] = 10.0
    usage[0, -MINUTES_A_DAY : -MINUTES_A_DAY + 3] = 2.0

    assert values(usage)["the highest at this time a day ago, at today's level"] == pytest.approx(10.0)


@given(st.lists(st.one_of(st.just(np.nan), st.floats(0.0, 1e6)), min_size=1, max_size=200), st.integers(0, 3))
def test_what_was_not_measured_is_left_out(samples: list[float], lead_steps: int) -> None:
    """A signal is NaN or within the known samples' range, times what a trend or a level may add; never negative."""
    usage = np.array([samples])
    highest = 0.0 if np.isnan(usage).all() else float(np.nanmax(usage))

    for name, value in values(usage, 60, lead_steps).items():
        assert np.isnan(value) or -1e-9 <= value <= 5.0 * highest + 1e-9, name
