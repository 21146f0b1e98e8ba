"""`foresize oversubscribe`: what a node may be oversold by, how that would have gone, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from autoscaler.simulator.packing import Fit
from foresize.cli import main_group
from models.forecast import FloatArray
from pipelines.flows.oversubscribe import FORESIZE, ORACLE, oversubscribe
from pipelines.flows.oversubscription_text import json_values, page, text_lines
from pipelines.report.page import html
from pipelines.settings import Settings
from pipelines.steps.nodes import nodes_of
from predictor.errors import InvalidUsage
from predictor.usage.panel import Resource, SeriesKey, UsagePanel
from predictor.usage.table import table_from_panel

STEP = 1800
STEPS_A_DAY = 48
WORKLOADS = [f"shop/Pod/web-{number}" for number in range(4)]
PLACEMENT = {name: f"node-{number % 2}" for number, name in enumerate(WORKLOADS)}


def a_panel(days: int = 16, *, limit: float = 4.0) -> UsagePanel:
    """Four pods whose CPU has no rhythm and stays far below their limits."""
    usage = np.minimum(np.random.default_rng(5).exponential(0.4, (4, days * STEPS_A_DAY)), 3.9)
    keys = tuple(SeriesKey(name, Resource.CPU) for name in WORKLOADS)
    limits: FloatArray = np.full(usage.shape, limit)
    return UsagePanel(keys, 1_750_000_000 // STEP * STEP, STEP, usage, {"limit": limits})


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *options: str, panel: UsagePanel | None = None) -> Result:
    """The command over a file, beside a placement."""
    monkeypatch.chdir(tmp_path)
    table_from_panel(panel or a_panel()).to_parquet("usage.parquet")
    pd.DataFrame({"workload": list(PLACEMENT), "node": list(PLACEMENT.values())}).to_csv("nodes.csv", index=False)
    return CliRunner().invoke(main_group, ["oversubscribe", "--history", "usage.parquet", "--step", "30m", *options])


def test_every_node_is_decided_on_and_the_past_says_how_that_went() -> None:
    """Two nodes of two pods: below 8 cores, the oracle never violated and ahead in savings at that."""
    made = oversubscribe(Settings(), a_panel(), PLACEMENT)

    assert {each.node for each in made.nodes} == {"node-0", "node-1"}
    assert all(each.limits == 8 and 0 < each.peak < 8 and not each.reason for each in made.nodes)
    methods = made.replays[Resource.CPU]
    assert methods[ORACLE].violation_share == 0
    assert methods["borg_default"].savings == pytest.approx(0.1)
    assert 0.1 < methods[FORESIZE].savings < methods[ORACLE].savings
    assert methods[FORESIZE].decisions == 2 * (6 * 8 + 1)


def test_each_pool_is_the_sum_of_its_nodes_where_a_placement_says_which_they_are() -> None:
    """With how foresize would have fared there; without a placement a pool is a node, and is told as one."""
    panel = replace(a_panel(), node_pool={name: f"pool-{PLACEMENT[name][-1]}" for name in WORKLOADS})

    made, of_one = oversubscribe(Settings(), panel, PLACEMENT), oversubscribe(Settings(), a_panel(), PLACEMENT)
    by_node = {each.node: each for each in made.nodes}

    assert [(each.node_pool, each.nodes, each.limits) for each in made.pools] == [("pool-0", 1, 8), ("pool-1", 1, 8)]
    assert [each.freed for each in made.pools] == [by_node["node-0"].freed, by_node["node-1"].freed]
    assert (
        sum(each.past.decisions for each in made.pools if each.past) == made.replays[Resource.CPU][FORESIZE].decisions
    )
    (pool,) = of_one.pools
    assert (pool.node_pool, pool.nodes, pool.limits) == ("all", 2, 16)
    assert pool.freed == pytest.approx(sum(each.freed for each in of_one.nodes))
    assert f"{pool.freed:,.4g} cores" in "\n".join(text_lines(of_one))
    assert f"{pool.freed:,.4g} cores" in html(page(of_one))
    assert json_values(of_one)["pools"][0]["freed"] == pool.freed
    assert oversubscribe(Settings(), panel, None).pools == ()


def test_a_higher_probability_frees_more() -> None:
    """On every node."""
    panel = a_panel()
    careful, bold = (
        {
            each.node: each.freed
            for each in oversubscribe(
                Settings.model_validate({"oversubscription": {"violation_probability": probability}}), panel, PLACEMENT
            ).nodes
        }
        for probability in (0.01, 0.2)
    )

    assert all(bold[node] > careful[node] for node in careful)


def test_too_short_a_past_oversells_nothing_and_says_so() -> None:
    """Three days: limits stand, with the reason, and nothing is replayed."""
    made = oversubscribe(Settings(), a_panel(days=3), PLACEMENT)

    assert all(each.peak == each.limits and "3 past horizons" in each.reason for each in made.nodes)
    assert not made.replays
    assert any("too few to replay" in str(finding) for finding in made.findings)


def test_without_a_placement_everything_is_on_one_node_and_a_workload_without_limit_is_left_out() -> None:
    """A limit that is known later holds before as well."""
    panel = a_panel()
    panel.attributes["limit"][0] = np.nan
    panel.attributes["limit"][1, :100] = np.nan

    (node,), findings = nodes_of(panel, None, Resource.CPU)

    assert node.usage.shape[0] == 3
    assert node.limits[0, 0] == 4
    assert [each.workload for each in findings] == [WORKLOADS[0]]


def test_a_limit_of_nothing_is_none() -> None:
    """As in Kubernetes: the request counts instead, and without one the workload is left out."""
    panel = a_panel()
    panel.attributes["limit"][:2] = 0.0
    request: FloatArray = np.full(panel.usage.shape, np.nan)
    request[0] = 2.0
    panel = replace(panel, attributes={**panel.attributes, "request": request})

    (node,), findings = nodes_of(panel, None, Resource.CPU)

    assert node.limits[:, 0].tolist() == [2, 4, 4]
    assert [each.workload for each in findings if "left out" in each.message] == [WORKLOADS[1]]


@pytest.mark.parametrize("limit", [np.inf, 9.2e18], ids=["infinite", "as cgroups say unlimited"])
def test_a_limit_that_nothing_can_reach_is_none(limit: float) -> None:
    """The request counts instead: nothing that is merely not limited is sold."""
    panel = a_panel()
    panel.attributes["limit"][0] = limit
    panel = replace(panel, attributes={**panel.attributes, "request": np.full(panel.usage.shape, 2.0)})

    (node,), _ = nodes_of(panel, None, Resource.CPU)

    assert node.limits[:, 0].tolist() == [2, 4, 4, 4]


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        (PLACEMENT, "warning: shop/Pod/web-0 cpu: on node node-0 by the placement, but no sample in the last 12h"),
        (None, "note: shop/Pod/web-0 cpu: no sample in the last 12h: taken to be gone"),
    ],
    ids=["placement", "none"],
)
def test_who_was_not_measured_lately_is_said(placement: dict[str, str] | None, message: str) -> None:
    """As it counts for nothing on its node: it has left, or nobody measures it any more."""
    panel = a_panel()
    panel.usage[0, -24:] = np.nan

    made = oversubscribe(Settings(), panel, placement, with_packing=False)

    assert any(str(each).startswith(message) for each in made.findings)


def test_a_cold_workload_is_named_where_it_counts_in_full() -> None:
    """Its node's peak is higher by its whole limit, which a reader could not tell from the figure."""
    panel = a_panel()
    panel.usage[0, :-23] = np.nan

    nodes = {each.node: each for each in oversubscribe(Settings(), panel, PLACEMENT, with_packing=False).nodes}

    assert nodes["node-0"].reason == "1 cold, in full at their limits"
    assert nodes["node-0"].peak > 4
    assert nodes["node-1"].reason == ""


