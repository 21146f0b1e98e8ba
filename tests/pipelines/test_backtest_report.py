"""The figures of a backtest, beside a slow and obvious count of the rows of its own file."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result

from tests.pipelines.test_backtest_cli import run, written
from tests.support.panels import a_fleet

LEVELS = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Made:
    """A backtest of the small fleet, with all that it wrote."""

    result: Result
    json: dict[str, Any]
    html: str
    rows: list[dict[str, Any]]
    """The forecasts of warm series for which there was a sample, with it."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("backtest")
    history = written(a_fleet(), folder / "usage.parquet")
    out, report, figures = folder / "f.parquet", folder / "f.html", folder / "f.json"
    levels = ",".join(map(str, LEVELS))
    asked = ("--cutoffs", "5", "--levels", levels, "--peak", "1h")
    result = run(history, out, *asked, "--report", report, "--json", figures)
    assert result.exit_code == 0, result.output
    values = json.loads(figures.read_text())
    cold = {(each["workload"], each["resource"]) for each in values["series"] if each["is_cold"]}
    usage = pd.read_parquet(history).dropna(subset=["usage"])
    known: dict[Any, Any] = dict(
        zip(zip(usage["workload"], usage["resource"], usage["timestamp"], strict=True), usage["usage"], strict=True)
    )
    table = pd.read_parquet(out)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False)]
    scored = [row | {"usage": happened(known, row)} for row in rows if (row["workload"], row["resource"]) not in cold]
    return Made(result, values, report.read_text(), [row for row in scored if row["usage"] is not None])


def happened(known: dict[Any, Any], row: dict[str, Any]) -> float | None:
    """The sample of a row's step; of a peak the highest of the hour that ends with it, if half of them are known."""
    steps = 1 if row["target"] == "step" else 4
    times = [row["timestamp"] - back * pd.Timedelta(minutes=15) for back in range(steps)]
    samples = [known[key] for when in times if (key := (row["workload"], row["resource"], when)) in known]
    return max(samples) if 2 * len(samples) >= steps else None


def of(row: dict[str, Any], figure: dict[str, Any]) -> bool:
    """Whether a figure speaks of a row."""
    return bool(row["resource"] == figure["resource"] and row["target"] == figure["target"])


def pinball(row: dict[str, Any]) -> float:
    miss, level = float(row["usage"] - row["value"]), float(row["level"])
    return level * miss if miss >= 0 else (level - 1) * miss


