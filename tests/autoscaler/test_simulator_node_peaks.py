"""Replay of what is foretold of nodes' peaks: from the past only, judged by what came."""

from dataclasses import replace

import numpy as np
import pytest

from autoscaler.simulator.node_peaks import (
    NodeHistory,
    NodeSeen,
    PeakReplay,
    foresize_peaks,
    judged,
    replay_node_peaks,
    scaled_in_hindsight,
)
from autoscaler.simulator.outcome import ReplayError
from autoscaler.simulator.peers.node_peaks import PEERS, running_maximum
from models.forecast import FloatArray
from predictor.usage.panel import Resource

DAY = 48


def node(usage: FloatArray, limits: list[float], name: str = "node-1") -> NodeHistory:
    """A node whose tasks' limits never change."""
    return NodeHistory(node=name, usage=usage, limits=np.array(limits))


def noise(seed: int, *, days: int = 20, tasks: int = 3) -> FloatArray:
    """Usage without any rhythm, below 4 with next to certainty."""
    return np.minimum(np.random.default_rng(seed).exponential(0.4, (tasks, days * DAY)), 4.0)


def replayed(*nodes: NodeHistory, every: int = DAY, first_day: int = 8) -> PeakReplay:
    """Decisions from some day on, with the running maximum as a peer."""
    steps = nodes[0].usage.shape[1]
    return replay_node_peaks(
        nodes,
        {"running maximum": running_maximum},
        resource=Resource.CPU,
        step_seconds=86_400 // DAY,
        horizon_steps=DAY,
        decided_at=range(first_day * DAY, steps - DAY + 1, every),
        past_steps=28 * DAY,
    )


def test_the_true_peak_is_that_of_the_tasks_there_capped_at_their_limits() -> None:
    """A task that left three hours before counts no more, one that exceeds its limit up to it."""
    usage = np.ones((3, 10 * DAY))
    usage[0, 8 * DAY + 5], usage[1, 8 * DAY + 5] = 9, 3
    usage[2, 8 * DAY - 30 :] = np.nan

    made = replayed(node(usage, [5, 5, 5]))

    assert made.limits[0, 0] == 10
    assert made.actual[0, 0] == 5 + 3
    assert made.predicted["running maximum"][0].tolist() == [2, 8]


def test_no_decision_sees_what_comes_after_it() -> None:
    """Another future leaves everything that was foretold before it as it was, for everyone, foresize included."""
    usage = noise(1)
    other = usage.copy()
    now = 14 * DAY
    other[:, now:] = 4.0

    def foretold(history: FloatArray) -> list[FloatArray]:
        made = replay_node_peaks(
            [node(history, [4, 4, 4])],
            PEERS,
            resource=Resource.MEMORY,
            step_seconds=86_400 // DAY,
            horizon_steps=DAY,
            decided_at=range(8 * DAY, 19 * DAY, 12),
            past_steps=28 * DAY,
        )
        until = made.decided_at <= now
        return [each[:, until] for each in (*made.predicted.values(), foresize_peaks(made, 0.05))]

    for one, another in zip(foretold(usage), foretold(other), strict=True):
        np.testing.assert_array_equal(one, another)


def test_violations_teach_a_horizon_later() -> None:
    """A peak above what was foretold lowers the probability asked for only once its day is over."""
    made = replayed(node(noise(2), [4, 4, 4]), every=12)
    high = made.actual.copy()
    high[0, 10] = 11.9

    before, after = foresize_peaks(made, 0.05), foresize_peaks(replace(made, actual=high), 0.05)

    assert before[0, :14].tolist() == after[0, :14].tolist()
    assert after[0, 14] > before[0, 14]


def test_without_evidence_nothing_is_oversold_and_nothing_is_learned() -> None:
    """Six days of past are too few: Σ limits stand."""
    made = replayed(node(noise(3, days=8), [4, 4, 4]), first_day=5)

    assert foresize_peaks(made, 0.05)[0, :2].tolist() == [12, 12]


def test_as_many_peaks_exceed_as_is_stated() -> None:
    """Forty nodes of tasks without rhythm over a month: within a quarter of one in twenty."""
    nodes = [node(noise(number, days=40), [4, 4, 4], f"node-{number}") for number in range(40)]
    made = replayed(*nodes)

    outcome = judged(foresize_peaks(made, 0.05), made)

    assert outcome.violation_share == pytest.approx(0.05, rel=0.25)
    assert outcome.savings > 0.2


