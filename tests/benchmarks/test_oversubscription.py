"""What the benchmark of oversubscription puts together."""

import numpy as np

from autoscaler.simulator.node_peaks import NodeHistory, replay_node_peaks
from benchmarks.oversubscription import Scene, drawn_nodes, measured, table, violation_interval
from predictor.usage.panel import Resource


def a_scene(nodes: int = 4, days: int = 12) -> Scene:
    """Nodes of tasks without rhythm, a decision every quarter of a day of 48 steps."""
    rng = np.random.default_rng(0)
    made = [
        NodeHistory(
            node=f"node-{number}",
            usage=np.minimum(rng.exponential(0.4, (3, days * 48)), 4.0).astype(np.float32),
            limits=np.full(3, 4.0, dtype=np.float32),
        )
        for number in range(nodes)
    ]
    return Scene(
        made,
        step_seconds=1800,
        horizon_steps=48,
        decided_at=range(7 * 48, (days - 1) * 48 + 1, 12),
        scored_from=8 * 48,
        past_steps=28 * 48,
        seed=0,
        is_tuned_on=True,
    )


def test_every_task_is_on_three_nodes_of_the_sizes_promised() -> None:
    """33 nodes of 20 to 40, none with a task twice."""
    nodes = drawn_nodes(300, np.random.default_rng(1))

    assert len(nodes) == 33
    assert all(20 <= len(each) <= 40 and len(set(each)) == len(each) for each in nodes)
    assert np.bincount(np.concatenate(nodes)).tolist() == [3] * 300


def test_every_method_is_judged_over_the_same_decisions() -> None:
    """The oracle is never violated and saves most; what is scored begins where it should."""
    made = measured(a_scene(), Resource.CPU)

    methods = made["methods"]
    assert made["decisions"] == 4 * (3 * 4 + 1)
    assert methods["oracle"]["violations"] == 0
    assert methods["limits"]["savings"] == 0
    assert all(each["at_0.01"]["savings"] <= methods["oracle"]["savings"] + 1e-9 for each in methods.values())


def test_the_table_names_every_method_and_what_was_chosen_on() -> None:
    """A row each, the best at equal violations first."""
    made = measured(a_scene(), Resource.CPU)
    page = table({"some-task": made})

    assert "**some-task**: 4 nodes, 52 decisions, peak of 24 h, what was chosen on" in page
    rows = [line for line in page.splitlines() if line.startswith("| ") and "method" not in line]
    assert len(rows) == len(made["methods"])
    assert rows[0].startswith("| oracle |")


def test_the_interval_is_of_whole_horizons() -> None:
    """A violation of every node on one of few days leaves the share wide open; none leaves no doubt."""
    scene = a_scene()
    replay = replay_node_peaks(
        scene.nodes,
        {},
        resource=Resource.CPU,
        step_seconds=scene.step_seconds,
        horizon_steps=48,
        decided_at=scene.decided_at,
        past_steps=scene.past_steps,
    )
    everything = np.ones(len(replay.decided_at), dtype=np.bool_)
    on_one_day = replay.limits.copy()
    on_one_day[:, :4] = 0

    low, high = violation_interval(on_one_day, replay, everything)
    assert low == 0
    assert high > 0.4
    assert violation_interval(replay.limits, replay, everything) == (0, 0)
