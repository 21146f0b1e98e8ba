"""Demand as a peer knows it: the past before the replay, then the steps that it has watched."""

from math import isnan

import numpy as np

from autoscaler.simulator.outcome import ReplayError, ReplaySettings
from autoscaler.simulator.policies import Tick
from models.forecast import FloatArray


def past_of(past: FloatArray, row: int, policy: str) -> FloatArray:
    """One workload's past, [steps]. Raises ReplayError where there is no row for it."""
    if past.ndim != 2 or row >= len(past):
        raise ReplayError(f"{policy}: the past is {past.shape}, needed: one row per workload, and this is row {row}")
    mine: FloatArray = past[row]
    return mine


class StepHistory:
    """Demand per step of one workload: its past and, as ticks come, what arrived in each step since.

    A step's demand is the mean of the readings whose metric window lies within it, so exact where a window divides the
    step. NaN where nothing was read.
    """

    def __init__(self, past: FloatArray, settings: ReplaySettings) -> None:
        self.past_steps = len(past)
        """Steps before the replay: where its first step stands in `values`."""
        self._values = np.concatenate((past, np.empty(max(256, len(past)))))
        self._size = len(past)
        self._step_seconds = float(settings.step_seconds)
        self._covered_after = float(min(settings.metric_window_seconds, settings.step_seconds))
        self._begun_seconds = 0.0
        self._sum = 0.0
        self._count = 0

    @property
    def values(self) -> FloatArray:
        """Every step that is over and was read, oldest first; a view that later steps do not change."""
        return self._values[: self._size]

    def see(self, tick: Tick) -> None:
        """Takes in what this tick shows of demand."""
        within = tick.measured_at_seconds - self._begun_seconds
        if within < self._covered_after:
            return
        offered = tick.offered
        if not isnan(offered):
            self._sum += offered
            self._count += 1
        if within >= self._step_seconds:
            if self._size == len(self._values):
                self._values = np.concatenate((self._values, np.empty(self._size)))
            self._values[self._size] = self._sum / self._count if self._count else np.nan
            self._size += 1
            self._begun_seconds += self._step_seconds
            self._sum, self._count = 0.0, 0
