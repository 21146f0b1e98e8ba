"""The version that was champion before serves where the champion cannot, and nobody ever waits for it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from predictor.errors import CorruptModel, ModelNotFound, PredictorError, RegistryUnavailable
from predictor.registry.kept import KeptModel
from predictor.registry.last_good import LastGoodStore
from predictor.registry.memory import MemoryBundleStore
from predictor.serving.bundle import Bundle
from predictor.serving.forecasts import Forecasts, Origin, ServedForecast
from predictor.serving.ports import StoredBundle, alias_before
from predictor.serving.predictor import Predictor
from predictor.serving.previous import PreviousChampion, Work, beside
from predictor.settings import PredictorSettings
from predictor.sources.files import MemorySource
from predictor.usage.panel import SeriesKey
from predictor.wiring import build_predictor
from tests.support.bundles import LEVELS
from tests.support.histories import STEP_SECONDS
from tests.support.panels import DAY_STEPS
from tests.support.regimes import (
    CHANGED,
    HORIZON,
    NAIVE,
    PEAK,
    STEADY,
    a_stubborn_bundle,
    usage_that_changes,
)

FIRST = 6 * DAY_STEPS
HOUR_STEPS = 3600 // STEP_SECONDS
PANEL = usage_that_changes()


@dataclass
class Registry:
    """A memory store with faults, which remembers what was asked of it."""

    inner: MemoryBundleStore = field(default_factory=MemoryBundleStore)
    faults: dict[str, PredictorError] = field(default_factory=dict)
    """By alias or version."""
    asked: list[str] = field(default_factory=list)

    def version_of(self, alias: str) -> str:
        self.asked.append(alias)
        if alias in self.faults:
            raise self.faults[alias]
        return self.inner.version_of(alias)

    def load(self, version: str) -> Bundle:
        self.asked.append(version)
        if version in self.faults:
            raise self.faults[version]
        return self.inner.load(version)


def a_registry(before: Bundle | None, champion: Bundle) -> Registry:
    """Version 1 was champion before version 2; without it version 1 is the only one."""
    store = MemoryBundleStore()
    for alias, bundle in ((alias_before("champion"), before), ("champion", champion)):
        if bundle is not None:
            store.set_alias(alias, store.add(bundle))
    return Registry(store)


def at_once(work: Work) -> None:
    work()


def a_previous(registry: Registry, aside: Callable[[Work], None] = at_once) -> PreviousChampion:
    return PreviousChampion(registry, "champion-before", STEP_SECONDS, aside=aside)


def a_predictor(registry: Registry, **changes: object) -> Predictor:
    predictor = Predictor(
        source=MemorySource(PANEL),
        store=registry,
        step_seconds=STEP_SECONDS,
        span=timedelta(days=5),
        horizon=timedelta(seconds=HORIZON * STEP_SECONDS),
        levels=LEVELS,
        stale_after=timedelta(days=1),
        peaks_within=timedelta(hours=1),
        previous=a_previous(registry),
    )
    for name, value in changes.items():
        setattr(predictor, name, value)
    return predictor


def at(hour: int) -> int:
    """So many hours after the first look, when its newest step is over."""
    return int(PANEL.times[FIRST + hour * HOUR_STEPS]) + STEP_SECONDS + 60


def served(answers: Forecasts, key: SeriesKey = CHANGED) -> ServedForecast:
    found = answers.of(key)
    assert isinstance(found, ServedForecast)
    return found


def hourly(predictor: Predictor, hours: int) -> list[Forecasts]:
    return [predictor.predict(at(hour)) for hour in range(hours)]


def said_by(bundle: Bundle, answers: Forecasts, key: SeriesKey = CHANGED) -> list[np.ndarray]:
    """What a bundle alone says of a series' steps and peak."""
    assert answers.panel is not None
    return [bundle.forecast(answers.panel, target).of(key).values for target in (None, PEAK)]  # type: ignore[union-attr]


