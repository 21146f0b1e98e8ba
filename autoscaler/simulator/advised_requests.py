"""Requests by the controller's rules on forecasts that were made every few hours, to be replayed by `vertical.py`."""

from collections.abc import Sequence
from dataclasses import dataclass

from autoscaler.decisions.requests import OutOfMemory, RequestRange, after_out_of_memory, capped, with_floor
from autoscaler.decisions.resizes import ResizeRules
from autoscaler.simulator.vertical import RequestRun, SizedWorkload, StepSeen
from predictor.usage.panel import Resource

TOLERANCE = ResizeRules().tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvisedRequestPolicy:
    """What was advised, followed as the controller resizes pods; a kill counts as it does there."""

    advice: Sequence[Sequence[RequestRange | None]]
    """Of each workload what was advised for each stretch of the replay; None where nothing was: what there is stays."""
    every_steps: int
    """Steps of a stretch."""
    name: str = "foresize"

    def start(self, row: int, workload: SizedWorkload, step_seconds: int) -> RequestRun:  # noqa: ARG002 - every policy's
        """A fresh run."""
        return _AdvisedRun(self.advice[row], workload.resource, self.every_steps)


class _AdvisedRun:
    def __init__(self, advice: Sequence[RequestRange | None], resource: Resource, every_steps: int) -> None:
        self._advice, self._resource, self._every = advice, resource, every_steps
        self._step = 0
        self._killed: OutOfMemory | None = None

    def request(self, seen: StepSeen) -> float:
        """The target, where the request in force is a tolerance away from it or out of its bounds."""
        wanted = self._advice[self._step // self._every]
        self._step += 1
        if seen.is_killed:
            floor = after_out_of_memory(seen.request)
            self._killed = OutOfMemory(seen.now_seconds, floor)
        if wanted is None:
            return seen.request
        if self._killed is not None and self._killed.is_kept(seen.now_seconds):
            wanted = with_floor(wanted, self._killed)
        wanted = capped(wanted, self._resource, None, None)
        is_near = abs(wanted.target - seen.request) <= TOLERANCE * seen.request
        return seen.request if is_near and wanted.lower <= seen.request <= wanted.upper else wanted.target
