"""A replay of requests as a person reads it: a table a resource, a section of a page, values for a program."""

from typing import Any

from autoscaler.simulator.catalog import FORESIZE
from autoscaler.simulator.vertical import RequestOutcome
from pipelines.flows.request_replays import AS_REQUESTED, RequestReplay
from pipelines.report.page import PageSection, Table

NAMES = {FORESIZE: "foresize", "vpa": "VPA", "autopilot": "Autopilot", AS_REQUESTED: "as requested now"}
LIMITS = (
    "A workload's replica stands for a pod with one container; its replicas share demand evenly.",
    "A new request is in force at once, as with an in-place resize; the VPA would evict pods for it.",
    "CPU has no limit: what is used beyond the request is not cut off, but nobody is entitled to it.",
    "Memory beyond the request kills, as it is the limit; a kill changes nothing about what is used next.",
    "The VPA leaves workloads with one replica alone, as it does by default.",
)
"""What it cannot show."""


def request_table(replay: RequestReplay) -> Table:
    """Each policy over all workloads."""
    is_memory = any(each.out_of_memory_kills for each in replay.outcomes)
    rows = []
    for policy in replay.policies:
        of_policy = replay.of(policy)
        known = sum(each.known_minutes for each in of_policy)
        rows.append(
            (
                NAMES.get(policy, policy),
                _ratio(of_policy),
                f"{sum(each.violation_minutes for each in of_policy) / known:.2%}",
                f"{sum(each.beyond_hours for each in of_policy) / _demanded(of_policy):.3%}",
                *([f"{sum(each.out_of_memory_kills for each in of_policy):,}"] if is_memory else []),
                f"{sum(each.resizes for each in of_policy):,}",
            )
        )
    columns = (
        "policy", "requested ÷ used", "time above the request", "use beyond it", *(["kills"] if is_memory else []),
        "changes",
    )  # fmt: skip
    resource = replay.plan.resource.value
    return Table(columns, rows, f"requests of {resource} by {len(replay.plan.workloads)} workloads")


def requests_section(replays: tuple[RequestReplay, ...]) -> PageSection:
    """The replay's part of a page."""
    return PageSection(
        "Requests: foresize beside the VPA, Autopilot and what is requested now",
        "All policies saw the same usage of one replica, and what they requested was in force from the next step on. "
        "foresize recommends by the controller's own rules from forecasts of a model that has seen nothing of the "
        "replayed days. Each policy is set up as it comes.",
        tuple(table for each in replays for table in (request_table(each), _workload_table(each))),
        (),
        LIMITS,
    )


def requests_values(replays: tuple[RequestReplay, ...]) -> list[dict[str, Any]]:
    """Every figure, for a program, in core-hours or byte-hours."""
    return [
        {
            "resource": replay.plan.resource.value,
            "policy": each.policy,
            "workload": each.workload,
            "known_minutes": each.known_minutes,
            "requested_hours": each.requested_hours,
            "used_hours": each.demand_hours,
            "violation_minutes": each.violation_minutes,
            "beyond_hours": each.beyond_hours,
            "out_of_memory_kills": each.out_of_memory_kills,
            "changes": each.resizes,
        }
        for replay in replays
        for each in replay.outcomes
    ]


def _workload_table(replay: RequestReplay) -> Table:
    """Each workload, those first for which foresize requests most beyond what they request now."""
    by_policy = {policy: replay.of(policy) for policy in replay.policies}
    ours, now = by_policy[FORESIZE], by_policy[AS_REQUESTED]
    order = sorted(range(len(ours)), key=lambda row: now[row].requested_hours - ours[row].requested_hours)
    columns = ["workload"]
    for policy in replay.policies:
        columns += [NAMES.get(policy, policy), "above"]
    rows = []
    for row in order:
        cells = [ours[row].workload]
        for policy in replay.policies:
            each = by_policy[policy][row]
            cells += [_ratio((each,)), f"{each.violation_minutes / each.known_minutes:.2%}"]
        rows.append(cells)
    resource = replay.plan.resource.value
    caption = (
        f"{resource} requested ÷ used and time above the request, by workload; those first that need more than now"
    )
    return Table(columns, rows, caption)


def _demanded(outcomes: tuple[RequestOutcome, ...]) -> float:
    """Hours used; a fleet that uses nothing has no share of it beyond anything."""
    return sum(each.demand_hours for each in outcomes) or 1.0


def _ratio(outcomes: tuple[RequestOutcome, ...]) -> str:
    used = sum(each.demand_hours for each in outcomes)
    return f"{sum(each.requested_hours for each in outcomes) / used:.2f}" if used else "nothing used"
