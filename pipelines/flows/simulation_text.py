"""A simulation as a person reads it: lines for the terminal, a page for the browser, values for a program."""

from dataclasses import asdict
from datetime import UTC, datetime
from math import isfinite
from typing import Any

import numpy as np

from autoscaler.simulator.catalog import FORESIZE, HPA
from autoscaler.simulator.oracle import ORACLE
from autoscaler.simulator.outcome import PolicyTotals, ReplayWorkload
from autoscaler.simulator.oversubscription import OversubscriptionReplay
from autoscaler.simulator.switching import SWITCHING_ORACLE
from pipelines.flows.clock import utc_text
from pipelines.flows.comparison_text import (
    comparison_headline,
    comparison_section,
    comparison_table,
    comparison_values,
)
from pipelines.flows.pictures import UNITS
from pipelines.flows.requests_text import request_table, requests_section, requests_values
from pipelines.flows.simulate import SimulationReport, shortfall_order
from pipelines.flows.summary import aligned
from pipelines.report.page import Headline, Page, PageSection, Plot, Table
from pipelines.report.plots import peak_over_usage, replicas_over_demand
from pipelines.steps.replay import LatencySlo
from predictor.usage.panel import Resource, Severity

POLICY_NAMES = {
    FORESIZE: "foresize",
    HPA: "HPA",
    ORACLE: "oracle (sees the future)",
    SWITCHING_ORACLE: "oracle that pays for changes",
}
WORKLOAD_PLOTS = 4
MOST_REMARKS = 200
POOL_PLOTS = 4
LIMITS = (
    "Demand is taken as given: users who would have left or retried during a shortage do not.",
    "Demand within a step is held at its mean, so spikes shorter than a step are not seen by any policy.",
    "All pods of a workload carry the same share, and nodes always have room.",
    "History that ran under an autoscaler shows usage, which saturates; the demand behind it may have been higher.",
    "All workloads are replayed by the settings: what a PredictiveAutoscaler says of its own target, SLA, prices, "
    "schedule or loss that is to be survived is not, nor is demand by requests or queries.",
)
"""What no simulation can show."""


def limits(report: SimulationReport) -> tuple[str, ...]:
    """What this simulation cannot show."""
    queue = "What is not served in time is lost, not queued; latency is not modelled."
    if report.slo is not None:
        queue = (
            "Latency is that of an M/M/c queue in its steady state, with one server a replica; what is beyond what "
            "replicas serve at most is lost."
        )
    settings, drawn = report.plan.settings, any(each.pod_ready_seconds for each in report.plan.workloads)
    pods = "Pods become ready after times drawn alike for every order, whatever else goes on in the cluster."
    if not settings.pod_ready_spread and not drawn:
        pods = "All pods become ready after the same time."
    known = float(np.mean(~np.isnan(report.plan.demand)))
    gaps = f"Demand is known in {known:.1%} of the replayed time; the rest counts towards core-hours only."
    return (*LIMITS, queue, pods, *([gaps] if known < 1.0 else []))


def policy_table(report: SimulationReport) -> Table:
    """Each policy over all workloads."""
    rows = []
    for totals in report.replay.totals():
        rows.append(
            (
                POLICY_NAMES.get(totals.policy, totals.policy),
                f"{totals.violation_minutes:,.0f} min",
                f"{totals.violation_share:.3%}",
                f"{totals.unserved_share:.3%}",
                f"{totals.core_hours:,.0f}",
                f"{totals.mean_utilisation:.0%}",
                f"{totals.scale_actions:,}",
            )
        )
    columns = (
        "policy", "violations", "share of time", "unserved demand", "core-hours", "utilisation", "scale actions",
    )  # fmt: skip
    return Table(columns, rows, f"{len(report.plan.keys)} workloads, {_span(report)}")


def pool_table(report: SimulationReport) -> Table:
    """Each pool and resource over the replayed days."""
    rows = [
        (
            f"{each.pool} {each.resource.value}",
            f"{each.days[-1].rate.ratio:.2f}",
            f"{each.mean_ratio:.2f}",
            _oracle_ratio(each),
            f"{sum(day.violated_steps > 0 for day in each.days)} of {len(each.days)}",
            f"{each.violated_step_share:.2%}",
            f"{each.worst_severity:.1%}",
        )
        for each in report.pools
    ]
    columns = (
        "pool", "ratio, last day", "mean ratio", "oracle's", "days violated", "time violated", "worst excess",
    )  # fmt: skip
    return Table(columns, rows, "requests allowed ÷ allocatable; each day decided from what lay before it")


