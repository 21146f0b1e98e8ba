"""The autoscaler's settings: what may be scaled, how far, how fast, and how much may be oversold."""

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from predictor.settings import AnyDuration, Duration, Listed, PredictorSettings, Section

NAME_OF_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def _namespace(name: str) -> str:
    if not NAME_OF_NAMESPACE.fullmatch(name):
        raise ValueError(
            f"{name!r} can be no namespace: a name has up to 63 lower-case letters, digits and '-', "
            "with a letter or digit at both ends"
        )
    return name


Namespace = Annotated[str, AfterValidator(_namespace)]
"""The name of a namespace, as Kubernetes takes it."""


class ScalingSettings(Section):
    """How replicas are chosen. Names and defaults follow the HPA's wherever the meaning is the same."""

    interval: Duration = timedelta(seconds=30)
    """How often the controller observes and decides."""
    sla_percentile: float = Field(default=99.0, gt=50, lt=100)
    """Share of intervals, in percent, in which predicted demand must fit what is ready, unless an object says."""
    lead_time: Duration = timedelta(minutes=10)
    """How far ahead capacity is ordered where too few pods were seen to get Ready; else it is measured."""
    longest_lead_time: Duration = timedelta(minutes=30)
    """No lead time is longer than this, however slowly pods get Ready."""
    target_utilisation: float = Field(default=0.9, gt=0, le=1)
    """Share of its request that one replica should carry at the demand quantile, which is headroom already, where an
    object does not say."""
    reactive_utilisation: float = Field(default=0.7, gt=0, le=1)
    """The same where there is no forecast, as an HPA's target: the headroom must then cover the lead time."""
    tolerance: float = Field(default=0.1, ge=0, lt=1)
    """Relative excess of capacity that is not worth removing replicas for, where an object does not say."""
    scale_up_tolerance: float = Field(default=0.0, ge=0, lt=1)
    """Relative shortfall of capacity that is not worth adding replicas for, where an object does not say.

    None by default, other than the HPA's: the quantile is the margin already."""
    scale_down_stabilisation: AnyDuration = timedelta(minutes=5)
    """How long a lower recommendation must hold before replicas are removed, where an object does not say."""
    break_even: AnyDuration = timedelta(0)
    """Replicas that are more likely than not to be needed again within this time are not removed: how long one could
    idle for what it costs to start one anew. Up to the lead time, which 0 s leaves it at, nothing changes."""
    learned_margins: bool = True
    """Whether demand to be ready for is the cheapest of several signals times the margin that its own record asks for,
    once that is long enough; else it is the quantile that is forecast."""
    error_budget: bool = True
    """Whether violations of the SLA count against its budget: they raise the level, and while they come fast nothing is
    removed."""
    error_budget_relaxation: float = Field(default=1.0, ge=1, le=1000)
    """How many times the odds of a violation may exceed those that the SLA states while less is violated than it
    allows; 1: the level never goes below the stated one."""
    error_budget_window: Duration = timedelta(hours=1)
    """Violations come fast when, over this window and over a twelfth of it, they are 14.4 times as frequent as the SLA
    allows."""
    capacity_span: Duration = timedelta(days=7)
    """How much past what replicas carry is learned from, where it is to be learned."""
    learned_utilisation: bool = False
    """Whether, where demand is CPU and an object gives neither a latency nor a target, the utilisation up to which its
    containers are hardly throttled is learned and takes the place of target_utilisation; nobody has measured yet what
    that is worth in production."""
    stale_after: Duration = timedelta(minutes=15)
    """Observations older than this are no answer: the controller holds."""
    respect_others_for: AnyDuration = timedelta(minutes=10)
    """Replicas that somebody else has set are left alone this long; 0 s to take them over at once."""
    namespaces: Annotated[tuple[Namespace, ...], Listed] = ()
    """Namespaces to look at; empty means all that the role allows."""
    namespace_selector: str = ""
    """Label selector that a namespace must meet besides, such as `foresize.io/managed=true`; empty for any."""
    paused: bool = False
    """Whether the controller only observes, whatever the objects say."""
    writes_per_second: float = Field(default=50.0, gt=0)
    """Most changes per second that are sent to the API server, replicas before statuses and events."""
    lease_namespace: Namespace = "foresize"
    """Namespace of the lease by which copies of the controller agree on who acts."""
    lease_name: str = "foresize-controller"
    """Name of that lease."""
    metrics_port: int = Field(default=8081, ge=0, le=65_535)
    """Port of the controller's own health, metrics and decisions; 0 takes a free one."""

    @model_validator(mode="after")
    def _bounds(self) -> "ScalingSettings":
        if self.lead_time > self.longest_lead_time:
            raise ValueError(f"lead_time {self.lead_time} exceeds longest_lead_time {self.longest_lead_time}")
        if self.reactive_utilisation > self.target_utilisation:
            raise ValueError(
                f"reactive_utilisation {self.reactive_utilisation} exceeds target_utilisation "
                f"{self.target_utilisation}: without a forecast more headroom is needed, not less"
            )
        return self


