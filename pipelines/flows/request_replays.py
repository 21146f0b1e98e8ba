"""Replays what containers request: foresize beside the VPA, Autopilot and the requests that there are."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autoscaler.decisions.requests import RequestRules
from autoscaler.settings import VerticalSettings
from autoscaler.simulator.advised_requests import AdvisedRequestPolicy
from autoscaler.simulator.catalog import FORESIZE
from autoscaler.simulator.peers.catalog import REQUEST_PEERS
from autoscaler.simulator.peers.own_requests import StaticRequestPolicy
from autoscaler.simulator.vertical import RequestOutcome, RequestPolicy, replay_requests
from pipelines.steps.requests import RequestPlan, request_advice, request_plan
from predictor.serving.bundle import Bundle
from predictor.usage.panel import Resource, UsagePanel

AS_REQUESTED = "as_requested"
PEERS = ("vpa", "autopilot")
RESOURCES = (Resource.CPU, Resource.MEMORY)


@dataclass(frozen=True, slots=True)
class RequestReplay:
    """What each policy would have requested of one resource."""

    plan: RequestPlan
    outcomes: tuple[RequestOutcome, ...]
    """Policy by policy, workloads in the order of the plan; foresize's first."""

    @property
    def policies(self) -> tuple[str, ...]:
        """Their names, foresize first."""
        return tuple(dict.fromkeys(each.policy for each in self.outcomes))

    def of(self, policy: str) -> tuple[RequestOutcome, ...]:
        """Those of one policy, workloads in the order of the plan."""
        return tuple(each for each in self.outcomes if each.policy == policy)


def replayed_requests(
    bundle: Bundle,
    panel: UsagePanel,
    settings: VerticalSettings,
    start_seconds: int,
    end_seconds: int,
    *,
    progress: Callable[[int, int], None],
) -> tuple[RequestReplay, ...]:
    """A replay of each resource of which usage is known before and within that time."""
    rules = RequestRules(cpu_share=settings.cpu_percentile / 100, memory_level=settings.memory_percentile / 100)
    past_steps = int(settings.span.total_seconds()) // panel.step_seconds
    plans = [plan for each in RESOURCES if (plan := request_plan(panel, each, start_seconds, end_seconds))]
    made = []
    for number, plan in enumerate(plans):

        def told(done: int, total: int, number: int = number) -> None:
            progress(number * total + done, len(plans) * total)

        advice = request_advice(bundle, plan, rules, past_steps=past_steps, progress=told)
        policies: list[RequestPolicy] = [
            AdvisedRequestPolicy(advice=advice, every_steps=plan.every_steps, name=FORESIZE),
            *(REQUEST_PEERS[name].make(plan.past, None) for name in PEERS),
            StaticRequestPolicy(past=np.full_like(plan.past, np.nan), name=AS_REQUESTED),
        ]
        made.append(RequestReplay(plan, replay_requests(plan.demand, plan.workloads, policies, plan.step_seconds)))
    return tuple(made)