def test_where_the_mix_of_nodes_changes_half_way_as_many_peaks_exceed_as_with_the_new_mix_all_along() -> None:
    """Calm tasks give way to bursty ones: what is told rests on the past of those that are there.

    Only the record of what was exceeded is that of others, which costs next to nothing.
    """
    days, change, stated = 48, 28 * DAY, 0.1
    dice = np.random.default_rng(5)
    calm = np.minimum(dice.exponential(0.2, (24, 3, days * DAY)), 4.0)
    bursty = np.minimum(dice.pareto(2.0, (24, 3, days * DAY)), 40.0)
    before, along = (
        replayed(*(node(usage, [40, 40, 40], f"node-{n}") for n, usage in enumerate(mix))) for mix in (calm, bursty)
    )
    is_after = along.decided_at >= change
    changed = replace(
        along,
        limits=np.where(is_after, along.limits, before.limits),
        actual=np.where(is_after, along.actual, before.actual),
        pasts=tuple(
            tuple(new if is_new else old for old, new, is_new in zip(*both, is_after, strict=True))
            for both in zip(before.pasts, along.pasts, strict=True)
        ),
    )

    def exceeded(replay: PeakReplay) -> float:
        return float(np.mean((replay.actual > foresize_peaks(replay, stated))[:, is_after]))

    assert exceeded(along) == pytest.approx(stated, abs=0.03)
    assert exceeded(changed) == pytest.approx(exceeded(along), abs=0.01)


def test_an_outcome_counts_violations_their_severity_and_what_was_saved() -> None:
    """Foretold 6 and 8 of limits of 10, true 5 and 10, then nothing known: one of two, by 2 of 10, saving 0.3."""
    made = replace(
        replayed(node(noise(4), [4, 4, 4])),
        actual=np.array([[5.0, 10.0, np.nan]]),
        limits=np.full((1, 3), 10.0),
    )
    foretold = np.array([[6.0, 8.0, 1.0]])

    outcome = judged(foretold, made)

    assert (outcome.decisions, outcome.violation_share, outcome.worst_tenth_share) == (2, 0.5, 0.5)
    assert outcome.severity == pytest.approx(0.2)
    assert outcome.savings == pytest.approx(0.3)
    assert judged(foretold, made, slice(0, 1)).violation_share == 0


def test_scaling_in_hindsight_leaves_just_so_many_violations() -> None:
    """True peaks of 1…100 foretold as 50: a hundredth may exceed 99 / 50 times that."""
    made = replace(
        replayed(node(noise(4), [4, 4, 4])),
        actual=np.arange(1.0, 101.0)[None],
        limits=np.full((1, 100), 200.0),
    )

    factor, foretold = scaled_in_hindsight(np.full((1, 100), 50.0), made, 0.01)

    assert factor == pytest.approx(99 / 50)
    assert judged(foretold, made).violation_share == 0.01


def test_what_cannot_be_replayed_is_refused() -> None:
    """No node, arrays that do not match, a task without a limit, a history that nobody watched on after."""
    with pytest.raises(ReplayError, match="0 nodes"):
        replay_node_peaks(
            [], {}, resource=Resource.CPU, step_seconds=300, horizon_steps=4, decided_at=[9], past_steps=99
        )
    with pytest.raises(ReplayError, match=r"node-1: usage is \(3, 960\), limits \(2,\)"):
        replayed(node(noise(5), [4, 4]))
    with pytest.raises(ReplayError, match="node-1: a task has no limit"):
        replayed(node(noise(5), [4, 4, np.nan]))
    made = replayed(node(noise(5), [4, 4, 4]))
    with pytest.raises(ReplayError, match="nothing was measured"):
        judged(made.limits, replace(made, actual=np.full(made.actual.shape, np.nan)))


def test_a_predictor_is_shown_the_tasks_there_and_no_more_past_than_asked() -> None:
    """The last step is the one before the decision."""
    shown: list[NodeSeen] = []
    usage = noise(6)

    def predictor(seen: NodeSeen) -> float:
        shown.append(seen)
        return 100.0

    made = replay_node_peaks(
        [node(usage, [4, 4, 4])],
        {"too much": predictor},
        resource=Resource.CPU,
        step_seconds=300,
        horizon_steps=DAY,
        decided_at=[10 * DAY],
        past_steps=2 * DAY,
    )

    np.testing.assert_array_equal(shown[0].usage, usage[:, 8 * DAY : 10 * DAY])
    assert made.predicted["too much"][0, 0] == 12
