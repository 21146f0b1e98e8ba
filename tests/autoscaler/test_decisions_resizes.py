"""Which pods are resized, and which are left alone and why."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.cluster.containers import Amounts, ContainerState, PendingResize, PodState
from autoscaler.decisions.requests import RequestRange
from autoscaler.decisions.resizes import PodsReview, ResizeRules, review_pods
from predictor.usage.panel import Resource

MIB = 2**20
NOW = 1_000_000.0


def a_container(cpu: float | None = 0.5, memory_mib: float | None = 200, **more: Any) -> ContainerState:
    return ContainerState("app", Amounts(cpu, None if memory_mib is None else memory_mib * MIB), **more)


def a_pod(name: str = "web-1", *containers: ContainerState, **more: Any) -> PodState:
    state: dict[str, Any] = {"is_running": True, "qos": "Burstable"}
    return PodState("shop", name, f"uid of {name}", "1", containers=containers or (a_container(),), **(state | more))


def wanted(cpu: float = 0.5, memory_mib: float = 200) -> dict[str, dict[Resource, RequestRange]]:
    """Targets with bounds that are far away."""
    return {
        "app": {
            Resource.CPU: RequestRange(cpu, 0.0, 100.0, ""),
            Resource.MEMORY: RequestRange(memory_mib * MIB, 0.0, 1e12, ""),
        }
    }


def reviewed(
    *pods: PodState,
    in_use_mib: float | None = 10,
    in_use_cores: float | None = 0.01,
    now: float = NOW,
    to: Any = None,
    cuts_wait_for: str = "",
    **targets: float,
) -> PodsReview:
    in_use = {"app": Amounts(in_use_cores, None if in_use_mib is None else in_use_mib * MIB)}
    return review_pods(pods, to or wanted(**targets), in_use, ResizeRules(), now, cuts_wait_for=cuts_wait_for)


def after(review: PodsReview) -> list[Amounts]:
    return [each.after for resize in review.resizes for each in resize.containers]


def test_only_what_is_more_than_the_tolerance_away_is_resized() -> None:
    """A tenth of the request is not worth it; the other resource is left as it is."""
    assert reviewed(a_pod(), cpu=0.55).up_to_date == 1
    assert after(reviewed(a_pod(), cpu=0.56)) == [Amounts(0.56, None)]
    assert after(reviewed(a_pod(), cpu=0.4, memory_mib=300)) == [Amounts(0.4, 300 * MIB)]


def test_a_request_outside_its_bounds_is_resized_however_little_it_is_away() -> None:
    close = {"app": {Resource.CPU: RequestRange(0.52, 0.51, 0.6, "")}}

    assert after(reviewed(a_pod(), to=close)) == [Amounts(0.52, None)]


def test_while_cuts_have_to_wait_requests_only_grow() -> None:
    """More CPU is given and memory is not taken; a pod that has only something to lose is left alone, and why."""
    burning = "its error budget burns"

    both = reviewed(a_pod(), cpu=0.9, memory_mib=100, cuts_wait_for=burning)
    less = reviewed(a_pod(), cpu=0.1, memory_mib=100, cuts_wait_for=burning)

    assert after(both) == [Amounts(0.9, None)]
    assert (after(less), less.left_alone) == ([], (("web-1", burning),))


def test_a_pod_whose_requests_the_webhook_changed_is_left_alone() -> None:
    """What was oversold would be bought back by a resize; the status says why it is not."""
    review = reviewed(a_pod(is_oversold=True), cpu=0.9)

    assert review.resizes == ()
    assert [name for name, _ in review.left_alone] == ["web-1"]
    assert "foresize webhook" in review.left_alone[0][1]
    assert reviewed(a_pod(is_oversold=True)).up_to_date == 1


def test_the_most_urgent_come_first() -> None:
    """Those that grow before those that are cut, and the smallest first."""
    pods = [a_pod(f"web-{cpu}", a_container(cpu)) for cpu in (2.0, 0.5, 0.1, 0.7)]

    order = [each.pod.name for each in reviewed(*pods, cpu=1.0).resizes]

    assert order == ["web-0.1", "web-0.5", "web-0.7", "web-2.0"]


@pytest.mark.parametrize(
    ("in_use_mib", "expected"), [(50, 100.0), (150, 165.0), (190, None), (500, None), (None, None)]
)
def test_memory_is_not_cut_below_what_is_used(in_use_mib: float | None, expected: float | None) -> None:
    """A tenth stays free; where nothing is known of what is used, nothing is cut."""
    review = reviewed(a_pod(), in_use_mib=in_use_mib, memory_mib=100)

    if expected is None:
        assert not review.resizes
        assert review.left_alone == (("web-1", "container app uses too much memory to cut its request"),)
    else:
        (found,) = after(review)
        assert found.memory_bytes == pytest.approx(expected * MIB)


def test_a_request_never_exceeds_a_limit() -> None:
    """Raised up to it; one that has reached it is left there, which is said."""
    limited = a_container(limits=Amounts(0.8, None))
    full = a_container(0.8, limits=Amounts(0.8, None))

    assert after(reviewed(a_pod("a", limited), cpu=2.0)) == [Amounts(0.8, None)]
    said = reviewed(a_pod("a", full), cpu=2.0).left_alone
    assert said == (("a", "the cpu limit of container app is below its target"),)


def test_a_container_that_would_be_restarted_is_left_alone() -> None:
    """For that resource; the other one is resized."""
    strict = a_container(restarts_for=(Resource.MEMORY,))

    assert after(reviewed(a_pod("a", strict), cpu=1.0, memory_mib=400)) == [Amounts(1.0, None)]
    review = reviewed(a_pod("a", strict), memory_mib=400)
    assert review.left_alone == (("a", "its resizePolicy restarts container app for memory"),)


@pytest.mark.parametrize(
    ("pod", "said"),
    [
        (a_pod("a", qos="Guaranteed"), "Guaranteed pod by what the pod requests"),
        (a_pod("a", a_container(None, None), qos="BestEffort"), "requests nothing"),
        (a_pod("a", a_container(0.5, 64, limits=Amounts(2.0, 64 * MIB))), "make it a Guaranteed pod"),
    ],
)
def test_no_pod_changes_its_class(pod: PodState, said: str) -> None:
    """The API server would refuse it."""
    review = reviewed(pod, cpu=5.0, memory_mib=64)

    assert not review.resizes
    assert said in review.left_alone[0][1]


def a_guaranteed_pod(cpu: float = 0.5, memory_mib: float = 200) -> PodState:
    return a_pod("a", a_container(cpu, memory_mib, limits=Amounts(cpu, memory_mib * MIB)), qos="Guaranteed")


@pytest.mark.parametrize(("cpu", "memory_mib"), [(2.0, 400), (0.1, 50), (2.0, 50)])
def test_the_limits_of_a_guaranteed_pod_move_with_its_requests(cpu: float, memory_mib: float) -> None:
    """Up and down, so that it stays Guaranteed."""
    review = reviewed(a_guaranteed_pod(), cpu=cpu, memory_mib=memory_mib)

    (change,) = review.resizes[0].containers
    assert (change.after, change.with_limits) == (Amounts(cpu, memory_mib * MIB), True)


def test_no_other_pods_limits_move() -> None:
    """A Burstable pod keeps them."""
    limited = a_container(limits=Amounts(0.8, None))

    (change,) = reviewed(a_pod("a", limited), cpu=0.7).resizes[0].containers

    assert not change.with_limits


@pytest.mark.parametrize(("in_use", "expected"), [(0.1, 0.2), (0.3, 0.33), (0.6, None), (None, None)])
def test_the_cpu_of_a_guaranteed_pod_is_not_cut_below_what_is_used(
    in_use: float | None, expected: float | None
) -> None:
    """A tenth stays free, as its limit throttles; where nothing is known of what is used, nothing is cut."""
    review = reviewed(a_guaranteed_pod(), cpu=0.2, in_use_cores=in_use)

    if expected is None:
        assert not review.resizes
        assert review.left_alone == (("a", "container app uses too much cpu to cut its request"),)
    else:
        (found,) = after(review)
        assert found.cpu_cores == pytest.approx(expected)


def test_what_does_not_run_is_not_looked_at() -> None:
    assert reviewed(a_pod(is_running=False), cpu=5.0) == PodsReview()


@pytest.mark.parametrize("reason", ["Deferred", "Infeasible"])
def test_what_a_node_could_not_do_is_not_asked_again_at_once(reason: str) -> None:
    """After ten minutes it is, if the target is still another one."""
    pod = a_pod(pending=PendingResize(reason, "no room", NOW))

    soon, later = reviewed(pod, cpu=2.0, now=NOW + 599), reviewed(pod, cpu=2.0, now=NOW + 600)

    assert (soon.resizes, soon.count(reason)) == ((), 1)
    assert len(later.resizes) == 1


def test_a_resize_under_way_is_waited_for() -> None:
    """However long it takes."""
    pod = a_pod(pending=PendingResize("InProgress", "", 0.0))

    assert not reviewed(pod, cpu=2.0).resizes


amounts = st.floats(0.01, 64.0)


@given(amounts, amounts, amounts, st.tuples(*[st.floats(1.0, 4096)] * 3))
def test_no_resize_breaks_a_rule(
    cpu: float, target: float, limit: float, mebibytes: tuple[float, float, float]
) -> None:
    """Whatever is asked for: no request above its limit, no memory cut below what is used."""
    held, memory, used = mebibytes
    container = a_container(min(cpu, limit), held, limits=Amounts(limit, None))

    for found in after(reviewed(a_pod("a", container), in_use_mib=used, cpu=target, memory_mib=memory)):
        assert found.cpu_cores is None or found.cpu_cores <= limit
        assert found.memory_bytes is None or found.memory_bytes >= min(held * MIB, used * MIB)


@given(amounts, amounts, amounts, st.tuples(*[st.floats(1.0, 4096)] * 3))
def test_a_guaranteed_pod_stays_so_and_is_never_cut_below_what_is_used(
    cpu: float, target: float, used_cores: float, mebibytes: tuple[float, float, float]
) -> None:
    """Whatever is asked for, and of both resources: what is above a limit is throttled or killed."""
    held, memory, used = mebibytes
    review = reviewed(
        a_guaranteed_pod(cpu, held), in_use_mib=used, in_use_cores=used_cores, cpu=target, memory_mib=memory
    )

    for resize in review.resizes:
        for change in resize.containers:
            assert change.with_limits
            assert change.after.cpu_cores is None or change.after.cpu_cores >= min(cpu, used_cores)
            assert change.after.memory_bytes is None or change.after.memory_bytes >= min(held, used) * MIB


@given(amounts, amounts)
def test_a_pod_that_was_resized_is_up_to_date(cpu: float, target: float) -> None:
    """The same target asks for nothing more."""
    (changed, *_) = after(reviewed(a_pod("a", a_container(cpu)), cpu=target)) or [Amounts(cpu, None)]

    assert reviewed(a_pod("a", a_container(changed.cpu_cores)), cpu=target).up_to_date == 1
