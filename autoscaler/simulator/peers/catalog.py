"""Name → peer: the only list of them, with the knob that a sweep turns and the values that it takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Generic, TypeVar

from autoscaler.simulator.peers.autopilot import AutopilotPolicy
from autoscaler.simulator.peers.autopilot_requests import AutopilotRequestPolicy, Statistic
from autoscaler.simulator.peers.aws import AwsPredictivePolicy
from autoscaler.simulator.peers.crane import CraneEhpaPolicy
from autoscaler.simulator.peers.fixed import FixedPolicy
from autoscaler.simulator.peers.hpa import HpaPolicy
from autoscaler.simulator.peers.knative import KpaPolicy
from autoscaler.simulator.peers.own_requests import ForesizeRequestPolicy, StaticRequestPolicy
from autoscaler.simulator.peers.phpa import PhpaHoltWintersPolicy, PhpaLinearPolicy
from autoscaler.simulator.peers.requests import KedaPolicy, RequestsPolicy
from autoscaler.simulator.peers.seasonal import SeasonalNaivePolicy
from autoscaler.simulator.peers.vpa import VpaPolicy
from autoscaler.simulator.policies import Policy
from autoscaler.simulator.vertical import RequestPolicy
from models.forecast import FloatArray

UTILISATIONS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
HEADROOMS = (1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0)


MARGINS = (0.0, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0)
PolicyT_co = TypeVar("PolicyT_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Peer(Generic[PolicyT_co]):
    """One peer, as it is mounted in a replay."""

    make: Callable[[FloatArray, float | None], PolicyT_co]
    """The policy from the past, [workloads, steps], and its knob; None: the knob's own default."""
    knob: str
    """The policy's field that a sweep turns."""
    values: tuple[float, ...]
    """What a sweep sets it to."""
    source: str
    """Where the algorithm is published."""


def _hpa(_past: FloatArray, target: float | None) -> Policy:
    return HpaPolicy(target_utilisation=target)


def _hpa_requests(_past: FloatArray, target: float | None) -> Policy:
    return RequestsPolicy(target_utilisation=target)


def _keda(_past: FloatArray, threshold: float | None) -> Policy:
    return KedaPolicy(threshold=threshold)


def _kpa(_past: FloatArray, target: float | None) -> Policy:
    return KpaPolicy() if target is None else KpaPolicy(target=target)


def _phpa_linear(_past: FloatArray, target: float | None) -> Policy:
    return PhpaLinearPolicy(target_utilisation=target)


def _phpa_holt_winters(past: FloatArray, target: float | None) -> Policy:
    return PhpaHoltWintersPolicy(past=past, target_utilisation=target)


def _crane(past: FloatArray, target: float | None) -> Policy:
    return CraneEhpaPolicy(past=past, target_utilisation=target)


def _crane_folded(past: FloatArray, target: float | None) -> Policy:
    return CraneEhpaPolicy(past=past, target_utilisation=target, is_folded=True, name="crane_ehpa_folded")


def _aws(past: FloatArray, target: float | None) -> Policy:
    return AwsPredictivePolicy(past=past, target_utilisation=target)


def _seasonal(past: FloatArray, headroom: float | None) -> Policy:
    return SeasonalNaivePolicy(past=past) if headroom is None else SeasonalNaivePolicy(past=past, headroom=headroom)


def _static_peak(past: FloatArray, target: float | None) -> Policy:
    return FixedPolicy(past=past, target_utilisation=target)


def _static_p95(past: FloatArray, target: float | None) -> Policy:
    return FixedPolicy(past=past, level=0.95, target_utilisation=target, name="static_p95")


def _autopilot(past: FloatArray, target: float | None) -> Policy:
    return AutopilotPolicy(past=past, target_utilisation=target)


def _autopilot_p95(past: FloatArray, target: float | None) -> Policy:
    return AutopilotPolicy(past=past, level=0.95, target_utilisation=target, name="autopilot_p95")


def _vpa(past: FloatArray, margin: float | None) -> RequestPolicy:
    return VpaPolicy(past=past) if margin is None else VpaPolicy(past=past, margin=margin)


