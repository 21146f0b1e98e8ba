"""The one model that is trained, registered and served: every series with the forecaster chosen for it.

A bundle is a value. It is written as data only (JSON, arrays, native booster text, with checksums) and read back
whole or not at all. It reads no clock and no metrics store; choosing and fitting happen elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models import catalog
from models.calibration import Calibration, at_levels, part_coverage
from models.combination import Combination, combined, loss_unit, part_losses
from models.forecast import (
    SECONDS_PER_DAY,
    BoolArray,
    FloatArray,
    Forecaster,
    ForecastError,
    History,
    QuantileForecast,
    Target,
    checked_levels,
    monotone,
)
from models.gate import Gate
from predictor.errors import CorruptModel
from predictor.serving.blocks import Rows, answered_in_blocks
from predictor.serving.dominance import lifted
from predictor.serving.siblings import KINSHIPS, Tie, siblings, ties
from predictor.usage.kin import NO_KIN, UNKNOWN_KIN, Kin
from predictor.usage.panel import Resource, SeriesKey, UsagePanel

FALLBACK = "seasonal_naive"
"""The baseline on the lowest rung with a forecast: serves a resource that the bundle was not trained on, and a series
whose gate is closed."""
COMBINATION = "combination"
"""Serves a series by all forecasters of its resource, weighted by what each has cost it lately."""
LEARNING_SECONDS = 3600
"""Least time between two looks at what became of earlier forecasts."""
NEGLIGIBLE_WEIGHT = 0.02
"""A forecaster that weighs less than this at every level and step of a series is not asked about it."""
LARGEST_MULTIPLE = 1.5
"""No forecast exceeds this many times the highest sample of the past that it is made from."""
NEWEST_STEPS = 2
UPPER_LEVEL = 0.95
"""Quantiles of this level and above are at least what the newest steps all reached."""
MINIMUM_SAMPLES = 12
"""With fewer samples than this nothing is forecast: not even the spread of the usage is known."""


@dataclass(frozen=True, slots=True)
class SeriesModel:
    """What was chosen for one series, and why."""

    key: SeriesKey
    forecaster: str
    """What serves the series: `combination`, or a catalogue name."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Backtest figures by name, for a reader; nothing is decided from them any more."""
    gate_passed: bool = True
    """Whether the best candidate beat the baseline; if not, the baseline serves."""
    reason: str = ""
    """Why this forecaster, in a sentence."""
    kin: Kin = UNKNOWN_KIN
    """What the workload had in common with others when it was trained on."""


@dataclass(frozen=True, slots=True)
class Served:
    """How a series' forecast came about."""

    forecaster: str
    is_cold: bool
    """Whether the series is unknown to the bundle, so that others' weights or the baseline served it."""
    reason: str
    is_baseline: bool = False
    """Whether the baseline served, for want of a model of the resource or as the model did worse on the series."""


@dataclass(frozen=True, slots=True)
class NoForecast:
    """That there is no forecast for a series, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class SeriesForecast:
    """The forecast of one series; `values` is [levels, outcomes] in the resource's base unit."""

    key: SeriesKey
    levels: tuple[float, ...]
    values: FloatArray
    cutoff_seconds: int
    step_seconds: int
    target: Target
    served: Served

    def at(self, level: float) -> FloatArray:
        """Usage at one of the levels, [outcomes]. Raises KeyError for a level that was not asked for."""
        if level not in self.levels:
            raise KeyError(f"level {level:g} was not forecast; there are {', '.join(f'{v:g}' for v in self.levels)}")
        return np.asarray(self.values[self.levels.index(level)])


