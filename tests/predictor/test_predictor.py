"""The predictor answers for every series, or says why not, whatever is gone."""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pytest

from models.forecast import ForecastError
from predictor.errors import CorruptModel, ModelNotFound, RegistryUnavailable, UnknownWorkload
from predictor.registry.memory import MemoryBundleStore
from predictor.serving.bundle import Bundle, NoForecast
from predictor.serving.forecasts import Forecasts, ObservedUsage, Origin, ServedForecast
from predictor.serving.ports import StoredBundle
from predictor.serving.predictor import Predictor
from predictor.usage.panel import Finding, Resource, SeriesKey, Severity, UsagePanel
from tests.support.scaling import CART, NOON_SECONDS, SwitchableSource, a_panel, noon_rush
from tests.support.serving import LEVELS, START_SECONDS, STEP_SECONDS, a_store

KEY = SeriesKey(CART, Resource.CPU)


@dataclass
class SwitchableStore:
    """A store that answers until it is told not to."""

    inner: MemoryBundleStore
    problem: Exception | None = None
    questions: int = 0

    def version_of(self, alias: str) -> str:
        self.questions += 1
        if self.problem is not None:
            raise self.problem
        return self.inner.version_of(alias)

    def load(self, version: str) -> Bundle:
        if self.problem is not None:
            raise self.problem
        return self.inner.load(version)


@dataclass(frozen=True)
class Kept:
    """A copy on disk."""

    stored: StoredBundle
    kept_at_seconds: int


def a_source() -> SwitchableSource:
    return SwitchableSource(a_panel({CART: noon_rush(2.0, 5.6), "shop/StatefulSet/db": noon_rush(1.0, 1.0)}))


def a_predictor(source: SwitchableSource, store: SwitchableStore, **changes: object) -> Predictor:
    predictor = Predictor(
        source=source,
        store=store,
        step_seconds=STEP_SECONDS,
        span=timedelta(days=8),
        horizon=timedelta(hours=4),
        levels=LEVELS,
        stale_after=timedelta(minutes=15),
    )
    for name, value in changes.items():
        setattr(predictor, name, value)
    return predictor


def a_switchable_store(source: SwitchableSource) -> SwitchableStore:
    return SwitchableStore(a_store(source.panel, START_SECONDS))


def served(answers: Forecasts, key: SeriesKey = KEY) -> ServedForecast:
    answer = answers.of(key)
    assert isinstance(answer, ServedForecast)
    return answer


def refusal(answers: Forecasts, key: SeriesKey = KEY) -> str:
    answer = answers.of(key)
    assert isinstance(answer, NoForecast)
    return answer.reason


def test_a_forecast_starts_after_the_last_complete_step() -> None:
    """At two minutes past noon the step from 11:55 is the newest one that is over, and is what was observed."""
    source = a_source()

    answers = a_predictor(source, a_switchable_store(source)).predict(NOON_SECONDS + 120)

    answer = served(answers)
    assert answer.known_until_seconds == NOON_SECONDS
    assert answer.data_age_seconds == 120
    assert answers.observed(KEY) == ObservedUsage(2.0, NOON_SECONDS)
    assert (answer.model.version, answer.model.origin) == ("1", Origin.REGISTRY)


def test_the_peak_looks_as_far_as_it_is_asked_to() -> None:
    """The rush at 12:10 lies beyond the next ten minutes and within the next eleven."""
    source = a_source()
    answer = served(a_predictor(source, a_switchable_store(source)).predict(NOON_SECONDS))

    assert answer.peak(0.99, NOON_SECONDS + 600) == pytest.approx(2.0)
    assert answer.peak(0.99, NOON_SECONDS + 660) == pytest.approx(5.6)
    with pytest.raises(ForecastError, match="raise forecast\\.horizon"):
        answer.peak(0.99, NOON_SECONDS + 5 * 3600)


def test_within_one_step_nothing_is_asked_for_again() -> None:
    """Four cycles within one step read the window once; the next step reads it anew."""
    source = a_source()
    predictor = a_predictor(source, a_switchable_store(source))

    for second in (0, 30, 60, 299):
        served(predictor.predict(NOON_SECONDS + second))
    assert source.fetches == 1
    served(predictor.predict(NOON_SECONDS + 300))

    assert source.fetches == 2


def test_only_the_resources_that_are_asked_for_are_read() -> None:
    """Within one step another question is asked at once; a resource that the predictor was not made for never is."""
    source = a_source()
    predictor = a_predictor(source, a_switchable_store(source), resources=(Resource.CPU, Resource.MEMORY))

    served(predictor.predict(NOON_SECONDS, resources={Resource.CPU}))
    assert source.resources == {Resource.CPU}
    predictor.predict(NOON_SECONDS, resources={Resource.CPU, Resource.MEMORY, Resource.GPU})

    assert source.resources == {Resource.CPU, Resource.MEMORY}
    assert source.fetches == 2


