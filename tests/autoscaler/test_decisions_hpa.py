"""The HPA as Kubernetes documents it: examples worked by hand."""

import pytest

from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.decisions.guardrails import HPA_BEHAVIOUR, NO_MEMORY, remembered_scale
from autoscaler.decisions.hpa import (
    PodGroups,
    PodPhase,
    PodSample,
    average_usage_replicas,
    average_value_replicas,
    grouped,
    hpa_replicas,
    utilisation_replicas,
    value_replicas,
)

NO_METRIC = Hold(Reason(ReasonCode.NO_OBSERVATION, "the adapter did not answer"))
NOW = 1000.0


def ready(count: int, percent: float, *, missing: int = 0, ignored: int = 0) -> PodGroups:
    """Pods that request one core each, of which the ready ones use this many percent."""
    return PodGroups(count, count * percent / 100, float(count), missing, float(missing), ignored, float(ignored))


@pytest.mark.parametrize(
    ("percent", "replicas"),
    [(100, 8), (50, 4), (25, 2), (55, 4), (56, 5), (45, 4), (44, 4), (37, 3), (0, 0)],
)
def test_replicas_follow_the_ratio_of_utilisation_to_target(percent: float, replicas: int) -> None:
    """4 pods, target 50 %: ceil(4 × utilisation / 50), but 45 to 55 % is within the tolerance."""
    assert utilisation_replicas(ready(4, percent), 4, 50, HPA_BEHAVIOUR) == replicas


def test_utilisation_is_a_whole_number_of_percent_cut_off() -> None:
    """55.9 % is 55 %, a ratio of 1.1: within the tolerance; 70 % stays 70 % in spite of floating point."""
    assert utilisation_replicas(ready(10, 55.9), 10, 50, HPA_BEHAVIOUR) == 10
    assert utilisation_replicas(PodGroups(3, 0.7 * 3, 3.0), 3, 35, HPA_BEHAVIOUR) == 6


def test_pods_without_a_metric_damp_a_scale_in_as_if_fully_used() -> None:
    """3 pods at 20 %, 1 missing, target 50: (0.6 + 1) / 4 = 40 %, ratio 0.8, ceil(0.8 × 4) = 4 rather than 2."""
    assert utilisation_replicas(ready(3, 20), 4, 50, HPA_BEHAVIOUR) == 2
    assert utilisation_replicas(ready(3, 20, missing=1), 4, 50, HPA_BEHAVIOUR) == 4
    assert utilisation_replicas(ready(8, 10, missing=1), 9, 50, HPA_BEHAVIOUR) == 4


def test_pods_without_a_metric_damp_a_scale_out_as_if_idle() -> None:
    """4 pods at 100 %, 2 missing, target 50: 400 / 6 = 66 %, ratio 1.32, ceil(1.32 × 6) = 8; with 4 missing none."""
    assert utilisation_replicas(ready(4, 100, missing=2), 6, 50, HPA_BEHAVIOUR) == 8
    assert utilisation_replicas(ready(4, 100, missing=4), 8, 50, HPA_BEHAVIOUR) == 8


def test_unready_pods_damp_a_scale_out_and_nothing_else() -> None:
    """4 pods at 80 %, target 50, 2 starting: 320 / 6 = 53 %, within the tolerance; at 25 % they are not looked at."""
    assert utilisation_replicas(ready(4, 80), 4, 50, HPA_BEHAVIOUR) == 7
    assert utilisation_replicas(ready(4, 80, ignored=2), 6, 50, HPA_BEHAVIOUR) == 6
    assert utilisation_replicas(ready(4, 100, ignored=2), 6, 50, HPA_BEHAVIOUR) == 8
    assert utilisation_replicas(ready(4, 25, ignored=2), 6, 50, HPA_BEHAVIOUR) == 2


def test_assumptions_never_turn_the_direction_round() -> None:
    """2 pods at 40 % want fewer; 3 missing ones taken as full would want more: so nothing is changed."""
    assert utilisation_replicas(ready(2, 40, missing=3), 5, 50, HPA_BEHAVIOUR) == 5
    assert utilisation_replicas(ready(2, 60, missing=8), 10, 50, HPA_BEHAVIOUR) == 10
    assert utilisation_replicas(ready(2, 50, missing=8), 10, 50, HPA_BEHAVIOUR) == 10


def test_without_any_ready_metric_there_is_no_answer() -> None:
    """All pods young or missing: the HPA reports an error and leaves things alone."""
    assert isinstance(utilisation_replicas(ready(0, 0, ignored=3), 3, 50, HPA_BEHAVIOUR), Hold)
    assert isinstance(average_usage_replicas(ready(0, 0, missing=3), 3, 0.5, HPA_BEHAVIOUR), Hold)


def test_an_average_value_of_pods_follows_the_same_rules_with_the_target_for_the_missing() -> None:
    """Mean 20 against 10: twice the pods. Mean 5, 2 of 4 missing and taken as 10: 30 / 4 / 10 = 0.75, so 3."""
    assert average_usage_replicas(PodGroups(3, 60, 0), 3, 10, HPA_BEHAVIOUR) == 6
    assert average_usage_replicas(PodGroups(2, 10, 0, 2), 4, 10, HPA_BEHAVIOUR) == 3
    assert average_usage_replicas(PodGroups(2, 40, 0, 1, ignored=1), 4, 10, HPA_BEHAVIOUR) == 4
    assert average_usage_replicas(PodGroups(3, 31, 0), 3, 10, HPA_BEHAVIOUR) == 3


