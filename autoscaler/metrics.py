"""Every metric of the controller, in one place; dashboards and alerts are tested against these names.

Values that exist once per workload or node pool are published as one set per cycle, so that a scrape never sees
half a cycle and a workload that is gone leaves no series behind. Units are base units; the unit of a demand is that
of its `resource` label: cores, bytes, devices or requests per second.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import nan

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from autoscaler.tracing import span


@dataclass(frozen=True, slots=True)
class BudgetReading:
    """How the error budget of one workload stands."""

    level: float
    remaining: float
    short_burn_rate: float
    long_burn_rate: float
    burns_fast: bool


@dataclass(frozen=True, slots=True)
class CapacityReading:
    """What was learned that the replicas of one workload carry, in the base unit of its demand."""

    low: float
    likeliest: float
    high: float
    learned_at_seconds: float


@dataclass(frozen=True, slots=True)
class WorkloadReading:
    """What one cycle knew and wanted for one workload; None is "not known"."""

    workload: str
    resource: str
    current_replicas: int | None
    desired_replicas: int | None
    min_replicas: int | None = None
    max_replicas: int | None = None
    is_at_maximum: bool | None = None
    """Whether the observed demand needs more than the most replicas allowed, all of which are there."""
    observed: float | None = None
    forecast: float | None = None
    level: float | None = None
    ready_replicas: int | None = None
    data_age_seconds: float | None = None
    rung: str = "hold"
    hold_reason: str = ""
    budget: BudgetReading | None = None
    capacity: CapacityReading | None = None

    @property
    def namespace(self) -> str:
        """The first part of the workload's name."""
        return self.workload.split("/", 1)[0]


@dataclass(frozen=True, slots=True)
class PoolReading:
    """One node pool and resource: how much more than its allocatable may be requested, and why."""

    node_pool: str
    resource: str
    ratio: float
    predicted_peak: float | None
    allocatable: float
    usage: float | None
    requested: float | None = None


@dataclass(frozen=True, slots=True)
class PolicyGauges:
    """One OversubscriptionPolicy and resource over all its nodes."""

    policy: str
    resource: str
    rate: float
    violations: int
    budget_used: float
    severity: float
    oracle_rate: float | None


@dataclass(frozen=True, slots=True)
class NodeGauges:
    """One node and resource that a policy is about; amounts in the resource's base unit."""

    node: str
    resource: str
    predicted_peak: float | None
    reclaimable: float
    offered: float
    sold: float
    is_suspended: bool
    is_stale: bool
    cpu_pressure: float | None = None
    """Of the node: share of time in which some task waited for a CPU."""


@dataclass(eq=False)
class _Published(Collector):
    """Gauges of the last cycle, replaced as a whole."""

    workloads: tuple[WorkloadReading, ...] = ()
    pools: tuple[PoolReading, ...] = ()
    policies: tuple[PolicyGauges, ...] = ()
    nodes: tuple[NodeGauges, ...] = ()
    gpu_policies: tuple[PolicyGauges, ...] = ()
    gpu_nodes: tuple[NodeGauges, ...] = ()

    def collect(self) -> Iterable[Metric]:
        """The families of all sets."""
        yield from _workload_families(self.workloads)
        yield from _pool_families(self.pools)
        yield from _policy_families((*self.policies, *self.gpu_policies))
        yield from _node_families((*self.nodes, *self.gpu_nodes))


def _family(
    name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float | None]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for label_values, value in values:
        if value is not None:
            family.add_metric(label_values, value)
    return family


