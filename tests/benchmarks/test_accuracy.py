"""What the accuracy of forecasts is measured with."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks import peaks
from benchmarks.accuracy import LEVELS, PEER, losses
from benchmarks.forecast import table
from benchmarks.running import made_with
from models.forecast import Target
from predictor.backtest.rolling import Backtest


def a_backtest(*, shift: float = 0.0, windows: int = 3, series: int = 5, steps: int = 4) -> Backtest:
    """Forecasts that are off by the shift at every level."""
    actual = np.random.default_rng(0).uniform(1, 2, (windows, series, steps))
    forecast = np.repeat(actual[:, :, None] + shift, len(LEVELS), axis=2)
    return Backtest(tuple(range(windows)), 300, Target(steps), LEVELS, forecast, actual)


def test_a_ratio_is_of_summed_losses() -> None:
    """Twice the error is twice the loss, at every level and for every series, and the interval has no width."""
    made = losses({"ours": a_backtest(shift=0.2), PEER: a_backtest(shift=0.1)})

    figures = made.figures()["ours"]
    assert figures["crps_ratio"] == pytest.approx(2)
    assert figures["equal_weight_ratio"] == pytest.approx(2)
    assert figures["coverage"] == [1, 1, 1, 1]
    assert made.ratio_interval("ours", PEER) == pytest.approx([2, 2])


def test_a_point_counts_where_every_method_has_an_answer() -> None:
    """What one cannot answer is held against none."""
    peer = a_backtest(shift=0.1)
    lacking = replace(peer, forecast=np.where(np.arange(4) == 2, np.nan, peer.forecast))

    made = losses({"ours": a_backtest(shift=0.3), PEER: lacking})

    assert made.count.sum(axis=0).tolist() == [9] * 5
    np.testing.assert_allclose(made.by_method["ours"].sum(axis=(0, 1)), 2 * 9 * 5 * 0.3 * (1 - np.asarray(LEVELS)))


def test_the_interval_holds_the_ratio_and_grows_with_what_differs() -> None:
    """Windows are drawn as well as series: one window that went otherwise widens it."""
    peer = a_backtest(shift=0.1)
    factor = np.ones((3, 5, 1, 1))
    factor[1] = 3.0
    uneven = replace(peer, forecast=peer.actual[:, :, None] + factor * (peer.forecast - peer.actual[:, :, None]))

    low, high = losses({"ours": uneven, PEER: peer}).ratio_interval("ours", PEER)

    assert 1 <= low < 5 / 3 < high <= 3


def test_the_table_tells_how_far_ahead_and_how_surely() -> None:
    """The ratio to the best other method with its interval; without one where it was not measured."""
    made = losses({"foresize": a_backtest(shift=0.1), PEER: a_backtest(shift=0.2)})
    result = {
        "series": 5,
        "windows": 3,
        "tuned_on": False,
        "ramp_coverage": [0.5, 0.9, 0.95, 0.99],
        "cpu_seconds": 2.0,
        "methods": made.figures(),
    }

    shown = table(
        {
            "old": result,
            "new": result | {"wall_seconds": 3.0, "ratio_to_best_interval": made.ratio_interval("foresize", PEER)},
        }
    )

    assert f"| 1.000 {PEER} | 0.500 |" in shown
    assert f"| 1.000 {PEER} | 0.500 [0.500, 0.500] |" in shown
    assert "| 3, 2 |" in shown


def test_peaks_that_fall_short_come_first() -> None:
    """By how far the loss is behind the best other method's at the level where that is most."""

    def result(ours: list[float], other: list[float]) -> dict[str, Any]:
        figures = {"equal_ratio": [1.0] * 4, "coverage": [0.9] * 4, "worst_tenth": [0.8] * 4}
        methods = {"foresize": ours, "trailing_28d": other, "historical_maximum": [1.0] * 4}
        made = {name: figures | {"pinball_ratio": values} for name, values in methods.items()}
        return {"series": 5, "windows": 3, "tuned_on": False, "methods": made}

    shown = peaks.table(
        {
            "good": result([0.5, 0.5, 0.6, 0.8], [0.4, 0.5, 0.6, 0.8]),
            "bad": result([0.5, 0.6, 0.4, 1.2], [0.5, 0.5, 0.5, 0.9]),
        }
    )

    assert shown.index("| bad |") < shown.index("| good |")
    assert "| 1.200 / 0.800 / 1.333 |" in shown
    assert "| 1.000 / 1.000 / 1.000 |" in shown


def test_the_page_says_where_and_when_and_what_older_results_lack() -> None:
    """The most common last; nothing is made up for what was stored before it was written down."""
    versions = {"foresize": "0.1", "numpy": "2", "lightgbm": "4"}
    old = {"seed": 0, "machine": "x86_64", "python": "3.11"} | versions
    new = {
        "seed": 0,
        "machine": "A CPU",
        "cores": 2,
        "threads": 1,
        "python": "3.11",
        "ours": versions,
        "at": "2026-01-02",
    }

    lines = made_with({"a": old, "b": old, "c": new}).splitlines()

    assert (
        lines[0]
        == "- c: A CPU, 2 cores, 1 thread(s), Python 3.11, foresize 0.1, numpy 2, lightgbm 4, seed 0, 2026-01-02."
    )
    assert lines[1].startswith("- All others: x86_64, Python 3.11")
    assert lines[1].endswith("stored before processor, cores and date were.")
