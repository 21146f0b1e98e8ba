"""Which usage is only a bound of demand: against a slow version, and what must hold."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.forecast import BoolArray, FloatArray
from predictor.usage.bounds import LEAST_THROTTLED, at_its_limit
from predictor.usage.panel import Resource, UsagePanel
from tests.support.histories import STEP_SECONDS
from tests.support.panels import DAY_STEPS, a_fleet, a_panel, throttled


def slow_bounds(usage: FloatArray, limit: FloatArray, capacity: FloatArray) -> BoolArray:
    """Sample by sample, as the rule reads."""
    found = np.zeros(usage.shape, dtype=np.bool_)
    for row, step in np.ndindex(usage.shape):
        shares = []
        for k in range(max(step - DAY_STEPS + 1, 0), step + 1):
            known = [each[row, k] for each in (limit, capacity) if not np.isnan(each[row, k])]
            if known and min(known) > 0 and not np.isnan(usage[row, k]):
                shares.append((k, usage[row, k] / min(known)))
        if shares and shares[-1][0] == step:
            above = sum(share > 1.1 for _, share in shares) / len(shares)
            found[row, step] = 0.98 <= shares[-1][1] <= 1.1 and above < 0.05
    return found


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.03, 0.2]))
@settings(max_examples=20, deadline=None)
def test_usage_near_what_bounds_it_is_a_bound(seed: int, above: float) -> None:
    """Of limit and capacity the smaller; a bound that was exceeded often within a day is none."""
    rng = np.random.default_rng(seed)
    shape = (2, DAY_STEPS + 40)
    limit = np.where(rng.random(shape) < 0.2, np.nan, rng.choice([0.0, 1.0, 2.0], shape, p=[0.05, 0.75, 0.2]))
    capacity = np.where(rng.random(shape) < 0.8, np.nan, 1.5)
    usage = rng.choice([0.3, 0.97, 0.99, 1.0, 1.05, 1.5], shape) + 2 * (rng.random(shape) < above)
    usage[rng.random(shape) < 0.1] = np.nan

    found = at_its_limit(usage, [limit, capacity], STEP_SECONDS)

    expected = slow_bounds(usage, limit, capacity)
    assert (found is None) == (not expected.any())
    if found is not None:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("later", [0.0, 1.0, 50.0])
def test_what_comes_later_changes_no_earlier_bound(later: float) -> None:
    """However often the limit is exceeded afterwards."""
    panel = throttled(a_fleet(), [0, 1])
    changed = panel.usage.copy()
    changed[:, -200:] = later

    before = [each.history().until(panel.end_seconds - 200 * STEP_SECONDS) for each in (panel, with_usage(changed))]

    one, two = (each.is_bound for each in before)
    assert one is not None and two is not None
    assert one.any()
    np.testing.assert_array_equal(one, two)


def with_usage(usage: FloatArray) -> UsagePanel:
    """The throttled fleet with other usage."""
    return replace(throttled(a_fleet(), [0, 1]), usage=usage)


def test_a_window_knows_the_bounds_that_the_whole_history_knows() -> None:
    """From its second day on: so serving learns what training would have."""
    usage = 1.05 * np.ones((1, 6 * DAY_STEPS))
    usage[0, 3 * DAY_STEPS : 3 * DAY_STEPS + 6] = 1.5
    panel = replace(a_panel(usage), attributes={"limit": np.ones(usage.shape)})
    window = panel.between(panel.start_seconds + 3 * 86_400 + 3600, panel.end_seconds)

    whole, part = panel.is_bound, window.is_bound

    assert whole is not None and part is not None
    np.testing.assert_array_equal(part[:, DAY_STEPS:], whole[:, -part.shape[1] + DAY_STEPS :])
    assert not whole[0, 3 * DAY_STEPS + 10]


def test_where_nothing_is_cut_off_there_is_no_mask() -> None:
    """No limit known, or none ever reached: histories are what they were without."""
    panel = a_fleet()

    assert panel.history().is_bound is None
    assert replace(panel, attributes={"limit": 9 * np.nanmax(panel.usage) + 0 * panel.usage}).history().is_bound is None


def with_cuts(panel: UsagePanel, cut_off: FloatArray | float, **more: FloatArray) -> UsagePanel:
    """The panel with what is known of its throttling or kills."""
    return replace(panel, attributes={"cut_off": np.broadcast_to(cut_off, panel.usage.shape).astype(float), **more})


@pytest.mark.parametrize("resource", list(Resource))
@pytest.mark.parametrize("share", [np.nan, 0.0, 0.01, LEAST_THROTTLED - 1e-9, LEAST_THROTTLED, 1.0])
def test_a_step_that_was_cut_off_is_a_bound(resource: Resource, share: float) -> None:
    """Of what is spent, from a share of the periods on; of what is held, any kill; whatever the limit says."""
    panel = a_panel(np.asarray([[1.0, 2.0, np.nan, 3.0]]), resource=resource)
    cut_off = np.asarray([[0.0, share, share, np.nan]])

    for more in ({}, {"limit": np.full((1, 4), 50.0)}):
        is_bound = with_cuts(panel, cut_off, **more).is_bound

        if share >= LEAST_THROTTLED or (share > 0 and resource.is_held):
            assert is_bound is not None
            assert is_bound.tolist() == [[False, True, False, False]]
        else:
            assert is_bound is None


def test_what_is_cut_off_adds_to_what_is_at_its_limit() -> None:
    """Even where the limit was exceeded too often to be one: the source knows better."""
    panel = throttled(a_fleet(), [0])
    own = panel.is_bound
    cuts = np.zeros(panel.usage.shape)
    cuts[[0, 1], 5] = 1.0
    exceeded = replace(panel, attributes={"limit": np.full(panel.usage.shape, np.nanmin(panel.usage) / 2 + 1e-9)})

    both, without_limit = (with_cuts(each, cuts, **each.attributes).is_bound for each in (panel, exceeded))

    assert own is not None and both is not None and without_limit is not None
    np.testing.assert_array_equal(both, own | (cuts > 0))
    assert exceeded.is_bound is None
    np.testing.assert_array_equal(without_limit, cuts > 0)


@pytest.mark.parametrize("later", [0.0, 1.0])
def test_later_cuts_change_no_earlier_bound(later: float) -> None:
    """However much is throttled afterwards."""
    panel = throttled(a_fleet(), [0, 1])
    cuts = np.zeros(panel.usage.shape)
    cuts[:, ::7] = 1.0
    changed = cuts.copy()
    changed[:, -200:] = later

    cutoff = panel.end_seconds - 200 * STEP_SECONDS
    one, two = (with_cuts(panel, each, **panel.attributes).history().until(cutoff).is_bound for each in (cuts, changed))

    assert one is not None and two is not None
    np.testing.assert_array_equal(one, two)


def test_what_cut_usage_off_is_told_in_words() -> None:
    """By a limit, by throttling, by both, by a kill; in the newest steps alone."""
    usage = np.ones((4, 6))
    cpu, memory = a_panel(usage), a_panel(usage[:1], resource=Resource.MEMORY)
    limit = np.asarray([[1.0], [9.0], [1.0], [9.0]]) * usage
    cuts = np.asarray([[0.0], [1.0], [0.0], [0.0]]) * usage
    cuts[2, 5], cuts[3, 0] = 1.0, 1.0

    told = with_cuts(cpu, cuts, limit=limit).bounds_in_words(4)
    killed = with_cuts(memory, cuts[2:3], limit=limit[1:2]).bounds_in_words(6)

    throttled = "throttled or held at its most replicas"
    assert told == [(4, "at its limit"), (4, throttled), (4, f"at its limit or {throttled}"), (0, "")]
    assert killed == [(1, "cut off by an OOM kill or held at its most replicas")]
    assert cpu.bounds_in_words(4) == [(0, "")] * 4


def test_what_forecasts_are_made_from_knows_the_cuts() -> None:
    """Also in a window of it, and of what a later panel adds."""
    panel = with_cuts(a_fleet(), 0.0)
    panel.attributes["cut_off"][0, -3:] = 1.0
    early = panel.between(panel.start_seconds, panel.end_seconds - 2 * STEP_SECONDS)
    joined = early.followed_by(panel.between(panel.end_seconds - STEP_SECONDS, panel.end_seconds))

    for each in (panel.bare(), panel.between(panel.end_seconds - 9 * STEP_SECONDS, panel.end_seconds), joined):
        row = each.row(panel.keys[0])
        assert each.is_bound is not None
        assert each.is_bound[row, -4:].tolist() == [False, True, True, True]