def _workload_families(readings: tuple[WorkloadReading, ...]) -> Iterator[GaugeMetricFamily]:
    replica_gauges: tuple[tuple[str, str, Callable[[WorkloadReading], float | None]], ...] = (
        ("foresize_current_replicas", "Replicas that the workload's scale asks for.", lambda r: r.current_replicas),
        ("foresize_ready_replicas", "Replicas that are Ready.", lambda r: r.ready_replicas),
        ("foresize_desired_replicas", "Replicas that foresize decided on.", lambda r: r.desired_replicas),
        ("foresize_min_replicas", "Fewest replicas allowed.", lambda r: r.min_replicas),
        ("foresize_max_replicas", "Most replicas allowed.", lambda r: r.max_replicas),
        (
            "foresize_at_max_replicas",
            "1 where the observed demand needs more than the most replicas allowed, all of which are there; else 0.",
            lambda r: r.is_at_maximum,
        ),
    )
    for name, text, value_of in replica_gauges:
        yield _family(
            name, text, ("namespace", "workload"), [((r.namespace, r.workload), value_of(r)) for r in readings]
        )
    demand_gauges: tuple[tuple[str, str, Callable[[WorkloadReading], float | None]], ...] = (
        ("foresize_demand_observed", "Newest observed demand, in the resource's base unit.", lambda r: r.observed),
        ("foresize_data_age_seconds", "Age of the workload's newest sample.", lambda r: r.data_age_seconds),
    )
    for name, text, value_of in demand_gauges:
        yield _family(
            name,
            text,
            ("namespace", "workload", "resource"),
            [((r.namespace, r.workload, r.resource), value_of(r)) for r in readings],
        )
    yield _family(
        "foresize_demand_forecast",
        "Highest forecast demand within the lead time, by the quantile level that the SLA states; at the one that "
        "foresize_error_budget_level shows, where there is one.",
        ("namespace", "workload", "resource", "level"),
        [
            ((r.namespace, r.workload, r.resource, f"{r.level:.10g}"), r.forecast)
            for r in readings
            if r.level is not None
        ],
    )
    yield _family(
        "foresize_workload_rung",
        "1 for the rung of the ladder that answered for the workload (champion, previous, "
        "seasonal_naive, reactive, hold).",
        ("namespace", "workload", "rung"),
        [((r.namespace, r.workload, r.rung), 1.0) for r in readings],
    )
    yield from _budget_families([(r, r.budget) for r in readings if r.budget is not None])
    yield from _capacity_families([(r, r.capacity) for r in readings if r.capacity is not None])
    held: dict[str, int] = {}
    for reading in readings:
        if reading.hold_reason:
            held[reading.hold_reason] = held.get(reading.hold_reason, 0) + 1
    yield _family(
        "foresize_holds", "Workloads left alone in the last cycle, by reason.", ("reason",),
        [((reason,), count) for reason, count in sorted(held.items())],
    )  # fmt: skip
    yield _family("foresize_managed_workloads", "Workloads that foresize looks after.", (), [((), len(readings))])


def _capacity_families(learned: Sequence[tuple[WorkloadReading, CapacityReading]]) -> Iterator[GaugeMetricFamily]:
    gauges: tuple[tuple[str, str, Callable[[CapacityReading], float]], ...] = (
        (
            "foresize_capacity_relied_on",
            "Demand that the workload's replicas carry all but surely within its latency SLO, or without being "
            "throttled, as learned: the 2.5 % quantile, by which replicas are chosen.",
            lambda c: c.low,
        ),
        ("foresize_capacity_likeliest", "Demand that they likeliest carry, as learned.", lambda c: c.likeliest),
        (
            "foresize_capacity_at_most",
            "Demand that they carry at most, as learned: the 97.5 % quantile.",
            lambda c: c.high,
        ),
    )
    for name, text, value_of in gauges:
        yield _family(
            name,
            text,
            ("namespace", "workload", "resource"),
            [((r.namespace, r.workload, r.resource), value_of(c)) for r, c in learned],
        )
    yield _family(
        "foresize_capacity_learned_timestamp_seconds",
        "When that was learned.",
        ("namespace", "workload"),
        [((r.namespace, r.workload), c.learned_at_seconds) for r, c in learned],
    )


