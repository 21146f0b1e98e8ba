"""Training cycles in a real MLflow store: what a run holds, what is registered, and what an interruption leaves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest

from foresize.checks.machine import mlflow_checks
from foresize.settings import load_settings
from models.forecast import FloatArray
from pipelines.errors import TrackingUnavailable
from pipelines.flows.train import TrainingReport, train
from pipelines.tracking.mlflow import MlflowTracker
from predictor.errors import ModelNotFound
from predictor.registry.mlflow import MlflowBundleStore, prepare_mlflow
from predictor.sources.files import MemorySource
from predictor.usage.table import table_from_panel
from tests.support.mlflow_server import free_port
from tests.support.panels import DAY_STEPS, a_fleet, a_panel, a_settings

SETTINGS = a_settings(forecasters=["decaying_histogram"])
SLOW_TRAINING = dedent(
    """
    import sys, time
    from pipelines.cli.common import stopped_by_sigterm
    from pipelines.flows.train import train
    from predictor.sources.files import MemorySource
    from tests.pipelines.test_train_mlflow import SETTINGS, a_store, a_tracker
    from tests.support.panels import a_fleet

    class Slow(MemorySource):
        def fetch(self, **asked):
            print("fetching", flush=True)
            time.sleep(60)

    panel = a_fleet()
    try:
        with stopped_by_sigterm():
            train(SETTINGS, Slow(panel), a_store(sys.argv[1]), a_tracker(sys.argv[1]), end_seconds=panel.end_seconds)
    except KeyboardInterrupt:
        sys.exit(130)
    """
)


def a_tracker(uri: str) -> MlflowTracker:
    return MlflowTracker(uri, "foresize", "foresize", "champion")


def a_store(uri: str) -> MlflowBundleStore:
    return MlflowBundleStore(uri, "foresize")


def a_client(uri: str) -> Any:
    prepare_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def a_cycle(uri: str) -> TrainingReport:
    panel = a_fleet()
    return train(SETTINGS, MemorySource(panel), a_store(uri), a_tracker(uri), end_seconds=panel.end_seconds)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An SQLite store in a folder that is not there yet."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'state' / 'mlflow.db'}"


@pytest.fixture(scope="module")
def report(uri: str) -> TrainingReport:
    """The first cycle in the store."""
    return a_cycle(uri)


def test_a_cycle_is_one_finished_run(uri: str, report: TrainingReport) -> None:
    """Parameters, fewer than 200 metrics, the fingerprint as a tag, tables and plots as artifacts."""
    client = a_client(uri)
    run = client.get_run(report.run_id)

    names = {item.path for item in client.list_artifacts(report.run_id)}
    assert run.info.status == "FINISHED"
    assert run.data.params["training.forecasters"] == "decaying_histogram"
    assert 10 < len(run.data.metrics) < 200
    assert run.data.tags["foresize.fingerprint"] == report.fingerprint
    assert {"series.parquet", "accuracy.parquet", "findings.parquet", "findings.txt"} <= names
    assert {"coverage_by_level.png", "pinball_against_baseline.png", "forecast_worst.png"} <= names


def test_the_scores_of_every_workload_are_one_table(uri: str, report: TrainingReport, tmp_path: Path) -> None:
    """Read back, it has a row for each series and level."""
    path = a_client(uri).download_artifacts(report.run_id, "series.parquet", str(tmp_path))

    table = pd.read_parquet(path)

    assert len(table) == len(a_fleet().keys) * len(report.levels)


def test_the_version_bears_its_fingerprint_and_the_alias_follows_the_verdict(uri: str, report: TrainingReport) -> None:
    """Tags are on the version, and the alias is where the verdict put it."""
    version = a_client(uri).get_model_version("foresize", report.version)

    assert version.tags["foresize.fingerprint"] == report.fingerprint
    assert version.tags["foresize.trained_until"].startswith("2026-01-14")
    assert version.run_id == report.run_id
    assert list(version.aliases) == (["champion"] if report.promoted else [])


def test_the_artifacts_lie_beside_the_store(uri: str, report: TrainingReport) -> None:
    """Not under whatever directory the command was started in."""
    place = a_client(uri).get_run(report.run_id).info.artifact_uri

    assert place.startswith(f"file://{Path(uri.removeprefix('sqlite:///')).parent}")
    assert not Path("mlruns").exists()


def test_the_registered_model_forecasts_through_pyfunc(
    uri: str, report: TrainingReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaded by MLflow alone, with pickles forbidden: usage rows in, the same forecasts as the bundle's out."""
    prepare_mlflow()
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    import mlflow

    panel = a_fleet()
    mlflow.set_tracking_uri(uri)
    try:
        model = mlflow.pyfunc.load_model(f"models:/foresize/{report.version}")
        rows = model.predict(table_from_panel(panel))
    finally:
        mlflow.set_tracking_uri("")

    assert list(rows.columns) == ["workload", "resource", "target", "cutoff", "timestamp", "level", "value"]
    expected = report.bundle.forecast(panel)
    key = panel.keys[0]
    mine = rows[(rows["workload"] == key.workload) & (rows["resource"] == "cpu") & (rows["level"] == 0.5)]
    np.testing.assert_allclose(mine["value"], expected.forecast.values[0, 0])
    assert model.metadata.signature.inputs.input_names() == ["workload", "resource", "timestamp", "usage"]
    assert model.input_example is not None