def text_lines(report: SimulationReport) -> list[str]:
    """The tables, and what to know about them."""
    lines = [
        f"replayed {_span(report)} with {report.model}, which has seen nothing after "
        f"{utc_text(report.trained_until_seconds)}",
        f"foresize: P{report.level * 100:g} of the demand peak within the lead time at "
        f"{report.plan.workloads[0].target_utilisation:.0%} utilisation; HPA: target {report.hpa_utilisation:.0%}; "
        f"{_readiness(report)}",
        *([] if report.slo is None else [_slo_text(report.slo)]),
        *_others(report),
        "",
        *table_lines(policy_table(report)),
    ]
    if report.comparison is not None:
        headline = comparison_headline(report.comparison)
        lines += ["", *table_lines(comparison_table(report.comparison)), f"{headline.figure} {headline.meaning}"]
    for replay in report.requests:
        lines += ["", *table_lines(request_table(replay))]
    if report.pools:
        lines += ["", *table_lines(pool_table(report))]
    return lines


def _others(report: SimulationReport) -> list[str]:
    """How those are set up that were asked for beside foresize and the HPA."""
    others = [f"{each.policy} {each.knob} {each.value:g}" for each in report.set_up[2:]]
    return [f"others: {', '.join(others)}"] if others else []


def _readiness(report: SimulationReport) -> str:
    learned = [each for each in report.plan.workloads if each.lead_seconds is not None]
    if not learned:
        return _stated_readiness(report)
    times = np.concatenate([each.pod_ready_seconds for each in learned])
    leads = [each.lead_seconds or 0 for each in learned]
    text = (
        f"pods ready after times that pods took: {times.size:,} pods of {len(learned):,} workloads, median "
        f"{np.median(times):.0f} s, all but one in twenty of a workload's within {min(leads)} to {max(leads)} s"
    )
    others = len(report.plan.workloads) - len(learned)
    return f"{text}; of {others:,} others {_stated_readiness(report)}" if others else text


def _stated_readiness(report: SimulationReport) -> str:
    settings = report.plan.settings
    if any(each.pod_ready_seconds for each in report.plan.workloads if each.lead_seconds is None):
        return f"pods ready after the times given, all but one in twenty within {settings.pod_ready_seconds} s"
    spread = f", spread {settings.pod_ready_spread:g}" if settings.pod_ready_spread else ""
    return f"pods ready after {settings.pod_ready_seconds} s{spread}"


def _violation_text(report: SimulationReport) -> str:
    """What counts as a violation."""
    if report.slo is None:
        return "demand above what the ready replicas serve at full utilisation"
    slo = report.slo
    return f"fewer than {100 * slo.level:g} % of requests within {slo.threshold_seconds:g} s"


def _slo_text(slo: LatencySlo) -> str:
    return (
        f"a violation: fewer than {100 * slo.level:g} % of requests within {slo.threshold_seconds:g} s, by an M/M/c "
        f"queue with a mean service time of {slo.service_seconds:g} s"
    )


def table_lines(table: Table) -> list[str]:
    """A table as lines of text under its caption."""
    return [table.caption, *aligned([tuple(table.columns), *(tuple(row) for row in table.rows)])]


