"""Pods that are about to be created: what of them decides their requests, and the JSON patch that changes these.

Values in, values out. Where a pod is left alone the answer says why; nothing here ever refuses one.
"""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from autoscaler.cluster.containers import NO_AMOUNTS, SIZED, Amounts
from autoscaler.cluster.nodes import RECLAIMED, in_whole_units
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.controller.quantities import amount_text
from autoscaler.decisions.amplification import (
    Changed,
    NamespaceRules,
    NewContainer,
    NewPod,
    Placement,
    PolicyRates,
    Requirement,
    lowered,
    translated,
)
from autoscaler.errors import ClusterRefused
from autoscaler.kube.objects import JsonObject, amounts_of
from predictor.usage.panel import Resource

ORIGINAL_ANNOTATION = "foresize.io/original-resources"
"""What of a pod's requests and limits was changed, as it was: `{"CONTAINER": {"requests": {"cpu": "2"}}}`."""
CONTAINER_LISTS = ("containers", "initContainers")
LIMIT_RANGE_FIELDS = ("min", "maxLimitRequestRatio", "default", "defaultRequest")


class Rule(StrEnum):
    """What is done to a pod."""

    AMPLIFY = "amplify"
    """Its requests are divided by its pool's rate."""
    RECLAIM = "reclaim"
    """What it asks for is asked for of what was reclaimed."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What came of one pod."""

    operations: tuple[JsonObject, ...] = ()
    """Of a JSON patch; none leaves it as it is."""
    reasons: tuple[Reason, ...] = ()
    """Why it, or a resource of it, is left alone."""


def admitted(pod: Mapping[str, Any], rule: Rule, policies: Sequence[PolicyRates], rules: NamespaceRules) -> Admission:
    """What is to be changed of a pod by a rule."""
    try:
        decide: Callable[..., Changed | Hold] = lowered if rule is Rule.AMPLIFY else translated
        change = decide(new_pod_of(pod), policies, rules)
        if isinstance(change, Hold):
            return Admission(reasons=(change.reason,))
        return Admission(tuple(_operations(pod, rule, change.amounts)), change.held)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        text = f"the pod cannot be read ({type(error).__name__}: {error}): it is left as it is"
        return Admission(reasons=(Reason(ReasonCode.INVALID_SPEC, text),))


def reviewed(
    review: Mapping[str, Any], decide: Callable[[Mapping[str, Any], str], Admission]
) -> tuple[JsonObject, Admission]:
    """The answer to an AdmissionReview, which always allows; `decide` gets pod and namespace.

    Raises ClusterRefused for what is no AdmissionReview of a pod.
    """
    request = review.get("request")
    pod = request.get("object") if isinstance(request, dict) else None
    if not isinstance(request, dict) or not isinstance(pod, dict) or pod.get("kind") != "Pod" or "uid" not in request:
        raise ClusterRefused("this answers AdmissionReviews (admission.k8s.io/v1) about pods that are created")
    found = decide(pod, str(request.get("namespace", "")))
    response: JsonObject = {"uid": request["uid"], "allowed": True}
    if found.operations:
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(orjson.dumps(found.operations)).decode()}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}, found


def new_pod_of(pod: Mapping[str, Any]) -> NewPod:
    """What decides the pod's requests."""
    spec, annotations = pod["spec"], (pod.get("metadata") or {}).get("annotations") or {}
    containers = [(part, each) for part in CONTAINER_LISTS for each in spec.get(part) or ()]
    given = [_resources(each) for _, each in containers]
    asked = [{**(r.get("limits") or {}), **(r.get("requests") or {})} for r in given]
    return NewPod(
        placement=_placement(spec),
        containers=tuple(
            NewContainer(
                str(each["name"]),
                amounts_of(r.get("requests")),
                amounts_of(r.get("limits")),
                is_first=part == "initContainers" and each.get("restartPolicy") != "Always",
            )
            for (part, each), r in zip(containers, given, strict=True)
        ),
        is_changed=ORIGINAL_ANNOTATION in annotations or any(set(RECLAIMED.values()) & each.keys() for each in asked),
        requests_as_a_whole=bool(spec.get("resources")),
    )


def _placement(spec: Mapping[str, Any]) -> Placement:
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    terms = []
    for term in affinity.get("nodeSelectorTerms") or ():
        fields = [Requirement(f"field {each['key']}", str(each["operator"])) for each in term.get("matchFields") or ()]
        labels = [
            Requirement(str(each["key"]), str(each["operator"]), tuple(map(str, each.get("values") or ())))
            for each in term.get("matchExpressions") or ()
        ]
        terms.append((*labels, *fields))
    return Placement(frozenset((str(k), str(v)) for k, v in (spec.get("nodeSelector") or {}).items()), tuple(terms))