def test_the_store_loads_the_bundle_bit_identically(uri: str, report: TrainingReport) -> None:
    """What the controller loads is what was judged."""
    assert report.version is not None
    loaded = a_store(uri).load(report.version)

    panel = a_fleet()
    np.testing.assert_array_equal(loaded.forecast(panel).forecast.values, report.bundle.forecast(panel).forecast.values)


def test_the_doctor_fails_for_a_model_that_is_damaged(uri: str, report: TrainingReport) -> None:
    """It is there and cannot be loaded: nothing but a new training mends that."""
    client = a_client(uri)
    client.set_registered_model_alias("foresize", "harmed", report.version)
    place = str(client.get_model_version_download_uri("foresize", str(report.version)))
    (arrays,) = Path(urlsplit(place).path).rglob("arrays.npz")
    whole = arrays.read_bytes()
    arrays.write_bytes(whole[: len(whole) // 2])
    try:
        checks = list(
            mlflow_checks(load_settings(None, {}, {("registry", "tracking_uri"): uri, ("registry", "alias"): "harmed"}))
        )
    finally:
        arrays.write_bytes(whole)
        client.delete_registered_model_alias("foresize", "harmed")

    assert [check.status for check in checks] == ["OK", "FAIL"], checks
    assert "foresize train" in checks[-1].advice


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_cycle_is_marked_killed_and_the_next_starts_clean(
    uri: str, report: TrainingReport, how: signal.Signals
) -> None:
    """Ctrl-C, or a pod that is told to stop, in the middle: exit 130, the run killed, no version registered."""
    client = a_client(uri)
    versions = len(client.search_model_versions("name = 'foresize'"))
    # A shell's background job ignores Ctrl-C, and so would all that it starts.
    heeding = ["env", "--default-signal=INT"]
    with subprocess.Popen(
        [*heeding, sys.executable, "-c", SLOW_TRAINING, uri],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "fetching"
        os.kill(process.pid, how)
        code = process.wait(timeout=30)

    experiment = client.get_experiment_by_name("foresize").experiment_id
    newest = client.search_runs([experiment], order_by=["attributes.start_time DESC"], max_results=1)[0]
    assert code == 130
    assert newest.info.status == "KILLED"
    assert newest.info.run_id != report.run_id
    assert len(client.search_model_versions("name = 'foresize'")) == versions


def test_a_cycle_after_a_killed_one_registers_as_ever(uri: str, report: TrainingReport) -> None:
    """The same data once more: a new version, the champion stays."""
    again = a_cycle(uri)

    assert again.version is not None and report.version is not None
    assert int(again.version) > int(report.version)
    assert again.fingerprint == report.fingerprint
    assert not again.promoted


def test_two_promotions_leave_the_version_before_under_its_alias(tmp_path: Path) -> None:
    """The first champion has none before it; a challenger that is not promoted moves neither alias."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    rng = np.random.default_rng(3)
    steps = a_fleet().steps
    # Its distribution is soon known; then a rhythm, which the first model has not seen, comes to it.
    noise = 5 + rng.exponential(1.0, (3, steps))
    rhythm = noise + 20 * (1 + np.sin(2 * np.pi * np.arange(steps) / DAY_STEPS))

    def a_cycle_on(usage: FloatArray, *forecasters: str) -> TrainingReport:
        panel = a_panel(usage)
        settings = a_settings(forecasters=list(forecasters), peaks=())
        return train(settings, MemorySource(panel), a_store(uri), a_tracker(uri), end_seconds=panel.end_seconds)

    def aliases() -> dict[str, str]:
        found = a_client(uri).get_registered_model("foresize").aliases
        return {name: str(version) for name, version in found.items()}

    first = a_cycle_on(noise, "trailing_24h")
    assert first.promoted
    assert aliases() == {"champion": "1"}

    second = a_cycle_on(rhythm, "hour_of_day")
    assert second.promoted
    assert aliases() == {"champion": "2", "champion-before": "1"}

    third = a_cycle_on(rhythm, "hour_of_day")
    assert not third.promoted
    assert aliases() == {"champion": "2", "champion-before": "1"}


def test_a_version_registered_by_a_failed_run_is_taken_back(uri: str, report: TrainingReport) -> None:
    """Should the cycle end between registering and the end, no half-told version stays behind."""
    client = a_client(uri)
    before = {v.version for v in client.search_model_versions("name = 'foresize'")}

    with pytest.raises(KeyboardInterrupt), a_tracker(uri).run({}) as run:
        source = client.get_model_version("foresize", report.version).source
        client.create_model_version("foresize", source, run.run_id)
        raise KeyboardInterrupt

    assert {v.version for v in client.search_model_versions("name = 'foresize'")} == before


def test_a_server_that_is_down_is_told_at_once() -> None:
    """Within seconds, not after minutes of retries, and before anything is fetched."""
    uri = f"http://127.0.0.1:{free_port()}"
    panel = a_fleet()
    started = time.monotonic()

    with pytest.raises(TrackingUnavailable, match=r"To go on, start it, or mend registry\.tracking_uri"):
        train(SETTINGS, MemorySource(panel), a_store(uri), a_tracker(uri), end_seconds=panel.end_seconds)

    assert time.monotonic() - started < 10


def test_asking_a_store_that_is_not_there_makes_none(tmp_path: Path) -> None:
    """Looking for a model must not leave an empty database behind."""
    file = tmp_path / "mlflow.db"

    with pytest.raises(ModelNotFound, match="foresize train"):
        a_store(f"sqlite:///{file}").version_of("champion")

    assert not list(tmp_path.iterdir())


def test_two_first_connections_at_once_both_succeed(tmp_path: Path) -> None:
    """MLflow's schema migration does not survive a race, so foresize makes them queue."""
    code = dedent(
        """
        import sys
        from tests.pipelines.test_train_mlflow import a_tracker
        with a_tracker(sys.argv[1]).run({"a": "b"}) as run:
            print(run.run_id)
        """
    )
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path / 'mlflow.db'}"]
    both = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        for _ in range(2)
    ]

    ended = [(process.communicate(timeout=60), process.returncode) for process in both]

    assert [code for _, code in ended] == [0, 0], ended
    assert len({out.strip() for (out, _), _ in ended}) == 2
