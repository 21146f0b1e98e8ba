"""`foresize forecast`: what it prints, and what it says to a mistake."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from foresize.settings import load_settings
from predictor.cli import forecast
from predictor.errors import ModelNotFound, SourceUnavailable, UnknownWorkload
from predictor.registry.kept import KeptModel
from predictor.registry.last_good import LastGoodStore
from predictor.settings import PredictorSettings
from predictor.usage.table import table_from_panel
from tests.support.http_answers import unused_url
from tests.support.scaling import CART, DAYS, a_panel, noon_rush
from tests.support.serving import START_SECONDS, a_store

DB = "shop/StatefulSet/db"
USAGE = {CART: noon_rush(2.0, 5.6), DB: noon_rush(1.0, 1.0)}
LAST_HOUR = "2025-10-18T23:55:00Z"


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """The usage table of two workloads, until midnight."""
    path = tmp_path / "usage.csv"
    table_from_panel(a_panel(USAGE)).to_csv(path, index=False)
    return path


def invoke(folder: Path, *arguments: str) -> Result:
    """The command, with the state folder in the test's own."""

    def settings(overrides: Mapping[tuple[str, ...], Any]) -> PredictorSettings:
        given = {key: value for key, value in overrides.items() if value is not None}
        return load_settings(None, {}, {("state_folder",): str(folder / "state"), **given})

    return CliRunner().invoke(forecast, arguments, obj=settings)


def with_a_model(folder: Path) -> None:
    """A model that an earlier run has left on disk."""
    store = LastGoodStore(
        a_store(a_panel(USAGE), START_SECONDS), KeptModel(folder / "state" / "last_good" / "foresize")
    )
    store.load("1")


def test_a_table_a_person_can_read(tmp_path: Path, history: Path) -> None:
    """Which workload in which unit, by what, then a line per step with a column per level."""
    with_a_model(tmp_path)

    result = invoke(tmp_path, "shop/cart", "--history", str(history), "--horizon", "30m", "--level", "0.5")

    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0] == f"{CART} cpu, in cores"
    assert lines[1] == "  by seasonal_naive of model version 1 (last good copy)"
    assert [line.split() for line in lines[5:]][:3] == [
        ["UTC", "P50"],
        ["2025-10-19", "00:00", "2"],
        ["2025-10-19", "00:05", "2"],
    ]
    assert "there is no foresize@champion" in result.stderr


def test_csv_is_the_long_table(tmp_path: Path, history: Path) -> None:
    """One row per level and step in the columns that every forecast file has."""
    arguments = ("--horizon", "13h", "--level", "0.99", "--level", "0.5", "--out", "csv")

    result = invoke(tmp_path, "shop/cart", "--history", str(history), *arguments)

    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert list(rows[0]) == ["workload", "resource", "target", "cutoff", "timestamp", "level", "value"]
    assert len(rows) == 13 * 12 * 2
    assert {row["cutoff"] for row in rows} == {LAST_HOUR}
    assert {row["level"] for row in rows} == {"0.5", "0.99"}
    rush = [row for row in rows if row["timestamp"] == "2025-10-19T12:10:00Z"]
    assert [float(row["value"]) for row in rush] == pytest.approx([5.6, 5.6])


def test_json_says_where_the_model_came_from(tmp_path: Path, history: Path) -> None:
    """Without any model the baseline answers and the problem is in the answer."""
    content = json.loads(invoke(tmp_path, CART, "--history", str(history), "--out", "json").stdout)

    assert (content["model_origin"], content["forecaster"], content["unit"]) == ("none", "seasonal_naive", "cores")
    assert "train one with `foresize train`" in content["model_problem"]
    assert {len(values) for values in content["quantiles"].values()} == {48}
    assert START_SECONDS + DAYS * 86_400 == 1_760_832_000
    assert content["timestamps"][0] == "2025-10-19T00:00:00Z"


def test_a_workload_that_was_left_out_is_not_called_unknown(tmp_path: Path) -> None:
    """What is said is what was found in its samples, whether or not there are other workloads to name instead."""
    usage = {CART: noon_rush(2.0, 5.6), DB: noon_rush(2e6, 5e6)}
    for name, table in (("some", usage), ("all", {DB: usage[DB]})):
        path = tmp_path / f"{name}.csv"
        table_from_panel(a_panel(table)).to_csv(path, index=False)

        problem = invoke(tmp_path, "shop/statefulset/db", "--history", str(path)).exception

        assert isinstance(problem, UnknownWorkload)
        assert f"{DB} cpu is left out: median 2e+06 cannot be cpu in base units" in str(problem)
        assert "did you mean" not in str(problem)


def test_the_step_can_be_asked_for(tmp_path: Path, history: Path) -> None:
    """As the message to a history that is too coarse for the settings' step advises."""
    coarse = tmp_path / "coarse.csv"
    rows = list(csv.DictReader(history.read_text().splitlines()))
    kept = [row for row in rows if ":00:00" in row["timestamp"] or ":30:00" in row["timestamp"]]
    coarse.write_text("\n".join([",".join(kept[0]), *(",".join(row.values()) for row in kept)]))

    refused = invoke(tmp_path, "shop/cart", "--history", str(coarse)).exception
    result = invoke(tmp_path, "shop/cart", "--history", str(coarse), "--step", "1800s", "--out", "json")

    assert "use --step 1800s" in str(refused)
    assert json.loads(result.stdout)["timestamps"][:2] == ["2025-10-19T00:00:00Z", "2025-10-19T00:30:00Z"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("shop/card",), f"did you mean {CART}"),
        (("card",), f"did you mean {CART}"),
        (("shop/StatefulSet/cart",), f", {CART}?"),
        (("shop/cart", "--resource", "memory"), "no memory usage of any workload was observed"),
    ],
)
def test_an_unknown_workload_gets_the_nearest(
    tmp_path: Path, history: Path, arguments: tuple[str, ...], said: str
) -> None:
    """The error names what is known; the front door ends it with code 1."""
    result = invoke(tmp_path, *arguments, "--history", str(history))

    assert isinstance(result.exception, UnknownWorkload)
    assert said in str(result.exception)


def test_a_version_that_is_not_there_is_not_replaced(tmp_path: Path, history: Path) -> None:
    """Who asks for version 4 wants no other answer."""
    result = invoke(tmp_path, "shop/cart", "--history", str(history), "--model", "4")

    assert isinstance(result.exception, ModelNotFound)
    assert "version 4" in str(result.exception)


def test_too_little_history_is_no_forecast(tmp_path: Path) -> None:
    """Five samples: no number is made up, exit code 1."""
    path = tmp_path / "short.csv"
    table_from_panel(a_panel({CART: USAGE[CART][:5]})).to_csv(path, index=False)

    result = invoke(tmp_path, "shop/cart", "--history", str(path))

    assert result.exit_code == 1
    assert "no forecast for shop/cart cpu: too little history: 5 samples" in result.output


def test_a_prometheus_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The address and what happened."""
    result = invoke(tmp_path, "shop/cart", "--prometheus", unused_url())

    assert isinstance(result.exception, SourceUnavailable)
    assert "Connection refused" in str(result.exception)


@pytest.mark.parametrize("arguments", [("--level", "1.5"), ("--horizon", "soon"), ("--resource", "disk")])
def test_a_wrong_option_ends_with_code_2(tmp_path: Path, history: Path, arguments: tuple[str, ...]) -> None:
    """Named, with what is accepted."""
    result = invoke(tmp_path, "shop/cart", "--history", str(history), *arguments)

    assert result.exit_code == click.UsageError.exit_code == 2
    assert arguments[1] in result.output
