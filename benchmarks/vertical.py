"""What requests cost on public traces at equal violations: foresize, the VPA, Autopilot and requests that never change.

    python -m benchmarks.vertical TRACES                     all tasks; those with a stored result are skipped
    python -m benchmarks.vertical TRACES --only bitbrains --again

Each series is what one of two alike replicas uses, replayed over its second half; the first is all that anybody learns
from. Foresize forecasts as the controller does, if not so often: a day ahead, by a model of the fleet that does not
know the container itself. Its forecasts, unlike what the peers see, rest on demand also where a container was killed. A
violation is a step in which demand exceeds the request. Every policy's knob is swept over the second half, in
hindsight, which favours each alike. Results go to benchmarks/results/vertical.json and vertical.md.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import foresize
from autoscaler.cluster.reasons import Hold
from autoscaler.decisions.requests import RequestRange, RequestRules, UsageFan, cpu_request, memory_request
from autoscaler.simulator.advised_requests import AdvisedRequestPolicy
from autoscaler.simulator.comparison import Comparison, Trial, compared
from autoscaler.simulator.elasticity import PERFECT
from autoscaler.simulator.oracle import ORACLE
from autoscaler.simulator.outcome import ReplicaSeries, WorkloadOutcome
from autoscaler.simulator.peers.catalog import REQUEST_PEERS
from autoscaler.simulator.vertical import RequestOutcome, RequestPolicy, SizedWorkload, replay_requests
from benchmarks import traces
from benchmarks.running import run
from models.forecast import SECONDS_PER_DAY, FloatArray, Target
from predictor.serving.bundle import Bundle, NoForecast
from predictor.usage.panel import Resource, SeriesKey, UsagePanel

STEP_SECONDS = 300
PER_DAY = SECONDS_PER_DAY // STEP_SECONDS
ASKED_EVERY = 36
"""Steps from one forecast to the next: three hours, where the controller asks with each, as each costs."""
REPLICAS = 2
"""The VerticalPodAutoscaler leaves workloads with fewer alone."""
PAST_DAYS = 8
SHARES = (0.001, 0.01, 0.05)
"""Of the time, at which policies are compared."""
FORECASTS, ON_THE_PAST = "foresize", "foresize_past"
KNOBS = REQUEST_PEERS["foresize"].values
SEED = 0

Advice = Mapping[float | None, Sequence[Sequence[RequestRange | None]]]
"""By knob: of each series, what was advised at each time; None where nothing was."""


@dataclass(frozen=True, slots=True)
class VerticalTask:
    """Series of one trace that were measured at the same time."""

    name: str
    task: traces.Task
    busiest: int | None = None
    """How many are kept, by their mean usage in the first half; None: all."""


def _task(name: str) -> traces.Task:
    return next(each for each in traces.tasks() if each.name == name)


TASKS = (
    *(
        VerticalTask(f"bitbrains-august-{resource}", _task(f"bitbrains-august-{resource}-4h"), 60)
        for resource in ("cpu", "memory")
    ),
    VerticalTask("crane-cpu", _task("crane-cpu-24h")),
)


def main() -> None:
    """Run what is asked for."""
    run(__doc__, "vertical", {each.name: partial(measured, each) for each in TASKS}, table)


def read(task: VerticalTask, folder: Path) -> UsagePanel:
    """The task's series; those without usage in either half are left out."""
    panel = traces.read(task.task, folder)
    half = panel.steps // 2
    first, second = panel.usage[:, :half], panel.usage[:, half:]
    is_used = (np.nan_to_num(first).max(axis=1) > 0) & (np.nan_to_num(second).max(axis=1) > 0)
    rows = np.flatnonzero(is_used)
    if task.busiest is not None:
        means = np.nanmean(first[rows], axis=1)
        rows = np.sort(rows[np.argsort(-means, kind="stable")[: task.busiest]])
    return panel.select(rows)


