"""A Kubernetes API server as the controller's cluster: everything it sees it watches, everything it writes is checked.

One watch per kind (and namespace, where those are named), never a request per object; a kind is watched once an object
names it as a target.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from autoscaler.cluster.containers import SIZED, PodState
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.controller.autoscalers import (
    API_VERSION,
    KIND,
    PredictiveAutoscaler,
    Rival,
    RivalKind,
    TargetRef,
    as_micro_time,
)
from autoscaler.controller.ports import ClusterObservation, Event, ManagedWorkload, Scale, TargetWorkload
from autoscaler.controller.quantities import amount_text
from autoscaler.decisions.resizes import ContainerResize, PodResize
from autoscaler.errors import ClusterRefused, ClusterUnavailable, ObjectGone
from autoscaler.kube.client import JsonObject, KubeClient
from autoscaler.kube.clocks import seconds_since_boot
from autoscaler.kube.domains import WatchedNode, failure_domains, watched_node_of
from autoscaler.kube.objects import (
    FIELD_MANAGER,
    ReadyPod,
    SelectingBudget,
    UncountedTarget,
    autoscaler_of,
    budget_of,
    hpa_of,
    scaled_object_of,
    target_of,
    vpa_of,
    where_readable,
)
from autoscaler.kube.pods import PodReducer, WatchedPod
from autoscaler.kube.watch import WatchedCollection

AUTOSCALERS = f"/apis/{API_VERSION}/predictiveautoscalers"
HPAS = "/apis/autoscaling/v2/horizontalpodautoscalers"
VPAS = "/apis/autoscaling.k8s.io/v1/verticalpodautoscalers"
SCALED_OBJECTS = "/apis/keda.sh/v1alpha1/scaledobjects"
NAMESPACES = "/api/v1/namespaces"
NODES = "/api/v1/nodes"
PODS = "/api/v1/pods"
BUDGETS = "/apis/policy/v1/poddisruptionbudgets"
ALWAYS_WATCHED: Mapping[str, Callable[[JsonObject], object]] = {
    AUTOSCALERS: autoscaler_of,
    HPAS: hpa_of,
    VPAS: where_readable(vpa_of),
    SCALED_OBJECTS: where_readable(scaled_object_of),
    BUDGETS: budget_of,
}
REPORTER = "foresize.io/controller"
NOTE_CHARACTERS = 1024
"""Longest note of an Event that the API takes."""
SYNC_SECONDS = 30.0
"""Longest wait for the first list of a kind."""
SYNC_LOOK_SECONDS = 0.5
API_VERSION_WRITTEN = re.compile(r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?v[a-z0-9]+")
"""What may stand in a path: an object must not lead elsewhere."""
OLDEST_SECONDS = 100.0
"""A picture that was last known to be current longer ago is none; a quiet one is confirmed every minute."""
NO_SUCH_PATH = "could not find the requested resource"
"""What an API server says of a sub-resource that it does not have, in place of the name of an object."""
PODS_KEPT = 50
"""How many of a workload's newest pods say how long it takes to get Ready."""