class VerticalSettings(Section):
    """How requests are recommended and pods resized, for objects whose `vertical.mode` is not Off."""

    cpu_percentile: float = Field(default=95.0, ge=50, le=99)
    """Share of a container's CPU time, in percent, that is to be used at or under its CPU request."""
    memory_percentile: float = Field(default=99.0, ge=50, le=99)
    """Percentile of the peak within a day that memory requests are to hold."""
    span: Duration = timedelta(days=8)
    """How much past of each container is read; a week and a day shows a weekly rhythm."""
    tolerance: float = Field(default=0.1, ge=0, lt=1)
    """Relative difference between request and target that is not worth a resize."""
    pods_per_cycle: int = Field(default=3, ge=1)
    """Most pods of one workload that are resized in one cycle."""


class OversubscriptionSettings(Section):
    """How much more than a node pool's allocatable may be requested; what OversubscriptionPolicies state is in each."""

    violation_probability: float = Field(default=0.01, gt=0, lt=0.5)
    """Accepted probability that usage exceeds the predicted peak at any step within the horizon: in `foresize
    oversubscribe` and pools' ratios, as each OversubscriptionPolicy states its own."""
    memory_violation_probability: float = Field(default=0.001, gt=0, lt=0.5)
    """The same of memory: who lacks CPU waits, who lacks memory is killed."""
    horizon: Duration = timedelta(days=1)
    """The peak of usage over this span must fit, there as well."""
    max_ratio: float = Field(default=3.0, ge=1, le=10)
    """No ratio of a pool is more than this, whatever is predicted; a policy has its `maxRate`."""
    resources: Annotated[tuple[Literal["cpu", "memory", "gpu"], ...], Listed] = ("cpu", "memory")
    """Resources for which a ratio is computed."""
    usable_share: float = Field(default=0.9, gt=0, le=1)
    """Share of a node's allocatable that may be used: no more is sold, and there the guard steps in."""
    cpu_pressure: float = Field(default=0.4, gt=0, le=1)
    """Share of time in which tasks of a busy node may wait for CPU (PSI) before the guard steps in; 1 is never."""
    guard_interval: Duration = timedelta(seconds=5)
    """How often nodes that are sold are looked at, whatever the controller's cycle takes; others every
    `scaling.interval`."""
    guard_release: AnyDuration = timedelta(minutes=10)
    """How long a node must have been calm until it is sold again after the guard stepped in."""
    stale_after: Duration = timedelta(minutes=3)
    """Nodes offer what they have sold, and no more, once Prometheus has not answered for so long; a node that is not in
    its answer, as it was not measured within two scrapes, does so at once."""

    def probability_of(self, resource: str) -> float:
        """With which usage of a resource may exceed the predicted peak."""
        return self.memory_violation_probability if resource == "memory" else self.violation_probability


class WebhookSettings(Section):
    """How `foresize webhook` is reached, and where its certificate is kept."""

    port: int = Field(default=8443, ge=0, le=65_535)
    """Port that the API server calls, over TLS; 0 takes a free one."""
    dns_name: str = "foresize-webhook.foresize.svc"
    """Name that the API server calls it by, `SERVICE.NAMESPACE.svc`: the certificate is made out to it."""
    configuration: str = "foresize"
    """Name of the MutatingWebhookConfiguration that is told who signed the certificate."""
    certificate_namespace: str = "foresize"
    """Namespace of the Secret with the certificate."""
    certificate_name: str = "foresize-webhook"
    """Name of that Secret."""


class AutoscalerSettings(PredictorSettings):
    """Everything the autoscaler is configured by."""

    scaling: ScalingSettings = ScalingSettings()
    vertical: VerticalSettings = VerticalSettings()
    oversubscription: OversubscriptionSettings = OversubscriptionSettings()
    webhook: WebhookSettings = WebhookSettings()

    @model_validator(mode="after")
    def _is_forecast(self) -> "AutoscalerSettings":
        if self.scaling.break_even > self.forecast.horizon:
            raise ValueError(
                f"scaling.break_even {self.scaling.break_even} exceeds forecast.horizon {self.forecast.horizon}: "
                "nothing is forecast so far ahead"
            )
        return self
