"""Builds the controller from settings: the only place that knows its ports and their adapters."""

import gc
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoscaler.controller.capacities import CapacityWatch
    from autoscaler.controller.indicators import IndicatorWatch
    from autoscaler.controller.loop import Controller, CycleReport
    from autoscaler.controller.nodes import NodeControl
    from autoscaler.controller.vertical import VerticalScaling
    from autoscaler.errors import AutoscalerError
    from autoscaler.settings import AutoscalerSettings
    from predictor.serving.ports import UsageSource
    from predictor.serving.predictor import Predictor

CERTIFICATE_SECONDS = 60.0
"""How often the webhook's certificate and configuration are looked at …"""
CERTIFICATE_RETRY_SECONDS = 5.0
"""… and until there is a first one."""


def build_predictor_for_scaling(
    settings: "AutoscalerSettings", source: "UsageSource", *, learns_as: str | None = None
) -> "Predictor":
    """The predictor with the level, the resources and the patience that scaling needs."""
    from autoscaler.controller.policy import DEMAND_RESOURCES, level_of
    from autoscaler.decisions.break_even import BREAK_EVEN_LEVEL
    from predictor.wiring import build_predictor

    return build_predictor(
        settings,
        source,
        levels=sorted({*settings.forecast.levels, BREAK_EVEN_LEVEL, level_of(settings.scaling.sla_percentile)}),
        stale_after=settings.scaling.stale_after,
        resources=DEMAND_RESOURCES,
        # Up to one step lies between the end of what was observed and now.
        peaks_within=max(settings.scaling.longest_lead_time, settings.scaling.break_even) + settings.history.step,
        learns_as=learns_as,
    )


def build_controller(
    settings: "AutoscalerSettings",
    *,
    is_dry_run: bool = False,
    kubeconfig: Path | None = None,
    context: str | None = None,
    source: "UsageSource | None" = None,
    is_patient: bool = False,
) -> "Controller":
    """A controller over the cluster that the kubeconfig names and the usage source in the settings.

    A dry run takes no part in the election: it writes nothing, so it need not lead. A patient one, which decides once,
    waits for what is learned beside the loop.
    """
    from autoscaler.controller.loop import Controller
    from autoscaler.controller.memory import MemoryLeadership
    from autoscaler.kube.client import KubeClient
    from autoscaler.kube.clocks import seconds_since_boot
    from autoscaler.kube.cluster import KubeCluster
    from autoscaler.kube.lease import LeaseElector
    from autoscaler.metrics import AutoscalerMetrics
    from predictor.sources.files import FileSource
    from predictor.sources.prometheus import PrometheusSource
    from predictor.usage.panel import Resource
    from predictor.wiring import build_source

    scaling, pooled = settings.scaling, settings.oversubscription.resources
    identity = f"{socket.gethostname()}_{secrets.token_hex(4)}"
    metrics = AutoscalerMetrics()
    client = KubeClient.connect(kubeconfig, context)
    client.told = lambda method, status: metrics.api_requests.labels(method, str(status)).inc()
    cluster = KubeCluster(client, scaling.namespaces, scaling.namespace_selector, identity, seconds_since_boot)
    leadership: LeaseElector | MemoryLeadership
    if is_dry_run:
        leadership = MemoryLeadership(identity=identity)
    else:
        leadership = LeaseElector(
            client, scaling.lease_namespace, scaling.lease_name, identity, seconds_since_boot, time.time
        )
        leadership.start()
    usage = source or build_source(settings)
    return Controller(
        cluster,
        cluster,
        build_predictor_for_scaling(settings, usage, learns_as="controller"),
        scaling,
        time.time,
        leadership,
        metrics,
        is_dry_run=is_dry_run,
        vertical=build_vertical(settings, usage),
        indicators=build_indicators(settings, usage),
        usage_from="history" if isinstance(usage, FileSource) else "prometheus",
        capacities=build_capacities(settings, usage, is_patient=is_patient),
        monotonic=seconds_since_boot,
        # A file does not know what node pools have to give.
        other_resources=frozenset(map(Resource, pooled if isinstance(usage, PrometheusSource) else ())),
    )


def build_vertical(settings: "AutoscalerSettings", source: "UsageSource") -> "VerticalScaling | None":
    """What sizes containers; none where the source cannot say what single containers use, not even that it cannot."""
    from autoscaler.controller.advisor import RequestAdvisor
    from autoscaler.controller.vertical import VerticalScaling
    from predictor.sources.files import FileSource
    from predictor.sources.prometheus import PrometheusSource

    if not isinstance(source, PrometheusSource | FileSource):
        return None
    step = int(settings.history.step.total_seconds())
    return VerticalScaling(RequestAdvisor(source, settings.vertical, step), settings.vertical)


def build_indicators(settings: "AutoscalerSettings", source: "UsageSource") -> "IndicatorWatch":
    """What reads the indicators of SLAs; it answers none where the source evaluates no queries."""
    from autoscaler.controller.indicators import IndicatorWatch
    from predictor.sources.prometheus import PrometheusSource

    step = int(settings.history.step.total_seconds())
    return IndicatorWatch(source if isinstance(source, PrometheusSource) else None, step, _rate_window(settings))


def build_capacities(
    settings: "AutoscalerSettings", source: "UsageSource", *, is_patient: bool = False
) -> "CapacityWatch":
    """What learns what replicas carry; it learns nothing where the source evaluates no queries."""
    from autoscaler.controller.capacities import CapacityWatch
    from predictor.sources.prometheus import PrometheusSource

    known = source if isinstance(source, PrometheusSource) else None
    return CapacityWatch(known, settings.scaling, _rate_window(settings), is_patient)


