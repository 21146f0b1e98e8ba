"""The peak of a node's total usage: of the sum, at a stated probability, and no answer without evidence."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.forecast import FloatArray, ForecastError
from models.node_peak import COLD_SAMPLES, LEAST_BLOCKS, NodePast, NoPeak, node_past

HORIZON = 4


def past(usage: FloatArray, limits: list[float], requests: list[float] | None = None) -> NodePast:
    """What is known of horizons of four steps, which must be enough."""
    asked = None if requests is None else np.array(requests)
    known = node_past(usage, np.array(limits), HORIZON, asked)
    assert isinstance(known, NodePast)
    return known


def alone(peaks: list[float]) -> FloatArray:
    """One task that idles at 0.5 and peaks once in each horizon."""
    usage = np.full((len(peaks), HORIZON), 0.5)
    usage[:, 1] = peaks
    return usage.reshape(1, -1)


def in_turns(blocks: int) -> FloatArray:
    """Two tasks that idle at 1 and peak at 10, never together."""
    usage = np.ones((2, blocks, HORIZON))
    usage[0, :, 0] = usage[1, :, 1] = 10
    return usage.reshape(2, -1)


def test_the_next_peak_exceeds_the_rank_of_past_ones_as_often_as_is_stated() -> None:
    """Nine horizons that peak at 1…9: the next exceeds 5 in half the cases, 9 in one of ten, ln between 5 and 6."""
    known = past(alone([float(p) for p in (3, 1, 9, 4, 5, 8, 2, 7, 6)]), [100])

    assert known.quantiles([0.5, 0.3, 0.1]) == pytest.approx([5, 7, 9])
    assert known.quantiles([np.sqrt(0.5 * 0.4)]) == pytest.approx([5.5])


def test_it_is_the_peak_of_the_sum_and_beyond_it_what_coinciding_would_add() -> None:
    """Two tasks of 10 that never peak together peak at 11; all at once they could reach 20, so 9 more.

    Nine horizons support one in ten; one in a hundred is 11 + 0.07 · 9 · ln(1 / (10 · 0.01)).
    """
    known = past(in_turns(9), [15, 15])

    assert known.gap == 9
    assert known.quantiles([0.1, 0.01]) == pytest.approx([11, 11 + 0.63 * np.log(10)])


def test_a_task_alone_is_widened_too() -> None:
    """Nobody to coincide with: 10 · (1 + 0.01 · ln 10)."""
    assert past(alone([10.0] * 9), [100]).quantiles([0.01]) == pytest.approx([10 * (1 + 0.01 * np.log(10))])


def test_usage_counts_up_to_the_limit_in_force_now() -> None:
    """A limit that is lower now than usage was cuts it off, and no peak exceeds Σ limits."""
    known = past(alone([10.0] * 9), [6])

    assert known.quantiles([0.5, 1e-9]) == pytest.approx([6, 6])


def test_a_cold_task_counts_at_its_limit_or_else_its_request() -> None:
    """One sample fewer than 24 and it is cold: it comes on top in full."""
    usage = np.vstack([alone([10.0] * 12), np.full((1, 48), np.nan)])
    usage[1, -COLD_SAMPLES + 1 :] = 1.0
    at_limit, at_request = past(usage, [20, 4]), past(usage, [20, np.nan], [7, 3])

    assert (at_limit.cold_tasks, at_limit.reserved, at_request.reserved) == (1, 4, 3)
    assert at_limit.quantiles([0.5]) == pytest.approx([14])
    usage[1, -COLD_SAMPLES] = 1.0
    assert past(usage, [20, 4]).cold_tasks == 0


def test_nothing_is_told_without_evidence() -> None:
    """Too short a past, no task, nobody watching, a cold task without any bound, only cold ones: each says why."""
    short = node_past(alone([1.0] * (LEAST_BLOCKS - 1)), np.array([9.0]), HORIZON)
    empty = node_past(np.empty((0, 400)), np.empty(0), HORIZON)
    unwatched = alone([1.0] * 12)
    unwatched[:, : 6 * HORIZON] = np.nan
    dark = node_past(unwatched, np.array([9.0]), HORIZON)
    unbounded = node_past(np.full((1, 48), np.nan), np.array([np.nan]), HORIZON)

    cold = node_past(np.full((2, 48), np.nan), np.array([4.0, 3.0]), HORIZON)

    for made, said in (
        (short, "6 past"),
        (empty, "nothing runs on it"),
        (dark, "6 past horizons with"),
        (unbounded, "neither"),
        (cold, "all 2 tasks are cold"),
    ):
        assert isinstance(made, NoPeak)
        assert said in made.reason


def test_arrays_that_do_not_match_are_refused() -> None:
    """The message says what was needed and what came."""
    with pytest.raises(ForecastError, match=r"usage \[tasks, steps\].*\(2, 36\), \(1,\) and 4"):
        node_past(in_turns(9), np.array([15.0]), HORIZON)
    with pytest.raises(ForecastError, match="inside"):
        past(in_turns(9), [15, 15]).quantiles([0.0])


@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(0.01, 100), tasks=st.integers(1, 6))
def test_peaks_fall_with_the_probability_and_scale_with_usage(seed: int, factor: float, tasks: int) -> None:
    """However usage falls, with gaps in it: rarer is higher, and another unit of usage is another unit of peaks."""
    rng = np.random.default_rng(seed)
    usage = rng.exponential(1, (tasks, 80))
    usage[rng.random(usage.shape) < 0.05] = np.nan
    limits = rng.uniform(2, 6, tasks).tolist()
    asked = [0.5, 0.2, 0.05, 0.01, 0.001]

    made = past(usage, limits).quantiles(asked)
    scaled = past(usage * factor, [limit * factor for limit in limits]).quantiles(asked)

    assert (np.diff(made) >= 0).all()
    assert made[-1] <= sum(limits) * (1 + 1e-9)
    assert scaled == pytest.approx(made * factor)


def test_over_many_nodes_as_many_peaks_exceed_as_is_stated() -> None:
    """Days that are alike: of 3000 nodes with 19 past days, one in ten exceeds what one in ten should."""
    rng = np.random.default_rng(7)
    usage = rng.gamma(2, 1, (3000, 3, 20 * HORIZON))

    exceeded = [
        each[:, -HORIZON:].sum(axis=0).max() > past(each[:, :-HORIZON], [99.0] * 3).quantiles([0.1])[0]
        for each in usage
    ]

    assert np.mean(exceeded) == pytest.approx(0.1, abs=0.015)
