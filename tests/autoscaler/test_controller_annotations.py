"""A workload's own wishes: read, or refused with the annotation's name, its value and what is accepted."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.cluster.reasons import Hold
from autoscaler.controller.annotations import KNOWN, policy_of, quantity
from autoscaler.errors import InvalidAnnotation
from autoscaler.settings import ScalingSettings
from predictor.usage.panel import Resource
from tests.support.scaling import a_workload

SETTINGS = ScalingSettings(min_replicas=2, max_replicas=30, target_utilisation=0.8)


def test_without_annotations_the_settings_hold() -> None:
    """Bounds from the settings, demand is CPU, a replica carries its request times the target utilisation."""
    policy = policy_of(a_workload(cpu_cores=0.5), SETTINGS)

    assert (policy.min_replicas, policy.max_replicas, policy.resource) == (2, 30, Resource.CPU)
    assert policy.capacity_per_replica == pytest.approx(0.4)
    assert policy.capacity_source == "request of 0.5 × target utilisation 0.8"
    assert not policy.is_paused


def test_annotations_stand_over_the_settings() -> None:
    """A capacity that is given is what a replica carries: no utilisation is taken off it."""
    workload = a_workload(
        min_replicas="3", max_replicas="50", resource="requests", capacity_per_replica="120", paused="true"
    )

    policy = policy_of(workload, SETTINGS)

    assert (policy.min_replicas, policy.max_replicas, policy.resource) == (3, 50, Resource.REQUESTS)
    assert (policy.capacity_per_replica, policy.is_paused) == (120.0, True)


def test_a_minimum_above_the_settings_maximum_raises_it() -> None:
    """Who asks for at least 40 replicas may have 40, even where others end at 30."""
    policy = policy_of(a_workload(min_replicas="40"), SETTINGS)

    assert (policy.min_replicas, policy.max_replicas) == (40, 40)


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("min-replicas", "0", "a whole number of at least 1"),
        ("min-replicas", "2.5", "a whole number of at least 1"),
        ("max-replicas", "", "a whole number of at least 1"),
        ("max-replicas", "١٢", "a whole number of at least 1"),
        ("max-replicas", "1", "a minimum of at most the maximum; they are 2 and 1"),
        ("resource", "CPU", "cpu, requests, gpu, memory"),
        ("resource", "gpu_memory", "cpu, requests, gpu, memory"),
        ("capacity-per-replica", "0", "a quantity above 0"),
        ("capacity-per-replica", "-1", "a quantity above 0"),
        ("capacity-per-replica", "NaN", "a quantity above 0"),
        ("capacity-per-replica", "Infinity", "a quantity above 0"),
        ("capacity-per-replica", "2 GB", "a quantity above 0"),
        ("paused", "yes", "true, false"),
        ("min-replica", "3", "no such annotation; known: min-replicas"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(name: str, value: str, accepted: str) -> None:
    """The message holds all that is needed to mend it."""
    workload = replace(a_workload(), annotations={name: value})

    with pytest.raises(InvalidAnnotation) as raised:
        policy_of(workload, SETTINGS)

    assert str(raised.value).startswith(f"annotation foresize.io/{name} is {value!r}; accepted: {accepted}")


@given(st.sampled_from(KNOWN), st.text(max_size=12))
def test_any_text_is_read_or_refused_and_nothing_else(name: str, text: str) -> None:
    """Whatever somebody writes, the outcome is a sane policy or the one error that holds the workload."""
    try:
        policy = policy_of(replace(a_workload(), annotations={name: text}), SETTINGS)
    except InvalidAnnotation as refused:
        assert name in str(refused)
    else:
        assert 1 <= policy.min_replicas <= policy.max_replicas
        assert isinstance(policy.capacity_per_replica, Hold) or 0 < policy.capacity_per_replica < float("inf")


@pytest.mark.parametrize(
    ("text", "value"), [("250m", 0.25), ("2", 2.0), ("1.5k", 1500.0), ("2Gi", 2.0 * 2**30), ("1e3", 1000.0)]
)
def test_quantities_are_read_as_kubernetes_writes_them(text: str, value: float) -> None:
    """In base units."""
    assert quantity(text) == value


def test_requests_per_second_need_a_capacity() -> None:
    """No pod requests them, so nothing can be assumed."""
    policy = policy_of(a_workload(resource="requests"), SETTINGS)

    assert isinstance(policy.capacity_per_replica, Hold)
    assert "capacity-per-replica in requests per second" in str(policy.capacity_per_replica)