@dataclass
class KubeCluster:
    """Sees and scales what PredictiveAutoscalers name, in some namespaces or (with none named) in all."""

    client: KubeClient
    namespaces: tuple[str, ...] = ()
    namespace_selector: str = ""
    """Label selector that a namespace must meet besides; empty for any."""
    identity: str = ""
    """Who reports Events."""
    clock: Callable[[], float] = seconds_since_boot
    random: Random = field(default_factory=Random)

    def __post_init__(self) -> None:
        self._watched: dict[str, list[WatchedCollection[Any]]] = {}
        """By the path of the whole collection: one watch, or one for each namespace."""
        self._pods = PodReducer()
        self._collections: dict[tuple[str, str], str] = {}
        """Path of the whole collection by API version and kind."""
        self._awaited: set[int] = set()
        """Watches whose first answer was waited for."""

    def close(self) -> None:
        """Ends every watch."""
        for each in (watch for watches in self._watched.values() for watch in watches):
            each.stop()

    def observe(self, now_seconds: float) -> ClusterObservation:
        """Every managed workload. Raises ClusterUnavailable where any picture is missing or too old."""
        for path, reduce in ALWAYS_WATCHED.items():
            self._watch(path, reduce)
        autoscalers: list[PredictiveAutoscaler] = list(self._current(AUTOSCALERS))
        if self.namespace_selector:
            self._watch(NAMESPACES, _name, self.namespace_selector)
            opted_in = set(self._current(NAMESPACES))
            autoscalers = [each for each in autoscalers if each.namespace in opted_in]
        if all(watch.is_absent for watch in self._watched[AUTOSCALERS]):
            raise ClusterRefused(f"{self.client.server} does not know {KIND}: kubectl apply -f deploy/crd.yaml")
        self._watch_pods({each.workload for each in autoscalers if each.looks_at_pods})
        kinds = {(each.target.api_version, each.target.kind) for each in autoscalers if not each.problem}
        problems: dict[tuple[str, str], Hold] = {}
        targets: dict[str, TargetWorkload | UncountedTarget] = {}
        for api_version, kind in sorted(kinds):
            collection = self._collection(api_version, kind)
            if isinstance(collection, Hold):
                problems[api_version, kind] = collection
                continue
            self._watch(collection, target_of(kind))
            try:
                targets |= {target.name: target for target in self._current(collection)}
            except (ClusterRefused, ClusterUnavailable) as problem:
                # Of this kind alone: whoever names a kind that the role does not cover must not stop all others.
                problems[api_version, kind] = _no_scale(f"{kind} objects cannot be seen: {problem}")
        ready, pods = self._seen_pods({each.workload for each in autoscalers})
        rivals = self._rivals(autoscalers)
        nodes = self._seen_nodes() if any(each.survives is not None for each in autoscalers) else {}
        budgets: dict[str, list[SelectingBudget]] = {}
        for budget in self._current(BUDGETS):
            budgets.setdefault(budget.namespace, []).append(budget)

        def seen(each: PredictiveAutoscaler) -> TargetWorkload | Hold:
            target = _target(each, targets, problems)
            if isinstance(target, Hold):
                return target
            labels = dict(target.pod_labels)
            over = tuple(b.budget for b in budgets.get(each.namespace, ()) if b.selects(labels))
            its_pods = tuple(pods.get(target.name, ()))
            domains = None if each.survives is None else failure_domains(each.survives, target, its_pods, nodes)
            return target.beside(ready.get(target.name, ()), over, its_pods, domains)

        return ClusterObservation(
            now_seconds,
            tuple(
                ManagedWorkload(
                    each,
                    seen(each),
                    tuple(rival for rival in rivals.get(each.workload, ()) if rival.uid != each.uid),
                )
                for each in autoscalers
            ),
            max(self._ages(), default=0.0),
        )

    def scale_of(self, namespace: str, target: TargetRef) -> Scale:
        """The scale sub-resource now."""
        answer = self.client.get(self._object(namespace, target) + "/scale")
        return _scale(answer, int((answer.get("spec") or {}).get("replicas", 0)))

    def minimum_of(self, hpa: Rival) -> Scale:
        """The HorizontalPodAutoscaler now."""
        answer = self.client.get(_hpa_path(hpa))
        return _scale(answer, int((answer.get("spec") or {}).get("minReplicas", 1)))

    def set_replicas(self, namespace: str, target: TargetRef, replicas: int, expected: Scale) -> None:
        """Patches the scale sub-resource; uid and resource version in the patch make it conditional."""
        self._patch(self._object(namespace, target) + "/scale", {"replicas": replicas}, expected)

    def set_minimum(self, hpa: Rival, replicas: int, expected: Scale) -> None:
        """Patches the HorizontalPodAutoscaler, conditional in the same way."""
        self._patch(_hpa_path(hpa), {"minReplicas": replicas}, expected)

    def resize_pod(self, resize: PodResize) -> None:
        """Patches the pod's resize sub-resource; uid and resource version make it conditional."""
        pod = resize.pod
        changes: JsonObject = {
            "metadata": {"uid": pod.uid, "resourceVersion": pod.resource_version},
            "spec": {"containers": [{"name": each.name, "resources": _resources(each)} for each in resize.containers]},
        }
        path = f"{_in_namespace(PODS, pod.namespace)}/{pod.name}/resize"
        try:
            self.client.strategic_patch(path, changes, fieldManager=FIELD_MANAGER)
        except ObjectGone as gone:
            if NO_SUCH_PATH not in str(gone):
                raise
            text = f"{self.client.server} cannot resize pods in place: vertical.mode InPlace needs Kubernetes 1.33"
            raise ClusterRefused(text) from gone

    def set_status(self, autoscaler: PredictiveAutoscaler, status: Mapping[str, object]) -> None:
        """Puts the status into the very object that it is about, in the place of the one before."""
        path = f"{_in_namespace(AUTOSCALERS, autoscaler.namespace)}/{autoscaler.name}/status"
        operations: list[JsonObject] = [
            {"op": "test", "path": "/metadata/uid", "value": autoscaler.uid},
            {"op": "add", "path": "/status", "value": status},
        ]
        self.client.json_patch(path, operations, fieldManager=FIELD_MANAGER)

    def publish(self, event: Event, now_seconds: float) -> None:
        """Creates an Event about the object."""
        about = event.about
        manifest: JsonObject = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{about.name}.{self.random.getrandbits(64):016x}", "namespace": about.namespace},
            "eventTime": as_micro_time(now_seconds),
            "reportingController": REPORTER,
            "reportingInstance": self.identity or FIELD_MANAGER,
            "action": "Scaling",
            "reason": event.reason,
            "note": event.note[:NOTE_CHARACTERS],
            "type": "Warning" if event.is_warning else "Normal",
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": about.namespace,
                "name": about.name,
                "uid": about.uid,
            },
        }
        self.client.create(f"/apis/events.k8s.io/v1/namespaces/{about.namespace}/events", manifest)

    # --- watching

    def _ages(self) -> Iterator[float]:
        """Of the pictures that there are, in seconds."""
        for each in (watch for watches in self._watched.values() for watch in watches):
            if each.is_synced and not each.is_absent:
                yield each.age_seconds()

    def _watch(self, path: str, reduce: Callable[[JsonObject], Any], selector: str = "") -> None:
        """Begins to watch a collection, where that has not begun."""
        if path in self._watched:
            return
        named = self.namespaces if path not in (NAMESPACES, NODES) else ()
        places = [_in_namespace(path, namespace) for namespace in named] or [path]
        self._watched[path] = [
            WatchedCollection(self.client, place, reduce, clock=self.clock, random=self.random, selector=selector)
            for place in places
        ]
        for each in self._watched[path]:
            each.start()

    def _current(self, path: str) -> Iterator[Any]:
        """Everything of a watched collection. Raises the watch's problem where there is no picture or it is too old."""
        for each in self._watched[path]:
            if not self._is_synced(each):
                raise each.problem or ClusterUnavailable(f"{self.client.server} did not list {each.path} in time")
            age = each.age_seconds()
            if age > OLDEST_SECONDS and not each.is_absent:
                why = each.problem or "nothing was heard of it"
                raise ClusterUnavailable(f"{each.path} was last seen {age:.0f} s ago: {why}")
            yield from each.snapshot().values()

    def _is_synced(self, watch: WatchedCollection[Any]) -> bool:
        """Whether a collection was seen; the first answer is waited for, a refused one not again in each cycle."""
        seconds = 0.0 if id(watch) in self._awaited else SYNC_SECONDS
        self._awaited.add(id(watch))
        while not watch.wait_until_synced(min(seconds, SYNC_LOOK_SECONDS)):
            seconds -= SYNC_LOOK_SECONDS
            if seconds <= 0 or isinstance(watch.problem, ClusterRefused):
                return False
        return True

    def _collection(self, api_version: str, kind: str) -> str | Hold:
        """Path of the collection that a kind's objects are in, by discovery; or why they cannot be scaled."""
        known = self._collections.get((api_version, kind))
        if known is not None:
            return known
        if not API_VERSION_WRITTEN.fullmatch(api_version):
            return _no_scale(f"{api_version!r} is no API version, such as apps/v1")
        group = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        try:
            resources = self.client.get(group).get("resources") or []
        except ObjectGone:
            resources = []
        names = {str(r["name"]): str(r.get("kind")) for r in resources}
        plural = next((name for name, its in names.items() if its == kind and "/" not in name), "")
        if not plural:
            return _no_scale(f"the cluster knows no {kind} of {api_version}")
        if f"{plural}/scale" not in names:
            return _no_scale(f"{kind} of {api_version} has no scale sub-resource, so its replicas cannot be set")
        self._collections[api_version, kind] = f"{group}/{plural}"
        return self._collections[api_version, kind]

    def _object(self, namespace: str, target: TargetRef) -> str:
        path = self._collection(target.api_version, target.kind)
        if isinstance(path, Hold):
            raise ObjectGone(path.reason.message)
        return f"{_in_namespace(path, namespace)}/{target.name}"

    def _watch_pods(self, sized: set[str]) -> None:
        """Watches pods, with the containers of those workloads' pods; lists again where there are more workloads."""
        is_wider = self._pods.widen(sized)
        if PODS in self._watched:
            for each in self._watched[PODS] if is_wider else ():
                each.list_again()
        self._watch(PODS, self._pods)

    def _seen_pods(self, workloads: set[str]) -> tuple[dict[str, tuple[float, ...]], dict[str, list[PodState]]]:
        """By workload: what its newest pods took to get Ready, and its pods where their requests are sized."""
        found: dict[str, list[ReadyPod]] = {}
        states: dict[str, list[PodState]] = {}
        for pod in self._current(PODS):
            if pod.workload not in workloads:
                continue
            ready = pod
            if isinstance(pod, WatchedPod):
                states.setdefault(pod.workload, []).append(pod.state)
                ready = pod.ready
            if ready is not None:
                found.setdefault(pod.workload, []).append(ready)
        took = {
            name: tuple(p.ready_seconds for p in sorted(pods, key=lambda p: -p.created_seconds)[:PODS_KEPT])
            for name, pods in found.items()
        }
        return took, states

    def _seen_nodes(self) -> Mapping[str, WatchedNode] | Hold:
        """Every node by its name, or why they cannot be seen, which is no matter of those who need to survive none."""
        self._watch(NODES, watched_node_of)
        try:
            return {node.name: node for node in self._current(NODES)}
        except (ClusterRefused, ClusterUnavailable) as problem:
            return Hold(Reason(ReasonCode.DOMAINS_UNKNOWN, f"nodes cannot be seen: {problem}"))

    def _rivals(self, autoscalers: list[PredictiveAutoscaler]) -> dict[str, list[Rival]]:
        """What steers each workload."""
        found: dict[str, list[Rival]] = {}
        for path in (HPAS, VPAS, SCALED_OBJECTS):
            for rival in self._current(path):
                found.setdefault(f"{rival.namespace}/{rival.target.kind}/{rival.target.name}", []).append(rival)
        for each in autoscalers:
            if each.steers:
                own = Rival(RivalKind.PREDICTIVE, each.namespace, each.name, each.target, each.uid)
                found.setdefault(each.workload, []).append(own)
        return found

    def _patch(self, path: str, spec: JsonObject, expected: Scale) -> None:
        changes: JsonObject = {
            "metadata": {"uid": expected.uid, "resourceVersion": expected.resource_version},
            "spec": spec,
        }
        self.client.patch(path, changes, fieldManager=FIELD_MANAGER)


