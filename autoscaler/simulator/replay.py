"""Closed-loop replay of demand through replica policies, tick by tick.

Demand is exogenous: it does not react to what a policy does. It is held constant within a step, so that each step keeps
its mean. A scale-out's pods turn Ready after the lead time; a scale-in is immediate and takes starting pods first, then
those Ready for the shortest time, as a ReplicaSet does. Ready replicas share demand evenly and serve at most their
request each; what is beyond that is lost, not queued. So usage saturates at the requests, which every policy sees:
as a mean over the metric window that ended one delay ago. Before the start, demand was the first known one for long.
"""

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from autoscaler.simulator.oracle import oracle_outcome
from autoscaler.simulator.outcome import Replay, ReplayError, ReplaySettings, ReplayWorkload, WorkloadOutcome, outcome
from autoscaler.simulator.policies import Policy, Run, Tick, checked_peaks, settling_seconds
from models.forecast import FloatArray


def replay(
    demand: FloatArray,
    workloads: Sequence[ReplayWorkload],
    policies: Sequence[Policy],
    settings: ReplaySettings,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Replay:
    """What each policy, and an oracle with the same lead time, would have done under the same demand.

    `demand` is [workloads, steps] in each workload's base unit, NaN where it is not known: then nothing is measured
    and nothing counts as under-provisioned. `progress` is told (done, total) after each workload of each policy.
    Raises ReplayError for arrays that do not match.
    """
    if demand.ndim != 2 or demand.shape[0] != len(workloads) or demand.shape[1] == 0:
        raise ReplayError(f"demand is {demand.shape}, needed: ({len(workloads)} workloads, at least 1 step)")
    if np.nanmin(demand, initial=0.0) < 0 or np.isinf(demand).any():
        raise ReplayError("demand holds negative or infinite values; use NaN for what is not known")
    for policy in policies:
        checked_peaks(policy, demand.shape)
    outcomes: list[WorkloadOutcome] = []
    total = (len(policies) + 1) * len(workloads)
    for policy in policies:
        for row, workload in enumerate(workloads):
            run = policy.start(row, workload, settings)
            outcomes.append(_replayed(policy.name, run, workload, settings, demand[row]))
            if progress:
                progress(len(outcomes), total)
    for row, workload in enumerate(workloads):
        outcomes.append(oracle_outcome(workload, settings, demand[row]))
        if progress:
            progress(len(outcomes), total)
    return Replay(settings, tuple(outcomes))


def _replayed(
    name: str, run: Run, workload: ReplayWorkload, settings: ReplaySettings, demand: FloatArray
) -> WorkloadOutcome:
    first = _first_known(demand)
    current = initial = _initial_replicas(workload, first)
    tick_seconds, lead_ticks = settings.tick_seconds, settings.lead_ticks
    settle_ticks = -(-int(settling_seconds(settings)) // tick_seconds)
    delay = -(-settings.metric_delay_seconds // tick_seconds)
    window = max(1, round(settings.metric_window_seconds / tick_seconds))
    request = workload.request_per_replica

    settled = ready = current
    starting: deque[tuple[int, int]] = deque()
    warming: deque[tuple[int, int]] = deque()
    """(tick at which they turn Ready, or count as settled; how many), oldest first."""
    served = min(first, ready * request)
    usage = [served] * (window + delay)
    offered = [first] * (window + delay)
    usage_per_pod = [served / ready] * (window + delay)
    readies: list[int] = []
    replicas: list[int] = []
    seen = Tick()
    number = 0
    for step, wanted in enumerate(demand.tolist()):
        seen.step = step
        for _ in range(settings.ticks_per_step):
            while starting and starting[0][0] <= number:
                _, count = starting.popleft()
                ready += count
                warming.append((number + settle_ticks, count))
            while warming and warming[0][0] <= number:
                settled += warming.popleft()[1]
            seen.now_seconds = float(number * tick_seconds)
            seen.measured_at_seconds = seen.now_seconds - delay * tick_seconds
            seen.replicas, seen.ready, seen.settled = current, ready, settled
            # usage[i] is that of tick i - window - delay: the lists begin before the replay does.
            seen.usage = sum(usage[number : number + window]) / window
            seen.offered = sum(offered[number : number + window]) / window
            seen.usage_per_pod = sum(usage_per_pod[number : number + window]) / window

            desired = run.replicas(seen)
            if desired > current:
                starting.append((number + lead_ticks, desired - current))
            elif desired < current:
                surplus = _taken(starting, current - desired)
                ready -= surplus
                settled -= _taken(warming, surplus)
            current = desired
            if lead_ticks == 0 and starting:
                _, count = starting.popleft()
                ready += count
                warming.append((number + settle_ticks, count))

            served = min(wanted, ready * request) if wanted == wanted else wanted  # noqa: PLR0124 - NaN, without a call
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
        ready=np.asarray(readies, dtype=np.float64),
        replicas=np.asarray(replicas, dtype=np.float64),
        initial_replicas=initial,
    )


def _taken(cohorts: deque[tuple[int, int]], surplus: int) -> int:
    """How many of `surplus` pods are left to take after the newest cohorts have given theirs."""
    while surplus and cohorts:
        at, count = cohorts.pop()
        if count > surplus:
            cohorts.append((at, count - surplus))
            return 0
        surplus -= count
    return surplus


def _first_known(demand: FloatArray) -> float:
    known = demand[~np.isnan(demand)]
    return float(known[0]) if known.size else 0.0


def _initial_replicas(workload: ReplayWorkload, first_demand: float) -> int:
    if workload.initial_replicas is not None:
        return workload.initial_replicas
    needed = workload.capacity.replicas_for(first_demand)
    return min(max(needed, workload.min_replicas), workload.max_replicas)
