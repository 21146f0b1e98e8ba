"""What serving keeps of a panel: forecasts, remarks and pools need no more."""

from dataclasses import replace

import numpy as np
import pytest

from predictor.usage.bounds import CUT_OFF
from predictor.usage.panel import UsagePanel
from tests.support.histories import daily_usage
from tests.support.panels import a_panel, throttled


def a_full_panel() -> UsagePanel:
    """Three workloads: one at its limit now and then, one throttled, one free; requests that were raised once."""
    panel = throttled(a_panel(daily_usage(series=3, days=3)), (0,))
    request = np.full(panel.usage.shape, 1.0)
    request[:, 100:] = 2.0
    request[:, -5:] = np.nan
    shares = np.zeros(panel.usage.shape)
    shares[1, -20:-10] = 0.5
    return replace(panel, attributes={**panel.attributes, "request": request, CUT_OFF: shares})


def test_a_slim_panel_knows_where_usage_is_only_a_bound() -> None:
    """And says why in the same words, though limits and shares of each step are gone."""
    panel = a_full_panel()

    slim = panel.slim()

    assert slim.attributes == {}
    assert slim.is_bound is not None
    np.testing.assert_array_equal(slim.is_bound, panel.is_bound)
    assert slim.bounds_in_words(288) == panel.bounds_in_words(288)
    assert slim.slim().bounds_in_words(288) == panel.bounds_in_words(288)


def test_a_slim_panel_holds_half_of_usage_and_the_newest_of_all_else() -> None:
    """Single precision is seven digits; the newest known value is not that of the last step where that has none."""
    panel = a_full_panel()

    slim = panel.slim()

    assert slim.usage.nbytes == panel.usage.nbytes // 2
    np.testing.assert_allclose(slim.usage, panel.usage, rtol=6e-8)
    np.testing.assert_array_equal(slim.newest["request"], [2.0, 2.0, 2.0])


@pytest.mark.parametrize("rows", [[1], [2, 0]])
def test_what_is_picked_from_a_slim_panel_is_what_is_slim_of_the_pick(rows: list[int]) -> None:
    """Rows and steps of everything that it holds."""
    panel = a_full_panel()
    start, end = panel.start_seconds + 3600, panel.end_seconds - 1800

    picked = panel.slim().select(rows).between(start, end)

    expected = panel.select(rows)
    assert picked.is_bound is not None
    np.testing.assert_array_equal(picked.usage, expected.slim().between(start, end).usage)
    np.testing.assert_array_equal(picked.newest["limit"], expected.slim().newest["limit"])
    assert picked.bounds_in_words(288) == panel.select(rows).between(start, end).bounds_in_words(288)
    assert picked.history().select([0]).usage.dtype == np.float64
