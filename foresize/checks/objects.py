"""What PredictiveAutoscalers lack, and whether their queries can be used."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from foresize.checks.check import REQUEST_SECONDS, Check, Checks, Status

if TYPE_CHECKING:
    from autoscaler.controller.autoscalers import PredictiveAutoscaler
    from autoscaler.controller.ports import ManagedWorkload
    from pipelines.settings import Settings

ENOUGH_OF_A_DAY = 0.9
"""Share of the points of the last day that a query should have."""
MOST_OBJECTS = 20
"""How many objects are named of those that lack the same thing."""
MEND_QUERY = 'mend spec.horizontal.metric.query of the object: docs/controller.md, "Demand by a query of your own"'


def object_checks(settings: "Settings", workloads: "Sequence[ManagedWorkload]", now_seconds: float) -> Checks:
    """Objects that cannot be followed: their spec, a target that is not there, pods that request none of the metric."""
    from autoscaler.cluster.reasons import Hold
    from autoscaler.controller.autoscalers import NOTHING_REMEMBERED
    from autoscaler.controller.policy import policy_of

    found: list[Check] = []
    for each in workloads:
        autoscaler, target = each.autoscaler, each.target
        if autoscaler.problem:
            problem, _, advice = autoscaler.problem.partition("; ")
        elif isinstance(target, Hold):
            problem, advice = target.reason.message, "create it, or mend spec.targetRef"
        elif autoscaler.scales:
            policy = policy_of(
                autoscaler,
                target.request_per_replica,
                target.ready_seconds,
                NOTHING_REMEMBERED,
                settings=settings.scaling,
                now_seconds=now_seconds,
            )
            learned = autoscaler.status.get("capacity") or {}
            if not isinstance(policy.capacity, Hold) or (autoscaler.learns_capacity and "low" in learned):
                continue
            problem, _, advice = policy.capacity.reason.message.partition("; ")
            if autoscaler.learns_capacity:
                problem = str(learned.get("reason") or problem)
                advice = "docs/capacity.md says what may be done; with horizontal.target nothing is to be learned"
        else:
            continue
        found.append(Check("cluster", "WARN", f"PredictiveAutoscaler {autoscaler.key}: {problem}", advice))
    yield from _some(found, "PredictiveAutoscalers cannot be followed")


def query_checks(
    settings: "Settings", autoscalers: "Sequence[PredictiveAutoscaler]", now_seconds: float, *, is_asked: bool
) -> Checks:
    """Whether each object's query is accepted, answers now, and has a day of history."""
    from predictor.errors import QueryRefused
    from predictor.sources.held import held_to_namespace
    from predictor.sources.prometheus import PrometheusSource
    from predictor.usage.panel import Resource, SeriesKey
    from predictor.wiring import build_endpoint, cluster_labels

    asking = [each for each in autoscalers if each.query and not each.problem]
    if not asking:
        return
    labels, found, accepted = cluster_labels(settings), [], {}
    for each in asking:
        try:
            held_to_namespace(each.query, each.namespace, labels.namespace, labels.matchers)
        except QueryRefused as refusal:
            found.append(_of_query(each, "WARN", f"is refused: {refusal}", MEND_QUERY))
        else:
            # Not by its target: of two objects for one, each has a query.
            accepted[SeriesKey(f"{each.namespace}/PredictiveAutoscaler/{each.name}", Resource.CUSTOM)] = each
    if not is_asked:
        found += [_of_query(each, "OK", "is accepted; not asked") for each in accepted.values()]
    elif accepted:
        step = int(settings.history.step.total_seconds())
        end = int(now_seconds) // step * step - step
        panel = PrometheusSource(
            build_endpoint(settings),
            labels=labels,
            scrape_interval_seconds=int(settings.prometheus.scrape_interval.total_seconds()),
        ).fetch_queries(
            {key: each.query for key, each in accepted.items()},
            start_seconds=end - 86_400 + step,
            end_seconds=end,
            step_seconds=step,
            within_seconds=REQUEST_SECONDS,
        )
        for key, each in accepted.items():
            if key in panel.keys:
                found.append(_answered(each, panel.usage[panel.row(key)].tolist(), step))
            else:
                said = (f.message for f in panel.findings if f.workload == key.workload)
                found.append(_of_query(each, "WARN", next(said, "has no answer"), MEND_QUERY))
    yield from _some([check for check in found if check.status == "OK"], "queries can be used")
    yield from _some([check for check in found if check.status != "OK"], "queries cannot be used")


def _answered(autoscaler: "PredictiveAutoscaler", values: list[float], step_seconds: int) -> Check:
    """What a query's values of the last day say; the last is now."""
    points, last = sum(not math.isnan(each) for each in values), values[-1]
    known = f"{points} of {len(values)} points of the last day"
    if math.isnan(last):
        text = f"has no value now ({known})"
        advice = "see whether what it reads is still exported; until then the object holds"
        return _of_query(autoscaler, "WARN", text, advice)
    if points < ENOUGH_OF_A_DAY * len(values):
        text = f"answers {last:.6g} now, but has only {known}"
        advice = (
            f"wait until a day of it is known, a point each {step_seconds} s, or mend gaps in what it reads; "
            "until then forecasts of it rest on little"
        )
        return _of_query(autoscaler, "WARN", text, advice)
    return _of_query(autoscaler, "OK", f"answers {last:.6g} now, {known}")


def _of_query(autoscaler: "PredictiveAutoscaler", status: Status, said: str, advice: str = "") -> Check:
    said = said.removeprefix("the query ")
    return Check("cluster", status, f"PredictiveAutoscaler {autoscaler.key}: metric.query {said}", advice)


def _some(checks: list[Check], what: str) -> Checks:
    """The first of them, and how many more there are: a fleet must not drown the rest."""
    yield from checks[:MOST_OBJECTS]
    if len(checks) > MOST_OBJECTS:
        status, text = checks[0].status, f"{len(checks) - MOST_OBJECTS} more {what}"
        advice = "kubectl get predictiveautoscalers -A shows each one's reason" if status != "OK" else ""
        yield Check("cluster", status, text, advice)