def _operations(pod: Mapping[str, Any], rule: Rule, amounts: Mapping[str, Amounts]) -> Iterable[JsonObject]:
    original: JsonObject = {}
    for part in CONTAINER_LISTS:
        for place, container in enumerate(pod["spec"].get(part) or ()):
            changed = amounts.get(str(container["name"]), NO_AMOUNTS)
            resources = [each for each in SIZED if changed.of(each) is not None]
            if not resources:
                continue
            before = _resources(container)
            after = {name: dict(before.get(name) or {}) for name in ("requests", "limits")}
            kept: JsonObject = {}
            for resource in resources:
                amount = changed.of(resource)
                assert amount is not None
                for name in ("requests", "limits") if rule is Rule.RECLAIM else ("requests",):
                    if resource.value in after[name]:
                        kept.setdefault(name, {})[resource.value] = after[name].pop(resource.value)
                    after[name] |= _written(rule, resource, amount)
            original[str(container["name"])] = kept
            value = {**before, **{name: each for name, each in after.items() if each}}
            yield {"op": "add", "path": f"/spec/{part}/{place}/resources", "value": value}
    if not (pod.get("metadata") or {}).get("annotations"):
        yield {"op": "add", "path": "/metadata/annotations", "value": {}}
    text = orjson.dumps(original).decode()
    yield {"op": "add", "path": f"/metadata/annotations/{ORIGINAL_ANNOTATION.replace('/', '~1')}", "value": text}


def _written(rule: Rule, resource: Resource, amount: float) -> JsonObject:
    if rule is Rule.RECLAIM:
        return {RECLAIMED[resource]: str(in_whole_units(resource, amount))}
    return {resource.value: amount_text(resource, amount)}


def _resources(container: Mapping[str, Any]) -> Mapping[str, Any]:
    return container.get("resources") or {}


# --- what a namespace asks


@dataclass(frozen=True, slots=True)
class RuleOfNamespace:
    """One LimitRange or ResourceQuota."""

    namespace: str
    rules: NamespaceRules


def limit_range_of(item: JsonObject) -> RuleOfNamespace:
    """A LimitRange."""
    least, ratio, of_pods, demanded = NO_AMOUNTS, NO_AMOUNTS, set(), set()
    for each in item["spec"].get("limits") or ():
        said = {
            name: amounts_of(each.get(name)) for name in ("min", "maxLimitRequestRatio", "default", "defaultRequest")
        }
        for resource in SIZED:
            low, most = said["min"].of(resource), said["maxLimitRequestRatio"].of(resource)
            if each.get("type") == "Pod" and (low is not None or most is not None):
                of_pods.add(resource)
                demanded.add(resource)
            if each.get("type") != "Container":
                continue
            least = least.having(resource, _most(least.of(resource), low))
            ratio = ratio.having(resource, _least(ratio.of(resource), most))
            if any(amounts.of(resource) is not None for amounts in said.values()):
                demanded.add(resource)
    rules = NamespaceRules(least, ratio, frozenset(of_pods), frozenset(demanded))
    return RuleOfNamespace(str(item["metadata"]["namespace"]), rules)


def quota_of(item: JsonObject) -> RuleOfNamespace:
    """A ResourceQuota: where it counts CPU or memory, the API server refuses pods that give none."""
    hard = item["spec"].get("hard") or {}
    named = {name.removeprefix("requests.").removeprefix("limits.") for name in hard}
    demanded = frozenset(each for each in SIZED if each.value in named)
    return RuleOfNamespace(str(item["metadata"]["namespace"]), NamespaceRules(demanded=demanded))


def rules_of(namespace: str, found: Iterable[RuleOfNamespace]) -> NamespaceRules:
    """What all of a namespace's objects ask together."""
    least, ratio = NO_AMOUNTS, NO_AMOUNTS
    of_pods: frozenset[Resource] = frozenset()
    demanded: frozenset[Resource] = frozenset()
    for each in found:
        if each.namespace != namespace:
            continue
        for resource in SIZED:
            least = least.having(resource, _most(least.of(resource), each.rules.least.of(resource)))
            ratio = ratio.having(resource, _least(ratio.of(resource), each.rules.limit_per_request.of(resource)))
        of_pods |= each.rules.of_pods
        demanded |= each.rules.demanded
    return NamespaceRules(least, ratio, of_pods, demanded)


def _most(one: float | None, other: float | None) -> float | None:
    given = [each for each in (one, other) if each is not None]
    return max(given, default=None)


def _least(one: float | None, other: float | None) -> float | None:
    given = [each for each in (one, other) if each is not None]
    return min(given, default=None)


# --- pods that were changed


def first_requests(annotations: Mapping[str, Any]) -> Mapping[str, Amounts]:
    """What containers of a pod requested before they were lowered; nothing where the annotation cannot be read."""
    try:
        told = orjson.loads(str(annotations[ORIGINAL_ANNOTATION]))
        return {str(name): amounts_of(each.get("requests")) for name, each in told.items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
