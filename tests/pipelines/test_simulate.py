"""The replay of a history: what it may look at, what it says, and when it refuses."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from autoscaler.simulator.catalog import CATALOG, FORESIZE, HPA
from autoscaler.simulator.outcome import ReplaySettings
from foresize.cli import main_group
from models.forecast import FloatArray
from pipelines.flows.simulate import Asked, simulate
from pipelines.flows.simulation_text import json_values, page, text_lines
from pipelines.report.page import html
from pipelines.settings import Settings, TrainingSettings
from pipelines.steps.replay import LatencySlo, NothingToReplay, lead_steps, replay_plan
from predictor.settings import HistorySettings
from predictor.usage.panel import Resource, SeriesKey, UsagePanel
from predictor.usage.ready import ReadyTimes
from predictor.usage.table import table_from_panel

STEP = 1800
DAYS = 12
SETTINGS = Settings(
    history=HistorySettings.model_validate({"step": "30m"}),
    training=TrainingSettings(forecasters=("seasonal_naive",), cutoffs=4),
)


WORKLOADS = tuple(f"shop/Deployment/w{i}" for i in range(3))


def a_panel(*, with_requests: bool = True, kind: str = "Deployment") -> UsagePanel:
    """Twelve days of three workloads with a daily rhythm, on steps of half an hour."""
    steps = DAYS * 86_400 // STEP
    hours = np.arange(steps) * STEP / 3600
    rng = np.random.default_rng(5)
    rows: list[FloatArray] = [
        (2 + scale * (1 + np.sin(2 * np.pi * hours / 24))) * rng.lognormal(0, 0.05, steps) for scale in (1, 2, 4)
    ]
    usage = np.stack(rows)
    keys = tuple(SeriesKey(f"shop/{kind}/w{i}", Resource.CPU) for i in range(3))
    attributes = {}
    if with_requests:
        attributes = {"request": np.full_like(usage, 12.0), "replicas": np.full_like(usage, 12.0)}
    return UsagePanel(keys, 1_780_272_000, STEP, usage, attributes)


def test_both_policies_and_the_oracle_are_told_side_by_side() -> None:
    """Every workload is replayed under every policy, and nothing that is never short costs less than the oracle."""
    made = simulate(SETTINGS, a_panel(), None, None)

    totals = {each.policy: each for each in made.replay.totals()}
    assert set(totals) == {FORESIZE, HPA, "oracle"}
    assert {each.workloads for each in totals.values()} == {3}
    assert totals["oracle"].violation_minutes == 0
    assert totals["oracle"].core_hours <= min(totals[FORESIZE].core_hours, totals[HPA].core_hours)


def test_no_forecast_looks_at_its_own_step_or_later() -> None:
    """Whatever happens in the replayed days, the forecasts made before it stay as they were."""
    panel = a_panel()
    changed = panel.usage.copy()
    changed[:, -48:] *= 7
    before = simulate(SETTINGS, panel, None, None)

    after = simulate(SETTINGS, replace(panel, usage=changed), None, None)

    known = before.plan.steps - 48 + 1
    assert np.array_equal(before.peaks[:, :known], after.peaks[:, :known])
    assert not np.array_equal(before.peaks[:, known:], after.peaks[:, known:])


def test_without_requests_a_replica_is_assumed_and_said() -> None:
    """A bare usage history can be replayed; what a replica is taken to carry is reported for each workload."""
    made = simulate(SETTINGS, a_panel(with_requests=False), None, None)

    assert sum("one replica is taken to request" in each.message for each in made.findings) == 3
    assert any("oversubscription is not replayed" in each.message for each in made.findings)


def test_what_cannot_be_scaled_is_not_replayed() -> None:
    """DaemonSets and Jobs have no replicas to choose."""
    with pytest.raises(NothingToReplay, match="CPU usage of a Deployment or StatefulSet"):
        simulate(SETTINGS, a_panel(kind="DaemonSet"), None, None)


def test_why_nothing_can_be_replayed_is_said() -> None:
    """Usage that was never above 0 says nothing of what a replica carries, and other resources are not CPU."""
    panel = a_panel(with_requests=False)
    idle = replace(panel, usage=np.zeros_like(panel.usage))
    on_gpus = replace(panel, keys=tuple(SeriesKey(key.workload, Resource.GPU) for key in panel.keys))

    with pytest.raises(NothingToReplay, match="shop/Deployment/w0 cpu: no request and no usage above 0 before"):
        simulate(SETTINGS, idle, None, None)
    with pytest.raises(NothingToReplay, match=r"it holds series of gpu \(3\)"):
        simulate(SETTINGS, on_gpus, None, None)


def test_gaps_are_told_of_where_they_make_cost_look_higher() -> None:
    """Two of three workloads unknown for half a day: replicas are paid for, but nobody knows what they served."""
    panel = a_panel()
    panel.usage[:2, -24:] = np.nan

    made = simulate(SETTINGS, panel, None, None, Asked(span=timedelta(days=1)))

    assert "Demand is known in 66.7% of the replayed time; the rest counts towards core-hours only." in html(page(made))
    known = {each["workload"]: each["known_minutes"] for each in json_values(made)["workloads"]}
    assert known == {"shop/Deployment/w0": 720, "shop/Deployment/w1": 720, "shop/Deployment/w2": 1440}


def test_a_request_in_another_unit_is_told_and_not_replayed() -> None:
    """Ten millionths of a core a replica: half a million of them, which no cluster has."""
    panel = a_panel()
    panel.attributes["request"][0] = 12e-5

    made = simulate(SETTINGS, panel, None, None, Asked(span=timedelta(days=1)))

    assert [each.name for each in made.plan.workloads] == ["shop/Deployment/w1", "shop/Deployment/w2"]
    (told,) = (str(each) for each in made.findings if "is the request in cores?" in each.message)
    assert told.startswith("warning: shop/Deployment/w0 cpu: a replica requests 1e-05 cores")


def test_a_queue_is_followed_as_far_as_replicas_matter_to_it() -> None:
    """Beyond the curve that is worked out, what a thousand replicas carry is met to a thousandth."""
    slo = LatencySlo(threshold_seconds=0.24, service_seconds=0.05)
    panel = a_panel()
    panel.attributes["request"][:] = 0.12
    start = int(panel.times[-24])

    plan = replay_plan(panel, start, panel.end_seconds, SETTINGS.scaling, ReplaySettings(step_seconds=STEP), slo=slo)

    whole, made = slo.capacity(1000), plan.workloads[2].within_slo
    assert whole is not None
    assert len(made.curve) == 300
    assert made.demand_at(1000) == pytest.approx(0.01 * whole.demand_at(1000), rel=1e-3)


def test_nothing_is_left_out_without_a_word() -> None:
    """Kinds without replicas, resources but CPU, workloads that came or went, pools without requests: each is told."""
    panel = with_memory(a_panel())
    usage = panel.usage.copy()
    usage[1, :-48] = np.nan
    keys = (panel.keys[0], panel.keys[1], SeriesKey("kube/DaemonSet/agent", Resource.CPU), panel.keys[3])
    attributes = {**panel.attributes, "request": np.full_like(usage, -1.0)}

    made = simulate(
        SETTINGS,
        replace(panel, keys=keys, usage=usage, attributes=attributes),
        None,
        None,
        Asked(span=timedelta(days=1)),
    )

    told = "\n".join(str(each) for each in made.findings)
    assert [each.name for each in made.plan.workloads] == ["shop/Deployment/w0"]
    assert "kube/DaemonSet/agent cpu: a DaemonSet has no replicas to choose: not replayed" in told
    assert "shop/Deployment/w1 cpu: no usage before the replayed days: not replayed" in told
    assert "the history also holds series of memory (1)" in told
    assert "oversubscription is not replayed: no request is above 0" in told


def test_replicas_stay_between_the_bounds_that_are_asked_for() -> None:
    """Of every policy and the oracle; without them the ceiling is twice what the past needed, at least 20."""
    asked = Asked(span=timedelta(days=2), min_replicas=4, max_replicas=6)

    made = simulate(SETTINGS, a_panel(), None, None, asked)
    free = simulate(SETTINGS, a_panel(), None, None, Asked(span=timedelta(days=2)))

    ready = np.concatenate([each.series.replicas_mean for each in made.replay.outcomes])
    assert (ready.min(), ready.max()) == (4, 6)
    assert min(each.max_replicas for each in free.plan.workloads) == 20


def test_the_forecast_reaches_past_its_step_by_the_lead_time() -> None:
    """A decision at the end of a step has the forecast of its beginning, and takes effect a lead time later."""
    assert lead_steps(ReplaySettings(step_seconds=300, pod_ready_seconds=120)) == 2
    assert lead_steps(ReplaySettings(step_seconds=300, pod_ready_seconds=300)) == 2
    assert lead_steps(ReplaySettings(step_seconds=300, pod_ready_seconds=301)) == 3


def test_a_request_is_the_last_one_known_before_the_replay() -> None:
    """Requests that are changed within the replayed days are not known when it starts."""
    panel = a_panel()
    panel.attributes["request"][:, -24:] = 48.0
    start = int(panel.times[-24])

    plan = replay_plan(panel, start, panel.end_seconds, SETTINGS.scaling, ReplaySettings(step_seconds=STEP))

    assert {each.request_per_replica for each in plan.workloads} == {1.0}


def test_the_figures_are_the_same_in_text_page_and_json() -> None:
    """A reader of any of the three sees the same core-hours."""
    made = simulate(SETTINGS, a_panel(), None, None)
    ours = made.replay.totals()[0]

    assert f"{ours.core_hours:,.0f}" in "\n".join(text_lines(made))
    assert f"{ours.core_hours:,.0f}" in html(page(made))
    assert json_values(made)["policies"][FORESIZE]["core_hours"] == ours.core_hours
    assert json.dumps(json_values(made), allow_nan=False)


def test_the_report_says_whether_the_sla_was_kept_how_it_was_set_up_and_what_was_left_out() -> None:
    """First whether the SLA is kept, for a manager; at the end what an engineer needs, the same as in the JSON."""
    panel = with_memory(a_panel(with_requests=True))
    asked = Asked(span=timedelta(days=2), policies=("keda", "seasonal_naive"), max_replicas=40)

    made = simulate(SETTINGS, panel, None, None, asked)

    shown, values = html(page(made)), json_values(made)
    ours = made.replay.totals()[0]
    first, last = shown.split("<section>")[0], shown.split("<section>")[-2:]
    assert (
        f"<b>{ours.violation_share:.3%}</b>of the time in violation under foresize; the stated SLA allows 1 %" in first
    )
    over = sum(each.violation_share > 0.01 for each in made.replay.of(FORESIZE))
    assert f"which {over} of 3 workloads exceed" in first
    assert "every 15 s" in last[0] and "mean over 60 s, seen 15 s late" in last[0]
    assert f"{ours.elasticity.tau_over:.2%}" in last[0]
    assert "the history also holds series of memory (1)" in last[1]
    set_up = {each["policy"]: (each["knob"], each["value"]) for each in values["set_up"]}
    assert set_up == {
        FORESIZE: ("SLA level", 0.99),
        HPA: ("target utilisation", 0.7),
        "keda": ("threshold", 0.9),
        "seasonal_naive": ("headroom", 1.1),
    }
    assert all(f"<td>{knob}</td><td>{value:g}</td>" in last[0] for knob, value in set_up.values())
    assert "others: keda threshold 0.9, seasonal_naive headroom 1.1" in text_lines(made)
    assert [each["max_replicas"] for each in values["bounds"]] == [40, 40, 40]
    assert values["to"] == "2026-06-13T00:00:00+00:00"
    assert json.dumps(values, allow_nan=False)


def test_the_command_replays_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`foresize simulate --history` needs no server and writes what it was asked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORESIZE_TRAINING__FORECASTERS", "[seasonal_naive]")
    table_from_panel(a_panel()).to_parquet("usage.parquet")
    command = [
        "simulate",
        "--history",
        "usage.parquet",
        "--step",
        "30m",
        "--fit",
        "--report",
        "r.html",
        "--json",
        "r.json",
    ]

    result = CliRunner().invoke(main_group, command)

    assert result.exit_code == 0, result.output
    assert "violations" in result.output
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert json.loads((tmp_path / "r.json").read_text())["level"] == 0.99


def test_a_sweep_compares_every_setting_at_equal_violations_and_is_told_everywhere() -> None:
    """The comparison's figures are in the text, the page and the JSON; what was not reached is null, not NaN.

    They are the same over processes and threads as in one.
    """
    made = simulate(SETTINGS, a_panel(), None, None, Asked(sweep=True, span=timedelta(days=2), jobs=2))
    alone = simulate(SETTINGS, a_panel(), None, None, Asked(sweep=True, span=timedelta(days=2)))

    assert made.comparison is not None
    figures, same = json_values(made), json_values(alone)
    assert figures | {"seconds": {}} == same | {"seconds": {}}
    settings_tried = {each.policy: [point.knob for point in each.points] for each in made.comparison.policies}
    assert settings_tried == {name: list(CATALOG[name].values) for name in (FORESIZE, HPA)}
    assert {each.workload for each in made.comparison.workloads} == {key.workload for key in made.plan.keys}
    text, shown, values = "\n".join(text_lines(made)), html(page(made)), json_values(made)
    assert "Cost at equal violations" in text
    assert "Cost at equal violations" in shown
    assert "best-tuned reactive peer" in shown
    assert values["comparison"]["policies"][HPA]["knob"] == "target utilisation"
    assert json.dumps(values, allow_nan=False)


def with_memory(panel: UsagePanel) -> UsagePanel:
    """The panel with memory of its first workload beside, 12 replicas that hold a gigabyte each and request two."""
    memory = np.full((1, panel.usage.shape[1]), 12e9)
    key = SeriesKey(panel.keys[0].workload, Resource.MEMORY)
    attributes = {
        "request": np.concatenate([panel.attributes["request"], np.full_like(memory, 24e9)]),
        "replicas": np.concatenate([panel.attributes["replicas"], np.full_like(memory, 12.0)]),
    }
    return replace(panel, keys=(*panel.keys, key), usage=np.concatenate([panel.usage, memory]), attributes=attributes)


def test_requests_are_replayed_beside_the_vpa_and_autopilot_where_that_is_asked_for() -> None:
    """Of each resource, every policy over every workload that uses it; told in text, page and JSON alike.

    Memory that never changes is requested with a margin by everybody, and never kills.
    """
    panel = with_memory(a_panel())

    made = simulate(SETTINGS, panel, None, None, Asked(requests=True, span=timedelta(days=2)))

    cpu, memory = made.requests
    policies = ("foresize", "vpa", "autopilot", "as_requested")
    assert (cpu.policies, memory.policies) == (policies, policies)
    assert [len(cpu.of(policy)) for policy in policies] == [3] * 4
    assert [len(memory.of(policy)) for policy in policies] == [1] * 4
    (now,) = memory.of("as_requested")
    assert now.requested_hours == pytest.approx(24e9 * 48)
    for policy in policies:
        (each,) = memory.of(policy)
        assert each.demand_hours == pytest.approx(12e9 * 48)
        assert (each.violation_minutes, each.out_of_memory_kills) == (0, 0)
        assert 12e9 * 48 < each.requested_hours <= 24e9 * 48
    text, shown, values = "\n".join(text_lines(made)), html(page(made)), json_values(made)
    assert "requests of memory by 1 workloads" in text
    assert "Requests: foresize beside the VPA" in shown
    assert len(values["requests"]) == 4 * 4
    assert json.dumps(values, allow_nan=False)
    assert json_values(simulate(SETTINGS, panel, None, None, Asked(span=timedelta(days=2))))["requests"] == []


def test_no_recommendation_looks_at_what_it_is_for() -> None:
    """Whatever happens in the replayed days, what was recommended before it stays as it was."""
    panel = a_panel()
    changed = panel.usage.copy()
    changed[:, -24:] *= 7
    asked = Asked(requests=True, span=timedelta(days=2))

    before = simulate(SETTINGS, panel, None, None, asked).requests[0].of("foresize")
    after = simulate(SETTINGS, replace(panel, usage=changed), None, None, asked).requests[0].of("foresize")

    for one, other in zip(before, after, strict=True):
        assert np.array_equal(one.requests[:-24], other.requests[:-24])


def test_steps_on_which_forecasts_go_stale_are_told() -> None:
    """Half an hour a step, a quarter of an hour a forecast: half of the time foresize is reactive."""
    made = simulate(SETTINGS, a_panel(), None, None, Asked(span=timedelta(days=1)))

    assert any("foresize is replayed as reactive in the rest of each step" in each.message for each in made.findings)


def test_what_is_replayed_can_be_named_by_its_time() -> None:
    """From the beginning of one day to that of another excluded; nothing after it is looked at."""
    panel = a_panel()
    begin = panel.start_seconds + 8 * 86_400
    changed = panel.usage.copy()
    changed[:, -48:] *= 7
    asked = Asked(from_seconds=begin, to_seconds=begin + 2 * 86_400)

    made = simulate(SETTINGS, panel, None, None, asked)
    again = simulate(SETTINGS, replace(panel, usage=changed), None, None, asked)

    assert made.plan.start_seconds == begin
    assert made.plan.steps == 2 * 48
    assert made.replay.totals() == again.replay.totals()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policies", "hpa,hap"], "no policy is called 'hap'; there are: foresize, foresize_budget, hpa"),
        (["--from", "2026-06-03", "--days", "2"], "--days and --from exclude each other"),
        (["--from", "2026-06-03", "--to", "2026-06-02"], "is not before --to"),
        (["--from", "2036-06-03"], "--from"),
        (["--days", "0"], "--days"),
        (["--days", "nan"], "nan is not a finite number"),
        (["--days", "inf"], "is not in the range"),
        (["--ready-spread", "nan"], "nan is not a finite number"),
        (["--ready-seconds", "1e300"], "is no list of seconds"),
        (["--change-cost", "inf"], "inf is not a finite number"),
        (["--max-replicas", "1000000"], "is not in the range 1<=x<=20000"),
        (["--min-replicas", "5", "--max-replicas", "3"], "--min-replicas 5 is more than --max-replicas 3"),
        (
            ["--from", "2026-01-01"],
            "samples, 2026-06-01 00:00 UTC to 2026-06-12 23:30 UTC, so what begins at 2026-01-01",
        ),
        (["--to", "2026-01-01"], "there are no samples before 2026-01-01 00:00 UTC (--to)"),
        (["--days", "2", "--step", "50m", "--policies", "aws_predictive"], "which steps of 3000 s split"),
        (["--days", "2", "--dask", "nowhere"], "no Dask scheduler answered"),
        (["--pod-ready", "soon"], "is not a duration"),
        (["--metric-delay", "20s"], "--metric-delay: 20s is not a multiple of 15 s"),
        (["--metric-window", "0s"], "from 15 s to 3600 s"),
        (["--metric-delay", "2h"], "from 0 s to 3600 s"),
        (["--days", "400"], "cannot be replayed after a past"),
        (["--workloads", "nobody/*"], "nobody/*"),
    ],
)
def test_a_wrong_option_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    """Each mistake ends with a message about itself and no stack trace."""
    monkeypatch.chdir(tmp_path)
    table_from_panel(a_panel()).to_parquet("usage.parquet")

    result = CliRunner().invoke(
        main_group, ["simulate", "--history", "usage.parquet", "--step", "30m", "--fit", *options]
    )

    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())


def test_a_latency_slo_takes_head_room_that_few_replicas_need_most() -> None:
    """99 % within ten mean service times, by hand: one server of a queue carries 1 - ln(100) / 10 = 54 % of what it
    serves; many carry nearly all. Violations are of that, and the oracle has none."""
    slo = LatencySlo(threshold_seconds=0.5, service_seconds=0.05)
    carried = slo.capacity(20)
    assert carried is not None
    assert carried.demand_at(1) == pytest.approx(1 - np.log(100) / 10, rel=1e-3)
    assert carried.demand_at(20) > 0.9 * 20

    plain = simulate(SETTINGS, a_panel(), None, None, Asked(span=timedelta(days=2)))
    made = simulate(SETTINGS, a_panel(), None, None, Asked(span=timedelta(days=2), slo=slo))

    least, with_slo = ({each.policy: each for each in kept.replay.totals()} for kept in (plain, made))
    assert with_slo["oracle"].violation_minutes == 0
    assert with_slo["oracle"].core_hours > 1.05 * least["oracle"].core_hours
    assert made.plan.workloads[0].slo == carried.scaled(1.0)
    assert any("by an M/M/c queue" in line for line in text_lines(made))
    assert json_values(made)["slo"] == {"threshold_seconds": 0.5, "service_seconds": 0.05, "level": 0.99}
    assert "M/M/c queue in its steady state" in html(page(made))


def test_ready_times_and_the_oracle_that_pays_for_changes_are_asked_for(tmp_path: Path) -> None:
    """By the command; the times are drawn from, and that oracle changes less than the other one."""
    history = tmp_path / "usage.parquet"
    table_from_panel(a_panel()).to_parquet(history)
    results = tmp_path / "replay.json"
    command = ["simulate", "--history", str(history), "--step", "30m", "--days", "2", "--fit", "--json", str(results)]

    ran = CliRunner().invoke(main_group, [*command, "--ready-seconds", "30,60,600", "--change-cost", "2"])

    assert ran.exit_code == 0, ran.output
    assert "pods ready after the times given, all but one in twenty within 600 s" in ran.output
    policies = json.loads(results.read_text())["policies"]
    paying, free = policies["oracle with switching cost"], policies["oracle"]
    assert paying["violation_minutes"] == 0
    assert paying["scale_actions"] < free["scale_actions"]


def test_what_each_workloads_pods_took_is_drawn_from_and_ordered_by() -> None:
    """Where five or more were seen; of the others what is asked for holds, and text, page and JSON say of whom.

    The lead time is what all but one in twenty took, at most scaling.longest_lead_time, as in the controller.
    """
    took = {
        "shop/Deployment/w0": (20.0,) * 19 + (45.0, 7_000.0),
        "shop/Deployment/w1": (7_000.0,) * 5,
        "shop/Deployment/w2": (9.0,) * 4,
    }
    asked = Asked(span=timedelta(days=1))

    made = simulate(SETTINGS, a_panel(), None, None, asked, ready_times=ReadyTimes(took))
    plain = simulate(SETTINGS, a_panel(), None, None, asked)

    bounds = [(each["pods_seen"], each["lead_seconds"]) for each in json_values(made)["bounds"]]
    assert bounds == [(21, 45), (5, 1800), (None, 120)]
    assert [each.pod_ready_seconds for each in made.plan.workloads] == [took[WORKLOADS[0]], took[WORKLOADS[1]], ()]
    text = "\n".join(text_lines(made))
    assert (
        "pods ready after times that pods took: 26 pods of 2 workloads, median 20 s, all but one in twenty of a "
        "workload's within 45 to 1800 s; of 1 others pods ready after 120 s" in text
    )
    assert "<td>21</td><td>45</td>" in html(page(made))
    said = "1 of 3 workloads: fewer than 5 pods were seen to get Ready, so that 120 s stand for what theirs take"
    assert any(f"{said}: shop/Deployment/w2" in each.message for each in made.findings)
    assert not any("pods were seen" in each.message for each in plain.findings)
    for policy in made.replay.policies:
        one, other = (each.replay.of(policy)[2] for each in (made, plain))
        assert (one.core_hours, one.violation_minutes) == (other.core_hours, other.violation_minutes)
    slower, quicker = (each.replay.of("oracle")[1] for each in (made, plain))
    assert slower.core_hours > quicker.core_hours


def test_forecasts_reach_as_far_as_each_workloads_own_lead_time() -> None:
    """A slow one beside quick ones changes nothing for them, and is itself forecast for the longer window."""
    scaling = SETTINGS.scaling.model_copy(update={"longest_lead_time": timedelta(hours=2)})
    settings, asked = SETTINGS.model_copy(update={"scaling": scaling}), Asked(span=timedelta(days=1))

    alone = simulate(settings, a_panel(), None, None, asked)
    ahead = simulate(settings, a_panel(), None, None, replace(asked, pod_ready=timedelta(seconds=3_300)))
    beside = simulate(settings, a_panel(), None, None, asked, ready_times=ReadyTimes({WORKLOADS[1]: (3_300.0,) * 5}))

    assert np.array_equal(beside.peaks[[0, 2]], alone.peaks[[0, 2]])
    assert np.array_equal(beside.peaks[1], ahead.peaks[1])
    assert not np.array_equal(alone.peaks[1], ahead.peaks[1])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--slo-latency", "0.1"], "--slo-latency and --service-time belong together"),
        (["--slo-latency", "0.1", "--service-time", "0.05"], "never done within 0.1 s, however many replicas"),
        (["--ready-seconds", "30,soon"], "is no list of seconds"),
        (["--ready-seconds", "30", "--ready-spread", "0.3"], "exclude each other"),
        (["--ready-seconds", "30", "--pod-ready", "1m"], "--ready-seconds and --pod-ready exclude each other"),
    ],
)
def test_options_that_contradict_each_other_are_refused(tmp_path: Path, options: list[str], said: str) -> None:
    """Before anything is read."""
    history = tmp_path / "usage.parquet"
    table_from_panel(a_panel()).to_parquet(history)

    ran = CliRunner().invoke(main_group, ["simulate", "--history", str(history), *options])

    assert ran.exit_code == 2
    assert said in " ".join(ran.output.split())
