"""What kwok does with nodes and pods: its own fast stages, with resources in the status and times of our choice."""

import yaml

from tests.support.kube_api import JsonObject

READY_AFTER_ANNOTATION = "foresize.test/ready-after"
"""On a pod: its time from scheduled to Ready as a Go duration ("2.5s"), over the control plane's own setting."""

_STILL_THERE = {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}

_NODE_READY = """
{{ $now := Now }}
conditions:
{{ range NodeConditions }}
- type: {{ .type | Quote }}
  status: {{ .status | Quote }}
  reason: {{ .reason | Quote }}
  message: {{ .message | Quote }}
  lastHeartbeatTime: {{ $now | Quote }}
  lastTransitionTime: {{ $now | Quote }}
{{ end }}
addresses:
- type: Hostname
  address: {{ .metadata.name | Quote }}
phase: Running
"""

_POD_READY = """
{{ $now := Now }}
phase: Running
startTime: {{ $now | Quote }}
conditions:
{{ range list "Initialized" "ContainersReady" "Ready" }}
- type: {{ . }}
  status: "True"
  lastTransitionTime: {{ $now | Quote }}
{{ end }}
{{ range .spec.readinessGates }}
- type: {{ .conditionType | Quote }}
  status: "True"
  lastTransitionTime: {{ $now | Quote }}
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  ready: true
  started: true
  restartCount: 0
  resources: {{ .resources | toJson }}
  state:
    running:
      startedAt: {{ $now | Quote }}
{{ end }}
{{ if .spec.initContainers }}
initContainerStatuses:
{{ range .spec.initContainers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  ready: true
  restartCount: 0
  resources: {{ .resources | toJson }}
  {{ if eq (or .restartPolicy "") "Always" }}
  started: true
  state:
    running:
      startedAt: {{ $now | Quote }}
  {{ else }}
  state:
    terminated:
      exitCode: 0
      reason: Completed
      startedAt: {{ $now | Quote }}
      finishedAt: {{ $now | Quote }}
  {{ end }}
{{ end }}
{{ end }}
{{ with NodeIPsWith .spec.nodeName }}
hostIP: {{ index . 0 | Quote }}
hostIPs:
{{ range . }}
- ip: {{ . | Quote }}
{{ end }}
{{ end }}
{{ with PodIPsWith .spec.nodeName (or .spec.hostNetwork false) .metadata.uid .metadata.name .metadata.namespace }}
podIP: {{ index . 0 | Quote }}
podIPs:
{{ range . }}
- ip: {{ . | Quote }}
{{ end }}
{{ end }}
"""

_POD_RESIZED = """
{{ $statuses := .status.containerStatuses }}
containerStatuses:
{{ range $index, $container := .spec.containers }}
- {{ set (index $statuses $index) "resources" $container.resources | toJson }}
{{ end }}
"""

_POD_COMPLETE = """
{{ $now := Now }}
phase: Succeeded
containerStatuses:
{{ range .status.containerStatuses }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  ready: false
  started: false
  restartCount: 0
  state:
    terminated:
      exitCode: 0
      reason: Completed
      startedAt: {{ $now | Quote }}
      finishedAt: {{ $now | Quote }}
{{ end }}
"""

_RESOURCES_ARE_ACTUATED = (
    "[.spec.containers[] | {name, resources: (.resources // {})}]"
    " == [.status.containerStatuses[]? | {name, resources: (.resources // {})}]"
)


def kwok_stages(pod_ready_seconds: float, resize_seconds: float | None) -> str:
    """kwok's configuration: pods Ready after that time, resized after that time (None: never)."""

    def milliseconds(seconds: float) -> int:
        return round(seconds * 1000)

    ready_after = {
        "durationMilliseconds": milliseconds(pod_ready_seconds),
        "durationFrom": {"jq": {"expression": f'.metadata.annotations["{READY_AFTER_ANNOTATION}"]'}},
    }
    running = {"key": ".status.phase", "operator": "In", "values": ["Running"]}
    stages = [
        _stage(
            "node-ready",
            "Node",
            [
                {
                    "key": '.status.conditions.[] | select( .type == "Ready" ) | .status',
                    "operator": "NotIn",
                    "values": ["True"],
                }
            ],
            {"statusTemplate": _NODE_READY},
        ),
        _stage(
            "pod-ready",
            "Pod",
            [_STILL_THERE, {"key": ".status.phase", "operator": "In", "values": ["Pending"]}],
            {"statusTemplate": _POD_READY},
            ready_after,
        ),
        _stage(
            "pod-complete",
            "Pod",
            [
                _STILL_THERE,
                running,
                {"key": ".metadata.ownerReferences.[].kind", "operator": "In", "values": ["Job"]},
            ],
            {"statusTemplate": _POD_COMPLETE},
        ),
        _stage(
            "pod-delete",
            "Pod",
            [{"key": ".metadata.deletionTimestamp", "operator": "Exists"}],
            {"delete": True},
        ),
    ]
    if resize_seconds is not None:
        stages.append(
            _stage(
                "pod-resize",
                "Pod",
                [_STILL_THERE, running, {"key": _RESOURCES_ARE_ACTUATED, "operator": "In", "values": ["false"]}],
                {"statusTemplate": _POD_RESIZED},
                {"durationMilliseconds": milliseconds(resize_seconds)},
            )
        )
    return yaml.safe_dump_all(stages)


def _stage(
    name: str, kind: str, match: list[JsonObject], then: JsonObject, delay: JsonObject | None = None
) -> JsonObject:
    spec: JsonObject = {
        "resourceRef": {"apiGroup": "v1", "kind": kind},
        "selector": {"matchExpressions": match},
        "next": then,
    }
    if delay is not None:
        spec["delay"] = delay
    return {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": name}, "spec": spec}