def _budget_families(budgets: Sequence[tuple[WorkloadReading, BudgetReading]]) -> Iterator[GaugeMetricFamily]:
    gauges: tuple[tuple[str, str, Callable[[BudgetReading], float]], ...] = (
        (
            "foresize_error_budget_level",
            "Quantile level at which demand must fit what is ready, as the error budget has moved it.",
            lambda b: b.level,
        ),
        (
            "foresize_error_budget_remaining",
            "Share of the last 28 days' error budget that is left; below 0 where more was violated than allowed.",
            lambda b: b.remaining,
        ),
        (
            "foresize_error_budget_burns_fast",
            "1 where violations come so fast that nothing is removed.",
            lambda b: float(b.burns_fast),
        ),
    )
    for name, text, value_of in gauges:
        yield _family(
            name, text, ("namespace", "workload"), [((r.namespace, r.workload), value_of(b)) for r, b in budgets]
        )
    yield _family(
        "foresize_error_budget_burn_rate",
        "Share of time in violation / the share that is allowed, over the long window, scaling.error_budget_window, "
        "and the short one, a twelfth of it.",
        ("namespace", "workload", "window"),
        [
            ((r.namespace, r.workload, window), rate)
            for r, b in budgets
            for window, rate in (("short", b.short_burn_rate), ("long", b.long_burn_rate))
        ],
    )


def _pool_families(readings: tuple[PoolReading, ...]) -> Iterator[GaugeMetricFamily]:
    gauges: tuple[tuple[str, str, Callable[[PoolReading], float | None]], ...] = (
        (
            "foresize_oversubscription_ratio",
            "Requests allowed on the pool / its allocatable; 1 is none.",
            lambda r: r.ratio,
        ),
        (
            "foresize_pool_predicted_peak",
            "Peak of the pool's usage within the horizon at the SLA percentile.",
            lambda r: r.predicted_peak,
        ),
        ("foresize_pool_allocatable", "What the pool's nodes leave for pods.", lambda r: r.allocatable),
        ("foresize_pool_usage", "Newest observed usage of the pool.", lambda r: r.usage),
        ("foresize_pool_requested", "Requests of the pods in the pool.", lambda r: r.requested),
    )
    for name, text, value_of in gauges:
        yield _family(
            name, text, ("node_pool", "resource"), [((r.node_pool, r.resource), value_of(r)) for r in readings]
        )


def _policy_families(readings: tuple[PolicyGauges, ...]) -> Iterator[GaugeMetricFamily]:
    gauges: tuple[tuple[str, str, Callable[[PolicyGauges], float | None]], ...] = (
        (
            "foresize_policy_oversubscription_rate",
            "What may be requested of a policy's nodes on whatever terms / their allocatable; 1 is none.",
            lambda r: r.rate,
        ),
        (
            "foresize_policy_violations",
            "Nodes and horizons within the budget's window in which the peak was exceeded or the guard stepped in.",
            lambda r: r.violations,
        ),
        (
            "foresize_policy_budget_used_ratio",
            "Violations within the window / those that violationProbability allows; above 1 it is overdrawn.",
            lambda r: r.budget_used,
        ),
        (
            "foresize_policy_violation_severity_ratio",
            "Largest share of usage by which the predicted peak was too low within the window.",
            lambda r: r.severity,
        ),
        (
            "foresize_policy_oracle_rate",
            "The rate, had the usage of the horizon that has just ended been known before it.",
            lambda r: r.oracle_rate,
        ),
    )
    for name, text, value_of in gauges:
        yield _family(name, text, ("policy", "resource"), [((r.policy, r.resource), value_of(r)) for r in readings])


