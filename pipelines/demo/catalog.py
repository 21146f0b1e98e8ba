"""The demo's cluster: its node pools and workloads. Numbers are those of a shop that runs its own platform."""

from dataclasses import dataclass

from pipelines.demo.patterns import CONSUMER, EVEN_WEEK, GLOBAL, OFFICE, SHOPPING_WEEK, WORKING_WEEK, Demand
from predictor.usage.kin import Kin

GIB = 2**30
REGISTRY = "registry.example.com:5000"
OWNER_KIND = "ModelFleet"
APPLICATIONS = {"shop": "storefront", "payments": "payments"}
"""By namespace: the application that its workloads are labelled as part of."""
_STEADY = Demand()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePoolSpec:
    """Nodes of one shape."""

    name: str
    nodes: int
    cores: float
    memory_gib: float
    gpus: int = 0
    gpu_memory_mib: int = 0
    gpu_model: str = ""
    has_profiling: bool = True
    """Whether DCGM offers its profiling metrics there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """One workload and how it behaves."""

    namespace: str
    name: str
    kind: str = "Deployment"
    pool: str = "general"
    demand: Demand = _STEADY
    peak_cores: float = 1.0
    """Cores of all its pods together at a usual peak."""
    idle_cores: float = 0.01
    """Cores of each pod without any demand."""
    replicas: int = 2
    most_replicas: int = 0
    """Above `replicas`: an HPA moves it between the two, as it does in the cluster today."""
    request_cores: float = 1.0
    request_gib: float = 1.0
    limit_gib: float = 2.0
    limit_cores: float = 0.0
    """Above 0: each pod is throttled there, and in single periods from well below it on."""
    memory_gib: float = 0.5
    """Memory of each pod without any demand."""
    memory_per_core_gib: float = 0.2
    leak_gib_per_day: float = 0.0
    """Grows until the limit, then the container is killed and starts again."""
    peak_requests: float = 0.0
    """Requests per second through the ingress at a usual peak; 0: not behind the ingress."""
    has_latency: bool = False
    deploys_per_week: float = 1.0
    born_days_before_end: float | None = None
    cron_hours: tuple[float, ...] = ()
    """CronJob: hours of the day at which a job starts."""
    cron_minutes: float = 20.0
    gpu_memory_mib: float = 0.0
    """Device memory that each pod's model takes; above 0, each pod holds one GPU."""
    image: str = ""
    """Repository of its image within the cluster's registry; by default its own, `namespace/name`."""
    owner: str = ""
    """Name of the ModelFleet, a custom resource, that owns the Deployment."""

    @property
    def repository(self) -> str:
        """Where its image comes from."""
        return f"{REGISTRY}/{self.image or f'{self.namespace}/{self.name}'}"

    @property
    def kin(self) -> Kin:
        """What kube-state-metrics shows of its image and of what owns it."""
        part_of = APPLICATIONS.get(self.namespace, "")
        label = f"part-of/{part_of}" if part_of else ""
        return Kin(self.repository, f"{OWNER_KIND}/{self.owner}" if self.owner else label)

    @property
    def key(self) -> str:
        """`namespace/kind/name`."""
        return f"{self.namespace}/{self.kind}/{self.name}"


POOLS: tuple[NodePoolSpec, ...] = (
    NodePoolSpec(name="general", nodes=5, cores=15.6, memory_gib=58),
    NodePoolSpec(name="memory", nodes=2, cores=7.8, memory_gib=60),
    NodePoolSpec(name="gpu", nodes=2, cores=31.5, memory_gib=120, gpus=4, gpu_memory_mib=40_960,
                 gpu_model="NVIDIA A100-SXM4-40GB"),
    NodePoolSpec(name="gpu-small", nodes=1, cores=15.5, memory_gib=58, gpus=2, gpu_memory_mib=16_384,
                 gpu_model="NVIDIA T4", has_profiling=False),
)  # fmt: skip

_SHOP = Demand(day=CONSUMER, week=SHOPPING_WEEK, drift=0.06)
_OFFICE = Demand(day=OFFICE, week=WORKING_WEEK)
_WORLD = Demand(day=GLOBAL, week=EVEN_WEEK)
_IDLE = Demand(day=((0, 0.02), (24, 0.02)), floor=0.01)