def headlines(report: SimulationReport) -> list[Headline]:
    """What a reader should take away."""
    ours, peer = _totals(report, FORESIZE), _totals(report, HPA)
    made = [] if report.comparison is None else [comparison_headline(report.comparison)]
    allowed = 1.0 - report.level
    over = sum(each.violation_share > allowed for each in report.replay.of(FORESIZE))
    made += [
        Headline(
            f"{ours.violation_share:.3%}",
            f"of the time in violation under foresize; the stated SLA allows {100 * allowed:.4g} %, which "
            f"{over} of {len(report.plan.keys)} workloads exceed",
            "bad" if ours.violation_share > allowed else "neutral" if over else "good",
        ),
        Headline(
            f"{ours.violation_minutes:,.0f} vs {peer.violation_minutes:,.0f} min",
            f"in violation, {_violation_text(report)}: foresize, HPA",
            "good" if ours.violation_minutes <= peer.violation_minutes else "bad",
        ),
    ]
    if peer.core_hours > 0:
        saved = 1 - ours.core_hours / peer.core_hours
        made.append(
            Headline(
                f"{abs(saved):.0%} {'fewer' if saved >= 0 else 'more'}",
                f"core-hours than the HPA at {report.hpa_utilisation:.0%}: {ours.core_hours:,.0f} instead of "
                f"{peer.core_hours:,.0f}, with violations in {ours.violation_share:.3%} instead of "
                f"{peer.violation_share:.3%} of the time",
                "good" if saved >= 0 else "bad",
            )
        )
    oversold = [each for each in report.pools if each.resource is Resource.CPU]
    if oversold:
        best = max(oversold, key=lambda each: each.mean_ratio)
        violated = sum(day.violated_steps > 0 for each in report.pools for day in each.days)
        days = sum(len(each.days) for each in report.pools)
        made.append(
            Headline(
                f"{best.mean_ratio:.2f} ×", f"of its cores could have been requested on pool {best.pool}", "neutral"
            )
        )
        made.append(
            Headline(
                f"{violated} of {days}",
                "pool-days in which usage would have exceeded an oversold pool",
                "good" if violated == 0 else "bad",
            )
        )
    return made


def sections(report: SimulationReport) -> list[PageSection]:
    """The replay's part of a page."""
    replicas = PageSection(
        "Replicas: foresize beside the HPA",
        "All policies saw the same demand through the same metrics, delay and pod start-up time. A violation is "
        "a time in which demand exceeded what the ready replicas could "
        f"{'serve at full utilisation' if report.slo is None else 'carry within the SLO'}. The oracle knows the "
        "future and has the same start-up time: nothing that is never short costs less.",
        (policy_table(report), _workload_table(report)),
        tuple(_workload_plot(report, row) for row in shortfall_order(report)[:WORKLOAD_PLOTS]),
        limits(report),
    )
    made = [replicas]
    if report.comparison is not None:
        made.insert(0, comparison_section(report.comparison, _totals(report, ORACLE).core_hours))
    if report.requests:
        made.append(requests_section(report.requests))
    if not report.pools:
        return [*made, _set_up_section(report), _remarks_section(report)]
    pools = PageSection(
        "Oversubscription: how much more than its nodes hold a pool may sell",
        "Each day's ratio comes from the days before it: the predicted peak of what really runs there must fit. A "
        "violation is a step in which the pool, sold up to that ratio with the same mix, would be full. With few "
        "past days a high SLA percentile can only be extrapolated, which widens the margin.",
        (pool_table(report),),
        tuple(_pool_plot(report, each) for each in report.pools[:POOL_PLOTS]),
    )
    return [*made, pools, _set_up_section(report), _remarks_section(report)]


def _set_up_section(report: SimulationReport) -> PageSection:
    """What an engineer needs to check or repeat the replay."""
    settings, level = report.plan.settings, report.level
    facts = (
        ("forecasts", f"{report.model}, which has seen nothing after {utc_text(report.trained_until_seconds)}"),
        ("stated SLA", f"kept in {100 * level:.6g} % of the time"),
        ("violation", _violation_text(report)),
        ("foresize fills replicas to", f"{report.plan.workloads[0].target_utilisation:.0%} of what they carry"),
        ("demand", f"mean over steps of {settings.step_seconds} s"),
        ("decisions", f"every {settings.tick_seconds} s"),
        ("metrics", f"mean over {settings.metric_window_seconds} s, seen {settings.metric_delay_seconds} s late"),
        ("pods that are added", _readiness(report)),
        ("pods that are removed", f"serve nothing at once, are paid for {settings.grace_seconds:g} s more"),
        ("dice", f"seed {settings.seed}"),
    )
    policies = [(POLICY_NAMES.get(each.policy, each.policy), each.knob, f"{each.value:g}") for each in report.set_up]
    workloads = [
        (
            each.name,
            f"{each.request_per_replica:.3g}",
            f"{each.within_slo.demand_at(1):.3g}",
            f"{each.min_replicas:,}",
            f"{each.max_replicas:,}",
            "none" if (seen := _pods_seen(each)) is None else f"{seen:,}",
            f"{each.own(settings).pod_ready_seconds:,}",
        )
        for each in report.plan.workloads
    ]
    columns = (
        "workload", "requested by a replica, cores", "carried by one within the SLO, cores", "fewest", "most",
        "pods whose times are drawn", "ordered ahead, s",
    )  # fmt: skip
    return PageSection(
        "How it was replayed",
        "The actuator and the metrics are the same for every policy.",
        (
            Table(("", ""), facts, "What holds for all"),
            Table(("policy", "knob", "set to"), policies, "How each policy is set up, but for a sweep"),
            Table(
                columns,
                workloads,
                "What a replica stands for, the bounds on replicas, and how long one takes to get Ready",
            ),
            _elasticity_table(report),
        ),
    )


