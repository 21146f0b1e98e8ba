"""A training cycle ends in a verdict with its reasons, and leaves nothing half done."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from pipelines.errors import NotEnoughHistory, TrackingUnavailable
from pipelines.flows.summary import training_json, training_lines
from pipelines.flows.train import TrainingReport, train
from pipelines.settings import Settings
from pipelines.tracking.memory import MemoryTracker
from predictor.errors import CorruptModel, RegistryUnavailable, SourceUnavailable, UnknownWorkload
from predictor.registry.memory import MemoryBundleStore
from predictor.serving.bundle import Bundle
from predictor.serving.ports import Progress
from predictor.sources.files import MemorySource
from predictor.usage.panel import Resource, UsagePanel
from tests.support.histories import daily_usage
from tests.support.panels import a_fleet, a_panel, a_settings

SETTINGS = a_settings(forecasters=["decaying_histogram"])


@dataclass
class BrokenStore:
    """A registry whose champion is named but cannot be had."""

    problem: Exception
    version: str | None = "7"

    def version_of(self, alias: str) -> str:
        if self.version is None:
            raise self.problem
        return self.version

    def load(self, version: str) -> Bundle:
        raise self.problem


@dataclass
class FailingSource:
    """A source that ends as told."""

    problem: BaseException

    def fetch(
        self,
        *,
        start_seconds: int,
        end_seconds: int,
        step_seconds: int,
        resources: Collection[Resource] = tuple(Resource),
        progress: Progress | None = None,
    ) -> UsagePanel:
        raise self.problem


def a_cycle(
    tracker: MemoryTracker, panel: UsagePanel | None = None, settings: Settings = SETTINGS, workloads: str | None = None
) -> TrainingReport:
    usage = a_fleet() if panel is None else panel
    return train(
        settings, MemorySource(usage), tracker.store, tracker, end_seconds=usage.end_seconds, workloads=workloads
    )


def noisy_then_learnable() -> UsagePanel:
    """Noise around a level: yesterday's same hour is a poor forecast, the distribution a good one."""
    rng = np.random.default_rng(3)
    return a_panel(5 + rng.exponential(1.0, daily_usage(series=3, days=12).shape))


def test_the_first_model_that_beats_the_baseline_becomes_champion() -> None:
    """It is registered, the alias points to it, and it serves what was judged."""
    tracker = MemoryTracker()

    report = a_cycle(tracker, noisy_then_learnable())

    assert report.promoted
    assert tracker.store.version_of("champion") == report.version == "1"
    assert tracker.runs[0].status == "FINISHED"
    assert tracker.store.load("1").trained_until_seconds < report.held_out_from_seconds


def test_the_same_data_again_keeps_the_champion() -> None:
    """An equal challenger is registered, for the record, and does not serve."""
    tracker = MemoryTracker()
    a_cycle(tracker, noisy_then_learnable())

    report = a_cycle(tracker, noisy_then_learnable())

    assert (report.version, report.promoted, report.champion_before) == ("2", False, "1")
    assert tracker.store.aliases == {"champion": "1"}
    assert report.fingerprint == tracker.runs[0].records[0].tags["foresize.fingerprint"]


def test_a_better_challenger_takes_the_champions_place() -> None:
    """The champion served yesterday's same hour; the challenger knows the distribution."""
    tracker = MemoryTracker()
    panel = noisy_then_learnable()
    weak = a_cycle(tracker, panel, a_settings(forecasters=["seasonal_naive"])).bundle
    tracker.store.set_alias("champion", tracker.store.add(weak))

    report = a_cycle(tracker, panel)

    assert report.promoted
    assert any("gain" in reason for reason in report.verdict.reasons)
    assert tracker.store.aliases == {"champion": report.version, "champion-before": report.champion_before}
    assert not a_cycle(tracker, panel).promoted
    assert tracker.store.aliases == {"champion": report.version, "champion-before": report.champion_before}


