"""Tasks packed onto nodes by what predictors say is free: worked by hand where placement can be followed."""

from collections.abc import Sequence

import numpy as np
import pytest

from autoscaler.simulator.node_peaks import NodeSeen
from autoscaler.simulator.outcome import ReplayError
from autoscaler.simulator.packing import (
    Arrivals,
    ByForesize,
    ByPredictor,
    Fit,
    PackingOutcome,
    PackingPlan,
    RoomTeller,
    crowded,
    packed,
)
from autoscaler.simulator.peers.node_peaks import limits
from models.forecast import FloatArray
from predictor.usage.panel import Resource

DAY = 24
"""Steps of an hour."""


def waiting(usage: FloatArray, limit: float | Sequence[float] = 5.0) -> Arrivals:
    """Tasks with one limit each."""
    of_each = np.broadcast_to(np.asarray(limit, dtype=np.float64), len(usage))
    return Arrivals(usage=usage, limits=of_each, resource=Resource.CPU, step_seconds=3600)


def pack(
    arrivals: Arrivals,
    teller: RoomTeller,
    fit: Fit = Fit.FIRST,
    *,
    nodes: int = 2,
    capacity: float = 10.0,
    every: int = 24,
) -> PackingOutcome:
    """Decided once a day from the second on; all of it counts."""
    plan = PackingPlan(
        nodes=nodes,
        capacity=capacity,
        decided_at=range(24, arrivals.usage.shape[1] - DAY + 1, every),
        horizon_steps=DAY,
        past_steps=28 * DAY,
        counted_from=24,
    )
    return packed(arrivals, teller, fit, plan)


class Recording:
    """Says that a node's tasks peak at what they have used at most, and keeps what it was shown and told."""

    def __init__(self) -> None:
        self.shown: list[list[FloatArray]] = []
        self.limits: list[list[float]] = []
        self.heard: list[list[float]] = []

    def peaks(self, nodes: Sequence[NodeSeen]) -> FloatArray:
        self.shown.append([node.usage for node in nodes])
        self.limits.append([float(node.limits.sum()) for node in nodes])
        return np.array([np.nan_to_num(np.fmax.reduce(node.usage, axis=None, initial=0.0)) for node in nodes])

    def realised(self, exceeded: FloatArray, share: float) -> None:
        self.heard.append([*exceeded.tolist(), share])


def test_by_limits_nodes_hold_what_their_capacity_is_and_never_get_full() -> None:
    """Two nodes of 10 take four of six tasks of 5; the others wait, however little is used."""
    outcome = pack(waiting(np.ones((6, 10 * DAY))), ByPredictor(limits))

    assert outcome == PackingOutcome(hosted=1.0, contention=0.0, severity=0.0, tasks=4)


def test_half_of_the_limits_hosts_twice_as_much_and_is_full_when_all_is_used() -> None:
    """Two tasks of 5 are told to need 5 together: a third fits on top, a fourth does not, as newcomers count whole.

    On the next day 7.5 are told of three, and no fourth fits in 2.5. Each uses 4 of its 5: 12 on a node of 10.
    """
    outcome = pack(waiting(np.full((8, 10 * DAY), 4.0)), ByPredictor(limits, 0.5))

    assert outcome.tasks == 6
    # On the first day two on each node, on the eight after it three.
    assert outcome.hosted == pytest.approx((1.0 + 8 * 1.5) / 9)
    assert outcome.contention == pytest.approx(8 / 9)
    assert outcome.severity == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("fit", "second_node"),
    [(Fit.FIRST, 0.0), (Fit.BEST, 0.0), (Fit.WORST, 4.0)],
)
def test_where_a_task_goes(fit: Fit, second_node: float) -> None:
    """After 6 on the first node, 4 more fit there exactly; the worst fit is the empty one."""
    teller = Recording()

    pack(waiting(np.ones((2, 4 * DAY)), [6.0, 4.0]), teller, fit)

    assert teller.limits[1][1] == second_node


def test_best_fit_prefers_the_fuller_node() -> None:
    """6 on the first, 8 on the second; 2 more go to the second, by first fit to the first."""
    sizes = [6.0, 8.0, 2.0]
    by_best, by_first = Recording(), Recording()

    pack(waiting(np.ones((3, 4 * DAY)), sizes), by_best, Fit.BEST)
    pack(waiting(np.ones((3, 4 * DAY)), sizes), by_first, Fit.FIRST)

    assert (by_best.limits[1], by_first.limits[1]) == ([6.0, 10.0], [8.0, 8.0])