def test_workloads_without_a_pool_are_together_beside_the_pools() -> None:
    """And a node is of the pool that its workloads name, however many others are on it."""
    panel = replace(a_panel(), node_pool={WORKLOADS[0]: "general"})
    beside = {f"shop/Pod/unknown-{number}": "node-0" for number in range(5)}

    by_pool, _ = nodes_of(panel, None, Resource.CPU)
    made = oversubscribe(Settings(), panel, PLACEMENT | beside, with_packing=False)

    assert [(each.node, len(each.usage)) for each in by_pool] == [("(no node pool)", 3), ("general", 1)]
    assert [(each.node_pool, each.nodes) for each in made.pools] == [("(no node pool)", 1), ("general", 1)]


def test_gpus_are_told_as_well() -> None:
    """Once, beside all peers but Koordinator's, which predicts none."""
    panel = replace(a_crowd(), keys=tuple(SeriesKey(f"shop/Pod/web-{n}", Resource.GPU) for n in range(60)))
    settings = Settings.model_validate({"oversubscription": {"resources": ["gpu", "gpu"]}})

    made = oversubscribe(settings, panel, None)

    assert "n_sigma_5_7d" in made.replays[Resource.GPU]
    assert "koordinator" not in made.replays[Resource.GPU]
    assert set(made.packings[Resource.GPU].outcomes) == set(made.replays[Resource.GPU]) - {ORACLE}
    (node,) = made.nodes
    assert f"{node.peak:,.4g} devices" in "\n".join(text_lines(made))


