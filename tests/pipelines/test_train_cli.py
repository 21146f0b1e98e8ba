"""`foresize train`: what it prints, what it writes, and how it ends."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from foresize.settings import load_settings
from pipelines.cli import train
from pipelines.settings import Settings
from pipelines.wiring import queries_in
from predictor.usage.panel import Resource, SeriesKey
from predictor.usage.table import table_from_panel
from tests.support.mlflow_server import free_port
from tests.support.panels import a_fleet


def a_loader(folder: Path) -> Any:
    """What the front door hands to every command."""

    def load(overrides: Mapping[tuple[str, ...], Any]) -> Settings:
        given = {path: value for path, value in overrides.items() if value is not None}
        return load_settings(None, {}, {("state_folder",): folder} | given)

    return load


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve days of a small fleet as Parquet."""
    path = tmp_path_factory.mktemp("history") / "usage.parquet"
    table_from_panel(a_fleet()).to_parquet(path)
    return path


def run(folder: Path, *arguments: str | Path) -> Result:
    quick = ["--step", "15m", "--horizon", "2h", "--held-out", "2d", "--forecasters", "decaying_histogram"]
    return CliRunner().invoke(train, [*quick, *map(str, arguments)], obj=a_loader(folder))


def test_training_on_a_file_prints_the_table_the_verdict_and_where_mlflow_is(history: Path, tmp_path: Path) -> None:
    """Everything under the state folder; the report as JSON too."""
    done = run(tmp_path, "--history", history, "--json", tmp_path / "report.json")

    report = json.loads((tmp_path / "report.json").read_text())
    assert done.exit_code == 0, done.output
    assert re.search(r"combination \d", done.stdout)
    assert "cold" in done.stdout
    assert f"mlflow ui --backend-store-uri sqlite:///{tmp_path / 'mlflow.db'}" in done.stdout
    assert report["version"] == "1"
    assert "fetch: " in done.stderr
    assert "fetch: " not in done.stdout


def test_a_dry_run_makes_no_store(history: Path, tmp_path: Path) -> None:
    """Nothing is written at all."""
    done = run(tmp_path, "--history", history, "--dry-run")

    assert done.exit_code == 0, done.output
    assert "dry run" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workloads", "shop/Deployment/x*"], "did you mean"),
        (["--levels", "0.9,half"], "not a list of numbers"),
        (["--levels", "0.9,0.5"], "levels must ascend"),
        (["--span", "21"], "is not a duration"),
        (["--horizon", "7d"], "--horizon"),
        (["--forecasters", "prophet"], "seasonal_naive"),
        (["--prometheus", "http://prometheus:9090"], "exclude each other"),
    ],
)
def test_bad_input_names_itself_and_ends_with_2(
    history: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    """Each mistake says what is accepted, without a stack trace."""
    done = run(tmp_path, "--history", history, "--dry-run", *options)

    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output


def test_a_file_that_is_no_usage_table_ends_with_2(tmp_path: Path) -> None:
    """It names the columns that are needed."""
    path = tmp_path / "wrong.csv"
    path.write_text("a,b\n1,2\n")

    done = run(tmp_path / "state", "--history", path, "--dry-run")

    assert done.exit_code == 2
    assert "workload, resource, timestamp, usage" in done.output


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_done(history: Path, tmp_path: Path) -> None:
    """Nothing is registered for it, and the history is not written over."""
    before = history.read_bytes()

    nowhere = run(tmp_path, "--history", history, "--json", tmp_path / "missing" / "report.json")
    itself = run(tmp_path, "--history", history, "--json", history)

    assert (nowhere.exit_code, itself.exit_code) == (2, 2)
    assert "there is no folder" in nowhere.output
    assert "--json and --history are the same file" in itself.output
    assert history.read_bytes() == before
    assert not list(tmp_path.iterdir())


def test_a_tracking_server_that_is_down_fails_before_the_history_is_read(history: Path, tmp_path: Path) -> None:
    """The error is one that the front door prints and ends with 1 for."""
    done = run(tmp_path, "--history", history, "--tracking-uri", f"http://127.0.0.1:{free_port()}")

    assert done.exit_code == 1
    assert "registry.tracking_uri" in str(done.exception)
    assert "fetch" not in done.stderr


def test_help_shows_examples() -> None:
    """One line each, as they would be typed."""
    done = CliRunner().invoke(train, ["--help"])

    assert "foresize train --prometheus http://prometheus:9090\n" in done.output


OBJECT = """
kind: PredictiveAutoscaler
metadata: {name: mailer, namespace: shop}
spec:
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: mailer}
  horizontal: {maxReplicas: 9, metric: {query: sum(jobs)}, target: {averageValue: 30}}
"""


def test_queries_are_read_from_manifests_and_from_what_kubectl_prints(tmp_path: Path) -> None:
    """Several documents, a list, a folder; other kinds and objects without a query are passed over."""
    plain = OBJECT.replace("mailer", "cart").replace("query: sum(jobs)", "resource: cpu")
    printed = {"kind": "List", "items": [yaml.safe_load(OBJECT.replace("mailer", "biller"))]}
    (tmp_path / "a.yaml").write_text("---".join((OBJECT, plain, "kind: Service\n")))
    (tmp_path / "b.json").write_text(json.dumps(printed))

    read = queries_in(tmp_path)

    assert read == {SeriesKey(f"shop/Deployment/{name}", Resource.CUSTOM): "sum(jobs)" for name in ("mailer", "biller")}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("kind: Service", "holds no PredictiveAutoscaler"),
        ("kind: [", "cannot be read as YAML"),
        (OBJECT.replace(", namespace: shop", ""), "without metadata.namespace"),
        (OBJECT.replace("target: {averageValue: 30}", ""), "shop/mailer: spec cannot be followed"),
    ],
)
def test_objects_that_cannot_be_trained_on_end_with_exit_code_2(tmp_path: Path, text: str, why: str) -> None:
    """The file and what is wrong in it are named."""
    (tmp_path / "objects.yaml").write_text(text)
    done = run(tmp_path, "--autoscalers", tmp_path / "objects.yaml")

    assert (done.exit_code, why in done.stderr, "objects.yaml" in done.stderr) == (2, True, True), done.output


def test_objects_are_no_use_beside_a_history(history: Path, tmp_path: Path) -> None:
    """A file cannot be asked; it holds what queries said as a resource of its own."""
    done = run(tmp_path, "--history", history, "--autoscalers", tmp_path)

    assert done.exit_code == 2
    assert "--autoscalers needs Prometheus" in done.stderr


def test_a_history_may_hold_what_queries_said(tmp_path: Path) -> None:
    """It is fitted, judged and registered like any other resource."""
    fleet = a_fleet()
    keys = tuple(SeriesKey(key.workload, Resource.CUSTOM) for key in fleet.keys if key.resource is Resource.CPU)
    panel = replace(fleet.select(fleet.rows(Resource.CPU)), keys=keys)
    table_from_panel(panel).to_parquet(tmp_path / "usage.parquet")

    done = run(tmp_path, "--history", tmp_path / "usage.parquet")

    assert done.exit_code == 0, done.output
    assert "custom" in done.stdout
