"""`foresize backtest`: one row per level and step for every cutoff and usable series, or a clear error."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from pipelines.cli import backtest
from predictor.usage.panel import UsagePanel
from predictor.usage.table import table_from_panel
from tests.pipelines.test_train_cli import a_loader
from tests.support.histories import STEP_SECONDS
from tests.support.panels import DAY_STEPS, a_fleet

COLUMNS = ["workload", "resource", "target", "cutoff", "timestamp", "level", "value"]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve days of a small fleet as Parquet."""
    return written(a_fleet(), tmp_path_factory.mktemp("history") / "usage.parquet")


def written(panel: UsagePanel, path: Path) -> Path:
    table_from_panel(panel).to_parquet(path)
    return path


def run(history: Path, out: Path, *arguments: str | Path) -> Result:
    quick = ["--step", "15m", "--horizon", "2h", "--held-out", "2d", "--forecasters", "decaying_histogram"]
    return CliRunner().invoke(
        backtest,
        ["--history", str(history), "--out", str(out), *quick, *map(str, arguments)],
        obj=a_loader(out.parent),
    )


def seconds(column: "pd.Series[pd.Timestamp]") -> "pd.Series[int]":
    return column.astype("datetime64[s, UTC]").astype("int64")


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_every_usable_series_has_one_row_per_level_and_step_for_every_cutoff(
    history: Path, tmp_path: Path, suffix: str
) -> None:
    """Three cutoffs, two levels, eight steps; the steps begin right after the cutoff; no value is missing."""
    out = tmp_path / f"forecasts{suffix}"

    done = run(history, out, "--cutoffs", "3", "--levels", "0.5,0.9")

    assert done.exit_code == 0, done.output
    table = pd.read_parquet(out) if suffix == ".parquet" else pd.read_csv(out, parse_dates=["cutoff", "timestamp"])
    assert list(table.columns) == COLUMNS
    assert not table.duplicated(COLUMNS[:-1]).any()
    counts = table.groupby(["workload", "resource", "cutoff"], observed=True).size()
    assert set(counts) == {2 * 8}
    # All 11 series but the one born on the last day, which the first cutoffs cannot know.
    old = counts[counts.index.get_level_values("workload") != "new/Job/young"]
    assert len(old) == 10 * 3
    assert np.isfinite(table["value"]).all()
    ahead = (seconds(table["timestamp"]) - seconds(table["cutoff"])) // STEP_SECONDS
    assert set(ahead) == set(range(1, 9))


def test_sums_are_forecast_as_series_of_their_own(history: Path, tmp_path: Path) -> None:
    """A series for each namespace and resource, its peaks with it; sums by pools that nobody knows are refused."""
    out = tmp_path / "f.parquet"

    done = run(history, out, "--cutoffs", "2", "--sum", "namespace", "--peak", "1h")
    refused = run(history, out, "--sum", "node_pool")

    assert done.exit_code == 0, done.output
    table = pd.read_parquet(out)
    namespaces = {key.namespace for key in a_fleet().keys}
    assert set(table["workload"]) <= {f"{name}/Namespace/sum" for name in namespaces}
    assert set(table["target"]) == {"step", "peak_1h"}
    assert refused.exit_code == 2
    assert "no workload's node pool is known" in refused.output


def test_cutoffs_can_be_named(history: Path, tmp_path: Path) -> None:
    """Times in a file, with or without a zone; comments and empty lines are skipped."""
    panel, out = a_fleet(), tmp_path / "f.parquet"
    wanted = [panel.end_seconds - n * DAY_STEPS * STEP_SECONDS for n in (2, 1)]
    times = [datetime.fromtimestamp(second, tz=UTC) for second in wanted]
    file = tmp_path / "cutoffs.txt"
    file.write_text(f"# two days\n{times[0]:%Y-%m-%dT%H:%M:%SZ}\n\n{times[1]:%Y-%m-%d %H:%M}\n")

    done = run(history, out, "--cutoffs", file)

    assert done.exit_code == 0, done.output
    assert sorted(set(seconds(pd.read_parquet(out)["cutoff"]))) == wanted


def test_the_future_does_not_change_a_forecast(tmp_path: Path) -> None:
    """Backtests are honest: what comes after a cutoff is not in its forecast."""
    panel = a_fleet()
    cutoff = panel.end_seconds - DAY_STEPS * STEP_SECONDS
    file = tmp_path / "cutoffs.txt"
    file.write_text(datetime.fromtimestamp(cutoff, tz=UTC).isoformat())
    panel.usage[:, panel.times > cutoff] *= 5
    run(written(a_fleet(), tmp_path / "a.parquet"), tmp_path / "fa.parquet", "--cutoffs", file)
    run(written(panel, tmp_path / "b.parquet"), tmp_path / "fb.parquet", "--cutoffs", file)

    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "fa.parquet"), pd.read_parquet(tmp_path / "fb.parquet"))


def test_the_output_says_how_good_and_how_often_trained(history: Path, tmp_path: Path) -> None:
    """Accuracy against the baseline per resource, and that nothing was retrained between cutoffs."""
    done = run(history, tmp_path / "f.parquet", "--cutoffs", "2", "--workloads", "shop/*")

    assert "not retrained between cutoffs" in done.stdout
    assert "seasonal_naive's" in done.stdout
    assert any(line.startswith("memory") for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cutoffs", "0"], "at least one"),
        (["--cutoffs", "many"], "neither a number nor a file"),
        (["--levels", "0.5;0.9"], "not a list of numbers"),
        (["--levels", "1.5"], "less than 1"),
        (["--step", "7m"], "--step"),
        (["--horizon", "30d"], "--horizon"),
        (["--workloads", "nobody/*"], "unknown workload"),
    ],
)
def test_bad_options_end_with_2_and_leave_the_old_file(
    history: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    """The error says what is wrong; a file from an earlier run stays as it was, and nothing lies beside it."""
    out = tmp_path / "f.parquet"
    out.write_text("older")

    done = run(history, out, *options)

    assert done.exit_code == 2, done.output
    assert message in done.output
    assert out.read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == ["f.parquet"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2026-01-15T00:07:00Z", "not on the grid"),
        ("2031-01-15T00:00:00Z", "lies outside the history"),
        ("yesterday", "not an ISO 8601 time"),
        ("", "holds no time"),
    ],
)
def test_cutoffs_that_cannot_be_used_are_named(history: Path, tmp_path: Path, line: str, message: str) -> None:
    """Each with what is wrong about it."""
    file = tmp_path / "cutoffs.txt"
    file.write_text(line)

    done = run(history, tmp_path / "f.parquet", "--cutoffs", file)

    assert done.exit_code == 2, done.output
    assert message in done.output


def test_a_name_that_is_neither_parquet_nor_csv_is_refused_before_any_work(history: Path, tmp_path: Path) -> None:
    """And so is a folder that is not there."""
    wrong = run(history, tmp_path / "f.xlsx")
    nowhere = run(history, tmp_path / "missing" / "f.csv")

    assert (wrong.exit_code, nowhere.exit_code) == (2, 2)
    assert "must end in .parquet or .csv" in wrong.output
    assert "cannot be written" in nowhere.output
    assert "read:" not in wrong.output + nowhere.output
