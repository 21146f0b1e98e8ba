"""How long pods take to turn Ready: fixed, drawn around a median, or drawn from what a workload's pods have taken."""

import numpy as np

from autoscaler.simulator.outcome import ReplaySettings, ReplayWorkload
from models.forecast import IntArray


def lead_ticks(workload: ReplayWorkload, settings: ReplaySettings, ticks: int) -> IntArray:
    """Ticks, rounded up, until the pods of an order at each tick are Ready, [ticks].

    Drawn for the workload's name and the tick, whoever orders then and however much, so that every policy meets the
    same luck, wherever the workload is replayed.
    """
    if workload.pod_ready_seconds:
        seconds = _dice(workload, settings).choice(np.asarray(workload.pod_ready_seconds), ticks)
    elif settings.pod_ready_spread > 0.0:
        spread = _dice(workload, settings).standard_normal(ticks) * settings.pod_ready_spread
        seconds = settings.pod_ready_seconds * np.exp(spread)
    else:
        return np.full(ticks, settings.lead_ticks, dtype=np.int64)
    return np.ceil(seconds / settings.tick_seconds).astype(np.int64)


def _dice(workload: ReplayWorkload, settings: ReplaySettings) -> np.random.Generator:
    return np.random.default_rng([settings.seed, *workload.name.encode()])
