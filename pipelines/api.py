"""The Python API: what the commands do, as values in a notebook or a program, by the same steps and to the same bits.

Usage comes in as a data frame in the columns of `predictor.usage.table`, or as the UsagePanel that `read_usage` makes
of one; forecasts and figures go out as long data frames, times in UTC, amounts in the resource's base unit. Nothing
here reads a configuration file or a registry.
"""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import pandas as pd
from pydantic import ValidationError

from autoscaler.decisions.oversubscription import node_peak_quantile
from models.forecast import SECONDS_PER_DAY, FloatArray, JsonValue, Target
from models.node_peak import node_totals
from pipelines.flows.backtest import BacktestReport
from pipelines.flows.backtest import backtest as run_backtest
from pipelines.flows.clock import StepClock, Told
from pipelines.flows.model import plan_of_all, trained
from pipelines.settings import Settings
from pipelines.steps.plan import peak_questions_of, question_of
from pipelines.steps.prepare import prepared
from pipelines.steps.record import forecast_rows
from pipelines.tracking.partial_backtest import PartialBacktest
from predictor.backtest.rolling import target_name
from predictor.errors import CorruptModel, InvalidUsage
from predictor.serving import bundle_files
from predictor.serving.bundle import Bundle, NoForecast, PanelForecast
from predictor.settings import duration_text, parse_duration
from predictor.sources.files import FileSource, MemorySource
from predictor.usage.kin import Kin
from predictor.usage.panel import Finding, Resource, SeriesKey, UsagePanel
from predictor.usage.table import newest_from_table, panel_from_table

__all__ = ["BacktestResult", "Model", "backtest", "fit", "load", "node_peak_quantile", "node_totals", "read_usage"]

Usage = pd.DataFrame | UsagePanel
Levels = float | Sequence[float] | FloatArray
"""Quantile levels in (0, 1), ascending."""
Span = str | timedelta
"""A length of time: text such as `30s`, `5m`, `4h`, `7d`, or a timedelta."""
BUNDLE, WINDOW = "bundle", "window"
"""What a saved model consists of."""
LONGEST_UPDATE_SECONDS = 31 * SECONDS_PER_DAY
"""Samples that reach further ahead at once are taken for a mistake in their times."""


class Training(TypedDict, total=False):
    """How a model is fitted; what is not given is the setting of that name in `training`."""

    forecasters: Sequence[str]
    """What is combined for every workload, by catalogue name."""
    baseline: str
    """What the combination must beat for a workload; it serves where it does not."""
    calibration: Span
    """The newest part of the usage, on which forecasters are weighed, chosen and calibrated."""
    rehearsals: int
    """Rolling cutoffs in that part, at most."""
    seed: int
    """Seed of every random choice."""
    threads: int
    """Threads for LightGBM."""


def untold(_step: str, _done: int, _total: int) -> None:
    """Progress that nobody watches."""


def read_usage(source: str | Path | pd.DataFrame, *, step: Span | None = None) -> UsagePanel:
    """Usage from a Parquet or CSV file or a data frame, checked; what a reader should know of it is in `findings`.

    Samples are averaged into steps of `step` (default: their own most common spacing). A series that cannot be used is
    left out with a finding. Raises InvalidUsage where the table as a whole cannot be read, SourceUnavailable where
    there is no file.
    """
    seconds = None if step is None else int(_length("step", step).total_seconds())
    if isinstance(source, pd.DataFrame):
        return panel_from_table(source, step_seconds=seconds)
    return FileSource(Path(source)).panel(seconds)


def fit(
    usage: Usage,
    *,
    horizon: Span | None = None,
    levels: Levels | None = None,
    peaks: Sequence[Span] | None = None,
    step: Span | None = None,
    past: Span | None = None,
    told: Told = untold,
    **training: Unpack[Training],
) -> "Model":
    """The model of all of a history: every forecaster fitted, weighed, chosen and calibrated, as `foresize train` does.

    Nothing is held out: what comes after is for scoring, see `backtest`. It forecasts `horizon` ahead, and the highest
    usage within each window of `peaks`, at the quantile `levels`, on steps of `step` (default: the usage's own), from
    the last `past` of usage. What is not given is as in the settings. Raises InvalidUsage for a table or an argument
    that cannot be used, NotEnoughHistory.
    """
    panel = _panel(usage, step)
    settings = _settings(panel, horizon=horizon, levels=levels, peaks=peaks, past=past, training={**training})
    history = prepared(panel)
    made = trained(plan_of_all(history.panel, settings), peak_questions_of(settings), StepClock(told))
    start = Model(
        made.bundle,
        history.panel.bare(),
        question_of(settings).past_steps,
        (*history.findings, *made.findings),
    )
    return start._moved_to(start.window.end_seconds)