def foresize_rows(made: Made) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each accuracy of foresize in the JSON, with the rows of the file that it is about."""
    for figure in made.json["accuracy"]:
        if figure["method"] != "foresize":
            continue
        span = figure["span"]
        yield (
            figure,
            [
                row
                for row in made.rows
                if of(row, figure)
                and span["after_seconds"] < (row["timestamp"] - row["cutoff"]).total_seconds() <= span["until_seconds"]
            ],
        )


def test_losses_are_those_that_the_rows_of_the_file_add_up_to(made: Made) -> None:
    """Pinball loss and weighted quantile loss, pooled and with equal weight, for each part of the horizon."""
    seen = 0
    for figure, rows in foresize_rows(made):
        loss: dict[str, float] = defaultdict(float)
        usage: dict[str, float] = defaultdict(float)
        for row in rows:
            loss[row["workload"]] += pinball(row)
            usage[row["workload"]] += row["usage"] / len(LEVELS)
        own = [2 * loss[name] / len(LEVELS) / usage[name] for name in loss if usage[name] > 0]
        assert figure["points"] * len(LEVELS) == len(rows) > 0
        assert figure["pinball"] == pytest.approx(sum(loss.values()) / len(rows), rel=1e-6)
        pooled = 2 * sum(loss.values()) / len(LEVELS) / sum(usage.values())
        assert figure["quantile_loss"]["value"] == pytest.approx(pooled, rel=1e-6)
        assert figure["equal_quantile_loss"]["value"] == pytest.approx(sum(own) / len(own), rel=1e-6)
        seen += 1
    assert seen == 2 * (4 + 1)  # cpu and memory; up to 30 min, an hour, two, and all; the peak of an hour


def test_coverage_is_that_of_the_rows_of_the_file(made: Made) -> None:
    """Over everything, for each hour of day, and for each series."""
    checked = 0
    for each in made.json["coverage"]:
        rows = [row for row in made.rows if of(row, each)]
        if each["by"] == "hour of day":
            rows = [row for row in rows if row["timestamp"].hour == int(each["group"])]
        elif each["by"] != "all":
            continue
        for level, share in zip(LEVELS, each["coverage"], strict=True):
            covered = [row["usage"] <= row["value"] for row in rows if row["level"] == level]
            assert len(covered) == each["points"]
            assert share == (pytest.approx(sum(covered) / len(covered), rel=1e-6) if covered else None)
            checked += 1
    assert checked == 2 * 2 * 25 * len(LEVELS)


def test_the_worst_tenth_is_the_series_with_the_lowest_coverage(made: Made) -> None:
    """As counted from the rows: fewer than ten series, so it is one."""
    for each in made.json["coverage"]:
        if each["by"] != "worst tenth":
            continue
        for level, share in zip(LEVELS, each["coverage"], strict=True):
            covered: dict[str, list[bool]] = defaultdict(list)
            for row in made.rows:
                if of(row, each) and row["level"] == level:
                    covered[row["workload"]].append(row["usage"] <= row["value"])
            assert share == pytest.approx(min(sum(hits) / len(hits) for hits in covered.values()), rel=1e-6)


def test_ramps_and_volatility_split_the_same_points(made: Made) -> None:
    """Steady and ramp together, and all tenths together, are all points."""
    for resource in ("cpu", "memory"):
        points: dict[str, int] = defaultdict(int)
        for each in made.json["coverage"]:
            if (each["resource"], each["target"]) == (resource, "step"):
                points[each["by"]] += each["points"]
        assert points["ramp"] == points["volatility"] == points["hour of day"] == points["all"] > 0


def test_every_forecaster_is_beside_foresize_on_the_same_points(made: Made) -> None:
    """The baseline has a ratio of one; each interval holds its figure."""
    for resource in ("cpu", "memory"):
        whole = {
            each["method"]: each
            for each in made.json["accuracy"]
            if (each["resource"], each["target"]) == (resource, "peak_1h") and each["span"]["is_whole"]
        }
        assert set(whole) == {"foresize", "seasonal_naive", "decaying_histogram"}
        assert len({each["points"] for each in whole.values()}) == 1
        assert whole["seasonal_naive"]["ratio"] == {"value": 1.0, "low": 1.0, "high": 1.0}
        for each in whole.values():
            for name in ("ratio", "equal_ratio", "quantile_loss", "equal_quantile_loss"):
                assert each[name]["low"] - 1e-9 <= each[name]["value"] <= each[name]["high"] + 1e-9


def test_pooled_and_series_ratios_agree_with_the_losses(made: Made) -> None:
    """The pooled ratio is one loss ÷ the other; the equal one is the geometric mean of what the series list says."""
    whole = [e for e in made.json["accuracy"] if e["span"]["is_whole"] and e["target"] == "step"]
    accuracy = {(e["resource"], e["method"]): e for e in whole}
    for resource in ("cpu", "memory"):
        ours, theirs = accuracy[resource, "foresize"], accuracy[resource, "seasonal_naive"]
        series = [e for e in made.json["series"] if (e["resource"], e["target"]) == (resource, "step")]
        own = [e["ratio"] for e in series if not e["is_cold"] and e["ratio"]]
        assert ours["ratio"]["value"] == pytest.approx(ours["pinball"] / theirs["pinball"], rel=1e-6)
        assert ours["equal_ratio"]["value"] == pytest.approx(math.exp(sum(map(math.log, own)) / len(own)), rel=1e-6)


def test_the_page_says_what_matters_first(made: Made) -> None:
    """Loss, coverage and the worst series before the first section; then cadence, tables, plots, findings."""
    first, rest = made.html.split("<section>", 1)

    assert "cpu: " in first
    assert "memory peak_1h: " in first
    assert "the loss of seasonal_naive" in first
    assert "promises 90.0%" in first
    assert "not retrained between cutoffs" in rest
    for title in ("In short", "beside every forecaster", "can be trusted", "the worst series", "Findings"):
        assert title in rest
    assert rest.count("data:image/png;base64,") == 1 + 2 * 2 * 3
    assert "new/Job/young cpu: cold" in rest
    assert "first 30m" in rest
    assert 'href="' not in made.html


def test_the_terminal_shows_every_forecaster(made: Made) -> None:
    """With intervals, and where the report is."""
    lines = made.result.stdout.splitlines()

    assert any(line.startswith("decaying_histogram") and "[" in line for line in lines)
    assert any(line.startswith("report: ") for line in lines)


def test_a_report_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    """Exit code 2, and the older forecasts stay as they were."""
    history, out = written(a_fleet(days=3), tmp_path / "usage.parquet"), tmp_path / "f.parquet"
    out.write_text("older")

    for option in ("--report", "--json"):
        done = run(history, out, option, tmp_path / "missing" / "file")

        assert done.exit_code == 2, done.output
        assert "missing/file: cannot be written" in done.output
        assert "read:" not in done.output
        assert out.read_text() == "older"


def test_no_output_takes_the_place_of_an_input_or_of_another_output(tmp_path: Path) -> None:
    """However the same file is named; nothing is read, and the history is what it was."""
    history, out = written(a_fleet(days=3), tmp_path / "usage.parquet"), tmp_path / "f.parquet"
    before = history.read_bytes()
    times = tmp_path / "times.txt"
    times.write_text("2026-01-05")

    for options in (
        (history, history),
        (history, out, "--report", tmp_path / "." / "usage.parquet"),
        (history, out, "--json", out),
        (history, out, "--report", tmp_path / "r", "--json", tmp_path / "r"),
        (history, times, "--cutoffs", times),
    ):
        done = run(*options)

        assert done.exit_code == 2, done.output
        assert "are the same file" in done.output
        assert "read:" not in done.output
    assert history.read_bytes() == before


def test_a_peak_that_cannot_be_had_is_an_error_or_said(tmp_path: Path) -> None:
    """Shorter than a step it is none; for one that the history is too short for, the rest is done and that is said."""
    history, out = written(a_fleet(), tmp_path / "usage.parquet"), tmp_path / "f.parquet"

    short = run(history, out, "--peak", "3m")
    long = run(history, out, "--peak", "100d", "--cutoffs", "2", "--forecasters", "seasonal_naive,trailing_24h")

    assert short.exit_code == 2, short.output
    assert "a peak of 3m is shorter than a step" in short.output
    assert long.exit_code == 0, long.output
    assert "peak_2400h is not forecast: the history is too short" in long.output


def test_a_report_that_cannot_be_written_at_the_end_loses_nothing(tmp_path: Path) -> None:
    """The forecasts are there, and the same command only has to write the report."""
    history, out, report = written(a_fleet(), tmp_path / "usage.parquet"), tmp_path / "f.parquet", tmp_path / "f.html"
    blocker = tmp_path / "f.html.part"
    blocker.mkdir()

    failed = run(history, out, "--cutoffs", "2", "--report", report)
    blocker.rmdir()
    again = run(history, out, "--cutoffs", "2", "--report", report)

    assert failed.exit_code == 2, failed.output
    assert "cannot be written" in failed.output
    assert out.exists()
    assert again.exit_code == 0, again.output
    assert "2 of 2 cutoffs are done" in again.stderr
    assert report.exists()
    assert not (tmp_path / "f.parquet.partial").exists()
