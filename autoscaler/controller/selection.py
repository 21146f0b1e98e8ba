"""Finds the workload that a person means."""

from collections.abc import Iterable

from autoscaler.controller.annotations import PREFIX
from autoscaler.controller.records import DecisionRecord
from predictor.errors import UnknownWorkload
from predictor.usage.panel import unknown_workload


def find_record(records: Iterable[DecisionRecord], name: str) -> DecisionRecord:
    """The record of `namespace/name` or `namespace/kind/name`. Raises UnknownWorkload with the nearest names."""
    by_name = {record.plan.decision.workload: record for record in records}
    wanted = name.lower().split("/")
    found = [key for key in by_name if wanted in (key.lower().split("/"), [*key.lower().split("/")[::2]])]
    if len(found) == 1:
        return by_name[found[0]]
    if found:
        raise unknown_workload(name, found)
    if not by_name:
        raise UnknownWorkload(
            f"unknown workload {name!r}: no workload is managed; label a Deployment or StatefulSet {PREFIX}managed=true"
        )
    error = unknown_workload(name, by_name)
    raise UnknownWorkload(f"{error} It must carry the label that scaling.selector asks for.")
