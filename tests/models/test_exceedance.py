"""Which probability to ask for: more after quiet horizons, less after misses, and as stated in the long run."""

import numpy as np
import pytest

from models.exceedance import BOLDEST, MOST_CAUTIOUS, Exceedances
from models.forecast import ForecastError

TWO = np.array([0, 0])


def test_without_a_record_what_is_stated_is_asked_for() -> None:
    """Of every node."""
    assert Exceedances.without_record(0.05, classes=1, nodes=2).asked(TWO) == pytest.approx([0.05, 0.05])


def test_a_quiet_horizon_raises_it_and_a_miss_lowers_it_more_where_it_was() -> None:
    """At 1 % a unit is 1 / √p = 10, and a quiet horizon moves by 10 · (2 + 0.5) · 0.01.

    A miss of one of two, a tenth of a horizon later: both by 10 · 2 · (0.01 − 0.5) / 10 for their class, and on top
    the one that missed by 10 · 0.5 · (0.01 − 1) / 10, the other by 10 · 0.5 · 0.01 / 10.
    """
    none = Exceedances.without_record(0.01, classes=1, nodes=2)

    quiet = none.realised(np.array([0.0, 0.0]), TWO, 1.0)
    missed = none.realised(np.array([1.0, 0.0]), TWO, 0.1)

    assert quiet.asked(TWO) == pytest.approx(0.01 * np.exp([0.25, 0.25]))
    assert missed.asked(TWO) == pytest.approx(0.01 * np.exp([-0.98 - 0.495, -0.98 + 0.005]))


def test_what_is_not_known_teaches_nothing_and_no_class_learns_from_another() -> None:
    """A node without an outcome stays as it was, and so does a class without any."""
    classes = np.array([0, 1, 1])
    made = Exceedances.without_record(0.05, classes=2, nodes=3).realised(np.array([np.nan, 1.0, np.nan]), classes, 0.1)

    asked = made.asked(classes)
    assert asked[0] == 0.05
    assert asked[1] < asked[2] < 0.05


def test_it_moves_within_bounds() -> None:
    """However long it is quiet or missed."""
    bold = cautious = Exceedances.without_record(0.05, classes=1, nodes=2)
    for _ in range(1000):
        bold = bold.realised(np.zeros(2), TWO, 1.0)
        cautious = cautious.realised(np.ones(2), TWO, 1.0)

    assert bold.asked(TWO) == pytest.approx([0.05 * BOLDEST] * 2)
    assert cautious.asked(TWO) == pytest.approx([0.05 * MOST_CAUTIOUS] * 2)


def test_a_day_on_which_many_are_exceeded_makes_their_whole_class_cautious_at_once() -> None:
    """After ten calm horizons a fifth of 40 nodes is exceeded on one day: the others are asked for less than stated.

    Usage that rises rises in many places, and who has been spared so far is next.
    """
    class_of = np.zeros(40, dtype=np.int64)
    record = Exceedances.without_record(0.01, classes=1, nodes=40)
    for _ in range(10):
        record = record.realised(np.zeros(40), class_of, 1.0)
    calm = record.asked(class_of)
    risen = record.realised(np.repeat([1.0, 0.0], [8, 32]), class_of, 1.0).asked(class_of)

    assert (calm > 0.01).all()
    assert (risen < 0.01 / 2).all()


@pytest.mark.parametrize("wrong_by", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("stated", [0.01, 0.05])
def test_in_the_long_run_as_many_exceed_as_is_stated(stated: float, wrong_by: float) -> None:
    """Quantiles that are exceeded half or three times as often as they say come to what is stated."""
    rng = np.random.default_rng(3)
    class_of = np.zeros(40, dtype=np.int64)
    record = Exceedances.without_record(stated, classes=1, nodes=40)
    exceeded = np.empty((500, 40))
    for horizon in exceeded:
        horizon[:] = rng.random(40) < record.asked(class_of) * wrong_by
        record = record.realised(horizon, class_of, 1.0)

    assert exceeded.mean() == pytest.approx(stated, rel=0.25)


def test_nonsense_is_refused() -> None:
    """A probability or share that is none."""
    with pytest.raises(ForecastError, match="inside"):
        Exceedances.without_record(1.0, classes=1, nodes=1)
    with pytest.raises(ForecastError, match="share"):
        Exceedances.without_record(0.1, classes=1, nodes=1).realised(np.zeros(1), np.zeros(1, dtype=np.int64), 2.0)