def _node_families(readings: tuple[NodeGauges, ...]) -> Iterator[GaugeMetricFamily]:
    gauges: tuple[tuple[str, str, Callable[[NodeGauges], float | None]], ...] = (
        ("foresize_node_predicted_peak", "Predicted peak of the node's ordinary pods.", lambda r: r.predicted_peak),
        ("foresize_node_reclaimable", "What of the node may be sold a second time.", lambda r: r.reclaimable),
        ("foresize_node_offered", "What the node's status offers of it.", lambda r: r.offered),
        ("foresize_node_sold", "What pods on the node ask for of it.", lambda r: r.sold),
    )
    for name, text, value_of in gauges:
        yield _family(name, text, ("node", "resource"), [((r.node, r.resource), value_of(r)) for r in readings])
    states: tuple[tuple[str, str, Callable[[NodeGauges], bool]], ...] = (
        (
            "foresize_node_suspended",
            "1 where nothing more of some resource is sold on the node.",
            lambda r: r.is_suspended,
        ),
        (
            "foresize_node_stale",
            "1 where the node's usage, or its GPUs, was not measured lately.",
            lambda r: r.is_stale,
        ),
    )
    for name, text, holds in states:
        by_node: dict[str, bool] = {}
        for r in readings:
            by_node[r.node] = by_node.get(r.node, False) or holds(r)
        yield _family(name, text, ("node",), [((node,), float(value)) for node, value in by_node.items()])
    pressure = {r.node: r.cpu_pressure for r in readings if r.cpu_pressure is not None}
    text = "Share of time in which tasks of the node waited for CPU, where that is measured."
    yield _family("foresize_node_cpu_pressure", text, ("node",), [((node,), value) for node, value in pressure.items()])


