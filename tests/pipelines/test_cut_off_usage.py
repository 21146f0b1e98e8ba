"""Workloads whose demand is known and whose usage a limit cut off: what is learned from the bounds that are left."""

from dataclasses import replace
from functools import cache

import numpy as np

from models.forecast import BoolArray, FloatArray
from pipelines.steps.choose import made_bundle
from pipelines.steps.compare import lanes_of, learned_over, part_for
from pipelines.steps.fit import fitted
from pipelines.steps.plan import Plan, planned, question_of
from pipelines.steps.prepare import fingerprint, prepared
from pipelines.steps.score import bundle_backtest
from pipelines.steps.split import split_in_time
from predictor.serving.bundle import Bundle, PanelForecast, SeriesForecast
from predictor.usage.panel import Resource, UsagePanel
from tests.support.histories import daily_usage
from tests.support.panels import DAY_STEPS, a_panel, a_settings

DAYS = 20
CUT_OFF, FREE = [0, 1, 2, 3], [4, 5]
"""Series by whether a limit ever held them."""
FORECASTERS = ("seasonal_naive", "trailing_24h", "hour_of_day", "analogs_short")


def the_demand() -> FloatArray:
    """Six daily rhythms, [series, steps]."""
    return daily_usage(series=6, days=DAYS, seed=3)


