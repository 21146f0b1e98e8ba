"""What the accuracy of forecasts is measured with."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.accuracy import LEVELS, PEER, losses
from models.forecast import Target
from predictor.backtest.rolling import Backtest


def a_backtest(*, shift: float = 0.0, windows: int = 3, series: int = 5, steps: int = 4) -> Backtest:
    """Forecasts that are off by the shift at every level."""
    actual = np.random.default_rng(0).uniform(1, 2, (windows, series, steps))
    forecast = np.repeat(actual[:, :, None] + shift, len(LEVELS), axis=2)
    return Backtest(tuple(range(windows)), 300, Target(steps), LEVELS, forecast, actual)


def test_a_ratio_is_of_summed_losses() -> None:
    """Twice the error is twice the loss, at every level and for every series."""
    made = losses({"ours": a_backtest(shift=0.2), PEER: a_backtest(shift=0.1)})

    figures = made.figures()["ours"]
    assert figures["crps_ratio"] == pytest.approx(2)
    assert figures["equal_weight_ratio"] == pytest.approx(2)
    assert figures["coverage"] == [1, 1, 1, 1]


def test_a_point_counts_where_every_method_has_an_answer() -> None:
    """What one cannot answer is held against none."""
    peer = a_backtest(shift=0.1)
    lacking = replace(peer, forecast=np.where(np.arange(4) == 2, np.nan, peer.forecast))

    made = losses({"ours": a_backtest(shift=0.3), PEER: lacking})

    assert made.count.tolist() == [9] * 5
    np.testing.assert_allclose(made.by_method["ours"].sum(axis=(0, 1)), 2 * 9 * 5 * 0.3 * (1 - np.asarray(LEVELS)))
