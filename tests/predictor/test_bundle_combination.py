"""A bundle that combines forecasters: weighed by their record, learning as it serves, the same offline and online."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from models import catalog
from models.calibration import Calibration, part_coverage
from models.combination import Combination, combined, loss_unit, part_losses
from models.forecast import FloatArray, ForecastError, Target
from pipelines.steps.plan import Question
from pipelines.steps.score import bundle_backtest, bundle_backtests
from predictor.registry.kept import KeptModel
from predictor.registry.memory import MemoryBundleStore
from predictor.serving.bundle import COMBINATION, Bundle, SeriesForecast, SeriesModel, Served
from predictor.serving.forecasts import ServedForecast
from predictor.serving.predictor import Predictor
from predictor.sources.files import MemorySource
from predictor.usage.kin import Kin
from predictor.usage.panel import Resource, SeriesKey, UsagePanel
from tests.support.bundles import LEVELS
from tests.support.histories import STEP_SECONDS, daily_usage
from tests.support.panels import DAY_STEPS, a_panel, in_single_precision, throttled

NAMES = ("seasonal_naive", "trailing_24h", "hour_of_day")
HORIZON = 8
SPAN = timedelta(days=6)


def some_usage() -> UsagePanel:
    """Twelve days of three workloads; the third has the first's name in another namespace."""
    names = ("shop/Deployment/w0", "shop/Deployment/w1", "pay/Deployment/w0")
    return a_panel(daily_usage(series=3, days=12), names=names)


def a_bundle(record: Combination | None = None) -> Bundle:
    """The first two workloads, served by the combination; without a record unless one is given."""
    keys = some_usage().keys[:2]
    known = record or Combination.without_record(len(keys), NAMES, LEVELS, HORIZON)
    return Bundle(
        step_seconds=STEP_SECONDS,
        target=Target(HORIZON),
        levels=LEVELS,
        forecasters={(Resource.CPU, name): catalog.create(name) for name in NAMES},
        series={key: SeriesModel(key, COMBINATION, reason="a test's") for key in keys},
        trained_until_seconds=some_usage().start_seconds + 6 * 86_400,
        combinations={Resource.CPU: known},
        learned_until_seconds=some_usage().start_seconds + 6 * 86_400,
    )


def a_record(best: tuple[int, int]) -> Combination:
    """Two hundred cutoffs in which one forecaster was best for each of the two series."""
    record = Combination.without_record(2, NAMES, LEVELS, HORIZON)
    losses = np.ones((2, len(NAMES), len(record.part_ends), len(LEVELS)))
    for row, number in enumerate(best):
        losses[row, number] = 0.5
    for _ in range(200):
        record = record.realised(losses, 1e-6, np.full(len(record.part_ends), 1e-6))
    return record


def test_a_series_is_served_by_its_weights() -> None:
    """The weighted mean of the forecasters' quantiles, each series by its own."""
    panel = some_usage().select([0, 1])
    record = a_record((0, 1))

    made = a_bundle(record).forecast(panel)

    each = {
        n: catalog.create(name).predict(panel.history(), Target(HORIZON), LEVELS).values for n, name in enumerate(NAMES)
    }
    weights = record.weights()
    expected = combined(each, weights, record.part_ends, LEVELS, LEVELS)
    np.testing.assert_allclose(made.forecast.values, expected, rtol=1e-3)
    assert made.outcomes == (Served(COMBINATION, False, "a test's"),) * 2
    assert weights[0, 0].min() > 0.9
    assert weights[1, 1].min() > 0.9


@pytest.mark.parametrize(("row", "like"), [(2, 0)])
def test_a_new_workload_is_forecast_as_its_sibling_is(row: int, like: int) -> None:
    """The same name in another namespace: its sibling's weights, and marked cold."""
    panel = some_usage().select([row])
    bundle = a_bundle(a_record((0, 1)))

    found = bundle.forecast(panel).of(panel.keys[0])

    assert isinstance(found, SeriesForecast)
    assert found.served.is_cold
    as_sibling = panel.keys[0], some_usage().keys[like]
    twin = bundle.forecast_history([as_sibling[1]], panel.history())
    np.testing.assert_allclose(found.values, twin.forecast.values[0])