def test_a_resource_that_the_history_lacks_is_named() -> None:
    """Memory is asked for by default."""
    made = oversubscribe(Settings(), a_panel(), PLACEMENT)

    assert "note: memory: no usage of it in the history: nothing to decide" in map(str, made.findings)


def test_a_horizon_is_whole_steps_and_never_shorter_than_asked() -> None:
    """45 minutes on steps of half an hour are an hour, and the report says so."""
    settings = Settings.model_validate({"oversubscription": {"horizon": "45m"}})

    made = oversubscribe(settings, a_panel(), PLACEMENT, with_packing=False)

    assert made.horizon_seconds == 3600
    assert "for the next 1 h" in text_lines(made)[0]


def test_a_short_horizon_is_replayed_within_bounds_and_how_far_that_is_can_be_followed() -> None:
    """Peaks of half an hour over 30 days: at most 1,000 decisions about each node, told of node by node."""
    settings = Settings.model_validate({"oversubscription": {"horizon": "30m"}})
    told: list[tuple[str, int, int]] = []

    made = oversubscribe(
        settings, a_panel(days=30), PLACEMENT, with_packing=False, told=lambda *each: told.append(each)
    )

    assert 1_000 < made.replays[Resource.CPU][FORESIZE].decisions <= 2 * 1_000
    assert ("replay cpu", 1, 2) in told


def test_decisions_without_an_answer_are_counted() -> None:
    """Limits stand for these and cannot be violated: a reader knows on how many the share of violations rests."""
    panel = a_panel(days=17)
    panel.usage[:, 3 * STEPS_A_DAY : 6 * STEPS_A_DAY] = np.nan

    made = oversubscribe(Settings(), panel, PLACEMENT, with_packing=False)

    unanswered = made.unanswered[Resource.CPU]
    assert 0 < unanswered < made.replays[Resource.CPU][FORESIZE].decisions
    assert f"for {unanswered} of them foresize knew too little" in "\n".join(text_lines(made))
    assert json_values(made)["unanswered"] == {"cpu": unanswered}


def test_a_probability_that_the_past_did_not_keep_is_warned_of() -> None:
    """Usage that grows by the day exceeds whatever it did before; where nothing grows there is no such warning."""
    growing, steady = a_panel(), a_panel()
    growing.usage[:] *= np.linspace(0.2, 1.0, growing.usage.shape[1])
    settings = Settings.model_validate({"oversubscription": {"violation_probability": 0.05}})

    warned, calm = (oversubscribe(settings, each, PLACEMENT, with_packing=False) for each in (growing, steady))

    past = warned.replays[Resource.CPU][FORESIZE]
    assert past.violation_share > 0.1
    (finding,) = (str(each) for each in warned.findings if "decisions of the past were violated" in str(each))
    assert f"{round(past.violation_share * past.decisions)} of {past.decisions} decisions" in finding
    assert not any("were violated" in str(each) for each in calm.findings)


