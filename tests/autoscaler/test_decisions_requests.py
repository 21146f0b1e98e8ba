"""Requests from forecasts: figures worked out by hand, and what must hold for any forecast."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.cluster.reasons import Hold, ReasonCode
from autoscaler.decisions.requests import (
    OutOfMemory,
    RequestRange,
    RequestRules,
    UsageFan,
    after_out_of_memory,
    capped,
    cpu_request,
    level_shares,
    load_weighted_quantile,
    memory_request,
    with_floor,
)
from predictor.usage.panel import Resource

RULES = RequestRules()
MIB = 2**20


def certain(*cores: float) -> UsageFan:
    """Usage that is known in each step."""
    return UsageFan((0.5,), np.asarray([cores], dtype=np.float64))


def a_fan(steps: list[list[float]], levels: tuple[float, ...] = (0.25, 0.5, 0.75, 0.99)) -> UsageFan:
    """Quantiles of each step, ascending."""
    return UsageFan(levels, np.asarray([sorted(step) for step in steps], dtype=np.float64).T)


def cpu(mean: UsageFan, busiest: UsageFan | None = None, days: float = 8.0) -> RequestRange:
    wanted = cpu_request(mean, mean if busiest is None else busiest, days, RULES)
    assert isinstance(wanted, RequestRange)
    return wanted


fans = st.integers(1, 12).flatmap(
    lambda steps: st.lists(
        st.lists(st.floats(0.001, 100.0), min_size=4, max_size=4), min_size=steps, max_size=steps
    ).map(a_fan)
)


def test_levels_stand_for_what_lies_nearest_to_them() -> None:
    """Half-way to the neighbours, the outermost for all beyond."""
    assert level_shares((0.1, 0.5, 0.9)) == pytest.approx([0.3, 0.4, 0.3])
    assert level_shares((0.5,)) == pytest.approx([1.0])


def test_busy_hours_count_for_what_is_used_in_them() -> None:
    """Twenty idle hours of 0.1 and four of 2 cores: of 10 core-hours 8 are used at 2 cores, though 5/6 of the time is
    idle; only a fifth of the CPU time happens at 0.1."""
    day = certain(*[0.1] * 20, *[2.0] * 4)

    assert load_weighted_quantile(day, 0.2) == 0.1
    assert load_weighted_quantile(day, 0.21) == 2.0
    assert float(np.quantile(day.values, 0.8)) == pytest.approx(0.1)


def test_the_fan_of_a_step_is_its_distribution() -> None:
    """One step, 1 core with weight 0.7, 3 cores with 0.3: of 1.6 core-hours 0.7 are used at 1 core."""
    fan = UsageFan((0.4, 1.0 - 1e-9), np.asarray([[1.0], [3.0]]))

    assert load_weighted_quantile(fan, 0.43) == 1.0
    assert load_weighted_quantile(fan, 0.45) == 3.0


def test_nothing_used_is_a_request_of_nothing() -> None:
    """Before the smallest request is applied."""
    assert load_weighted_quantile(certain(0.0, 0.0), 0.95) == 0.0
    assert capped(cpu(certain(0.0)), Resource.CPU, None, None).target == 0.01


def test_bounds_are_wide_while_history_is_short() -> None:
    """With a day the upper bound is doubled, with eight an eighth is added."""
    day, week = cpu(certain(1.0), days=1.0), cpu(certain(1.0), days=8.0)

    assert [day.lower, day.target, day.upper] == pytest.approx([1.001**-2, 1.0, 2.0])
    assert [week.lower, week.target, week.upper] == pytest.approx([1.000125**-2, 1.0, 1.125])


def test_the_busiest_pod_must_have_what_it_uses_half_of_its_time() -> None:
    """A leader that uses 3 cores while the mean pod uses 1."""
    wanted = cpu(certain(1.0, 1.0), certain(3.0, 3.0))

    assert wanted.target == 3.0
    assert "busiest pod" in wanted.because


def test_less_than_a_day_is_no_basis() -> None:
    """No number, and the reason says how much is known."""
    for wanted in (cpu_request(certain(1.0), certain(1.0), 0.5, RULES), memory_request(certain(1.0), 1.0, 0.5, RULES)):
        assert isinstance(wanted, Hold)
        assert wanted.reason.code is ReasonCode.LITTLE_HISTORY
        assert wanted.reason.message == "12.0 hours of its usage are known, and a day is needed"


def test_a_forecast_that_is_no_amount_is_no_basis() -> None:
    """NaN, infinity, or less than nothing."""
    for value in (np.nan, np.inf, -1.0):
        assert isinstance(cpu_request(certain(value), certain(1.0), 8.0, RULES), Hold)


def memory(peak: list[float], highest: float) -> RequestRange:
    fan = UsageFan((0.5, 0.95, 0.99), np.asarray(peak)[:, None] * MIB)
    wanted = memory_request(fan, highest * MIB, 8.0, RULES)
    assert isinstance(wanted, RequestRange)
    return wanted


def test_memory_holds_the_peak_of_a_day_and_what_was_seen() -> None:
    """The forecast peak where it is more, else a tenth over the last day's highest."""
    assert memory([100, 130, 150], 120).target == 150 * MIB
    assert memory([100, 130, 150], 200).target == pytest.approx(220 * MIB)


