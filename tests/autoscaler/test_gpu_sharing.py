"""Into how many shares a node's GPUs are divided, and why."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.decisions.gpu_sharing import (
    MOST_REPLICAS,
    GpuNode,
    Share,
    Sharing,
    excess,
    hami_advice,
    sharing,
    steady_share,
    told_share,
)
from models.forecast import FloatArray

GIB = 2.0**30
DAY = 48
"""Steps."""


def a_node(
    busy: float = 0.2, gib: float = 8.0, *, devices: int = 2, pods: float = 2.0, days: int = 20, seen: int | None = None
) -> GpuNode:
    """Each share is at rest but for an hour a day, in which it is so busy and takes so much."""
    steps = days * DAY
    is_peak = np.arange(steps) % DAY < 2
    per_device = max(1.0, np.floor(pods / devices))
    activity = np.where(is_peak, busy, 0.01) * pods
    fullest = np.where(is_peak, gib, gib / 2) * GIB * per_device
    shares = np.full(steps, pods)
    if seen is not None:
        shares[:-seen] = 0.0
    return GpuNode(devices, 80 * GIB, activity, fullest, shares)


def told(node: GpuNode) -> Share:
    share = told_share(node, violation_probability=0.05, horizon_steps=DAY)
    assert isinstance(share, Share), share
    return share


def shared(share: Share | Hold, *, in_use: int = 2, max_rate: float = 10.0) -> Sharing:
    return sharing(share, devices=2, device_bytes=80 * GIB, in_use=in_use, usable_share=0.9, max_rate=max_rate)


def test_a_share_takes_what_shares_took_so_far() -> None:
    """Of time the mean share's peak, of memory that of the fullest device; rarer than seen, so a little more."""
    share = told(a_node())

    assert share.activity == pytest.approx(0.2, rel=0.05)
    assert 8 * GIB <= share.memory_bytes <= 8.8 * GIB


def test_what_a_share_takes_does_not_depend_on_how_many_there_are() -> None:
    """So that sharing changes nothing about what is decided next."""
    one, shared_by_three = told(a_node(pods=2.0)), told(a_node(pods=6.0))

    assert shared_by_three.activity == pytest.approx(one.activity)
    assert shared_by_three.memory_bytes == pytest.approx(one.memory_bytes)


def test_where_shares_are_uneven_none_is_taken_for_smaller_than_it_was() -> None:
    """Three pods on two devices: two may be on the fullest, or one that takes all of it."""
    assert told(a_node(pods=3.0)).memory_bytes >= 8 * GIB


@pytest.mark.parametrize(
    ("share", "max_rate", "replicas", "reason"),
    [
        (Share(0.2, 8 * GIB), 10.0, 4, ReasonCode.PREDICTED_PEAK),
        (Share(0.05, 30 * GIB), 10.0, 2, ReasonCode.GPU_MEMORY),
        (Share(0.05, 73 * GIB), 10.0, 1, ReasonCode.GPU_MEMORY),
        (Share(0.95, 8 * GIB), 10.0, 1, ReasonCode.PREDICTED_PEAK),
        (Share(0.05, 1 * GIB), 3.0, 3, ReasonCode.MAX_RATIO),
        (Share(0.05, 1 * GIB), 1.5, 1, ReasonCode.MAX_RATIO),
        (Share(0.0, 0.0), 10.0, 10, ReasonCode.MAX_RATIO),
    ],
    ids=["its time", "its memory", "memory for one", "time for one", "maxRate", "the default", "idle"],
)
def test_the_scarcest_of_memory_time_and_rate_decides(
    share: Share, max_rate: float, replicas: int, reason: ReasonCode
) -> None:
    decision = shared(share, max_rate=max_rate)

    assert (decision.replicas, decision.reason.code) == (replicas, reason)


@given(activity=st.floats(0, 1), gib=st.floats(0.001, 80), rate=st.floats(1, 10), in_use=st.integers(0, 2))
def test_memory_is_never_oversold(activity: float, gib: float, rate: float, in_use: int) -> None:
    """And neither is time beyond what is usable, nor the rate exceeded."""
    decision = shared(Share(activity, gib * GIB), in_use=in_use, max_rate=rate)

    assert 1 <= decision.replicas <= min(rate + 1e-9, MOST_REPLICAS)
    if decision.replicas > 1:
        assert decision.replicas * gib <= 0.9 * 80 * (1 + 1e-6)
        assert decision.replicas * activity <= 0.9 * (1 + 1e-6)