def test_external_metrics_are_shared_among_the_replicas_or_compared_as_they_are() -> None:
    """100 messages at 30 each: 4 replicas. A figure of 40 against a target of 20: twice the ready pods."""
    assert average_value_replicas(100, 30, 2, HPA_BEHAVIOUR) == 4
    assert average_value_replicas(100, 30, 3, HPA_BEHAVIOUR) == 4
    assert average_value_replicas(95, 30, 3, HPA_BEHAVIOUR) == 3, "a ratio of 1.06 is within the tolerance"
    assert average_value_replicas(95, 30, 0, HPA_BEHAVIOUR) == 4, "no tolerance at zero replicas"
    assert value_replicas(40, 20, 3, 3, HPA_BEHAVIOUR) == 6
    assert value_replicas(21, 20, 3, 3, HPA_BEHAVIOUR) == 3
    assert value_replicas(30, 20, 0, 0, HPA_BEHAVIOUR) == 2


def test_pods_are_sorted_as_the_controller_does() -> None:
    """Who counts: one of each kind, at 1000 s."""
    kinds = {
        "deleted": PodSample(request=1, phase=PodPhase.DELETED, usage=9),
        "failed": PodSample(request=1, phase=PodPhase.FAILED, usage=9),
        "pending": PodSample(request=1, phase=PodPhase.PENDING),
        "no metric": PodSample(request=1, usage=None),
        "no ready condition": PodSample(request=1, usage=9, is_ready=None),
        "no start": PodSample(request=1, usage=9, started_at_seconds=None),
        "young and unready": PodSample(request=1, usage=9, is_ready=False, started_at_seconds=900),
        "young, sample from before": PodSample(
            request=1, usage=9, started_at_seconds=900, ready_changed_at_seconds=980, sampled_at_seconds=1000
        ),
        "young, sample since": PodSample(
            request=1, usage=2, started_at_seconds=900, ready_changed_at_seconds=960, sampled_at_seconds=990
        ),
        "old, never ready": PodSample(
            request=1, usage=9, is_ready=False, started_at_seconds=100, ready_changed_at_seconds=110
        ),
        "old, not ready any more": PodSample(
            request=1, usage=3, is_ready=False, started_at_seconds=100, ready_changed_at_seconds=200
        ),
        "old and ready": PodSample(request=1, usage=4, started_at_seconds=100),
    }
    expected = {
        "ready": {"young, sample since", "old, not ready any more", "old and ready"},
        "missing": {"no metric"},
        "left out": {"deleted", "failed"},
    }

    for name, pod in kinds.items():
        groups = grouped([pod], NOW)
        kind = "ready" if groups.ready else "missing" if groups.missing else "ignored" if groups.ignored else "left out"
        assert kind == next((k for k, names in expected.items() if name in names), "ignored"), name
    together = grouped(kinds.values(), NOW)
    assert together == PodGroups(3, 9.0, 3.0, 1, 1.0, 6, 6.0)
    assert grouped(kinds.values(), NOW, is_cpu=False).ready == 8, "the time rules hold for CPU alone"


def test_the_largest_metric_decides_and_a_failed_one_forbids_scaling_in() -> None:
    """With one of two metrics lost the HPA may grow on the other, but not shrink."""

    def decided(*proposals: int | Hold) -> int:
        memory = hpa_replicas(1, (1,), (1, 20), NO_MEMORY, HPA_BEHAVIOUR, now_seconds=0.0).memory
        return hpa_replicas(5, proposals, (1, 20), memory, HPA_BEHAVIOUR, now_seconds=NOW).replicas

    assert decided(3, 7) == 7
    assert decided(3, 2) == 3
    assert decided(3, NO_METRIC) == 5
    assert decided(7, NO_METRIC) == 7
    assert decided(NO_METRIC, NO_METRIC) == 5


def test_replicas_outside_the_bounds_are_brought_to_the_bound_first() -> None:
    """Whatever the metrics say; and at zero replicas it is switched off."""

    def decided(current: int) -> int:
        return hpa_replicas(current, (7,), (3, 10), NO_MEMORY, HPA_BEHAVIOUR, now_seconds=NOW).replicas

    assert (decided(0), decided(1), decided(12), decided(5)) == (0, 3, 10, 7)


def test_a_hot_start_and_the_way_back_tick_by_tick() -> None:
    """1 replica of one core and a demand of 6 cores at a target of 50 %, served at once; then 1 core.

    Usage saturates at the requests, so utilisation is 100 % and the ratio 2 until 12 replicas are there: 2, 4, 8,
    then 6 cores / 8 = 75 %, ratio 1.5: 12. With 1 core: 8 %, ratio 0.16: 2, but only once 300 s have passed since
    12 was last recommended.
    """
    memory, current = NO_MEMORY, 1
    history = []
    for tick in range(30):
        now = 15.0 * tick
        demand = 6.0 if tick < 6 else 1.0
        groups = PodGroups(current, min(demand, current), float(current))
        proposal = utilisation_replicas(groups, current, 50, HPA_BEHAVIOUR)
        result = hpa_replicas(current, (proposal,), (1, 20), memory, HPA_BEHAVIOUR, now_seconds=now)
        memory = result.memory
        if result.replicas != current:
            memory = remembered_scale(memory, result.replicas - current, HPA_BEHAVIOUR, now)
        current = result.replicas
        history.append(current)

    # 12 is recommended for the last time at tick 5 (75 s), and leaves the window 300 s later, at tick 25.
    assert history == [2, 4, 8, 12, 12, 12] + [12] * 19 + [2] * 5