@dataclass
class AutoscalerMetrics:
    """The controller's metrics, registered in one registry."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        registry = self.registry
        self.decisions = Counter(
            "foresize_decisions_total",
            "Decisions by what was decided (scale_up, scale_down, hold), why (reason code) and what came of it "
            "(applied, observed, dry_run, skipped, failed, none).",
            ("decision", "reason", "outcome"),
            registry=registry,
        )
        self.cycles = Counter(
            "foresize_cycles_total",
            "Cycles of the loop by outcome (complete, held, failed, standby).",
            ("outcome",),
            registry=registry,
        )
        self.errors = Counter(
            "foresize_dependency_errors_total",
            "Errors of what the controller depends on, by error type.",
            ("dependency", "error"),
            registry=registry,
        )
        self.dependency_up = Gauge(
            "foresize_dependency_up",
            "1 where the last exchange with it went well (prometheus, or history for a file; registry, kubernetes).",
            ("dependency",),
            registry=registry,
        )
        self.step_seconds = Histogram(
            "foresize_step_duration_seconds",
            "Time that each step of the loop took; `cycle` is all of them together.",
            ("step",),
            buckets=(0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=registry,
        )
        self.last_complete_cycle = Gauge(
            "foresize_last_complete_cycle_timestamp_seconds",
            "When a cycle last saw the whole cluster and had answers.",
            registry=registry,
        )
        self.acting = Gauge(
            "foresize_acting",
            "1 where decisions are carried out for objects in mode Auto, 0 in a dry run, a pause or on standby.",
            registry=registry,
        )
        self.api_requests = Counter(
            "foresize_kubernetes_requests_total",
            "Answers of the Kubernetes API by method (WATCH is one for each watch that began) and status.",
            ("method", "status"),
            registry=registry,
        )
        self.snapshot_age = Gauge(
            "foresize_snapshot_age_seconds",
            "How long ago the oldest part of the last snapshot was known to be current.",
            registry=registry,
        )
        self.leader = Gauge("foresize_leader", "1 where this copy holds the lease.", registry=registry)
        self.statuses_waiting = Gauge(
            "foresize_statuses_waiting",
            "Statuses that were not written for want of budget or answer.",
            registry=registry,
        )
        self.resizes = Counter(
            "foresize_pod_resizes_total",
            "Resizes of running pods in place by what came of them (applied, observed, dry_run, skipped, failed).",
            ("outcome",),
            registry=registry,
        )
        self.node_writes = Counter(
            "foresize_node_writes_total",
            "Changes of what nodes offer by what came of them (applied, skipped, failed).",
            ("outcome",),
            registry=registry,
        )
        self.node_looks = Counter(
            "foresize_node_looks_total",
            "Looks at the nodes that OversubscriptionPolicies select (complete, failed, standby: another copy leads).",
            ("outcome",),
            registry=registry,
        )
        self.node_suspensions = Counter(
            "foresize_node_suspensions_total",
            "How often nothing more was sold on a node, as too much of it was used.",
            registry=registry,
        )
        self.evictions = Counter(
            "foresize_evictions_total",
            "Evictions of pods that run on what was reclaimed by what came of them (applied, skipped, failed).",
            ("outcome",),
            registry=registry,
        )
        self.events_held_back = Counter(
            "foresize_events_held_back_total",
            "Events that were not made, as their object had too many.",
            registry=registry,
        )
        self.paused = Gauge("foresize_paused", "1 where the whole controller is paused.", registry=registry)
        self.model_age = Gauge(
            "foresize_model_age_seconds", "Time since the serving model was loaded anew.", registry=registry
        )
        self.model_trained_age = Gauge(
            "foresize_model_trained_age_seconds",
            "Time since the serving model was fitted; NaN where no model serves.",
            registry=registry,
        )
        self.model_trained_age.set(nan)
        self.model = Gauge(
            "foresize_model_info",
            "1 for the serving model version and where it came from (registry, last_good, previous).",
            ("version", "origin"),
            registry=registry,
        )
        self.newest_sample_age = Gauge(
            "foresize_newest_sample_age_seconds",
            "Age of the newest sample of any workload; grows while Prometheus is gone.",
            registry=registry,
        )
        self._published = _Published()
        registry.register(self._published)

    def publish_workloads(self, readings: Iterable[WorkloadReading]) -> None:
        """Replaces what the last cycle published about workloads."""
        self._published.workloads = tuple(readings)

    def publish_pools(self, readings: Iterable[PoolReading]) -> None:
        """Replaces what the last cycle published about node pools."""
        self._published.pools = tuple(readings)

    def publish_nodes(self, policies: Iterable[PolicyGauges], nodes: Iterable[NodeGauges]) -> None:
        """Replaces what the last look published about OversubscriptionPolicies and the nodes that they select."""
        self._published.policies = tuple(policies)
        self._published.nodes = tuple(nodes)

    def publish_gpus(self, policies: Iterable[PolicyGauges], nodes: Iterable[NodeGauges]) -> None:
        """The same of policies that share GPUs; amounts are devices and shares of them."""
        self._published.gpu_policies = tuple(policies)
        self._published.gpu_nodes = tuple(nodes)

    @contextmanager
    def timed(self, step: str, **attributes: str) -> Iterator[None]:
        """Times one step of the loop, and makes it a span of the trace with these attributes."""
        with self.step_seconds.labels(step).time(), span(step, attributes=attributes):
            yield


@dataclass
class WebhookMetrics:
    """The webhook's metrics, registered in one registry."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.pods = Counter(
            "foresize_webhook_pods_total",
            "Pods that were asked about by rule (amplify, reclaim), what came of it (changed, left_alone, refused: not "
            "a review of a pod) and, where a pod was left alone, why (reason code).",
            ("rule", "outcome", "reason"),
            registry=self.registry,
        )
        self.certificate_expires = Gauge(
            "foresize_webhook_certificate_expiry_timestamp_seconds",
            "When the certificate that is served expires; it is renewed 30 days before.",
            registry=self.registry,
        )
        self.is_on = Gauge(
            "foresize_webhook_on",
            "1 where the MutatingWebhookConfiguration is there and trusts the certificate that is served.",
            registry=self.registry,
        )