def test_a_model_that_does_not_beat_the_baseline_is_not_promoted() -> None:
    """The baseline itself has no gain over itself; calibration alone must not make a champion by luck here."""
    tracker = MemoryTracker()
    flat = a_panel(np.full((2, a_fleet().steps), 2.5))

    report = a_cycle(tracker, flat)

    assert not report.promoted
    assert not tracker.store.aliases


def test_a_corrupt_champion_is_reported_and_counts_as_none() -> None:
    """Its version is named, the challenger is judged against the baseline, and the old version stays."""
    tracker = MemoryTracker()
    panel = noisy_then_learnable()
    store = BrokenStore(CorruptModel("arrays.npz does not match its checksum"))

    report = train(SETTINGS, MemorySource(panel), store, tracker, end_seconds=panel.end_seconds)

    assert report.champion_before == "7"
    assert report.verdict.champion is None
    assert any("version 7, cannot be read" in reason for reason in report.verdict.reasons)
    assert any("checksum" in finding.message for finding in report.findings)


def test_a_champion_on_another_grid_cannot_be_compared_and_says_so() -> None:
    """Its step is not the history's: judged against the baseline alone, with the reason."""
    tracker = MemoryTracker()
    panel = noisy_then_learnable()
    other = replace(a_cycle(tracker, panel).bundle, step_seconds=60, peaks=())
    tracker.store.set_alias("champion", tracker.store.add(other))

    report = a_cycle(tracker, panel)

    assert any("cannot be compared with" in reason for reason in report.verdict.reasons)


def test_a_silent_registry_stops_the_cycle_before_anything_is_fetched() -> None:
    """Hours of work must not end in 'cannot register'."""
    store = BrokenStore(RegistryUnavailable("no answer"), version=None)
    source = FailingSource(AssertionError("fetched"))

    with pytest.raises(TrackingUnavailable, match="no answer"):
        train(SETTINGS, source, store, MemoryTracker(), end_seconds=0)


@pytest.mark.parametrize(
    ("problem", "status"), [(KeyboardInterrupt(), "KILLED"), (SourceUnavailable("refused"), "FAILED")]
)
def test_an_unfinished_cycle_is_marked_and_registers_nothing(problem: BaseException, status: str) -> None:
    """Interrupted is killed, failed is failed; the registry is as it was, and the next cycle starts clean."""
    tracker = MemoryTracker()

    with pytest.raises(type(problem)):
        train(SETTINGS, FailingSource(problem), tracker.store, tracker, end_seconds=10**9)

    assert tracker.runs[0].status == status
    assert not tracker.store.bundles
    assert a_cycle(tracker, noisy_then_learnable()).version == "1"


def test_a_dry_run_leaves_no_trace() -> None:
    """It says what would happen."""
    panel, store = noisy_then_learnable(), MemoryBundleStore()

    report = train(SETTINGS, MemorySource(panel), store, None, end_seconds=panel.end_seconds)

    assert (report.version, report.run_id, report.promoted) == (None, "", False)
    assert report.verdict.promote
    assert not store.bundles
    assert any("dry run" in line for line in training_lines(report, "sqlite:///x.db"))


def test_an_alias_that_moved_meanwhile_is_left_alone() -> None:
    """Two cycles at once: the second compared with a champion that no longer serves, so it does not take over."""
    tracker = MemoryTracker()
    panel = noisy_then_learnable()
    rival = a_cycle(MemoryTracker(), panel).bundle

    class Meddling(MemorySource):
        def fetch(self, **asked: Any) -> UsagePanel:
            tracker.store.set_alias("champion", tracker.store.add(rival))
            return super().fetch(**asked)

    report = train(SETTINGS, Meddling(panel), tracker.store, tracker, end_seconds=panel.end_seconds)

    assert not report.promoted
    assert tracker.store.version_of("champion") == "1"
    assert any("another cycle has moved the alias" in finding.message for finding in report.findings)


def test_only_matching_workloads_are_trained_on() -> None:
    """And a pattern that matches none is an error with the nearest names, after the run was marked."""
    tracker = MemoryTracker()

    report = a_cycle(tracker, workloads="shop/Deployment/w*")

    assert {key.workload for key in report.bundle.series} == {f"shop/Deployment/w{n}" for n in range(4)}
    with pytest.raises(UnknownWorkload):
        a_cycle(tracker, workloads="shop/Deployment/x*")
    assert tracker.runs[-1].status == "FAILED"


