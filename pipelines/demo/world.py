"""A made-up cluster's last three weeks, the same for the same seed, as its exporters would have shown them.

What is in it: 32 workloads on four node pools.
- Rhythms: shops with evenings and weekends, offices with a steep rise at 8 on working days and nearly nothing at
  weekends, round-the-clock traffic, scheduled pushes, slow growth. Each day has its own level, each step its noise,
  both multiplicative; bursts come without warning. A forecaster can win on the rhythms, not on the bursts, and
  nothing is tuned to any one forecaster.
- Life: deploys in working hours with new pod names, an HPA at work on some Deployments, container restarts that reset
  counters, a memory leak that ends in an OOM kill, CPU limits that throttle, CronJobs whose done pods linger, a
  workload born in the last days, workloads that ask for far more than they ever use, an idle notebook that holds a GPU.
- Trouble: a scrape outage of all targets (100 minutes), a kubelet that is not scraped for half an hour, an ingress
  controller that restarts.

Real clusters scrape every 15 to 60 s; here every target is scraped once a step, just before the step ends, which gives
`rate()` nearly the same value for a tenth of the samples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from models.forecast import SECONDS_PER_DAY, FloatArray
from pipelines.demo.catalog import GIB, POOLS, WORKLOADS, WorkloadSpec
from pipelines.demo.exporters import (
    RawSeries,
    Scrapes,
    add_container,
    add_gpu,
    add_ingress,
    add_nodes,
    add_owners,
    add_pod_state,
)
from pipelines.demo.patterns import demand, wander
from pipelines.demo.pods import Node, Pod, deploy_steps, hpa_replicas, job_pods, place, running_pods, suffix
from predictor.usage.bounds import CUT_OFF
from predictor.usage.node_pools import NodePools
from predictor.usage.panel import Resource, SeriesKey, UsagePanel

VERSION = 4
"""Goes up whenever the same seed gives another history."""
STEP_SECONDS = 300
DAYS = 21
MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class DemoWorld:
    """The history as exporters showed it, and as it truly was."""

    seed: int
    start_seconds: int
    step_seconds: int
    steps: int
    series: tuple[RawSeries, ...]
    truth: UsagePanel
    """Usage as it was, without outages, scrapes and counters in between."""
    node_pools: NodePools
    """What the nodes can give to pods."""

    @property
    def end_seconds(self) -> int:
        """The end of the last step: nothing is known after it."""
        return self.start_seconds + self.steps * self.step_seconds

    @property
    def samples(self) -> int:
        """How many samples were scraped."""
        return sum(int(np.count_nonzero(~np.isnan(each.values))) for each in self.series)


@dataclass(slots=True)
class _Truth:
    """Collects true usage."""

    steps: int
    usage: dict[SeriesKey, FloatArray]
    request: dict[SeriesKey, FloatArray]
    replicas: dict[str, FloatArray]
    node_pool: dict[str, str]
    cut_off: dict[SeriesKey, FloatArray]
    """[2, steps]: shares of the step in which its pods were throttled or killed, added up; of how many pods."""

    def row(self, spec: WorkloadSpec, resource: Resource) -> FloatArray:
        return self.usage.setdefault(SeriesKey(spec.key, resource), np.full(self.steps, np.nan))

    def add(self, spec: WorkloadSpec, resource: Resource, pod: Pod, values: FloatArray) -> None:
        part = self.row(spec, resource)[pod.first : pod.stop]
        part[:] = np.where(np.isnan(part), values, part + values)

    def rest(self, spec: WorkloadSpec) -> None:
        for resource in (Resource.CPU, Resource.MEMORY):
            row = self.row(spec, resource)
            row[np.isnan(row)] = 0.0

    def hide(self, spec: WorkloadSpec, resource: Resource, pod: Pod, shares: FloatArray) -> None:
        part = self.cut_off.setdefault(SeriesKey(spec.key, resource), np.zeros((2, self.steps)))
        part[:, pod.first : pod.stop] += np.stack([shares, np.ones_like(shares)])

    def ask(self, spec: WorkloadSpec, resource: Resource, pod: Pod, amount: float) -> None:
        key = SeriesKey(spec.key, resource)
        self.request.setdefault(key, np.zeros(self.steps))[pod.first : pod.stop] += amount


def demo_world(
    *, seed: int, end_seconds: int, days: int = DAYS, progress: Callable[[int, int], None] | None = None
) -> DemoWorld:
    """The world whose last step ends at `end_seconds`, rounded down to a step."""
    end = end_seconds // STEP_SECONDS * STEP_SECONDS
    steps = days * SECONDS_PER_DAY // STEP_SECONDS
    times = end - STEP_SECONDS * np.arange(steps, 0, -1, dtype=np.int64)
    nodes = [
        Node(f"{pool.name}-{number}", pool, np.zeros(steps), np.zeros((pool.gpus, steps), dtype=np.bool_))
        for pool in POOLS
        for number in range(pool.nodes)
    ]
    outage = round(steps * 0.57)
    out = Scrapes(outages=[(outage, outage + 20)])
    deaf = round(steps * 0.78)
    kubelet_outages = {"general-1": [(deaf, deaf + 6)]}
    truth = _Truth(steps, {}, {}, {}, {}, {})
    add_nodes(out, nodes, steps)
    for done, spec in enumerate(WORKLOADS, start=1):
        _add_workload(
            out,
            truth,
            spec,
            times=times,
            nodes=nodes,
            kubelet_outages=kubelet_outages,
            rng=_dice(seed, spec.key),
        )
        if progress is not None:
            progress(done, len(WORKLOADS))
    return DemoWorld(
        seed,
        int(times[0]),
        STEP_SECONDS,
        steps,
        tuple(out.series),
        _panel(truth, int(times[0])),
        _node_pools(int(times[0]), steps),
    )


def _node_pools(start_seconds: int, steps: int) -> NodePools:
    pools = sorted(POOLS, key=lambda pool: pool.name)
    each = {
        Resource.CPU: [pool.nodes * pool.cores for pool in pools],
        Resource.MEMORY: [pool.nodes * pool.memory_gib * GIB for pool in pools],
        Resource.GPU: [pool.nodes * pool.gpus or np.nan for pool in pools],
    }
    return NodePools(
        tuple(pool.name for pool in pools),
        start_seconds,
        STEP_SECONDS,
        {resource: np.repeat(np.asarray(amounts)[:, np.newaxis], steps, axis=1) for resource, amounts in each.items()},
        np.repeat(np.asarray([[float(pool.nodes)] for pool in pools]), steps, axis=1),
    )


def _dice(seed: int, name: str) -> np.random.Generator:
    """Dice of its own for each workload: a new workload leaves the others as they were."""
    return np.random.default_rng([seed, crc32(name.encode())])


def _add_workload(
    out: Scrapes,
    truth: _Truth,
    spec: WorkloadSpec,
    *,
    times: NDArray[np.int64],
    nodes: list[Node],
    kubelet_outages: dict[str, list[tuple[int, int]]],
    rng: np.random.Generator,
) -> None:
    steps = times.size
    born = 0 if spec.born_days_before_end is None else steps - round(spec.born_days_before_end * 288)
    born = max(born, 0)
    level = demand(spec.demand, times, rng)
    cores = spec.peak_cores * level * np.exp(wander(steps, 0.03, 3, rng))
    if spec.kind == "CronJob":
        pods = job_pods(spec, times, rng)
        replicas = np.zeros(steps, dtype=np.int64)
        for pod in pods:
            replicas[pod.first : pod.stop] += 1
    else:
        fixed = len(nodes) if spec.kind == "DaemonSet" else spec.replicas
        replicas = hpa_replicas(spec, cores) if spec.most_replicas else np.full(steps, fixed, dtype=np.int64)
        pods = running_pods(spec, replicas, deploy_steps(spec, times, rng), born, rng)
    place(pods, spec, nodes)
    _restart_some(pods, spec, rng)
    shares = _shares(pods, steps, rng)
    truth.replicas[spec.key] = np.where(np.arange(steps) >= born, replicas, np.nan).astype(np.float64)
    pool_of = {node.name: node.pool for node in nodes}
    truth.node_pool[spec.key] = pool_of[pods[0].node].name
    for pod, share in zip(pods, shares, strict=True):
        life = slice(pod.first, pod.stop)
        uid = suffix(rng, 8)
        wanted = spec.idle_cores + cores[life] * share
        used = np.minimum(wanted, spec.limit_cores or np.inf)
        throttled = _throttled(wanted, spec)
        memory = _memory_bytes(spec, pod, used, rng)
        add_container(
            out,
            spec,
            pod,
            uid,
            cores=used,
            memory_bytes=memory,
            throttled=throttled,
            step_seconds=STEP_SECONDS,
            outages=kubelet_outages.get(pod.node, ()),
        )
        add_pod_state(out, spec, pod, uid)
        truth.add(spec, Resource.CPU, pod, used)
        truth.add(spec, Resource.MEMORY, pod, memory)
        if spec.limit_cores:
            truth.hide(spec, Resource.CPU, pod, throttled)
        truth.hide(spec, Resource.MEMORY, pod, _killed(pod, spec))
        truth.ask(spec, Resource.CPU, pod, spec.request_cores)
        truth.ask(spec, Resource.MEMORY, pod, spec.request_gib * GIB)
        if pod.gpu >= 0:
            active = np.clip(0.02 + 0.8 * level[life] * share * replicas[life], 0, 1)
            held = np.clip(spec.gpu_memory_mib * (1 + 0.04 * level[life]), 0, pool_of[pod.node].gpu_memory_mib)
            add_gpu(out, spec, pod, pool_of[pod.node], active=active, used_mib=held)
            truth.add(spec, Resource.GPU, pod, active)
            truth.add(spec, Resource.GPU_MEMORY, pod, np.round(held) * MEBIBYTE)
            truth.ask(spec, Resource.GPU, pod, 1)
    add_owners(out, spec, pods, replicas, born)
    if spec.peak_requests:
        per_second = spec.peak_requests * level * np.exp(rng.normal(0, 0.02, steps))
        utilisation = cores / (replicas * spec.request_cores)
        _add_requests(out, spec, per_second[born:], utilisation[born:], born)
        truth.row(spec, Resource.REQUESTS)[born:] = per_second[born:]
    if spec.kind == "CronJob":
        truth.rest(spec)


def _restart_some(pods: list[Pod], spec: WorkloadSpec, rng: np.random.Generator) -> None:
    """What leaks starts again whenever it is full; of every second other workload one pod does, once."""
    if not spec.leak_gib_per_day:
        if rng.random() < 0.5 and (long_lived := [pod for pod in pods if pod.steps > 24]):
            unlucky = long_lived[int(rng.integers(len(long_lived)))]
            unlucky.restarts = (int(rng.integers(unlucky.first + 12, unlucky.stop)),)
        return
    room = spec.limit_gib - spec.memory_gib
    every = round(room / spec.leak_gib_per_day * SECONDS_PER_DAY / STEP_SECONDS)
    for pod in pods:
        pod.restarts = tuple(range(pod.first + every, pod.stop, every))


def _throttled(wanted: FloatArray, spec: WorkloadSpec) -> FloatArray:
    """Share of the periods of each step: single ones from two thirds of the limit on, all of them at it."""
    if not spec.limit_cores:
        return np.zeros_like(wanted)
    return np.asarray(np.clip(3 * wanted / spec.limit_cores - 2, 0, 1) ** 2, dtype=np.float64)


def _killed(pod: Pod, spec: WorkloadSpec) -> FloatArray:
    """1 in the steps in which what leaks reached the limit."""
    killed = np.zeros(pod.steps)
    if spec.leak_gib_per_day:
        killed[[step - pod.first for step in pod.restarts]] = 1
    return killed


def _shares(pods: list[Pod], steps: int, rng: np.random.Generator) -> list[FloatArray]:
    """Each pod's part of its workload's demand in each step of its life; a starting pod takes little."""
    weights = []
    total = np.zeros(steps)
    for pod in pods:
        weight = np.full(pod.steps, rng.lognormal(0, 0.08))
        weight[:1] *= 0.1
        total[pod.first : pod.stop] += weight
        weights.append(weight)
    return [weight / total[pod.first : pod.stop] for pod, weight in zip(pods, weights, strict=True)]


def _memory_bytes(spec: WorkloadSpec, pod: Pod, cores: FloatArray, rng: np.random.Generator) -> FloatArray:
    """What the container holds: a base, a part that follows its use, caches that fill up, and what it leaks."""
    age_days = np.arange(pod.steps, dtype=np.float64) * STEP_SECONDS / SECONDS_PER_DAY
    for step in pod.restarts:
        age_days[step - pod.first :] -= age_days[step - pod.first]
    following = np.convolve(cores, np.ones(6) / 6)[: cores.size] * spec.memory_per_core_gib
    caches = 0.25 * spec.memory_gib * (1 - np.exp(-age_days / 0.8))
    noise = spec.memory_gib * np.exp(wander(pod.steps, 0.015, 60, rng))
    held = noise + following + caches + spec.leak_gib_per_day * age_days
    return np.asarray(np.minimum(held, 0.995 * spec.limit_gib) * GIB, dtype=np.float64)


def _add_requests(out: Scrapes, spec: WorkloadSpec, per_second: FloatArray, utilisation: FloatArray, born: int) -> None:
    """Requests through the ingress: slower and more often failed the more of its request the workload uses."""
    add_ingress(
        out,
        spec,
        per_second=per_second,
        failed_fraction=0.0008 + 0.02 * np.clip(utilisation - 1, 0, 1),
        latency_seconds=0.09 * (1 + np.clip(utilisation / 0.85, 0, 1.6) ** 4),
        first=born,
        restarts=[round((born + per_second.size) * 0.35)],
        step_seconds=STEP_SECONDS,
    )


def _cut_off(truth: _Truth, key: SeriesKey) -> FloatArray:
    """The share of all pods' time that was throttled; of memory whether there was a kill."""
    shares, pods = truth.cut_off.get(key, np.full((2, truth.steps), np.nan))
    if key.resource is Resource.MEMORY:
        return np.where(np.isnan(truth.usage[key]), np.nan, shares > 0)
    return np.where(pods > 0, shares / np.maximum(pods, 1), np.nan)


def _panel(truth: _Truth, start_seconds: int) -> UsagePanel:
    keys = tuple(sorted(truth.usage))
    unknown = np.full(truth.steps, np.nan)
    replicas = np.stack([truth.replicas[key.workload] for key in keys])
    return UsagePanel(
        keys,
        start_seconds,
        STEP_SECONDS,
        np.stack([truth.usage[key] for key in keys]),
        {
            "request": np.where(
                np.isnan(replicas), np.nan, np.stack([truth.request.get(key, unknown) for key in keys])
            ),
            "replicas": replicas,
            CUT_OFF: np.stack([_cut_off(truth, key) for key in keys]),
        },
        (),
        truth.node_pool,
        {spec.key: spec.kin for spec in sorted(WORKLOADS, key=lambda spec: spec.key)},
    )