def test_a_series_that_only_the_version_before_knows_is_served_by_it() -> None:
    """Steps and peak; the others stay with the champion, and each says which version it was."""
    before, champion = a_stubborn_bundle(best=NAIVE), a_stubborn_bundle(known=(STEADY,))
    registry = a_registry(before, champion)

    answers = a_predictor(registry).predict(at(0))

    found = served(answers)
    assert (found.model.version, found.model.origin) == ("1", Origin.PREVIOUS)
    assert found.series.served.reason.startswith(
        "version 2 does not know it: version 1, the champion before, serves; a test's"
    )
    assert not found.series.served.is_cold
    for made, expected in zip((found.series, *found.peaks), said_by(before, answers), strict=True):
        np.testing.assert_allclose(made.values, expected, rtol=1e-3)
    other = served(answers, STEADY)
    assert (other.model.version, other.model.origin) == ("2", Origin.REGISTRY)


def test_a_series_with_a_closed_gate_is_served_by_the_version_before() -> None:
    """The champion does badly on it, the version before does as well as the seasonal naive."""
    registry = a_registry(a_stubborn_bundle(best=NAIVE), a_stubborn_bundle())

    *_, last = hourly(a_predictor(registry), 16)

    found = served(last)
    assert (found.model.version, found.model.origin, found.series.served.is_baseline) == ("1", Origin.PREVIOUS, False)
    assert "times what seasonal_naive did: version 1, the champion before, serves" in found.series.served.reason
    for made, expected in zip((found.series, *found.peaks), said_by(a_stubborn_bundle(best=NAIVE), last), strict=True):
        np.testing.assert_allclose(made.values, expected, rtol=1e-2)


def test_a_version_before_that_does_no_better_makes_room_for_the_seasonal_naive() -> None:
    """It is followed from when it is needed on, for the series that need it."""
    registry = a_registry(a_stubborn_bundle(), a_stubborn_bundle())

    origins = [served(each) for each in hourly(a_predictor(registry), 26)]

    by = [(each.model.origin.value, each.series.served.is_baseline) for each in origins]
    assert list(dict.fromkeys(by)) == [("registry", False), ("previous", False), ("registry", True)]
    assert by.count(("previous", False)) >= 6


def test_a_version_before_that_did_not_pass_at_training_does_not_serve() -> None:
    """What is served instead is the baseline, with the champion's reason."""
    before = a_stubborn_bundle(best=NAIVE)
    failed = {key: replace(each, gate_passed=False) for key, each in before.series.items()}
    registry = a_registry(replace(before, series=failed), a_stubborn_bundle())

    *_, last = hourly(a_predictor(registry), 16)

    assert served(last).series.served.is_baseline
    assert served(last).model.version == "2"


def test_while_nothing_needs_it_it_is_neither_asked_for_nor_loaded() -> None:
    """Only the champion is."""
    registry = a_registry(a_stubborn_bundle(), a_stubborn_bundle(best=NAIVE))

    hourly(a_predictor(registry), 16)

    assert set(registry.asked) == {"champion", "2"}


def test_it_is_loaded_once_and_followed_when_the_aliases_move() -> None:
    """A new champion makes the last one the version before, at the next refresh."""
    registry = a_registry(a_stubborn_bundle(best=NAIVE), a_stubborn_bundle(known=(STEADY,)))
    predictor = a_predictor(registry)
    hourly(predictor, 3)
    assert registry.asked.count("1") == 1
    registry.inner.set_alias("champion", registry.inner.add(a_stubborn_bundle(known=(STEADY,), peak=False)))
    registry.inner.set_alias("champion-before", "2")

    assert served(predictor.predict(at(3))).series.served.is_cold
    assert registry.asked[-2:] == ["champion-before", "2"]