def measured(task: VerticalTask, folder: Path) -> dict[str, Any]:
    """What every policy did with every value of its knob, and as it is set up by default."""
    panel = read(task, folder)
    half = panel.steps // 2
    start = panel.start_seconds + half * STEP_SECONDS
    before = panel.between(panel.start_seconds, start - STEP_SECONDS)
    model = foresize.fit(before, horizon="1d", peaks=("1d",), past=f"{PAST_DAYS}d", threads=1)
    advice = advised(model.bundle, panel, half)
    past, demand = REPLICAS * panel.usage[:, :half], REPLICAS * panel.usage[:, half:]
    workloads = [
        SizedWorkload(
            name=key.workload,
            replicas=REPLICAS,
            request_per_replica=float(np.nanmax(usage)),
            resource=task.task.resource,
        )
        for key, usage in zip(panel.keys, before.usage, strict=True)
    ]
    made: dict[str, Any] = {"seed": SEED, "series": [key.workload for key in panel.keys], "trials": []}
    policies: list[tuple[str, float | None, RequestPolicy]] = [
        (FORECASTS, knob, AdvisedRequestPolicy(advice=advice[knob], every_steps=ASKED_EVERY)) for knob in (None, *KNOBS)
    ]
    for name, peer in REQUEST_PEERS.items():
        shown = ON_THE_PAST if name == "foresize" else name
        policies += [(shown, knob, peer.make(past, knob)) for knob in (None, *peer.values)]
    for shown, knob, policy in policies:
        outcomes = replay_requests(demand, workloads, [policy], STEP_SECONDS)
        trial: dict[str, Any] = {"policy": shown, "knob": knob, "outcomes": kept(outcomes)}
        if knob is None:
            requests = REPLICAS * np.stack([each.requests for each in outcomes])
            trial["factors"] = [round(factor_for(demand, requests, share), 4) for share in SHARES]
        made["trials"].append(trial)
    return made


def factor_for(demand: FloatArray, requests: FloatArray, share: float) -> float:
    """By what all requests would have to be multiplied for demand to exceed them in that share of all steps."""
    ratio = demand / requests
    return float(np.quantile(ratio[~np.isnan(ratio)], 1.0 - share, method="higher"))


def advised(bundle: Bundle, panel: UsagePanel, half: int) -> Advice:
    """What foresize would recommend every few hours of the second half, from what was used until then."""
    resource = panel.keys[0].resource
    rules = {knob: _rules(knob) for knob in (None, *KNOBS)}
    levels = tuple(sorted({level for each in rules.values() for level in each.levels}))
    # Under a name that the model does not know, as containers are.
    keys = tuple(SeriesKey(f"{key.workload}/app", key.resource) for key in panel.keys)
    target = Target(PER_DAY)
    if resource is Resource.MEMORY:
        target = next((part.target for part in bundle.peaks if part.target.steps == PER_DAY), target)
    advice: dict[float | None, list[list[RequestRange | None]]] = {knob: [[] for _ in keys] for knob in rules}
    for step in range(half, panel.steps, ASKED_EVERY):
        first = max(0, step - PAST_DAYS * PER_DAY)
        usage = panel.usage[:, first:step]
        seen = UsagePanel(keys, panel.start_seconds + first * STEP_SECONDS, STEP_SECONDS, usage)
        made = bundle.forecast(seen, target, levels)
        for row, key in enumerate(keys):
            series = made.of(key)
            for knob, rule in rules.items():
                range_ = None
                if not isinstance(series, NoForecast):
                    places = [levels.index(level) for level in rule.levels]
                    fan = UsageFan(rule.levels, series.values[places])
                    range_ = _recommended(resource, fan, usage[row], rule)
                advice[knob][row].append(range_)
    return advice


def _rules(knob: float | None) -> RequestRules:
    return RequestRules() if knob is None else RequestRules(cpu_share=knob, memory_level=knob)


def _recommended(resource: Resource, fan: UsageFan, usage: FloatArray, rules: RequestRules) -> RequestRange | None:
    days = int(np.count_nonzero(~np.isnan(usage))) / PER_DAY
    last_day = usage[-PER_DAY:]
    highest = float(np.max(last_day, initial=0.0, where=~np.isnan(last_day)))
    is_cpu = resource is Resource.CPU
    made = cpu_request(fan, fan, days, rules) if is_cpu else memory_request(fan, highest, days, rules)
    return None if isinstance(made, Hold) else made


FIGURES = ("known_minutes", "violation_minutes", "requested_hours", "demand_hours", "beyond_hours", "resizes")


