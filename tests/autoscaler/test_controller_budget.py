"""The error budget in the controller: what counts as a violation, what follows, what is told and remembered."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from autoscaler.controller.autoscalers import Indicator, IndicatorKind, Mode, Prices, Readiness
from autoscaler.controller.indicators import IndicatorWatch
from autoscaler.controller.loop import Controller
from autoscaler.settings import ScalingSettings
from predictor.errors import SourceUnavailable
from predictor.usage.panel import Finding, SeriesKey, Severity, UsagePanel
from tests.support.scaling import CART, NOON_SECONDS, ScalingParts, a_target, an_autoscaler, noon_rush
from tests.support.serving import STEP_SECONDS

PATIENT = ScalingSettings.model_validate({"scale_down_stabilisation": "15m"})
"""Nothing is removed before two steps in violation are known, which are the least that burn fast."""
LATENCY = Indicator(IndicatorKind.LATENCY, 0.25, query="latency")


@dataclass
class Values:
    """What every query gives from now on; a text is why it gives nothing."""

    value: float | str = 0.1
    is_down: bool = False
    asked: list[Mapping[SeriesKey, str]] = field(default_factory=list)

    def fetch_values(
        self,
        queries: Mapping[SeriesKey, str],
        *,
        start_seconds: int,
        end_seconds: int,
        step_seconds: int,
        within_seconds: float | None = None,
    ) -> UsagePanel:
        self.asked.append(queries)
        if self.is_down:
            raise SourceUnavailable("http://prometheus:9090 did not answer within 5 s")
        keys = tuple(sorted(queries))
        steps = (end_seconds - start_seconds) // step_seconds + 1
        if isinstance(self.value, str):
            found = tuple(Finding(k.workload, k.resource.value, Severity.BROKEN, self.value) for k in keys)
            return UsagePanel((), start_seconds, step_seconds, np.zeros((0, steps)), findings=found)
        return UsagePanel(keys, start_seconds, step_seconds, np.full((len(keys), steps), self.value))


@dataclass
class Watched:
    """A workload that is always at rest, under a controller that reads its latency."""

    spec: Mapping[str, Any] = field(default_factory=lambda: {"indicator": LATENCY})
    settings: ScalingSettings = field(default_factory=ScalingSettings)
    values: Values = field(default_factory=Values)
    replicas: int = 3

    def __post_init__(self) -> None:
        self.parts = ScalingParts(
            usage_by_workload={CART: noon_rush(2.0, 2.0)},
            autoscalers=(an_autoscaler(**self.spec),),
            targets=(a_target(replicas=self.replicas),),
            settings=self.settings,
        )
        self.controller = self.another()

    def another(self) -> Controller:
        """One more copy of the controller, which knows nothing but what the cluster says."""
        made = self.parts.controller()
        made.indicators = IndicatorWatch(self.values, STEP_SECONDS, 600)
        return made

    def steps(self, count: int) -> None:
        """So many steps pass, a cycle a minute."""
        for _ in range(count * STEP_SECONDS // 60):
            self.parts.clock.now += 60
            self.controller.cycle()

    @property
    def told(self) -> dict[str, Any]:
        """The error budget in the status."""
        return dict(self.parts.status()["errorBudget"])

    def events(self) -> list[str]:
        """Reasons of the Events about the budget."""
        return [each.reason for each in self.parts.cluster.events if each.reason.startswith("ErrorBudget")]


def test_violated_latency_tightens_and_keeps_replicas_until_it_is_over() -> None:
    """The level rises, nothing is removed, status, condition and Event say why; then all goes back."""
    watched = Watched(replicas=5, settings=PATIENT)
    watched.values.value = 0.4
    watched.steps(3)

    told = watched.told
    assert told["level"] > 0.99
    assert told["burnsFast"]
    assert told["remaining"] < 1
    assert "times as often as allowed" in told["reason"]
    watched.steps(2)
    assert watched.parts.replicas() == 5, "3 would do"
    assert watched.parts.condition("AbleToScale") == ("True", "ErrorBudgetBurns")
    assert watched.events() == ["ErrorBudgetBurns"]

    watched.values.value = 0.1
    watched.steps(4)
    assert watched.parts.replicas() == 3
    assert not watched.told["burnsFast"]
    assert watched.events() == ["ErrorBudgetBurns", "ErrorBudgetRecovers"]
    assert watched.told["level"] > 0.99, "five minutes are allowed in eight hours"


def test_availability_is_violated_below_its_target() -> None:
    """At it it is kept."""
    good = Indicator(IndicatorKind.AVAILABILITY, 0.99, query="good / all")
    for share, is_kept in ((0.99, True), (0.98, False)):
        watched = Watched({"indicator": good}, values=Values(share))
        watched.steps(2)
        assert (watched.told["remaining"] == 1.0) == is_kept


def test_a_latency_without_a_value_is_neither_good_nor_bad_and_said() -> None:
    """Nor is a query that fails: what stood before stands."""
    watched = Watched()
    watched.values.value = 0.4
    watched.steps(2)
    before = watched.told
    for value in (float("nan"), "3 series, such as a and b; put sum(…) around the query"):
        watched.values.value = value
        watched.steps(8)
        assert watched.told["remaining"] == before["remaining"]
        assert watched.told["level"] == before["level"]
        assert "its latency" in watched.told["reason"]
        assert "is not known since 2025-10-18T12:10:00Z" in watched.told["reason"]
    assert "put sum(…) around the query" in watched.told["reason"]
    watched.values.is_down = True
    watched.steps(2)
    assert "did not answer within 5 s" in watched.told["reason"]


def test_an_indicator_that_never_answers_again_keeps_no_replicas() -> None:
    """What burned when it was last known is forgotten after an hour, and said to be."""
    watched = Watched(replicas=5, settings=PATIENT)
    watched.values.value = 0.4
    watched.steps(3)
    assert watched.told["burnsFast"]

    watched.values.value = "Prometheus says: no such metric"
    watched.steps(4)
    assert watched.parts.replicas() == 5
    watched.steps(13)
    assert watched.parts.replicas() == 3
    assert "what burned before is forgotten" in watched.told["reason"]


def test_indicators_are_asked_once_a_step_and_for_the_object_itself() -> None:
    """All queries in one go, keyed by the object, as two objects with one target may promise different things."""
    watched = Watched()
    watched.steps(4)

    assert len(watched.values.asked) <= 5
    assert [key.workload for key in watched.values.asked[0]] == ["shop/PredictiveAutoscaler/cart"]


def test_a_histogram_is_asked_for_its_percentile() -> None:
    """With the matchers that were given, over the window of rates."""
    plain = Indicator(IndicatorKind.LATENCY, 0.25, histogram="http_seconds", percentile=99.9)
    matched = replace(plain, histogram='http_seconds{service="cart"}', percentile=95.0)

    assert plain.promql(600) == "histogram_quantile(0.999, sum by (le) (rate(http_seconds_bucket[600s])))"
    assert matched.promql(120) == (
        'histogram_quantile(0.95, sum by (le) (rate(http_seconds_bucket{service="cart"}[120s])))'
    )


def test_demand_above_what_was_ready_in_its_step_is_a_violation() -> None:
    """Pods that are not Ready when demand has risen: what is Ready later changes nothing about it."""
    parts = ScalingParts(settings=ScalingSettings(sla_percentile=99))
    controller = parts.controller()
    standings = []
    for minute in range(60):
        parts.clock.now = NOON_SECONDS + minute * 60.0
        if minute == 17:
            target = parts.cluster.targets[CART]
            parts.cluster.put(replace(target, ready_replicas=target.replicas))
        (record,) = controller.cycle().records
        assert record.plan.standing is not None
        standings.append(record.plan.standing.budget)

    assert [each.memory.spent_seconds for each in standings[:15]] == [0.0] * 15
    # Two minutes of the step from 12:15 to 12:20 and all of the one before, from which on demand is 5.6 cores.
    assert standings[15].memory.spent_seconds == pytest.approx(300, rel=1e-3)
    assert standings[20].memory.spent_seconds == pytest.approx(420, rel=1e-3)
    assert standings[59].memory.spent_seconds == pytest.approx(420, rel=1e-2)
    assert standings[20].level > 0.99


def test_ready_replicas_are_known_only_where_somebody_looked() -> None:
    """Not before the first look, after the last, or across a gap."""
    seen = Readiness().seen(2, 100.0, 50.0).seen(4, 130.0, 50.0).seen(4, 160.0, 50.0)

    assert seen.share_below(4, 100.0, 160.0) == pytest.approx(0.5)
    assert seen.share_below(2, 100.0, 160.0) == 0.0
    assert seen.share_below(4, 90.0, 150.0) is None
    assert seen.share_below(4, 120.0, 170.0) is None
    assert seen.seen(4, 300.0, 50.0).share_below(4, 100.0, 160.0) is None
    assert seen.since(140.0).changes == ((130.0, 4),)


def test_a_new_leader_goes_on_with_the_budget() -> None:
    """It finds level, veto and what is left in the status, counts what it missed, and tells no Event twice."""
    watched = Watched(replicas=5, settings=PATIENT)
    watched.values.value = 0.4
    watched.steps(3)
    before = watched.told

    watched.controller = watched.another()
    watched.parts.clock.now += 60
    watched.controller.cycle()
    assert watched.told["level"] == before["level"]
    assert watched.told["burnsFast"]
    watched.steps(3)
    assert watched.parts.replicas() == 5
    assert watched.told["remaining"] < before["remaining"]
    assert watched.events() == ["ErrorBudgetBurns"]


@pytest.mark.parametrize(
    "broken", [{"offset": "much"}, {"offset": float("nan")}, {"until": "yesterday"}, {"long": None}]
)
def test_a_broken_budget_in_a_status_is_not_remembered(broken: dict[str, Any]) -> None:
    """As all else in a status that cannot be read; the controller goes on."""
    watched = Watched()
    watched.steps(2)
    (uid,) = watched.parts.cluster.autoscalers
    status = watched.parts.status()
    status["stabilization"] = status["stabilization"] | {"budget": status["stabilization"]["budget"] | broken}
    watched.parts.cluster.autoscalers[uid] = replace(watched.parts.cluster.autoscalers[uid], status=status)

    watched.controller = watched.another()
    watched.steps(1)
    assert watched.told["remaining"] == 1.0


def test_what_others_decide_moves_no_level() -> None:
    """In mode Observe violations are counted and told, and the level stays."""
    watched = Watched({"indicator": LATENCY, "mode": Mode.OBSERVE})
    watched.values.value = 0.4
    watched.steps(4)

    assert watched.told["level"] == 0.99
    assert watched.told["remaining"] < 1


def test_without_budget_nothing_is_counted_and_nothing_asked() -> None:
    """scaling.error_budget off, for all objects."""
    watched = Watched(settings=ScalingSettings(error_budget=False))
    watched.values.value = 0.4
    watched.steps(4)

    assert "errorBudget" not in watched.parts.status()
    assert watched.values.asked == []


def test_the_highest_level_is_decided_by_forecasts_between_two() -> None:
    """What the decision used lies between the forecasts of the levels around it."""
    watched = Watched()
    watched.values.value = 0.4
    watched.steps(2)

    report = watched.controller.cycle()
    (record,) = report.records
    forecast = record.plan.decision.forecast
    assert not hasattr(forecast, "reason")
    assert forecast.level == watched.told["level"]
    assert record.reading().level == 0.99


def test_prices_say_the_level() -> None:
    """The newsvendor's; above the highest that is forecast, that, and it says so."""
    parts = ScalingParts(autoscalers=(an_autoscaler(prices=Prices(0.6, 0.1)),))
    (record,) = parts.controller().cycle().records
    assert record.plan.policy is not None
    assert record.plan.policy.level == pytest.approx(6 / 6.6, abs=1e-6)
    assert record.plan.policy.level_source == "spec.sla.prices: 0.909091"
    assert hasattr(record.plan.decision.forecast, "value")

    parts = ScalingParts(autoscalers=(an_autoscaler(prices=Prices(0.01, 1.0)),))
    (record,) = parts.controller().cycle().records
    assert record.plan.policy is not None
    assert record.plan.policy.level == 0.999
    assert "of which at most 0.999 is forecast" in record.plan.policy.level_source
