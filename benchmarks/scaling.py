"""What scaling costs on public traces at equal violations of a latency SLO: foresize, its peers, and the oracle.

    python -m benchmarks.scaling TRACES                     all tasks; those with a stored result are skipped
    python -m benchmarks.scaling TRACES --only crane --again

Each series is replayed over its second half; nothing that foresize forecasts with has seen it, and peers that learn
learn from the first. A replica is one server of an M/M/c queue, so large that the series' 0.99 quantile needs 20 of
them; the SLO is that 99 % of responses take at most 11 mean service times, so that one replica may be 58 % busy, four
89 % and forty 99 %. Pods are Ready after a drawn two minutes. Every policy's knob is swept over the second half, in
hindsight, which favours each alike. Results go to benchmarks/results/scaling.json, scaling.md and scaling.svg.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import foresize
from autoscaler.controller.autoscalers import NO_RULES
from autoscaler.controller.demand import SIGNAL_LEVELS
from autoscaler.controller.policy import rules_of
from autoscaler.decisions.capacity import queue_capacity
from autoscaler.simulator.catalog import CATALOG, FORESIZE, HPA, LEVELS, Given
from autoscaler.simulator.comparison import Comparison, Trial, compared
from autoscaler.simulator.elasticity import PERFECT
from autoscaler.simulator.oracle import ORACLE
from autoscaler.simulator.outcome import ReplaySettings, ReplayWorkload, ReplicaSeries, WorkloadOutcome
from benchmarks.running import RESULTS, run
from models.forecast import FloatArray
from models.queueing import largest_load
from pipelines.flows.parallel import mapped_over
from pipelines.flows.replays import replayed
from pipelines.settings import Settings
from pipelines.steps.plan import untold
from pipelines.steps.replay import ReplayPlan, lead_peaks, safe_peaks
from predictor.usage.panel import UsagePanel

STEP_SECONDS = 60
REPLICAS = 20
"""That the 0.99 quantile of a series needs."""
MOST_REPLICAS = 400
THRESHOLD = 11.0
"""In mean service times."""
LATENCY_PERCENTILE = 0.99
READY_SECONDS, READY_SPREAD = 120, 0.25
FUNCTIONS = 9
"""The busiest of Azure's."""
PAST = timedelta(days=7)
SEED = 0


@dataclass(frozen=True, slots=True)
class ScalingTask:
    """Series of one trace that were measured at the same time."""

    name: str
    file: str
    between: tuple[str, str] = ("1990-01-01", "2100-01-01")
    workloads: tuple[str, ...] = ()
    """Empty: all of them."""


TASKS = (
    ScalingTask("azure-functions", "azure_functions_2019_1min.parquet"),
    ScalingTask("genai-service", "genai2026_service_1min.parquet"),
    ScalingTask("crane-august", "crane_1min.parquet", ("2021-08-01", "2021-09-01")),
    ScalingTask(
        "crane-october",
        "crane_1min.parquet",
        ("2021-10-01", "2021-11-01"),
        ("input01", "input02", "input03", "input04"),
    ),
    ScalingTask("crane-later", "crane_1min.parquet", ("2021-10-01", "2021-11-01"), ("input05", "input06", "input07")),
    ScalingTask("twitter", "twitter_stream_2021_1min.parquet"),
    ScalingTask("nasa", "nasa_http_1995_1min.parquet", ("1995-07-01", "1995-08-01")),
)


def main() -> None:
    """Run what is asked for."""
    run(__doc__, "scaling", {each.name: partial(measured, each) for each in TASKS}, table)


def read(task: ScalingTask, folder: Path) -> UsagePanel:
    """The task's series, a minute a step; of the service, the requests of all its pods together."""
    rows = pd.read_parquet(folder / task.file)
    first, last = (pd.Timestamp(each, tz="UTC") for each in task.between)
    rows = rows[(rows["timestamp"] >= first) & (rows["timestamp"] < last)]
    if task.workloads:
        rows = rows[rows["workload"].isin(task.workloads)]
    if "metric" in rows:
        rows = rows[rows["metric"] == "generative_requests_per_second"]
        total = rows.groupby("timestamp")["value"].sum()
        minutes = pd.date_range(total.index.min(), total.index.max(), freq="1min")
        total = total.reindex(minutes, fill_value=0.0)
        rows = pd.DataFrame(
            {"workload": "service", "resource": "requests", "timestamp": minutes, "usage": total.to_numpy()}
        )
    elif task.name == "azure-functions":
        busiest = rows.groupby("workload", observed=True)["usage"].mean().nlargest(FUNCTIONS)
        rows = rows[rows["workload"].isin(busiest.index)]
    kept = rows[["workload", "resource", "timestamp", "usage"]].astype({"workload": str, "resource": str})
    return foresize.read_usage(kept, step="1m")


