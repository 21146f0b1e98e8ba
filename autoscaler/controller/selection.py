"""Finds the workload that a person means."""

from collections.abc import Iterable

from autoscaler.controller.autoscalers import KIND
from autoscaler.controller.records import DecisionRecord
from predictor.errors import UnknownWorkload
from predictor.usage.panel import unknown_workload


def find_record(records: Iterable[DecisionRecord], name: str) -> DecisionRecord:
    """The record of a target, `namespace/name` or `namespace/kind/name`, or of an object's own `namespace/name`.

    Raises UnknownWorkload with the nearest names, and where two kinds share a short name.
    """
    kept = list(records)
    wanted = name.lower()
    found = [record for record in kept if wanted in _names(record)]
    own = [record for record in found if record.plan.autoscaler.key.lower() == wanted]
    if len(found) == 1 or len(own) == 1:
        return (own or found)[0]
    if found:
        raise unknown_workload(name, sorted({record.plan.decision.workload for record in found}))
    if not kept:
        raise UnknownWorkload(f"unknown workload {name!r}: no {KIND} was seen; create one for it")
    raise unknown_workload(name, sorted({record.plan.decision.workload for record in kept}))


def _names(record: DecisionRecord) -> tuple[str, str, str]:
    workload = record.plan.decision.workload.lower()
    namespace, _, short = workload.split("/", 2)
    return workload, f"{namespace}/{short}", record.plan.autoscaler.key.lower()
