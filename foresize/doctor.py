"""`foresize doctor`: what is configured, reachable and allowed, and how to mend what is not. Changes nothing.

Each area is checked in a thread of its own against a deadline, so the whole takes seconds even when nothing answers.
"""

import math
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from autoscaler.controller.autoscalers import PredictiveAutoscaler
    from autoscaler.controller.ports import ManagedWorkload
    from pipelines.settings import Settings
    from predictor.sources.http import PrometheusClient

DEADLINE_SECONDS = 12.0
"""Longest any area may take."""
REQUEST_SECONDS = 4.0
LITTLE_SPACE_BYTES = 1 << 30
NO_SPACE_BYTES = 100 << 20
HISTORY_WANTED_DAYS = 8
ENOUGH_OF_A_DAY = 0.9
"""Share of the points of the last day that a query should have."""
MOST_OBJECTS = 20
"""How many objects are named of those that lack the same thing."""
MEND_QUERY = 'mend spec.horizontal.metric.query of the object: docs/controller.md, "Demand by a query of your own"'
WITHOUT_REGISTRY = (
    "check registry.tracking_uri and the network; until then the last model on this disk serves, else yesterday's same "
    "hour, and nothing can be trained"
)
"""A warning only: the ladder goes on without the registry."""
UNSEEN = (
    "only needed where you oversell nodes: the guard looks at usage and MemoryPressure alone without node-exporter's "
    "collector `pressure` or kubelets with KubeletPSI"
)
"""What is not seen where nobody measures CPU pressure."""
EXPORTERS: tuple[tuple[str, str, str], ...] = (
    ("container_", "cAdvisor, which the kubelet exports at /metrics/cadvisor", "needed"),
    ("kube_pod_owner", "kube-state-metrics", "needed"),
    ("kube_replicaset_owner", "kube-state-metrics", "needed"),
    ("kube_horizontalpodautoscaler_", "HorizontalPodAutoscalers, which kube-state-metrics shows", "optional"),
    ("kube_", "kube-state-metrics", "wanted"),
    ("DCGM_", "NVIDIA's dcgm-exporter", "optional"),
    ("nginx_", "ingress-nginx", "optional"),
    ("foresize_", "PredictiveAutoscalers, which `foresize run` shows at /metrics", "optional"),
)
"""By the start of a metric's name: what exports it, and how much it is needed."""
Status = Literal["OK", "WARN", "FAIL"]
PERMISSIONS: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("see", "foresize.io", ("predictiveautoscalers",), ("list", "watch")),
    ("see", "apps", ("deployments", "statefulsets"), ("list", "watch")),
    ("see", "", ("pods",), ("list", "watch")),
    ("see", "policy", ("poddisruptionbudgets",), ("list", "watch")),
    ("see", "autoscaling", ("horizontalpodautoscalers",), ("list", "watch")),
    ("see", "autoscaling.k8s.io", ("verticalpodautoscalers",), ("list", "watch")),
    ("see", "keda.sh", ("scaledobjects",), ("list", "watch")),
    ("tell", "foresize.io", ("predictiveautoscalers/status",), ("patch",)),
    ("tell", "events.k8s.io", ("events",), ("create",)),
    ("act", "apps", ("deployments/scale", "statefulsets/scale"), ("get", "patch")),
    ("act", "autoscaling", ("horizontalpodautoscalers",), ("get", "patch")),
    ("resize", "", ("pods/resize",), ("patch",)),
)
"""What the controller asks of the API server: what for, group, resources, verbs. The lease is in one namespace only."""
NODE_PERMISSIONS: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("nodes", "", ("nodes",), ("list", "watch")),
    ("nodes", "", ("pods",), ("list", "watch")),
    ("policies", "foresize.io", ("oversubscriptionpolicies/status",), ("patch",)),
    ("sell", "", ("nodes/status",), ("patch",)),
    ("sell", "", ("pods/eviction",), ("create",)),
)
"""The same for OversubscriptionPolicies, in the whole cluster …"""
GPU_PERMISSIONS = (("share", "", ("nodes",), ("patch",)),)
"""… and where one of them has GPUSharing."""
LEASE_VERBS = ("get", "create", "patch")
WEBHOOK_ACCOUNT = "foresize-webhook"
"""The ServiceAccount that deploy/webhook gives `foresize webhook`."""
WEBHOOK_ADVICE = "kubectl apply -k deploy/webhook"
WEBHOOK_LOG = (
    "`foresize webhook` mends it within a minute: look whether its copies run, and for `not looked after` in their log"
)
NEEDED_FOR: Mapping[str, tuple[Status, str, str, str]] = {
    "see": ("FAIL", "foresize-read", "rbac.yaml", "needed to see what is to be scaled and what else steers it"),
    "tell": (
        "WARN",
        "foresize-tell",
        "rbac.yaml",
        "needed for statuses and Events; without it only `foresize run --dry-run`",
    ),
    "act": ("WARN", "foresize-scale", "binding-auto.yaml", "only needed for objects in mode Auto"),
    "nodes": ("WARN", "foresize-read", "rbac.yaml", "needed for OversubscriptionPolicies and sla.survive"),
    "policies": ("WARN", "foresize-tell", "rbac.yaml", "needed for the statuses of OversubscriptionPolicies"),
    "sell": ("WARN", "foresize-nodes", "binding-nodes.yaml", "only needed for OversubscriptionPolicies in mode Auto"),
    "share": ("WARN", "foresize-gpus", "binding-gpus.yaml", "only needed for GPUSharing in mode Auto"),
    "resize": ("WARN", "foresize-resize", "binding-inplace.yaml", "only needed for vertical.mode InPlace"),
}
"""How bad it is that something is not allowed, which ClusterRole allows it, what in deploy/ binds it, and what for."""

