"""By what requests of new pods are divided: a pod's node is not known yet, so the least of all that it may go to holds.

    requests on a node ≤ rate · allocatable,   rate = (Σ requests + reclaimable − sold) / allocatable   of the least

A node that nothing may be sold on, for whatever reason, has the rate 1, and with it all. Which policy a pod is under is
told by what its spec demands of nodes' labels, of nodes that are there now or will be: a policy is sure where every
label that it selects by is demanded, and possible where none is ruled out. Without a sure one nothing is changed; of
several possible ones the lowest rate holds. OpenShift's ClusterResourceOverride divides by fixed percentages instead.
Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import ceil, floor

from autoscaler.cluster.containers import NO_AMOUNTS, SIZED, Amounts
from autoscaler.cluster.nodes import Actuator, in_whole_units, shown
from autoscaler.cluster.reasons import Hold, Reason, ReasonCode
from autoscaler.decisions.reclaiming import Reclaimable, Shelf, oversubscription_rate
from predictor.usage.panel import Resource

RATE_STEP = 0.01
"""Rates are rounded down to this, so that they do not move with every sample."""
HIGHEST_RATE = 10.0
"""The highest `maxRate` that a policy may have."""
MOST_ALTERNATIVES = 64
"""A pod that may go to more kinds of nodes than this is left as it is."""
ROUNDING = 1e-9

LabelPairs = frozenset[tuple[str, str]]


# --- the rate of a policy's nodes


@dataclass(frozen=True, slots=True)
class PoolRate:
    """By what requests may be divided, and which node decides; 1 is not at all."""

    rate: float
    reason: Reason


def node_rate(shelf: Shelf, decision: Reclaimable) -> PoolRate:
    """What one node allows; 1 where nothing more of it may be sold a second time.

    What is sold are amounts that pods still ask for from when the node was sold by extended resources.
    """
    if decision.amount <= 0:
        return PoolRate(1.0, decision.reason)
    left = decision.amount - shelf.sold
    if left <= 0:
        text = f"{decision.reason.message}; pods that ask for reclaimed amounts have it all"
        return PoolRate(1.0, Reason(ReasonCode.SOLD_OUT, text))
    rate = oversubscription_rate(shelf.requested, left, shelf.allocatable)
    return PoolRate(max(1.0, floor(rate / RATE_STEP + ROUNDING) * RATE_STEP), decision.reason)


def pool_rate(by_node: Mapping[str, PoolRate]) -> PoolRate:
    """The least of the nodes that take pods: nobody knows on which of them a pod will land."""
    if not by_node:
        return PoolRate(1.0, Reason(ReasonCode.NO_EVIDENCE, "no node takes pods: none is Ready and not cordoned"))
    name = min(by_node, key=lambda each: (by_node[each].rate, each))
    least = by_node[name]
    return PoolRate(least.rate, Reason(least.reason.code, f"{name} decides: {least.reason.message}"))


# --- where a pod may go


@dataclass(frozen=True, slots=True)
class Requirement:
    """One expression of a node affinity: `key operator values`."""

    key: str
    operator: str
    """`In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt` or `Lt`."""
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """What a pod demands of its node's labels: all of `labels`, and all of one of the `terms` where there are any."""

    labels: LabelPairs = frozenset()
    terms: tuple[tuple[Requirement, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyRates:
    """What one policy says of one resource now."""

    name: str
    selector: LabelPairs
    actuator: Actuator
    rates: Mapping[Resource, float | Hold]
    """Of each resource that it is about: by what requests may be divided (amplification), or 1 and more where reclaimed
    resources are sold; a Hold where nothing is."""
    floor: Amounts = NO_AMOUNTS
    unsold: Mapping[Resource, float] = field(default_factory=dict)
    """Of each resource of which reclaimed amounts are sold: the most that one node has unsold, in its base unit."""
    awaited: Mapping[Resource, float] = field(default_factory=dict)
    """The most that one node may sell once it is calm, while the guard has stopped sales on some; else 0."""


@dataclass(frozen=True, slots=True)
class AllowedRate:
    """By what a pod's requests of one resource may be divided."""

    rate: float
    """More than 1."""
    policy: str
    """Whose it is."""
    floor: float
    """The highest of those of all policies that the pod may be under; 0 is none."""


@dataclass(frozen=True, slots=True)
class _Alternative:
    """One kind of nodes that a pod may go to."""

    labels: Mapping[str, str]
    """That these nodes carry for sure."""
    others: tuple[Requirement, ...]

    def is_sure(self, selector: LabelPairs) -> bool:
        """Whether every such node is selected."""
        return all(self.labels.get(key) == value for key, value in selector)

    def is_possible(self, selector: LabelPairs) -> bool:
        """Whether some such node may be selected."""
        return all(self._may_carry(key, value) for key, value in selector)

    def _may_carry(self, key: str, value: str) -> bool:
        if key in self.labels:
            return self.labels[key] == value
        for each in self.others:
            if each.key == key and (
                each.operator == "DoesNotExist"
                or (each.operator == "NotIn" and value in each.values)
                or (each.operator == "In" and value not in each.values)
            ):
                return False
        return True


def _alternatives(placement: Placement, keys: frozenset[str]) -> list[_Alternative] | Hold:
    """The kinds of nodes that a pod may go to, told apart by the labels with these keys."""
    found: list[_Alternative] = []
    for term in placement.terms or ((),):
        # An empty term matches no node, but where there are no terms at all every node will do.
        if placement.terms and not term:
            continue
        choices = [each for each in term if each.operator == "In" and (each.key in keys or len(each.values) == 1)]
        others = tuple(each for each in term if each not in choices)
        combinations = 1
        for each in choices:
            combinations *= len(each.values)
        if len(found) + combinations > MOST_ALTERNATIVES:
            text = f"its node affinity allows more than {MOST_ALTERNATIVES} kinds of nodes"
            return Hold(Reason(ReasonCode.NO_POLICY, text))
        for values in product(*(each.values for each in choices)):
            labels = dict(placement.labels)
            pairs = [(each.key, value) for each, value in zip(choices, values, strict=True)]
            if all(labels.setdefault(key, value) == value for key, value in pairs):
                found.append(_Alternative(labels, others))
    return found or Hold(Reason(ReasonCode.NO_POLICY, "no node can meet its nodeSelector and node affinity"))


def rate_for(placement: Placement, policies: Sequence[PolicyRates], resource: Resource) -> AllowedRate | Hold:
    """The lowest rate of all policies that a pod may be under; a Hold where none is sure, or one sells nothing."""
    about = [each for each in policies if resource in each.rates]
    alternatives = _alternatives(placement, frozenset(key for each in about for key, _ in each.selector))
    if isinstance(alternatives, Hold):
        return alternatives
    least: AllowedRate | None = None
    for alternative in alternatives:
        possible = [each for each in about if alternative.is_possible(each.selector)]
        if not any(_amplifies(each) and alternative.is_sure(each.selector) for each in possible):
            text = (
                "no policy with RequestAmplification is sure to select its node: demand the labels that one selects by"
            )
            return Hold(Reason(ReasonCode.NO_POLICY, f"{resource.value}: {text} in nodeSelector or node affinity"))
        for each in possible:
            rate = each.rates[resource]
            if isinstance(rate, Hold):
                return Hold(Reason(rate.reason.code, f"{resource.value}: {each.name}: {rate.reason.message}"))
            if not _amplifies(each):
                text = f"{resource.value}: {each.name} sells the same nodes by {each.actuator.value}"
                return Hold(Reason(ReasonCode.CONFLICT, text))
            if rate <= 1:
                text = f"{resource.value}: the rate of {each.name} is 1: nothing is oversold"
                return Hold(Reason(ReasonCode.NOT_OVERSOLD, text))
            lowest = AllowedRate(rate, each.name, 0.0) if least is None or rate < least.rate else least
            before = 0.0 if least is None else least.floor
            least = replace(lowest, floor=max(before, each.floor.of(resource) or 0.0))
    assert least is not None
    return least


def _amplifies(policy: PolicyRates) -> bool:
    return policy.actuator is Actuator.REQUEST_AMPLIFICATION


def seller_for(placement: Placement, policies: Sequence[PolicyRates], resource: Resource, wanted: float) -> str | Hold:
    """The policy of which a node that a pod may go to has as much of the reclaimed resource unsold as is wanted.

    A Hold where none has: the pod would wait for it. It is to wait while the guard has stopped sales, if it may have
    been evicted for that: on ordinary terms it could come back to the same node. The scheduler sees to it that the pod
    goes only where there is as much.
    """
    about = [each for each in policies if resource in each.rates and each.actuator is Actuator.EXTENDED_RESOURCES]
    alternatives = _alternatives(placement, frozenset(key for each in about for key, _ in each.selector))
    if isinstance(alternatives, Hold):
        return alternatives
    text = "no policy with ExtendedResources is about nodes that it may go to"
    reason = Reason(ReasonCode.NO_POLICY, f"{resource.value}: {text}")
    for each in about:
        if any(alternative.is_possible(each.selector) for alternative in alternatives):
            rate, unsold = each.rates[resource], each.unsold.get(resource, 0.0)
            most = max(unsold, each.awaited.get(resource, 0.0))
            if isinstance(rate, Hold):
                reason = Reason(rate.reason.code, f"{resource.value}: {each.name}: {rate.reason.message}")
            elif wanted > most * (1 + ROUNDING):
                amounts = f"{shown(resource, wanted)} are wanted, and no node has more than {shown(resource, unsold)}"
                reason = Reason(ReasonCode.SOLD_OUT, f"{resource.value}: {each.name}: {amounts} unsold")
            else:
                return each.name
    return Hold(reason)


# --- what becomes of a pod


@dataclass(frozen=True, slots=True)
class NewContainer:
    """A container of a pod that is about to be created, init containers among them."""

    name: str
    requests: Amounts = NO_AMOUNTS
    limits: Amounts = NO_AMOUNTS
    is_first: bool = False
    """Whether it ends before the others begin, so that it needs room by itself."""


@dataclass(frozen=True, slots=True)
class NewPod:
    """A pod that is about to be created."""

    placement: Placement = Placement()
    containers: tuple[NewContainer, ...] = ()
    is_changed: bool = False
    """Whether it carries the annotation with its first requests, or asks for reclaimed resources by itself."""
    requests_as_a_whole: bool = False
    """Whether it has requests or limits of the pod, beside those of its containers."""


@dataclass(frozen=True, slots=True)
class NamespaceRules:
    """What LimitRanges and ResourceQuotas of a namespace ask of its pods."""

    least: Amounts = NO_AMOUNTS
    """Of each container."""
    limit_per_request: Amounts = NO_AMOUNTS
    """Most that a container's limit may be of its request, as a ratio; None where anything may be."""
    of_pods: frozenset[Resource] = frozenset()
    """Resources of which pods as a whole must request a least amount, or a share of their limit."""
    demanded: frozenset[Resource] = frozenset()
    """Resources of which containers must have, or are given, a request or limit."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What becomes of a pod's containers, by name."""

    amounts: Mapping[str, Amounts]
    """New ordinary requests, of the resources that change (amplification); or amounts that are asked for of what was
    reclaimed, in place of ordinary ones (translation)."""
    held: tuple[Reason, ...] = ()
    """Why a resource stays as it is."""


def lowered(pod: NewPod, policies: Sequence[PolicyRates], rules: NamespaceRules) -> Changed | Hold:
    """Requests divided by the rate, rounded up and never below a floor; a Hold, and why, where all stay as they are."""
    refused = _untouchable(pod)
    if refused is not None:
        return refused
    if _is_guaranteed(pod.containers):
        text = "its requests are its limits: with lower ones it would be Burstable"
        return Hold(Reason(ReasonCode.GUARANTEED_POD, text))
    after: dict[str, Amounts] = {}
    held: list[Reason] = []
    for resource in SIZED:
        if not any(each.requests.of(resource) for each in pod.containers):
            held.append(Reason(ReasonCode.REQUESTS_NOTHING, f"{resource.value}: it requests none"))
            continue
        if resource in rules.of_pods:
            text = f"{resource.value}: a LimitRange of the namespace has a rule for pods"
            held.append(Reason(ReasonCode.NAMESPACE_RULES, text))
            continue
        rate = rate_for(pod.placement, policies, resource)
        if isinstance(rate, Hold):
            held.append(rate.reason)
            continue
        least = max(rules.least.of(resource) or 0.0, rate.floor)
        changes = {each.name: _lower(each, resource, rate.rate, least, rules) for each in pod.containers}
        for name, amount in changes.items():
            if amount is not None:
                after[name] = after.get(name, NO_AMOUNTS).having(resource, amount)
        if not any(amount is not None for amount in changes.values()):
            held.append(Reason(ReasonCode.REQUESTS_NOTHING, f"{resource.value}: its requests are at the floor"))
    return Changed(after, tuple(held)) if after else Hold(held[0])


def _lower(
    container: NewContainer, resource: Resource, rate: float, floor_amount: float, rules: NamespaceRules
) -> float | None:
    """The new request; None where it stays as it is."""
    request, limit = container.requests.of(resource), container.limits.of(resource)
    ratio = rules.limit_per_request.of(resource)
    if not request:
        return None
    least = max(floor_amount, limit / ratio if limit and ratio else 0.0)
    wanted = _whole(resource, max(request / rate, least))
    return wanted if wanted < request * (1 - ROUNDING) else None


def translated(pod: NewPod, policies: Sequence[PolicyRates], rules: NamespaceRules) -> Changed | Hold:
    """What is asked for of reclaimed resources in place of ordinary requests and limits; a Hold where nothing is.

    A container asks for its request, or its limit where it has none. A resource is translated for all containers or
    none.
    """
    refused = _untouchable(pod)
    if refused is not None:
        return refused
    after: dict[str, Amounts] = {}
    held: list[Reason] = []
    for resource in SIZED:
        wanted = {each.name: _asked(each, resource) for each in pod.containers}
        if not any(wanted.values()):
            held.append(Reason(ReasonCode.REQUESTS_NOTHING, f"{resource.value}: it requests none"))
            continue
        if resource in rules.demanded:
            text = f"{resource.value}: a LimitRange or ResourceQuota of the namespace asks for ordinary requests"
            held.append(Reason(ReasonCode.NAMESPACE_RULES, text))
            continue
        together = sum(wanted[each.name] or 0.0 for each in pod.containers if not each.is_first)
        alone = max((wanted[each.name] or 0.0 for each in pod.containers if each.is_first), default=0.0)
        seller = seller_for(pod.placement, policies, resource, max(together, alone))
        if isinstance(seller, Hold):
            held.append(seller.reason)
            continue
        for name, amount in wanted.items():
            if amount:
                after[name] = after.get(name, NO_AMOUNTS).having(resource, _whole(resource, amount))
    return Changed(after, tuple(held)) if after else Hold(held[0])


def _asked(container: NewContainer, resource: Resource) -> float | None:
    request = container.requests.of(resource)
    return container.limits.of(resource) if request is None else request


def _untouchable(pod: NewPod) -> Hold | None:
    if pod.is_changed:
        return Hold(Reason(ReasonCode.ALREADY_CHANGED, "its requests were changed before"))
    if pod.requests_as_a_whole:
        return Hold(Reason(ReasonCode.POD_LEVEL_RESOURCES, "it has requests or limits of the pod as a whole"))
    return None


def _is_guaranteed(containers: Iterable[NewContainer]) -> bool:
    return all(None not in each.requests and each.requests == each.limits for each in containers)


def _whole(resource: Resource, amount: float) -> float:
    """Rounded up to thousandths of a core, and to bytes."""
    units = in_whole_units(resource, 1.0)
    return ceil(amount * units - 1e-6) / units


def first_request(annotated: float, current: float) -> float:
    """What a pod requested before it was lowered, as far as its annotation can be true: it is anybody's to write."""
    return min(max(annotated, current), current * HIGHEST_RATE)
