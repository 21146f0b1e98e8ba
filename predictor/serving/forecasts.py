"""What the predictor answers at one instant: forecasts and observations, or why there are none. No port, no IO."""

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.forecast import ForecastError
from predictor.errors import PredictorError, UnknownWorkload
from predictor.serving.bundle import FALLBACK, Bundle, NoForecast, PanelForecast, SeriesForecast
from predictor.usage.panel import Finding, Resource, SeriesKey, Severity, UsagePanel, unknown_workload


class Origin(StrEnum):
    """Where the model in use came from."""

    REGISTRY = "registry"
    """The registry named it, and it was loaded by this process."""
    LAST_GOOD = "last_good"
    """The registry has not answered since the start; this is the copy kept on disk."""
    PREVIOUS = "previous"
    """The version that was champion before: the champion cannot be used, or not for this series."""
    NONE = "none"
    """There is no model: yesterday's same hour is the forecast."""


@dataclass(frozen=True, slots=True)
class ModelInUse:
    """Which model answers, and how fresh it is."""

    version: str
    """Registered version; empty where there is no model."""
    origin: Origin
    bundle: Bundle
    confirmed_at_seconds: int
    """When the registry last named this version; for a copy on disk, when it was last loaded from there."""
    problem: PredictorError | None = None
    """Why the registry could not be followed at the last attempt."""

    def age_seconds(self, now_seconds: float) -> float:
        """Time since the registry last named this version."""
        return max(0.0, now_seconds - self.confirmed_at_seconds)

    @property
    def description(self) -> str:
        """The version and where it came from, in words."""
        if self.origin is Origin.NONE:
            return f"no model ({FALLBACK})"
        remark = {Origin.LAST_GOOD: " (last good copy)", Origin.PREVIOUS: " (the champion before)"}
        return f"model version {self.version}{remark.get(self.origin, '')}"

    @property
    def because(self) -> str:
        """Why this is not the champion, in words; empty where it is."""
        if self.origin is Origin.NONE:
            return f"there is no model: {self.problem}"
        if self.origin is Origin.PREVIOUS and self.problem is not None:
            return f"version {self.version}, the champion before, serves: the champion cannot be used: {self.problem}"
        return ""


@dataclass(frozen=True, slots=True)
class ObservedUsage:
    """The newest sample of a series."""

    value: float
    """In the resource's base unit."""
    measured_at_seconds: int
    """Epoch second at which the step that it is the mean of ended."""


