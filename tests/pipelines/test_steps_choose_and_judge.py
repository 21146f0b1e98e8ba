"""The best candidate serves each series, the quantiles are calibrated, and only a better bundle is promoted."""

from dataclasses import replace

import numpy as np
import pytest

from models.forecast import FloatArray, Target
from pipelines.settings import Settings
from pipelines.steps.choose import chosen, made_bundle
from pipelines.steps.fit import fitted
from pipelines.steps.judge import judged, without_loss_of_workloads
from pipelines.steps.plan import Plan, planned, question_of
from pipelines.steps.prepare import prepared
from pipelines.steps.record import forecast_rows, metrics_of, tables_of
from pipelines.steps.score import added, held_out, on_common_points, part_ends, resource_accuracy
from pipelines.steps.split import split_in_time
from predictor.backtest.rolling import Backtest
from predictor.serving.bundle import COMBINATION, Bundle
from predictor.usage.kin import UNKNOWN_KIN, Kin
from predictor.usage.panel import Resource, SeriesKey, UsagePanel
from tests.support.panels import a_fleet, a_settings

KEYS = (SeriesKey("shop/Deployment/a", Resource.CPU), SeriesKey("shop/Deployment/b", Resource.MEMORY))
LEVELS = (0.5, 0.9)
SETTINGS = a_settings(forecasters=["seasonal_naive", "decaying_histogram"])


def a_backtest(miss: float, *, actual: FloatArray | None = None, top: float = 0.0) -> Backtest:
    """One cutoff, two series, three steps: every forecast is `miss` under the actual (2), the top level `top` more."""
    happened = np.full((1, 2, 3), 2.0) if actual is None else actual
    forecast = np.full((1, 2, 2, 3), 2.0 - miss)
    forecast[:, :, 1] += top
    return Backtest((0,), 300, Target(3), LEVELS, forecast, happened)


def mean_losses(baseline: float, combination: float) -> dict[str, FloatArray]:
    """What the baseline and the combination lost on one series."""
    return {"seasonal_naive": np.asarray([baseline]), COMBINATION: np.asarray([combination])}


def a_plan(panel: UsagePanel, settings: Settings = SETTINGS) -> Plan:
    ready = prepared(panel).panel
    split = split_in_time(ready, question_of(settings).horizon_steps, settings.training)
    return planned(ready, split, question_of(settings), settings.training)


def a_bundle(plan: Plan) -> Bundle:
    return made_bundle(plan, fitted(plan))


def test_the_combination_serves_where_it_is_better() -> None:
    """And the reason says by how much it beat the baseline."""
    choice = chosen(KEYS[:1], mean_losses(1.0, 0.5), "seasonal_naive")[0]

    assert (choice.forecaster, choice.gate_passed) == (COMBINATION, True)
    assert "0.50 of the pinball loss" in choice.reason


@pytest.mark.parametrize(("miss", "serves"), [(1.04, COMBINATION), (1.06, "seasonal_naive")])
def test_the_baseline_serves_where_the_combination_lost_clearly_more(miss: float, serves: str) -> None:
    """A few percent on a handful of days may be chance; more is not, and the gate says so."""
    choice = chosen(KEYS[:1], mean_losses(1.0, miss), "seasonal_naive")[0]

    assert choice.forecaster == serves
    assert choice.gate_passed == (serves == COMBINATION)
    assert f"{miss:.2f} of the pinball loss" in choice.reason


def test_a_series_that_was_not_observed_is_served_by_the_baseline() -> None:
    """There is nothing to choose by."""
    choice = chosen(KEYS[:1], mean_losses(np.nan, np.nan), "seasonal_naive")[0]

    assert choice.forecaster == "seasonal_naive"
    assert "nothing to choose by" in choice.reason


def test_a_challenger_that_would_forget_workloads_is_not_promoted() -> None:
    """Trained on some of them, it would take the champion from the others; what is gone from the history is no loss."""
    win = judged(KEYS, a_backtest(0.2), a_backtest(1.0), a_backtest(0.5), minimum_gain=0.01)
    a, b = KEYS

    forgets = without_loss_of_workloads(win, KEYS, (a,), left_out=(b,))
    outlives = without_loss_of_workloads(win, KEYS, (a,), left_out=())
    foreign = without_loss_of_workloads(win, (b,), (a,), left_out=())

    assert win.promote
    assert not forgets.promote
    assert f"1 series that the champion serves and that were left out, first {b}" in forgets.reasons[-1]
    assert outlives == win
    assert not foreign.promote
    assert "knows none of the 1 series that the champion serves" in foreign.reasons[-1]