def test_nothing_is_known_of_a_task_before_it_runs() -> None:
    """What it used while it waited is not shown; what it has used since is."""
    teller = Recording()

    pack(waiting(np.arange(4.0 * DAY)[None]), teller, nodes=1)

    assert teller.shown[0][0].size == 0
    assert np.isnan(teller.shown[1][0][0, :24]).all()
    assert teller.shown[1][0][0, 24:].tolist() == list(range(24, 48))


def test_what_came_true_is_told_a_horizon_later() -> None:
    """A task that doubles from day to day exceeds what was told of it each time; an empty node says nothing."""
    usage = np.repeat([1.0, 1.0, 2.0, 4.0], DAY)[None]
    teller = Recording()

    pack(waiting(usage), teller, nodes=2)

    # On the first day nothing ran; on the second it was said to peak at 1, and peaked at 2.
    assert [heard[0] for heard in teller.heard] == pytest.approx([np.nan, 1.0], nan_ok=True)
    assert all(np.isnan(heard[1]) and heard[2] == 1.0 for heard in teller.heard)


def test_foresize_hosts_more_once_it_has_seen_enough() -> None:
    """Tasks that use up to a fifth of their limits: by limits for seven days, three times that later, and never full.

    Six on each node peak at some 5.5 together, so that a seventh, which counts 5 at first, does not fit on 10.
    """
    quiet = np.random.default_rng(0).uniform(0.5, 1.0, (40, 40 * DAY))

    week = pack(waiting(quiet[:, : 8 * DAY]), ByForesize(0.01, 2, DAY))
    month = pack(waiting(quiet), ByForesize(0.01, 2, DAY))

    assert (week.hosted, week.contention) == (1.0, 0.0)
    assert month.tasks == 12
    assert month.contention == 0.0


def test_where_nobody_was_watching_nothing_is_placed_and_nobody_has_left() -> None:
    """Three days without a sample of any task: those that ran before still run after it, and fill their node."""
    usage = np.ones((8, 10 * DAY))
    usage[:, 3 * DAY : 6 * DAY] = np.nan

    outcome = pack(waiting(usage), ByPredictor(limits))

    assert (outcome.tasks, outcome.hosted) == (4, 1.0)


def test_a_sample_that_is_missing_is_no_idle_time() -> None:
    """Of every task every other sample, and six hours of all: nodes are as full as with all samples, 8 of 9 days of
    what was watched."""
    usage = np.full((8, 10 * DAY), 4.0)
    usage[::2, ::2] = usage[1::2, 1::2] = np.nan
    usage[:, 5 * DAY : 5 * DAY + 6] = np.nan

    outcome = pack(waiting(usage), ByPredictor(limits, 0.5))

    assert outcome.contention == pytest.approx((8 * DAY - 6) / (9 * DAY - 6))
    assert outcome.severity == pytest.approx(0.2)


def test_a_task_that_ended_makes_room() -> None:
    """One of the four has no sample any more while others have: the next one that waits takes its place."""
    usage = np.ones((6, 10 * DAY))
    usage[0, 4 * DAY :] = np.nan

    assert pack(waiting(usage), ByPredictor(limits)).tasks == 5


def test_less_room_is_planned_than_is_asked_for() -> None:
    """120 tasks of 5 on two nodes of 50: ten each by limits, of 60."""
    plan = crowded(waiting(np.ones((120, 4 * DAY))), horizon_steps=DAY, past_steps=28 * DAY, counted_from=DAY)

    assert (plan.nodes, plan.capacity) == (2, 50.0)
    assert list(plan.decided_at)[:3] == [6, 12, 18]
    assert packed(waiting(np.ones((120, 4 * DAY))), ByPredictor(limits), Fit.FIRST, plan).tasks == 20


def test_nothing_to_pack_is_refused() -> None:
    """Rather than answered with no numbers."""
    with pytest.raises(ReplayError, match="nothing is packed"):
        pack(waiting(np.ones((0, 4 * DAY))), ByPredictor(limits))