@dataclass(frozen=True)
class PanelForecast:
    """The forecasts of a panel's series, aligned with it: row i of everything belongs to `keys[i]`."""

    keys: tuple[SeriesKey, ...]
    forecast: QuantileForecast
    """Values are NaN where the outcome is NoForecast."""
    outcomes: tuple[Served | NoForecast, ...]

    @cached_property
    def _rows(self) -> Mapping[SeriesKey, int]:
        return {key: row for row, key in enumerate(self.keys)}

    def of(self, key: SeriesKey) -> SeriesForecast | NoForecast:
        """One series' forecast, or why there is none."""
        row = self._rows.get(key)
        if row is None:
            return NoForecast(f"no usage of {key} was observed")
        outcome = self.outcomes[row]
        if isinstance(outcome, NoForecast):
            return outcome
        made = self.forecast
        return SeriesForecast(
            key, made.levels, made.values[row], made.cutoff_seconds, made.step_seconds, made.target, outcome
        )


@dataclass(frozen=True)
class Bundle:
    """Every series' forecaster and calibration for one target, addressable by SeriesKey.

    `forecasters` holds each fitted forecaster once per resource, by (resource, catalogue name). Raises ValueError
    when a series or a combination names a forecaster that is not there.
    """

    step_seconds: int
    target: Target
    """What was learned, weighed and calibrated for; steps can be asked for fewer or more of."""
    levels: tuple[float, ...]
    forecasters: Mapping[tuple[Resource, str], Forecaster]
    series: Mapping[SeriesKey, SeriesModel]
    trained_until_seconds: int
    """Epoch second of the last step that any fit, choice or calibration has seen."""
    combinations: Mapping[Resource, Combination] = field(default_factory=dict)
    """The record of each resource's forecasters; its rows are the resource's series in the order of `series`."""
    calibrations: Mapping[Resource, Calibration] = field(default_factory=dict)
    """How much lay at or under what served each resource's series, in the same order; without it levels are asked for
    as they are."""
    learned_until_seconds: int = 0
    """Epoch second of the last cutoff whose whole horizon is in the records."""
    peaks: "tuple[Bundle, ...]" = ()
    """The same for the peaks of windows of some lengths, shortest first."""
    gates: Mapping[Resource, Gate] = field(default_factory=dict)
    """What became of each resource's series since they are served by the bundle, in the order of `series`; all are open
    where there is none yet. Those of the steps speak for peaks too, which have none of their own."""
    threads: int = field(default=1, compare=False)
    """How many threads forecast and learn, each for some of the series; not saved with the model."""

    def __post_init__(self) -> None:
        checked_levels(self.levels)
        if self.step_seconds <= 0:
            raise ValueError(f"step {self.step_seconds} s must be positive")
        windows = [each.target.steps for each in self.peaks]
        is_alike = all((each.step_seconds, each.levels) == (self.step_seconds, self.levels) for each in self.peaks)
        if windows != sorted(set(windows)) or not all(each.target.is_peak for each in self.peaks) or not is_alike:
            raise ValueError(f"peaks must be of ascending windows, at the bundle's own step and levels; got {windows}")
        for key, model in self.series.items():
            if model.key != key:
                raise ValueError(f"the model of {model.key} stands under {key}")
            is_there = (
                key.resource in self.combinations
                if model.forecaster == COMBINATION
                else (key.resource, model.forecaster) in self.forecasters
            )
            if not is_there:
                raise ValueError(f"{key} is to be served by {model.forecaster!r}, which the bundle does not hold")
            if not np.isfinite(list(model.scores.values())).all():
                raise ValueError(
                    f"{key} has scores that are no numbers; leave out what was not measured: {model.scores}"
                )
        for resource, gate in self.gates.items():
            if len(gate.evidence) != (rows := len(self._keys_of(resource))):
                raise ValueError(f"the gates of {resource.value} need {rows} series, got {len(gate.evidence)}")
        for resource, calibration in self.calibrations.items():
            if len(calibration.covered) != (rows := len(self._keys_of(resource))):
                raise ValueError(
                    f"the calibration of {resource.value} needs {rows} series, got {len(calibration.covered)}"
                )
        for resource, record in self.combinations.items():
            absent = [name for name in record.forecasters if (resource, name) not in self.forecasters]
            rows = len(self._keys_of(resource))
            if absent or record.levels != self.levels or len(record.loss) != rows:
                raise ValueError(
                    f"the combination of {resource.value} needs its forecasters, the levels {self.levels} and {rows} "
                    f"series; it has {len(record.loss)} series, levels {record.levels}, and no {absent}"
                )

    def forecast(
        self, panel: UsagePanel, target: Target | None = None, levels: Sequence[float] | None = None
    ) -> PanelForecast:
        """Calibrated quantiles for every series of the panel from its last step on; default target and levels
        are the bundle's.

        A series unknown to the bundle is served by what its siblings or the fleet have shown, and marked cold; one of a
        resource unknown to it, and one whose gate is closed, by the baseline, uncalibrated. One with fewer than
        MINIMUM_SAMPLES samples gets NoForecast. A peak is answered by the bundle's part for it. Raises ForecastError
        for another step length, for impossible levels, and for a peak that it has no part for.
        """
        return self.forecast_history(
            panel.keys, panel.history(), target, levels, kin=panel.kin, remarks=_remarks(panel)
        )

    def forecast_history(
        self,
        keys: Sequence[SeriesKey],
        history: History,
        target: Target | None = None,
        levels: Sequence[float] | None = None,
        *,
        kin: Mapping[str, Kin] = NO_KIN,
        closed: Mapping[SeriesKey, str] | None = None,
        remarks: Sequence[str] = (),
    ) -> PanelForecast:
        """The same for bare arrays, row i belonging to `keys[i]`; what a backtest of the bundle calls.

        `kin` is what is known of workloads by their names; it counts for those that the bundle was not trained on.
        `closed` stands in for the bundle's own: a peak is served by the baseline where the steps are. `remarks`, one
        for each row where there are any, end the reasons.
        """
        asked = target or self.target
        closed = self.closed if closed is None else closed
        if asked.is_peak and asked != self.target:
            part = self.peak(asked)
            return part.forecast_history(keys, history, asked, levels, kin=kin, closed=closed, remarks=remarks)
        if history.step_seconds != self.step_seconds:
            raise ForecastError(
                f"the model was trained on steps of {self.step_seconds} s and cannot forecast steps of "
                f"{history.step_seconds} s"
            )
        wanted = tuple(checked_levels(self.levels if levels is None else levels).tolist())
        values = np.full((len(keys), len(wanted), len(asked.ahead)), np.nan)
        outcomes = [
            self._outcome(key, kin, int(n), remark, closed.get(key))
            for key, n, remark in zip(keys, _sample_counts(history), remarks or [""] * len(keys), strict=True)
        ]
        rows_by_forecaster: dict[tuple[Resource, str, bool], list[int]] = {}
        for row, outcome in enumerate(outcomes):
            if isinstance(outcome, Served):
                # What is known of a closed series' coverage is the model's, not the baseline's.
                served_by = keys[row].resource, outcome.forecaster, keys[row] in closed
                rows_by_forecaster.setdefault(served_by, []).append(row)
        for (resource, name, is_as_stated), rows in rows_by_forecaster.items():
            values[rows] = self._values(
                (resource, name),
                keys,
                history,
                np.asarray(rows),
                target=asked,
                levels=wanted,
                kin=kin,
                calibration=None if is_as_stated else self.calibrations.get(resource),
            )
        made_at = QuantileForecast(wanted, values, history.end_seconds, history.step_seconds, asked)
        return PanelForecast(tuple(keys), made_at, tuple(outcomes))

    def forecasts(
        self, panel: UsagePanel, targets: Sequence[Target], levels: Sequence[float] | None = None
    ) -> tuple[PanelForecast, ...]:
        """What is served of several targets at once: as `forecast` of each, with none that contradicts another."""
        return self.forecasts_history(panel.keys, panel.history(), targets, levels, kin=panel.kin)

    def forecasts_history(
        self,
        keys: Sequence[SeriesKey],
        history: History,
        targets: Sequence[Target],
        levels: Sequence[float] | None = None,
        *,
        kin: Mapping[str, Kin] = NO_KIN,
    ) -> tuple[PanelForecast, ...]:
        """The same for bare arrays; what a backtest of steps and peaks calls."""
        made = [self.forecast_history(keys, history, target, levels, kin=kin) for target in targets]
        is_cold = np.asarray([isinstance(each, Served) and each.is_cold for each in made[0].outcomes], dtype=np.bool_)
        values = lifted([each.forecast.values for each in made], targets, is_cold)
        return tuple(
            replace(each, forecast=replace(each.forecast, values=own)) for each, own in zip(made, values, strict=True)
        )

    def _values(
        self,
        served_by: tuple[Resource, str],
        keys: Sequence[SeriesKey],
        history: History,
        rows: Rows,
        *,
        target: Target,
        levels: tuple[float, ...],
        kin: Mapping[str, Kin],
        calibration: Calibration | None,
    ) -> FloatArray:
        """Quantiles of those rows of a history that one forecaster of a resource serves, [rows, levels, outcomes]."""
        resource, name = served_by
        known = [keys[row] for row in rows]
        grid = levels if calibration is None else tuple(sorted({*calibration.levels, *levels}))
        instead = self.asked_levels(resource, known, levels)
        weights = self._weights_for(resource, known, kin) if name == COMBINATION else None
        alone = self.forecasters.get(served_by) or catalog.create(FALLBACK)

        def answer(block: Rows) -> FloatArray:
            past = history.select(rows[block])
            if weights is None:
                made = alone.predict(past, target, grid).values
            else:
                made = self._combined(resource, weights[block], past, target, grid)
            if calibration is not None:
                made = monotone(at_levels(made, grid, instead[block], calibration.part_ends))
            return within_sight(made, past, levels)

        return np.concatenate(answered_in_blocks(answer, np.arange(len(rows)), self.threads))

    def over_threads(self, threads: int) -> "Bundle":
        """The same, forecasting and learning with so many threads, its peaks too."""
        return replace(self, threads=threads, peaks=tuple(each.over_threads(threads) for each in self.peaks))

    def peak(self, target: Target) -> "Bundle":
        """The part of the bundle for a peak. Raises ForecastError where there is none."""
        for each in self.peaks:
            if each.target == target:
                return each
        windows = ", ".join(str(each.target.steps) for each in self.peaks) or "none"
        raise ForecastError(
            f"the model forecasts no peak of {target.steps} steps; it does of: {windows}. Train with it in "
            "forecast.peaks"
        )

    def asked_levels(self, resource: Resource, keys: Sequence[SeriesKey], levels: Sequence[float]) -> FloatArray:
        """The levels that a resource's forecasts are asked for at instead of those stated, [series, parts, levels].

        For a series unknown to the bundle the fleet's; without a calibration those stated.
        """
        calibration = self.calibrations.get(resource)
        if calibration is None:
            return np.tile(np.asarray(levels, dtype=np.float64), (len(keys), 1, 1))
        # Usage in a single step seldom exceeds all that was seen; the highest of many does.
        beyond = self.target.is_peak
        asked, unknown = calibration.asked(levels, beyond=beyond), calibration.asked_of_unknown(levels, beyond=beyond)
        row_of = {key: row for row, key in enumerate(self._keys_of(resource))}
        return np.stack([asked[row_of[key]] if key in row_of else unknown for key in keys])

    @property
    def learns_from_seconds(self) -> int:
        """The earliest end of a history, in epoch seconds, that `learned` learns anything from."""
        own = self.learned_until_seconds + self.target.steps * self.step_seconds + LEARNING_SECONDS
        return min([own, *(each.learns_from_seconds for each in self.peaks)])

    def learned(self, keys: Sequence[SeriesKey], history: History) -> "Bundle":
        """The bundle with what became of the forecasts of one horizon before the history's end in its records.

        The one place where serving learns; offline as online it is called with the window that a forecast is made from,
        row i belonging to `keys[i]`. The bundle itself where its last look was less than an hour before, on another
        grid, and where there is nothing to weigh.
        """
        peaks = tuple(each.learned(keys, history) for each in self.peaks)
        cutoff = history.end_seconds - self.target.steps * self.step_seconds
        elapsed = cutoff - self.learned_until_seconds
        is_other_grid = history.step_seconds != self.step_seconds
        if not self.combinations or is_other_grid or elapsed < LEARNING_SECONDS or history.steps <= self.target.steps:
            is_same = all(each is before for each, before in zip(peaks, self.peaks, strict=True))
            return self if is_same else replace(self, peaks=peaks)
        past = history.until(cutoff)
        actual, is_bound = self.target.after(history, cutoff), self.target.bounds_after(history, cutoff)
        records, calibrations, gates = {}, dict(self.calibrations), dict(self.gates)
        for resource, record in self.combinations.items():
            reach_seconds = self.target.ahead[np.asarray(record.part_ends) - 1] * float(self.step_seconds)
            lost, covered, judged = self._lesson(resource, keys, past, actual, is_bound)
            records[resource] = record.realised(lost, elapsed, reach_seconds)
            if resource in self.calibrations:
                calibrations[resource] = self.calibrations[resource].realised(covered, elapsed, reach_seconds)
            if judged is not None:
                gate = self.gates.get(resource) or Gate.without_record(len(judged))
                gates[resource] = gate.realised(judged, elapsed, float(reach_seconds[-1]))
        return replace(
            self,
            combinations=records,
            calibrations=calibrations,
            gates=gates,
            learned_until_seconds=cutoff,
            peaks=peaks,
        )

    def _lesson(
        self,
        resource: Resource,
        keys: Sequence[SeriesKey],
        past: History,
        actual: FloatArray,
        is_bound: BoolArray | None,
    ) -> tuple[FloatArray, FloatArray, FloatArray | None]:
        """What a cutoff has cost each forecaster, how much lay under what was served, and what that and the baseline
        have cost, for a resource's series.

        As the records take it: [series, forecasters, parts, levels] in units of the series' size, [series, parts,
        grid], and [series, 2] in the same units, None where nothing is gated; NaN for a series that is not among the
        keys. Weights and calibration are today's, as for a forecast made now.
        """
        record = self.combinations[resource]
        calibration = self.calibrations.get(resource)
        if calibration is None:
            calibration = Calibration.without_record(len(record.loss), self.levels, len(self.target.ahead))
        lost, covered = np.full(record.loss.shape, np.nan), np.full(calibration.covered.shape, np.nan)
        known, grid, ends = self._keys_of(resource), calibration.levels, record.part_ends
        row_of = {key: row for row, key in enumerate(keys)}
        here = [place for place, key in enumerate(known) if key in row_of]
        rows = np.asarray([row_of[known[place]] for place in here], dtype=np.intp)
        gated = None
        if not self.target.is_peak and FALLBACK in record.forecasters:
            gated = np.full((len(known), 2), np.nan)
        instead = None
        if gated is not None and resource in self.calibrations:
            instead = calibration.asked(self.levels, beyond=self.target.is_peak)
        stated, weights = [grid.index(level) for level in self.levels], self.weights[resource]

        def learn(block: Rows) -> None:
            asked, happened = past.select(rows[block]), actual[rows[block]]
            cut_off = None if is_bound is None else is_bound[rows[block]]
            places = [here[number] for number in block]
            made = [
                self.forecasters[resource, name].predict(asked, self.target, grid).values for name in record.forecasters
            ]
            loss = part_losses(happened, [each[:, stated] for each in made], self.levels, ends, cut_off)
            lost[places] = loss / loss_unit(asked)[:, None, None, None]
            said = combined(dict(enumerate(made)), weights[places], ends, self.levels, grid)
            for row, place in enumerate(places):
                if (name := self.series[known[place]].forecaster) != COMBINATION:
                    said[row] = made[record.forecasters.index(name)][row]
            covered[places] = part_coverage(happened, said, grid, ends, cut_off)
            # A series with less past than this would not have been forecast.
            enough = np.flatnonzero(_sample_counts(asked) >= MINIMUM_SAMPLES)
            if gated is not None and enough.size:
                known_past, at = asked.select(enough), np.asarray(places, dtype=np.intp)[enough]
                served = said[enough]
                served = served[:, stated] if instead is None else monotone(at_levels(served, grid, instead[at], ends))
                alone = made[record.forecasters.index(FALLBACK)][enough][:, stated]
                gated[at] = _whole_losses(
                    known_past,
                    happened[enough],
                    (served, alone),
                    self.levels,
                    cut_off if cut_off is None else cut_off[enough],
                )

        answered_in_blocks(learn, np.arange(len(here)), self.threads)
        if gated is not None:
            # Where the baseline serves already there is nothing to close.
            gated[[not self.series[key].gate_passed for key in known]] = np.nan
        return lost, covered, gated

    def _combined(
        self, resource: Resource, weights: FloatArray, past: History, target: Target, levels: tuple[float, ...]
    ) -> FloatArray:
        """The combination's quantiles, [series, levels, outcomes]; `weights` as from `_weights_for`."""
        record = self.combinations[resource]
        asked: dict[int, FloatArray] = {}
        for number, name in enumerate(record.forecasters):
            rows = np.flatnonzero((weights[:, number] > NEGLIGIBLE_WEIGHT).any(axis=(1, 2)))
            if rows.size:
                values = np.full((past.series_count, len(levels), len(target.ahead)), np.nan)
                # All of them share what is derived from their past; a few are cheaper on their own.
                some = past if 2 * rows.size > past.series_count else past.select(rows)
                made = self.forecasters[resource, name].predict(some, target, levels).values
                values[rows] = made[rows] if some is past else made
                asked[number] = values
        return combined(asked, weights, record.part_ends, self.levels, levels)

    def _weights_for(self, resource: Resource, keys: Sequence[SeriesKey], kin: Mapping[str, Kin]) -> FloatArray:
        """Weights of the forecasters for some series, [series, forecasters, parts, levels].

        A series unknown to the bundle takes the mean of its nearest siblings', or the fleet's.
        """
        weights, unknown = self.weights[resource], self.combinations[resource].weights_of_unknown()
        row_of = {key: row for row, key in enumerate(self._keys_of(resource))}
        found = []
        for key in keys:
            if key in row_of:
                found.append(weights[row_of[key]])
            elif rows := self._nearest_siblings(key, kin)[1]:
                found.append(weights[rows].mean(axis=0))
            else:
                found.append(unknown)
        return np.stack(found)

    def _nearest_siblings(self, key: SeriesKey, kin: Mapping[str, Kin]) -> tuple[str, list[int]]:
        """By what a series unknown to the bundle has siblings in it, and their rows among its resource's."""
        for kinship, tie, rows_of in zip(KINSHIPS, ties(key, kin), self._rows_by_tie[key.resource], strict=True):
            if tie and (rows := rows_of.get(tie)):
                return kinship, rows
        return "", []

    @cached_property
    def weights(self) -> Mapping[Resource, FloatArray]:
        """Of each resource's forecasters, as `Combination.weights`; rows in the order of `series`."""
        kin = self._kin
        return {
            resource: record.weights(siblings(self._keys_of(resource), kin))
            for resource, record in self.combinations.items()
        }

    @cached_property
    def closed(self) -> Mapping[SeriesKey, str]:
        """The series whose gate has closed while serving, and why."""
        return {
            key: gate.said(row, FALLBACK)
            for resource, gate in self.gates.items()
            for row, key in enumerate(self._keys_of(resource))
            if gate.is_closed[row]
        }

    @cached_property
    def _rows_by_tie(self) -> Mapping[Resource, tuple[Mapping[Tie, list[int]], ...]]:
        kin, found = self._kin, {}
        for resource in self.combinations:
            rows_of: tuple[dict[Tie, list[int]], ...] = tuple({} for _ in KINSHIPS)
            for row, key in enumerate(self._keys_of(resource)):
                for each, tie in zip(rows_of, ties(key, kin), strict=True):
                    each.setdefault(tie, []).append(row)
            found[resource] = rows_of
        return found

    @property
    def _kin(self) -> Mapping[str, Kin]:
        return {key.workload: model.kin for key, model in self.series.items()}

    def _keys_of(self, resource: Resource) -> list[SeriesKey]:
        return [key for key in self.series if key.resource == resource]

    def save(self, folder: Path) -> None:
        """Write the bundle as data into a folder, which is made if need be; the same bundle gives the same bytes.

        The manifest is written last, so that an interrupted save cannot be loaded.
        """
        from predictor.serving.bundle_files import write
        from predictor.serving.bundle_state import parts_of

        write(folder, parts_of(self))

    @staticmethod
    def load(folder: Path) -> "Bundle":
        """The bundle back from its folder, predicting bit-identically.

        Raises CorruptModel for a folder that is damaged, foreign or of a newer format; never half a bundle.
        """
        from predictor.serving.bundle_files import read
        from predictor.serving.bundle_state import bundle_from

        parts = read(folder)
        try:
            return bundle_from(parts)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise CorruptModel(f"the model in {folder} is damaged: {error}; keep the last good one") from error

    def _outcome(
        self, key: SeriesKey, kin: Mapping[str, Kin], samples: int, remark: str, closed: str | None
    ) -> Served | NoForecast:
        if samples < MINIMUM_SAMPLES:
            return NoForecast(f"too little history: {samples} samples, {MINIMUM_SAMPLES} are needed")
        if closed:
            return Served(FALLBACK, False, _sentences(f"{closed}: {FALLBACK} serves", remark), is_baseline=True)
        model = self.series.get(key)
        if model is None:
            cold = f"cold: not among the {len(self.series)} series the model was trained on"
            if key.resource not in self.combinations:
                untrained = f"no model of {key.resource.value}: {FALLBACK} serves"
                return Served(FALLBACK, True, _sentences(cold, untrained, remark), is_baseline=True)
            kinship, rows = self._nearest_siblings(key, kin)
            whose = f"{len(rows)} workload{'s' if len(rows) > 1 else ''} {kinship}" if rows else "the whole fleet"
            return Served(COMBINATION, True, _sentences(cold, f"weights of {whose}", remark))
        return Served(model.forecaster, False, _sentences(model.reason, remark), is_baseline=not model.gate_passed)


