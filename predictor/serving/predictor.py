"""The predictor: answers what every workload will use, from recent usage and the model that serves.

It asks its two ports, a source of usage and a store of models, and does no other IO; the time is an argument.
Nothing here fails a caller's cycle: a source that is gone makes every answer a NoForecast with the reason, a
registry that is gone leaves the last model in force, with its age. The ladder, best rung first: the champion or the
last good copy of it; the version that was champion before, where there is neither, and for a series that the champion
does not know or did badly on; the seasonal naive; no answer.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from models import catalog
from models.forecast import ForecastError, Target
from predictor.errors import (
    CorruptModel,
    ModelNotFound,
    PredictorError,
    RegistryUnavailable,
    UnknownWorkload,
    without_frames,
)
from predictor.serving.bundle import FALLBACK, Bundle, NoForecast, PanelForecast, SeriesForecast, Served
from predictor.serving.ports import BundleStore, QuerySource, StoredBundle, UsageSource
from predictor.serving.previous import PreviousChampion
from predictor.usage.panel import Finding, Resource, SeriesKey, Severity, UsagePanel, unknown_workload

NO_QUERIES: Mapping[SeriesKey, str] = MappingProxyType({})
QUERIES_SECONDS = 20.0
"""Time for the queries of all objects together, and twice what one may take, so that a slow one holds up no cycle."""


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


class Remembered(Protocol):
    """A model that was loaded before this process started."""

    @property
    def stored(self) -> StoredBundle:
        """The model and its version."""
        ...

    @property
    def kept_at_seconds(self) -> int:
        """Epoch second at which it came out of the registry."""
        ...


class LearnedCopy(Protocol):
    """Where the model with what it has learned while serving outlives the process; neither call fails."""

    def keep(self, version: str, bundle: Bundle) -> None:
        """Put it in the place of the one before."""
        ...

    def read(self) -> Remembered | None:
        """What was last kept, or None."""
        ...


@dataclass
class Predictor:
    """Keeps the serving model and the window of usage, and asks for either again only when it can have changed."""

    source: UsageSource
    store: BundleStore
    step_seconds: int
    span: timedelta
    """How much past is read before a forecast."""
    horizon: timedelta
    levels: Sequence[float]
    stale_after: timedelta
    model: str = "champion"
    """Alias to follow, or a version (digits) to stay with."""
    refresh: timedelta = timedelta(minutes=5)
    """How often the registry is asked whether the alias has moved."""
    last_good: Callable[[], Remembered | None] = field(default=lambda: None)
    """The copy to start from where the registry is gone."""
    resources: Collection[Resource] = tuple(Resource)
    peaks_within: timedelta = timedelta(0)
    """Peaks are forecast of windows up to the first that is as long as this; none by default."""
    threads: int = 1
    """How many threads forecast and learn."""
    query_source: QuerySource | None = None
    """Where queries that objects give are evaluated; without it they have no answer."""
    learned_copy: LearnedCopy | None = None
    """Where what is learned is kept across restarts; by default it is lost."""
    previous: PreviousChampion | None = None
    """Who knows the version that was champion before; by default nobody, and it never serves."""

    def __post_init__(self) -> None:
        self._in_use: ModelInUse | None = None
        self._asked_at_seconds: float | None = None
        self._answered: Forecasts | None = None
        self._asked_for: tuple[tuple[float, ...], frozenset[Resource], dict[SeriesKey, str]] | None = None
        """What the answer is to: levels, resources and queries."""
        self._newest_sample_seconds: int | None = None
        self._learning: tuple[Bundle, Bundle] | None = None
        """The model that was loaded, and what it has become by what happened since."""
        self._learning_previous: tuple[Bundle, Bundle] | None = None
        """The same of the version before, in so far as it is needed."""

    def predict(
        self,
        now_seconds: float,
        *,
        levels: Collection[float] = (),
        resources: Collection[Resource] | None = None,
        queries: Mapping[SeriesKey, str] = NO_QUERIES,
    ) -> Forecasts:
        """Forecasts of every series from the last complete step before `now_seconds` on, at `levels` too.

        Of all resources, or only of some of them; `queries` say what the usage of their keys is, each held to the key's
        namespace. Within one step, with one model and for the same question the window and the forecasts are those of
        the call before.
        """
        now = int(now_seconds)
        model = self._model(now)
        end = now // self.step_seconds * self.step_seconds - self.step_seconds
        asked = tuple(sorted({*self.levels, *levels}))
        wanted = frozenset(self.resources if resources is None else {*resources} & {*self.resources})
        asked_for = asked, wanted, dict(queries)
        before = self._answered
        if (
            before is not None
            and before.panel is not None
            and before.panel.end_seconds == end
            and before.model.bundle is model.bundle
            and self._asked_for == asked_for
        ):
            return self._kept(replace(before, now_seconds=now, model=model))
        del before
        # A fleet's window is large: the one before goes before the next one comes.
        self._answered = None
        stale_after_seconds = self.stale_after.total_seconds()
        try:
            panel = self.source.fetch(
                start_seconds=end - int(self.span.total_seconds()) + self.step_seconds,
                end_seconds=end,
                step_seconds=self.step_seconds,
                resources=[resource for resource in Resource if resource in wanted],
            ).slim()
        except PredictorError as problem:
            nothing = NoForecast("nothing was observed")
            return self._kept(Forecasts(now, stale_after_seconds, model, None, nothing, without_frames(problem)))
        panel = self._with_queries(panel, queries)
        self._asked_for = asked_for
        try:
            made, known = self._forecasts(model, panel, asked)
        except ForecastError as error:
            nothing = NoForecast(f"{model.description} cannot forecast: {error}")
            return self._kept(Forecasts(now, stale_after_seconds, model, panel, nothing))
        if not made:
            return self._kept(Forecasts(now, stale_after_seconds, model, panel, NoForecast("no workload was observed")))
        answer = Forecasts(now, stale_after_seconds, model, panel, made[0], peaks=made[1:])
        return self._kept(self._completed(answer, made, known))

    def _with_queries(self, panel: UsagePanel, queries: Mapping[SeriesKey, str]) -> UsagePanel:
        """The panel with a series for each query that has an answer, and a finding for each that has none."""
        if not queries or not panel.steps:
            return panel
        if self.query_source is None:
            text = "the source of usage evaluates no queries"
            findings = [Finding(key.workload, key.resource.value, Severity.BROKEN, text) for key in queries]
            return replace(panel, findings=(*panel.findings, *findings))
        found = self.query_source.fetch_queries(
            queries,
            start_seconds=panel.start_seconds,
            end_seconds=panel.end_seconds,
            step_seconds=panel.step_seconds,
            within_seconds=QUERIES_SECONDS,
        )
        return panel.beside(found.slim())

    def _kept(self, answer: Forecasts) -> Forecasts:
        columns = answer._lookup.last_columns
        if answer.panel is not None and (columns >= 0).any():
            newest = int(columns.max())
            self._newest_sample_seconds = answer.panel.start_seconds + (newest + 1) * answer.panel.step_seconds
        self._answered = replace(answer, newest_sample_seconds=self._newest_sample_seconds)
        return self._answered

    def _forecasts(
        self, model: ModelInUse, panel: UsagePanel, levels: tuple[float, ...]
    ) -> tuple[tuple[PanelForecast, ...], Bundle]:
        """The forecast of the steps, then those of peaks, none without a series; and the model as it has learned.

        Raises ForecastError.
        """
        before = self._known(model)
        if not panel.keys:
            return (), before
        known = before.learned(panel.keys, panel.history())
        self._learning = model.bundle, known
        if known is not before and self.learned_copy is not None and model.version:
            self.learned_copy.keep(model.version, known)
        targets = (Target(self._horizon_steps), *(part.target for part in known.peaks))
        return known.forecasts(panel, targets, levels), known

    def _completed(self, answer: Forecasts, made: tuple[PanelForecast, ...], champion: Bundle) -> Forecasts:
        """The answer with the version before in the place of the champion, where that is better than what there is.

        It is for series that the champion does not know, or whose gate is closed, and only asked for if there are any.
        """
        wanting = [
            row
            for row, (key, outcome) in enumerate(zip(made[0].keys, made[0].outcomes, strict=True))
            if isinstance(outcome, Served) and (outcome.is_cold or key in champion.closed)
        ]
        if not wanting or self.previous is None or answer.model.origin in (Origin.NONE, Origin.PREVIOUS):
            return answer
        stored = self.previous.at_hand(answer.now_seconds, answer.model.version)
        if stored is None:
            return answer
        model = ModelInUse(stored.version, Origin.PREVIOUS, stored.bundle, answer.now_seconds)
        try:
            return self._with_previous(answer, made, champion, np.asarray(wanting, dtype=np.intp), model)
        except ForecastError:
            # Not for this question, as with a peak that it has no part for.
            return answer

    def _with_previous(
        self,
        answer: Forecasts,
        made: tuple[PanelForecast, ...],
        champion: Bundle,
        rows: NDArray[np.intp],
        model: ModelInUse,
    ) -> Forecasts:
        """The answer with the version before for those of the rows that it knows and does not do badly on.

        It learns from these series alone, which costs as much as they are few, and only in this process: so one that it
        does worse on than the seasonal naive is left to that.
        """
        assert answer.panel is not None
        held = self._learning_previous
        before = held[1] if held is not None and held[0] is model.bundle else self._as_served(model.bundle)
        rows = np.asarray([row for row in rows.tolist() if made[0].keys[row] in before.series], dtype=np.intp)
        if not rows.size:
            return answer
        known_of = answer.panel.select(rows)
        known = before.learned(known_of.keys, known_of.history())
        self._learning_previous = model.bundle, known
        rows = np.asarray([row for row in rows.tolist() if _may_serve(known, made[0].keys[row])], dtype=np.intp)
        if not rows.size:
            return answer
        served = answer.panel.select(rows)
        serves = f"version {model.version}, the champion before, serves"
        unknown = f"version {answer.model.version} does not know it"
        why = [f"{champion.closed.get(key, unknown)}: {serves}" for key in served.keys]
        others = known.forecasts(served, [each.forecast.target for each in made], made[0].forecast.levels)
        replaced = [_replaced(each, rows, other, why) for each, other in zip(made, others, strict=True)]
        keys = frozenset(served.keys)
        return replace(answer, made=replaced[0], peaks=tuple(replaced[1:]), previous=model, by_previous=keys)

    def _known(self, model: ModelInUse) -> Bundle:
        """The model with what has been learned since it was trained, by this process or by the one before it."""
        if self._learning is not None and self._learning[0] is model.bundle:
            return self._learning[1]
        bundle = self._as_served(model.bundle)
        kept = self.learned_copy.read() if self.learned_copy is not None and model.version else None
        if kept is None or kept.stored.version != model.version or not _goes_on_from(kept.stored.bundle, bundle):
            return bundle
        return self._as_served(kept.stored.bundle)

    def _as_served(self, bundle: Bundle) -> Bundle:
        """The bundle as it serves here: without the peaks beyond the first window as long as `peaks_within`."""
        wanted = self.peaks_within.total_seconds() / self.step_seconds
        reach = next((part.target.steps for part in bundle.peaks if part.target.steps >= wanted), math.inf)
        kept = tuple(part for part in bundle.peaks if wanted > 0 and part.target.steps <= reach)
        return replace(bundle, peaks=tuple(replace(part, threads=self.threads) for part in kept), threads=self.threads)

    @property
    def _horizon_steps(self) -> int:
        return -(-int(self.horizon.total_seconds()) // self.step_seconds)

    def _model(self, now: int) -> ModelInUse:
        due = self._asked_at_seconds is None or now - self._asked_at_seconds >= self.refresh.total_seconds()
        if self._in_use is not None and not due:
            if self._in_use.origin is Origin.NONE:
                self._in_use = self._or_previous(now, self._in_use)
            return self._in_use
        self._asked_at_seconds = now
        try:
            version = self.model if self.model.isdigit() else self.store.version_of(self.model)
            held = self._in_use
            bundle = (
                held.bundle if held is not None and held.version == version and version else self.store.load(version)
            )
            self._checked(bundle)
            self._in_use = ModelInUse(version, Origin.REGISTRY, bundle, now)
        except (RegistryUnavailable, ModelNotFound, CorruptModel) as problem:
            self._in_use = self._next_best(now, without_frames(problem))
        return self._in_use

    def _checked(self, bundle: Bundle) -> None:
        if bundle.step_seconds != self.step_seconds:
            raise CorruptModel(
                f"the model was trained on steps of {bundle.step_seconds} s, but history.step is "
                f"{self.step_seconds} s; train again, or set history.step to the model's"
            )

    def _next_best(self, now: int, problem: PredictorError) -> ModelInUse:
        """The model to go on with where the registry cannot be followed."""
        held = self._in_use
        if held is not None and held.origin is not Origin.NONE:
            return ModelInUse(held.version, held.origin, held.bundle, held.confirmed_at_seconds, problem)
        kept = self.last_good()
        # A version that was asked for by number is never replaced by another one.
        if (
            kept is not None
            and kept.stored.bundle.step_seconds == self.step_seconds
            and (not self.model.isdigit() or kept.stored.version == self.model)
        ):
            return ModelInUse(kept.stored.version, Origin.LAST_GOOD, kept.stored.bundle, kept.kept_at_seconds, problem)
        bundle = held.bundle if held is not None else self._untrained()
        return self._or_previous(now, ModelInUse("", Origin.NONE, bundle, now, problem))

    def _or_previous(self, now: int, nothing: ModelInUse) -> ModelInUse:
        """The version before in the place of no model at all, once it is at hand."""
        # A version that was asked for by number is never replaced by another one.
        if self.previous is None or self.model.isdigit():
            return nothing
        stored = self.previous.at_hand(now, "")
        if stored is None:
            return nothing
        return ModelInUse(stored.version, Origin.PREVIOUS, stored.bundle, now, nothing.problem)

    def _untrained(self) -> Bundle:
        return Bundle(
            step_seconds=self.step_seconds,
            target=Target(self._horizon_steps),
            levels=tuple(self.levels),
            forecasters={(resource, FALLBACK): catalog.create(FALLBACK) for resource in Resource},
            series={},
            trained_until_seconds=0,
        )


def _goes_on_from(learned: Bundle, bundle: Bundle) -> bool:
    """Whether a model is another as it became by learning, for the same peaks."""
    same = ("step_seconds", "target", "levels", "trained_until_seconds")
    windows = [[part.target for part in each.peaks] for each in (learned, bundle)]
    return (
        all(getattr(learned, name) == getattr(bundle, name) for name in same)
        and windows[0] == windows[1]
        and learned.series.keys() == bundle.series.keys()
        and learned.learned_until_seconds >= bundle.learned_until_seconds
    )


def _may_serve(bundle: Bundle, key: SeriesKey) -> bool:
    """Whether a bundle's own model, not its baseline, serves a series that it knows."""
    return bundle.series[key].gate_passed and key not in bundle.closed


def _replaced(made: PanelForecast, rows: NDArray[np.intp], others: PanelForecast, why: Sequence[str]) -> PanelForecast:
    """The forecasts with those of some rows from another model, and why."""
    values, outcomes = made.forecast.values.copy(), list(made.outcomes)
    values[rows] = others.forecast.values
    for row, reason, outcome in zip(rows.tolist(), why, others.outcomes, strict=True):
        is_served = isinstance(outcome, Served)
        outcomes[row] = replace(outcome, reason=f"{reason}; {outcome.reason}") if is_served else outcome
    return replace(made, forecast=replace(made.forecast, values=values), outcomes=tuple(outcomes))


def _is_finite(forecast: SeriesForecast) -> bool:
    return bool(np.isfinite(forecast.values).all())


def _is_mild(finding: Finding) -> bool:
    return finding.severity is not Severity.BROKEN


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
