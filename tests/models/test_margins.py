"""Margins that keep demand's share of time above them to what is allowed, and the cheapest signal to put them on."""

import numpy as np
import pytest

from models.forecast import FloatArray, ForecastError
from models.margins import MARGINS, Advised, DemandMargins

MINUTE = 60
LEAD = 2


def fed(
    usage: FloatArray, *, forecasts: FloatArray | None = None, first: int = 1, margins: DemandMargins | None = None
) -> DemandMargins:
    """Margins that have seen each step of some series; demand is in units of which any amount can be had."""
    series, steps = usage.shape
    known = np.full((steps, series, 0), np.nan) if forecasts is None else forecasts
    names = [f"forecast {number}" for number in range(known.shape[2])]
    margins = margins or DemandMargins(series, names, step_seconds=MINUTE, longest_lead_steps=LEAD)
    lead = np.full(series, LEAD)
    if forecasts is None:
        margins.follow(usage[:, :-1], known[-1], usage[:, first - 1 : -1], lead)
        return margins
    for step in range(first, steps):
        margins.follow(usage[:, :step], known[step], usage[:, step - 1 : step], lead)
    return margins


def demand_above(usage: FloatArray, allowed: float, start: int) -> FloatArray:
    """Share of the steps after `start` in which demand exceeds the lowest of what was advised within the lead time."""
    series, steps = usage.shape
    margins = fed(usage[:, :start])
    advised = np.full(usage.shape, np.nan)
    for step in range(start, steps):
        margins.follow(usage[:, :step], np.empty((series, 0)), usage[:, step - 1 : step], np.full(series, LEAD))
        advised[:, step] = margins.advised(np.full((series, 1), allowed)).demand[:, 0]
    ready = np.min([advised[:, start + LEAD - back : steps - back] for back in range(LEAD + 1)], axis=0)
    share: FloatArray = (usage[:, start + LEAD :] > ready).mean(axis=1)
    return share


def a_day_of(rng: np.random.Generator, kind: str, steps: int) -> FloatArray:
    time = np.arange(steps)
    match kind:
        case "noise":
            return 10.0 * rng.lognormal(0.0, 0.2, steps)
        case "walk":
            return np.exp(np.cumsum(rng.normal(0.0, 0.02, steps)) * 0.2 + 2.0)
        case "waves":
            return (10.0 + 8.0 * np.sin(time / 40.0)) * rng.lognormal(0.0, 0.05, steps)
        case _:
            return np.where(rng.random(steps) < 0.02, 60.0, 10.0) * rng.lognormal(0.0, 0.05, steps)


@pytest.mark.parametrize("kind", ["noise", "walk", "waves", "bursts"])
@pytest.mark.parametrize("allowed", [0.1, 0.02])
def test_violations_land_at_what_is_allowed(kind: str, allowed: float) -> None:
    """Over half a day after one, without a knob: within a factor of two in the mean of ten series."""
    usage = np.stack([a_day_of(np.random.default_rng(seed), kind, 2160) for seed in range(10)])

    share = demand_above(usage, allowed, 1440)

    assert allowed / 2 < share.mean() < 2 * allowed


def test_the_cheapest_signal_serves() -> None:
    """A forecast that knows the coming demand beats all that only know the past, at next to no margin."""
    usage = a_day_of(np.random.default_rng(1), "waves", 3000)[None]
    coming = np.lib.stride_tricks.sliding_window_view(np.append(usage[0], [usage[0, -1]] * LEAD), LEAD + 1).max(axis=1)
    forecasts = np.stack([coming, 3.0 * usage[0]], axis=1)[:, None, :]

    advised = fed(usage, forecasts=forecasts).advised(np.array([[0.01]]))

    names = fed(usage[:, :2], forecasts=forecasts).names
    assert names[int(advised.signal[0, 0])] == "forecast 0"
    assert advised.margin[0, 0] == pytest.approx(1.0, abs=0.05)
    assert advised.demand[0, 0] == pytest.approx(forecasts[-1, 0, 0] * advised.margin[0, 0], rel=1e-6)


def test_less_is_allowed_only_for_more() -> None:
    """The advice never falls as the share falls, and no share is so small that the tail has no answer."""
    margins = fed(a_day_of(np.random.default_rng(2), "noise", 2000)[None])

    advice = [margins.advised(np.array([[allowed]])).demand[0, 0] for allowed in (0.3, 0.1, 0.01, 0.001, 0.0001)]

    assert np.all(np.diff(advice) >= 0)
    assert np.isfinite(advice).all()
    assert advice[-1] > advice[0]


def test_a_short_record_is_careful() -> None:
    """After an hour, in which 1 % is less than a step, the margin is more than would ever have been needed."""
    usage = a_day_of(np.random.default_rng(3), "noise", 64)[None]
    margins = fed(usage)

    seen, beyond = margins.advised(np.array([[0.1, 0.01]])).margin[0]

    assert beyond > seen
    assert np.isnan(fed(usage[:, :40]).advised(np.array([[0.01]])).demand).all()


def test_nothing_is_advised_before_anything_is_known() -> None:
    """Not before the first step is over, and not where nothing was ever measured."""
    fresh = DemandMargins(2, (), step_seconds=MINUTE, longest_lead_steps=LEAD)
    unknown = fed(np.full((2, 50), np.nan))

    for advised in (fresh.advised(np.full((2, 1), 0.1)), unknown.advised(np.full((2, 1), 0.1))):
        assert np.isnan(advised.demand).all()
        assert (advised.signal == -1).all()