def kept(outcomes: Sequence[RequestOutcome]) -> list[str]:
    """What is compared of each series: FIGURES, in that order, in a line."""
    return [" ".join(f"{getattr(each, name):.6g}" for name in FIGURES) for each in outcomes]


def table(stored: Mapping[str, Any]) -> str:
    """The stored results as Markdown, a part a task: at equal violations, and out of the box."""
    return "\n".join(line for name, task in stored.items() for line in (*_equal(name, task), "", *_defaults(task), ""))


def _comparison(task: Mapping[str, Any]) -> Comparison:
    trials = [
        Trial(each["policy"], each["knob"], tuple(_outcomes(each["policy"], task)(each["outcomes"])))
        for each in task["trials"]
        if each["knob"] is not None
    ]
    used = [
        replace(each, policy=ORACLE, core_hours=each.demand_core_hours, violation_minutes=0.0)
        for each in trials[0].outcomes
    ]
    peers = {each.policy for each in trials} - {FORECASTS, ON_THE_PAST}
    return compared(trials, used, reactive=peers, rng=np.random.default_rng(SEED), violation_shares=SHARES)


def _equal(name: str, task: Mapping[str, Any]) -> Iterator[str]:
    made = _comparison(task)
    used = sum(float(row.split()[FIGURES.index("demand_hours")]) for row in task["trials"][0]["outcomes"])
    heads = " | ".join(f"at {share:.1%}: one knob for all | one each (reached by)" for share in SHARES)
    yield f"**{name}**: {len(task['series'])} series; requested ÷ used, where demand exceeds the request so often"
    yield ""
    yield f"| policy | {heads} |"
    yield f"|---|{'---|' * (2 * len(SHARES))}"
    for each in made.policies:
        cells = []
        for at in each.at:
            cells.append("not reached" if at.fleet_core_hours is None else f"{at.fleet_core_hours / used:.2f}")
            cells.append(f"{at.over_oracle.value:.2f} ({at.reached})" if at.reached else "not reached")
        yield f"| {each.policy} | {' | '.join(cells)} |"


def _defaults(task: Mapping[str, Any]) -> Iterator[str]:
    scaled = " | ".join(f"scaled in hindsight to {share:.1%}" for share in SHARES)
    yield "Out of the box; scaled, all requests of a policy are multiplied by the factor at which so much is violated:"
    yield ""
    yield (
        "| policy | violated, all | median series | worst tenth | demand beyond | resizes a day "
        f"| requested ÷ used, mean of series | {scaled} |"
    )
    yield f"|---|{'---|' * (6 + len(SHARES))}"
    for each in task["trials"]:
        if each["knob"] is not None:
            continue
        rows = np.array([[float(figure) for figure in row.split()] for row in each["outcomes"]])
        known, violated, requested, used, beyond, resizes = rows.T
        shares, cost = violated / known, float(np.exp(np.mean(np.log(requested / used))))
        cells = " | ".join(f"{factor * cost:.2f} (× {factor:.2f})" for factor in each["factors"])
        yield (
            f"| {each['policy']} | {violated.sum() / known.sum():.2%} | {np.median(shares):.2%} "
            f"| {np.quantile(shares, 0.9):.2%} | {beyond.sum() / used.sum():.2%} "
            f"| {np.mean(resizes / (known / 1440)):.1f} | {cost:.2f} | {cells} |"
        )


def _outcomes(policy: str, task: Mapping[str, Any]) -> partial[Iterable[WorkloadOutcome]]:
    return partial(_stored_outcomes, policy, task["series"])


def _stored_outcomes(policy: str, names: Sequence[str], rows: Sequence[str]) -> Iterable[WorkloadOutcome]:
    """Stored figures in the form that is compared, what is requested as the cost."""
    nothing = np.zeros(0)
    for name, row in zip(names, rows, strict=True):
        known, violated, requested, used, beyond, resizes = map(float, row.split())
        yield WorkloadOutcome(
            policy,
            name,
            known_minutes=known,
            violation_minutes=violated,
            demand_core_hours=used,
            unserved_core_hours=beyond,
            replica_hours=0.0,
            core_hours=requested,
            scale_actions=int(resizes),
            replayed_hours=known / 60,
            elasticity=PERFECT,
            series=ReplicaSeries(nothing, nothing, nothing, nothing),
        )


if __name__ == "__main__":
    main()