def test_large_amounts_are_written_in_full() -> None:
    """Of a whole cluster taken for a node: 22,345 cores and not 2.235e+04."""
    made = oversubscribe(Settings(), a_panel(limit=22_345 / 4), None, with_packing=False)

    assert "22,345 cores" in "\n".join(text_lines(made))


def test_a_rare_violation_that_is_accepted_is_not_shown_as_none() -> None:
    """A millionth is not 0.00%."""
    settings = Settings.model_validate({"oversubscription": {"violation_probability": 1e-6}})

    assert "0.0001% (cpu)" in text_lines(oversubscribe(settings, a_panel(), PLACEMENT, with_packing=False))[0]


def test_usage_above_a_limit_and_whoever_has_no_history_are_said() -> None:
    """Both make a node look emptier than it is; what a rate's jitter puts above a limit does not."""
    panel = a_panel()
    panel.usage[0, 5:8] = 12.0
    panel.usage[1, 5:8] = 4.1

    _, findings = nodes_of(panel, PLACEMENT | {"shop/Pod/gone": "node-1"}, Resource.CPU)

    assert [(each.workload, each.message) for each in findings] == [
        (WORKLOADS[0], "usage exceeds its limit in 3 samples, up to 3 times: it counts up to that only"),
        ("shop/Pod/gone", "on node node-1 by the placement, but not in the history: it counts for nothing there"),
    ]


def test_a_placement_of_others_is_refused() -> None:
    """It names what the history has."""
    with pytest.raises(InvalidUsage, match="shop/Pod/web-0"):
        nodes_of(a_panel(), {"other/Pod/x": "node-9"}, Resource.CPU)


def test_the_figures_are_the_same_in_text_page_and_json() -> None:
    """A reader of any of the three sees the same peak."""
    made = oversubscribe(Settings(), a_panel(), PLACEMENT)
    shown = f"{made.nodes[0].peak:,.4g} cores"

    assert shown in "\n".join(text_lines(made))
    assert shown in html(page(made))
    assert json_values(made)["nodes"][0]["peak"] == made.nodes[0].peak
    assert json.dumps(json_values(made), allow_nan=False)