CART, MILL = Kin("registry/cart"), Kin("registry/mill,registry/proxy", "Kafka/orders")
RELATED = {"shop/Deployment/w0": CART, "shop/Deployment/w1": MILL}


def a_related_bundle(record: Combination) -> Bundle:
    """The two workloads with images, and one of them with an owner."""
    bundle = a_bundle(record)
    series = {key: replace(model, kin=RELATED[key.workload]) for key, model in bundle.series.items()}
    return replace(bundle, series=series)


@pytest.mark.parametrize(
    ("workload", "kin", "like", "said"),
    [
        ("pay/Deployment/w0", MILL, 0, "1 workload of the same name"),
        ("pay/Deployment/new", replace(MILL, owner=""), 1, "1 workload with the same image"),
        ("shop/Deployment/new", replace(CART, owner="Kafka/orders"), 0, "1 workload with the same image"),
        ("shop/StatefulSet/new", Kin("registry/cart", "Kafka/orders"), 1, "1 workload of the same owner"),
        ("shop/Deployment/new", Kin("registry/proxy", "Kafka/orders"), 1, "1 workload of the same owner"),
        ("pay/Deployment/new", Kin("registry/proxy", "Kafka/orders"), None, "the whole fleet"),
        ("pay/CronJob/new", Kin("registry/cart"), None, "the whole fleet"),
        ("shop/Deployment/new", Kin(), None, "the whole fleet"),
    ],
)
def test_a_new_workload_leans_on_its_nearest_kin(workload: str, kin: Kin, like: int | None, said: str) -> None:
    """Its name's, else its image's, else its owner's within the namespace, else the fleet's; and it is said whose."""
    key = SeriesKey(workload, Resource.CPU)
    bundle = a_related_bundle(a_record((0, 1)))
    panel = replace(some_usage().select([2]), keys=(key,), kin={workload: kin})

    made = bundle.forecast(panel)

    fleet = replace(panel, keys=(SeriesKey("x/Job/stranger", Resource.CPU),), kin={})
    model = panel if like is None else replace(panel, keys=(some_usage().keys[like],))
    expected = bundle.forecast(fleet if like is None else model).forecast.values
    np.testing.assert_array_equal(made.forecast.values, expected)
    (outcome,) = made.outcomes
    assert isinstance(outcome, Served)
    assert outcome.is_cold
    assert outcome.reason == f"cold: not among the 2 series the model was trained on; weights of {said}"


def test_a_new_workload_takes_the_mean_of_several_siblings_in_any_order() -> None:
    """Both workloads run its image; a panel in another order gets the same forecasts, of peaks as well."""
    bundle = with_a_peak(a_bundle(a_record((0, 1))))
    bundle = replace(bundle, series={key: replace(model, kin=CART) for key, model in bundle.series.items()})
    bundle = replace(bundle, peaks=tuple(replace(each, series=bundle.series) for each in bundle.peaks))
    names = ("shop/Deployment/w0", "shop/Deployment/w1", "pay/Deployment/new")
    panel = replace(some_usage(), keys=tuple(SeriesKey(name, Resource.CPU) for name in names), kin={names[2]: CART})

    made = bundle.forecast(panel)

    assert made.outcomes[2].reason.endswith("weights of 2 workloads with the same image")
    for target in (None, PEAK):
        turned = bundle.forecast(panel.select([2, 0, 1]), target).forecast.values
        np.testing.assert_array_equal(turned, bundle.forecast(panel, target).forecast.values[[2, 0, 1]])
    assert bundle.forecast(panel, PEAK).outcomes[2] == made.outcomes[2]


