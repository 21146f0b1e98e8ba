"""The election where the wire or the clocks misbehave as a real API server cannot be told to."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from autoscaler.controller.memory import MemoryLeadership
from autoscaler.controller.ports import Leadership
from autoscaler.kube.client import KubeClient
from autoscaler.kube.clocks import seconds_since_boot
from autoscaler.kube.lease import LeaseElector, LeaseTiming
from tests.support.http_answers import answering, seconds_since
from tests.support.kube_api import wait_until
from tests.support.kubeconfig import a_kubeconfig
from tests.support.lease_shelf import LeaseShelf

QUICK = LeaseTiming(lease_seconds=2, renew_deadline_seconds=1.4, retry_seconds=0.2, request_seconds=0.5)
PATIENCE_SECONDS = 20.0


@dataclass
class ShiftedClock:
    """The real clock, which a sleeping machine can be made to have moved on."""

    ahead_seconds: float = 0.0

    def __call__(self) -> float:
        return seconds_since_boot() + self.ahead_seconds


@dataclass
class Stage:
    """A lease and the candidates for it."""

    shelf: LeaseShelf
    candidate: Callable[..., LeaseElector]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """No lease yet and nobody who wants it."""
    shelf = LeaseShelf()
    with ExitStack() as stack:
        server = stack.enter_context(answering(shelf))
        client = KubeClient.connect(a_kubeconfig(tmp_path, server.url))

        def candidate(
            identity: str,
            clock: Callable[[], float] = seconds_since_boot,
            wall_clock: Callable[[], float] = time.time,
            timing: LeaseTiming = QUICK,
        ) -> LeaseElector:
            elector = LeaseElector(client, "shop", "foresize", identity, clock, wall_clock, timing)
            elector.start()
            stack.callback(elector.release)
            return elector

        yield Stage(shelf, candidate)


@contextmanager
def nobody_else_within(seconds: float, elector: LeaseElector) -> Iterator[None]:
    """Holds that the elector does not lead within so many seconds from now."""
    started = time.monotonic()
    yield
    while seconds_since(started) < seconds:
        assert not elector.is_leader
        time.sleep(0.02)


def leads(elector: LeaseElector) -> None:
    """Waits until it does."""
    wait_until(lambda: elector.is_leader, PATIENCE_SECONDS, f"{elector.identity} to lead; problem {elector.problem}")


def test_the_first_one_makes_the_lease_and_writes_it_as_the_api_wants_it(stage: Stage) -> None:
    """Duration as a whole number, times with microseconds; who leads is known to the others."""
    instant = datetime(2026, 3, 1, 12, 30, 15, 250_000, UTC).timestamp()
    first = stage.candidate("first", wall_clock=lambda: instant)
    leads(first)
    second = stage.candidate("second")
    wait_until(lambda: second.holder == "first", PATIENCE_SECONDS, "the second one to see the first")

    assert not second.is_leader
    assert (first.holder, first.transitions, first.problem, second.problem) == ("first", 0, None, None)
    assert stage.shelf.lease is not None
    assert stage.shelf.lease["spec"] == {
        "holderIdentity": "first",
        "leaseDurationSeconds": 2,
        "acquireTime": "2026-03-01T12:30:15.250000Z",
        "renewTime": "2026-03-01T12:30:15.250000Z",
        "leaseTransitions": 0,
    }


def test_a_renewal_is_one_request(stage: Stage) -> None:
    """A leader does not read before it writes."""
    leader = stage.candidate("first")
    leads(leader)
    made = len(stage.shelf.requests)

    wait_until(lambda: len(stage.shelf.requests) >= made + 3, PATIENCE_SECONDS, "three renewals")

    assert stage.shelf.requests == ["GET", "POST", *["PATCH"] * (len(stage.shelf.requests) - 2)]


def test_wall_clocks_of_other_machines_decide_nothing(stage: Stage) -> None:
    """A holder whose renewals look hours old is left alone as long as they change; one that stopped is replaced."""
    changes = 0

    def renew() -> None:
        nonlocal changes
        changes += 1
        stage.shelf.put(
            holderIdentity="elsewhere",
            leaseDurationSeconds=2,
            renewTime=f"2001-01-01T00:00:{changes % 60:02}.{changes:06}Z",
            leaseTransitions=4,
        )

    renew()
    elector = stage.candidate("here")
    started = time.monotonic()
    while seconds_since(started) < 3.5:
        renew()
        assert not elector.is_leader
        time.sleep(0.1)
    stopped = time.monotonic()
    leads(elector)

    assert seconds_since(stopped) > 1.7
    assert elector.transitions == 5


def test_leadership_ends_by_the_own_clock_while_the_renewal_hangs(stage: Stage) -> None:
    """Nothing is asked and nothing needs to fail first."""
    timing = LeaseTiming(lease_seconds=4, renew_deadline_seconds=1.2, retry_seconds=0.2, request_seconds=0.9)
    leader = stage.candidate("first", timing=timing)
    leads(leader)

    stage.shelf.hang_seconds = 30
    started = time.monotonic()
    wait_until(lambda: not leader.is_leader, PATIENCE_SECONDS, "the deadline")

    assert seconds_since(started) < 1.2 + 2  # the deadline, and what a busy machine takes to notice


def test_a_hung_renewal_leaves_time_for_another_one(stage: Stage) -> None:
    """One answer that never comes costs no leadership, though the write that it was for has been done."""
    leader = stage.candidate(
        "first", timing=LeaseTiming(lease_seconds=9, renew_deadline_seconds=8, retry_seconds=0.1, request_seconds=0.4)
    )
    leads(leader)
    was, stage.shelf.hang_seconds = len(stage.shelf.requests), 5.0
    wait_until(lambda: len(stage.shelf.requests) > was, PATIENCE_SECONDS, "the renewal that hangs")
    stage.shelf.hang_seconds = 0.0
    wait_until(lambda: len(stage.shelf.requests) > was + 4, PATIENCE_SECONDS, "the next renewals")

    assert leader.is_leader
    assert leader.transitions == 0
    assert stage.shelf.requests[was : was + 4] == ["PATCH", "PATCH", "GET", "PATCH"]


def test_who_has_slept_past_the_deadline_does_not_lead(stage: Stage) -> None:
    """At once on waking, without a request; with the next renewal it leads again, as the lease is still its own."""
    clock = ShiftedClock()
    leader = stage.candidate(
        "first",
        clock=clock,
        timing=LeaseTiming(lease_seconds=60, renew_deadline_seconds=50, retry_seconds=3, request_seconds=2),
    )
    leads(leader)
    made = len(stage.shelf.requests)

    clock.ahead_seconds = 51.0

    assert not leader.is_leader
    assert len(stage.shelf.requests) == made
    wait_until(lambda: leader.is_leader, PATIENCE_SECONDS, "the lead")
    assert leader.transitions == 0


def test_a_lease_that_somebody_else_has_is_let_go_at_once(stage: Stage) -> None:
    """As when an operator writes another name into it: the next renewal meets a conflict and looks."""
    leader = stage.candidate(
        "first", timing=LeaseTiming(lease_seconds=60, renew_deadline_seconds=50, retry_seconds=0.2, request_seconds=2)
    )
    leads(leader)

    stage.shelf.put(holderIdentity="elsewhere", leaseDurationSeconds=60, leaseTransitions=7)

    wait_until(lambda: not leader.is_leader, PATIENCE_SECONDS, "the end of the lead")
    assert (leader.holder, leader.transitions, leader.problem) == ("elsewhere", 7, None)


def test_a_deleted_lease_is_not_an_invitation(stage: Stage) -> None:
    """Whoever led still believes so for a while: the others wait as long as if it were there."""
    stage.shelf.put(holderIdentity="elsewhere", leaseDurationSeconds=2, leaseTransitions=1)
    elector = stage.candidate("here")
    wait_until(lambda: elector.holder == "elsewhere", PATIENCE_SECONDS, "the lease to be seen")

    with nobody_else_within(1.5, elector):
        stage.shelf.delete()
    leads(elector)

    assert elector.transitions == 2


def test_a_leader_makes_its_deleted_lease_anew(stage: Stage) -> None:
    """Without a moment in which it does not lead."""
    leader = stage.candidate(
        "first", timing=LeaseTiming(lease_seconds=60, renew_deadline_seconds=50, retry_seconds=0.2, request_seconds=2)
    )
    leads(leader)

    stage.shelf.delete()
    wait_until(lambda: stage.shelf.holder == "first", PATIENCE_SECONDS, "the lease to be there again")

    assert leader.is_leader


def test_an_api_server_that_is_down_is_a_problem_and_not_the_end(stage: Stage) -> None:
    """Leadership lapses by the deadline; with the server it comes back."""
    leader = stage.candidate("first")
    leads(leader)

    stage.shelf.is_refusing = True
    wait_until(lambda: not leader.is_leader, PATIENCE_SECONDS, "the end of the lead")
    assert "etcd is gone" in str(leader.problem)
    stage.shelf.is_refusing = False

    wait_until(lambda: leader.is_leader, PATIENCE_SECONDS, "the lead")


def test_a_released_lease_is_taken_at_once(stage: Stage) -> None:
    """Written as client-go does; the one that let go neither leads nor renews any more."""
    long = LeaseTiming(lease_seconds=60, renew_deadline_seconds=50, retry_seconds=0.3, request_seconds=2)
    first = stage.candidate("first", timing=long)
    leads(first)
    second = stage.candidate("second", timing=long)
    wait_until(lambda: second.holder == "first", PATIENCE_SECONDS, "the second one to see the first")

    assert first.release()
    assert not first.is_leader
    leads(second)

    assert second.transitions == 1
    assert not first.release()
    assert stage.shelf.holder == "second"
    assert not first.is_leader


def test_what_is_not_held_can_be_released(stage: Stage) -> None:
    """By one that never began, one that waits, and one whose server is gone: nothing is raised, nothing written."""
    stage.shelf.put(holderIdentity="elsewhere", leaseDurationSeconds=60)
    waiting = stage.candidate("here")
    wait_until(lambda: waiting.holder == "elsewhere", PATIENCE_SECONDS, "the lease to be seen")

    assert not waiting.release()
    assert stage.shelf.holder == "elsewhere"
    stage.shelf.is_refusing = True
    assert not waiting.release()
    assert not LeaseElector(waiting.client, "shop", "foresize", "new", seconds_since_boot, time.time).release()
    assert "PATCH" not in stage.shelf.requests


def test_times_that_contradict_each_other_are_refused() -> None:
    """A deadline without room for a retry and its answer, or one as long as the lease, keeps no promise."""
    with pytest.raises(ValueError, match="must fit"):
        LeaseTiming(renew_deadline_seconds=4.0)
    with pytest.raises(ValueError, match="must fit"):
        LeaseTiming(renew_deadline_seconds=10.0)
    with pytest.raises(ValueError, match="identity"):
        LeaseElector(KubeClient(None, ""), "shop", "foresize", "", seconds_since_boot, time.time)


def test_the_one_in_memory_keeps_the_same_port(stage: Stage) -> None:
    """It leads or not as it is told."""
    answers: list[Leadership] = [
        MemoryLeadership(),
        MemoryLeadership(False, other="elsewhere"),
        stage.candidate("first"),
    ]

    assert wait_until(lambda: answers[2].is_leader, PATIENCE_SECONDS, "the lease")
    assert [(answer.is_leader, answer.holder) for answer in answers] == [
        (True, "this one"),
        (False, "elsewhere"),
        (True, "first"),
    ]