def _pods_seen(workload: ReplayWorkload) -> int | None:
    """How many of its pods were seen to get Ready; None where that was not learned."""
    return None if workload.lead_seconds is None else len(workload.pod_ready_seconds)


def _elasticity_table(report: SimulationReport) -> Table:
    """The SPEC Research Group's measures of each policy."""
    rows = [
        (
            POLICY_NAMES.get(each.policy, each.policy),
            f"{each.elasticity.theta_under:.3%}",
            f"{each.elasticity.theta_over:.2%}",
            f"{each.elasticity.tau_under:.3%}",
            f"{each.elasticity.tau_over:.2%}",
            f"{each.elasticity.instability:.2%}",
            f"{each.scale_actions_per_hour:.2f}",
        )
        for each in report.replay.totals()
    ]
    columns = (
        "policy", "θ under, of need", "θ over, of need", "τ under, of time", "τ over, of time", "instability, of ticks",
        "scale actions, per hour",
    )  # fmt: skip
    return Table(
        columns,
        rows,
        "Elasticity as the SPEC Research Group measures it, mean over workloads: by how much (θ) and for how long (τ) "
        "Ready replicas were too few or more than needed; ticks at which supply and need changed differently",
    )


def _remarks_section(report: SimulationReport) -> PageSection:
    """Every finding, the worst first."""
    order = (Severity.BROKEN, Severity.WARNING, Severity.NOTE)
    remarks = [str(each) for each in sorted(report.findings, key=lambda each: order.index(each.severity))]
    more = len(remarks) - MOST_REMARKS
    if more > 0:
        remarks = [*remarks[:MOST_REMARKS], f"{more:,} more: the JSON has all of them"]
    return PageSection(
        "What was left out, and what to know of the history",
        "Each workload that is not replayed is named here with the reason." if remarks else "Nothing was left out.",
        notes=remarks,
    )


def page(report: SimulationReport) -> Page:
    """A report of the replay alone."""
    return Page(
        "foresize: your history, replayed",
        f"{len(report.plan.keys)} workloads, {_span(report)}; forecasts by {report.model}",
        headlines(report),
        sections(report),
        _footer(report),
    )


def json_values(report: SimulationReport) -> dict[str, Any]:
    """Every figure, for a program."""
    return {
        "model": report.model,
        "trained_until": _iso(report.trained_until_seconds),
        "from": _iso(report.plan.start_seconds),
        "to": _iso(report.plan.end_seconds),
        "steps": report.plan.steps,
        "step_seconds": report.plan.settings.step_seconds,
        "level": report.level,
        "actuator": asdict(report.plan.settings),
        "set_up": [asdict(each) for each in report.set_up],
        "bounds": [
            {
                "workload": each.name,
                "request_per_replica": each.request_per_replica,
                "min_replicas": each.min_replicas,
                "max_replicas": each.max_replicas,
                "pods_seen": _pods_seen(each),
                "lead_seconds": each.own(report.plan.settings).pod_ready_seconds,
            }
            for each in report.plan.workloads
        ],
        "slo": None if report.slo is None else asdict(report.slo),
        "policies": {
            totals.policy: {
                "violation_minutes": totals.violation_minutes,
                "violation_share": totals.violation_share,
                "unserved_share": totals.unserved_share,
                "core_hours": totals.core_hours,
                "replica_hours": totals.replica_hours,
                "scale_actions": totals.scale_actions,
                "scale_actions_per_hour": totals.scale_actions_per_hour,
                "elasticity": asdict(totals.elasticity),
                "mean_utilisation": totals.mean_utilisation,
            }
            for totals in report.replay.totals()
        },
        "workloads": [
            {
                "policy": each.policy,
                "workload": each.workload,
                "known_minutes": each.known_minutes,
                "violation_minutes": each.violation_minutes,
                "violation_share": each.violation_share,
                "unserved_share": each.unserved_share,
                "elasticity": asdict(each.elasticity),
                "core_hours": each.core_hours,
                "scale_actions": each.scale_actions,
            }
            for each in report.replay.outcomes
        ],
        "comparison": None if report.comparison is None else comparison_values(report.comparison),
        "pools": [
            {
                "pool": each.pool,
                "resource": each.resource.value,
                "ratios": [day.rate.ratio for day in each.days],
                "violated_day_share": each.violated_day_share,
                "violated_step_share": each.violated_step_share,
                "worst_severity": each.worst_severity,
            }
            for each in report.pools
        ],
        "requests": requests_values(report.requests),
        "findings": [str(finding) for finding in report.findings],
        "seconds": report.seconds_by_step,
    }


