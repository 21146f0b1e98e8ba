"""The gate while serving: a model that does worse than its baseline on a series steps back, and comes back."""

import json
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from models import catalog
from models.calibration import Calibration
from models.forecast import Target
from pipelines.steps.plan import Question
from pipelines.steps.score import bundle_backtest
from predictor.registry.kept import KeptModel
from predictor.registry.memory import MemoryBundleStore
from predictor.serving.bundle import Bundle, SeriesForecast
from predictor.serving.forecasts import ServedForecast
from predictor.serving.predictor import Predictor
from predictor.sources.files import MemorySource
from predictor.usage.panel import Resource, UsagePanel
from tests.support.bundles import LEVELS
from tests.support.histories import STEP_SECONDS
from tests.support.panels import DAY_STEPS, in_single_precision
from tests.support.regimes import (
    CHANGED,
    HORIZON,
    PEAK,
    RHYTHM_DAYS,
    STEADY,
    TRAILING,
    a_long_record,
    a_stubborn_bundle,
    usage_that_changes,
)

SPAN = timedelta(days=5)
SPAN_STEPS = int(SPAN.total_seconds()) // STEP_SECONDS
HOUR_STEPS = 3600 // STEP_SECONDS


def seen_at(panel: UsagePanel, end_seconds: int) -> UsagePanel:
    """The window that serving reads."""
    return panel.between(end_seconds - (SPAN_STEPS - 1) * STEP_SECONDS, end_seconds)


def served_hourly(bundle: Bundle, panel: UsagePanel, first_step: int, hours: int) -> list[Bundle]:
    """The bundle as it becomes hour by hour."""
    found = []
    for hour in range(hours):
        seen = seen_at(panel, int(panel.times[first_step + hour * HOUR_STEPS]))
        bundle = bundle.learned(seen.keys, seen.history())
        found.append(bundle)
    return found


FIRST = 6 * DAY_STEPS
RHYTHM_HOURS = (RHYTHM_DAYS - 6) * 24


def test_it_closes_on_a_workload_that_changed_and_opens_when_it_has_changed_back() -> None:
    """Believing in the distribution of the last day the model loses to yesterday's rhythm, and wins once it is noise.

    The other workload, on which it is right all along, is never closed.
    """
    panel = usage_that_changes()

    became = served_hourly(a_stubborn_bundle(), panel, FIRST, 24 * 16)

    is_closed = [CHANGED in each.closed for each in became]
    closed_at, opened_at = is_closed.index(True), len(is_closed) - is_closed[::-1].index(True)
    assert 5 <= closed_at <= 12
    assert RHYTHM_HOURS < opened_at < len(became)
    assert sum(a != b for a, b in pairwise(is_closed)) == 2
    assert not any(STEADY in each.closed for each in became)


def a_closed_bundle(*, calibrated: bool = False) -> tuple[Bundle, UsagePanel]:
    """A day after the first look, with what is seen then."""
    panel = usage_that_changes()
    bundle = a_stubborn_bundle()
    if calibrated:
        record = Calibration.without_record(2, LEVELS, HORIZON)
        covered = np.full(record.covered.shape, 0.5e6)
        record = replace(record, covered=covered, evidence=np.full(record.evidence.shape, 1e6))
        bundle = replace(bundle, calibrations={Resource.CPU: record})
    return served_hourly(bundle, panel, FIRST, 25)[-1], seen_at(panel, int(panel.times[FIRST + 24 * HOUR_STEPS]))


@pytest.mark.parametrize("calibrated", [False, True])
def test_while_closed_the_seasonal_naive_serves_steps_and_peaks(calibrated: bool) -> None:
    """As it states them: what was learned of coverage is the combination's. The reason says how much was lost."""
    bundle, seen = a_closed_bundle(calibrated=calibrated)

    steps, peak = bundle.forecast(seen).of(CHANGED), bundle.forecast(seen, PEAK).of(CHANGED)

    naive = catalog.create("seasonal_naive")
    assert isinstance(steps, SeriesForecast) and isinstance(peak, SeriesForecast)
    for made, target in ((steps, Target(HORIZON)), (peak, PEAK)):
        np.testing.assert_array_equal(made.values, naive.predict(seen.history(), target, LEVELS).values[0])
        assert (made.served.forecaster, made.served.is_cold, made.served.is_baseline) == ("seasonal_naive", False, True)
    assert steps.served.reason.startswith("over the last ")
    assert "times what seasonal_naive did: seasonal_naive serves" in steps.served.reason
    steady = bundle.forecast(seen).of(STEADY)
    assert isinstance(steady, SeriesForecast) and not steady.served.is_baseline