def _autopilot_requests(past: FloatArray, margin: float | None) -> RequestPolicy:
    policy = AutopilotRequestPolicy(past=past)
    return policy if margin is None else replace(policy, margin=margin)


def _autopilot_maximum(past: FloatArray, margin: float | None) -> RequestPolicy:
    policy = AutopilotRequestPolicy(past=past, statistic=Statistic.MAXIMUM, name="autopilot_maximum")
    return policy if margin is None else replace(policy, margin=margin)


def _foresize_requests(past: FloatArray, level: float | None) -> RequestPolicy:
    return ForesizeRequestPolicy(past=past, level=level)


def _static_request(past: FloatArray, level: float | None) -> RequestPolicy:
    return StaticRequestPolicy(past=past) if level is None else StaticRequestPolicy(past=past, level=level)


_TARGET = "target_utilisation"
_HPA_SOURCE = "kubernetes/kubernetes pkg/controller/podautoscaler"
_PHPA_SOURCE = "jthomperoo/predictive-horizontal-pod-autoscaler"
_CRANE_SOURCE = "gocrane/crane pkg/prediction/dsp, pkg/ehpa"
_AUTOPILOT_SOURCE = "Rzadca et al., Autopilot, EuroSys 2020"

PEERS: Mapping[str, Peer[Policy]] = MappingProxyType(
    {
        "hpa": Peer(_hpa, _TARGET, UTILISATIONS, _HPA_SOURCE),
        "hpa_requests": Peer(_hpa_requests, _TARGET, UTILISATIONS, _HPA_SOURCE),
        "keda": Peer(_keda, "threshold", UTILISATIONS, "kedacore/keda, ScaledObject specification"),
        "kpa": Peer(_kpa, "target", UTILISATIONS, "knative/serving pkg/autoscaler/scaling"),
        "phpa_linear": Peer(_phpa_linear, _TARGET, UTILISATIONS, _PHPA_SOURCE),
        "phpa_holt_winters": Peer(_phpa_holt_winters, _TARGET, UTILISATIONS, _PHPA_SOURCE),
        "crane_ehpa": Peer(_crane, _TARGET, UTILISATIONS, _CRANE_SOURCE),
        "crane_ehpa_folded": Peer(_crane_folded, _TARGET, UTILISATIONS, _CRANE_SOURCE),
        "aws_predictive": Peer(_aws, _TARGET, UTILISATIONS, "AWS EC2 Auto Scaling documentation; own hourly mean"),
        "seasonal_naive": Peer(_seasonal, "headroom", HEADROOMS, "yesterday at this time"),
        "static_peak": Peer(_static_peak, _TARGET, UTILISATIONS, "the past's peak"),
        "static_p95": Peer(_static_p95, _TARGET, UTILISATIONS, "the past's 0.95 quantile"),
        "autopilot": Peer(_autopilot, _TARGET, UTILISATIONS, _AUTOPILOT_SOURCE),
        "autopilot_p95": Peer(_autopilot_p95, _TARGET, UTILISATIONS, _AUTOPILOT_SOURCE),
    }
)
"""Those that choose replicas, to be replayed by `replay.py`."""

REQUEST_PEERS: Mapping[str, Peer[RequestPolicy]] = MappingProxyType(
    {
        "foresize": Peer(_foresize_requests, "level", (0.5, 0.8, 0.9, 0.95, 0.98, 0.99), "decisions/requests.py"),
        "vpa": Peer(_vpa, "margin", MARGINS, "kubernetes/autoscaler vertical-pod-autoscaler 1.7"),
        "autopilot": Peer(_autopilot_requests, "margin", MARGINS, _AUTOPILOT_SOURCE),
        "autopilot_maximum": Peer(_autopilot_maximum, "margin", MARGINS, _AUTOPILOT_SOURCE),
        "static_peak": Peer(_static_request, "level", (0.5, 0.8, 0.9, 0.95, 0.99, 1.0), "the past's quantile"),
    }
)
"""Those that choose requests, to be replayed by `vertical.py`."""