def test_an_absent_alias_is_no_problem() -> None:
    """Nothing was champion before: the closed series is served by the seasonal naive, the new one by the fleet."""
    *_, last = hourly(a_predictor(a_registry(None, a_stubborn_bundle())), 16)

    found = served(last)
    assert found.series.served.is_baseline
    assert found.series.served.reason.endswith("seasonal_naive serves")
    assert last.model.problem is None
    cold = served(a_predictor(a_registry(None, a_stubborn_bundle(known=(STEADY,)))).predict(at(0)))
    assert (cold.series.served.is_cold, cold.series.served.is_baseline) == (True, False)


@pytest.mark.parametrize(
    "problem", [RegistryUnavailable("gone"), ModelNotFound("deleted"), CorruptModel("damaged")], ids=lambda p: p.args[0]
)
def test_a_version_before_that_cannot_be_had_changes_nothing(problem: PredictorError) -> None:
    """Whatever is wrong with it, the champion's cycle is as it would be without it."""
    registry = a_registry(a_stubborn_bundle(), a_stubborn_bundle(known=(STEADY,)))
    registry.faults["1"] = problem

    answers = a_predictor(registry).predict(at(0))

    assert (served(answers).model.version, served(answers).series.served.is_cold) == ("2", True)
    assert answers.model.problem is None


def test_one_without_the_peaks_that_are_asked_for_does_not_serve() -> None:
    """Half of an answer would be of one model, half of another."""
    registry = a_registry(a_stubborn_bundle(peak=False), a_stubborn_bundle(known=(STEADY,)))

    answers = a_predictor(registry).predict(at(0))

    assert (served(answers).model.version, len(served(answers).peaks)) == ("2", 1)


def test_nobody_waits_for_it() -> None:
    """While it is on its way the seasonal naive, or the fleet's weights, serve; when it is there it does."""
    registry = a_registry(a_stubborn_bundle(best=NAIVE), a_stubborn_bundle(known=(STEADY,)))
    works: list[Work] = []
    predictor = a_predictor(registry, previous=a_previous(registry, works.append))

    assert served(predictor.predict(at(0))).series.served.is_cold
    assert served(predictor.predict(at(1))).series.served.is_cold
    assert len(works) == 1
    works[0]()

    assert served(predictor.predict(at(2))).model.version == "1"


def test_the_real_thread_brings_it() -> None:
    """Without a test's help."""
    registry = a_registry(a_stubborn_bundle(), a_stubborn_bundle(best=NAIVE))
    threads: list[object] = []

    def started(work: Work) -> None:
        from threading import enumerate as running

        beside(work)
        threads.extend(each for each in running() if each.name == "previous-champion")

    previous = a_previous(registry, started)
    previous.at_hand(0, "2")
    for each in threads:
        each.join(10)  # type: ignore[attr-defined]

    found = previous.at_hand(1, "2")
    assert found is not None and found.version == "1"


@pytest.mark.parametrize(
    "problem", [CorruptModel("version 2: a checksum is wrong"), ModelNotFound("version 2 is gone")], ids=str
)
def test_without_a_champion_that_can_be_used_the_version_before_serves_all(problem: PredictorError) -> None:
    """As a whole, learning as a champion does; the reason says what is wrong with the champion."""
    registry = a_registry(a_stubborn_bundle(best=NAIVE), a_stubborn_bundle())
    registry.faults["2"] = problem
    predictor = a_predictor(registry)

    first, *_, last = hourly(predictor, 3)

    for key in (CHANGED, STEADY):
        found = served(first, key)
        assert (found.model.version, found.model.origin) == ("1", Origin.PREVIOUS)
        assert found.reason == (
            f"version 1, the champion before, serves: the champion cannot be used: {problem}; a test's"
        )
    assert first.model.description == "model version 1 (the champion before)"
    assert (last.model.version, last.model.problem) == ("1", problem)
    del registry.faults["2"]
    assert predictor.predict(at(4)).model.origin is Origin.REGISTRY


def test_a_champion_of_another_step_leaves_the_version_before() -> None:
    """It was trained on another grid."""
    registry = a_registry(a_stubborn_bundle(), replace(a_stubborn_bundle(peak=False), step_seconds=600))

    answers = a_predictor(registry).predict(at(0))

    assert (answers.model.version, answers.model.origin) == ("1", Origin.PREVIOUS)
    assert "trained on steps of 600 s" in served(answers).reason