def measured(task: ScalingTask, folder: Path) -> dict[str, Any]:
    """What every policy did with every value of its knob, and as it is set up by default."""
    plan, given, _ = prepared(task, folder)
    made: dict[str, Any] = {"seed": SEED, "series": [key.workload for key in plan.keys], "trials": []}
    with mapped_over(2) as mapped:
        for name, entry in CATALOG.items():
            for value in (None, *entry.values):
                policy = entry.make(given, value)
                replay = replayed(plan.demand, plan.workloads, [policy], plan.settings, mapped=mapped)
                made["trials"].append({"policy": name, "knob": value, "outcomes": kept(replay.of(policy.name))})
                made["oracle"] = kept(replay.of(ORACLE))
    return made


def prepared(task: ScalingTask, folder: Path) -> tuple[ReplayPlan, Given, dict[float, FloatArray]]:
    """The task's second half to be replayed, what policies are made from, and the forecast peaks behind it by level."""
    panel = read(task, folder)
    half = panel.steps // 2
    start = panel.start_seconds + half * STEP_SECONDS
    before = panel.between(panel.start_seconds, start - STEP_SECONDS)
    after = panel.between(start, panel.end_seconds)
    settings = ReplaySettings(
        step_seconds=STEP_SECONDS, pod_ready_seconds=READY_SECONDS, pod_ready_spread=READY_SPREAD, seed=SEED
    )
    plan = ReplayPlan(
        panel.keys, tuple(workloads_of(panel)), after.usage, before.usage, after.start_seconds, settings, ()
    )
    model = foresize.fit(
        before,
        horizon="10m",
        levels=LEVELS,
        peaks=("3m",),
        past=PAST,
        calibration=timedelta(seconds=half * STEP_SECONDS // 2),
        threads=1,
    )
    past_steps = int(PAST.total_seconds()) // STEP_SECONDS
    asked = sorted({*LEVELS, *SIGNAL_LEVELS})
    forecasts = lead_peaks(model.bundle, panel, plan, levels=asked, past_steps=past_steps, progress=untold)
    scaling = Settings().scaling
    given = Given(
        past=before.usage,
        peaks=safe_peaks(plan, forecasts, LEVELS, target_utilisation=1.0),
        level=0.99,
        lead_seconds=READY_SECONDS,
        rules=rules_of(NO_RULES, NO_RULES, scaling),
        model_version="",
        hpa_utilisation=scaling.reactive_utilisation,
        target_utilisation=1.0,
    )
    return plan, given, forecasts


def workloads_of(panel: UsagePanel) -> Iterable[ReplayWorkload]:
    """Each series as a workload of replicas of a size that suits it."""
    busy = largest_load(REPLICAS, THRESHOLD, LATENCY_PERCENTILE)
    for key, usage in zip(panel.keys, panel.usage, strict=True):
        served = float(np.nanquantile(usage, 0.99)) / busy
        yield ReplayWorkload(
            name=key.workload,
            request_per_replica=served,
            cores_per_replica=1.0,
            target_utilisation=0.9,
            min_replicas=1,
            max_replicas=MOST_REPLICAS,
            resource=key.resource,
            slo=queue_capacity(served, 1, THRESHOLD / served, LATENCY_PERCENTILE, MOST_REPLICAS),
        )


FIGURES = ("known_minutes", "violation_minutes", "core_hours", "scale_actions", "replayed_hours")


def kept(outcomes: Sequence[WorkloadOutcome]) -> list[str]:
    """What is compared of each series: FIGURES, in that order, in a line."""
    return [" ".join(f"{round(getattr(each, name), 4):.9g}" for name in FIGURES) for each in outcomes]


def trials_of(stored: Mapping[str, Any], *, swept: bool) -> list[Trial]:
    """The stored trials over the series of all tasks, those of knobs or those of defaults."""
    by_setting: dict[tuple[str, float | None], list[WorkloadOutcome]] = {}
    for task in stored.values():
        for each in task["trials"]:
            if (each["knob"] is not None) == swept:
                setting = each["policy"], each["knob"]
                by_setting.setdefault(setting, []).extend(_outcomes(each["policy"], task["series"], each["outcomes"]))
    return [Trial(policy, knob, tuple(outcomes)) for (policy, knob), outcomes in by_setting.items()]


def oracle_of(stored: Mapping[str, Any]) -> list[WorkloadOutcome]:
    """The oracle's outcomes over the series of all tasks."""
    return [each for task in stored.values() for each in _outcomes(ORACLE, task["series"], task["oracle"])]


def table(stored: Mapping[str, Any], folder: Path = RESULTS) -> str:
    """The stored results as Markdown: at equal violations, out of the box, and each series, the lost ones first.

    The fronts are drawn into the folder.
    """
    trials, oracle = trials_of(stored, swept=True), oracle_of(stored)
    reactive = {name for name, entry in CATALOG.items() if entry.is_reactive}
    made = compared(trials, oracle, reactive=reactive, rng=np.random.default_rng(SEED))
    draw(made, folder / "scaling.svg")
    return "\n".join([*_policies(made, len(oracle)), "", *_defaults(stored, oracle), "", *_series(made)]) + "\n"


def draw(made: Comparison, file: Path) -> None:
    """Each policy's front over all series together, cost in replica-hours."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "foresize"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 6))
    for number, each in enumerate(made.policies):
        shares = [100 * max(point.violation_share, 1e-5) for point in each.front]
        costs = [point.core_hours for point in each.front]
        is_ours = each.policy == FORESIZE
        style = "-" if is_ours else ("--", ":", "-.")[number % 3]
        axes.plot(shares, costs, style, marker=".", lw=3 if is_ours else 1, label=each.policy)
    axes.set(xscale="log", yscale="log", xlabel="violated, % of time", ylabel="replica-hours, all series")
    axes.legend(fontsize=7)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def _policies(made: Comparison, count: int) -> list[str]:
    shares = [each.violation_share for each in made.policies[0].at]
    heads = " | ".join(f"cost ÷ oracle's at {share:.1%} (reached by)" for share in shares)
    lines = [
        f"{count} series, every knob swept over the second half of each.",
        "",
        f"| policy | {heads} | gap to the oracle closed, median, at .5 % | at 1 % |",
        f"|---|{'---|' * (len(shares) + 2)}",
    ]
    for each in sorted(made.policies, key=lambda p: p.at[1].over_oracle.value):
        cells = [f"{at.over_oracle.value:.3f} ({at.reached})" for at in each.at]
        gaps = [f"{at.gap_closed.value:.2f} [{at.gap_closed.low:.2f}, {at.gap_closed.high:.2f}]" for at in each.at[1:]]
        lines.append(f"| {each.policy} | {' | '.join([*cells, *gaps])} |")
    return lines


def _defaults(stored: Mapping[str, Any], oracle: Sequence[WorkloadOutcome]) -> list[str]:
    lines = [
        "Out of the box, no knob turned (foresize is asked for 99 %, so that 1 % is allowed):",
        "",
        "| policy | violated, median series | worst tenth | series within 1.5 % | cost ÷ oracle's | changes an hour |",
        "|---|---|---|---|---|---|",
    ]
    for trial in trials_of(stored, swept=False):
        shares = np.array([each.violation_share for each in trial.outcomes])
        ratio = np.array([a.core_hours / b.core_hours for a, b in zip(trial.outcomes, oracle, strict=True)])
        changes = np.mean([each.scale_actions_per_hour for each in trial.outcomes])
        lines.append(
            f"| {trial.policy} | {np.median(shares):.2%} | {np.quantile(shares, 0.9):.2%} "
            f"| {np.mean(shares <= 0.015):.0%} | {np.exp(np.mean(np.log(ratio))):.3f} | {changes:.1f} |"
        )
    return lines


def _series(made: Comparison) -> list[str]:
    lines = [
        "Each series at .5 % violations, cost ÷ the oracle's; those that foresize loses by most first:",
        "",
        "| series | best reactive peer | its cost | HPA's | foresize's | gap closed |",
        "|---|---|---|---|---|---|",
    ]
    for each in made.lost_first(FORESIZE, 0.005):
        best = None if each.best_peer is None else each.core_hours[each.best_peer]
        costs = [best, each.core_hours[HPA], each.core_hours[FORESIZE]]
        shown = ["not reached" if cost is None else f"{cost / each.oracle_core_hours:.2f}" for cost in costs]
        gap = each.gap_closed[FORESIZE]
        lines.append(
            f"| {each.workload} | {each.best_peer or 'none'} | {' | '.join(shown)} "
            f"| {'' if gap is None else f'{gap:.2f}'} |"
        )
    return lines


def _outcomes(policy: str, names: Sequence[str], rows: Sequence[str]) -> Iterable[WorkloadOutcome]:
    """Stored figures as outcomes; what is not stored is nothing."""
    nothing = np.zeros(0)
    for name, row in zip(names, rows, strict=True):
        known, violated, cores, actions, hours = map(float, row.split())
        yield WorkloadOutcome(
            policy,
            name,
            known_minutes=known,
            violation_minutes=violated,
            demand_core_hours=0.0,
            unserved_core_hours=0.0,
            replica_hours=cores,
            core_hours=cores,
            scale_actions=int(actions),
            replayed_hours=hours,
            elasticity=PERFECT,
            series=ReplicaSeries(nothing, nothing, nothing, nothing),
        )


if __name__ == "__main__":
    main()
