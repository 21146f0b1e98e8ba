"""What OversubscriptionPolicies ask for, and what holds for a node that several select. Values; no client, no clock."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autoscaler.cluster.containers import Amounts
from autoscaler.cluster.nodes import Actuator, GpuStrategy, NodeState
from autoscaler.controller.autoscalers import Mode
from predictor.usage.panel import Resource

POLICY_KIND = "OversubscriptionPolicy"
FLOOR = Amounts(0.01, 32 * 2**20)
"""No request is lowered below this, where a policy does not say."""
VIOLATION_PROBABILITY = {Resource.CPU: 0.01, Resource.MEMORY: 0.001, Resource.GPU: 0.01}
"""Where a policy does not say: who lacks CPU waits, who lacks memory is killed."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On which a resource may be oversold."""

    violation_probability: float
    """With which usage may exceed the predicted peak within the horizon."""
    horizon_seconds: float
    max_rate: float
    """Σ requests, on whatever terms, ÷ allocatable may not exceed this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OversubscriptionPolicy:
    """One object as the API server has it."""

    name: str
    uid: str
    generation: int
    selector: frozenset[tuple[str, str]] = frozenset()
    """Labels that a node must carry; none selects every node."""
    terms: Mapping[Resource, Terms] = field(default_factory=dict)
    actuator: Actuator = Actuator.EXTENDED_RESOURCES
    floor: Amounts = FLOOR
    """Of each container, below which amplification lowers no request."""
    gpu_strategy: GpuStrategy = GpuStrategy.TIME_SLICING
    mode: Mode = Mode.OBSERVE
    is_paused: bool = False
    status: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    """Why its spec cannot be followed."""

    @property
    def sells(self) -> bool:
        """Whether anything is written to nodes for it."""
        return self.mode is Mode.AUTO and not self.is_paused and not self.problem

    def selects(self, node: NodeState) -> bool:
        """Whether it is about the node."""
        return not self.problem and self.selector <= node.labels


@dataclass(frozen=True, slots=True)
class NodeTerms:
    """What holds for one resource of one node."""

    terms: Terms
    sells: bool
    """Whether all policies that name it are carried out, and by one actuator."""
    actuator: Actuator = Actuator.EXTENDED_RESOURCES
    """Of the first of them."""

    @property
    def offers(self) -> bool:
        """Whether it is offered in the node's status."""
        return self.sells and self.actuator is Actuator.EXTENDED_RESOURCES


def terms_of(node: NodeState, policies: Iterable[OversubscriptionPolicy]) -> dict[Resource, NodeTerms]:
    """The terms for a node by resource; of several policies the strictest of each term, as if all had to be kept.

    Two that would sell the same in different ways sell nothing.
    """
    found: dict[Resource, NodeTerms] = {}
    for policy in policies:
        if not policy.selects(node):
            continue
        for resource, terms in policy.terms.items():
            known = found.get(resource)
            if known is None:
                found[resource] = NodeTerms(terms, policy.sells, policy.actuator)
            else:
                sells = known.sells and policy.sells and known.actuator is policy.actuator
                found[resource] = NodeTerms(_strictest(known.terms, terms), sells, known.actuator)
    return found


def _strictest(one: Terms, other: Terms) -> Terms:
    return Terms(
        min(one.violation_probability, other.violation_probability),
        max(one.horizon_seconds, other.horizon_seconds),
        min(one.max_rate, other.max_rate),
    )


def rivals_of(
    policy: OversubscriptionPolicy, policies: Sequence[OversubscriptionPolicy], nodes: Iterable[NodeState]
) -> dict[str, int]:
    """By name of other policies about a resource that this one is about too: how many nodes both select."""
    counts: dict[str, int] = {}
    others = [each for each in policies if each.uid != policy.uid and each.terms.keys() & policy.terms.keys()]
    for node in nodes if others else ():
        if policy.selects(node):
            for other in others:
                if other.selects(node):
                    counts[other.name] = counts.get(other.name, 0) + 1
    return counts