def test_as_a_whole_it_serves_as_soon_as_it_is_there() -> None:
    """Not only when the registry is asked again; until then the seasonal naive does, and says why."""
    registry = a_registry(a_stubborn_bundle(), a_stubborn_bundle())
    registry.faults["2"] = CorruptModel("damaged")
    works: list[Work] = []
    predictor = a_predictor(registry, previous=a_previous(registry, works.append))

    nothing = served(predictor.predict(at(0)))
    assert (nothing.model.origin, nothing.series.served.is_baseline) == (Origin.NONE, True)
    assert nothing.reason.startswith("there is no model: damaged; cold: ")
    works[0]()

    assert predictor.predict(at(0) + 30).model.version == "1"


def test_with_a_champion_at_hand_the_version_before_does_not_take_its_place() -> None:
    """Neither where it is held, nor where its last good copy is."""
    registry = a_registry(a_stubborn_bundle(), a_stubborn_bundle(best=NAIVE))
    held = a_predictor(registry)
    held.predict(at(0))
    registry.faults["2"] = registry.faults["champion"] = CorruptModel("damaged")

    @dataclass(frozen=True)
    class Kept:
        stored: StoredBundle
        kept_at_seconds: int = 0

    copied = a_predictor(registry, last_good=lambda: Kept(StoredBundle("2", a_stubborn_bundle(best=NAIVE))))

    for predictor in (held, copied):
        assert predictor.predict(at(1)).model.version == "2"
    assert "champion-before" not in registry.asked


def test_a_version_asked_for_by_number_has_none_before_it() -> None:
    """What was asked for, or nothing."""
    registry = a_registry(a_stubborn_bundle(), a_stubborn_bundle())
    registry.faults["2"] = CorruptModel("damaged")

    assert a_predictor(registry, model="2").predict(at(0)).model.origin is Origin.NONE


def test_both_aliases_on_one_version_are_no_version_before() -> None:
    """As after a return by hand to the version before."""
    registry = a_registry(a_stubborn_bundle(), a_stubborn_bundle())
    registry.inner.set_alias("champion-before", "2")

    assert a_previous(registry).at_hand(0, "2") is None
    assert a_previous(registry).at_hand(0, "3") is not None


def test_a_copy_on_disk_stands_in_where_the_registry_is_gone(tmp_path: Path) -> None:
    """It was loaded by an earlier process; without it there is none."""
    registry = a_registry(a_stubborn_bundle(), a_stubborn_bundle(best=NAIVE))
    store = LastGoodStore(registry, KeptModel(tmp_path))

    def copy() -> StoredBundle | None:
        kept = store.last_good()
        return kept.stored if kept else None

    def started() -> PreviousChampion:
        return PreviousChampion(store, "champion-before", STEP_SECONDS, copy=copy, aside=at_once)

    assert started().at_hand(0, "2") is not None
    registry.faults["champion-before"] = RegistryUnavailable("gone")

    found = started().at_hand(0, "2")
    assert found is not None and found.version == "1"
    assert a_previous(registry).at_hand(0, "2") is None


def test_wired_it_follows_the_alias_before_and_keeps_out_of_the_champions_copy(tmp_path: Path) -> None:
    """One alias derived from the other, a folder of its own; none for a version asked for by number."""
    settings = PredictorSettings(state_folder=tmp_path)

    wired = build_predictor(settings, MemorySource(PANEL), learns_as="controller").previous

    assert wired is not None
    assert (wired.alias, wired.aside) == ("champion-before", beside)
    assert isinstance(wired.store, LastGoodStore)
    assert wired.store.copy.folder == tmp_path / "previous" / "foresize"
    once = build_predictor(settings, MemorySource(PANEL)).previous
    assert once is not None and once.aside is not beside
    assert build_predictor(settings, MemorySource(PANEL), model="3").previous is None