def within_sight(values: FloatArray, past: History, levels: Sequence[float]) -> FloatArray:
    """Quantiles [series, levels, outcomes] held to what was seen: never far above the highest sample of the past, and
    at the upper levels not below what the newest steps all reached, as after a deploy that uses more. What is no number
    stays so.
    """
    highest = np.nanmax(past.usage, axis=1)[:, None, None]
    newest = np.nan_to_num(past.last(NEWEST_STEPS).usage).min(axis=1)[:, None, None]
    is_upper = (np.asarray(levels) >= UPPER_LEVEL)[:, None]
    lifted = np.where(is_upper, np.maximum(values, newest), values)
    return np.where(np.isfinite(values), np.minimum(lifted, LARGEST_MULTIPLE * highest), values)


def _whole_losses(
    past: History,
    happened: FloatArray,
    forecasts: Sequence[FloatArray],
    levels: Sequence[float],
    is_bound: BoolArray | None,
) -> FloatArray:
    """What forecasts lost as they are served, at all levels and outcomes, ÷ the series' size, [series, forecasts]."""
    held = [within_sight(each, past, levels) for each in forecasts]
    losses = part_losses(happened, held, levels, (happened.shape[1],), is_bound)
    return np.asarray(losses.mean(axis=(2, 3)) / loss_unit(past)[:, None])


def _remarks(panel: UsagePanel) -> list[str]:
    """What a reader should know of each series' newest usage: that it was only a bound of demand. Empty where not."""
    steps = min(max(SECONDS_PER_DAY // panel.step_seconds, 1), panel.steps)
    return [
        f"usage was {what} in {count} of the last {steps} steps: demand may be higher than is forecast" if count else ""
        for count, what in panel.bounds_in_words(steps)
    ]


def _sentences(*said: str) -> str:
    return "; ".join(each for each in said if each)


def _sample_counts(history: History) -> NDArray[np.int64]:
    return np.asarray(np.sum(~np.isnan(history.usage), axis=1), dtype=np.int64)