def test_held_out_days_change_nothing_in_the_bundle() -> None:
    """No peeking: another future gives the same forecasters, choices and calibration, bit for bit."""
    panel = a_fleet()
    plan = a_plan(panel)
    changed = panel.usage.copy()
    changed[:, panel.times > plan.split.calibrated_until_seconds] *= 7.0
    other = a_plan(replace(panel, usage=changed))

    first, second = a_bundle(plan), a_bundle(other)

    assert first.series.keys() == second.series.keys()
    for key, model in first.series.items():
        twin = second.series[key]
        assert (twin.forecaster, twin.reason, twin.scores) == (model.forecaster, model.reason, model.scores)
    past = plan.panel.between(plan.panel.start_seconds, plan.split.calibrated_until_seconds)
    np.testing.assert_array_equal(first.forecast(past).forecast.values, second.forecast(past).forecast.values)


def test_calibration_days_change_no_fit() -> None:
    """What is learned across series comes from the fit part alone; the later days only choose and correct."""
    panel = a_fleet(days=8, series=2)
    learned = a_settings(forecasters=["lightgbm_quantiles"])
    plan = a_plan(panel, learned)
    changed = panel.usage.copy()
    changed[:, panel.times > plan.split.fitted_until_seconds] *= 3.0

    first, second = fitted(plan), fitted(a_plan(replace(panel, usage=changed), learned))

    assert any(model.to_state().texts for model in first.values())
    for key, model in first.items():
        assert model.to_state().parameters == second[key].to_state().parameters
        assert dict(model.to_state().texts) == dict(second[key].to_state().texts)


def test_a_constant_workload_is_forecast_at_its_constant() -> None:
    """The baseline makes no error on it, so it serves, and no correction moves it."""
    plan = a_plan(a_fleet())
    key = SeriesKey("shop/Deployment/flat", Resource.CPU)

    bundle = a_bundle(plan)

    assert bundle.series[key].forecaster == "seasonal_naive"
    row = plan.panel.row(key)
    np.testing.assert_allclose(bundle.forecast(plan.panel).forecast.values[row], 2.5)


def test_what_is_known_of_images_and_owners_is_kept_with_each_series() -> None:
    """And weighs: series that share an image lean on each other, in whatever order the panel has them."""
    panel = a_fleet()
    kin = {f"shop/Deployment/w{number}": Kin("shop/web", "part-of/shop") for number in range(3)}
    plan, related = a_plan(panel), a_plan(replace(panel, kin=kin))

    apart, bundle = a_bundle(plan), a_bundle(related)

    assert {key.workload: model.kin for key, model in bundle.series.items() if model.kin != UNKNOWN_KIN} == kin
    np.testing.assert_array_equal(apart.combinations[Resource.CPU].loss, bundle.combinations[Resource.CPU].loss)
    assert not np.array_equal(apart.weights[Resource.CPU], bundle.weights[Resource.CPU])
    order = list(range(len(panel.keys)))[::-1]
    turned = a_bundle(a_plan(replace(panel, kin=kin).select(order)))
    np.testing.assert_array_equal(turned.weights[Resource.CPU], bundle.weights[Resource.CPU])


def test_tables_and_metrics_speak_of_every_series_and_stay_small() -> None:
    """Per workload in tables, cold ones included; fewer than 200 aggregates in metrics, none of them NaN."""
    plan = a_plan(a_fleet())
    models = fitted(plan)
    bundle = made_bundle(plan, models)

    scored = held_out(plan, bundle, models)
    accuracies = resource_accuracy(scored.keys, *scored.scores(), bundle)
    tables, metrics = tables_of(plan, scored, bundle), metrics_of(accuracies, plan.question.levels)

    assert len(tables["series"]) == len(plan.panel.keys) * len(plan.question.levels)
    assert set(tables["series"].loc[tables["series"]["is_cold"], "workload"]) == {"new/Job/young"}
    assert len(tables["findings"]) == len(plan.findings) + len(plan.panel.findings)
    assert 0 < len(metrics) < 200
    assert np.isfinite(list(metrics.values())).all()


def test_forecast_rows_are_one_per_level_and_step() -> None:
    """The long table of a bundle's forecast, without rows for a series that has none."""
    plan = a_plan(a_fleet())
    panel = plan.panel
    panel.usage[0] = np.nan

    rows = forecast_rows(a_bundle(plan).forecast(panel)).astype({"workload": str, "resource": str})

    counts = rows.groupby(["workload", "resource"]).size()
    assert len(counts) == len(panel.keys) - 1
    assert set(counts) == {plan.question.horizon_steps * len(plan.question.levels)}


