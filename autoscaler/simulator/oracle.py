"""A policy that sees the future and has the same lead time: the bound to measure others against, never deployed."""

import numpy as np

from autoscaler.cluster.capacity import ROUNDING
from autoscaler.simulator.outcome import ReplaySettings, ReplayWorkload, WorkloadOutcome, outcome
from models.forecast import FloatArray

ORACLE = "oracle"


def oracle_outcome(workload: ReplayWorkload, settings: ReplaySettings, demand: FloatArray) -> WorkloadOutcome:
    """The fewest replicas with which demand never exceeds what the Ready ones can serve, as far as the maximum allows.

    A replica that is Ready at u was ordered one lead time before and lives on until u, so at t there must be at least
    max over u in [t, t + lead] of need(u); and that many suffice. Nothing that never violates costs less.
    """
    served = np.where(np.isnan(demand), 0.0, demand) / workload.request_per_replica
    need = np.clip(np.ceil(served * (1.0 - ROUNDING)), workload.min_replicas, workload.max_replicas)
    need = np.repeat(need, settings.ticks_per_step)
    reach = settings.lead_ticks + 1
    ahead = np.concatenate([need, np.full(reach - 1, workload.min_replicas)])
    replicas = np.lib.stride_tricks.sliding_window_view(ahead, reach).max(axis=1)
    behind = np.concatenate([np.full(reach - 1, replicas[0]), replicas])
    ready = np.lib.stride_tricks.sliding_window_view(behind, reach).min(axis=1)
    return outcome(
        ORACLE,
        workload,
        settings,
        demand=demand,
        ready=ready,
        replicas=replicas,
        initial_replicas=int(replicas[0]),
    )