@pytest.mark.parametrize(
    "node",
    [a_node(days=5), a_node(pods=0.0), a_node(seen=10)],
    ids=["less than seven horizons", "no pods", "pods since a while ago"],
)
def test_without_evidence_nothing_is_shared(node: GpuNode) -> None:
    share = told_share(node, violation_probability=0.05, horizon_steps=DAY)

    assert isinstance(share, Hold)
    assert share.reason.code is ReasonCode.NO_EVIDENCE
    assert shared(share).replicas == 1


def test_devices_that_are_not_measured_any_more_are_not_shared_further() -> None:
    """For longer than a horizon, be it their time or their memory; a gap within it changes nothing."""

    def silent(steps: int, *names: str) -> GpuNode:
        node = a_node()
        for name in names:
            getattr(node, name)[-steps:] = np.nan
        return node

    assert told(silent(DAY - 2, "activity", "fullest_bytes")).activity > 0
    for names in (("activity",), ("fullest_bytes",)):
        share = told_share(silent(DAY, *names), violation_probability=0.05, horizon_steps=DAY)
        assert isinstance(share, Hold)
        assert share.reason.code is ReasonCode.STALE_NODE
        assert "not measured within the last horizon" in share.reason.message
        assert shared(share).replicas == 1
        assert shared(share).is_stale
        assert shared(share, in_use=5).is_stale


@given(
    gib=st.lists(st.floats(0.1, 80), min_size=4 * DAY, max_size=4 * DAY),
    hours=st.integers(1, 10),
    gone=st.integers(1, 20 * DAY - 1),
)
@settings(max_examples=25, deadline=None)
def test_the_largest_pod_that_had_a_device_alone_is_never_taken_for_smaller(
    gib: list[float], hours: int, gone: int
) -> None:
    """However short it was there, on a day of which nothing else is known, and whatever ran shared since."""
    node = a_node(pods=6.0, gib=1.0)
    there = slice(max(0, gone - 2 * hours), gone)
    node.fullest_bytes[there] = np.resize(gib, there.stop - there.start) * GIB
    node.shares[there] = 2.0
    node.activity[there] = 0.1

    assert told(node).memory_bytes >= node.fullest_bytes[there].max()


def test_a_large_pod_that_ran_for_an_hour_is_remembered() -> None:
    """Of a day that was hardly watched no peak is told; what was seen of it counts all the same."""
    node = a_node()
    node.shares[4 * DAY : 5 * DAY] = 0.0
    node.shares[4 * DAY : 4 * DAY + 2] = 1.0
    node.fullest_bytes[4 * DAY : 4 * DAY + 2] = 60 * GIB

    assert told(node).memory_bytes == 60 * GIB


# --- from hour to hour

HOUR = 2