def test_sums_of_two_cutoffs_are_those_of_both_together() -> None:
    """A backtest may be scored piece by piece, if the bundle learns between the pieces."""
    plan = a_plan(a_fleet())
    models = fitted(plan)
    bundle = made_bundle(plan, models)
    whole = held_out(plan, bundle, models)

    pieces = []
    for cutoff in plan.split.held_out_cutoffs:
        bundle = bundle.learned(plan.panel.keys, plan.panel.history().until(cutoff).last(plan.question.past_steps))
        alone = replace(plan, split=replace(plan.split, held_out_cutoffs=(cutoff,)))
        pieces.append(held_out(alone, bundle, models).scores()[0])
    total = pieces[0]
    for piece in pieces[1:]:
        total = added(total, piece)

    np.testing.assert_allclose(total.pinball, whole.scores()[0].pinball)


def test_parts_of_the_horizon_end_with_it() -> None:
    """Half an hour, an hour and the rest of two hours, at a quarter of an hour each."""
    assert part_ends(Target(8), 900) == (2, 4, 8)
    assert part_ends(Target(1), 900) == (1,)
    assert part_ends(Target(8, is_peak=True), 900) == (1,)


def test_scores_are_compared_over_the_same_points() -> None:
    """A point that one of the two does not forecast counts for neither."""
    one, other = a_backtest(0.0), a_backtest(1.0)
    one.forecast[0, 0, 0, 0] = np.nan

    masked = on_common_points(one, other)

    assert all(np.isnan(each.actual[0, 0, 0]) for each in masked)
    assert all(np.isfinite(each.actual[0, 0, 1:]).all() for each in masked)


def test_the_first_model_must_beat_the_baseline() -> None:
    """Half the baseline's loss is promoted, the same loss is not."""
    better = judged(KEYS, a_backtest(0.5), a_backtest(1.0), None, minimum_gain=0.01)
    same = judged(KEYS, a_backtest(1.0), a_backtest(1.0), None, minimum_gain=0.01)

    assert (better.promote, same.promote) == (True, False)
    assert better.challenger.loss == pytest.approx(0.5)


@pytest.mark.parametrize(("miss", "promoted"), [(0.5, True), (0.795, False), (0.9, False)])
def test_a_challenger_needs_a_gain_over_the_champion(miss: float, *, promoted: bool) -> None:
    """The champion misses by 0.8: less than 1 % better is not enough, worse even less so."""
    verdict = judged(KEYS, a_backtest(miss), a_backtest(1.0), a_backtest(0.8), minimum_gain=0.01)

    assert verdict.promote is promoted
    assert "the champion's is 0.800" in " ".join(verdict.reasons)


def test_a_challenger_that_covers_less_at_the_top_is_not_promoted() -> None:
    """A lower loss does not buy violations: at the top level a miss is one."""
    champion = a_backtest(1.0, top=1.2)
    challenger = a_backtest(0.1)

    verdict = judged(KEYS, challenger, a_backtest(2.0), champion, minimum_gain=0.01)

    assert not verdict.promote
    assert verdict.champion is not None
    assert verdict.challenger.loss < verdict.champion.loss
    assert "more than 1% less" in " ".join(verdict.reasons)


def test_the_unit_of_a_resource_does_not_weigh_in_the_verdict() -> None:
    """Bytes are a billion times cores; each resource counts as much as the other."""
    scale = np.asarray([1.0, 1e9])[None, :, None]

    def scaled(made: Backtest) -> Backtest:
        return replace(made, forecast=made.forecast * scale[:, :, None], actual=made.actual * scale)

    plain = judged(KEYS, a_backtest(0.5), a_backtest(1.0), None, minimum_gain=0.01)
    large = judged(KEYS, scaled(a_backtest(0.5)), scaled(a_backtest(1.0)), None, minimum_gain=0.01)

    assert large.challenger.loss == pytest.approx(plain.challenger.loss)


def test_nothing_scored_promotes_nothing() -> None:
    """Without a single sample on the held-out days there is no verdict in favour."""
    nothing = np.full((1, 2, 3), np.nan)
    verdict = judged(KEYS, a_backtest(0.5, actual=nothing), a_backtest(1.0, actual=nothing), None, minimum_gain=0.01)

    assert not verdict.promote
    assert "nothing could be scored" in verdict.reasons[-1]