def test_a_signal_of_nothing_is_enough_for_nothing() -> None:
    """Demand that comes out of silence counts as a violation by every signal that was silent, and no more than that."""
    usage = np.tile([[0.0] * 95 + [5.0] * 5], (1, 30))

    advised = fed(usage).advised(np.array([[0.1, 0.001]]))

    # Ten of hundred minutes may be short: the five are.
    assert advised.demand[0, 0] < 5.0
    assert advised.signal[0, 0] >= 0
    # Only signals that remember the last burst can promise more.
    assert np.isnan(advised.demand[0, 1]) or "highest" in fed(usage).names[int(advised.signal[0, 1])]


def test_gaps_teach_nothing() -> None:
    """Demand that is not known neither fades the record nor is taken for none."""
    usage = a_day_of(np.random.default_rng(4), "noise", 1000)[None]
    gappy = np.concatenate([usage, np.full((1, 50), np.nan), usage[:, -120:]], axis=1)

    before, after = fed(usage), fed(gappy)

    one, other = (each.advised(np.array([[0.05]])) for each in (before, after))
    assert other.margin[0, 0] == pytest.approx(one.margin[0, 0], rel=0.1)


def test_what_had_to_be_exceeded_is_what_counts() -> None:
    """Where one replica carries all demand, anything is enough and the lowest margin serves."""
    usage = a_day_of(np.random.default_rng(5), "bursts", 500)[None]
    margins = DemandMargins(1, (), step_seconds=MINUTE, longest_lead_steps=LEAD)

    margins.follow(usage, np.empty((1, 0)), np.zeros_like(usage), np.full(1, LEAD))

    assert margins.advised(np.array([[0.01]])).margin[0, 0] == MARGINS[0]


def test_a_longer_lead_needs_more() -> None:
    """What has to be ordered earlier can rely on less."""
    usage = a_day_of(np.random.default_rng(6), "waves", 4000)[None]
    advice = []
    for lead in (0, 2, 8):
        margins = DemandMargins(1, (), step_seconds=MINUTE, longest_lead_steps=8)
        margins.follow(usage, np.empty((1, 0)), usage, np.array([lead]))
        advised: Advised = margins.advised(np.array([[0.01]]))
        advice.append(float(advised.margin[0, 0]))

    assert advice[0] < advice[1] < advice[2]


def test_each_series_is_its_own() -> None:
    """What is selected goes on to the bit as it would have alone; what is put beside it begins with nothing."""
    rng = np.random.default_rng(7)
    usage = np.stack([a_day_of(rng, kind, 800) for kind in ("noise", "waves", "bursts")])
    allowed = np.array([[0.02]])

    both = fed(usage[:, :400])
    new = DemandMargins(1, (), step_seconds=MINUTE, longest_lead_steps=LEAD)
    some = fed(usage[[2, 2]], first=400, margins=both.select(np.array([2])).beside(new))
    alone = fed(usage[2:])

    assert some.advised(np.tile(allowed, (2, 1))).demand[0, 0] == alone.advised(allowed).demand[0, 0]
    assert some.advised(np.tile(allowed, (2, 1))).steps[1, 0] < alone.advised(allowed).steps[0, 0]
    assert both.series == 3


def test_arrays_of_other_series_are_refused() -> None:
    """Rather than spread over all."""
    margins = DemandMargins(2, ("a",), step_seconds=MINUTE, longest_lead_steps=LEAD)

    with pytest.raises(ForecastError, match=r"signals are \(3, "):
        margins.follow(np.ones((3, 5)), np.ones((3, 1)), np.ones((3, 1)), np.ones(3, dtype=int))


def test_steps_may_be_taken_in_one_by_one_or_all_at_once() -> None:
    """The advice is the same, gaps, a replica that is enough for all, and different lead times included."""
    rng = np.random.default_rng(8)
    usage = np.stack([a_day_of(rng, kind, 2 * 1440 + 100) for kind in ("noise", "walk", "waves", "bursts")])
    usage[1, 300:400] = usage[2, 1500] = np.nan
    exceeded = np.where(usage < 11.0, 0.0, usage)
    lead, forecasts = np.array([0, 1, 2, 2]), usage[:, -2:]
    allowed = np.tile([0.1, 0.01, 0.001], (4, 1))
    stepwise, at_once = (DemandMargins(4, ("a", "b"), step_seconds=60, longest_lead_steps=LEAD) for _ in range(2))

    for step in range(500, usage.shape[1] + 1):
        known = forecasts if step == usage.shape[1] else np.full((4, 2), np.nan)
        stepwise.follow(usage[:, :step], known, exceeded[:, step - 1 : step], lead)
    at_once.follow(usage[:, :1000], np.full((4, 2), np.nan), exceeded[:, 499:1000], lead)
    at_once.follow(usage, forecasts, exceeded[:, 1000:], lead)

    one, other = stepwise.advised(allowed), at_once.advised(allowed)
    np.testing.assert_array_equal(one.signal, other.signal)
    np.testing.assert_allclose(one.demand, other.demand, rtol=1e-6)
    np.testing.assert_allclose(one.steps, other.steps, rtol=1e-5)
