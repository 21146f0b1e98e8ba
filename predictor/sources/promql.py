"""The PromQL we send. Everything is added up on the server, to one series per workload.

**Time.** A sample stands for the step that starts at its timestamp, so each query is evaluated at the step's end and
its answer moved back by one step. Its range selectors reach back from there: nothing after the step's end is
ever seen, so a sample at the cutoff holds nothing that was not known when that step was over.
Counters are read over max(step, 2 × scrape interval), the least that always holds two scrapes; gauges are
averaged over max(step, scrape interval). With a step of at least two scrape intervals both are exactly the step.
`rate()` comes before any sum, so that a counter reset in one pod is seen as one.

**Who a pod belongs to** comes from `kube_pod_owner`, through `kube_replicaset_owner` to the Deployment and through
`kube_job_owner` to the CronJob; a pod without an owner, or a static pod owned by its node, is a workload of its own.
Owners are looked up over the same range as the usage, so a pod deleted within a step still counts in it. Every such
look-up goes through `max by` and `topk(1)`: several replicas of kube-state-metrics neither double the usage nor make
the join ambiguous. Likewise two scrape jobs on one kubelet count once.

**Whether all pods were measured** is asked beside the usage: how many pods ran over the whole range, and how many
of them no exporter reported on, as when a kubelet is not scraped. A pod that started within the range is not counted
among them: it is missing for at most its first two scrapes.

**What hid demand.** CPU: the share of the scheduler's periods in which a container was throttled, from
`container_cpu_cfs_throttled_periods_total` and `container_cpu_cfs_periods_total`, which only containers with a limit
have. Memory: kube-state-metrics counts that a container started again and says that its last end was `OOMKilled`; both
in one step are a kill. Starts are counted from the last scrape before the step on, so that none is lost between two
steps; a container that has to wait for its next start is marked where it starts, minutes later. cAdvisor's
`container_oom_events_total` is not asked: it belongs to one container and goes with it when it is killed, so that it
nearly always shows none. What it does show is not seen here: that a container lived on which lost one of its processes.

**What an autoscaler was not allowed to give.** A workload that is kept at its most replicas while its autoscaler wants
more would use more with more of them. Of an HPA kube-state-metrics tells it: the condition ScalingLimited is true,
while the replicas that it wants stand at `maxReplicas`, throughout the step. Of a PredictiveAutoscaler the controller's
own `foresize_at_max_replicas` does. Neither depends on what it scales by, so that it is taken to hold for every
resource. An HPA whose scaling in is disabled says the same when it could do with fewer: there usage reads as a bound
that is none.

**What must be so in the cluster.** kube-state-metrics scraped with `honor_labels: true` (the usual set-up), and scrape
intervals of at most 5 minutes, Prometheus's look-back. DCGM and ingress-nginx may be scraped either way:
`exported_pod`, `exported_namespace` and `exported_service` are preferred where they exist.

**Who a workload's siblings are** is asked once, at the end of the time: images from `kube_pod_container_info`, the
owner of a Deployment from `kube_deployment_owner` (kube-state-metrics 2.18 and later; it shows no other kind's). Where
there is none, the label `app.kubernetes.io/part-of` stands for it, which kube-state-metrics shows if told to by
`--metric-labels-allowlist`. What is not there is not known, and nothing else depends on it.

**Single containers** are asked for only of workloads that are named: by the exact names of their namespaces in front of
the sums, and by their owners' names in the look-up of owners. A pair of both that nobody named comes along and is left
out afterwards. Of memory it is the highest working set within a step, as a peak between two steps kills too.

**How many replicas were Ready** is counted by their pods, whatever kind the workload is, each step at its end, of one
workload at a time and within its namespace alone; beside it stand the images that these pods ran. So is, where the
utilisation to run at is learned, how much of a workload's CPU time was throttled.

**How long pods took to get Ready** is asked of young pods, whose whole life lies within the range: the earliest
`kube_pod_status_ready_time` of each, less its `kube_pod_created`. That metric is the last time at which a pod turned
Ready, so that it moves when readiness comes back, after a restart or a failed probe; of a pod that is older than the
range nobody could tell. A pod that takes longer than an hour and is deleted, or longer than two, is not told of.

**Who is on a node** is read from `kube_pod_info`, over the same range as the usage.

**Whether a node's clock is ahead** is told by samples that are later than the time asked about, which needs negative
offsets (Prometheus 2.33 and newer).

**How long tasks waited for CPU** on a node is the kernel's pressure stall information (PSI), "some": node-exporter's
`node_pressure_cpu_waiting_seconds_total`, or that of the root cgroup from kubelets with the feature KubeletPSI (on by
default from Kubernetes 1.34). Of both the larger, as they count the same. The node is the label `node` where a scrape
job sets it, else the host of `instance`, which `kube_node_info` may know as the node's `internal_ip`.

**Ingress.** ingress-nginx counts by Service, not by workload. `predictor.sources.prometheus` maps a Service to the
workload of the same name in its namespace unless it is told otherwise.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from predictor.sources.held import quoted
from predictor.usage.panel import Resource

WORKLOAD = "namespace, owner_kind, owner_name"
MEBIBYTE = 2**20
NO_POOL = "default"
"""The pool of a node that carries no pool label."""
ACTIVITY, FULLEST, SHARES, DEVICES = "activity", "fullest", "shares", "devices"
"""Of the GPUs of a node."""
KUBERNETES_RESOURCE = {Resource.CPU: "cpu", Resource.MEMORY: "memory", Resource.GPU: "nvidia_com_gpu"}
"""The `resource` label of kube-state-metrics."""
_RESOURCES = 'resource=~"' + "|".join(KUBERNETES_RESOURCE.values()) + '"'
_OWNER_METRICS = ("kube_pod_owner", "kube_replicaset_owner")
METRICS: Mapping[Resource, tuple[str, ...]] = {
    Resource.CPU: ("container_cpu_usage_seconds_total", *_OWNER_METRICS),
    Resource.MEMORY: ("container_memory_working_set_bytes", *_OWNER_METRICS),
    Resource.GPU: ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_DEV_GPU_UTIL", *_OWNER_METRICS),
    Resource.GPU_MEMORY: ("DCGM_FI_DEV_FB_USED", *_OWNER_METRICS),
    Resource.REQUESTS: ("nginx_ingress_controller_requests",),
}
"""What each resource is read from."""
PERIODS, THROTTLED, KILLED = "periods", "throttled", "killed"
"""What `what` says of the scheduler's periods a second, those of them that were throttled, and the pods of which a
container was killed for want of memory. Where the metrics are absent there is no such series, and nothing fails."""
LIMIT = "limit"
"""What `what` says of limits."""
REPLICAS, AT_MAXIMUM = "replicas", "at_maximum"
"""What `what` says of the replicas wanted, and of workloads that are held at their most replicas."""
OWN_AT_MAXIMUM = "foresize_at_max_replicas"
"""The controller's own metric: 1 where demand needs more than the most replicas allowed, all of which are there."""
_HPA = "kube_horizontalpodautoscaler"
HELD_BACK_METRICS = (
    *(f"{_HPA}_{each}" for each in ("info", "spec_max_replicas", "spec_min_replicas")),
    *(f"{_HPA}_status_{each}" for each in ("condition", "desired_replicas")),
    OWN_AT_MAXIMUM,
)
"""By what is told which workloads are held at their most replicas; where a workload has no autoscaler there is none."""
RUNNING, UNMEASURED = "running", "unmeasured"
"""What `what` says of the pods that ran over a whole range, and of those of them that the exporter did not report on.
CPU and memory come from one exporter, GPU and its memory from another."""
KIN_METRICS = ("kube_pod_container_info",)
"""What is told of kinship everywhere."""
PART_OF = "label_app_kubernetes_io_part_of"
BUSIEST, MEAN, LARGEST = "busiest", "mean", "largest"
"""What `what` says of single containers: CPU of the pod that used most and of the mean one, memory of the largest."""
NAME_CHARACTERS = 8_000
"""Most characters of workloads' names in one query; more are asked for by several."""
NAMED_NODE = 'node!=""'
HOST_OF_INSTANCE = r"\[?(.+?)\]?(:[0-9]+)?"
PLACED_METRICS = ("container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "kube_pod_info")
PRESSURE_METRICS = ("node_pressure_cpu_waiting_seconds_total", "container_pressure_cpu_waiting_seconds_total")
"""Either tells how long tasks waited for CPU."""
READY_TIME_METRICS = ("kube_pod_created", "kube_pod_status_ready_time")
"""What tells how long pods took to get Ready."""
POOL_METRICS = ("kube_node_status_allocatable", "kube_node_info", "kube_node_labels")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterLabels:
    """What differs from cluster to cluster in the labels of its metrics."""

    matchers: Mapping[str, str] = field(default_factory=dict)
    """Label and value that every series must carry, for example `{"cluster": "eu-1"}` in a store of many clusters."""
    namespace: str = "namespace"
    """What names the namespace of a series, in queries that somebody else wrote."""
    node_pool: tuple[str, ...] = (
        "label_node_pool",
        "label_cloud_google_com_gke_nodepool",
        "label_eks_amazonaws_com_nodegroup",
        "label_karpenter_sh_nodepool",
        "label_kubernetes_azure_com_agentpool",
    )
    """Labels of `kube_node_labels` that name the node pool; the first that a node has counts."""


@dataclass(frozen=True, slots=True)
class Queries:
    """The queries for one cluster, step and scrape interval."""

    labels: ClusterLabels
    step_seconds: int
    scrape_interval_seconds: int

    @property
    def counter_range(self) -> str:
        """What `rate()` looks back over."""
        return f"{max(self.step_seconds, 2 * self.scrape_interval_seconds)}s"

    @property
    def gauge_range(self) -> str:
        """What a gauge is averaged over."""
        return f"{max(self.step_seconds, self.scrape_interval_seconds)}s"

    def containers(self) -> str:
        """CPU and memory usage of each workload, and what hid demand for them, told apart by the label `what`."""
        cpu, memory = self._cpu_of_containers(), self._memory_of_containers()
        running = self._running_throughout()
        return self._by_workload(
            {
                PERIODS: self._periods("container_cpu_cfs_periods_total"),
                THROTTLED: self._periods("container_cpu_cfs_throttled_periods_total"),
                KILLED: self._killed(),
                Resource.CPU: f"sum by (namespace, pod) ({cpu})",
                Resource.MEMORY: f"sum by (namespace, pod) ({memory})",
                RUNNING: running,
                UNMEASURED: f"{running} unless on (namespace, pod) {cpu}",
            }
        )

    def placed(self) -> str:
        """CPU and memory usage of each workload on each node, and of how many pods, told apart by `what`."""
        cpu, memory = self._cpu_of_containers(), self._memory_of_containers()
        running = self._running_throughout()
        per_pod = {
            Resource.CPU: f"sum by (namespace, pod) ({cpu})",
            Resource.MEMORY: f"sum by (namespace, pod) ({memory})",
            pods_of(Resource.CPU): f"group by (namespace, pod) ({cpu})",
            pods_of(Resource.MEMORY): f"group by (namespace, pod) ({memory})",
            RUNNING: running,
            UNMEASURED: f"{running} unless on (namespace, pod) {cpu}",
        }
        each = " or ".join(_set(f"({vector})", "what", what) for what, vector in per_pod.items())
        info = f"max_over_time({self._select('kube_pod_info', NAMED_NODE)}[{self.counter_range}])"
        node = f"topk by (namespace, pod) (1, max by (namespace, pod, node) ({info}))"
        owned = f"({each}) * on (namespace, pod) group_left (owner_kind, owner_name) {self._owners()}"
        return f"sum by ({WORKLOAD}, node, what) ({owned} * on (namespace, pod) group_left (node) {node})"

    def single_containers(self, workloads: Collection[str]) -> Iterator[str]:
        """CPU and memory of each container in one pod of those workloads, told apart by the label `what`."""
        for part in _in_parts(sorted(workloads)):
            namespaces = f"namespace=~{_any_of(name.split('/', 2)[0] for name in part)}"
            names = _any_of(name.split("/", 2)[-1] for name in part)
            real = ('container!=""', 'container!="POD"', namespaces)
            counter = self._select("container_cpu_usage_seconds_total", *real)
            gauge = self._select("container_memory_working_set_bytes", *real)
            each = f"max by (namespace, pod, container, id) (rate({counter}[{self.counter_range}]))"
            cores = f"sum by (namespace, pod, container) ({each})"
            held = f"max by (namespace, pod, container) (max_over_time({gauge}[{self.gauge_range}]))"
            owners = f"* on (namespace, pod) group_left (owner_kind, owner_name) {self._owners(namespaces, names)}"
            most = f"({_set(cores, 'what', BUSIEST)} or {_set(held, 'what', LARGEST)}) {owners}"
            mean = f"{_set(cores, 'what', MEAN)} {owners}"
            by = f"({WORKLOAD}, container, what)"
            yield f"max by {by} ({most}) or avg by {by} ({mean})"

    def asked(self) -> str:
        """Requests and limits of each workload, told apart by `what` and `resource`.

        Pods that are done ask for nothing; containers without a limit add nothing.
        """
        return self._by_workload(
            {
                "request": self._container_resources("kube_pod_container_resource_requests"),
                LIMIT: self._container_resources("kube_pod_container_resource_limits"),
            },
            "resource",
        )

    def gpus(self) -> str:
        """GPU and device memory usage of each workload, and the capacity that it holds, told apart by `what`."""
        active = self._per_gpu("DCGM_FI_PROF_GR_ENGINE_ACTIVE")
        utilised = self._per_gpu("DCGM_FI_DEV_GPU_UTIL")
        used, free = self._per_gpu("DCGM_FI_DEV_FB_USED"), self._per_gpu("DCGM_FI_DEV_FB_FREE")
        gpu_requests = self._select("kube_pod_container_resource_requests", 'resource="nvidia_com_gpu"')
        running = f"({self._running_throughout()} and on (namespace, pod) {gpu_requests})"
        return self._by_workload(
            {
                Resource.GPU: f"sum by (namespace, pod) ({active} or on (namespace, pod) {utilised} / 100)",
                Resource.GPU_MEMORY: f"sum by (namespace, pod) ({used}) * {MEBIBYTE}",
                capacity_of(Resource.GPU): f"count by (namespace, pod) ({used})",
                capacity_of(Resource.GPU_MEMORY): f"sum by (namespace, pod) ({used} + {free}) * {MEBIBYTE}",
                RUNNING: running,
                UNMEASURED: f"{running} unless on (namespace, pod) {used}",
            }
        )

    def gpus_of_nodes(self) -> str:
        """How busy and full the GPUs of each node are, and how many of them pods have, told apart by `what`.

        The node is the label `Hostname`, as DCGM's exporter has it. A device that several pods share counts once.
        """
        by = "(Hostname, UUID, GPU_I_ID)"

        def devices(metric: str, over_time: str = "avg_over_time") -> str:
            selected = self._select(metric, 'Hostname!=""')
            return f"max by {by} ({over_time}({selected}[{self.gauge_range}]))"

        busy = f"{devices('DCGM_FI_PROF_SM_ACTIVE')} or on {by} {devices('DCGM_FI_PROF_GR_ENGINE_ACTIVE')}"
        activity = f"sum by (Hostname) ({busy} or on {by} {devices('DCGM_FI_DEV_GPU_UTIL')} / 100)"
        used = devices("DCGM_FI_DEV_FB_USED", "max_over_time")
        fullest = f"max by (Hostname) ({used}) * {MEBIBYTE}"
        asked = self._select("kube_pod_container_resource_requests", 'resource="nvidia_com_gpu"')
        per_pod = f"sum by (namespace, pod) (max by (namespace, pod, container) ({asked}))"
        phase = self._select("kube_pod_status_phase", 'phase="Running"')
        running = f"(max by (namespace, pod) ({phase}) == 1)"
        info = self._select("kube_pod_info", NAMED_NODE)
        node = f"topk by (namespace, pod) (1, max by (namespace, pod, node) ({info}))"
        placed = f"({per_pod} and on (namespace, pod) {running}) * on (namespace, pod) group_left (node) {node}"
        shares = _copy(f"sum by (node) ({placed})", "Hostname", "node")
        parts = {
            ACTIVITY: activity,
            FULLEST: fullest,
            SHARES: f"sum by (Hostname) ({shares})",
            DEVICES: f"count by (Hostname) ({used})",
        }
        return " or ".join(_set(f"({vector})", "what", what) for what, vector in parts.items())

    def cpu_pressure_of_nodes(self) -> str:
        """Share of time in which some task waited for a CPU, by `node`; hosts that are no node may be among them."""
        of_host, of_cgroup = PRESSURE_METRICS
        counters = (self._select(of_host), self._select(of_cgroup, 'id="/"'))
        each = " or ".join(_with_host(f"rate({counter}[{self.counter_range}])") for counter in counters)
        info = self._select("kube_node_info", 'internal_ip!=""')
        named = f"topk by (internal_ip) (1, max by (internal_ip, node) ({info}))"
        by_host = f"max by (subject_host) ({each})"
        by_address = f"{_copy(by_host, 'internal_ip', 'subject_host')} * on (internal_ip) group_left (node) {named}"
        return f"max by (node) ({by_address} or {_copy(by_host, 'node', 'subject_host')})"

    def clocks_ahead(self) -> str:
        """By how many seconds the newest sample of a node's containers is later than now, by `node`; none as a rule.

        cAdvisor's samples carry the time of their node. Nothing later than five minutes from now is found.
        """
        later = f"{self._select('container_cpu_usage_seconds_total')} offset -5m"
        newest = f"max by (namespace, pod) (timestamp({later}))"
        node = (
            f"topk by (namespace, pod) (1, max by (namespace, pod, node) ({self._select('kube_pod_info', NAMED_NODE)}))"
        )
        return f"max by (node) ({newest} * on (namespace, pod) group_left (node) {node}) - time()"

    def requests(self) -> str:
        """Requests per second to each Service, under the labels `subject_namespace` and `subject_service`."""
        counter = self._select("nginx_ingress_controller_requests")
        rate = _subject(f"rate({counter}[{self.counter_range}])", "namespace", "service")
        return f"sum by (subject_namespace, subject_service) ({rate})"

    def replicas(self) -> str:
        """Replicas wanted of each workload, and value 1 where its autoscaler wanted more than its most, by `what`.

        Of a CronJob the jobs under way. In one query, as an answer without any series is not kept on disk, and in most
        clusters nothing is at its maximum.
        """
        kinds = (
            ("kube_deployment_spec_replicas", "Deployment", "deployment"),
            ("kube_statefulset_replicas", "StatefulSet", "statefulset"),
            ("kube_daemonset_status_desired_number_scheduled", "DaemonSet", "daemonset"),
            ("kube_cronjob_status_active", "CronJob", "cronjob"),
        )
        each = (
            _set(_copy(self._select(metric), "owner_name", label), "owner_kind", kind) for metric, kind, label in kinds
        )
        parts = (
            _set(f"max by ({WORKLOAD}) ({vector})", "what", what)
            for what, vector in ((REPLICAS, " or ".join(each)), (AT_MAXIMUM, self._at_maximum()))
        )
        return " or ".join(parts)

    def _at_maximum(self) -> str:
        """Value 1 for each autoscaler that wanted more than its most replicas throughout the step."""
        by = "(namespace, horizontalpodautoscaler)"

        def throughout(metric: str, *matchers: str) -> str:
            return f"min_over_time({self._select(metric, *matchers)}[{self.gauge_range}])"

        limited = throughout(f"{_HPA}_status_condition", 'condition="ScalingLimited"', 'status="true"')
        wanted = throughout(f"{_HPA}_status_desired_replicas")
        most, least = (self._select(f"{_HPA}_spec_{each}_replicas") for each in ("max", "min"))
        # Where both are one number the condition may as well say that fewer are wanted.
        full = f"(max by {by} ({wanted}) >= (max by {by} ({most}) > max by {by} ({least})))"
        info = self._select(f"{_HPA}_info")
        info = _copy(_copy(info, "owner_kind", "scaletargetref_kind"), "owner_name", "scaletargetref_name")
        target = f"topk by {by} (1, max by (namespace, horizontalpodautoscaler, owner_kind, owner_name) ({info}))"
        of_hpas = (
            f"(max by {by} ({limited}) and {full})"
            f" * on (namespace, horizontalpodautoscaler) group_left (owner_kind, owner_name) {target}"
        )
        own = throughout(OWN_AT_MAXIMUM)
        # The label `namespace` may be the one that the controller itself runs in.
        for number, label in enumerate(("namespace", "owner_kind", "owner_name"), start=1):
            own = f'label_replace({own}, "{label}", "${number}", "workload", "([^/]+)/([^/]+)/(.+)")'
        each = (_set(one, "by", name) for one, name in ((of_hpas, "hpa"), (own, "foresize")))
        return f"({' or '.join(each)}) > 0"

    def pods_by_pool(self) -> str:
        """How many pods each workload has in each node pool, with the label `node_pool`."""
        info = self._select("kube_pod_info", NAMED_NODE)
        node = f"topk by (namespace, pod) (1, max by (namespace, pod, node) ({info}))"
        return (
            f"sum by ({WORKLOAD}, node_pool) ({self._owners()}"
            f" * on (namespace, pod) group_left (node) {node}"
            f" * on (node) group_left (node_pool) {self._pool_of_node()})"
        )

    def images(self) -> str:
        """Value 1 for each image of each workload's containers, with the label `container_image`.

        As the pod names it, where that is told: the runtime may report another name for it, or only a digest.
        """
        info = _copy(self._select("kube_pod_container_info"), "container_image", "image")
        each = f"max by (namespace, pod, container_image) ({_copy(info, 'container_image', 'image_spec')})"
        joined = f"{each} * on (namespace, pod) group_left (owner_kind, owner_name) {self._owners()}"
        return f"max by ({WORKLOAD}, container_image) ({joined})"

    def ready(self, workload: str) -> str:
        """How many pods of a workload were Ready, and how many of them ran each image, by `container_image`."""
        namespace, _, name = workload.split("/", 2)
        within, named = f"namespace={quoted(namespace)}", _any_of([name])
        state = self._select("kube_pod_status_ready", 'condition="true"', within)
        ready = f"(max by (namespace, pod) ({state}) == 1)"
        info = _copy(self._select("kube_pod_container_info", within), "container_image", "image")
        image = f"max by (namespace, pod, container_image) ({_copy(info, 'container_image', 'image_spec')})"
        each = f"({ready} or ({image} and on (namespace, pod) {ready}))"
        owned = f"{each} * on (namespace, pod) group_left (owner_kind, owner_name) {self._owners(within, named)}"
        return f"sum by ({WORKLOAD}, container_image) ({owned})"

    def throttled(self, workload: str) -> str:
        """A workload's scheduler periods a second, those throttled, and its mean pod's CPU limit, by `what`."""
        namespace, _, name = workload.split("/", 2)
        within, named = f"namespace={quoted(namespace)}", _any_of([name])
        owners = f"* on (namespace, pod) group_left (owner_kind, owner_name) {self._owners(within, named)}"
        counted = " or ".join(
            _set(f"({self._periods(f'container_cpu_cfs_{metric}_total', within)})", "what", what)
            for what, metric in ((PERIODS, "periods"), (THROTTLED, "throttled_periods"))
        )
        limit = self._select("kube_pod_container_resource_limits", 'resource="cpu"', within)
        limit = f"sum by (namespace, pod) (max by (namespace, pod, container) ({limit}))"
        by = f"({WORKLOAD}, what)"
        return f"sum by {by} (({counted}) {owners}) or avg by {by} ({_set(f'({limit})', 'what', LIMIT)} {owners})"

    def first_ready(self) -> str:
        """Seconds from creation to being Ready for the first time of each pod younger than two steps, by `pod`, `uid`.

        A pod is answered at one or two steps' ends; where it was not Ready at the first yet, the second knows better.
        """
        reach = 2 * self.step_seconds
        pod = "(namespace, pod, uid)"
        made, became_ready = (self._select(metric) for metric in READY_TIME_METRICS)
        created = f"(max by {pod} (last_over_time({made}[{reach}s])) > time() - {reach})"
        ready = f"min by {pod} (min_over_time({became_ready}[{reach}s]))"
        took = f"({ready} - on {pod} {created})"
        return f"{took} * on (namespace, pod) group_left (owner_kind, owner_name) {self._owners()}"

    def owners(self) -> str:
        """Value 1 for each workload that is itself owned, or part of an application, with the label `owner`."""
        owned = self._select("kube_deployment_owner", 'owner_kind!~"<none>|"')
        owned = f'label_join({owned}, "owner", "/", "owner_kind", "owner_name")'
        owned = _set(_copy(owned, "owner_name", "deployment"), "owner_kind", "Deployment")
        parts = []
        for kind in ("Deployment", "StatefulSet", "DaemonSet", "CronJob"):
            part = self._select(f"kube_{kind.lower()}_labels", f'{PART_OF}!=""')
            part = _set(_copy(part, "owner_name", kind.lower()), "owner_kind", kind)
            parts.append(f'label_replace({part}, "owner", "part-of/$1", "{PART_OF}", "(.+)")')
        return f"max by ({WORKLOAD}, owner) ({owned} or on ({WORKLOAD}) ({' or '.join(parts)}))"

    def pool_allocatable(self) -> str:
        """What the nodes of each pool can give to pods, with the label `resource`."""
        each = f"max by (node, resource) ({self._select('kube_node_status_allocatable', _RESOURCES)})"
        return f"sum by (node_pool, resource) ({each} * on (node) group_left (node_pool) {self._pool_of_node()})"

    def pool_nodes(self) -> str:
        """How many nodes each pool has."""
        return f"count by (node_pool) {self._pool_of_node()}"

    def _select(self, metric: str, *matchers: str) -> str:
        return selector(metric, *matchers, matchers=self.labels.matchers)

    def _cpu_of_containers(self) -> str:
        # A restarted container has a new id and both may be in range: they are different CPU time, so both count.
        counter = self._select("container_cpu_usage_seconds_total", 'container!=""', 'container!="POD"')
        return f"max by (namespace, pod, container, id) (rate({counter}[{self.counter_range}]))"

    def _memory_of_containers(self) -> str:
        # But it frees the memory it held: the larger of both incarnations, not their sum.
        gauge = self._select("container_memory_working_set_bytes", 'container!=""', 'container!="POD"')
        return f"max by (namespace, pod, container) (avg_over_time({gauge}[{self.gauge_range}]))"

    def _per_gpu(self, metric: str) -> str:
        """One series per device (or MIG slice) and pod. A device that no pod holds is left out."""
        held = self._select(metric, 'pod!=""')
        # Without honor_labels an idle device carries the exporter's own pod.
        idle = self._select(metric, 'exported_pod=""', 'pod=~".*dcgm-exporter.*"')
        mean = _subject(f"(avg_over_time({held}[{self.gauge_range}]) unless {idle})", "namespace", "pod")
        device = f"max by (subject_namespace, subject_pod, UUID, GPU_I_ID) ({mean})"
        return _copy(_copy(device, "namespace", "subject_namespace"), "pod", "subject_pod")

    def _container_resources(self, metric: str) -> str:
        each = f"max by (namespace, pod, container, resource) ({self._select(metric, _RESOURCES)})"
        phase = self._select("kube_pod_status_phase", 'phase=~"Succeeded|Failed"')
        done = f"(max by (namespace, pod) ({phase}) == 1)"
        return f"sum by (namespace, pod, resource) ({each}) unless on (namespace, pod) {done}"

    def _periods(self, metric: str, *within: str) -> str:
        """The scheduler's periods a second of each pod's containers."""
        counter = self._select(metric, 'container!=""', 'container!="POD"', *within)
        each = f"max by (namespace, pod, container, id) (rate({counter}[{self.counter_range}]))"
        return f"sum by (namespace, pod) ({each})"

    def _killed(self) -> str:
        """Value 1 for each pod of which a container was killed for want of memory and started again in the step."""
        scrape = self.scrape_interval_seconds
        window = f"{max(self.step_seconds, scrape) + scrape}s"
        ended = self._select("kube_pod_container_status_last_terminated_reason", 'reason="OOMKilled"')
        starts = self._select("kube_pod_container_status_restarts_total")
        again = f"(increase({starts}[{window}]) > 0)"
        return f"max by (namespace, pod) ({again} and on (namespace, pod, container) ({ended} == 1)) > bool 0"

    def _running_throughout(self) -> str:
        """Value 1 for each pod that was running both when the range of a counter began and when it ended."""
        running = self._select("kube_pod_status_phase", 'phase="Running"')
        before = f"{running} offset {self.counter_range}"
        return f"max by (namespace, pod) (({running} == 1) and on (namespace, pod) ({before} == 1))"

    def _by_workload(self, per_pod: Mapping[str, str], *more: str) -> str:
        """Values per pod, added up per workload. The costly look-up of owners is done once for all of them."""
        each = " or ".join(_set(f"({vector})", "what", what) for what, vector in per_pod.items())
        joined = f"({each}) * on (namespace, pod) group_left (owner_kind, owner_name) {self._owners()}"
        return f"sum by ({', '.join((WORKLOAD, 'what', *more))}) ({joined})"

    def _owners(self, namespaces: str = "", names: str = "") -> str:
        """Value 1 for each pod, labelled with its workload; the first of these that knows the pod.

        With a matcher of namespaces and a pattern of names only the pods of workloads of those names.
        """
        within = (namespaces,) if namespaces else ()
        named = (f"owner_name=~{names}",) if names else ()
        alone_named = (f"pod=~{names}",) if names else ()

        def owned(metric: str, *matchers: str) -> str:
            return f"max_over_time({self._select(metric, *matchers, *within)}[{self.counter_range}])"

        alone = owned("kube_pod_owner", 'owner_kind=~"Node|<none>|"', *alone_named)
        known = (
            _through(
                owned("kube_pod_owner", 'owner_kind="ReplicaSet"'),
                owned("kube_replicaset_owner", 'owner_kind!~"<none>|"', *named),
                "replicaset",
            ),
            _through(
                owned("kube_pod_owner", 'owner_kind="Job"'),
                owned("kube_job_owner", 'owner_kind!~"<none>|"', *named),
                "job_name",
            ),
            owned("kube_pod_owner", 'owner_kind!~"Node|<none>|"', *named),
            _set(_copy(alone, "owner_name", "pod"), "owner_kind", "Pod"),
        )
        each = (f"max by (namespace, pod, owner_kind, owner_name) ({one})" for one in known)
        return f"topk by (namespace, pod) (1, {' or on (namespace, pod) '.join(each)})"

    def _pool_of_node(self) -> str:
        """Value 1 for each node, labelled with its pool."""
        named = _set(self._select("kube_node_labels"), "node_pool", NO_POOL)
        for label in reversed(self.labels.node_pool):
            named = _copy(named, "node_pool", label)
        unlabelled = _set(f"max by (node) ({self._select('kube_node_info')})", "node_pool", NO_POOL)
        return f"(topk by (node) (1, max by (node, node_pool) ({named})) or on (node) {unlabelled})"


def selector(metric: str, *conditions: str, matchers: Mapping[str, str]) -> str:
    """Series of a metric that meet the conditions and carry the labels."""
    equal = (f"{name}={quoted(value)}" for name, value in sorted(matchers.items()))
    inside = ", ".join((*conditions, *equal))
    return f"{metric}{{{inside}}}" if inside else metric


def capacity_of(resource: Resource) -> str:
    """What `what` says of the capacity for a resource."""
    return f"{resource.value}_capacity"


def pods_of(resource: Resource) -> str:
    """What `what` says of how many pods were measured for the resource."""
    return f"{resource.value}_pods"


def _through(pods: str, middle: str, label: str) -> str:
    """Pods with the workload that owns their owner in place of their owner."""
    owners = f"max by (namespace, {label}, owner_kind, owner_name) ({middle})"
    return (
        f"{_copy(pods, label, 'owner_name')} * on (namespace, {label}) group_left (owner_kind, owner_name)"
        f" topk by (namespace, {label}) (1, {owners})"
    )


def _subject(vector: str, *labels: str) -> str:
    """Labels `subject_…` name what is measured rather than what exports it.

    They are new labels: overwriting the exporter's own would make two exporters' series equal, which Prometheus
    refuses.
    """
    for label in labels:
        vector = _copy(_copy(vector, f"subject_{label}", label), f"subject_{label}", f"exported_{label}")
    return vector


def _with_host(vector: str) -> str:
    """The label `subject_host` names the node, or the host that was scraped."""
    host = f'label_replace({vector}, "subject_host", "$1", "instance", {quoted(HOST_OF_INSTANCE)})'
    return _copy(host, "subject_host", "node")


def _copy(vector: str, to: str, source: str) -> str:
    """The vector with one label copied to another name; as it was where the label is empty."""
    return f'label_replace({vector}, "{to}", "$1", "{source}", "(.+)")'


def _set(vector: str, label: str, value: str) -> str:
    return f'label_replace({vector}, "{label}", "{value}", "", "")'


def _any_of(values: Iterable[str]) -> str:
    """A quoted pattern that matches exactly these values, whatever characters they hold."""
    return quoted("|".join(re.escape(value) for value in dict.fromkeys(values)))


def _in_parts(names: Sequence[str]) -> Iterator[list[str]]:
    """The names in groups that fit into one query each, in their order."""
    part: list[str] = []
    length = 0
    for name in names:
        if part and length + len(name) > NAME_CHARACTERS:
            yield part
            part, length = [], 0
        part.append(name)
        length += len(name)
    if part:
        yield part
