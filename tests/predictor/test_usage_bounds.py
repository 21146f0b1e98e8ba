"""Which usage is only a bound of demand: against a slow version, and what must hold."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.forecast import BoolArray, FloatArray
from predictor.usage.bounds import at_its_limit
from predictor.usage.panel import UsagePanel
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