def test_a_source_that_is_gone_is_an_answer_with_the_age_of_what_was_seen() -> None:
    """Nothing raises; every answer says what failed and how old the last sample is, and the next step asks again."""
    source = a_source()
    predictor = a_predictor(source, a_switchable_store(source))
    predictor.predict(NOON_SECONDS)
    source.is_down = True

    answers = predictor.predict(NOON_SECONDS + 900)

    assert "did not answer within 60 s; the newest sample seen is 15 min old" in refusal(answers)
    source.is_down = False
    served(predictor.predict(NOON_SECONDS + 930))


def test_stale_usage_is_no_answer() -> None:
    """A series whose newest sample is older than stale_after is not forecast; it is still shown."""
    source = a_source()
    source.panel.usage[0, (NOON_SECONDS - 1200 - START_SECONDS) // STEP_SECONDS :] = np.nan

    answers = a_predictor(source, a_switchable_store(source)).predict(NOON_SECONDS)

    assert "is 20 min old; older than 15 min is no answer" in refusal(answers)
    assert answers.observed(KEY) == ObservedUsage(2.0, NOON_SECONDS - 1200)
    assert answers.is_stale(KEY)
    served(answers, SeriesKey("shop/StatefulSet/db", Resource.CPU))


def test_a_series_nobody_saw_has_no_forecast() -> None:
    """An unknown key is a NoForecast, not an error."""
    source = a_source()

    answers = a_predictor(source, a_switchable_store(source)).predict(NOON_SECONDS)

    assert "no usage of shop/Deployment/till cpu was observed" in refusal(
        answers, SeriesKey("shop/Deployment/till", Resource.CPU)
    )


def test_the_registry_is_asked_once_per_refresh_and_the_alias_followed() -> None:
    """When the alias moves the new version serves after at most one refresh."""
    source = a_source()
    store = a_switchable_store(source)
    predictor = a_predictor(source, store)
    predictor.predict(NOON_SECONDS)
    store.inner.set_alias("champion", store.inner.add(store.inner.load("1")))

    assert predictor.predict(NOON_SECONDS + 299).model.version == "1"
    assert store.questions == 1
    assert predictor.predict(NOON_SECONDS + 300).model.version == "2"


def test_without_the_registry_the_last_loaded_model_goes_on_and_its_age_grows() -> None:
    """The version stays, the problem is visible, and the age counts from the registry's last word."""
    source = a_source()
    store = a_switchable_store(source)
    predictor = a_predictor(source, store)
    predictor.predict(NOON_SECONDS)
    store.problem = RegistryUnavailable("http://mlflow:5000 did not answer")

    model = served(predictor.predict(NOON_SECONDS + 600)).model

    assert (model.version, model.origin) == ("1", Origin.REGISTRY)
    assert model.age_seconds(NOON_SECONDS + 600) == 600
    assert isinstance(model.problem, RegistryUnavailable)


def test_a_registry_that_stays_away_keeps_no_window_in_memory() -> None:
    """Each refusal is kept with the model in use; what was in reach when it was raised is not."""
    source = a_source()
    store = a_switchable_store(source)
    predictor = a_predictor(source, store)
    store.problem = RegistryUnavailable("http://mlflow:5000 did not answer")
    windows = []

    for step in range(6):
        answers = predictor.predict(NOON_SECONDS + step * STEP_SECONDS)
        assert answers.panel is not None
        windows.append(weakref.ref(answers.panel.usage))
    del answers

    assert store.questions == 6
    assert [window() is None for window in windows] == [True] * 5 + [False]


def test_after_a_restart_without_the_registry_the_copy_on_disk_serves() -> None:
    """The copy is used, and said to be one."""
    source = a_source()
    store = a_switchable_store(source)
    store.problem = RegistryUnavailable("http://mlflow:5000 did not answer")
    kept = Kept(StoredBundle("7", store.inner.load("1")), NOON_SECONDS - 3600)

    answers = a_predictor(source, store, last_good=lambda: kept).predict(NOON_SECONDS)

    assert (answers.model.version, answers.model.origin) == ("7", Origin.LAST_GOOD)
    assert answers.model.age_seconds(NOON_SECONDS) == 3600
    assert answers.model.description == "model version 7 (last good copy)"
    served(answers)


@pytest.mark.parametrize(
    "problem",
    [RegistryUnavailable("gone"), ModelNotFound("no alias"), CorruptModel("damaged")],
    ids=lambda p: p.args[0],
)
def test_without_any_model_the_seasonal_naive_answers(problem: Exception) -> None:
    """The lowest rung with an answer: cold, by the baseline, with the reason why there is no model."""
    source = a_source()
    store = a_switchable_store(source)
    store.problem = problem

    answers = a_predictor(source, store).predict(NOON_SECONDS)

    answer = served(answers)
    assert (answers.model.origin, answer.series.served.forecaster) == (Origin.NONE, "seasonal_naive")
    assert answer.series.served.is_cold
    assert answers.model.problem is problem
    assert answer.peak(0.99, NOON_SECONDS + 660) == pytest.approx(5.6)


def test_a_corrupt_new_version_leaves_the_old_one_serving() -> None:
    """The alias moved to something damaged: go on with what was loaded."""
    source = a_source()
    store = a_switchable_store(source)
    predictor = a_predictor(source, store)
    predictor.predict(NOON_SECONDS)
    store.problem = CorruptModel("version 2: a checksum is wrong")

    model = predictor.predict(NOON_SECONDS + 300).model

    assert (model.version, str(model.problem)) == ("1", "version 2: a checksum is wrong")


def test_a_model_of_another_step_is_never_used() -> None:
    """A champion trained on another grid is refused with what to do, and the baseline answers."""
    source = a_source()
    store = a_switchable_store(source)
    predictor = a_predictor(source, store, step_seconds=600)

    answers = predictor.predict(NOON_SECONDS)

    assert answers.model.origin is Origin.NONE
    assert "trained on steps of 300 s, but history.step is 600 s" in str(answers.model.problem)


def test_a_version_asked_for_by_number_is_never_replaced_by_another() -> None:
    """With --model 3 the copy of version 7 does not serve."""
    source = a_source()
    store = a_switchable_store(source)
    kept = Kept(StoredBundle("7", store.inner.load("1")), NOON_SECONDS)

    answers = a_predictor(source, store, model="3", last_good=lambda: kept).predict(NOON_SECONDS)

    assert answers.model.origin is Origin.NONE
    assert isinstance(answers.model.problem, ModelNotFound)


@pytest.mark.parametrize("name", ["shop/cart", "shop/Deployment/cart", "shop/deployment/cart"])
def test_a_workload_is_found_by_its_short_or_full_name(name: str) -> None:
    """The kind may be left out or be in lower case."""
    source = a_source()

    answers = a_predictor(source, a_switchable_store(source)).predict(NOON_SECONDS)

    assert answers.named(name, Resource.CPU) == KEY


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    """So is a resource the workload has no usage of."""
    source = a_source()
    answers = a_predictor(source, a_switchable_store(source)).predict(NOON_SECONDS)

    with pytest.raises(UnknownWorkload, match="did you mean shop/Deployment/cart"):
        answers.named("shop/card", Resource.CPU)
    with pytest.raises(UnknownWorkload, match="did you mean shop/cart cpu"):
        answers.named("shop/cart", Resource.MEMORY)


@dataclass
class QueryAnswers:
    """A QuerySource that answers each query with one number, and refuses those that it has none for."""

    values: dict[str, float]
    asked: int = 0

    def fetch_queries(
        self,
        queries: Mapping[SeriesKey, str],
        *,
        start_seconds: int,
        end_seconds: int,
        step_seconds: int,
        within_seconds: float | None = None,
    ) -> UsagePanel:
        self.asked += 1
        steps = (end_seconds - start_seconds) // step_seconds + 1
        kept = tuple(sorted(key for key, query in queries.items() if query in self.values))
        refused = [key for key in queries if key not in kept]
        usage = np.asarray([[self.values[queries[key]]] * steps for key in kept]).reshape(len(kept), steps)
        findings = tuple(Finding(k.workload, k.resource.value, Severity.BROKEN, "refused, as told") for k in refused)
        return UsagePanel(kept, start_seconds, step_seconds, usage, findings=findings)


def test_what_a_query_says_is_forecast_by_the_baseline_and_told_as_such() -> None:
    """No model was trained on it: its own past serves; a query that fails is said of its own workload alone."""
    source, store = a_source(), SwitchableStore(a_store(a_source().panel, NOON_SECONDS - 86_400))
    answers = QueryAnswers({"sum(jobs)": 40.0})
    predictor = a_predictor(source, store, query_source=answers)
    good, bad = (SeriesKey(f"shop/Deployment/{name}", Resource.CUSTOM) for name in ("mailer", "bad"))
    queries = {good: "sum(jobs)", bad: "jobs"}

    made = predictor.predict(NOON_SECONDS, queries=queries)
    again = predictor.predict(NOON_SECONDS, queries=queries)
    served, usual, none = made.of(good), made.of(KEY), made.of(bad)

    assert isinstance(served, ServedForecast)
    assert isinstance(usual, ServedForecast)
    assert isinstance(none, NoForecast)
    assert (served.series.served.forecaster, served.series.served.is_baseline) == ("seasonal_naive", True)
    assert "no model of custom: seasonal_naive serves" in served.series.served.reason
    np.testing.assert_allclose(served.series.values, 40.0)
    assert not usual.series.served.is_baseline
    assert none.reason == "refused, as told"
    assert (again.made is made.made, answers.asked) == (True, 1)
    assert isinstance(predictor.predict(NOON_SECONDS, queries={good: "gone"}).of(good), NoForecast)


def test_a_source_without_queries_says_so() -> None:
    """A file holds what it holds."""
    key = SeriesKey("shop/Deployment/mailer", Resource.CUSTOM)
    store = SwitchableStore(a_store(a_source().panel, NOON_SECONDS - 86_400))
    answer = a_predictor(a_source(), store).predict(NOON_SECONDS, queries={key: "sum(jobs)"}).of(key)

    assert answer == NoForecast("the source of usage evaluates no queries")
