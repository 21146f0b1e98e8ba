"""Writes: as many as the time that passed allows, several at a time, the urgent ones first."""

import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.controller.autoscalers import TargetRef
from autoscaler.controller.loop import NOT_LEADING, Controller
from autoscaler.controller.memory import MemoryCluster
from autoscaler.controller.ports import Scale
from autoscaler.controller.records import Outcome
from autoscaler.controller.writing import WRITES_AT_ONCE, WriteBudget, side_by_side
from autoscaler.errors import ClusterUnavailable, CommandConflict
from tests.support.scaling import NOON_SECONDS, ScalingParts, a_target, noon_rush
from tests.support.serving import ManualClock

PATIENCE_SECONDS = 5.0


@given(
    per_second=st.floats(0.1, 100),
    gathering=st.floats(1, 60),
    waits=st.lists(st.floats(0, 30), min_size=1, max_size=40),
)
def test_no_more_is_let_through_than_time_allows(per_second: float, gathering: float, waits: list[float]) -> None:
    """Over any time: what had gathered at first, and the rate times what passed; and whoever waits gets some."""
    budget, now, taken = WriteBudget(per_second, gathering), 1000.0, 0

    for wait in waits:
        now += wait
        budget.begin(now)
        while budget.take(now):
            taken += 1
        assert taken <= per_second * (gathering + (now - 1000.0)) * (1 + 1e-9) + 1e-6
    budget.begin(now + gathering)

    assert budget.take(now + gathering) == (per_second * gathering >= 1)


def test_what_is_less_urgent_does_not_take_what_the_urgent_was_refused() -> None:
    """A refusal holds for the rest of the cycle, though time goes on within it."""
    budget = WriteBudget(1.0, 1.0)
    budget.begin(0.0)

    assert [budget.take(0.0), budget.take(0.5), budget.take(5.0)] == [True, False, False]
    assert budget.is_spent
    budget.begin(5.0)
    assert budget.take(5.0)


def test_a_clock_that_goes_back_gives_nothing_and_takes_nothing() -> None:
    """The budget neither grows nor shrinks."""
    budget = WriteBudget(1.0, 2.0)
    budget.begin(100.0)

    assert [budget.take(t) for t in (100.0, 90.0, 80.0)] == [True, True, False]


def test_results_come_in_the_order_of_what_was_asked() -> None:
    """However long each takes, and they do run beside each other: the first ends only once the last has begun."""
    has_last_begun = threading.Event()

    def write(number: int) -> int:
        if number == WRITES_AT_ONCE - 1:
            has_last_begun.set()
        assert has_last_begun.wait(PATIENCE_SECONDS)
        return number * 10

    assert side_by_side(write, range(WRITES_AT_ONCE)) == [10 * number for number in range(WRITES_AT_ONCE)]
    assert side_by_side(write, []) == []


def test_one_that_raises_leaves_none_under_way() -> None:
    """The error comes once those that were begun have ended; no more are begun."""
    begun, ended = [], []

    def write(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise ZeroDivisionError
        ended.append(number)

    with pytest.raises(ZeroDivisionError):
        side_by_side(write, range(200))

    assert sorted(begun) == [0, *sorted(ended)]


@dataclass
class WatchedCluster(MemoryCluster):
    """Remembers in which order replicas and statuses were written."""

    order: list[str] = field(default_factory=list)
    conflicts: int = 0
    """How many writes of replicas are refused as something has changed."""

    def set_replicas(self, namespace: str, target: TargetRef, replicas: int, expected: Scale) -> None:
        if self.conflicts > 0:
            self.conflicts -= 1
            raise CommandConflict("409")
        self.order.append("up" if replicas > expected.replicas else "down")
        super().set_replicas(namespace, target, replicas, expected)

    def set_status(self, *arguments: object) -> None:
        self.order.append("status")
        super().set_status(*arguments)  # type: ignore[arg-type]  # whatever it is called with


def a_fleet(count: int, replicas: int = 3) -> tuple[ScalingParts, WatchedCluster, Controller]:
    """So many workloads before a rush that takes seven replicas, on a cluster that watches."""
    usage = {f"shop/Deployment/w{n}": noon_rush(2.0, 5.6) for n in range(count)}
    parts = ScalingParts(
        usage_by_workload=usage,
        targets=tuple(a_target(name, replicas=replicas) for name in usage),
        clock=ManualClock(NOON_SECONDS + 60.0),
    )
    cluster = WatchedCluster(parts.cluster.autoscalers, parts.cluster.targets)
    parts.cluster = cluster
    return parts, cluster, parts.controller()


def test_replicas_of_all_are_written_before_the_first_status() -> None:
    """However many threads write."""
    _, cluster, controller = a_fleet(40)

    report = controller.cycle()

    assert {record.result.outcome for record in report.records} == {Outcome.APPLIED}
    assert cluster.order == ["up"] * 40 + ["status"] * 40
    assert len(cluster.events) == 40


def test_a_storm_of_conflicts_is_met_by_checking_again() -> None:
    """Some are applied at the second attempt; none twice, and none to another number than was decided."""
    parts, cluster, controller = a_fleet(20)
    cluster.conflicts = 30

    report = controller.cycle()

    outcomes = [record.result.outcome for record in report.records]
    assert set(outcomes) <= {Outcome.APPLIED, Outcome.SKIPPED}
    assert cluster.order.count("up") == outcomes.count(Outcome.APPLIED)
    for record in report.records:
        expected = 7 if record.result.outcome is Outcome.APPLIED else 3
        assert parts.replicas(record.plan.decision.workload) == expected


@dataclass
class LosesTheLease:
    """Leads until it was asked so often."""

    asked: int = 0
    until: int = 10**9
    holder: str = "this one"
    transitions: int = 0

    @property
    def is_leader(self) -> bool:
        self.asked += 1
        return self.asked <= self.until


@pytest.mark.parametrize("until", [1, 2, 7, 20, 41])
def test_nothing_is_written_once_the_lease_has_run_out(until: int) -> None:
    """Each write is asked for just before it, whatever else is under way: never more writes than times it was held."""
    parts, cluster, controller = a_fleet(20)
    controller.leadership = LosesTheLease(until=until)

    report = controller.cycle()

    changed = sum(parts.replicas(name) == 7 for name in parts.usage_by_workload)
    assert changed <= max(0, until - 1) // 2
    assert "status" not in cluster.order
    assert sum(record.result == NOT_LEADING for record in report.records) == 20 - changed


@dataclass
class FailsAtOnce(WatchedCluster):
    """An API server that goes after so many statuses."""

    statuses: int = 3

    def set_status(self, *arguments: object) -> None:
        if len([each for each in self.order if each == "status"]) >= self.statuses:
            raise ClusterUnavailable("the API server did not answer")
        super().set_status(*arguments)


def test_a_server_that_is_gone_is_not_asked_for_every_status() -> None:
    """At most what was under way when it went; all of it is told later."""
    parts, _, _ = a_fleet(60)
    cluster = FailsAtOnce(parts.cluster.autoscalers, parts.cluster.targets)
    parts.cluster = cluster
    controller = parts.controller()

    report = controller.cycle()

    assert isinstance(report.untold, ClusterUnavailable)
    errors = {"dependency": "kubernetes", "error": "ClusterUnavailable"}
    refused = controller.metrics.registry.get_sample_value("foresize_dependency_errors_total", errors)
    assert refused is not None
    assert 1 <= refused <= WRITES_AT_ONCE
    cluster.statuses = 10**6
    parts.clock.now += 30
    controller.cycle()
    assert {len(parts.status(name)["decisions"]) for name in parts.usage_by_workload} == {1}