def test_a_trained_workload_without_a_record_leans_on_its_image() -> None:
    """Alone it is weighed as the fleet is; with the second's image as the second is."""
    record = a_record((0, 1))
    loss, evidence = record.loss.copy(), record.evidence.copy()
    loss[0], evidence[0] = 0.0, 0.0
    loss[1] *= 10
    bundle = a_bundle(replace(record, loss=loss, evidence=evidence))
    shared = {key: replace(model, kin=CART) for key, model in bundle.series.items()}

    alone, related = (each.weights[Resource.CPU] for each in (bundle, replace(bundle, series=shared)))

    np.testing.assert_allclose(related[0], related[1])
    np.testing.assert_array_equal(related[1], alone[1])


def test_a_workload_like_no_other_is_forecast_by_the_fleets_weights() -> None:
    """A bundle in which all agree on one forecaster believes it for a stranger too."""
    panel = replace(some_usage().select([2]), keys=(SeriesKey("new/Deployment/stranger", Resource.CPU),))

    made = a_bundle(a_record((1, 1))).forecast(panel).forecast.values

    alone = catalog.create(NAMES[1]).predict(panel.history(), Target(HORIZON), LEVELS).values
    np.testing.assert_allclose(made, alone, rtol=0.05)


def test_a_bundle_with_a_record_comes_back_to_the_bit(tmp_path: Path) -> None:
    """Weights, what was learned and until when."""
    panel = some_usage()
    bundle = a_bundle(a_record((0, 2))).learned(panel.keys, panel.history())
    bundle.save(tmp_path)

    back = Bundle.load(tmp_path)

    np.testing.assert_array_equal(back.combinations[Resource.CPU].loss, bundle.combinations[Resource.CPU].loss)
    assert back.learned_until_seconds == bundle.learned_until_seconds
    np.testing.assert_array_equal(back.forecast(panel).forecast.values, bundle.forecast(panel).forecast.values)


def test_what_happened_changes_the_weights_at_most_once_an_hour() -> None:
    """A look at the same time, or half an hour later, leaves the bundle as it is."""
    panel = some_usage()
    keys, history = panel.keys, panel.history()

    once = a_bundle().learned(keys, history.until(panel.end_seconds - 7200))

    assert once.combinations[Resource.CPU].evidence.min() == 1.0
    assert once.learned(keys, history.until(panel.end_seconds - 5400)) is once
    again = once.learned(keys, history.until(panel.end_seconds - 3600))
    evidence = again.combinations[Resource.CPU].evidence
    np.testing.assert_allclose(evidence[0], [2.0, 2.0, 1.5], rtol=2e-3)


def test_a_bundle_says_when_it_learns_again() -> None:
    """A step before nothing is learned, then something is, of the steps or of a peak."""
    panel = some_usage()
    keys, history = panel.keys, panel.history()
    bundle = with_a_peak(a_bundle()).learned(keys, history.until(panel.end_seconds - 2 * 3600))

    due = bundle.learns_from_seconds

    assert due == panel.end_seconds - 3600
    assert bundle.learned(keys, history.until(due - STEP_SECONDS)) is bundle
    assert bundle.learned(keys, history.until(due)).learns_from_seconds == panel.end_seconds


def test_learning_sees_nothing_after_the_history() -> None:
    """Whatever comes later, what was learned by then is the same to the bit."""
    panel = some_usage()
    changed = panel.usage.copy()
    changed[:, -40:] = 1e6
    until = panel.end_seconds - 40 * STEP_SECONDS

    one = a_bundle().learned(panel.keys, panel.history().until(until))
    two = a_bundle().learned(panel.keys, replace(panel, usage=changed).history().until(until))

    np.testing.assert_array_equal(one.combinations[Resource.CPU].loss, two.combinations[Resource.CPU].loss)


