"""What each node may be oversold by now, and how that would have gone on the past: the same decisions, replayed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoscaler.simulator.node_peaks import PeakOutcome, foresize_peaks, judged, replay_node_peaks
from autoscaler.simulator.outcome import ReplayError
from autoscaler.simulator.peers.node_peaks import PEERS
from models.forecast import LONGEST_PAST_SECONDS
from models.node_peak import LEAST_BLOCKS, NoPeak
from pipelines.errors import NotEnoughHistory
from pipelines.flows.clock import StepClock, Told
from pipelines.settings import Settings
from pipelines.steps.nodes import nodes_of
from pipelines.steps.prepare import prepared
from predictor.usage.panel import Finding, Resource, Severity, UsagePanel

DECISIONS_A_HORIZON = 6
FORESIZE, ORACLE = "foresize", "oracle (sees the future)"
BESIDE = (
    "limits",
    "borg_default",
    "rc_like_p99_7d",
    "n_sigma_5_7d",
    "max_n_sigma_rc_7d",
    "koordinator",
    "running_maximum_7d",
)
"""Peers, with a week of past where they can have it: history counts for more than the formula."""


@dataclass(frozen=True, slots=True)
class NodeDecision:
    """What is told of one node and resource, in the resource's base unit."""

    node: str
    resource: Resource
    limits: float
    """Σ limits of the workloads there now."""
    peak: float
    """What their total will exceed within the horizon with no more than the probability asked for; Σ limits where
    `reason` says why it cannot be told."""
    reason: str

    @property
    def freed(self) -> float:
        """What may be given to others."""
        return self.limits - self.peak


@dataclass(frozen=True, slots=True)
class OversubscriptionReport:
    """What came of it."""

    violation_probability: float
    horizon_seconds: int
    decided_at_seconds: int
    nodes: tuple[NodeDecision, ...]
    """Those that may be oversold by most of their limits first."""
    replays: Mapping[Resource, Mapping[str, PeakOutcome]]
    """How each method would have fared on the past; without a resource whose past is too short."""
    findings: tuple[Finding, ...]


def oversubscribe(
    settings: Settings,
    panel: UsagePanel,
    placement: Mapping[str, str] | None,
    *,
    told: Told = lambda _step, _done, _total: None,
) -> OversubscriptionReport:
    """Decide for every node from the whole panel, with what a replay of its past has taught.

    Raises NotEnoughHistory where no workload can be decided on, InvalidUsage for a placement of others.
    """
    clock = StepClock(told)
    asked = settings.oversubscription
    with clock.step("prepare"):
        history = prepared(panel)
        panel = history.panel
    horizon = max(int(asked.horizon.total_seconds()) // panel.step_seconds, 1)
    every = max(horizon // DECISIONS_A_HORIZON, 1)
    first = panel.steps - max(panel.steps - LEAST_BLOCKS * horizon, 0) // every * every
    findings = list(history.findings)
    decisions: list[NodeDecision] = []
    replays: dict[Resource, dict[str, PeakOutcome]] = {}
    for resource in (Resource(name) for name in asked.resources):
        nodes, left_out = nodes_of(panel, placement, resource)
        findings += left_out
        if not nodes:
            continue
        with clock.step(f"replay {resource.value}"):
            replay = replay_node_peaks(
                nodes,
                {name: PEERS[name] for name in BESIDE},
                resource=resource,
                step_seconds=panel.step_seconds,
                horizon_steps=horizon,
                decided_at=range(first, panel.steps + 1, every),
                past_steps=LONGEST_PAST_SECONDS // panel.step_seconds,
            )
            ours = foresize_peaks(replay, asked.violation_probability)
        for row, node in enumerate(replay.nodes):
            past, limits = replay.pasts[row][-1], float(replay.limits[row, -1])
            if np.isnan(limits):
                findings.append(_note(node, resource, "nothing on it was measured lately: nothing to decide"))
                continue
            reason = past.reason if isinstance(past, NoPeak) else ""
            decisions.append(NodeDecision(node, resource, limits, float(ours[row, -1]), reason))
        try:
            methods = {FORESIZE: ours, **replay.predicted, ORACLE: replay.actual}
            replays[resource] = {name: judged(foretold, replay) for name, foretold in methods.items()}
        except ReplayError:
            few = f"{panel.steps // horizon} horizons of history are too few to replay any: read more"
            findings.append(_note("", resource, few))
    if not decisions:
        raise NotEnoughHistory(
            "no node can be decided on: the history needs recent usage of "
            f"{' or '.join(asked.resources)}, with a limit, capacity or request of each workload"
        )
    return OversubscriptionReport(
        asked.violation_probability,
        horizon * panel.step_seconds,
        panel.end_seconds,
        tuple(sorted(decisions, key=lambda each: -each.freed / each.limits if each.limits > 0 else 0.0)),
        replays,
        tuple(findings),
    )


def _note(node: str, resource: Resource, message: str) -> Finding:
    return Finding(node, resource.value, Severity.NOTE, message)