WORKLOADS: tuple[WorkloadSpec, ...] = (
    # The shop: evenings and weekends.
    WorkloadSpec(namespace="shop", name="web", demand=_SHOP, peak_cores=5.5, replicas=2, most_replicas=6,
                 request_cores=1.5, peak_requests=320, has_latency=True, deploys_per_week=3),
    WorkloadSpec(namespace="shop", name="catalog", demand=_SHOP, peak_cores=2.6, replicas=3, request_cores=2,
                 peak_requests=220, deploys_per_week=2),
    WorkloadSpec(namespace="shop", name="cart", demand=_SHOP, peak_cores=1.6, request_cores=1.5, peak_requests=90),
    WorkloadSpec(namespace="shop", name="checkout", peak_cores=3.2, replicas=2, most_replicas=5,
                 demand=Demand(day=CONSUMER, week=SHOPPING_WEEK, pushes=((12, 0.5), (19.5, 0.7)), jitter=0.05),
                 peak_requests=60, has_latency=True, deploys_per_week=2),
    WorkloadSpec(namespace="shop", name="search", peak_cores=3.4, replicas=2, request_cores=3, request_gib=3,
                 demand=Demand(day=CONSUMER, week=SHOPPING_WEEK, bursts_per_week=4), limit_gib=6, memory_gib=2,
                 peak_requests=150),
    WorkloadSpec(namespace="shop", name="recommendations", demand=_WORLD, peak_cores=1.7, request_cores=1.5,
                 memory_gib=1.4, request_gib=2, limit_gib=4),
    WorkloadSpec(namespace="shop", name="gift-cards", demand=_SHOP, peak_cores=0.8, replicas=1, peak_requests=15,
                 born_days_before_end=1.4, deploys_per_week=0),
    # Payments.
    WorkloadSpec(namespace="payments", name="gateway", peak_cores=3.6, replicas=2, most_replicas=6,
                 demand=Demand(day=CONSUMER, week=EVEN_WEEK, drift=0.1), peak_requests=110, has_latency=True),
    WorkloadSpec(namespace="payments", name="ledger", demand=_OFFICE, peak_cores=1.4, request_cores=2),
    WorkloadSpec(namespace="payments", name="fraud", peak_cores=2.0, request_cores=2, memory_gib=1.6, request_gib=2,
                 demand=Demand(day=CONSUMER, week=SHOPPING_WEEK, jitter=0.08), limit_gib=4),
    # Accounts: the working day's steep morning.
    WorkloadSpec(namespace="accounts", name="login", peak_cores=2.8, replicas=1, most_replicas=5,
                 demand=Demand(day=OFFICE, week=WORKING_WEEK, day_to_day=0.08), request_cores=0.75,
                 peak_requests=80),
    WorkloadSpec(namespace="accounts", name="profile", demand=_OFFICE, peak_cores=0.8, peak_requests=50),
    WorkloadSpec(namespace="accounts", name="sessions", kind="StatefulSet", pool="memory", demand=_SHOP, peak_cores=0.7,
                 request_gib=10, limit_gib=14, memory_gib=6, memory_per_core_gib=4, deploys_per_week=0.3),
    # Data.
    WorkloadSpec(namespace="data", name="postgres", kind="StatefulSet", pool="memory", peak_cores=2.8, request_cores=3,
                 demand=Demand(day=CONSUMER, week=EVEN_WEEK, pushes=((2, 0.35),)), request_gib=24, limit_gib=28,
                 memory_gib=19, memory_per_core_gib=0.5, deploys_per_week=0.3),
    WorkloadSpec(namespace="data", name="kafka", kind="StatefulSet", demand=_WORLD, peak_cores=1.8, replicas=3,
                 request_gib=6, limit_gib=8, memory_gib=4, deploys_per_week=0.3),
    WorkloadSpec(namespace="data", name="ingest", peak_cores=2.2, request_cores=2,
                 demand=Demand(day=GLOBAL, pushes=tuple((h, 0.25) for h in range(0, 24, 4))), image="data/stream"),
    WorkloadSpec(namespace="data", name="enrich", peak_cores=1.8, replicas=1, most_replicas=4, request_cores=0.75,
                 demand=Demand(day=OFFICE, week=WORKING_WEEK, bursts_per_week=3, floor=0.05), image="data/stream"),
    # Media: bursts that nobody can know beforehand.
    WorkloadSpec(namespace="media", name="transcoder", peak_cores=3.6, request_cores=3, request_gib=2, limit_gib=4,
                 demand=Demand(day=((0, 0.2), (24, 0.2)), bursts_per_week=14, burst_height=0.9, floor=0.03)),
    WorkloadSpec(namespace="media", name="thumbnails", peak_cores=2.2, replicas=1, most_replicas=5, request_cores=0.75,
                 demand=Demand(day=CONSUMER, week=SHOPPING_WEEK, jitter=0.15, bursts_per_week=5)),
    # Platform.
    WorkloadSpec(namespace="kube-system", name="coredns", demand=_WORLD, peak_cores=0.3, request_cores=0.1,
                 limit_cores=0.2, request_gib=0.1, limit_gib=0.2, memory_gib=0.05, deploys_per_week=0),
    WorkloadSpec(namespace="ops", name="log-shipper", kind="DaemonSet", pool="*", demand=_WORLD, peak_cores=0.9,
                 request_cores=0.2, request_gib=0.25, limit_gib=0.5, memory_gib=0.15, deploys_per_week=0.3),
    WorkloadSpec(namespace="ops", name="image-cache", demand=_OFFICE, peak_cores=0.5, replicas=1, request_gib=2,
                 limit_gib=4, memory_gib=0.6, leak_gib_per_day=0.9, deploys_per_week=0.2),
    WorkloadSpec(namespace="ops", name="metrics", kind="StatefulSet", peak_cores=1.2, replicas=1, request_cores=2,
                 demand=Demand(floor=0.3, pushes=tuple((h, 0.6) for h in range(1, 24, 2))), request_gib=8, limit_gib=12,
                 memory_gib=5, deploys_per_week=0.3),
    WorkloadSpec(namespace="ops", name="legacy-admin", demand=_IDLE, peak_cores=0.02, request_cores=1.5,
                 idle_cores=0.004, deploys_per_week=0),
    WorkloadSpec(namespace="staging", name="web", demand=_OFFICE, peak_cores=0.15, replicas=1, deploys_per_week=5,
                 image="shop/web"),
    # Batch.
    WorkloadSpec(namespace="batch", name="nightly-report", kind="CronJob", peak_cores=3.0, request_cores=2,
                 request_gib=4, limit_gib=6, memory_gib=2.5, cron_hours=(2,), cron_minutes=95, image="batch/jobs"),
    WorkloadSpec(namespace="batch", name="sync", kind="CronJob", peak_cores=0.8, request_cores=0.5,
                 limit_cores=0.6, cron_hours=tuple(range(0, 24, 2)), cron_minutes=25, image="batch/jobs"),
    WorkloadSpec(namespace="batch", name="backup", kind="CronJob", pool="memory", peak_cores=1.0, request_cores=0.5,
                 cron_hours=(0.5, 12.5), cron_minutes=45),
    # Machine learning.
    WorkloadSpec(namespace="ml", name="chat", pool="gpu", demand=_WORLD, peak_cores=4.0, replicas=4, request_cores=3,
                 request_gib=16, limit_gib=24, memory_gib=11, gpu_memory_mib=33_800, peak_requests=24,
                 deploys_per_week=0.7, image="ml/inference", owner="assistant"),
    WorkloadSpec(namespace="ml", name="embeddings", pool="gpu", peak_cores=1.5, replicas=1, request_cores=2,
                 demand=Demand(day=((0, 0.9), (5, 1.0), (6, 0.25), (21, 0.2), (22, 0.8), (24, 0.9)), jitter=0.08),
                 request_gib=8, limit_gib=12, memory_gib=5, gpu_memory_mib=9_600, deploys_per_week=0.3,
                 image="ml/inference", owner="assistant"),
    WorkloadSpec(namespace="ml", name="vision", pool="gpu-small", demand=_OFFICE, peak_cores=1.4, replicas=2,
                 request_gib=6, limit_gib=8, memory_gib=4, gpu_memory_mib=7_200, peak_requests=18,
                 deploys_per_week=0.5),
    WorkloadSpec(namespace="ml", name="notebook", kind="Pod", pool="gpu", demand=_IDLE, peak_cores=0.3, replicas=1,
                 request_cores=4, request_gib=16, limit_gib=16, memory_gib=3, gpu_memory_mib=2_100, deploys_per_week=0),
)  # fmt: skip
