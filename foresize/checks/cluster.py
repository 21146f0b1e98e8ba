"""Whether the API server answers and allows what the controller does, and what its objects lack."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foresize.checks.check import REQUEST_SECONDS, Check, Checks, Status
from foresize.checks.objects import object_checks, query_checks
from foresize.checks.webhook import webhook_checks

if TYPE_CHECKING:
    from pipelines.settings import Settings

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
    specs = _policy_specs(client)
    yield from _policy_checks(client, specs)
    yield from webhook_checks(settings, client, specs, time.time())


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


def _policy_checks(client: Any, specs: Sequence[Mapping[str, Any]]) -> Checks:
    """About OversubscriptionPolicies, where there are any to be seen."""
    from autoscaler.cluster.nodes import Actuator

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