def a_crowd(workloads: int = 60, days: int = 16) -> UsagePanel:
    """Pods that use a tenth of their limits, and seldom more than a quarter."""
    usage = np.minimum(np.random.default_rng(5).exponential(0.4, (workloads, days * STEPS_A_DAY)), 3.9)
    keys = tuple(SeriesKey(f"shop/Pod/web-{number}", Resource.CPU) for number in range(workloads))
    limits: FloatArray = np.full(usage.shape, 4.0)
    return UsagePanel(keys, 1_750_000_000 // STEP * STEP, STEP, usage, {"limit": limits})


def test_workloads_are_packed_by_what_each_method_says_is_free() -> None:
    """By limits a node hosts its capacity and is never full; by foresize more. Told alike in text, page and JSON."""
    told: list[tuple[str, int, int]] = []
    made = oversubscribe(Settings(), a_crowd(), None, told=lambda *each: told.append(each))

    packing = made.packings[Resource.CPU]
    assert (packing.workloads, packing.nodes, packing.capacity, packing.asked) == (60, 1, 40.0, 6.0)
    by_limits, by_us = packing.outcomes["limits"][Fit.FIRST], packing.outcomes[FORESIZE][Fit.FIRST]
    assert (by_limits.hosted, by_limits.contention) == (1.0, 0.0)
    assert 1.2 < by_us.hosted < 6.0
    assert by_us.contention < 0.01
    shown = f"{by_us.hosted:.2f} at {by_us.contention:.2%}"
    assert shown in "\n".join(text_lines(made))
    assert shown in html(page(made))
    methods = json_values(made)["packing"]["cpu"]["methods"]
    assert methods[FORESIZE]["first"]["hosted"] == by_us.hosted
    assert set(methods) == set(packing.outcomes)
    assert sum(step == "pack cpu" and 0 < done < total for step, done, total in told) > 10


@pytest.mark.parametrize(
    ("panel", "why"),
    [
        (a_crowd(workloads=19), "19 workloads with usage and a limit, need 20"),
        (a_crowd(days=13), "13 horizons of history, need 14"),
    ],
    ids=["few workloads", "short history"],
)
def test_too_little_to_pack_is_said(panel: UsagePanel, why: str) -> None:
    """And all else is told."""
    made = oversubscribe(Settings(), panel, None)

    assert made.packings == {}
    assert any(f"not packed: {why}" in str(each) for each in made.findings)
    assert made.nodes
    assert made.replays


def test_packing_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it takes longest."""
    crowd = a_crowd(days=15)

    with_it = run(tmp_path, monkeypatch, "--report", "r.html", panel=crowd)
    without = run(tmp_path, monkeypatch, "--no-packing", "--json", "r.json", panel=crowd)

    assert with_it.exit_code == without.exit_code == 0
    assert "60 workloads ask for 6.0 times what 1 made-up nodes of 40 cores have" in with_it.output
    assert "Packed by it" in Path("r.html").read_text()
    assert "workloads ask for" not in without.output
    assert json.loads(Path("r.json").read_text())["packing"] == {}


def test_the_command_reads_files_and_writes_what_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server is needed."""
    wanted = ("--placement", "nodes.csv", "--violation-probability", "0.05", "--report", "r.html", "--json", "r.json")

    result = run(tmp_path, monkeypatch, *wanted)

    assert result.exit_code == 0, result.output
    assert "node-1 cpu" in result.output
    assert "5.00%" in result.output
    assert json.loads(Path("r.json").read_text())["violation_probability"] == {"cpu": 0.05, "memory": 0.05}
    assert "node-1 cpu" in Path("r.html").read_text()


def test_memory_is_told_more_carefully_where_no_probability_is_stated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the report says how carefully."""
    result = run(tmp_path, monkeypatch, "--no-packing", "--horizon", "12h", "--json", "r.json")

    assert "UTC for the next 12 h" in result.output
    assert "1.00% (cpu) and 0.10% (memory) of nodes should exceed the peak" in result.output
    assert json.loads(Path("r.json").read_text())["violation_probability"] == {"cpu": 0.01, "memory": 0.001}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--violation-probability", "0"], "'--violation-probability': 0.0 is not in the range 0<x<0.5"),
        (["--violation-probability", "0.5"], "'--violation-probability': 0.5 is not in the range 0<x<0.5"),
        (["--violation-probability", "nan"], "'--violation-probability': nan is not a finite number"),
        (["--horizon", "soon"], "oversubscription.horizon"),
        (["--placement", "usage.parquet"], "no column 'node'"),
        (["--horizon", "5d"], "a horizon of 5d is too long"),
        (["--placement", "twice.csv"], "'a' is on more than one node"),
        (["--placement", "empty.csv"], "0 rows"),
        (["--placement", "nameless.csv"], "row 2 names no workload"),
        (["--placement", "nodes.csv", "--json", "nodes.csv"], "same file"),
    ],
)
def test_a_wrong_option_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    """Each mistake ends with a message about itself and no stack trace."""
    (tmp_path / "twice.csv").write_text("workload,node\na,one\na,two\n")
    (tmp_path / "empty.csv").write_text("workload,node\n")
    (tmp_path / "nameless.csv").write_text("workload,node\na,one\n,two\n")

    result = run(tmp_path, monkeypatch, *options)

    assert result.exit_code != 0
    assert message in result.output + str(result.exception)


def test_nodes_that_are_named_by_numbers_keep_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else the column holds."""
    rows = "\n".join(f"{name},00{number}" for number, name in enumerate(WORKLOADS[:3]))
    (tmp_path / "numbers.csv").write_text(f"workload,node\n{rows}\n{WORKLOADS[3]},\n")

    result = run(tmp_path, monkeypatch, "--placement", "numbers.csv", "--no-packing", "--json", "r.json")

    assert result.exit_code == 0, result.output
    assert {each["node"] for each in json.loads(Path("r.json").read_text())["nodes"]} == {"000", "001", "002"}


def test_a_history_without_limits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named."""
    result = run(tmp_path, monkeypatch, panel=a_panel(limit=np.nan))

    assert result.exit_code == 2
    assert "limit, capacity or request" in result.output