def _target(
    autoscaler: PredictiveAutoscaler,
    targets: Mapping[str, TargetWorkload | UncountedTarget],
    problems: Mapping[tuple[str, str], Hold],
) -> TargetWorkload | Hold:
    ref = autoscaler.target
    problem = problems.get((ref.api_version, ref.kind))
    if problem is not None:
        return problem
    found = targets.get(autoscaler.workload)
    if found is None:
        return _no_scale(f"there is no {ref.kind} {ref.name} in namespace {autoscaler.namespace}")
    if isinstance(found, UncountedTarget):
        text = (
            f"{ref.kind} {ref.name} does not say in spec.replicas how many it has; set it there. A kind that keeps the "
            "number elsewhere cannot be scaled by foresize"
        )
        return _no_scale(text)
    return found


def _name(item: JsonObject) -> str:
    return str(item["metadata"]["name"])


def _no_scale(message: str) -> Hold:
    return Hold(Reason(ReasonCode.NO_TARGET, message))


def _scale(answer: JsonObject, replicas: int) -> Scale:
    metadata = answer.get("metadata") or {}
    return Scale(str(metadata.get("uid", "")), str(metadata.get("resourceVersion", "")), replicas)


def _resources(resize: ContainerResize) -> JsonObject:
    given = ((resource, resize.after.of(resource)) for resource in SIZED)
    amounts = {resource.value: amount_text(resource, amount) for resource, amount in given if amount is not None}
    return {"requests": amounts} | ({"limits": amounts} if resize.with_limits else {})


def _hpa_path(hpa: Rival) -> str:
    return f"{_in_namespace(HPAS, hpa.namespace)}/{hpa.name}"


def _in_namespace(path: str, namespace: str) -> str:
    folder, _, plural = path.rpartition("/")
    return f"{folder}/namespaces/{namespace}/{plural}"
