"""Closed-loop replay of demand through replica policies, tick by tick.

Demand is exogenous: it does not react to what a policy does. It is held constant within a step, so that each step keeps
its mean. A scale-out's pods turn Ready after the lead time of their order; a scale-in is immediate and takes starting
pods first, then those Ready for the shortest time, as a ReplicaSet does; what is removed is paid for while it ends.
Ready replicas share demand evenly and serve at most their request each; what is beyond that is lost, not queued. The
SLO is violated where demand exceeds what the Ready replicas carry within it, which is no more than they serve. So usage
saturates at the requests, which every policy sees: as a mean over the metric window that ended one delay ago. Before
the start, demand was the first known one for long. The share of a step in violation is seen one delay later.
"""

from collections.abc import Callable, Sequence
from math import isnan, nan

import numpy as np

from autoscaler.simulator.oracle import oracle_outcome
from autoscaler.simulator.outcome import Replay, ReplayError, ReplaySettings, ReplayWorkload, WorkloadOutcome, outcome
from autoscaler.simulator.pods import Pods
from autoscaler.simulator.policies import Policy, Run, Tick, checked_peaks, settling_seconds
from autoscaler.simulator.readiness import lead_ticks
from models.forecast import FloatArray


def replay(
    demand: FloatArray,
    workloads: Sequence[ReplayWorkload],
    policies: Sequence[Policy],
    settings: ReplaySettings,
    *,
    rows: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Replay:
    """What each policy, and an oracle with the same lead time, would have done under the same demand.

    `demand` is [workloads, steps] in each workload's base unit, NaN where it is not known: then nothing is measured
    and nothing counts as a violation. `rows` are those workloads that are replayed; None: all of them. `progress` is
    told (done, total) after each workload of each policy.
    Raises ReplayError for arrays that do not match.
    """
    if demand.ndim != 2 or demand.shape[0] != len(workloads) or demand.shape[1] == 0:
        raise ReplayError(f"demand is {demand.shape}, needed: ({len(workloads)} workloads, at least 1 step)")
    if np.nanmin(demand, initial=0.0) < 0 or np.isinf(demand).any():
        raise ReplayError("demand holds negative or infinite values; use NaN for what is not known")
    for policy in policies:
        checked_peaks(policy, demand.shape)
    outcomes: list[WorkloadOutcome] = []
    rows = range(len(workloads)) if rows is None else rows
    total = (len(policies) + 1) * len(rows)
    for policy in policies:
        for row in rows:
            own = workloads[row].own(settings)
            run = policy.start(row, workloads[row], own)
            outcomes.append(_replayed(policy.name, run, workloads[row], own, demand[row]))
            if progress:
                progress(len(outcomes), total)
    for row in rows:
        outcomes.append(oracle_outcome(workloads[row], settings, demand[row]))
        if progress:
            progress(len(outcomes), total)
    return Replay(settings, tuple(outcomes))


def _replayed(
    name: str, run: Run, workload: ReplayWorkload, settings: ReplaySettings, demand: FloatArray
) -> WorkloadOutcome:
    first = _first_known(demand)
    current = initial = _initial_replicas(workload, first)
    tick_seconds, request = settings.tick_seconds, workload.request_per_replica
    ticks = demand.size * settings.ticks_per_step
    settle_ticks = -(-int(settling_seconds(settings)) // tick_seconds)
    delay = -(-settings.metric_delay_seconds // tick_seconds)
    window = max(1, round(settings.metric_window_seconds / tick_seconds))

    pods = Pods(current, lead_ticks(workload, settings, ticks).tolist(), settle_ticks)
    served = min(first, current * request)
    usage = [served] * (window + delay)
    offered = [first] * (window + delay)
    usage_per_pod = [served / current] * (window + delay)
    readies: list[int] = []
    replicas: list[int] = []
    needed: list[int] = workload.needed_replicas(demand).tolist()
    per_step = settings.ticks_per_step
    seen = Tick()
    number = 0
    for step, wanted in enumerate(demand.tolist()):
        seen.step = step
        for _ in range(settings.ticks_per_step):
            if number >= pods.due:
                pods.turn(number)
            seen.now_seconds = float(number * tick_seconds)
            seen.measured_at_seconds = seen.now_seconds - delay * tick_seconds
            seen.replicas, seen.ready, seen.settled = current, pods.ready, pods.settled
            # usage[i] is that of tick i - window - delay: the lists begin before the replay does.
            seen.usage = sum(usage[number : number + window]) / window
            seen.offered = sum(offered[number : number + window]) / window
            seen.usage_per_pod = sum(usage_per_pod[number : number + window]) / window

            ended, into_next = divmod(number - delay, per_step)
            if ended > 0 and into_next == 0:
                short = sum(each < needed[ended - 1] for each in readies[(ended - 1) * per_step : ended * per_step])
                seen.violated = nan if isnan(demand[ended - 1]) else short / per_step
                seen.violated_until_seconds = float(ended * settings.step_seconds)

            desired = run.replicas(seen)
            if desired > current:
                pods.order(number, desired - current)
                if number >= pods.due:
                    pods.turn(number)
            elif desired < current:
                pods.remove(current - desired)
            current = desired

            ready = pods.ready
            served = wanted if isnan(wanted) else min(wanted, ready * request)
            usage.append(served)
            offered.append(wanted)
            usage_per_pod.append(served / ready if ready else 0.0)
            readies.append(ready)
            replicas.append(current)
            number += 1
    return outcome(
        name,
        workload,
        settings,
        demand=demand,
        ready=np.asarray(readies, dtype=np.int64),
        replicas=np.asarray(replicas, dtype=np.int64),
        initial_replicas=initial,
    )


def _first_known(demand: FloatArray) -> float:
    known = demand[~np.isnan(demand)]
    return float(known[0]) if known.size else 0.0


def _initial_replicas(workload: ReplayWorkload, first_demand: float) -> int:
    if workload.initial_replicas is not None:
        return workload.initial_replicas
    needed = workload.capacity.replicas_for(first_demand)
    return min(max(needed, workload.min_replicas), workload.max_replicas)