LoadSettings = Callable[[Mapping[tuple[str, ...], Any]], "Settings"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    area: str
    status: Status
    message: str
    advice: str = ""
    """What to do about it; empty where all is well."""


Checks = Iterator[Check]


@click.command()
@click.option("--prometheus", metavar="URL", help="Base address of Prometheus.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Default: the pod's own, else ~/.kube/config.")
@click.option("--context", metavar="NAME", help="Context of the kubeconfig (default: its current one).")
@click.option("--skip-prometheus", is_flag=True, help="Do not ask Prometheus.")
@click.option("--skip-mlflow", is_flag=True, help="Do not ask MLflow.")
@click.option("--skip-cluster", is_flag=True, help="Do not ask the Kubernetes API.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
@click.pass_context
def doctor(
    ctx: click.Context,
    *,
    prometheus: str | None,
    kubeconfig: Path | None,
    context: str | None,
    skip_prometheus: bool,
    skip_mlflow: bool,
    skip_cluster: bool,
    as_json: bool,
) -> None:
    """Check configuration, disk, Prometheus, MLflow, the cluster and permissions, and say what to mend.

    Nothing is changed. Ends with exit code 0 where foresize can work (warnings are allowed), 1 where it cannot.

    \b
    Examples:
      foresize doctor
      foresize doctor --prometheus http://prom:9090 --context staging
      foresize doctor --skip-cluster                 before there is one
      foresize doctor --json | jq '.checks[] | select(.status != "OK")'
    """
    load: LoadSettings = ctx.obj
    settings = load({("prometheus", "url"): prometheus})
    areas: dict[str, Callable[[], Checks]] = {"disk": lambda: disk_checks(settings)}
    if not skip_prometheus:
        areas["prometheus"] = lambda: prometheus_checks(settings, time.time())
    if not skip_mlflow:
        areas["mlflow"] = lambda: mlflow_checks(settings)
    if not skip_cluster:
        areas["cluster"] = lambda: cluster_checks(settings, kubeconfig, context, asks_queries=not skip_prometheus)
    given = ctx.parent.params.get("config") if ctx.parent is not None else None
    checks = [*configuration_checks(settings, given, os.environ), *all_checks(areas, DEADLINE_SECONDS)]
    fails = sum(check.status == "FAIL" for check in checks)
    if as_json:
        import orjson

        body = {"ok": fails == 0, "checks": [asdict(check) for check in checks]}
        click.echo(orjson.dumps(body, option=orjson.OPT_INDENT_2).decode())
    else:
        _print(checks, fails)
    if fails:
        sys.exit(1)


def all_checks(areas: Mapping[str, Callable[[], Checks]], deadline_seconds: float) -> list[Check]:
    """The checks of all areas, in their order; an area that is not done in time fails with what it had so far."""
    from autoscaler.errors import AutoscalerError
    from predictor.errors import CorruptModel, PredictorError

    done: dict[str, list[Check]] = {area: [] for area in areas}

    def work(area: str, checks: Callable[[], Checks]) -> None:
        try:
            for check in checks():
                done[area].append(check)
        except CorruptModel as error:
            done[area].append(
                Check(area, "FAIL", str(error), "run `foresize train`; until then the last good model serves")
            )
        except (PredictorError, AutoscalerError) as error:
            done[area].append(
                Check(area, "FAIL", str(error), f"check the {area} settings (docs/settings.md) and the network")
            )
        except Exception as error:  # a check that breaks must not hide the others
            done[area].append(
                Check(area, "FAIL", f"the check itself broke: {type(error).__name__}: {error}", "report it")
            )

    # Daemons: one that hangs must not keep the process.
    threads = {a: threading.Thread(target=work, args=(a, c), name=a, daemon=True) for a, c in areas.items()}
    until = time.monotonic() + deadline_seconds
    for thread in threads.values():
        thread.start()
    checks: list[Check] = []
    for area, thread in threads.items():
        thread.join(max(0.0, until - time.monotonic()))
        checks += done[area]
        if thread.is_alive():
            # Without the registry the ladder goes on.
            status: Status = "WARN" if area == "mlflow" else "FAIL"
            advice = "check the address, the network and whether it is overloaded"
            checks.append(Check(area, status, f"no answer within {deadline_seconds:g} s", advice))
    return checks


def configuration_checks(settings: "Settings", given: Path | None, environ: Mapping[str, str]) -> Checks:
    """Where the settings come from and which are not the defaults. Values that may be secret are not shown."""
    from foresize.settings import DEFAULT_FILE, OTHER_VARIABLES, PREFIX
    from pipelines.settings import Settings

    named = environ.get("FORESIZE_CONFIG")
    file = given or (Path(named) if named else DEFAULT_FILE)
    variables = sorted(name for name in environ if name.startswith(PREFIX) and name not in OTHER_VARIABLES)
    source = f"file {file}" if file.exists() else "no settings file"
    yield Check("config", "OK", f"{source}; variables: {', '.join(variables) or 'none'}")
    own, defaults = (s.model_dump(mode="json") for s in (settings, Settings()))
    changed = [f"{name} = {value}" for name, value in _differences(own, defaults)]
    yield Check("config", "OK", f"not the defaults: {'; '.join(changed) or 'nothing'}")


def disk_checks(settings: "Settings") -> Checks:
    """Whether the state folder can be written, and how much room there is."""
    folder = settings.state_folder
    place = next(p for p in (folder, *folder.resolve().parents) if p.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        advice = "mount a volume there, or set state_folder"
        yield Check("disk", "FAIL", f"state folder {folder} cannot be written ({place})", advice)
        return
    free = shutil.disk_usage(place).free
    text = f"state folder {folder} can be written; {free / 1e9:.1f} GB free"
    status: Status = "FAIL" if free < NO_SPACE_BYTES else "WARN" if free < LITTLE_SPACE_BYTES else "OK"
    yield Check(
        "disk", status, text, "" if status == "OK" else "free some space, or set state_folder to a larger volume"
    )


def prometheus_checks(settings: "Settings", now_seconds: float) -> Checks:
    """Whether Prometheus answers, has the metrics, how often it scrapes and how far back it reaches."""
    from predictor.errors import PredictorError
    from predictor.sources.discovery import find_metrics
    from predictor.sources.http import PrometheusClient
    from predictor.sources.promql import (
        HELD_BACK_METRICS,
        KIN_METRICS,
        METRICS,
        POOL_METRICS,
        PRESSURE_METRICS,
        selector,
    )
    from predictor.wiring import build_endpoint

    configured = build_endpoint(settings)
    endpoint = replace(configured, timeout_seconds=min(REQUEST_SECONDS, configured.timeout_seconds), retries=0)
    matchers = settings.prometheus.matchers
    others = (*POOL_METRICS, *KIN_METRICS, *HELD_BACK_METRICS, "kube_pod_container_resource_requests")
    names = sorted({*sum(METRICS.values(), ()), *others})
    now = int(now_seconds)
    client = PrometheusClient(endpoint)
    try:
        try:
            client.range("vector(1)", start_seconds=now, points=1, step_seconds=60)
        except PredictorError as error:
            advice = "check prometheus.url, its credentials (bearer_token, username, headers) and the network"
            yield Check("prometheus", "FAIL", str(error), advice)
            return
        yield Check("prometheus", "OK", f"{endpoint.shown_url} answers")
        asked = (*names, *PRESSURE_METRICS)
        found = find_metrics(endpoint, asked, start_seconds=now - 3600, end_seconds=now, matchers=matchers)
        yield from _missing(tuple(name for name in found.missing if name in names), len(names))
        if not any(name in found.present for name in PRESSURE_METRICS):
            yield Check(
                "prometheus", "OK", f"no series within the last hour of {' or '.join(PRESSURE_METRICS)}; {UNSEEN}"
            )
        frequent = ("container_cpu_usage_seconds_total", "kube_pod_owner")
        sample = next((name for name in frequent if name in found.present), "")
        if not sample:
            return
        series = selector(sample, matchers=matchers)
        newest = client.range(f"max(count_over_time({series}[10m]))", start_seconds=now, points=1, step_seconds=60)
        if newest.values.size and newest.values[0, 0] > 1:
            yield _scrape_interval(600 / float(newest.values[0, 0]), settings)
        yield _clocks(client, settings, now)
        span = settings.history.span.days + 1
        past = client.range(f"group({series})", start_seconds=now - span * 86_400, points=span + 1, step_seconds=86_400)
    finally:
        client.close()
    yield _history_length(settings, [not math.isnan(v) for v in past.values[0]] if past.values.size else [])


def mlflow_checks(settings: "Settings") -> Checks:
    """Whether the registry answers, and the model under the alias exists, can be loaded and fits the settings."""
    from datetime import UTC, datetime, timedelta

    from predictor.errors import CorruptModel, ModelNotFound, RegistryUnavailable
    from predictor.registry.mlflow import MlflowBundleStore

    registry = settings.registry
    limit = min(registry.timeout, timedelta(seconds=REQUEST_SECONDS))
    store = MlflowBundleStore(settings.tracking_uri, registry.model_name, limit)
    named = f"{registry.model_name}@{registry.alias}"
    try:
        version = store.version_of(registry.alias)
        yield Check("mlflow", "OK", f"{store.shown_uri} answers; {named} is version {version}")
        bundle = store.load(version)
    except ModelNotFound as error:
        advice = "run `foresize train`; until then yesterday's same hour is the forecast"
        yield Check("mlflow", "WARN", str(error), advice)
        return
    except CorruptModel as error:
        yield Check("mlflow", "FAIL", str(error), "run `foresize train`; until then the last good model serves")
        return
    except RegistryUnavailable as error:
        yield Check("mlflow", "WARN", str(error), WITHOUT_REGISTRY)
        return
    until = datetime.fromtimestamp(bundle.trained_until_seconds, UTC)
    step = int(settings.history.step.total_seconds())
    if bundle.step_seconds != step:
        text = f"version {version} forecasts steps of {bundle.step_seconds} s, but history.step is {step} s"
        yield Check("mlflow", "FAIL", text, "run `foresize train`, or set history.step to the model's")
        return
    yield Check(
        "mlflow",
        "OK",
        f"version {version} loads: {len(bundle.series)} series, trained until {until:%Y-%m-%d %H:%M} UTC",
    )


def cluster_checks(settings: "Settings", kubeconfig: Path | None, context: str | None, *, asks_queries: bool) -> Checks:
    """Whether the API server answers, allows what the controller does, and what its objects lack.

    Queries of the objects are asked of Prometheus where that is wanted, and held to their namespace in any case.
    """
    from autoscaler.errors import ClusterUnavailable
    from autoscaler.kube.client import KubeClient
    from autoscaler.kube.cluster import KubeCluster

    try:
        client = KubeClient.connect(kubeconfig, context)
    except ClusterUnavailable as error:
        yield Check("cluster", "FAIL", str(error), "name a kubeconfig, or leave the cluster out with --skip-cluster")
        return
    client.timeout_seconds = (REQUEST_SECONDS / 2, REQUEST_SECONDS)
    version = client.get("/version").get("gitVersion", "of unknown version")
    yield Check("cluster", "OK", f"{client.server} answers: Kubernetes {version}")
    scaling = settings.scaling
    yield from _namespace_checks(client, scaling.namespaces)
    may_see = True
    for namespace in scaling.namespaces or ("",):
        where = f"in namespace {namespace}" if namespace else "in all namespaces"
        denied = list(_denied(client, namespace, PERMISSIONS))
        may_see = may_see and not any(need == "see" for need, _ in denied)
        if not denied:
            yield Check("cluster", "OK", f"may do everything that the controller does {where}")
        for need, what in denied:
            status, role, file, why = NEEDED_FOR[need]
            advice = f"bind the ClusterRole {role} (kubectl apply -f deploy/{file})"
            advice += ", or a Role in the namespace with its rules" if namespace else ""
            yield Check("cluster", status, f"may not {what} {where}", f"{advice}; {why}")
    lease = scaling.lease_namespace
    refused = [verb for verb in LEASE_VERBS if not _is_allowed(client, lease, verb, "coordination.k8s.io", "leases")]
    if refused:
        text = f"may not {', '.join(refused)} leases.coordination.k8s.io in namespace {lease}"
        advice = "bind the Role foresize-lease of deploy/rbac.yaml there; without it only `foresize run --dry-run`"
        yield Check("cluster", "WARN", text, advice)
    else:
        yield Check("cluster", "OK", f"may hold the lease {scaling.lease_name} in namespace {lease}")
    if may_see:
        cluster = KubeCluster(client, scaling.namespaces, scaling.namespace_selector)
        try:
            workloads = cluster.observe(time.time()).workloads
        finally:
            cluster.close()
        count = len(workloads)
        advice = "" if count else "create a PredictiveAutoscaler for a Deployment: see docs/controller.md"
        yield Check("cluster", "OK" if count else "WARN", f"{count} PredictiveAutoscalers", advice)
        yield from object_checks(settings, workloads, time.time())
        yield from query_checks(settings, [w.autoscaler for w in workloads], time.time(), is_asked=asks_queries)
    yield from _policy_checks(client)
    yield from _webhook_checks(settings, client, time.time())


def object_checks(settings: "Settings", workloads: "Sequence[ManagedWorkload]", now_seconds: float) -> Checks:
    """Objects that cannot be followed: their spec, a target that is not there, pods that request none of the metric."""
    from autoscaler.cluster.reasons import Hold
    from autoscaler.controller.autoscalers import NOTHING_REMEMBERED
    from autoscaler.controller.policy import policy_of

    found: list[Check] = []
    for each in workloads:
        autoscaler, target = each.autoscaler, each.target
        if autoscaler.problem:
            problem, _, advice = autoscaler.problem.partition("; ")
        elif isinstance(target, Hold):
            problem, advice = target.reason.message, "create it, or mend spec.targetRef"
        elif autoscaler.scales:
            policy = policy_of(
                autoscaler,
                target.request_per_replica,
                target.ready_seconds,
                NOTHING_REMEMBERED,
                settings=settings.scaling,
                now_seconds=now_seconds,
            )
            learned = autoscaler.status.get("capacity") or {}
            if not isinstance(policy.capacity, Hold) or (autoscaler.learns_capacity and "low" in learned):
                continue
            problem, _, advice = policy.capacity.reason.message.partition("; ")
            if autoscaler.learns_capacity:
                problem = str(learned.get("reason") or problem)
                advice = "docs/capacity.md says what may be done; with horizontal.target nothing is to be learned"
        else:
            continue
        found.append(Check("cluster", "WARN", f"PredictiveAutoscaler {autoscaler.key}: {problem}", advice))
    yield from _some(found, "PredictiveAutoscalers cannot be followed")


def query_checks(
    settings: "Settings", autoscalers: "Sequence[PredictiveAutoscaler]", now_seconds: float, *, is_asked: bool
) -> Checks:
    """Whether each object's query is accepted, answers now, and has a day of history."""
    from predictor.errors import QueryRefused
    from predictor.sources.held import held_to_namespace
    from predictor.sources.prometheus import PrometheusSource
    from predictor.usage.panel import Resource, SeriesKey
    from predictor.wiring import build_endpoint, cluster_labels

    asking = [each for each in autoscalers if each.query and not each.problem]
    if not asking:
        return
    labels, found, accepted = cluster_labels(settings), [], {}
    for each in asking:
        try:
            held_to_namespace(each.query, each.namespace, labels.namespace, labels.matchers)
        except QueryRefused as refusal:
            found.append(_of_query(each, "WARN", f"is refused: {refusal}", MEND_QUERY))
        else:
            # Not by its target: of two objects for one, each has a query.
            accepted[SeriesKey(f"{each.namespace}/PredictiveAutoscaler/{each.name}", Resource.CUSTOM)] = each
    if not is_asked:
        found += [_of_query(each, "OK", "is accepted; not asked") for each in accepted.values()]
    elif accepted:
        step = int(settings.history.step.total_seconds())
        end = int(now_seconds) // step * step - step
        panel = PrometheusSource(
            build_endpoint(settings),
            labels=labels,
            scrape_interval_seconds=int(settings.prometheus.scrape_interval.total_seconds()),
        ).fetch_queries(
            {key: each.query for key, each in accepted.items()},
            start_seconds=end - 86_400 + step,
            end_seconds=end,
            step_seconds=step,
            within_seconds=REQUEST_SECONDS,
        )
        for key, each in accepted.items():
            if key in panel.keys:
                found.append(_answered(each, panel.usage[panel.row(key)].tolist(), step))
            else:
                said = (f.message for f in panel.findings if f.workload == key.workload)
                found.append(_of_query(each, "WARN", next(said, "has no answer"), MEND_QUERY))
    yield from _some([check for check in found if check.status == "OK"], "queries can be used")
    yield from _some([check for check in found if check.status != "OK"], "queries cannot be used")


def _answered(autoscaler: "PredictiveAutoscaler", values: list[float], step_seconds: int) -> Check:
    """What a query's values of the last day say; the last is now."""
    points, last = sum(not math.isnan(each) for each in values), values[-1]
    known = f"{points} of {len(values)} points of the last day"
    if math.isnan(last):
        text = f"has no value now ({known})"
        advice = "see whether what it reads is still exported; until then the object holds"
        return _of_query(autoscaler, "WARN", text, advice)
    if points < ENOUGH_OF_A_DAY * len(values):
        text = f"answers {last:.6g} now, but has only {known}"
        advice = (
            f"wait until a day of it is known, a point each {step_seconds} s, or mend gaps in what it reads; "
            "until then forecasts of it rest on little"
        )
        return _of_query(autoscaler, "WARN", text, advice)
    return _of_query(autoscaler, "OK", f"answers {last:.6g} now, {known}")


def _of_query(autoscaler: "PredictiveAutoscaler", status: Status, said: str, advice: str = "") -> Check:
    said = said.removeprefix("the query ")
    return Check("cluster", status, f"PredictiveAutoscaler {autoscaler.key}: metric.query {said}", advice)


def _some(checks: list[Check], what: str) -> Checks:
    """The first of them, and how many more there are: a fleet must not drown the rest."""
    yield from checks[:MOST_OBJECTS]
    if len(checks) > MOST_OBJECTS:
        status, text = checks[0].status, f"{len(checks) - MOST_OBJECTS} more {what}"
        advice = "kubectl get predictiveautoscalers -A shows each one's reason" if status != "OK" else ""
        yield Check("cluster", status, text, advice)


def _namespace_checks(client: Any, named: Sequence[str]) -> Checks:
    """Namespaces of the settings that do not exist; with roles that do not let it see any, nothing is known of that."""
    from autoscaler.errors import ClusterRefused
    from autoscaler.kube.cluster import NAMESPACES

    if not named:
        return
    try:
        there = {str(item["metadata"]["name"]) for page in client.pages(NAMESPACES) for item in page.get("items") or ()}
    except ClusterRefused:
        return
    for name in (each for each in named if each not in there):
        text = f"scaling.namespaces names {name}, and there is no such namespace"
        yield Check("cluster", "WARN", text, "mend the setting, or create it: until then nothing is looked after in it")


def _policy_checks(client: Any) -> Checks:
    """About OversubscriptionPolicies, where there are any to be seen."""
    from autoscaler.cluster.nodes import Actuator

    specs = _policy_specs(client)
    if not specs:
        return
    shares = any((each.get("actuator") or {}).get("type") == Actuator.GPU_SHARING for each in specs)
    denied = list(_denied(client, "", (*NODE_PERMISSIONS, *(GPU_PERMISSIONS if shares else ()))))
    for need, what in denied:
        status, role, file, why = NEEDED_FOR[need]
        advice = f"bind the ClusterRole {role} (kubectl apply -f deploy/{file}); {why}"
        yield Check("cluster", status, f"may not {what} in the cluster", advice)
    if not denied:
        yield Check("cluster", "OK", f"may do everything that {len(specs)} OversubscriptionPolicies can ask for")


def _policy_specs(client: Any) -> list[Mapping[str, Any]]:
    from autoscaler.errors import ClusterRefused, ObjectGone
    from autoscaler.kube.nodes import POLICIES

    try:
        return [each.get("spec") or {} for each in client.get(POLICIES).get("items") or ()]
    except (ClusterRefused, ObjectGone):
        return []


def _webhook_checks(settings: "Settings", client: Any, now_seconds: float) -> Checks:
    """Whether `foresize webhook` can be called, where it is installed or a policy waits for it."""
    from autoscaler.cluster.nodes import Actuator
    from autoscaler.errors import ClusterRefused, ObjectGone
    from autoscaler.kube.webhook import CONFIGURATIONS

    named = f"MutatingWebhookConfiguration {settings.webhook.configuration}"
    waiting = sum(
        each.get("mode") == "Auto" and (each.get("actuator") or {}).get("type") == Actuator.REQUEST_AMPLIFICATION
        for each in _policy_specs(client)
    )
    try:
        hooks = client.get(f"{CONFIGURATIONS}/{settings.webhook.configuration}").get("webhooks") or []
    except ObjectGone:
        if waiting:
            text = f"there is no {named}: requests are not lowered as {waiting} OversubscriptionPolicies want it"
            yield Check("cluster", "WARN", text, WEBHOOK_ADVICE)
        return
    except ClusterRefused:
        if waiting:
            yield Check("cluster", "OK", f"may not get {named}: whether pods are changed was not looked at")
        return
    found = [
        *_certificate_checks(settings, client, hooks, now_seconds),
        *_service_checks(settings, client, hooks),
        *_webhook_role_checks(settings, client),
    ]
    yield from found or [Check("cluster", "OK", f"{named} is there and trusts the webhook's certificate")]


def _certificate_checks(
    settings: "Settings", client: Any, hooks: Sequence[Mapping[str, Any]], now_seconds: float
) -> Checks:
    from base64 import b64decode

    from autoscaler.errors import ClusterRefused, ObjectGone
    from autoscaler.kube.certificates import Certificate, certificate_in, is_trusted

    of = settings.webhook
    secret = f"Secret {of.certificate_namespace}/{of.certificate_name}"
    try:
        content = client.get(f"/api/v1/namespaces/{of.certificate_namespace}/secrets/{of.certificate_name}")
    except ObjectGone:
        yield Check("cluster", "WARN", f"there is no {secret} for the webhook's certificate", WEBHOOK_ADVICE)
        return
    except ClusterRefused:
        yield Check("cluster", "OK", f"may not get {secret}: the webhook's certificate was not looked at")
        return
    kept = {name: b64decode(text) for name, text in (content.get("data") or {}).items()}
    certificate = certificate_in(kept, of.dns_name, now_seconds)
    if not isinstance(certificate, Certificate):
        text = f"the webhook's certificate in {secret} should have been renewed: {certificate}"
        yield Check("cluster", "WARN", text, WEBHOOK_LOG)
        return
    bundles = {each["name"]: b64decode((each.get("clientConfig") or {}).get("caBundle") or "") for each in hooks}
    distrusting = [name for name, bundle in bundles.items() if not is_trusted(certificate.certificate, bundle)]
    if distrusting:
        text = f"{', '.join(distrusting)} of {of.configuration} trust another certificate than that in {secret}"
        yield Check("cluster", "WARN", f"{text}: no pod is changed", WEBHOOK_LOG)


def _service_checks(settings: "Settings", client: Any, hooks: Sequence[Mapping[str, Any]]) -> Checks:
    """Where the configuration names a Service: whether the certificate is made out to it, and anybody is behind it."""
    from autoscaler.errors import ClusterRefused

    services = {
        (each["namespace"], each["name"]) for hook in hooks if (each := (hook.get("clientConfig") or {}).get("service"))
    }
    for namespace, name in sorted(services):
        called = f"{name}.{namespace}.svc"
        if called != settings.webhook.dns_name:
            text = f"the API server calls the webhook by {called}, webhook.dns_name is {settings.webhook.dns_name}"
            yield Check("cluster", "WARN", text, "set webhook.dns_name to it: the certificate is made out to that name")
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        try:
            items = client.get(slices, labelSelector=f"kubernetes.io/service-name={name}").get("items") or ()
        except ClusterRefused:
            continue
        ends = [end for each in items for end in each.get("endpoints") or ()]
        if not any((end.get("conditions") or {}).get("ready") for end in ends):
            text = f"no copy of the webhook is Ready behind the Service {namespace}/{name}: no pod is changed"
            yield Check("cluster", "WARN", text, f"kubectl describe deployment -n {namespace} {name}, then its log")


def _webhook_role_checks(settings: "Settings", client: Any) -> Checks:
    """What its ServiceAccount may not do, where this user may ask for others."""
    from autoscaler.errors import ClusterRefused

    of = settings.webhook
    user = f"system:serviceaccount:{of.certificate_namespace}:{WEBHOOK_ACCOUNT}"
    needed = (
        *(("", "foresize.io", "oversubscriptionpolicies", "", verb) for verb in ("list", "watch")),
        *(("", "", each, "", verb) for each in ("limitranges", "resourcequotas") for verb in ("list", "watch")),
        *(
            ("", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", of.configuration, verb)
            for verb in ("get", "patch")
        ),
        *((of.certificate_namespace, "", "secrets", of.certificate_name, verb) for verb in ("get", "patch")),
    )
    lacking: list[str] = []
    for namespace, group, resource, name, verb in needed:
        attributes = {"namespace": namespace, "group": group, "resource": resource, "name": name, "verb": verb}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": {key: value for key, value in attributes.items() if value}},
        }
        try:
            answer = client.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        except ClusterRefused:
            return
        if not (answer.get("status") or {}).get("allowed"):
            plain = f"{resource}.{group}" if group else resource
            lacking.append(f"{verb} {plain}{' ' + name if name else ''}")
    if lacking:
        text = f"the webhook's ServiceAccount {of.certificate_namespace}/{WEBHOOK_ACCOUNT} may not {', '.join(lacking)}"
        yield Check("cluster", "WARN", text, f"{WEBHOOK_ADVICE} binds its roles (deploy/webhook/rbac.yaml)")


def _denied(
    client: Any, namespace: str, permissions: Iterable[tuple[str, str, tuple[str, ...], tuple[str, ...]]]
) -> Iterator[tuple[str, str]]:
    """What is not allowed: what it is needed for, and verbs with resource and group."""
    for need, group, resources, verbs in permissions:
        for resource in resources:
            refused = [verb for verb in verbs if not _is_allowed(client, namespace, verb, group, resource)]
            if refused:
                plain, _, part = resource.partition("/")
                named = f"{plain}.{group}" if group else plain
                yield need, f"{', '.join(refused)} {named}{'/' + part if part else ''}"


def _is_allowed(client: Any, namespace: str, verb: str, group: str, resource: str) -> bool:
    from kubernetes.client import AuthorizationV1Api
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    from autoscaler.errors import ClusterUnavailable

    plain, _, part = resource.partition("/")
    attributes = {"group": group, "verb": verb, "resource": plain, "subresource": part, "namespace": namespace}
    body: Any = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {name: value for name, value in attributes.items() if value}},
    }
    try:
        answer: Any = AuthorizationV1Api(client.api).create_self_subject_access_review(
            body, _request_timeout=client.timeout_seconds
        )
    except (ApiException, HTTPError, OSError) as error:
        raise ClusterUnavailable(f"{client.server} did not say what is allowed: {error}") from error
    return bool(answer.status.allowed)


def _missing(missing: tuple[str, ...], asked: int) -> Checks:
    if len(missing) < asked:
        yield Check("prometheus", "OK", f"{asked - len(missing)} of the {asked} metrics are there")
    grouped: dict[tuple[str, str], list[str]] = {}
    for name in missing:
        exporter, need = next((e, n) for start, e, n in EXPORTERS if name.startswith(start))
        grouped.setdefault((exporter, need), []).append(name)
    for (exporter, need), names in grouped.items():
        text = f"no series within the last hour of {', '.join(names)}"
        if need == "optional":
            yield Check("prometheus", "OK", f"{text}; only needed where you have {exporter}")
        else:
            advice = f"have Prometheus scrape {exporter}; if it does, check prometheus.matchers"
            yield Check("prometheus", "FAIL" if need == "needed" else "WARN", text, advice)


def _scrape_interval(seconds: float, settings: "Settings") -> Check:
    configured = settings.prometheus.scrape_interval.total_seconds()
    text = f"scraped about every {seconds:.0f} s; prometheus.scrape_interval is {configured:.0f} s"
    # A tenth of a scrape more or less in ten minutes says nothing.
    if seconds > 1.5 * configured:
        return Check(
            "prometheus", "WARN", text, f"set prometheus.scrape_interval to {seconds:.0f}s, or rates have gaps"
        )
    return Check("prometheus", "OK", text)


def _clocks(client: "PrometheusClient", settings: "Settings", now: int) -> Check:
    """Whether samples are later than now; what is earlier by as much is seen as a node that is not measured."""
    from predictor.sources.promql import Queries
    from predictor.wiring import cluster_labels

    scrape = int(settings.prometheus.scrape_interval.total_seconds())
    text = Queries(cluster_labels(settings), scrape, scrape).clocks_ahead()
    answer = client.range(text, start_seconds=now, points=1, step_seconds=60)
    found = sorted((-float(values[-1]), dict(labels).get("node", "")) for labels, values in answer.rows())
    late = [(node, -seconds) for seconds, node in found if -seconds > 2 * scrape]
    if not late:
        return Check("prometheus", "OK", "no node's clock is ahead of this machine's by more than two scrapes")
    node, seconds = late[0]
    return Check(
        "prometheus",
        "WARN",
        f"the clock of {node} is {seconds:.0f} s or more ahead of this machine's, of {len(late)} nodes by two scrapes",
        "keep clocks in step by NTP; where it is all nodes, this machine's is behind. Nothing is sold on such nodes",
    )


def _history_length(settings: "Settings", is_there: list[bool]) -> Check:
    first = is_there.index(True) if True in is_there else len(is_there)
    days = max(0, len(is_there) - 1 - first)
    wanted = settings.history.span.days
    text = f"history reaches back {days} days; history.span is {wanted} days"
    if days < min(HISTORY_WANTED_DAYS, wanted):
        advice = (
            f"wait, or read from a store that keeps more: {HISTORY_WANTED_DAYS} days are the least for a weekly rhythm"
        )
        return Check("prometheus", "WARN", text, advice)
    return Check("prometheus", "OK", text)


def _differences(own: Mapping[str, Any], defaults: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    from predictor.errors import without_login

    for name, value in own.items():
        default, place = defaults.get(name), f"{path}{name}"
        if value == default:
            continue
        if isinstance(value, dict) and isinstance(default, dict) and name not in ("headers", "matchers"):
            yield from _differences(value, default, f"{place}.")
        elif name in ("headers", "username") or "token" in name or "password" in name:
            yield place, "(not shown)"
        else:
            yield place, without_login(str(value))


def _print(checks: list[Check], fails: int) -> None:
    colours = {"OK": "green", "WARN": "yellow", "FAIL": "red"}
    for check in checks:
        click.echo(f"{click.style(f'{check.status:<4}', fg=colours[check.status])}  {check.area:<10}  {check.message}")
        if check.advice:
            click.echo(f"{'':18}→ {check.advice}")
    warnings = sum(check.status == "WARN" for check in checks)
    ending = "foresize can work" if not fails else "foresize cannot work yet"
    click.echo(f"\n{ending}: {len(checks) - warnings - fails} OK, {warnings} warnings, {fails} failures")