def test_a_kill_for_want_of_memory_raises_the_request() -> None:
    """By 100 MiB, or by a fifth where that is more; nothing below is within the bounds then."""
    assert after_out_of_memory(100 * MIB) == 200 * MIB
    assert after_out_of_memory(1000 * MIB) == pytest.approx(1200 * MIB)

    wanted = with_floor(memory([100, 130, 150], 120), OutOfMemory(0.0, 300.0 * MIB))

    assert (wanted.lower, wanted.target, wanted.upper) == (300 * MIB, 300 * MIB, 300 * MIB)
    assert "killed for want of memory" in wanted.because
    assert with_floor(wanted, OutOfMemory(0.0, 10.0)) == wanted


def test_a_kill_counts_for_a_day() -> None:
    assert OutOfMemory(0.0, 1.0).is_kept(86_399.0)
    assert not OutOfMemory(0.0, 1.0).is_kept(86_400.0)


def test_caps_hold_the_target_and_both_bounds() -> None:
    """What would have been recommended without them is told beside it."""
    wanted = capped(cpu(certain(2.0)), Resource.CPU, None, 0.5)
    raised = capped(cpu(certain(0.05)), Resource.CPU, 0.25, None)

    assert (wanted.lower, wanted.target, wanted.upper, wanted.uncapped) == (0.5, 0.5, 0.5, 2.0)
    assert wanted.because.endswith("capped by maxAllowed")
    assert [raised.target, raised.uncapped] == pytest.approx([0.25, 0.05])
    assert raised.because.endswith("raised to minAllowed")


def test_requests_are_amounts_that_people_can_read() -> None:
    """Up to the next millicore and mebibyte; what is whole stays."""
    odd = RequestRange(0.12341, 0.1, 0.2, "")

    assert capped(odd, Resource.CPU, None, None).target == pytest.approx(0.124)
    assert capped(replace(odd, target=100.2 * MIB, upper=200 * MIB), Resource.MEMORY, None, None).target == 101 * MIB
    assert capped(replace(odd, target=100.0 * MIB, upper=200 * MIB), Resource.MEMORY, None, None).target == 100 * MIB


def test_rules_that_would_cross_the_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="cpu_share"):
        RequestRules(cpu_share=0.3)


@given(fans, fans, st.floats(1.0, 30.0))
def test_the_target_lies_between_its_bounds(mean: UsageFan, busiest: UsageFan, days: float) -> None:
    wanted = cpu(mean, busiest, days)
    shown = capped(wanted, Resource.CPU, None, None)

    assert 0 <= wanted.lower <= wanted.target <= wanted.upper
    assert shown.lower <= shown.target <= shown.upper


@given(fans, st.floats(0.01, 100.0))
def test_usage_scaled_is_a_request_scaled(mean: UsageFan, factor: float) -> None:
    """All figures by the same factor."""
    wanted, scaled = cpu(mean), cpu(replace(mean, values=mean.values * factor))

    for name in ("lower", "target", "upper"):
        assert getattr(scaled, name) == pytest.approx(factor * getattr(wanted, name), rel=1e-6)


@given(fans, st.floats(0.0, 3.0))
def test_usage_that_grows_the_more_the_higher_it_is_never_lowers_a_request(mean: UsageFan, power: float) -> None:
    """In proportion, or more steeply: a busier service, a higher peak."""
    grown = replace(mean, values=mean.values * (1 + mean.values / mean.values.max()) ** power)

    assert cpu(grown).target >= cpu(mean).target


@given(fans, st.floats(1.0, 10.0))
def test_more_usage_above_a_request_never_lowers_it(mean: UsageFan, factor: float) -> None:
    """However the rest of the day goes on."""
    before = load_weighted_quantile(mean, 0.95)
    grown = replace(mean, values=np.where(mean.values >= before, mean.values * factor, mean.values))

    assert load_weighted_quantile(grown, 0.95) >= before


@given(
    st.lists(st.floats(1.0, 1e4), min_size=3, max_size=3).map(sorted),
    st.floats(0.0, 1e4),
    st.floats(1.0, 5.0),
)
def test_more_memory_never_lowers_a_request(peak: list[float], highest: float, factor: float) -> None:
    """Neither more that was seen nor more that is forecast, and it is never below what was seen."""
    wanted = memory(peak, highest)

    assert memory(peak, highest * factor).target >= wanted.target
    assert memory([each * factor for each in peak], highest).target >= wanted.target
    assert wanted.target >= highest * MIB
    assert wanted.lower <= wanted.target <= wanted.upper


@given(fans, st.floats(0.001, 200.0), st.floats(0.0, 200.0))
def test_nothing_is_recommended_outside_what_is_allowed(mean: UsageFan, least: float, more: float) -> None:
    shown = capped(cpu(mean), Resource.CPU, least, least + more)

    for value in (shown.lower, shown.target, shown.upper):
        assert least <= value <= least + more