def load(folder: str | Path) -> "Model":
    """The model that was saved in a folder; it predicts and learns bit-identically.

    Raises CorruptModel for a folder that is damaged, foreign or of a newer format.
    """
    place = Path(folder)
    parts = bundle_files.read(place / WINDOW)
    content: Mapping[str, Any] = parts.content
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in parts.arrays.items()}
    try:
        digest, past_steps = content["bundle_sha256"], content["past_steps"]
        window = UsagePanel(
            keys=tuple(SeriesKey(workload, Resource(resource)) for workload, resource in content["keys"]),
            start_seconds=content["start_seconds"],
            step_seconds=content["step_seconds"],
            usage=arrays.pop("usage"),
            attributes=arrays,
            kin={workload: Kin(image, owner) for workload, image, owner in content.get("kin", [])},
        )
    except (KeyError, TypeError, ValueError, InvalidUsage) as error:
        raise CorruptModel(f"{place / WINDOW} holds no window of usage: {error!r}; save the model again") from error
    if digest != _digest(place):
        raise CorruptModel(f"the model in {place} is damaged: bundle and window were saved by two calls; save it again")
    return Model(Bundle.load(place / BUNDLE), window, past_steps)


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """What is known when the newest step of the usage seen so far is over: a value, and all of it data.

    `bundle` is what the registry keeps and the controller serves; `window` the usage that forecasts are made from.
    """

    bundle: Bundle
    window: UsagePanel
    past_steps: int
    """How many steps of the window a forecast is made from."""
    findings: tuple[Finding, ...] = ()
    """What a reader should know of the usage that the fit, or since then the last update, was given."""

    def __repr__(self) -> str:
        """How much it knows, in a line."""
        step = duration_text(timedelta(seconds=self.window.step_seconds))
        return f"<Model of {len(self.bundle.series)} series on steps of {step}, usage seen until {self.known_until}>"

    @property
    def cutoff(self) -> pd.Timestamp:
        """When the newest step seen starts."""
        return _time(self.window.end_seconds)

    @property
    def known_until(self) -> pd.Timestamp:
        """When it ends: the first sample that `update` has not seen is at this time or later."""
        return _time(self.window.end_seconds + self.window.step_seconds)

    def predict(self, *, levels: Levels | None = None, horizon: Span | None = None) -> pd.DataFrame:
        """Calibrated quantiles of every series after the cutoff, a row for each target, time and level.

        Columns: workload, resource, target (`step`, or a peak such as `peak_1h`), cutoff, timestamp (when the step
        starts, a peak's last one), level, value. Levels and horizon are those of the fit unless given; any level in
        (0, 1) will do, and what lies beyond the horizon of the fit is less sure. A series with too few samples has no
        rows: see `served`. Raises ForecastError for impossible levels, InvalidUsage for an impossible horizon.
        """
        made = self._forecasts(levels, self.bundle.target if horizon is None else self._steps_of(horizon))
        table = pd.concat([forecast_rows(each) for each in made], ignore_index=True)
        return table.astype(dict.fromkeys(("workload", "resource", "target"), "category"))

    def update(self, rows: Usage) -> "Model":
        """The model after further samples: the window moves on, and weights and calibration learn from each hour.

        The same, to the bit, whether samples come one by one or a day at once, and as the controller has learned that
        ran meanwhile. `rows` are whole steps from `known_until` on; a step or series may be missing. Raises
        InvalidUsage for samples that are not newer, on another step, or more than a month ahead.
        """
        later = self._continuing(rows)
        joined = replace(self, window=self.window.followed_by(later.bare()))
        moved = joined._moved_to(later.end_seconds, self.window.end_seconds)
        return replace(moved, findings=tuple(dict.fromkeys((*later.findings, *moved._seen.findings))))

    def served(self) -> pd.DataFrame:
        """What forecasts each series and why, or why there is no forecast; a row for each usable series.

        Columns: workload, resource, forecaster (missing where there is no forecast), is_cold, reason.
        """
        made = self.bundle.forecast(self._seen, Target(1))
        return pd.DataFrame(
            [
                (key.workload, key.resource.value, None, False, outcome.reason)
                if isinstance(outcome, NoForecast)
                else (key.workload, key.resource.value, outcome.forecaster, outcome.is_cold, outcome.reason)
                for key, outcome in zip(made.keys, made.outcomes, strict=True)
            ],
            columns=["workload", "resource", "forecaster", "is_cold", "reason"],
        )

    def weights(self) -> pd.DataFrame:
        """What each forecaster counts in the combination of each series that was fitted; they sum to 1.

        Columns: workload, resource, target, ahead (the last step of the part of the horizon, as a timedelta), level,
        forecaster, weight.
        """
        return pd.concat([_weight_rows(part) for part in (self.bundle, *self.bundle.peaks)], ignore_index=True)

    def save(self, folder: str | Path) -> None:
        """Write everything as data (JSON, arrays, native booster text, with checksums), over an older model there.

        `bundle` in the folder is a model such as a registry keeps.
        """
        place, window = Path(folder), self.window
        self.bundle.save(place / BUNDLE)
        content: dict[str, JsonValue] = {
            "bundle_sha256": _digest(place),
            "keys": [[key.workload, key.resource.value] for key in window.keys],
            "start_seconds": window.start_seconds,
            "step_seconds": window.step_seconds,
            "past_steps": self.past_steps,
            "kin": [[workload, kin.image, kin.owner] for workload, kin in sorted(window.kin.items())],
        }
        bundle_files.write(
            place / WINDOW, bundle_files.Parts(content, {"usage": window.usage, **window.attributes}, {})
        )

    @cached_property
    def _seen(self) -> UsagePanel:
        return self._seen_at(self.window.end_seconds)

    def _seen_at(self, end_seconds: int) -> UsagePanel:
        """The usage that a forecast at a cutoff is made from, as the predictor's source gives it."""
        step = self.window.step_seconds
        return MemorySource(self.window).fetch(
            start_seconds=end_seconds - (self.past_steps - 1) * step, end_seconds=end_seconds, step_seconds=step
        )

    def _moved_to(self, end_seconds: int, known_seconds: int | None = None) -> "Model":
        """Learned at each step after `known_seconds` (default: at the end alone), and what is too old forgotten."""
        step, bundle = self.window.step_seconds, self.bundle
        for end in range(end_seconds if known_seconds is None else known_seconds + step, end_seconds + 1, step):
            if end >= bundle.learns_from_seconds and (seen := self._seen_at(end)).keys:
                bundle = bundle.learned(seen.keys, seen.history())
        window = self.window.between(end_seconds - (self.past_steps - 1) * step, end_seconds)
        is_alive = (~np.isnan(window.usage)).any(axis=1)
        return replace(self, bundle=bundle, window=window.select(np.flatnonzero(is_alive)))

    def _continuing(self, rows: Usage) -> UsagePanel:
        step, end = self.window.step_seconds, self.window.end_seconds
        later = newest_from_table(rows, step) if isinstance(rows, pd.DataFrame) else _of_usage(rows)
        if later.step_seconds != step:
            raise InvalidUsage(
                f"the model is on steps of {step} s, the new samples are on steps of {later.step_seconds} s"
            )
        if later.start_seconds <= end:
            raise InvalidUsage(
                f"the new samples begin at {_time(later.start_seconds)}, but all before {self.known_until} is known "
                "already; give only rows whose timestamp is at or after known_until"
            )
        if later.end_seconds - end > LONGEST_UPDATE_SECONDS:
            raise InvalidUsage(
                f"the new samples reach to {_time(later.end_seconds)}, more than "
                f"{LONGEST_UPDATE_SECONDS // SECONDS_PER_DAY} days after {self.known_until}: correct the timestamps, "
                "update in parts, or fit anew"
            )
        return later

    def _steps_of(self, horizon: Span) -> Target:
        steps = int(-(-_length("horizon", horizon).total_seconds() // self.window.step_seconds))
        if steps < 1:
            raise InvalidUsage(f"horizon: {horizon!r} is no time ahead")
        return Target(steps)

    def _forecasts(self, levels: Levels | None, target: Target) -> tuple[PanelForecast, ...]:
        """Of the steps, then of the peaks."""
        targets = (target, *(part.target for part in self.bundle.peaks))
        asked = None if levels is None else _levels(levels)
        return self.bundle.forecasts(self._seen, targets, asked)


@dataclass(frozen=True, eq=False)
class BacktestResult:
    """How good forecasts would have been; figures bear the names that `foresize backtest --json` gives them."""

    forecasts: pd.DataFrame
    """As `Model.predict` says at each cutoff."""
    report: BacktestReport
    """Everything, as values."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What a reader should know of the usage."""
        return self.report.findings

    @property
    def accuracy(self) -> pd.DataFrame:
        """Foresize and every forecaster alone, uncalibrated, on the same points: a row for each part of the horizon.

        `ratio_value` is pinball loss ÷ the baseline's, pooled; `equal_ratio_value` gives each series the same say;
        `…_low` and `…_high` bound 95 % of bootstraps over series. `span_is_whole` marks the whole horizon.
        """
        return pd.json_normalize([asdict(each) for each in self._all("methods")], sep="_")

    @property
    def coverage(self) -> pd.DataFrame:
        """Share of usage at or under each level's quantile, a row for each group and level.

        `by` is `all`, `hour of day`, `volatility`, `ramp` or `worst tenth`.
        """
        return self._by_level(pd.DataFrame([asdict(each) for each in self._all("coverage")]))

    @property
    def series(self) -> pd.DataFrame:
        """How good the forecasts of each series were, a row for each level."""
        found = [each.key._asdict() | asdict(each) for each in self._all("series")]
        return self._by_level(pd.DataFrame(found).drop(columns="key"))

    def _all(self, name: str) -> list[Any]:
        return [each for figures in self.report.figures.values() for each in getattr(figures, name)]

    def _by_level(self, table: pd.DataFrame) -> pd.DataFrame:
        """A row for each level instead of a tuple of them."""
        table["level"] = [self.report.levels] * len(table)
        return table.explode(["level", "coverage"], ignore_index=True).astype({"level": float, "coverage": float})


def backtest(
    usage: Usage,
    *,
    cutoffs: int | Sequence[datetime | str] = 12,
    horizon: Span | None = None,
    levels: Levels | None = None,
    peaks: Sequence[Span] | None = None,
    step: Span | None = None,
    past: Span | None = None,
    held_out: Span | None = None,
    jobs: int = 1,
    told: Told = untold,
    **training: Unpack[Training],
) -> BacktestResult:
    """What `foresize backtest` measures: the history forecast from past cutoffs, beside every forecaster alone.

    Fitted, weighed and calibrated once, before the first cutoff; only weights and calibration learn from cutoff to
    cutoff. A number of cutoffs is spread over the newest `held_out` of the usage; times that are given (without a zone:
    UTC) are the starts of the last steps that are seen. To choose between settings, give usage that ends before the
    days that the choice is to be judged on. Arguments and errors are those of `fit`.
    """
    panel = _panel(usage, step)
    if isinstance(cutoffs, int) and cutoffs < 1:
        raise InvalidUsage(f"cutoffs: {cutoffs} cutoffs; needed is at least one")
    settings = _settings(
        panel, horizon=horizon, levels=levels, peaks=peaks, past=past, held_out=held_out, training={**training}
    )
    tables: list[pd.DataFrame] = []
    with tempfile.TemporaryDirectory(prefix="foresize-") as scratch:
        report = run_backtest(
            settings,
            panel,
            tables.append,
            PartialBacktest(Path(scratch) / "forecasts"),
            cutoffs=cutoffs if isinstance(cutoffs, int) else [_seconds(each) for each in cutoffs],
            jobs=jobs,
            told=told,
        )
    return BacktestResult(pd.concat(tables, ignore_index=True), report)


def _panel(usage: Usage, step: Span | None) -> UsagePanel:
    if isinstance(usage, pd.DataFrame):
        return read_usage(usage, step=step)
    usage = _of_usage(usage)
    if step is not None and _length("step", step) != timedelta(seconds=usage.step_seconds):
        raise InvalidUsage(f"step: the usage is on steps of {usage.step_seconds} s; give another to read_usage instead")
    return usage


def _of_usage(given: object) -> UsagePanel:
    if not isinstance(given, UsagePanel):
        raise InvalidUsage(
            f"usage is a data frame, or what read_usage makes of a file or a frame; got {type(given).__name__}"
        )
    return given


def _settings(
    panel: UsagePanel,
    *,
    horizon: Span | None,
    levels: Levels | None,
    peaks: Sequence[Span] | None,
    past: Span | None,
    training: Mapping[str, Any],
    held_out: Span | None = None,
) -> Settings:
    """The settings for arguments of the API; None is not given. Raises InvalidUsage, naming the argument."""
    if unknown := training.keys() - Training.__annotations__.keys():
        accepted = ", ".join(Training.__annotations__)
        raise InvalidUsage(f"there is no argument {', '.join(sorted(unknown))}; for the fit there are {accepted}")
    given: Mapping[str, Mapping[str, Any]] = {
        "forecast": {"horizon": horizon, "levels": None if levels is None else _levels(levels), "peaks": peaks},
        "history": {"step": timedelta(seconds=panel.step_seconds), "serving_span": past},
        "training": {"held_out": held_out, **training},
    }
    values = {name: {key: v for key, v in each.items() if v is not None} for name, each in given.items()}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise InvalidUsage("; ".join(_explained(each) for each in error.errors())) from None


def _explained(error: Mapping[str, Any]) -> str:
    section, name, *_ = (str(part) for part in error["loc"])
    argument = "past" if (section, name) == ("history", "serving_span") else name
    said = str(error["msg"]).removeprefix("Value error, ").removeprefix(f"{name} ")
    return f"{argument}: {said} (given: {error['input']!r})"


def _levels(given: Levels) -> list[float]:
    """The levels one by one, also where there is a single one."""
    levels: list[float] = np.atleast_1d(np.asarray(given)).tolist()
    return levels


def _length(name: str, value: Span) -> timedelta:
    try:
        length: timedelta = parse_duration(value)
    except ValueError as error:
        raise InvalidUsage(f"{name}: {error}") from None
    if length <= timedelta(0):
        raise InvalidUsage(f"{name}: {value!r} must be longer than 0s")
    return length


def _weight_rows(bundle: Bundle) -> pd.DataFrame:
    tables = []
    for resource, record in bundle.combinations.items():
        keys = [key for key in bundle.series if key.resource == resource]
        ends = bundle.target.ahead[np.asarray(record.part_ends) - 1] * bundle.step_seconds
        index = pd.MultiIndex.from_product(
            [
                [key.workload for key in keys],
                record.forecasters,
                pd.to_timedelta(ends, unit="s"),
                record.levels,
            ],
            names=["workload", "forecaster", "ahead", "level"],
        )
        table = pd.DataFrame({"weight": bundle.weights[resource].ravel()}, index=index).reset_index()
        table.insert(1, "resource", resource.value)
        table.insert(2, "target", target_name(bundle.target, bundle.step_seconds))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _time(seconds: int) -> pd.Timestamp:
    return pd.Timestamp(seconds, unit="s", tz="UTC")


def _seconds(when: datetime | str) -> int:
    try:
        time = pd.Timestamp(when)
    except ValueError as error:
        raise InvalidUsage(f"cutoffs: {when!r} is not a time: {error}") from None
    return int((time if time.tzinfo else time.tz_localize("UTC")).timestamp())


def _digest(folder: Path) -> str:
    """Of the saved bundle in a model's folder. Raises CorruptModel where there is none."""
    try:
        return hashlib.sha256((folder / BUNDLE / bundle_files.MANIFEST).read_bytes()).hexdigest()
    except OSError as error:
        raise CorruptModel(f"there is no model in {folder}: {error}; save one there first") from error