def test_a_workload_that_is_not_seen_keeps_its_record_as_it_fades() -> None:
    """Learning from part of the fleet leaves the rest alone."""
    panel = some_usage().select([1])
    bundle = a_bundle(a_record((0, 1)))

    learned = bundle.learned(panel.keys, panel.history()).combinations[Resource.CPU]

    before = bundle.combinations[Resource.CPU]
    fading = learned.evidence[0] / before.evidence[0]
    assert (fading < 1.0).all()
    np.testing.assert_allclose(learned.loss[0], before.loss[0] * fading[0])
    assert (learned.evidence[1] > fading * before.evidence[1]).all()


def a_store(bundles: int = 1) -> MemoryBundleStore:
    """A registry with so many versions of the same bundle, the last of them the champion."""
    store = MemoryBundleStore()
    for _ in range(bundles):
        store.set_alias("champion", store.add(a_related_bundle(a_bundle().combinations[Resource.CPU])))
    return store


def a_predictor(panel: UsagePanel, store: MemoryBundleStore, learned: KeptModel | None = None) -> Predictor:
    return Predictor(
        source=MemorySource(panel),
        store=store,
        step_seconds=STEP_SECONDS,
        span=SPAN,
        horizon=timedelta(seconds=HORIZON * STEP_SECONDS),
        levels=LEVELS,
        stale_after=timedelta(days=1),
        learned_copy=learned,
    )


def served_at(predictor: Predictor, panel: UsagePanel, cutoffs: Sequence[int]) -> FloatArray:
    """What the predictor says at each cutoff, [cutoffs, series, levels, steps]."""
    found = []
    for cutoff in cutoffs:
        made = predictor.predict(cutoff + STEP_SECONDS + 60)
        answers = [made.of(key) for key in panel.keys]
        found.append([answer.series.values for answer in answers])  # type: ignore[union-attr]
    return np.asarray(found)


def test_a_restart_loses_nothing_that_was_learned(tmp_path: Path) -> None:
    """The second process goes on where the first stopped; without the copy it would answer otherwise."""
    panel, learned = some_usage(), KeptModel(tmp_path / "learned")
    before, after = ([panel.end_seconds - hours * 3600 for hours in each] for each in ((30, 24, 12, 9), (8, 4, 3)))
    never_stopped = a_predictor(panel, a_store())
    served_at(never_stopped, panel, before)

    served_at(a_predictor(panel, a_store(), learned), panel, before)
    restarted = served_at(a_predictor(panel, a_store(), learned), panel, after)

    np.testing.assert_array_equal(restarted, served_at(never_stopped, panel, after))
    assert not np.array_equal(restarted, served_at(a_predictor(panel, a_store()), panel, after))


def test_what_another_version_learned_is_left_alone(tmp_path: Path) -> None:
    """A new champion begins from its own training; a damaged copy is no reason to stop."""
    panel, learned = some_usage(), KeptModel(tmp_path / "learned")
    before, after = ([panel.end_seconds - hours * 3600 for hours in each] for each in ((30, 24, 12, 9), (8, 4, 3)))
    fresh = served_at(a_predictor(panel, a_store()), panel, after)

    served_at(a_predictor(panel, a_store(), learned), panel, before)
    np.testing.assert_array_equal(served_at(a_predictor(panel, a_store(bundles=2), learned), panel, after), fresh)

    served_at(a_predictor(panel, a_store(), learned), panel, before)
    for file in (tmp_path / "learned").glob("model-*/arrays.npz"):
        file.write_bytes(b"not an archive")
    np.testing.assert_array_equal(served_at(a_predictor(panel, a_store(), learned), panel, after), fresh)


