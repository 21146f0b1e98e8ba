"""What others foretell of a node's peak, by their own formulas: each worked out by hand."""

import numpy as np
import pytest

from autoscaler.simulator.node_peaks import NodeSeen
from autoscaler.simulator.peers.node_peaks import (
    PEERS,
    autopilot,
    borg_default,
    greater_of,
    koordinator,
    limits,
    n_sigma,
    rc_like,
    running_maximum,
)
from models.forecast import FloatArray
from predictor.usage.panel import Resource

STEPS_A_DAY = 288


def seen(usage: FloatArray | list[list[float]], limits_of: list[float]) -> NodeSeen:
    """A node whose tasks were sampled every five minutes."""
    return NodeSeen(
        usage=np.asarray(usage, dtype=float), limits=np.array(limits_of), resource=Resource.CPU, step_seconds=300
    )


def cold(steps: int) -> list[float]:
    """A task that has been there for 23 samples."""
    return [np.nan] * (steps - 23) + [1.0] * 23


def test_without_overselling_and_at_borgs_default() -> None:
    """4 + 6, and nine tenths of it."""
    node = seen(np.ones((2, 30)), [4, 6])

    assert limits(node) == 10
    assert borg_default(node) == pytest.approx(9)


def test_rc_like_sums_the_tasks_own_percentiles() -> None:
    """0…100 has its 99th percentile at 99, or at the limit where that is lower; a cold task counts at its limit."""
    ramp = np.arange(101.0)
    tasks = [ramp.tolist(), [2.0] * 101, cold(101)]

    assert rc_like(101 * 300)(seen(tasks, [200, 3, 5])) == pytest.approx(99 + 2 + 5)
    assert rc_like(101 * 300)(seen(tasks, [50, 3, 5])) == pytest.approx(50 + 2 + 5)


def test_rc_like_forgets_what_is_older_than_its_window() -> None:
    """Fifty samples reach back to 51."""
    assert rc_like(50 * 300)(seen([np.arange(101.0).tolist()], [200])) == pytest.approx(51 + 0.99 * 49)


def test_n_sigma_is_the_mean_and_five_deviations_of_the_nodes_share() -> None:
    """Totals of 2 and 2.4 in turns of limits of 8: 0.275 and 5 · 0.025 · √(24 / 23), of 8; a cold task on top."""
    warm = [[1.0, 1.2] * 12, [1.0, 1.2] * 12]
    share = 0.275 + 5 * 0.025 * np.sqrt(24 / 23)

    assert n_sigma(24 * 300)(seen(warm, [4, 4])) == pytest.approx(8 * share)
    assert n_sigma(24 * 300)(seen([*warm, cold(24)], [4, 4, 3])) == pytest.approx(8 * share + 3)


def test_n_sigma_asks_for_no_more_than_the_limits() -> None:
    """Totals of 0 and 8: a half and five deviations of a half are more than all."""
    assert n_sigma(24 * 300)(seen([[0.0, 8.0] * 12], [8])) == 8


def test_n_sigma_counts_at_each_step_the_tasks_with_a_sample() -> None:
    """A task that is not there weighs neither in usage nor in limits: always a quarter, so no deviation."""
    there = [1.0] * 40
    later = [np.nan] * 10 + [1.0] * 30

    assert n_sigma(40 * 300)(seen([there, later], [4, 4])) == pytest.approx(2)


def test_the_greater_of_two_is_taken() -> None:
    """Whichever it is."""
    node = seen(np.ones((2, 30)), [4, 6])

    assert greater_of(limits, borg_default)(node) == greater_of(borg_default, limits)(node) == 10


def test_the_running_maximum_is_of_the_total_within_a_week() -> None:
    """Peaks of 10 in turns make 11; a higher one eight days ago is forgotten, and a missing sample counts as none."""
    usage = np.ones((2, 8 * STEPS_A_DAY))
    usage[:, 5] = 50
    usage[0, -7], usage[1, -9] = 10, 10
    usage[1, -20] = np.nan

    assert running_maximum(seen(usage, [60, 60])) == 11


def test_autopilot_is_the_95th_percentile_of_the_total_of_three_days() -> None:
    """1…864 in any order, in three days: 1 + 0.95 · 863."""
    usage = np.random.default_rng(0).permutation(np.arange(1.0, 3 * STEPS_A_DAY + 1))

    assert autopilot(seen([usage.tolist()], [1e4])) == pytest.approx(1 + 0.95 * 863)


def test_koordinator_takes_a_tenth_more_than_a_percentile_of_faded_usage() -> None:
    """1 core is in the bucket that ends at 0.5 · (1.05²³ − 1) = 1.0358: 1.1 times that, but no more than the request.

    A pod of at most a day counts at its request; together they use 2 cores, in the bucket that ends at
    0.5 · (1.05³³ − 1), which is less.
    """
    old = [1.0] * (2 * STEPS_A_DAY)
    young = [np.nan] * STEPS_A_DAY + [1.0] * STEPS_A_DAY
    of_one, of_two = (1.1 * 0.5 * (1.05**power - 1) for power in (23, 33))

    assert koordinator(seen([old], [1.2])) == pytest.approx(of_one)
    assert koordinator(seen([old], [1.1])) == pytest.approx(1.1)
    assert koordinator(seen([old, young], [1.2, 2.0])) == pytest.approx(of_one + 2.0)
    assert koordinator(seen([old, old], [1.2, 1.2])) == pytest.approx(max(2 * of_one, of_two))


def test_koordinator_forgets_cpu_by_half_in_twelve_hours() -> None:
    """The last hour holds more than a twentieth of the weight of a week, a quarter of an hour does not."""
    hour, quarter = np.ones(7 * STEPS_A_DAY), np.ones(7 * STEPS_A_DAY)
    hour[-12:], quarter[-3:] = 4.0, 4.0

    assert koordinator(seen([hour.tolist()], [9])) > 4
    assert koordinator(seen([quarter.tolist()], [9])) < 2


@pytest.mark.parametrize("name", PEERS)
def test_a_node_of_cold_tasks_is_not_oversold(name: str) -> None:
    """By nobody: all counts at its limit, at Borg at nine tenths."""
    node = seen([cold(30), cold(30)], [4, 6])

    assert PEERS[name](node) >= 9