def _rate_window(settings: "AutoscalerSettings") -> int:
    """What the rates of a histogram look back over, in seconds: the step, and at least two scrapes."""
    step, scrape = settings.history.step.total_seconds(), settings.prometheus.scrape_interval.total_seconds()
    return int(max(step, 2 * scrape))


def lease_problem(controller: "Controller") -> "AutoscalerError | None":
    """Why this copy could not read or write the lease the last time; None where it could, or needs none."""
    from autoscaler.kube.lease import LeaseElector

    return controller.leadership.problem if isinstance(controller.leadership, LeaseElector) else None


def close_controller(controller: "Controller", nodes: "NodeControl | None" = None) -> None:
    """Gives up the lease, so that the next copy need not wait for its end, and ends the watches."""
    from autoscaler.kube.cluster import KubeCluster
    from autoscaler.kube.lease import LeaseElector
    from autoscaler.kube.nodes import KubeNodes

    if isinstance(controller.leadership, LeaseElector):
        controller.leadership.release()
    if nodes is not None and isinstance(nodes.cluster, KubeNodes):
        nodes.cluster.close()
    if isinstance(controller.reader, KubeCluster):
        controller.reader.close()
        controller.reader.client.close()


def build_pool_watch(
    settings: "AutoscalerSettings", controller: "Controller", source: "UsageSource"
) -> "Callable[[CycleReport], None]":
    """What to do after each cycle: now and then, say how much each node pool may be oversold.

    Nothing where the source does not know node pools, as a file does not.
    """
    from autoscaler.controller.pools import PoolWatch
    from predictor.sources.prometheus import PrometheusSource

    if not isinstance(source, PrometheusSource):
        return lambda _: None
    return PoolWatch(source, settings.oversubscription, controller.metrics).after_cycle


def build_node_control(
    settings: "AutoscalerSettings", controller: "Controller", source: "UsageSource", *, is_patient: bool = False
) -> "NodeControl | None":
    """What oversells nodes beside the loop; none where the source does not know nodes, as a file does not."""
    from autoscaler.controller.gpu_sharing import GpuSharing
    from autoscaler.controller.node_peaks import PeakTeller
    from autoscaler.controller.node_usage import UsageReader
    from autoscaler.controller.nodes import NodeControl
    from autoscaler.kube.cluster import KubeCluster
    from autoscaler.kube.nodes import KubeNodes
    from predictor.sources.prometheus import PrometheusSource

    if not isinstance(source, PrometheusSource) or not isinstance(controller.reader, KubeCluster):
        return None
    cluster = controller.reader
    nodes = KubeNodes(cluster.client, cluster.identity, cluster.clock)
    step = int(settings.history.step.total_seconds())
    teller = PeakTeller(source, step, is_patient)
    gpus = GpuSharing(source, step, settings.oversubscription.usable_share, is_patient)
    # Who decides once has no later look to take a late answer; Prometheus' own deadline ends the wait.
    usage = (
        UsageReader(source, patience_seconds=source.endpoint.deadline_seconds) if is_patient else UsageReader(source)
    )
    return NodeControl(nodes, usage, settings.oversubscription, controller, teller, gpus)


def run_webhook(
    settings: "AutoscalerSettings",
    stop: threading.Event,
    *,
    kubeconfig: Path | None = None,
    context: str | None = None,
) -> None:
    """Answers about new pods until it is told to stop, and keeps its certificate young.

    Serves once there is a certificate. Raises ClusterRefused and ObjectGone where there can be none, AddressInUse.
    """
    import structlog

    from autoscaler.api.server import start_server
    from autoscaler.api.webhook import ServedCertificate, build_webhook_app
    from autoscaler.controller.node_status import REFRESH_SECONDS
    from autoscaler.errors import AutoscalerError, ClusterUnavailable
    from autoscaler.kube.client import KubeClient
    from autoscaler.kube.webhook import PodAdmission, WebhookCertificate
    from autoscaler.metrics import WebhookMetrics

    log = structlog.get_logger("autoscaler.webhook")
    metrics = WebhookMetrics()
    client = KubeClient.connect(kubeconfig, context)
    keeper = WebhookCertificate(client, settings.webhook, time.time, metrics)
    # Statuses whose figures alone move are written once in a while, and after a cycle.
    oldest = settings.oversubscription.stale_after + settings.scaling.interval
    admission = PodAdmission(client, oldest.total_seconds() + REFRESH_SECONDS, time.time, metrics)
    served, server = ServedCertificate(), None
    admission.start()
    try:
        while not stop.is_set():
            try:
                certificate = keeper.kept()
                served.serve(certificate.certificate, certificate.key)
                if server is None:
                    app = build_webhook_app(admission.answer, admission.unready_because, metrics.registry)
                    server = start_server(app, settings.serving.host, settings.webhook.port, served)
                    log.info("started", address=server.address)
            except AutoscalerError as problem:
                if server is None and not isinstance(problem, ClusterUnavailable):
                    raise
                log.warning("certificate not looked after", error=type(problem).__name__, message=str(problem))
            stop.wait(CERTIFICATE_SECONDS if server is not None else CERTIFICATE_RETRY_SECONDS)
    finally:
        if server is not None:
            server.stop()
            log.info("stopped")
        admission.close()
        client.close()


def collect_garbage_seldom() -> None:
    """Looks for circles among objects far less often than Python by itself.

    What a cycle makes lives until the next one and holds no circles; looking for some took a third of a cycle's time.
    """
    gc.set_threshold(100_000, 20, 100)


def configure_logging() -> None:
    """One JSON object a line on standard error."""
    import orjson
    import structlog
    from structlog.tracebacks import ExceptionDictTransformer

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            # Without the values of local variables: requests and their headers are among them.
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(serializer=lambda event, **_: orjson.dumps(event, default=str)),
        ],
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(product="foresize")