@pytest.mark.parametrize("third", ["pay/Deployment/w0", "pay/Deployment/new"])
@pytest.mark.parametrize("cut_off", [(), (0, 1, 2)])
def test_serving_and_backtest_forecast_the_same(cut_off: tuple[int, ...], third: str) -> None:
    """The predictor hour by hour, and the pipeline over the same cutoffs: bit for bit, learning included; a workload
    that leans on another of its name or of its image as well."""
    panel = in_single_precision(throttled(some_usage(), cut_off))
    keys = (*panel.keys[:2], SeriesKey(third, Resource.CPU))
    panel = replace(panel, keys=keys, kin={third: CART})
    cutoffs = tuple(panel.end_seconds - hours * 3600 for hours in (12, 9, 8, 4, 3, 2))

    online = served_at(a_predictor(panel, a_store()), panel, cutoffs)

    related = a_related_bundle(a_bundle().combinations[Resource.CPU])
    question = Question(Target(HORIZON), LEVELS, int(SPAN.total_seconds()) // STEP_SECONDS)
    offline = bundle_backtest(related, panel, cutoffs, question).forecast
    np.testing.assert_array_equal(online, offline)
    assert not np.array_equal(offline, bundle_backtest(a_bundle(a_record((0, 0))), panel, cutoffs, question).forecast)


def test_what_the_predictor_holds_in_single_precision_changes_forecasts_by_no_more() -> None:
    """Seven digits of a sample are kept, and six of what is forecast from it: a scrape tells fewer."""
    panel = throttled(some_usage(), (0, 1))

    exact, slim = (
        a_bundle().learned(each.keys, each.history()).forecast(each).forecast.values for each in (panel, panel.slim())
    )

    np.testing.assert_allclose(slim, exact, rtol=1e-6)


def test_blocks_and_threads_change_no_bit() -> None:
    """Of three hundred series, known and unknown: over three threads as over one, and each as if it were alone."""
    few = some_usage()
    names = (*few.workloads, *(f"other/Deployment/n{number}" for number in range(297)))
    usage = np.concatenate([few.usage, *(few.usage * (1 + number / 7) for number in range(1, 100))])
    panel = a_panel(usage, names=names)

    one, three = (replace(with_a_peak(a_bundle()), threads=threads) for threads in (1, 3))

    for target in (Target(HORIZON), PEAK):
        made = one.forecast(panel, target).forecast.values
        np.testing.assert_array_equal(three.forecast(panel, target).forecast.values, made)
        alone = one.forecast(panel.select([200]), target).forecast.values
        np.testing.assert_array_equal(made[[200]], alone)
    learned = [each.learned(panel.keys, panel.history()).combinations[Resource.CPU] for each in (one, three)]
    np.testing.assert_array_equal(learned[0].loss, learned[1].loss)


def test_a_bundle_whose_combination_does_not_fit_cannot_be_made() -> None:
    """A record of other series, and a series served by a combination that is not there."""
    bundle = a_bundle()

    with pytest.raises(ValueError, match="needs its forecasters, the levels"):
        replace(bundle, combinations={Resource.CPU: Combination.without_record(3, NAMES, LEVELS, HORIZON)})
    with pytest.raises(ValueError, match="'combination', which the bundle does not hold"):
        replace(bundle, combinations={})


PEAK = Target(4, is_peak=True)


def with_a_peak(bundle: Bundle) -> Bundle:
    """The bundle with a part for the peak of an hour, its combination without a record."""
    record = Combination.without_record(2, NAMES, LEVELS, 1)
    return replace(bundle, peaks=(replace(bundle, target=PEAK, combinations={Resource.CPU: record}),))


def test_a_peak_is_answered_by_its_part() -> None:
    """The equal weights' mean of what each forecaster says of the peak; a peak without a part is refused."""
    panel = some_usage().select([0, 1])

    made = with_a_peak(a_bundle()).forecast(panel, PEAK).forecast

    each = [catalog.create(name).predict(panel.history(), PEAK, LEVELS).values for name in NAMES]
    np.testing.assert_allclose(made.values, np.mean(each, axis=0))
    assert made.target == PEAK
    with pytest.raises(ForecastError, match="no peak of 3 steps; it does of: 4"):
        with_a_peak(a_bundle()).forecast(panel, Target(3, is_peak=True))


def test_peaks_learn_beside_the_steps() -> None:
    """Each part from its own forecasts of one window ago; asked again within the hour it is the same bundle."""
    panel = some_usage()
    history = panel.history()

    learned = with_a_peak(a_bundle()).learned(panel.keys, history)

    (part,) = learned.peaks
    assert part.learned_until_seconds == history.end_seconds - PEAK.steps * STEP_SECONDS
    past = history.until(part.learned_until_seconds).select([0, 1])
    made = [catalog.create(name).predict(past, PEAK, LEVELS).values for name in NAMES]
    actual = history.usage[:2, -PEAK.steps :].max(axis=1, keepdims=True)
    expected = part_losses(actual, made, LEVELS, (1,)) / loss_unit(past)[:, None, None, None]
    np.testing.assert_allclose(part.combinations[Resource.CPU].loss, expected)
    assert learned.learned(panel.keys, history) is learned


def test_what_was_cut_off_is_learned_as_a_bound() -> None:
    """Of steps and of peaks: losses and coverage are those of bounds."""
    panel = throttled(some_usage(), [0, 1], share=0.3)
    history = panel.history()
    bundle = with_a_peak(a_bundle())
    bundle = replace(bundle, peaks=tuple(calibrated(each) for each in bundle.peaks))

    learned = calibrated(bundle).learned(panel.keys, history)

    for part in (learned, *learned.peaks):
        target, ends = part.target, part.combinations[Resource.CPU].part_ends
        past = history.until(part.learned_until_seconds).select([0, 1])
        grid = part.calibrations[Resource.CPU].levels
        made = [catalog.create(name).predict(past, target, grid).values for name in NAMES]
        stated = [each[:, [grid.index(level) for level in LEVELS]] for each in made]
        actual = target.after(history, part.learned_until_seconds)[:2]
        bounds = target.bounds_after(history, part.learned_until_seconds)
        assert bounds is not None and bounds[:2].any()
        expected = part_losses(actual, stated, LEVELS, ends, bounds[:2]) / loss_unit(past)[:, None, None, None]
        np.testing.assert_allclose(part.combinations[Resource.CPU].loss, expected)
        covered = part_coverage(actual, np.mean(made, axis=0), grid, ends, bounds[:2])
        np.testing.assert_allclose(part.calibrations[Resource.CPU].covered, covered)


def calibrated(bundle: Bundle) -> Bundle:
    """The bundle with a calibration that has no record."""
    record = Calibration.without_record(2, LEVELS, len(bundle.target.ahead))
    return replace(bundle, calibrations={Resource.CPU: record})


def test_a_forecast_says_that_usage_was_at_its_limit() -> None:
    """In how many of the last day's steps; nothing where it was not, whether the workload is known or new."""
    panel = throttled(some_usage(), [0, 2])

    known, free, new = (a_bundle().forecast(panel).of(key) for key in panel.keys)

    assert panel.is_bound is not None
    count = panel.is_bound[0, -DAY_STEPS:].sum()
    assert isinstance(known, SeriesForecast) and isinstance(free, SeriesForecast) and isinstance(new, SeriesForecast)
    said = f"usage was at its limit in {count} of the last {DAY_STEPS} steps: demand may be higher than is forecast"
    assert known.served.reason == f"a test's; {said}"
    assert free.served.reason == "a test's"
    assert new.served.reason.startswith("cold: ")
    assert "usage was at its limit in" in new.served.reason


def test_a_forecast_says_that_usage_was_throttled() -> None:
    """Where the source says so, and no limit does."""
    panel = some_usage()
    cuts = np.zeros(panel.usage.shape)
    cuts[0, [5, -DAY_STEPS, -3, -1]] = 0.5
    panel = replace(panel, attributes={"cut_off": cuts})

    cut, free = (a_bundle().forecast(panel).of(key) for key in panel.keys[:2])

    assert isinstance(cut, SeriesForecast) and isinstance(free, SeriesForecast)
    assert f"usage was throttled or held at its most replicas in 3 of the last {DAY_STEPS} steps" in cut.served.reason
    assert "usage was" not in free.served.reason


def test_a_bundle_keeps_its_peaks_on_disk(tmp_path: Path) -> None:
    """What was learned and calibrated for each, to the bit."""
    panel = some_usage()
    bundle = with_a_peak(a_bundle()).learned(panel.keys, panel.history())

    bundle.save(tmp_path)

    again = Bundle.load(tmp_path)
    np.testing.assert_array_equal(
        again.forecast(panel, PEAK).forecast.values, bundle.forecast(panel, PEAK).forecast.values
    )
    with pytest.raises(ValueError, match="ascending windows"):
        replace(bundle, peaks=(*bundle.peaks, *bundle.peaks))


def test_scaling_takes_the_shortest_peak_that_covers_its_lead_time() -> None:
    """Beyond the windows that are forecast, the largest quantile of the steps and of the shorter windows; windows far
    longer are not made.
    """
    panel = some_usage()
    bundle = with_a_peak(a_bundle())
    longer = replace(bundle.peaks[0], target=Target(6, is_peak=True))
    store = MemoryBundleStore()
    store.set_alias("champion", store.add(replace(bundle, peaks=(*bundle.peaks, longer))))

    def served(within: timedelta) -> ServedForecast:
        predictor = Predictor(
            MemorySource(panel),
            store,
            STEP_SECONDS,
            SPAN,
            timedelta(hours=2),
            LEVELS,
            timedelta(hours=1),
            peaks_within=within,
        )
        found = predictor.predict(panel.end_seconds + STEP_SECONDS).of(panel.keys[0])
        assert isinstance(found, ServedForecast)
        return found

    answer = served(timedelta(minutes=20))
    assert [each.target for each in answer.peaks] == [PEAK]
    assert [each.target.steps for each in served(timedelta(hours=5)).peaks] == [4, 6]
    assert served(timedelta(0)).peaks == ()
    start, top = answer.known_until_seconds, LEVELS[-1]
    assert answer.peak(top, start + 600) == answer.peaks[0].at(top)[0]
    highest = max(answer.series.at(top)[:5].max(), answer.peaks[0].at(top)[0])
    assert answer.peak(top, start + 5 * STEP_SECONDS) == highest


def test_peaks_do_not_contradict_each_other() -> None:
    """None is below that of a shorter window, nor that of a workload that is new below a step within it; what a
    backtest, a predictor and the bundle say is the same, and what is forecast otherwise is not touched.
    """
    panel = some_usage()
    usage = panel.usage.copy()
    usage[2, : -DAY_STEPS // 6] = np.nan
    panel = replace(panel, usage=usage)
    bundle = with_a_peak(a_bundle(a_record((0, 1))))
    day = replace(bundle.peaks[0], target=Target(DAY_STEPS, is_peak=True))
    bundle = replace(bundle, peaks=(*bundle.peaks, day))
    targets = (bundle.target, *(each.target for each in bundle.peaks))

    alone = [bundle.forecast(panel, target).forecast.values for target in targets]
    steps, hour, of_day = (each.forecast.values for each in bundle.forecasts(panel, targets))
    question = Question(bundle.target, LEVELS, panel.steps)
    asked = [(replace(question, target=target), (panel.end_seconds - DAY_STEPS * STEP_SECONDS,)) for target in targets]
    tested = bundle_backtests(bundle, panel, asked)
    past = panel.between(panel.start_seconds, asked[0][1][0])
    known = bundle.learned(past.keys, past.history())

    assert (alone[2] < alone[1])[2].any()
    assert (of_day >= hour).all()
    assert (of_day[2] >= steps[2].max(axis=1, keepdims=True)).all()
    assert (hour[2] >= steps[2, :, :4].max(axis=1, keepdims=True)).all()
    np.testing.assert_array_equal(steps, alone[0])
    np.testing.assert_array_equal(hour[:2], alone[1][:2])
    for made, expected in zip(tested, known.forecasts(past, targets), strict=True):
        np.testing.assert_array_equal(made.forecast[0], expected.forecast.values)
