"""The made-up cluster is the same for the same seed, and behaves as clusters do."""

import re
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest

from models.forecast import FloatArray
from pipelines.demo.catalog import POOLS, WORKLOADS
from pipelines.demo.exporters import counter
from pipelines.demo.patterns import CONSUMER, OFFICE, WORKING_WEEK, Demand, demand
from pipelines.demo.world import DAYS, STEP_SECONDS, DemoWorld, demo_world
from predictor.usage.panel import Resource, SeriesKey

END = 1_789_948_800
"""A Monday, 2026-09-21, at midnight UTC."""


@pytest.fixture(scope="module")
def world() -> DemoWorld:
    """Three weeks, as the demo has them."""
    return demo_world(seed=7, end_seconds=END)


def usage(world: DemoWorld, workload: str, resource: Resource = Resource.CPU) -> FloatArray:
    """A workload's true usage, [days, steps of a day]."""
    row = world.truth.row(SeriesKey(workload, resource))
    return np.asarray(world.truth.usage[row].reshape(DAYS, -1), dtype=np.float64)


def test_the_same_seed_gives_the_same_world() -> None:
    """Bit for bit, and another seed another one."""
    first, second, other = (demo_world(seed=seed, end_seconds=END, days=2) for seed in (1, 1, 2))

    assert [(s.metric, s.labels, s.first) for s in first.series] == [
        (s.metric, s.labels, s.first) for s in second.series
    ]
    assert all(
        np.array_equal(a.values, b.values, equal_nan=True) for a, b in zip(first.series, second.series, strict=True)
    )
    assert not np.array_equal(first.truth.usage, other.truth.usage, equal_nan=True)


def test_nothing_is_known_after_the_end(world: DemoWorld) -> None:
    """The last sample of every series lies before the end, and is no more than a step old."""
    last = max(
        world.start_seconds + (each.first + each.values.size - 1) * STEP_SECONDS + each.offset_seconds
        for each in world.series
    )

    assert world.end_seconds == END
    assert END - STEP_SECONDS < last < END


def test_no_series_is_given_twice_at_the_same_time(world: DemoWorld) -> None:
    """Prometheus would refuse it."""
    spans: dict[object, list[tuple[int, int]]] = defaultdict(list)
    for each in world.series:
        spans[each.metric, tuple(sorted(each.labels))].append((each.first, each.first + each.values.size))

    for key, lives in spans.items():
        ordered = sorted(lives)
        assert all(a[1] <= b[0] for a, b in pairwise(ordered)), key


def test_the_history_is_small_enough_to_fill_in_quickly(world: DemoWorld) -> None:
    """Under six million samples: seconds, not minutes, of promtool."""
    assert 3e6 < world.samples < 6e6


def test_every_workload_has_usage_in_its_truth(world: DemoWorld) -> None:
    """CPU and memory for all, GPUs and requests for those that have them."""
    for spec in WORKLOADS:
        for resource in (Resource.CPU, Resource.MEMORY):
            assert np.nanmax(usage(world, spec.key, resource)) > 0
        assert (SeriesKey(spec.key, Resource.GPU) in world.truth.keys) == bool(spec.gpu_memory_mib)
        assert (SeriesKey(spec.key, Resource.REQUESTS) in world.truth.keys) == bool(spec.peak_requests)


def test_offices_rise_in_the_morning_and_rest_at_weekends(world: DemoWorld) -> None:
    """From 7 to 9 usage multiplies; a Sunday is a fraction of a Wednesday."""
    login = usage(world, "accounts/Deployment/login")

    at = {hour: slice(hour * 12, hour * 12 + 12) for hour in (6, 9)}
    wednesday, sunday = login[2], login[6]
    assert wednesday[at[9]].mean() > 5 * wednesday[at[6]].mean()
    assert sunday.mean() < 0.4 * wednesday.mean()


def test_last_week_tells_of_this_week_but_not_all(world: DemoWorld) -> None:
    """Rhythms can be learned, noise cannot: the same weekday a week before is close, not equal."""
    for name in ("shop/Deployment/web", "accounts/Deployment/login", "payments/Deployment/gateway"):
        days = usage(world, name)
        error = np.abs(days[14:] - days[7:14]).mean() / days[14:].mean()
        assert 0.03 < error < 0.35, name


def test_deploys_change_pod_names_and_jobs_end(world: DemoWorld) -> None:
    """A Deployment's pods come from several ReplicaSets; a CronJob's are done after a while."""
    owners = {
        dict(each.labels)["owner_name"]
        for each in world.series
        if each.metric == "kube_pod_owner" and dict(each.labels)["namespace"] == "shop"
    }
    phases = {dict(s.labels)["phase"] for s in world.series if s.metric == "kube_pod_status_phase"}

    assert len([name for name in owners if re.fullmatch(r"web-[a-z0-9]{10}", name)]) > 3
    assert phases == {"Running", "Succeeded"}


def test_trouble_is_in_it(world: DemoWorld) -> None:
    """Counters that start anew, a leak that ends in a kill, CPU limits, a scrape outage, a newborn workload."""
    counters = [s.values for s in world.series if s.metric == "container_cpu_usage_seconds_total"]
    assert sum(bool(np.any(np.diff(values[~np.isnan(values)]) < 0)) for values in counters) > 5
    leak = usage(world, "ops/Deployment/image-cache", Resource.MEMORY).ravel()
    assert np.diff(leak).min() < -1e9
    cut_off = world.truth.was_cut_off
    assert cut_off is not None
    held_back = {key for key, steps in zip(world.truth.keys, cut_off, strict=True) if steps.any()}
    assert held_back == {
        SeriesKey("batch/CronJob/sync", Resource.CPU),
        SeriesKey("kube-system/Deployment/coredns", Resource.CPU),
        SeriesKey("ops/Deployment/image-cache", Resource.MEMORY),
    }
    assert min(np.isnan(values).sum() for values in counters if values.size == DAYS * 288) >= 20
    assert np.isnan(usage(world, "shop/Deployment/gift-cards")[:19]).all()


def test_idle_workloads_ask_for_more_than_they_use(world: DemoWorld) -> None:
    """There is something to reclaim: the general pool asks for most of its cores and uses less than half of that."""
    rows = [
        i
        for i, key in enumerate(world.truth.keys)
        if key.resource is Resource.CPU and world.truth.node_pool[key.workload] == "general"
    ]
    general = next(pool for pool in POOLS if pool.name == "general")
    asked = np.nansum(world.truth.attributes["request"][rows], axis=0)

    assert asked.mean() > 0.75 * general.nodes * general.cores
    assert np.nansum(world.truth.usage[rows], axis=0).mean() < 0.5 * asked.mean()


def test_a_counter_loses_what_a_restart_took() -> None:
    """4 seconds a step; restarted in the third step, half of which is counted."""
    np.testing.assert_allclose(counter(np.full(5, 4.0), [2]), [4, 8, 2, 6, 10])


@pytest.mark.parametrize("day", [CONSUMER, OFFICE])
def test_demand_never_falls_below_its_floor(day: tuple[tuple[float, float], ...]) -> None:
    """However noisy it is."""
    times = END - 300 * np.arange(2016, 0, -1, dtype=np.int64)
    wild = Demand(day=day, week=WORKING_WEEK, floor=0.05, wander=0.8, jitter=0.5, bursts_per_week=20)

    level = demand(wild, times, np.random.default_rng(3))

    assert level.min() >= 0.05
    assert np.isfinite(level).all()
