"""The speed benchmark: the fleet it measures on, and what it makes of its figures."""

import math

import numpy as np
import pytest

from benchmarks.fleet import BLOCK, synthetic_usage
from benchmarks.forecast_speed import growth_exponent, page
from benchmarks.speed_cases import Stopwatch, tick


def test_a_larger_fleet_begins_with_the_smaller() -> None:
    """So that sizes differ in nothing but size; another seed is another fleet."""
    small = synthetic_usage(10, days=2, seed=3)

    np.testing.assert_array_equal(synthetic_usage(BLOCK + 5, days=2, seed=3)[:10], small)
    assert not np.array_equal(synthetic_usage(10, days=2, seed=4), small, equal_nan=True)


def test_a_fleet_is_usage() -> None:
    """Never negative, some samples missing, none of its series empty, one in six idle or nearly."""
    usage = synthetic_usage(60, days=3)

    assert usage.shape == (60, 3 * 288)
    assert np.nanmin(usage) >= 0
    assert 0 < np.isnan(usage).mean() < 0.02
    assert (~np.isnan(usage)).any(axis=1).all()


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_growth_exponent_is_that_of_a_power(power: float) -> None:
    """Whatever the factor; a single size has none."""
    assert growth_exponent({n: 7 * n**power for n in (10, 100, 3000)}) == pytest.approx(power)
    assert math.isnan(growth_exponent({10: 1.0}))


@pytest.mark.timeout(300)
def test_a_tick_is_measured_part_by_part() -> None:
    """On a handful of series: time for each part, memory, and the page that shows them."""
    stopwatch = Stopwatch(is_profiled=True)

    tick(6, seed=0, threads=1, stopwatch=stopwatch)

    made = stopwatch.result()
    assert list(made["parts"]) == ["update", "learn", "forecast", "forecast peaks"]
    assert made["cpu_seconds"] > 0
    assert made["peak_mb"] >= made["set_up_peak_mb"] > 0
    assert any(row["function"] == "predictor/serving/bundle.py:learned" for row in made["profile"])
    about = {"seed": 0, "threads": 1, "load": 0.1, "machine": "m", "cores": 2, "python": "3", "ours": {}, "at": "today"}
    shown = page({"tick": {"6": made | about}, "profile": {"6": {"tick": made, "training": made} | about}})
    assert "| foresize, one tick | 6 | learn |" in shown
    assert "`predictor/serving/bundle.py:learned`" in shown
