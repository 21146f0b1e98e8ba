"""What the accuracy of forecasts is measured with."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.accuracy import LEVELS, PEER, losses
from benchmarks.forecast import table
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