def test_the_loss_is_that_of_what_was_served() -> None:
    """One look: the combination after calibration, held to what was seen, at all levels, against the seasonal naive."""
    panel = usage_that_changes()
    record = Calibration.without_record(2, LEVELS, HORIZON)
    record = replace(record, covered=record.covered + 400.0, evidence=record.evidence + 500.0)
    bundle = replace(a_stubborn_bundle(), calibrations={Resource.CPU: record})
    seen = seen_at(panel, int(panel.times[FIRST]))

    gate = bundle.learned(seen.keys, seen.history()).gates[Resource.CPU]

    cutoff = seen.end_seconds - HORIZON * STEP_SECONDS
    past, actual = seen.history().until(cutoff), seen.usage[:, -HORIZON:]
    ours = bundle.forecast_history(seen.keys, past).forecast.values
    theirs = catalog.create("seasonal_naive").predict(past, Target(HORIZON), LEVELS).values
    level, size = np.asarray(LEVELS)[:, None], past.usage.max(axis=1)
    for lost, made in ((gate.served, ours), (gate.baseline, theirs)):
        gap = actual[:, None] - made
        expected = np.maximum(level * gap, (level - 1) * gap).mean(axis=(1, 2)) / size
        np.testing.assert_allclose(lost, expected, rtol=0.05)
    np.testing.assert_array_equal(gate.evidence, 1.0)


def test_a_series_that_the_baseline_serves_already_has_no_gate_to_close() -> None:
    """It did not pass at training: it is on the baseline's rung with that reason, and nothing is added up."""
    panel = usage_that_changes()
    bundle = a_stubborn_bundle()
    lost = replace(
        bundle.series[CHANGED], forecaster="seasonal_naive", gate_passed=False, reason="it had 1.30 of the loss"
    )
    bundle = replace(bundle, series={**bundle.series, CHANGED: lost})

    became = served_hourly(bundle, panel, FIRST, 20)[-1]

    assert became.closed == {}
    assert became.gates[Resource.CPU].evidence[0] == 0.0
    found = became.forecast(seen_at(panel, int(panel.times[FIRST]))).of(CHANGED)
    assert isinstance(found, SeriesForecast)
    assert (found.served.is_baseline, found.served.reason) == (True, "it had 1.30 of the loss")


def test_a_series_with_hardly_any_past_is_not_judged() -> None:
    """Nothing would have been forecast from so few samples, so nothing was lost; and no warning is given."""
    panel = usage_that_changes()
    usage = panel.usage.copy()
    usage[0, : FIRST - HORIZON - 5] = np.nan
    usage[1, : FIRST - HORIZON] = np.nan
    seen = seen_at(replace(panel, usage=usage), int(panel.times[FIRST]))

    gate = a_stubborn_bundle().learned(seen.keys, seen.history()).gates[Resource.CPU]

    assert gate.evidence.tolist() == [0.0, 0.0]


def test_threads_and_other_series_change_no_bit() -> None:
    """The gates over three threads; and seen alone a series is judged as in its fleet."""
    panel = usage_that_changes()

    one = served_hourly(a_stubborn_bundle(), panel, FIRST, 14)[-1].gates[Resource.CPU]
    three = served_hourly(replace(a_stubborn_bundle(), threads=3), panel, FIRST, 14)[-1].gates[Resource.CPU]
    alone = served_hourly(a_stubborn_bundle(), panel.select([0]), FIRST, 14)[-1].gates[Resource.CPU]

    for name in ("served", "baseline", "evidence", "is_closed"):
        np.testing.assert_array_equal(getattr(three, name), getattr(one, name))
        # The weights' prior is the fleet's.
        np.testing.assert_allclose(getattr(alone, name)[0], getattr(one, name)[0], rtol=1e-6)
    assert one.is_closed.tolist() == [True, False]


def test_without_the_baseline_among_its_forecasters_nothing_is_gated() -> None:
    """There is nothing to compare with."""
    panel = usage_that_changes()
    bundle = a_stubborn_bundle(peak=False)
    record = bundle.combinations[Resource.CPU]
    record = replace(record, forecasters=(record.forecasters[TRAILING],), loss=record.loss[:, TRAILING:])

    became = served_hourly(replace(bundle, combinations={Resource.CPU: record}), panel, FIRST, 10)[-1]

    assert became.gates == {}


