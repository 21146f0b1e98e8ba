"""Makes held-out history ready for a replay of requests: what one replica used, and what is recommended for it when.

Every recommendation is the controller's own, from samples before the stretch that it is for.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autoscaler.controller.advisor import advice_from
from autoscaler.decisions.requests import RequestRange, RequestRules
from autoscaler.simulator.vertical import SizedWorkload
from models.forecast import FloatArray, carried_forward
from predictor.serving.bundle import Bundle
from predictor.usage.containers import ContainerName
from predictor.usage.panel import Resource, SeriesKey, UsagePanel

ASKED_EVERY_SECONDS = 3 * 3600
"""From one recommendation to the next; the controller asks with each step of the history, as each costs."""
CONTAINER = "app"
"""A workload's replica stands for a pod with one container, which, as in a cluster, the model does not know by name."""


@dataclass(frozen=True, slots=True)
class RequestPlan:
    """Whose requests of one resource are replayed; rows belong together."""

    resource: Resource
    workloads: tuple[SizedWorkload, ...]
    past: FloatArray
    """Demand of all replicas before the replay, [workloads, past steps], as if there had always been so many as now."""
    demand: FloatArray
    """The same within it, [workloads, steps]."""
    start_seconds: int
    step_seconds: int

    @property
    def every_steps(self) -> int:
        """How many steps one recommendation is for."""
        return max(1, ASKED_EVERY_SECONDS // self.step_seconds)


def request_plan(panel: UsagePanel, resource: Resource, start_seconds: int, end_seconds: int) -> RequestPlan | None:
    """Every workload with usage of the resource before and within the replay; None where there is none.

    A workload's replicas are those before the replay, else 1; at each step its usage is divided by those that there
    were then. Its request is what one replica requested last before it, else the highest that one has used.
    """
    step = panel.step_seconds
    until = panel.between(panel.start_seconds, end_seconds)
    before = int((start_seconds - panel.start_seconds) // step)
    replicas, requests = (until.attributes.get(name) for name in ("replicas", "request"))
    workloads, rows = [], []
    for row in until.rows(resource):
        usage = until.usage[row]
        if np.isnan(usage[:before]).all() or np.isnan(usage[before:]).all():
            continue
        count = (
            np.ones(usage.size) if replicas is None else np.fmax(np.nan_to_num(carried_forward(replicas[[row]])[0]), 1)
        )
        each = usage / count
        requested = np.full(before, np.nan) if requests is None else requests[row, :before] / count[:before]
        known = requested[~np.isnan(requested) & (requested > 0)]
        request = float(known[-1]) if known.size else float(np.nanmax(each[:before]))
        if request <= 0:
            continue
        now = max(1, round(float(count[before - 1])))
        workloads.append(
            SizedWorkload(name=until.keys[row].workload, replicas=now, request_per_replica=request, resource=resource)
        )
        rows.append(each * now)
    if not workloads:
        return None
    demand = np.stack(rows)
    return RequestPlan(
        resource, tuple(workloads), demand[:, :before], demand[:, before:], start_seconds, panel.step_seconds
    )


def request_advice(
    bundle: Bundle,
    plan: RequestPlan,
    rules: RequestRules,
    *,
    past_steps: int,
    progress: Callable[[int, int], None],
) -> list[list[RequestRange | None]]:
    """What the controller would recommend for each stretch of the replay, by workload; None where it would not.

    From `past_steps` at most.
    """
    names = [ContainerName(each.name, CONTAINER) for each in plan.workloads]
    keys: tuple[SeriesKey, ...] = tuple(name.series(plan.resource) for name in names)
    of_one = np.concatenate([plan.past, plan.demand], axis=1) / np.array([[each.replicas] for each in plan.workloads])
    first, total = plan.past.shape[1], of_one.shape[1]
    start = plan.start_seconds - first * plan.step_seconds
    advice: list[list[RequestRange | None]] = [[] for _ in names]
    for step in range(first, total, plan.every_steps):
        begin = max(0, step - past_steps)
        seen = UsagePanel(keys, start + begin * plan.step_seconds, plan.step_seconds, of_one[:, begin:step])
        found = advice_from(seen, seen, bundle, rules)
        for name, of_name in zip(names, advice, strict=True):
            wanted = found[name].wanted[plan.resource]
            of_name.append(wanted if isinstance(wanted, RequestRange) else None)
        progress(step + 1 - first, total - first)
    return advice