def near_a_third(steps: int) -> GpuNode:
    """Shares of which a device has time for three, or not quite: how busy they get differs from hour to hour."""
    rng = np.random.default_rng(3)
    busy = np.repeat(rng.uniform(0.2, 0.32, steps // 8), 8)
    return GpuNode(2, 80 * GIB, 2 * busy, np.full(steps, 4 * GIB), np.full(steps, 2.0))


def hourly_tellings(node: GpuNode, past: int) -> list[Share | Hold]:
    """What is told at each hour, oldest first, from so many steps of past."""

    def as_of(end: int) -> GpuNode:
        def last(values: FloatArray) -> FloatArray:
            return values[end - past : end]

        return GpuNode(
            node.devices, node.device_bytes, last(node.activity), last(node.fullest_bytes), last(node.shares)
        )

    ends = range(past, len(node.shares) + 1, HOUR)
    return [told_share(as_of(end), violation_probability=0.2, horizon_steps=DAY) for end in ends]


def followed(tellings: list[Share | Hold], hours: int) -> list[int]:
    """The replicas at each hour from the first that has so many before it, in the order of time."""
    windows = (tellings[end - hours : end + 1][::-1] for end in range(hours, len(tellings)))
    return [shared(steady_share(window)).replicas for window in windows]


def changes(replicas: list[int]) -> int:
    return int(np.count_nonzero(np.diff(replicas)))


def test_a_count_that_flips_from_hour_to_hour_is_not_followed() -> None:
    """Each change restarts the device plugin of a node: the lower count holds as long as it comes again."""
    tellings = hourly_tellings(near_a_third(25 * DAY), past=18 * DAY)

    at_once = followed(tellings, 0)[24:]
    steady = followed(tellings, 24)

    assert set(at_once) == {2, 3}
    assert changes(at_once) >= 4
    assert changes(steady) <= 1
    assert all(held <= told for held, told in zip(steady, at_once, strict=True))


def test_fewer_shares_are_made_at_once_and_more_when_they_were_allowed_for_a_horizon() -> None:
    roomy, tight = Share(0.1, 8 * GIB), Share(0.1, 36 * GIB)
    hours: list[Share | Hold] = [*[roomy] * 5, tight, *[roomy] * 6]

    assert followed(hours, 4) == [9, 2, 2, 2, 2, 2, 9, 9]


def test_what_was_not_known_within_the_horizon_is_not_shared_yet() -> None:
    """Neither that it may not be known now, nor that it was not a while ago."""
    share, unknown = Share(0.1, 8 * GIB), Hold(Reason(ReasonCode.STALE_NODE, "nobody looked"))

    now, before = shared(steady_share([unknown, share, share])), shared(steady_share([share, share, unknown]))

    assert (now.replicas, now.is_stale) == (1, True)
    assert (before.replicas, before.is_stale) == (1, False)
    assert "within the last horizon: nobody looked" in before.reason.message


# --- what was told, and what came

TOLD = Share(0.2, 10 * GIB)


@pytest.mark.parametrize(
    ("activity", "gib", "shares", "over"),
    [
        (0.8, 20.0, 4.0, 0.0),
        (1.0, 20.0, 4.0, 0.2),
        (0.8, 40.0, 4.0, 0.5),
        (1.6, 40.0, 4.0, 0.5),
        (0.4, 20.0, 3.0, 0.5),
        (0.4, 10.0, 0.0, None),
        (np.nan, 10.0, 4.0, None),
        (0.4, np.nan, 4.0, None),
    ],
    ids=["as told", "busier", "fuller", "both", "one of three may have all", "no pods", "not busy", "not measured"],
)
def test_a_share_that_took_more_than_was_told_is_a_violation(
    activity: float, gib: float, shares: float, over: float | None
) -> None:
    """By the shares there were then: more of them may take more."""
    newest = GpuNode(2, 80 * GIB, np.array([activity]), np.array([gib * GIB]), np.array([shares]))

    assert excess(TOLD, newest) == (None if over is None else pytest.approx(over))


@pytest.mark.parametrize(("sold_share", "replicas"), [(1.0, 4), (0.99, 3), (0.5, 2), (0.1, 1)])
def test_violations_beyond_the_budget_make_shares_fewer(sold_share: float, replicas: int) -> None:
    """One at least, and of those beside the first in proportion."""
    decision = sharing(
        TOLD,
        devices=2,
        device_bytes=80 * GIB,
        in_use=2,
        usable_share=0.9,
        max_rate=10.0,
        sold_share=sold_share,
    )

    assert decision.replicas == replicas
    assert (decision.reason.code is ReasonCode.BUDGET_OVERDRAWN) == (sold_share < 1)


def test_a_node_with_a_full_device_has_no_more_shares_than_pods_need() -> None:
    decision = sharing(
        TOLD,
        devices=2,
        device_bytes=80 * GIB,
        in_use=3,
        usable_share=0.9,
        max_rate=10.0,
        fullness="79 GiB of a device are in use",
    )

    assert (decision.replicas, decision.reason.code) == (2, ReasonCode.NODE_FULL)


def test_pods_that_have_shares_keep_them() -> None:
    """Five on two devices need three each, whatever is told."""
    decision = shared(Share(0.9, 70 * GIB), in_use=5)

    assert (decision.replicas, decision.reason.code) == (3, ReasonCode.SHARES_IN_USE)


def test_advice_for_hami_is_in_percent_of_a_device() -> None:
    advice = hami_advice(Share(0.201, 8 * GIB), 80 * GIB)

    assert (advice.gpu_cores, advice.gpu_memory_percentage) == (21, 10)
    assert hami_advice(Share(0.0, 0.0), 80 * GIB).gpu_cores == 1
