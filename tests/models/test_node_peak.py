"""The peak of a node's total usage: of the sum, at a stated probability, and no answer without evidence."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.forecast import FloatArray, ForecastError
from models.node_peak import COLD_SAMPLES, LEAST_BLOCKS, NodePast, NodeTotals, NoPeak, node_past, node_totals

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


def three_nodes(parts: int, blocks: int = 12) -> tuple[list[tuple[FloatArray, FloatArray]], NodeTotals]:
    """Nodes of two to four tasks whose usage has no rhythm."""
    rng = np.random.default_rng(1)
    nodes: list[tuple[FloatArray, FloatArray]] = [
        (rng.exponential(1.0, (tasks, blocks * HORIZON)), np.full(tasks, 3.0)) for tasks in (2, 3, 4)
    ]
    return nodes, node_totals(nodes, HORIZON, parts)


@given(st.integers(0, 2**32 - 1), st.floats(0.001, 0.9))
def test_one_more_task_is_told_as_if_it_had_been_among_them(seed: int, exceedance: float) -> None:
    """The same figure as from usage of all tasks; from coarser parts of the horizon no lower one."""
    nodes, totals = three_nodes(HORIZON)
    usage: FloatArray = np.random.default_rng(seed).exponential(1.0, 12 * HORIZON)

    told = totals.peaks_with(usage, 2.0, exceedance)

    for row, (others, limits) in enumerate(nodes):
        known = past(np.vstack([others, usage]), [*limits, 2.0])
        assert told[row] == pytest.approx(known.quantiles([exceedance])[0], rel=1e-5)
    assert (three_nodes(2)[1].peaks_with(usage, 2.0, exceedance) >= told * (1 - 1e-5)).all()


def test_a_shortlist_is_told_as_all_nodes_are() -> None:
    _, totals = three_nodes(HORIZON)
    usage: FloatArray = np.ones(12 * HORIZON)
    rows = np.array([2, 0])

    assert totals.of(rows).peaks_with(usage, 2.0, 0.1).tolist() == totals.peaks_with(usage, 2.0, 0.1)[rows].tolist()


def test_one_more_task_of_which_little_is_known_counts_at_its_limit_and_a_gap_as_its_highest() -> None:
    nodes, totals = three_nodes(HORIZON)
    cold: FloatArray = np.full(12 * HORIZON, np.nan)
    gappy, steady = cold.copy(), np.full_like(cold, 1.5)
    cold[-COLD_SAMPLES + 1 :], gappy[-COLD_SAMPLES:] = 0.1, 1.5
    alone_told = [past(usage, limits.tolist()).quantiles([0.1])[0] for usage, limits in nodes]

    assert totals.peaks_with(cold, 2.0, 0.1) == pytest.approx(np.array(alone_told) + 2.0, rel=1e-5)
    assert totals.peaks_with(gappy, 2.0, 0.1).tolist() == totals.peaks_with(steady, 2.0, 0.1).tolist()


def test_a_node_without_an_answer_has_no_room_for_one_more() -> None:
    """It says why; a horizon that nobody watched is no evidence."""
    nodes, _ = three_nodes(HORIZON)
    nodes[1][0][:, HORIZON : 7 * HORIZON] = np.nan
    nodes[2][0][:, :HORIZON] = np.nan
    usage: FloatArray = np.ones(12 * HORIZON)

    totals = node_totals(nodes, HORIZON, 2)
    told = totals.peaks_with(usage, 2.0, 0.1)

    assert np.isfinite(told).tolist() == [True, False, True]
    assert totals.reasons == ("", "6 past horizons with samples, need 7: nothing is oversold", "")
    without = node_totals([(each[:, HORIZON:], limits) for each, limits in nodes[2:]], HORIZON, 2)
    assert told[2] == pytest.approx(without.peaks_with(usage[HORIZON:], 2.0, 0.1)[0])


@pytest.mark.parametrize("parts", [3, 8, 0, -1])
def test_what_does_not_match_is_refused(parts: int) -> None:
    nodes, totals = three_nodes(HORIZON)

    with pytest.raises(ForecastError, match="in parts of equally many"):
        node_totals(nodes, HORIZON, parts)
    with pytest.raises(ForecastError, match="usage \\[steps\\] of 12 horizons"):
        totals.peaks_with(np.ones((2, 48)), 2.0, 0.1)
    for limit in (-1.0, float("nan")):
        with pytest.raises(ForecastError, match="a limit cannot be negative or unknown"):
            totals.peaks_with(np.ones(48), limit, 0.1)
