"""Whose query is asked where several objects have the same target. Values in, values out."""

from collections.abc import Iterable, Mapping

from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.controller.autoscalers import Mode, PredictiveAutoscaler
from autoscaler.controller.ports import ManagedWorkload
from predictor.usage.panel import SeriesKey


def precedence(autoscaler: PredictiveAutoscaler) -> tuple[bool, str]:
    """Of several objects for one target the lowest comes first: one that may act, then by name."""
    return autoscaler.mode is not Mode.AUTO, autoscaler.key


def asked_queries(workloads: Iterable[ManagedWorkload]) -> dict[SeriesKey, str]:
    """What the objects themselves say that demand is; of several for one target that of one in mode Auto, then by name.

    One that only observes must not change what one that acts sees.
    """
    asking = (each.autoscaler for each in workloads if each.autoscaler.query and not each.autoscaler.problem)
    ordered = sorted(asking, key=precedence, reverse=True)
    return {SeriesKey(each.workload, each.resource): each.query for each in ordered}


def unread_because(autoscaler: PredictiveAutoscaler, asked: Mapping[SeriesKey, str]) -> Hold | None:
    """Why the query of an object was not asked."""
    if not autoscaler.query:
        return None
    if asked.get(SeriesKey(autoscaler.workload, autoscaler.resource), autoscaler.query) == autoscaler.query:
        return None
    text = (
        "another PredictiveAutoscaler of the same target has another query, and only one is asked: that of one in mode "
        "Auto, then the first by name"
    )
    return Hold(Reason(ReasonCode.NO_QUERY_VALUE, text))
