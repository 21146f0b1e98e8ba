"""The pods behind each workload: when each lives, where, under which name. Deploys, an HPA, jobs and restarts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.forecast import SECONDS_PER_DAY, FloatArray
from pipelines.demo.catalog import NodePoolSpec, WorkloadSpec

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""What Kubernetes makes up names from: no vowels, so no words."""
HPA_TARGET = 0.65
HPA_STEPS_DOWN = 6
"""An HPA takes pods away only after half an hour of less demand."""
COMPLETED_JOBS_KEPT = 3


@dataclass(slots=True)
class Pod:
    """One pod's life: the steps in [first, stop). Jobs' pods stay listed as done until `gone`."""

    name: str
    owner_kind: str
    owner_name: str
    first: int
    stop: int
    gone: int
    node: str = ""
    gpu: int = -1
    restarts: tuple[int, ...] = ()
    """Steps in which its container starts again, counters and memory with it."""

    @property
    def steps(self) -> int:
        """How many steps it runs."""
        return self.stop - self.first


@dataclass(frozen=True, slots=True)
class Node:
    """One node and what is taken on it in each step."""

    name: str
    pool: NodePoolSpec
    requested_cores: FloatArray
    taken_gpus: NDArray[np.bool_]
    """[devices, steps]."""


def suffix(rng: np.random.Generator, length: int) -> str:
    """A made-up part of a name."""
    return "".join(ALPHABET[i] for i in rng.integers(0, len(ALPHABET), length))


def hpa_replicas(spec: WorkloadSpec, cores: FloatArray) -> NDArray[np.int64]:
    """Replicas that an HPA would have set from the usage of the step before."""
    wanted = np.ceil(cores / (spec.request_cores * HPA_TARGET)).astype(np.int64)
    wanted = np.clip(np.concatenate((wanted[:1], wanted[:-1])), spec.replicas, spec.most_replicas)
    windows = np.lib.stride_tricks.sliding_window_view(
        np.concatenate((np.repeat(wanted[:1], HPA_STEPS_DOWN), wanted)), HPA_STEPS_DOWN + 1
    )
    return np.asarray(windows.max(axis=1), dtype=np.int64)


def deploy_steps(spec: WorkloadSpec, times: NDArray[np.int64], rng: np.random.Generator) -> list[int]:
    """Steps at which a new version goes out: on working days, in working hours."""
    hours = times % SECONDS_PER_DAY / 3600
    weekday = (times // SECONDS_PER_DAY + 3) % 7
    open_steps = np.flatnonzero((hours >= 8.5) & (hours < 17) & (weekday < 5))
    count = rng.poisson(spec.deploys_per_week * (times[-1] - times[0]) / (7 * SECONDS_PER_DAY))
    return sorted({int(step) for step in rng.choice(open_steps, size=count)}) if open_steps.size else []


def running_pods(
    spec: WorkloadSpec, replicas: NDArray[np.int64], deploys: Sequence[int], born: int, rng: np.random.Generator
) -> list[Pod]:
    """Pods of a workload that is always there, through its deploys and changes of size."""
    steps = replicas.size
    version = suffix(rng, 10)
    every: list[Pod] = []

    def started(step: int, place: int) -> Pod:
        match spec.kind:
            case "Deployment":
                owner = f"{spec.name}-{version}"
                pod = Pod(f"{owner}-{suffix(rng, 5)}", "ReplicaSet", owner, step, steps, steps)
            case "StatefulSet":
                pod = Pod(f"{spec.name}-{place}", "StatefulSet", spec.name, step, steps, steps)
            case "DaemonSet":
                pod = Pod(f"{spec.name}-{suffix(rng, 5)}", "DaemonSet", spec.name, step, steps, steps)
            case _:
                pod = Pod(spec.name, "<none>", "<none>", step, steps, steps)
        every.append(pod)
        return pod

    def stopped(pod: Pod, step: int) -> None:
        pod.stop = pod.gone = max(min(step, steps), pod.first + 1)

    alive = [started(born, place) for place in range(replicas[born])]
    changes = set(np.flatnonzero(np.diff(replicas)) + 1) | set(deploys)
    for step in sorted(int(change) for change in changes if change > born):
        if step in deploys:
            version = suffix(rng, 10)
            # One pod a step. A Deployment surges: the new pod comes before the old one goes; the others, and
            # pods that hold a GPU, have to make room first.
            surge = int(spec.kind == "Deployment" and not spec.gpu_memory_mib)
            for place, old in enumerate(alive):
                if (when := step + place) + surge < steps:
                    stopped(old, when + surge)
                    alive[place] = started(max(when, old.first + 1), place)
        while len(alive) < replicas[step]:
            alive.append(started(step, len(alive)))
        while len(alive) > replicas[step]:
            stopped(alive.pop(), step)
    return every


def job_pods(spec: WorkloadSpec, times: NDArray[np.int64], rng: np.random.Generator) -> list[Pod]:
    """One pod for each run of a CronJob, done pods kept until newer ones push them out."""
    step_seconds = int(times[1] - times[0])
    starts = [
        day * SECONDS_PER_DAY + int(hour * 3600)
        for day in range(int(times[0]) // SECONDS_PER_DAY, int(times[-1]) // SECONDS_PER_DAY + 1)
        for hour in spec.cron_hours
    ]
    pods: list[Pod] = []
    for start in starts:
        first = (start - int(times[0])) // step_seconds
        length = max(4, round(spec.cron_minutes * 60 * rng.lognormal(0, 0.12) / step_seconds))
        if 0 <= first < times.size:
            job = f"{spec.name}-{start // 60}"
            stop = min(first + length, times.size)
            pods.append(Pod(f"{job}-{suffix(rng, 5)}", "Job", job, first, stop, times.size))
    for pod, later in zip(pods, pods[COMPLETED_JOBS_KEPT:], strict=False):
        pod.gone = max(later.stop, pod.stop)
    return pods


def place(pods: Sequence[Pod], spec: WorkloadSpec, nodes: Sequence[Node]) -> None:
    """Put each pod on the node of its pool that has asked for least, and on a free GPU where it needs one."""
    pool = [node for node in nodes if spec.pool in ("*", node.pool.name)]
    for number, pod in enumerate(pods):
        life = slice(pod.first, pod.stop)
        if spec.kind == "DaemonSet":
            node = pool[number % len(pool)]
        else:
            node = min(pool, key=lambda each: float(each.requested_cores[life].mean()) / each.pool.cores)
        if spec.gpu_memory_mib:
            free = [
                (each, device)
                for each in pool
                for device in range(each.pool.gpus)
                if not each.taken_gpus[device, life].any()
            ]
            node, pod.gpu = free[0]
            node.taken_gpus[pod.gpu, life] = True
        pod.node = node.name
        node.requested_cores[life] += spec.request_cores