def test_too_short_a_history_says_what_to_change() -> None:
    """Five hours cannot be fitted, calibrated and scored on separate parts."""
    with pytest.raises(NotEnoughHistory, match="--span"):
        a_cycle(MemoryTracker(), a_panel(daily_usage(days=0.2)))


def test_the_order_of_the_workloads_changes_nothing() -> None:
    """The same fingerprint and the same forecasts, whatever order the source lists series in."""
    panel = a_fleet()
    backwards = panel.select(range(len(panel.keys) - 1, -1, -1))

    first, second = (a_cycle(MemoryTracker(), each) for each in (panel, backwards))

    assert first.fingerprint == second.fingerprint
    a, b = (report.bundle.forecast(panel).forecast.values for report in (first, second))
    np.testing.assert_array_equal(a, b)


def test_the_record_holds_the_parameters_tables_and_plots() -> None:
    """Parameters under their names in foresize.yaml, the fingerprint as a tag, five plots as PNG."""
    tracker = MemoryTracker()

    report = a_cycle(tracker)

    run, record = tracker.runs[0], tracker.runs[0].records[0]
    assert run.parameters["training.forecasters"] == "decaying_histogram"
    assert run.parameters["forecast.horizon"] == "2h"
    assert record.tags["foresize.fingerprint"] == report.fingerprint
    assert set(record.tables) == {"series", "accuracy", "findings"}
    assert len(record.pictures) == 5
    assert all(picture.startswith(b"\x89PNG") for picture in record.pictures.values())
    assert len(record.metrics) < 200


def test_the_report_can_be_printed_and_parsed() -> None:
    """A table with a row per resource; JSON without NaN."""
    import json

    report = a_cycle(MemoryTracker())

    text = "\n".join(training_lines(report, "http://mlflow:5000"))
    parsed = json.loads(json.dumps(training_json(report), allow_nan=False))

    assert re.search(r"combination \d", text)
    assert "http://mlflow:5000" in text
    assert [(row["resource"], row["target"]) for row in parsed["resources"]] == [
        (resource, target) for target in ("step", "peak_1h", "peak_24h") for resource in ("cpu", "memory")
    ]
    assert parsed["promoted"] is report.promoted


def test_progress_is_told_step_by_step() -> None:
    """Each step begins at nothing and ends exactly once, complete."""
    told: list[tuple[str, int, int]] = []
    panel, tracker = a_fleet(), MemoryTracker()

    train(
        SETTINGS,
        MemorySource(panel),
        tracker.store,
        tracker,
        end_seconds=panel.end_seconds,
        told=lambda step, done, total: told.append((step, done, total)),
    )

    steps = list(dict.fromkeys(step for step, _, _ in told))
    assert steps[:6] == ["registry", "fetch", "prepare", "fit", "calibrate", "peaks"]
    assert steps[6:] == ["score", "judge", "track", "register"]
    assert [step for step, done, total in told if done == total] == steps


def test_training_on_some_workloads_leaves_the_champion_of_the_others() -> None:
    """A better model of a few workloads is registered, but does not replace one that serves more than it knows."""
    panel, tracker = a_fleet(), MemoryTracker()
    end = panel.end_seconds
    poor = a_settings(forecasters=["seasonal_naive"])
    whole = train(poor, MemorySource(panel), tracker.store, tracker, end_seconds=end)
    tracker.store.set_alias("champion", str(whole.version))
    learned = a_settings(forecasters=["lightgbm_quantiles"])

    part = train(learned, MemorySource(panel), tracker.store, tracker, end_seconds=end, workloads="shop/Deployment/*")

    assert part.verdict.champion is not None
    assert part.verdict.challenger.loss < 0.98 * part.verdict.champion.loss
    assert not part.promoted
    assert "were left out" in part.verdict.reasons[-1]
    assert tracker.store.version_of("champion") == whole.version