def _workload_table(report: SimulationReport) -> Table:
    ours, peer, best = (report.replay.of(policy) for policy in (FORESIZE, HPA, ORACLE))
    rows = [
        (
            ours[row].workload,
            f"{ours[row].violation_minutes:,.0f}",
            f"{peer[row].violation_minutes:,.0f}",
            f"{ours[row].core_hours:,.0f}",
            f"{peer[row].core_hours:,.0f}",
            f"{best[row].core_hours:,.0f}",
            f"{ours[row].scale_actions:,}",
            f"{peer[row].scale_actions:,}",
        )
        for row in shortfall_order(report)
    ]
    columns = (
        "workload", "violations, min", "HPA's, min", "core-hours", "HPA's core-hours", "oracle's core-hours", "actions",
        "HPA's actions",
    )  # fmt: skip
    return Table(columns, rows, "Each workload, those first on which the two differ most")


def _workload_plot(report: SimulationReport, row: int) -> Plot:
    plan = report.plan
    workload = plan.workloads[row]
    demand = np.nan_to_num(plan.demand[row])
    needed = workload.needed_replicas(demand).astype(np.float64)
    times = plan.start_seconds + plan.settings.step_seconds * np.arange(plan.steps, dtype=np.int64)
    outcomes = {policy: report.replay.of(policy)[row] for policy in (FORESIZE, HPA)}
    ready = {POLICY_NAMES[policy]: each.series.ready_min for policy, each in outcomes.items()}
    short = ", ".join(f"{POLICY_NAMES[p]} {each.violation_minutes:,.0f} min" for p, each in outcomes.items())
    return replicas_over_demand(
        times,
        needed,
        ready,
        title=workload.name,
        caption=f"Ready replicas over those that demand needed. Violations: {short} (dots).",
    )


def _pool_plot(report: SimulationReport, each: OversubscriptionReplay) -> Plot:
    unit, scale = UNITS[each.resource]
    steps = each.total_usage.size
    horizon = steps // len(each.days) if len(each.days) else steps
    allowed = np.repeat([day.rate.allowed_usage for day in each.days], horizon)[:steps]
    usage = each.total_usage[: allowed.size]
    times = report.plan.start_seconds + report.plan.settings.step_seconds * np.arange(allowed.size, dtype=np.int64)
    return peak_over_usage(
        times,
        usage / scale,
        allowed / scale,
        requested=each.days[-1].rate.requested / scale,
        title=f"{each.pool}, {each.resource.value}",
        unit=unit,
        caption=f"Usage of the whole pool under the peak that was predicted for each day. Ratio on the last day: "
        f"{each.days[-1].rate.ratio:.2f} ({each.days[-1].rate.reasons[-1].message}).",
    )


def _oracle_ratio(each: OversubscriptionReplay) -> str:
    ratio = float(np.mean([day.oracle_ratio for day in each.days]))
    return f"{ratio:.2f}" if isfinite(ratio) else "nothing used"


def _totals(report: SimulationReport, policy: str) -> PolicyTotals:
    return next(t for t in report.replay.totals() if t.policy == policy)


def _footer(report: SimulationReport) -> str:
    seconds = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.seconds_by_step.items())
    return f"Made by foresize on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. Took: {seconds}."


def _span(report: SimulationReport) -> str:
    plan = report.plan
    days = plan.steps * plan.settings.step_seconds / 86_400
    return f"{days:.1f} days from {utc_text(plan.start_seconds)} to {utc_text(plan.end_seconds)}"


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
