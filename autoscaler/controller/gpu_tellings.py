"""What shares of nodes' GPUs take, told at each whole hour and beside the loop, and what the devices did just now.

A thread reads four weeks of usage and tells them, and reads the newest step once in each. Looks take the newest answer
there is.
"""

import threading
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from math import ceil, inf
from typing import NamedTuple

import numpy as np
import structlog

from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.controller.node_peaks import REFRESH_SECONDS, RETRY_SECONDS
from autoscaler.controller.node_ports import GpuSource
from autoscaler.decisions.gpu_sharing import GpuNode, Share, steady_share, told_share
from models.forecast import LONGEST_PAST_SECONDS
from predictor.errors import PredictorError
from predictor.usage.placed import GpuPast, NodeGpus

log = structlog.get_logger("autoscaler.gpus")

NEWEST_STEPS = 3
"""What the devices did in the newest step counts as long as that ended no more than so many steps ago."""


class Asked(NamedTuple):
    """What is told of a node: as its policies' terms are now, of its past as well."""

    node: str
    devices: int
    device_bytes: float
    violation_probability: float
    horizon_seconds: float


@dataclass(frozen=True, slots=True)
class ToldShares:
    """What was told at one whole hour."""

    told_at_seconds: float
    by_asked: Mapping[Asked, Share | Hold]
    """The most of the tellings of its horizon, of each node."""
    tellings: Mapping[Asked, Mapping[int, Share | Hold]]
    """Those, by the hour, the newest first: whoever tells an hour tells the same."""


NOTHING_TOLD = ToldShares(-inf, {}, {})


@dataclass
class GpuTeller:
    """Keeps what is told of shares, and the newest step; a source that fails leaves the last ones."""

    source: GpuSource
    step_seconds: int
    is_patient: bool = False
    """Whether each answer is waited for: for tests, and for a command that decides once."""
    told: ToldShares = field(default=NOTHING_TOLD, init=False)
    problem: PredictorError | None = field(default=None, init=False)
    """Why the last reading failed."""

    def __post_init__(self) -> None:
        self._period = max(int(REFRESH_SECONDS) // self.step_seconds, 1) * self.step_seconds
        self._newest: NodeGpus | None = None
        self._failed_at = -inf
        self._thread: threading.Thread | None = None

    def share(self, asked: Asked, told: ToldShares, now: float) -> Share | Hold:
        """As it was told; what is older than its horizon says nothing."""
        share = told.by_asked.get(asked)
        if share is None:
            words = "what its devices did is not read yet" if self.problem is None else f"not known: {self.problem}"
            return Hold(Reason(ReasonCode.NO_EVIDENCE, words))
        age = now - told.told_at_seconds
        if age > asked.horizon_seconds + self._period:
            return Hold(Reason(ReasonCode.STALE_NODE, f"what its devices did was read {age / 3600:.0f} hours ago"))
        return share

    def newest(self, asked: Asked, now: float) -> GpuNode | None:
        """What the devices did in the newest step; None where that is too old, or they were not measured."""
        newest = self._newest
        if newest is None or asked.node not in newest.by_node:
            return None
        if now - newest.start_seconds > (NEWEST_STEPS + 1) * self.step_seconds:
            return None
        return _gpu_node(asked, newest.by_node[asked.node], slice(None))

    def refresh(self, wanted: Set[Asked], now: float) -> None:
        """Reads the newest step once in each, and tells shares anew at each whole hour and where a node is new."""
        is_busy = self._thread is not None and self._thread.is_alive()
        if not wanted or is_busy or now - self._failed_at < RETRY_SECONDS:
            return
        if self._is_read(now) and self._is_told(wanted, now):
            return
        self._thread = threading.Thread(target=self._work, args=(wanted, now), name="gpus", daemon=True)
        self._thread.start()
        if self.is_patient:
            self._thread.join()

    def _is_read(self, now: float) -> bool:
        return self._newest is not None and self._newest.start_seconds >= self._newest_step(now)

    def _is_told(self, wanted: Set[Asked], now: float) -> bool:
        return self.told.told_at_seconds >= self._hour(now) and wanted <= self.told.by_asked.keys()

    def _newest_step(self, now: float) -> int:
        """When the newest whole step began."""
        return int(now) // self.step_seconds * self.step_seconds - self.step_seconds

    def _hour(self, now: float) -> int:
        return int(now) // self._period * self._period

    def _work(self, wanted: Set[Asked], now: float) -> None:
        start, step = self._newest_step(now), self.step_seconds
        try:
            if not self._is_read(now):
                self._newest = self.source.fetch_gpus(start_seconds=start, end_seconds=start, step_seconds=step)
            if not self._is_told(wanted, now):
                self.told = self._tell(wanted, self._hour(now))
            self.problem, self._failed_at = None, -inf
        except PredictorError as problem:
            if str(problem) != str(self.problem):
                log.warning("usage of GPUs not read", error=type(problem).__name__, message=str(problem))
            self.problem, self._failed_at = problem, now
        except Exception:  # nobody waits for this thread: what broke must be seen, and is tried again
            log.exception("reading the usage of GPUs broke")
            self._failed_at = now

    def _tell(self, wanted: Set[Asked], hour: int) -> ToldShares:
        """The shares of nodes as they are told at this hour, and were at each hour within their horizons before.

        The step before an hour is not looked at: it is held against what is told then.
        """
        step, period = self.step_seconds, self._period
        hours = {each: ceil(each.horizon_seconds / period) for each in wanted}
        end = hour - 2 * step
        steps = LONGEST_PAST_SECONDS // step
        first = end - (steps - 1) * step - max(hours.values()) * period
        past = self.source.fetch_gpus(start_seconds=first, end_seconds=end, step_seconds=step)
        shares: dict[Asked, Share | Hold] = {}
        tellings: dict[Asked, dict[int, Share | Hold]] = {}
        for each in wanted:
            of_node, before = past.by_node.get(each.node), self.told.tellings.get(each, {})
            if of_node is None:
                text = "DCGM's exporter tells nothing of its devices (label Hostname)"
                shares[each] = Hold(Reason(ReasonCode.STALE_NODE, text))
                continue
            told: dict[int, Share | Hold] = {}
            for ago in range(hours[each] + 1):
                at, last = hour - ago * period, len(of_node.shares) - ago * (period // step)
                told[at] = before.get(at) or told_share(
                    _gpu_node(each, of_node, slice(last - steps, last)),
                    violation_probability=each.violation_probability,
                    horizon_steps=max(1, int(each.horizon_seconds) // step),
                )
            tellings[each], shares[each] = told, steady_share(list(told.values()))
        return ToldShares(hour, shares, tellings)


def _gpu_node(asked: Asked, past: GpuPast, steps: slice) -> GpuNode:
    # A device that was lost had its part of the pods: what they took is not that of as many on those that are left.
    devices = np.fmax(past.devices[steps], asked.devices)
    return GpuNode(devices, asked.device_bytes, past.activity[steps], past.fullest_bytes[steps], past.shares[steps])
