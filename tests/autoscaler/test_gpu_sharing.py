"""Into how many shares a node's GPUs are divided, and why."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.cluster.reasons import Hold, ReasonCode
from autoscaler.decisions.gpu_sharing import MOST_REPLICAS, GpuNode, Share, Sharing, hami_advice, sharing, told_share

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
        assert "not measured within the last horizon" in share.reason.message
        assert shared(share).replicas == 1


def test_pods_that_have_shares_keep_them() -> None:
    """Five on two devices need three each, whatever is told."""
    decision = shared(Share(0.9, 70 * GIB), in_use=5)

    assert (decision.replicas, decision.reason.code) == (3, ReasonCode.SHARES_IN_USE)


def test_advice_for_hami_is_in_percent_of_a_device() -> None:
    advice = hami_advice(Share(0.201, 8 * GIB), 80 * GIB)

    assert (advice.gpu_cores, advice.gpu_memory_percentage) == (21, 10)
    assert hami_advice(Share(0.0, 0.0), 80 * GIB).gpu_cores == 1
