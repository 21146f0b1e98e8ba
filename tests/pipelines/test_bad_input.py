"""Bad input through the commands: named in the report with what to do, everything else served, no stack trace."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from foresize.settings import load_settings
from models.forecast import FloatArray
from pipelines.cli import backtest, train
from pipelines.flows.backtest import backtest as run_backtest
from pipelines.tracking.partial_backtest import PartialBacktest
from predictor.usage.table import panel_from_table, table_from_panel
from tests.pipelines.test_train_cli import a_loader
from tests.support.histories import MONDAY, STEP_SECONDS, daily_usage
from tests.support.panels import DAY_STEPS, a_fleet, a_panel, a_settings

QUICK = ("--step", "15m", "--horizon", "2h", "--held-out", "2d", "--forecasters", "decaying_histogram,trailing_24h")
SERVED = {
    "jittered": "note: samples come at irregular times",
    "hourly": "warning: samples are 3600 s apart, the history's steps 900 s: those between hold no sample",
    "young": "note: cold: fewer than 12 samples to fit on; served by what its siblings, or the fleet, have shown",
    "spiky": "warning: 2 samples taken as no sample: up to 1e+12 where all others are at most",
    "negative": "warning: 3 negative or infinite samples taken as no sample",
    "twice": "warning: 4 duplicate timestamps, 4 with another value: averaged; is it local time in which an hour came",
    "shuffled": "note: rows were not in time order: sorted",
    "gappy": "note: a gap of 30.0 h without samples",
    "throttled": "note: at its limit in",
    "flat": "note: constant at 2",
}
"""What is said about a series of each kind that can be used."""
LEFT_OUT = {
    "mute": "broken: no sample that is a number; at least 4 are needed",
    "three": "broken: only 3 samples; at least 4 are needed",
    "milli": "broken: median 2.5e+05 cannot be cpu in base units (cores); left out: convert the column first",
}
"""And about one that cannot."""
THROUGHOUT = {"mute": np.nan, "milli": 250_000.0, "flat": 2.0}


def a_usage(kind: str, usage: FloatArray) -> FloatArray:
    """One series' samples, spoilt as its kind says."""
    spoilt = usage.copy()
    if kind == "young":
        spoilt[: -DAY_STEPS // 3] = np.nan
    elif kind == "spiky":
        spoilt[[300, 700]] = 1e12
    elif kind == "negative":
        spoilt[[10, 20, 30]] = [-1.0, -1e9, np.inf]
    elif kind == "gappy":
        spoilt[400 : 400 + 5 * DAY_STEPS // 4] = np.nan
    elif kind == "throttled":
        spoilt = np.minimum(spoilt, 0.15)
    elif kind == "three":
        spoilt[3:] = np.nan
    elif kind in THROUGHOUT:
        spoilt[:] = THROUGHOUT[kind]
    return spoilt


def bad_table(kind: str, usage: FloatArray) -> pd.DataFrame:
    """The same as rows, whose times may be spoilt too."""
    panel = a_panel(np.ones((1, usage.size)), names=(f"bad/Deployment/{kind}",))
    table = table_from_panel(panel).astype({"workload": str, "resource": str}).assign(usage=a_usage(kind, usage))
    if kind == "jittered":
        late = np.random.default_rng(0).integers(0, 400, len(table))
        return table.assign(timestamp=table["timestamp"] + pd.to_timedelta(late, unit="s"))
    if kind == "hourly":
        return table.iloc[::4]
    if kind == "twice":
        return pd.concat([table, table.iloc[500:504].assign(usage=9.0)])
    if kind == "shuffled":
        return table.sample(frac=1.0, random_state=0)
    return table.assign(limit=0.15 if kind == "throttled" else np.nan)


@dataclass(frozen=True)
class Outcome:
    """What a command said of a history in which every kind of bad series stands beside good ones."""

    trained: Result
    report: dict[str, Any]
    tested: Result
    forecasts: pd.DataFrame

    def said(self, kind: str) -> list[str]:
        found = [f for f in self.report["findings"] if f["workload"] == f"bad/Deployment/{kind}"]
        return [f"{each['severity']}: {each['message']}" for each in found]


BROKEN_OF_MANY = {
    0: "no sample that is a number",
    1: "only 3 samples; at least 4",
    2: "cannot be cpu in base units",
    3: "1 samples taken as no sample",
    4: "1 negative or infinite samples",
    5: "7 negative or infinite samples",
    6: "samples are 7200 s apart",
    7: "samples come at irregular times",
    8: "4 duplicate timestamps, 4 with another value",
    9: "rows were not in time order",
}
"""What is said of every hundredth series, by its number modulo 100: a tenth of all, broken in as many ways."""
UNUSABLE = 3
"""So many of these ways make a series unusable."""


def many_series(series: int, steps: int) -> pd.DataFrame:
    """An hourly table of a large fleet, a tenth of it broken."""
    rng = np.random.default_rng(0)
    usage = rng.gamma(2.0, 1.0, (series, steps))
    usage[0::100] = np.nan
    usage[1::100, 3:] = np.nan
    usage[2::100] = 250_000.0
    usage[3::100, 7] = 1e12
    usage[4::100, 5] = -1.0
    usage[5::100, :7] = np.inf
    row, step = np.divmod(np.arange(series * steps), steps)
    late = np.where(row % 100 == 7, rng.integers(0, 1800, row.size), 0)
    names = [f"ns{number % 100}/Deployment/w{number}" for number in range(series)]
    seconds = MONDAY + 3600 * step + late
    table = pd.DataFrame(
        {
            "workload": pd.Categorical.from_codes(row, pd.Index(names)),
            "resource": "cpu",
            "timestamp": pd.DatetimeIndex(seconds.astype("datetime64[s]"), tz="UTC"),
            "usage": usage.ravel(),
        }
    )
    kind = row % 100
    again = table.loc[(kind == 8) & (step < 4)].assign(usage=9.0)
    kept = table.loc[(kind != 9) & ~((kind == 6) & (step % 2 == 1))]
    turned = table.loc[kind == 9].sort_index(ascending=False)
    broken: pd.DataFrame = pd.concat([kept, again, turned])
    return broken


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """`train` and `backtest`, each run once."""
    folder = tmp_path_factory.mktemp("bad")
    usage = daily_usage(series=1)[0]
    good = table_from_panel(a_fleet()).astype({"workload": str, "resource": str})
    table = pd.concat([good, *(bad_table(kind, usage) for kind in (*SERVED, *LEFT_OUT))])
    table.to_parquet(folder / "usage.parquet")
    common = ["--history", str(folder / "usage.parquet"), *QUICK]
    report, out = folder / "report.json", folder / "out.parquet"
    trained = CliRunner().invoke(train, [*common, "--dry-run", "--json", str(report)], obj=a_loader(folder))
    tested = CliRunner().invoke(backtest, [*common, "--cutoffs", "4", "--out", str(out)], obj=a_loader(folder))
    assert (trained.exit_code, tested.exit_code) == (0, 0), trained.output + tested.output
    return Outcome(trained, json.loads(report.read_text()), tested, pd.read_parquet(out))


def test_every_bad_series_is_named_with_what_is_wrong(outcome: Outcome) -> None:
    """In the report that a person or a program reads, under its own name."""
    for kind, message in (SERVED | LEFT_OUT).items():
        assert any(line.startswith(message) for line in outcome.said(kind)), (kind, outcome.said(kind))


def test_what_can_be_used_is_served_and_the_rest_left_out(outcome: Outcome) -> None:
    """A finite forecast, never zero, for each that can be; no row at all for what cannot."""
    forecast = outcome.forecasts.assign(workload=outcome.forecasts["workload"].astype(str))
    served = set(forecast["workload"])

    assert served >= {f"bad/Deployment/{kind}" for kind in SERVED}
    assert served >= {key.workload for key in a_fleet().keys}
    assert not served & {f"bad/Deployment/{kind}" for kind in LEFT_OUT}
    bad = forecast[forecast["workload"].str.startswith("bad/")]
    assert (bad["value"] > 0).all()
    assert bad["value"].max() < 10


def test_no_artefact_reaches_the_averages(outcome: Outcome) -> None:
    """The loss stays in proportion to the baseline's, and the mean loss of cpu in that of its usage."""
    cpu = next(each for each in outcome.report["resources"] if each["resource"] == "cpu")

    assert cpu["pinball"] < 1
    assert 0.1 < cpu["ratio"] < 10
    assert 0.4 < cpu["coverage"][0] < 0.9


def test_both_commands_print_what_is_broken_first(outcome: Outcome) -> None:
    """Without scrolling through notes."""
    for done in (outcome.trained, outcome.tested):
        assert "broken: bad/Deployment/mute cpu: no sample that is a number" in done.stdout
        assert "broken: bad/Deployment/milli cpu: median" in done.stdout
        assert "Traceback" not in done.output


def test_a_spike_leaves_no_trace_in_any_forecast(tmp_path: Path) -> None:
    """Its series' own, the fleet's LightGBM, weights, calibration: all as if the sample were missing, to the bit."""
    settings = a_settings(forecasters=["lightgbm_quantiles", "trailing_24h"])
    spoilt, missing = daily_usage(series=3), daily_usage(series=3)
    spoilt[1, [200, 900, 1100]], missing[1, [200, 900, 1100]] = [1e12, 4e3, 1e9], np.nan
    made = []
    for usage in (spoilt, missing):
        panel = panel_from_table(table_from_panel(a_panel(usage)))
        tables: list[pd.DataFrame] = []
        report = run_backtest(settings, panel, tables.append, PartialBacktest(tmp_path / "f"), cutoffs=3)
        made.append((pd.concat(tables), report.resources, report.fingerprint))

    pd.testing.assert_frame_equal(made[0][0], made[1][0])
    assert made[0][1:] == made[1][1:]


def test_a_history_shorter_than_its_season_is_forecast(tmp_path: Path) -> None:
    """Twenty hours of a daily rhythm: short parts are named, every workload has a forecast."""
    usage = daily_usage(series=3, days=20 / 24)
    table_from_panel(a_panel(usage)).to_parquet(tmp_path / "usage.parquet")
    arguments = ["--history", str(tmp_path / "usage.parquet"), *QUICK, "--cutoffs", "3"]

    done = CliRunner().invoke(backtest, [*arguments, "--out", str(tmp_path / "f.parquet")], obj=a_loader(tmp_path))

    assert done.exit_code == 0, done.output
    assert "warning: history: short: " in done.stdout
    made = pd.read_parquet(tmp_path / "f.parquet")
    assert made["workload"].nunique() == 3
    assert made["value"].between(0, 3 * usage.max()).all()


def test_a_rhythm_that_a_clock_change_moves_is_followed(tmp_path: Path) -> None:
    """In UTC a day's rhythm shifts by an hour in spring: a week later the forecasts are as good as before."""
    steps = 24 * DAY_STEPS
    wall_seconds = STEP_SECONDS * np.arange(steps) + 3600 * (np.arange(steps) >= 14 * DAY_STEPS)
    usage = 1.5 + np.sin(2 * np.pi * wall_seconds / 86_400)[None, :]
    panel = a_panel(np.repeat(usage, 2, axis=0))
    table_from_panel(panel).to_parquet(tmp_path / "usage.parquet")
    arguments = ["--history", str(tmp_path / "usage.parquet"), *QUICK[:-1], "seasonal_naive,hour_of_day"]

    done = CliRunner().invoke(backtest, [*arguments, "--out", str(tmp_path / "f.parquet")], obj=a_loader(tmp_path))

    assert done.exit_code == 0, done.output
    made = pd.read_parquet(tmp_path / "f.parquet")
    median = made[(made["level"] == 0.5) & (made["workload"] == panel.keys[0].workload)]
    times = median["timestamp"].astype("datetime64[s, UTC]").astype("int64").to_numpy()
    actual = panel.usage[0, (times - panel.start_seconds) // STEP_SECONDS]
    assert np.abs(median["value"].to_numpy() - actual).mean() < 0.05


def test_fifty_thousand_series_a_tenth_of_them_broken(tmp_path: Path) -> None:
    """Each broken one is named with its kind, all that can be used are forecast, and none ruins the figures."""
    series = 50_000
    settings = load_settings(
        None,
        {},
        {
            ("history", "step"): "1h",
            ("forecast", "horizon"): "2h",
            ("forecast", "peaks"): [],
            ("training", "held_out"): "6h",
            ("training", "rehearsals"): 2,
            ("training", "forecasters"): ["trailing_24h"],
        },
    )
    panel = panel_from_table(many_series(series, 40))
    tables: list[pd.DataFrame] = []

    report = run_backtest(settings, panel, tables.append, PartialBacktest(tmp_path / "f"), cutoffs=1)

    said = [f for f in report.findings if f.workload]
    assert len({f.workload for f in said}) == series // 10
    for kind, message in BROKEN_OF_MANY.items():
        named = {int(f.workload.split("/w")[1]) for f in said if message in f.message}
        assert named >= set(range(kind, series, 100)), message
    assert report.series == report.forecasts == series - UNUSABLE * series // 100
    assert np.isfinite(tables[0]["value"]).all()
    assert tables[0]["value"].max() < 50
    assert report.resources[0].pinball < 1
