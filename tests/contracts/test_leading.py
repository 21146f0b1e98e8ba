"""The election on a real API server: one leads at any time, whatever is killed, stopped or cut off."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP

import pytest

from autoscaler.errors import ClusterRefused
from autoscaler.kube.client import KubeClient
from autoscaler.kube.clocks import seconds_since_boot
from autoscaler.kube.lease import LeaseElector, LeaseTiming
from tests.support.controlplane import ControlPlane, wait_until
from tests.support.relay import relayed

pytestmark = pytest.mark.e2e
log = logging.getLogger(__name__)
"""Says how long take-overs took: `pytest --log-cli-level=INFO`."""

TIMING = LeaseTiming()
TAKE_OVER_SECONDS = 15.0
"""What is promised after a leader was killed."""
PATIENCE_SECONDS = 30.0
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Watchman:
    """Asks all candidates very often, and remembers when it saw more than one lead."""

    electors: list[LeaseElector] = field(default_factory=list)
    overlaps: list[str] = field(default_factory=list)
    samples: int = 0

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.005):
            leading = [elector for elector in list(self.electors) if elector.is_leader]
            # Asked again, as one may have followed the other in between.
            if len([elector for elector in leading if elector.is_leader]) > 1:
                self.overlaps.append(f"{[elector.identity for elector in leading]} at {seconds_since_boot()}")
            self.samples += 1


@dataclass
class Stage:
    """A namespace with a lease, and the candidates for it."""

    plane: ControlPlane
    namespace: str
    watchman: Watchman
    candidate: Callable[..., LeaseElector]

    @property
    def path(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/foresize"


@pytest.fixture
def stage(control_plane: ControlPlane) -> Iterator[Stage]:
    """Nobody leads yet; at the end nobody ever led together with another one."""
    with ExitStack() as stack:
        namespace = stack.enter_context(control_plane.namespace("lease"))
        watchman = Watchman()
        stack.callback(watchman.end)

        def candidate(identity: str, kubeconfig: Path | None = None) -> LeaseElector:
            client = KubeClient.connect(kubeconfig or control_plane.kubeconfig)
            stack.callback(client.close)
            elector = LeaseElector(client, namespace, "foresize", identity, seconds_since_boot, time.time)
            elector.start()
            stack.callback(elector.release)
            watchman.electors.append(elector)
            return elector

        yield Stage(control_plane, namespace, watchman, candidate)
    assert watchman.samples > 0
    assert watchman.overlaps == []


@dataclass
class OtherProcess:
    """A candidate in a process of its own; `said` is what it printed, with the clock of this machine."""

    process: subprocess.Popen[str]
    said: list[tuple[float, bool]] = field(default_factory=list)

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            at, leads = line.split()
            self.said.append((float(at), leads == "1"))


@contextmanager
def another_process(stage: Stage, identity: str) -> Iterator[OtherProcess]:
    """Runs, and leads."""
    arguments = [str(stage.plane.kubeconfig), stage.namespace, identity]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.candidate", *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    other = OtherProcess(process)
    reader = threading.Thread(target=other.read)
    reader.start()
    try:
        wait_until(lambda: other.said and other.said[-1][1], PATIENCE_SECONDS, f"{identity} to lead")
        yield other
    finally:
        process.kill()
        process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()


def leads(elector: LeaseElector) -> None:
    """Waits until it does."""
    wait_until(lambda: elector.is_leader, PATIENCE_SECONDS, f"{elector.identity} to lead; problem {elector.problem}")


def takes_over(elector: LeaseElector, since_seconds: float, what: str) -> None:
    """Waits until it leads; that must have taken no longer than promised."""
    wait_until(lambda: elector.is_leader, PATIENCE_SECONDS, "the lead")
    took_seconds = seconds_since_boot() - since_seconds
    log.info("take-over after %s: %.2f s", what, took_seconds)
    assert took_seconds < TAKE_OVER_SECONDS


def test_one_of_two_leads_and_goes_on_leading(stage: Stage) -> None:
    """Through several renewals; people can read in the lease who it is."""
    first = stage.candidate("first")
    leads(first)
    second = stage.candidate("second")
    deadline = seconds_since_boot() + TIMING.renew_deadline_seconds + 2

    while seconds_since_boot() < deadline:
        assert first.is_leader
        assert not second.is_leader
        time.sleep(0.01)

    assert second.holder == "first"
    spec = stage.plane.get(stage.path)["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("first", 10, 0)
    assert spec["renewTime"] > spec["acquireTime"]


def test_a_released_lease_is_taken_over_at_once(stage: Stage) -> None:
    """And given back the same way."""
    first, second = stage.candidate("first"), stage.candidate("second")
    wait_until(lambda: first.is_leader or second.is_leader, PATIENCE_SECONDS, "one to lead")
    leader, follower = (first, second) if first.is_leader else (second, first)
    wait_until(lambda: follower.holder == leader.identity, PATIENCE_SECONDS, "the other one to see it")

    released = seconds_since_boot()
    assert leader.release()
    wait_until(lambda: follower.is_leader, PATIENCE_SECONDS, "the lead")
    took_seconds = seconds_since_boot() - released
    log.info("take-over after a release: %.2f s", took_seconds)

    assert took_seconds < 3 + 2  # one retry and its answers; two more for a busy machine
    assert (follower.holder, follower.transitions) == (follower.identity, 1)


def test_a_killed_leader_is_replaced(stage: Stage) -> None:
    """Within the time that is promised."""
    with another_process(stage, "elsewhere") as other:
        here = stage.candidate("here")
        wait_until(lambda: here.holder == "elsewhere", PATIENCE_SECONDS, "the lease to be seen")

        other.process.send_signal(SIGKILL)
        killed = seconds_since_boot()
        takes_over(here, killed, "SIGKILL")

    assert here.transitions == 1


def test_a_leader_that_was_stopped_knows_at_once_that_it_leads_no_more(stage: Stage) -> None:
    """It wakes after somebody else took over, and does not believe for a moment that nothing happened."""
    with another_process(stage, "elsewhere") as other:
        here = stage.candidate("here")
        wait_until(lambda: here.holder == "elsewhere", PATIENCE_SECONDS, "the lease to be seen")

        other.process.send_signal(SIGSTOP)
        stopped = seconds_since_boot()
        takes_over(here, stopped, "SIGSTOP")
        took_over = seconds_since_boot()
        said_before = len(other.said)
        other.process.send_signal(SIGCONT)
        wait_until(lambda: len(other.said) >= said_before + 40, PATIENCE_SECONDS, "the other one to go on")

    after = [is_leader for at, is_leader in other.said if at >= took_over]
    assert len(after) >= 30
    assert not any(after)
    assert here.is_leader


def test_a_leader_that_is_cut_off_ends_before_the_next_one_begins(stage: Stage, tmp_path: Path) -> None:
    """Nobody tells it: its time is over by its own clock. With the network it comes back as a candidate."""
    with relayed(stage.plane.kubeconfig, tmp_path) as (relay, kubeconfig):
        first = stage.candidate("first", kubeconfig)
        leads(first)
        second = stage.candidate("second")
        wait_until(lambda: second.holder == "first", PATIENCE_SECONDS, "the lease to be seen")

        relay.silence()
        cut = seconds_since_boot()
        wait_until(lambda: not first.is_leader, PATIENCE_SECONDS, "the end of the lead")
        ended = seconds_since_boot()
        assert not second.is_leader
        takes_over(second, cut, "a cut")
        relay.cut()
        relay.mend()
        wait_until(lambda: first.holder == "second", PATIENCE_SECONDS, "the first one to see the second")
        assert not first.is_leader
        first.release()

    assert ended - cut < TIMING.renew_deadline_seconds + 2  # two for a busy machine


def test_without_the_api_server_nobody_leads(stage: Stage) -> None:
    """By the deadline, though nobody can take over; with the server the same one leads again."""
    if stage.plane.is_external:
        pytest.skip("FORESIZE_TEST_KUBECONFIG names a cluster with components of its own")
    elector = stage.candidate("first")
    leads(elector)

    killed = seconds_since_boot()
    stage.plane.kill("kube-apiserver")
    try:
        wait_until(lambda: not elector.is_leader, PATIENCE_SECONDS, "the end of the lead")
        assert seconds_since_boot() - killed < TIMING.renew_deadline_seconds + 2  # two for a busy machine
        assert "did not answer" in str(elector.problem)
    finally:
        stage.plane.restart("kube-apiserver")
    wait_until(lambda: elector.is_leader, PATIENCE_SECONDS, "the lead")
    assert elector.transitions == 0


def test_a_role_that_lacks_a_rule_is_told_which(stage: Stage) -> None:
    """Reading, making and renewing are each refused with the rule to add; nobody leads meanwhile."""

    def allow(*verbs: str) -> Path:
        rules = [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": list(verbs)}]
        return stage.plane.kubeconfig_for("candidate", rules, stage.namespace)

    def is_told(verb: str) -> bool:
        return f'resources: ["leases"], verbs: ["{verb}"]' in str(elector.problem)

    elector = stage.candidate("first", allow("list"))
    wait_until(lambda: is_told("get"), PATIENCE_SECONDS, "the first refusal")
    assert isinstance(elector.problem, ClusterRefused)
    allow("get")
    wait_until(lambda: is_told("create"), PATIENCE_SECONDS, "the second refusal")
    assert not elector.is_leader
    allow("get", "create")
    wait_until(lambda: is_told("patch"), PATIENCE_SECONDS, "the third refusal")
    allow("get", "create", "patch")
    wait_until(lambda: elector.is_leader and elector.problem is None, PATIENCE_SECONDS, "a renewal")
