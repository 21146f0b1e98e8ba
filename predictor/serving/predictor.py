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
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models import catalog
from models.forecast import ForecastError, Target
from predictor.errors import (
    CorruptModel,
    ModelNotFound,
    PredictorError,
    RegistryUnavailable,
    without_frames,
)
from predictor.serving.bundle import FALLBACK, Bundle, NoForecast, PanelForecast, Served
from predictor.serving.forecasts import Forecasts, ModelInUse, Origin
from predictor.serving.ports import BundleStore, QuerySource, StoredBundle, UsageSource
from predictor.serving.previous import PreviousChampion
from predictor.usage.panel import Finding, Resource, SeriesKey, Severity, UsagePanel

NO_QUERIES: Mapping[SeriesKey, str] = MappingProxyType({})
QUERIES_SECONDS = 20.0
"""Time for the queries of all objects together, and twice what one may take, so that a slow one holds up no cycle."""


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