def the_limit() -> FloatArray:
    """Under the peaks of four of them on every other day or so: its replicas were fewer then."""
    demand = the_demand()
    is_tight = (np.random.default_rng(0).random(DAYS) < 0.5)[np.arange(DAYS * DAY_STEPS) // DAY_STEPS]
    top = np.quantile(demand, 0.75, axis=1, keepdims=True)
    limit = np.where(is_tight, top, 10 * top)
    limit[FREE] = np.nan
    return limit


def what_was_measured(*, knows_limit: bool) -> UsagePanel:
    """Usage, with the limit beside it or not."""
    panel = a_panel(np.fmin(the_demand(), the_limit()))
    return replace(panel, attributes={"limit": the_limit()} if knows_limit else {})


@cache
def rehearsed(*, knows_limit: bool) -> tuple[Plan, Bundle]:
    """A training cycle of it."""
    settings = a_settings(calibration="6d", rehearsals=30, cutoffs=12, forecasters=FORECASTERS)
    panel, question = prepared(what_was_measured(knows_limit=knows_limit)).panel, question_of(settings)
    plan = planned(panel, split_in_time(panel, question.horizon_steps, settings.training), question, settings.training)
    return plan, made_bundle(plan, fitted(plan))


@cache
def covered_demand(*, knows_limit: bool) -> BoolArray:
    """Whether demand, cut off or not, came to lie under what was served, [cutoffs, series, levels, steps]."""
    plan, bundle = rehearsed(knows_limit=knows_limit)
    made = bundle_backtest(bundle, plan.panel, plan.split.held_out_cutoffs, plan.question)
    demand = a_panel(the_demand()).history()
    actual = np.stack([plan.question.target.after(demand, cutoff) for cutoff in made.cutoffs_seconds])
    return np.asarray(actual[:, :, None, :] <= made.forecast)


def test_upper_quantiles_cover_demand_better_where_bounds_count_as_bounds() -> None:
    """Of the workloads that were cut off, at every upper level; nowhere worse by more than a point in a hundred."""
    treated, untreated = (covered_demand(knows_limit=each)[:, CUT_OFF].mean(axis=(0, 1, 3)) for each in (True, False))

    stated = np.asarray(rehearsed(knows_limit=True)[1].levels)
    upper = stated > 0.9
    short, short_before = (np.maximum(stated - share, 0.0) for share in (treated, untreated))
    assert (short[upper] < 0.75 * short_before[upper]).all()
    assert (short < short_before + 0.01).all()


def test_usage_that_was_cut_off_asks_for_no_lower_level() -> None:
    """Of the highest level, by the fleet and by each workload: as if demand had been seen."""
    asked = {
        knows: bundle.asked_levels(Resource.CPU, plan.panel.keys, bundle.levels)[:, :, -1].mean(axis=1)
        for knows in (True, False)
        for plan, bundle in [rehearsed(knows_limit=knows)]
    }

    assert (asked[True] >= asked[False]).all()


def test_workloads_without_a_limit_are_served_as_before() -> None:
    """What the others' limits hide moves the coverage of these by four points in a hundred at most."""
    with_bounds, without = (covered_demand(knows_limit=each)[:, FREE].mean(axis=(0, 1, 3)) for each in (True, False))

    np.testing.assert_allclose(with_bounds, without, atol=0.04)


def test_a_backtest_learns_of_bounds_what_serving_learns() -> None:
    """From its own windows, which must know what bounded usage: to the bit."""
    plan, bundle = rehearsed(knows_limit=True)
    cutoffs = plan.split.held_out_cutoffs
    (lane,) = lanes_of(plan, bundle, cutoffs[0])

    tested = learned_over(part_for(bundle, lane), lane, cutoffs)[-1]

    serving = bundle
    for cutoff in cutoffs:
        seen = plan.panel.history().until(cutoff).last(plan.question.past_steps)
        serving = serving.learned(plan.panel.keys, seen)
    cpu = Resource.CPU
    np.testing.assert_array_equal(tested.combinations[cpu].loss, serving.combinations[cpu].loss)
    np.testing.assert_array_equal(tested.calibrations[cpu].covered, serving.calibrations[cpu].covered)


THROTTLED_DAYS, USUAL_CORES, HELD_CORES = 6, 2.0, 1.0
"""For how long the first of four workloads is throttled, what it used before, and what it does since."""


@cache
def served_after(*, shares: float | None) -> PanelForecast:
    """Forecasts after workloads of flat demand were trained on; the first was throttled by that share of its periods,
    well below its limit, and None is without the column. Serving learned hour by hour over the newest two days.
    """
    dice, steps = np.random.default_rng(1), DAYS * DAY_STEPS
    is_held = np.zeros((4, steps), dtype=np.bool_)
    is_held[0, -THROTTLED_DAYS * DAY_STEPS :] = True
    noise = dice.random((4, steps))
    usage = np.where(is_held, HELD_CORES + 0.02 * noise, USUAL_CORES + 0.5 * noise)
    attributes = {} if shares is None else {"cut_off": np.where(is_held, shares, 0.0)}
    settings = a_settings(calibration="6d", rehearsals=30, cutoffs=12, forecasters=(*FORECASTERS, "trailing_28d"))
    panel, question = prepared(replace(a_panel(usage), attributes=attributes)).panel, question_of(settings)
    plan = planned(panel, split_in_time(panel, question.horizon_steps, settings.training), question, settings.training)
    bundle = made_bundle(plan, fitted(plan))
    for hours in range(48, -1, -1):
        bundle = bundle.learned(panel.keys, panel.history().until(panel.end_seconds - 3600 * hours))
    return bundle.forecast(panel)


def test_a_throttled_flat_series_is_not_taught_to_need_no_more() -> None:
    """Its upper quantiles are what it once used; unmarked, they are what it was given, and its reason says nothing."""
    marked, unmarked = served_after(shares=0.6), served_after(shares=None)
    upper = np.asarray(marked.forecast.levels) >= 0.9

    assert (marked.forecast.values[0, upper] > 1.5 * HELD_CORES).all()
    assert (unmarked.forecast.values[0, upper] < 1.1 * HELD_CORES).all()
    told, silent = (made.of(made.keys[0]) for made in (marked, unmarked))
    assert isinstance(told, SeriesForecast) and isinstance(silent, SeriesForecast)
    often = f"in {DAY_STEPS} of the last {DAY_STEPS} steps"
    assert f"usage was throttled or held at its most replicas {often}" in told.served.reason
    assert "usage was" not in silent.served.reason


def test_a_column_that_says_that_nothing_was_cut_off_changes_nothing() -> None:
    """No bit of any forecast, and no word of any reason; nor does throttling of few periods."""
    without = served_after(shares=None)

    for shares in (0.0, np.nan, 0.2):
        with_column = served_after(shares=shares)
        np.testing.assert_array_equal(with_column.forecast.values, without.forecast.values)
        assert with_column.outcomes == without.outcomes


def test_what_is_known_to_be_cut_off_teaches_what_a_limit_would() -> None:
    """To the bit, where both say it of the same samples."""
    by_limit = what_was_measured(knows_limit=True)
    is_bound = by_limit.is_bound
    assert is_bound is not None

    told = replace(by_limit, attributes={"cut_off": is_bound.astype(np.float64)})

    np.testing.assert_array_equal(told.history().is_bound, is_bound)
    assert fingerprint(told) == fingerprint(by_limit)
