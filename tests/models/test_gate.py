"""When a model may no longer serve a series, and when it may again."""

from dataclasses import replace

import numpy as np
import pytest

from models.forecast import ForecastError
from models.gate import Gate, largest_loss

HOUR = 3600.0
HORIZON = 4 * HOUR


def after(gate: Gate, looks: int, ours: float, theirs: float, *, elapsed: float = HORIZON) -> Gate:
    """The gates after so many looks at which the model and the baseline lost this much on every series."""
    for _ in range(looks):
        gate = gate.realised(np.tile([ours, theirs], (len(gate.evidence), 1)), elapsed, HORIZON)
    return gate


def looks_until_it_opens(gate: Gate, ours: float, theirs: float) -> int:
    for look in range(1, 500):
        gate = after(gate, 1, ours, theirs)
        if not gate.is_closed[0]:
            return look
    raise AssertionError("it never opened")


def test_few_horizons_allow_more() -> None:
    """A twentieth; twice that over ten horizons, and more over fewer."""
    assert largest_loss(1e9) == pytest.approx(1.05)
    assert largest_loss(10) == pytest.approx(1.10)
    assert largest_loss(5) == pytest.approx(1.15)


def test_one_bad_day_does_not_close_a_gate_and_more_does() -> None:
    """However bad it was, fewer than six horizons say too little; then it closes, and says why."""
    gate = after(Gate.without_record(1), 5, 9.0, 1.0)
    assert not gate.is_closed[0]

    # What has faded a little is not quite six.
    gate = after(gate, 2, 9.0, 1.0)

    assert gate.is_closed[0]
    assert gate.said(0, "seasonal_naive") == "over the last 7 horizons the model lost 9 times what seasonal_naive did"


def test_horizons_that_overlap_are_not_counted_twice() -> None:
    """Looking every hour at four hours ahead, six looks are a horizon and a half."""
    assert after(Gate.without_record(1), 6, 9.0, 1.0, elapsed=HOUR).evidence[0] == pytest.approx(1.5, rel=0.01)


@pytest.mark.parametrize(("ratio", "is_closed"), [(0.8, False), (1.0, False), (1.06, False), (1.09, True), (3.0, True)])
def test_the_rule_is_that_of_training(ratio: float, is_closed: bool) -> None:
    """After thirty horizons a little less than 1.07 times the baseline's loss is allowed."""
    assert after(Gate.without_record(1), 30, ratio, 1.0).is_closed[0] == is_closed


def test_a_model_that_was_good_for_a_month_is_not_closed_by_one_bad_horizon() -> None:
    """Its record speaks for it: what counts is what was lost altogether."""
    gate = after(Gate.without_record(1), 180, 0.8, 1.0)

    assert not after(gate, 1, 5.0, 1.0).is_closed[0]
    assert after(gate, 30, 5.0, 1.0).is_closed[0]


def test_an_excess_that_hardly_matters_closes_nothing() -> None:
    """Quiet weeks: the baseline lost nothing, the model a thousandth of the series' size for being prepared."""
    quiet = after(Gate.without_record(1), 60, 0.001, 0.0)

    assert not quiet.is_closed[0]
    loud = after(Gate.without_record(1), 60, 0.02, 0.0)
    assert loud.is_closed[0]
    assert loud.said(0, "seasonal_naive").endswith("the model lost something and seasonal_naive nothing")


def test_a_closed_gate_opens_later_than_it_would_have_stayed_open() -> None:
    """Where the excess is within what is allowed, but not gone, it stays as it is, open or closed."""
    bad = after(Gate.without_record(1), 20, 1.3, 1.0)
    assert bad.is_closed[0]
    almost = after(bad, looks_until_it_opens(bad, 0.9, 1.0) - 1, 0.9, 1.0)

    never_closed = replace(almost, is_closed=np.zeros(1, dtype=np.bool_))
    assert not after(never_closed, 1, 1.0, 1.0).is_closed[0]
    assert after(almost, 1, 1.0, 1.0).is_closed[0]


def test_a_closed_gate_opens_on_a_workload_that_has_become_quiet() -> None:
    """What little is lost by then is no reason to keep it closed."""
    bad = after(Gate.without_record(1), 20, 1.3, 1.0)

    assert looks_until_it_opens(replace(bad, served=bad.served / 20, baseline=bad.baseline / 20), 0.0, 0.0) < 200


def test_it_does_not_flap() -> None:
    """Losses that scatter by half, of two that are equally good, the worst case: a few changes in a hundred days."""
    rng = np.random.default_rng(5)
    gate, changes = Gate.without_record(50), np.zeros(50)
    for _ in range(600):
        before = gate.is_closed
        gate = gate.realised(np.exp(rng.normal(0, 0.5, (50, 2))), HORIZON, HORIZON)
        changes += before != gate.is_closed

    assert changes.mean() < 5
    assert changes.max() <= 10


def test_what_was_not_scored_only_fades_until_nothing_is_known() -> None:
    """A workload that is gone for a year comes back with an open gate."""
    gate = after(Gate.without_record(2), 10, 2.0, 1.0)
    assert gate.is_closed.all()

    for _ in range(365):
        gate = gate.realised(np.asarray([[np.nan, 1.0], [2.0, 1.0]]), 86_400.0, HORIZON)

    assert gate.is_closed.tolist() == [False, True]
    assert gate.evidence[0] < 1e-3


def test_a_gate_of_other_shapes_or_values_is_refused() -> None:
    """As a damaged file would make it."""
    good = Gate.without_record(2)

    with pytest.raises(ForecastError, match="for each series"):
        replace(good, served=np.zeros(3))
    with pytest.raises(ForecastError, match="finite and not negative"):
        replace(good, evidence=np.asarray([np.nan, 0.0]))