@dataclass(frozen=True, slots=True)
class ServedForecast:
    """A series' forecast with everything that a reader needs to trust it or not."""

    series: SeriesForecast
    model: ModelInUse
    """Which model and version served this series."""
    data_age_seconds: float
    """Age of the newest sample the forecast was made from."""
    peaks: tuple[SeriesForecast, ...] = ()
    """Forecasts of the highest usage within windows from the end of what was observed, shortest first."""
    _highest: dict[tuple[float, int], float] = field(default_factory=dict, repr=False, compare=False)
    """By level and steps, what was already asked of these forecasts."""

    @property
    def reason(self) -> str:
        """Why this forecaster of this model serves."""
        why = self.series.served.reason
        return f"{self.model.because}; {why}" if self.model.because else why

    @property
    def known_until_seconds(self) -> int:
        """Epoch second at which the last observed step ended and the first forecast one starts."""
        return self.series.cutoff_seconds + self.series.step_seconds

    def peak(self, level: float, until_seconds: float) -> float:
        """Highest usage at a level from the end of what was observed until then, in the resource's base unit.

        That of the shortest window forecast as a peak that reaches so far; where there is none, the largest of the
        steps' own quantiles and of the shorter peaks, which is less. Raises ForecastError where the forecast does not
        reach that far either.
        """
        steps = max(1, -int(-(until_seconds - self.known_until_seconds) // self.series.step_seconds))
        known = self._highest.get((level, steps))
        if known is None:
            known = self._highest[level, steps] = self._peak(level, steps)
        return known

    def _peak(self, level: float, steps: int) -> float:
        step = self.series.step_seconds
        for each in self.peaks:
            if each.target.steps >= steps:
                return float(each.at(level)[0])
        if steps > self.series.values.shape[1]:
            reach = self.series.values.shape[1] * step
            raise ForecastError(
                f"the forecast of {self.series.key} reaches {reach} s, but {steps * step} s are needed; "
                "raise forecast.horizon"
            )
        highest = [self.series.at(level)[:steps].max(), *(each.at(level)[0] for each in self.peaks)]
        return float(max(highest))


class _Found(NamedTuple):
    """What a window says of what is to come of one series."""

    series: SeriesForecast | NoForecast
    is_finite: bool
    peaks: tuple[SeriesForecast, ...]
    """Those that are finite, the shortest window first."""
    highest: dict[tuple[float, int], float]
    """What was already asked of them, by level and steps."""


class _Lookup:
    """What a window says of each series, worked out once for all the instants at which it is asked."""

    def __init__(
        self, panel: UsagePanel | None, made: PanelForecast | NoForecast, peaks: tuple[PanelForecast, ...]
    ) -> None:
        self.panel, self.made, self.peaks = panel, made, peaks
        self._observed: dict[SeriesKey, ObservedUsage | NoForecast] = {}
        self._forecast: dict[SeriesKey, _Found] = {}

    @cached_property
    def rows(self) -> dict[SeriesKey, int]:
        return {key: row for row, key in enumerate(self.panel.keys)} if self.panel else {}

    @cached_property
    def last_columns(self) -> NDArray[np.intp]:
        """Column of each series' newest sample; -1 where it has none."""
        if self.panel is None or self.panel.steps == 0:
            return np.full(len(self.rows), -1, dtype=np.intp)
        seen = ~np.isnan(self.panel.usage)
        last = self.panel.steps - 1 - np.argmax(seen[:, ::-1], axis=1)
        return np.where(seen.any(axis=1), last, -1)

    @cached_property
    def _broken(self) -> dict[tuple[str, str], str]:
        """Why series that were read cannot be used."""
        found = self.panel.findings if self.panel else ()
        return {(f.workload, f.resource): f.message for f in found if f.workload and f.severity is Severity.BROKEN}

    def observed(self, key: SeriesKey, panel: UsagePanel) -> ObservedUsage | NoForecast:
        """The newest sample of a series, or why there is none."""
        answer = self._observed.get(key)
        if answer is None:
            answer = self._observed[key] = self._newest(key, panel)
        return answer

    def _newest(self, key: SeriesKey, panel: UsagePanel) -> ObservedUsage | NoForecast:
        row = self.rows.get(key)
        if row is None:
            return NoForecast(self._broken.get((key.workload, key.resource), f"no usage of {key} was observed"))
        column = int(self.last_columns[row])
        if column < 0:
            return NoForecast(f"no sample of {key} within the last {_span(panel.steps * panel.step_seconds)}")
        return ObservedUsage(float(panel.usage[row, column]), panel.start_seconds + (column + 1) * panel.step_seconds)

    def forecast(self, key: SeriesKey) -> _Found:
        """The forecasts of a series' steps and peaks."""
        answer = self._forecast.get(key)
        if answer is None:
            series = self.made if isinstance(self.made, NoForecast) else self.made.of(key)
            peaks = (each.of(key) for each in self.peaks)
            finite = tuple(each for each in peaks if isinstance(each, SeriesForecast) and _is_finite(each))
            is_finite = isinstance(series, SeriesForecast) and _is_finite(series)
            answer = self._forecast[key] = _Found(series, is_finite, finite, {})
        return answer


@dataclass(frozen=True)
class Forecasts:
    """Every answer at one instant. `of` and `observed` never fail: what is not known is a NoForecast."""

    now_seconds: int
    stale_after_seconds: float
    model: ModelInUse
    panel: UsagePanel | None
    """What was observed, slim; None where the source gave no answer."""
    made: PanelForecast | NoForecast
    source_problem: PredictorError | None = None
    """Why there is no observation."""
    newest_sample_seconds: int | None = None
    """End of the newest sample of any series, also of the last answer that the source gave."""
    peaks: tuple[PanelForecast, ...] = ()
    """Forecasts of peaks, the shortest window first."""
    previous: ModelInUse | None = None
    """The version that was champion before, where it served some of the series instead of `model`."""
    by_previous: frozenset[SeriesKey] = frozenset()
    """The series that it served."""

    _lookup: _Lookup = field(default=_Lookup(None, NoForecast("nothing was observed"), ()), repr=False, compare=False)

    def __post_init__(self) -> None:
        held = self._lookup
        if held.panel is not self.panel or held.made is not self.made or held.peaks is not self.peaks:
            object.__setattr__(self, "_lookup", _Lookup(self.panel, self.made, self.peaks))

    @property
    def keys(self) -> tuple[SeriesKey, ...]:
        """The series that were observed."""
        return self.panel.keys if self.panel else ()

    def observed(self, key: SeriesKey) -> ObservedUsage | NoForecast:
        """The newest sample of a series, however old, or why there is none."""
        if self.panel is None:
            return self._no_source()
        return self._lookup.observed(key, self.panel)

    def steps_since(self, key: SeriesKey, seconds: float) -> tuple[tuple[int, float], ...]:
        """End, in epoch seconds, and value of each observed step of a series that ended after then, oldest first.

        NaN is no sample; nothing is returned of a series that was not observed.
        """
        row = self._lookup.rows.get(key)
        if self.panel is None or row is None:
            return ()
        step, last = self.panel.step_seconds, self.panel.end_seconds + self.panel.step_seconds
        count = min(max(0, int(-((seconds - last) // step))), self.panel.steps)
        if not count:
            return ()
        values = self.panel.usage[row, -count:].tolist()
        return tuple((last - (count - 1 - place) * step, value) for place, value in enumerate(values))

    def of(self, key: SeriesKey) -> ServedForecast | NoForecast:
        """The forecast of a series, or why there is none."""
        observed = self.observed(key)
        if isinstance(observed, NoForecast):
            return observed
        age = self.now_seconds - observed.measured_at_seconds
        if age > self.stale_after_seconds:
            return NoForecast(
                f"the newest sample of {key} is {_span(age)} old; older than {_span(self.stale_after_seconds)} is no "
                "answer"
            )
        found = self._lookup.forecast(key)
        if isinstance(found.series, NoForecast):
            return found.series
        model = self.previous if self.previous is not None and key in self.by_previous else self.model
        if not found.is_finite:
            return NoForecast(f"{model.description} forecasts NaN or infinity for {key}")
        return ServedForecast(found.series, model, max(0.0, age), found.peaks, found.highest)

    def is_stale(self, key: SeriesKey) -> bool:
        """Whether the series was observed, but too long ago."""
        observed = self.observed(key)
        return (
            isinstance(observed, ObservedUsage)
            and self.now_seconds - observed.measured_at_seconds > self.stale_after_seconds
        )

    def named(self, workload: str, resource: Resource) -> SeriesKey:
        """The key of a workload given as `namespace/name` or `namespace/kind/name`; the kind may be in lower case.

        Raises UnknownWorkload with the nearest names, for a short name that two kinds share, and for one that was left
        out, with what was found in it.
        """
        wanted = workload.split("/")
        matches = [
            key
            for key in self.keys
            if key.resource == resource and _is_named(key.workload.split("/"), wanted, key.workload == workload)
        ]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise unknown_workload(workload, [key.workload for key in matches])
        if left_out := self._left_out(workload, resource):
            raise UnknownWorkload(left_out)
        others = sorted({k.resource.value for k in self.keys if _is_named(k.workload.split("/"), wanted, False)})
        if others:
            raise unknown_workload(f"{workload} {resource.value}", [f"{workload} {other}" for other in others])
        held = [key.workload for key in self.keys if key.resource == resource]
        if not held:
            raise UnknownWorkload(f"no {resource.value} usage of any workload was observed; look for another resource")
        raise unknown_workload(workload, held)

    def _left_out(self, workload: str, resource: Resource) -> str:
        """Why a workload that has samples is not among the series; empty where none was left out."""
        wanted = workload.split("/")
        for found in sorted(self.panel.findings if self.panel else (), key=_is_mild):
            is_meant = _is_named(found.workload.split("/"), wanted, found.workload == workload)
            if is_meant and found.resource == resource.value:
                return f"{found.workload} {found.resource} is left out: {found.message}"
        return ""

    def _no_source(self) -> NoForecast:
        newest = self.newest_sample_seconds
        age = f"; the newest sample seen is {_span(self.now_seconds - newest)} old" if newest is not None else ""
        return NoForecast(f"usage could not be read: {self.source_problem}{age}")


def _is_finite(forecast: SeriesForecast) -> bool:
    return bool(np.isfinite(forecast.values).all())


def _is_named(name: list[str], wanted: list[str], is_equal: bool) -> bool:
    if is_equal:
        return True
    if len(name) != 3:
        return False
    if len(wanted) == 2:
        return [name[0], name[2]] == wanted
    return len(wanted) == 3 and [name[0], name[1].lower(), name[2]] == [wanted[0], wanted[1].lower(), wanted[2]]


def _span(seconds: float) -> str:
    """A span of time for a person, in one unit."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}".replace(".0 ", " ")
    return f"{seconds:.0f} s"


def _is_mild(finding: Finding) -> bool:
    return finding.severity is not Severity.BROKEN