def test_a_closed_gate_comes_back_from_disk_to_the_bit(tmp_path: Path) -> None:
    """With everything that it was closed by."""
    bundle, seen = a_closed_bundle()
    bundle.save(tmp_path)

    back = Bundle.load(tmp_path)

    assert back.closed == bundle.closed != {}
    np.testing.assert_array_equal(back.gates[Resource.CPU].served, bundle.gates[Resource.CPU].served)
    np.testing.assert_array_equal(
        back.forecast(seen, PEAK).forecast.values, bundle.forecast(seen, PEAK).forecast.values
    )


def test_a_bundle_of_before_gates_were_kept_is_read_with_all_of_them_open(tmp_path: Path) -> None:
    """Format version 4."""
    bundle, _ = a_closed_bundle()
    bundle.save(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for content in (manifest["content"], *manifest["content"]["peaks"]):
        del content["gates"]
    body = json.dumps([manifest["content"], manifest["texts"]], sort_keys=True)
    manifest |= {"version": 4, "content_sha256": sha256(body.encode()).hexdigest()}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))

    back = Bundle.load(tmp_path)

    assert (back.gates, back.closed) == ({}, {})
    assert back.learned_until_seconds == bundle.learned_until_seconds


def test_gates_of_other_series_are_refused() -> None:
    """As a damaged file would hold them."""
    bundle, _ = a_closed_bundle()

    with pytest.raises(ValueError, match="the gates of cpu need 2 series, got 1"):
        replace(bundle, gates={Resource.CPU: type(bundle.gates[Resource.CPU]).without_record(1)})


def a_predictor(panel: UsagePanel, learned: KeptModel | None = None) -> Predictor:
    store = MemoryBundleStore()
    store.set_alias("champion", store.add(a_stubborn_bundle()))
    return Predictor(
        source=MemorySource(panel),
        store=store,
        step_seconds=STEP_SECONDS,
        span=SPAN,
        horizon=timedelta(seconds=HORIZON * STEP_SECONDS),
        levels=LEVELS,
        stale_after=timedelta(days=1),
        learned_copy=learned,
        peaks_within=timedelta(hours=1),
    )


def asked_at(predictor: Predictor, cutoff: int) -> ServedForecast:
    found = predictor.predict(cutoff + STEP_SECONDS + 60).of(CHANGED)
    assert isinstance(found, ServedForecast)
    return found


def test_serving_and_backtest_close_alike() -> None:
    """The predictor hour by hour, and the pipeline over the same cutoffs: bit for bit, through the closing."""
    panel = in_single_precision(usage_that_changes())
    cutoffs = [int(panel.times[FIRST + hour * HOUR_STEPS]) for hour in range(14)]
    predictor = a_predictor(panel)

    online = [asked_at(predictor, cutoff) for cutoff in cutoffs]

    question = Question(Target(HORIZON), LEVELS, SPAN_STEPS)
    offline = bundle_backtest(a_stubborn_bundle(), panel, cutoffs, question).forecast
    np.testing.assert_array_equal([each.series.values for each in online], offline[:, 0])
    is_baseline = [each.series.served.is_baseline for each in online]
    assert is_baseline[0] is False
    assert is_baseline[-1] is True


def test_a_restart_keeps_a_gate_closed(tmp_path: Path) -> None:
    """Without the copy of what was learned the model would act on the workload again."""
    panel, learned = usage_that_changes(), KeptModel(tmp_path / "learned")
    cutoffs = [int(panel.times[FIRST + hour * HOUR_STEPS]) for hour in range(14)]
    stopped = a_predictor(panel, learned)
    for cutoff in cutoffs[:-1]:
        before = asked_at(stopped, cutoff)
    assert before.series.served.is_baseline

    restarted = asked_at(a_predictor(panel, learned), cutoffs[-1])

    assert restarted.series.served.is_baseline
    assert all(each.served.is_baseline for each in restarted.peaks)
    assert not asked_at(a_predictor(panel), cutoffs[-1]).series.served.is_baseline


def test_a_record_that_long_is_not_changed_by_a_week() -> None:
    """So that these tests are about the gate, and not about the weights."""
    panel = usage_that_changes()

    became = served_hourly(a_stubborn_bundle(peak=False), panel, FIRST, 48)[-1]

    before = a_long_record(2, HORIZON, TRAILING).weights()
    np.testing.assert_allclose(became.weights[Resource.CPU], before, atol=0.01)
