"""The Python API: the same bits as the commands and the controller, and errors that say what to do."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import foresize
from foresize import Model
from models.forecast import ForecastError
from pipelines.errors import NotEnoughHistory
from pipelines.flows.train import train
from predictor.errors import CorruptModel, InvalidUsage
from predictor.registry.memory import MemoryBundleStore
from predictor.serving.bundle import Bundle, SeriesForecast
from predictor.serving.forecasts import ServedForecast
from predictor.serving.predictor import Predictor
from predictor.settings import HistorySettings
from predictor.sources.files import MemorySource
from predictor.usage.kin import Kin
from predictor.usage.panel import UsagePanel
from predictor.usage.table import table_from_panel
from tests.support.histories import STEP_SECONDS
from tests.support.panels import a_fleet, a_settings, in_single_precision, throttled

SETTINGS = a_settings()
KIN = {
    "shop/Deployment/w0": Kin("shop/web"),
    "shop/Deployment/w1": Kin("shop/web", "part-of/shop"),
    "shop/Deployment/w2": Kin(owner="part-of/shop"),
}
PANEL = in_single_precision(replace(throttled(a_fleet(), [0, 1]), kin=KIN))
TABLE = table_from_panel(PANEL)
DAY, HOUR = pd.Timedelta(days=1), pd.Timedelta(hours=1)
END = TABLE["timestamp"].max() + pd.Timedelta(seconds=STEP_SECONDS)
KNOWN, LATER = TABLE[TABLE["timestamp"] < END - DAY], TABLE[TABLE["timestamp"] >= END - DAY]


def fitted(usage: pd.DataFrame | UsagePanel = KNOWN, **options: Any) -> Model:
    """The model of the fleet as `a_settings` asks for it, all but its last day unless told otherwise."""
    asked: dict[str, Any] = {"horizon": "2h", "peaks": ("1h",), "calibration": "2d", "rehearsals": 6, "threads": 1}
    return foresize.fit(usage, **(asked | options))


def saved(bundle: Bundle, folder: Path) -> dict[str, bytes]:
    """What a bundle is on disk."""
    bundle.save(folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same(one: Model, other: Model, folder: Path) -> None:
    """Two models that have learned the same, forecast the same and will go on alike."""
    assert saved(one.bundle, folder / "one") == saved(other.bundle, folder / "other")
    pd.testing.assert_frame_equal(one.predict(), other.predict(), check_exact=True)
    assert one.window.keys == other.window.keys
    np.testing.assert_array_equal(one.window.usage, other.window.usage)
    assert one.window.kin == other.window.kin


def values_of(made: SeriesForecast, forecasts: pd.DataFrame, target: str) -> tuple[list[float], list[float]]:
    """The forecast of one series as the predictor and as the API tells it."""
    at = (forecasts["workload"] == made.key.workload) & (forecasts["resource"] == made.key.resource.value)
    return made.values.T.ravel().tolist(), forecasts.loc[at & (forecasts["target"] == target), "value"].tolist()


def test_fitting_is_what_training_does(tmp_path: Path) -> None:
    """The bundle of what lies before the held-out days is the bundle that a training cycle registers."""
    report = train(SETTINGS, MemorySource(PANEL), MemoryBundleStore(), None, end_seconds=PANEL.end_seconds)
    before = PANEL.between(PANEL.start_seconds, report.bundle.trained_until_seconds)

    model = fitted(before, peaks=SETTINGS.forecast.peaks)

    assert saved(model.bundle, tmp_path / "api") == saved(report.bundle, tmp_path / "train")


def test_updating_hour_by_hour_is_what_the_controller_learns() -> None:
    """A predictor over the same usage, asked at every step of a day, says the same of steps and peaks to the bit."""
    model = fitted()
    store = MemoryBundleStore()
    store.set_alias("champion", store.add(model.bundle))
    predictor = Predictor(
        MemorySource(PANEL),
        store,
        step_seconds=STEP_SECONDS,
        span=HistorySettings().serving_span,
        horizon=timedelta(hours=2),
        levels=model.bundle.levels,
        stale_after=timedelta(days=1),
        peaks_within=timedelta.max,
    )

    compared = 0
    for hour in range(25):
        if hour:
            is_new = (LATER["timestamp"] >= model.known_until) & (LATER["timestamp"] < model.known_until + HOUR)
            model = model.update(LATER[is_new])
        until = int(model.known_until.timestamp())
        for step in range(0, 3600, STEP_SECONDS):
            said = predictor.predict(until - 3600 + STEP_SECONDS + step)
        made = model.predict()
        for key in said.keys:
            answer = said.of(key)
            if isinstance(answer, ServedForecast):
                assert len(answer.peaks) == 1
                for each, target in ((answer.series, "step"), (answer.peaks[0], "peak_1h")):
                    theirs, ours = values_of(each, made, target)
                    assert theirs == ours
                    compared += 1
    assert compared > 25 * 2 * 10
    assert model.known_until == END


def test_updating_at_once_is_updating_step_by_step(tmp_path: Path) -> None:
    """A workload is born meanwhile, one ends, and one shows an artefact: learned alike, whatever the pieces."""
    later = LATER[(LATER["workload"] != "shop/Deployment/w1") | (LATER["timestamp"] < END - 6 * HOUR)].copy()
    newborn = later[later["workload"] == "shop/Deployment/w0"].assign(workload="a-new/Deployment/w0")
    later.loc[later.index[later["workload"] == "shop/Deployment/w2"][40], "usage"] *= 1e6
    later = pd.concat([later, newborn[newborn["timestamp"] >= END - 12 * HOUR]])
    model = fitted()

    piecewise = model
    for _, rows in later.groupby("timestamp"):
        piecewise = piecewise.update(rows)

    at_once = model.update(later)
    assert_same(at_once, piecewise, tmp_path)
    assert any("1 samples taken as no sample" in str(finding) for finding in at_once.findings)
    assert_same(model.update(later), model.update(later.sample(frac=1, random_state=0)), tmp_path)
    assert "a-new/Deployment/w0" in set(piecewise.served()["workload"])


def test_a_backtest_at_every_hour_is_a_model_that_is_updated() -> None:
    """Fitted before the first cutoff, learning from each: the forecasts are those that the model made at the time."""
    hours = [END - DAY - pd.Timedelta(seconds=STEP_SECONDS) + hour * HOUR for hour in range(6)]
    options: dict[str, Any] = {"horizon": "2h", "peaks": ("1h",), "past": "5d", "calibration": "2d", "rehearsals": 6}
    options["threads"] = 1

    tested = foresize.backtest(TABLE, cutoffs=hours, **options).forecasts

    model = foresize.fit(KNOWN, **options)
    online = [model.predict()]
    for hour in hours[1:]:
        new = LATER[(LATER["timestamp"] >= model.known_until) & (LATER["timestamp"] <= hour)]
        model = model.update(new)
        online.append(model.predict())
    columns = ["workload", "resource", "target", "cutoff", "timestamp", "level", "value"]
    ours, theirs = (
        each.astype({"workload": str, "resource": str, "target": str}).sort_values(columns, ignore_index=True)
        for each in (pd.concat(online), tested)
    )
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


def test_a_model_is_shown_in_a_line() -> None:
    """As a notebook shows it, and not with all its arrays."""
    assert repr(fitted()).startswith("<Model of ")
    assert len(repr(fitted())) < 120


def test_a_saved_model_comes_back_and_goes_on_alike(tmp_path: Path) -> None:
    """Forecasts and what is learned later, to the bit; the bundle in the folder is one that a registry takes."""
    model = fitted()
    model.save(tmp_path / "model")

    back = foresize.load(tmp_path / "model")

    assert_same(model, back, tmp_path)
    assert_same(model.update(LATER), back.update(LATER), tmp_path)
    assert Bundle.load(tmp_path / "model" / "bundle").series.keys() == model.bundle.series.keys()


def test_a_gap_and_rows_of_few_workloads_are_learned_from(tmp_path: Path) -> None:
    """Half a day without a sample, then one workload alone, in local time: all go on being forecast."""
    model = fitted()
    rows = LATER[(LATER["timestamp"] >= END - 12 * HOUR) & (LATER["workload"] == "shop/Deployment/w1")]
    local = rows.assign(timestamp=rows["timestamp"].dt.tz_convert("Europe/Berlin"), node_pool="general", capacity=64.0)

    moved = model.update(local.assign(usage=local["usage"].where(local["timestamp"] < END - HOUR)))

    assert moved.known_until == END
    assert set(moved.served()["workload"]) == set(model.served()["workload"])
    assert moved.predict()["value"].notna().all()
    moved.save(tmp_path)
    assert_same(moved, foresize.load(tmp_path), tmp_path / "compared")


def test_a_half_saved_model_is_refused(tmp_path: Path) -> None:
    """A bundle newer than its window, and a folder without any."""
    model = fitted()
    model.save(tmp_path)
    model.update(LATER).bundle.save(tmp_path / "bundle")

    with pytest.raises(CorruptModel, match="were saved by two calls"):
        foresize.load(tmp_path)
    with pytest.raises(CorruptModel, match="cannot be read"):
        foresize.load(tmp_path / "nowhere")
    model.bundle.save(tmp_path / "window")
    with pytest.raises(CorruptModel, match="holds no window of usage"):
        foresize.load(tmp_path)


def test_a_model_is_a_value() -> None:
    """Updating leaves the model before as it was."""
    model = fitted()
    before = model.predict()

    model.update(LATER)

    pd.testing.assert_frame_equal(model.predict(), before, check_exact=True)


def test_a_forecast_says_what_it_was_asked() -> None:
    """Other levels and a shorter horizon; a row for each series, target, time and level, none crossing."""
    model = fitted(levels=np.array([0.5, 0.9]))
    made = model.predict(levels=(0.25, 0.6, 0.995), horizon="1h")

    assert list(made.columns) == ["workload", "resource", "target", "cutoff", "timestamp", "level", "value"]
    assert set(made["level"]) == {0.25, 0.6, 0.995}
    assert set(made["target"]) == {"step", "peak_1h"}
    assert made["timestamp"].max() == made["cutoff"].max() + HOUR
    wide = made.pivot(index=["workload", "resource", "target", "timestamp"], columns="level", values="value")
    assert (np.diff(wide.to_numpy(), axis=1) >= 0).all()
    assert set(model.predict(levels=np.float64(0.7))["level"]) == {0.7}


def test_every_series_says_what_serves_it_and_why() -> None:
    """A forecaster with its reason, or the reason why there is none; weights sum to one."""
    young = KNOWN[KNOWN["workload"] == "shop/Deployment/w0"].assign(workload="new/Deployment/few")
    twin = young[young["timestamp"] >= END - 2 * DAY].assign(workload="new/Deployment/twin")
    model = fitted(pd.concat([KNOWN, young[young["timestamp"] >= END - DAY - 2 * HOUR], twin]))

    served = {(row.workload, row.resource): row for row in model.served().itertuples()}

    few, rhythm = served["new/Deployment/few", "cpu"], served["shop/Deployment/w0", "cpu"]
    assert not isinstance(few.forecaster, str)
    assert "too little history" in str(few.reason)
    assert "pinball loss" in str(rhythm.reason)
    assert "new/Deployment/few" not in set(model.predict()["workload"])
    assert "weights of 2 workloads with the same image" in str(served["new/Deployment/twin", "cpu"].reason)
    total = model.weights().groupby(["workload", "resource", "target", "ahead", "level"])["weight"].sum()
    np.testing.assert_allclose(total, 1.0)


def test_a_backtest_tells_what_the_report_tells() -> None:
    """Every method with its interval, coverage for each level by hour of day, each series."""
    options: dict[str, Any] = {"horizon": "2h", "levels": (0.5, 0.9), "peaks": ("1h",), "calibration": "2d"}
    made = foresize.backtest(TABLE, cutoffs=3, held_out="2d", rehearsals=6, threads=1, **options)

    whole = made.accuracy[made.accuracy["span_is_whole"]]
    assert {"foresize", "seasonal_naive", "lightgbm_quantiles"} <= set(whole["method"])
    assert (whole["ratio_low"] <= whole["ratio_value"]).all()
    by_hour = made.coverage[(made.coverage["by"] == "hour of day") & (made.coverage["resource"] == "cpu")]
    assert by_hour.groupby("target").size().to_dict() == {"step": 24 * 2, "peak_1h": 24 * 2}
    assert set(made.series["level"]) == {0.5, 0.9}
    assert made.series["workload"].nunique() == PANEL.usage.shape[0] - 4
    assert made.forecasts["cutoff"].nunique() == 3
    assert any("calibrated" in str(finding) or "constant" in str(finding) for finding in made.findings)


def test_a_file_is_read_as_a_frame_is(tmp_path: Path) -> None:
    """Parquet and CSV, with what was found in them."""
    TABLE.to_parquet(tmp_path / "usage.parquet")
    TABLE.to_csv(tmp_path / "usage.csv", index=False)

    frame, parquet, csv = (
        foresize.read_usage(each) for each in (TABLE, tmp_path / "usage.parquet", str(tmp_path / "usage.csv"))
    )

    np.testing.assert_array_equal(frame.usage, parquet.usage)
    np.testing.assert_allclose(frame.usage, csv.usage, rtol=1e-15)
    assert frame.findings == parquet.findings
    assert foresize.read_usage(TABLE, step="30m").step_seconds == 1800


@pytest.mark.parametrize(
    ("call", "problem", "said"),
    [
        (lambda: fitted(KNOWN.drop(columns="usage")), InvalidUsage, "has no column 'usage'; it has"),
        (lambda: fitted(KNOWN.assign(resource="disk")), InvalidUsage, "column 'resource' holds 'disk'; accepted: cpu"),
        (lambda: fitted(PANEL, step="1h"), InvalidUsage, "steps of 900 s; give another to read_usage"),
        (lambda: fitted(horizon="4hours"), InvalidUsage, "horizon: '4hours' is not a duration; write for example"),
        (lambda: fitted(levels=(0.9, 0.5)), InvalidUsage, r"^levels: must ascend .* \(given: \[0.9, 0.5\]\)"),
        (lambda: fitted(levels=(0.5, 1.0)), InvalidUsage, "levels: Input should be less than 1"),
        (lambda: fitted(past="now"), InvalidUsage, "past: 'now' is not a duration"),
        (lambda: fitted(forecasters=("oracle",)), InvalidUsage, "no forecaster oracle; accepted: seasonal_naive"),
        (lambda: fitted(held_out="3d"), InvalidUsage, "no argument held_out; for the fit there are forecasters"),
        (lambda: fitted(KNOWN[KNOWN["timestamp"] < END - 11.9 * DAY]), NotEnoughHistory, "cannot hold two forecasts"),
        (lambda: foresize.read_usage(KNOWN, step="-5m"), InvalidUsage, "step: '-5m' is not a duration"),
        (lambda: fitted("usage.parquet"), InvalidUsage, "what read_usage makes of a file or a frame; got str"),  # type: ignore[arg-type]
        (lambda: foresize.backtest(TABLE, cutoffs=0), InvalidUsage, "cutoffs: 0 cutoffs; needed is at least one"),
        (lambda: foresize.backtest(TABLE, cutoffs=["soon"]), InvalidUsage, "cutoffs: 'soon' is not a time"),
        (lambda: foresize.backtest(TABLE, cutoffs=["2020-01-01"]), InvalidUsage, "lies outside the history"),
    ],
)
def test_what_cannot_be_fitted_is_named(call: Callable[[], object], problem: type[Exception], said: str) -> None:
    """The argument or column, what was wrong with it, and what is accepted."""
    with pytest.raises(problem, match=said):
        call()


def test_what_cannot_be_learned_or_asked_is_named() -> None:
    """Samples that are known already, on another step, or of next year; impossible levels and horizons."""
    model = fitted()
    hourly = LATER[LATER["timestamp"].dt.minute == 0]

    with pytest.raises(InvalidUsage, match=r"begin at 2026-01-05 00:00:00.*at or after known_until"):
        model.update(TABLE)
    with pytest.raises(InvalidUsage, match="3600 s apart, but the history that they continue is on steps of 900 s"):
        model.update(hourly)
    with pytest.raises(InvalidUsage, match=r"usage is a data frame, .* got Series"):
        model.update(LATER["usage"])
    with pytest.raises(InvalidUsage, match="model is on steps of 900 s, the new samples are on steps of 3600 s"):
        model.update(foresize.read_usage(hourly))
    with pytest.raises(InvalidUsage, match=r"more than 31 days after .*: correct the timestamps"):
        model.update(LATER.assign(timestamp=LATER["timestamp"] + 365 * DAY))
    with pytest.raises(ForecastError, match=r"must ascend inside \(0, 1\)"):
        model.predict(levels=(0.5, 99))
    with pytest.raises(InvalidUsage, match="horizon: 'far' is not a duration"):
        model.predict(horizon="far")
    assert model.update(hourly.head(1)).known_until == model.known_until + pd.Timedelta(seconds=STEP_SECONDS)
