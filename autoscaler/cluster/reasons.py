"""Why something was decided, or was not: a code from a closed list (a metric label) and a sentence (for a person)."""

from dataclasses import dataclass
from enum import StrEnum


class ReasonCode(StrEnum):
    """Every reason there is. Names are the HPA's condition reasons wherever the meaning is the same."""

    FORECAST_PEAK = "ForecastPeak"
    """The forecast peak asked for this many replicas."""
    OBSERVED_DEMAND = "ObservedDemand"
    """The observed demand asked for this many replicas."""
    NO_FORECAST = "NoForecast"
    """There is no forecast, or not one that can be used."""
    STALE_FORECAST = "StaleForecast"
    """The forecast was made from history that ended too long ago."""
    NO_OBSERVATION = "FailedGetMetrics"
    """Demand was not measured, or the measurement cannot be used."""
    NO_QUERY_VALUE = "FailedQuery"
    """The query that says what demand is has no answer that can be used."""
    STALE_OBSERVATION = "StaleObservation"
    """Demand was measured too long ago."""
    NO_CAPACITY = "MissingRequest"
    """What one replica can carry is not known, for example because the pod has no request."""
    NOT_LEARNED = "CapacityNotLearned"
    """What replicas can carry is to be learned, and is not known yet."""
    NO_SHRINK_UNSEEN = "NoScaleDownUnseen"
    """A forecast alone never removes replicas: nothing fresh was observed."""
    WITHIN_TOLERANCE = "WithinTolerance"
    """The change would be too small to be worth it."""
    SCALE_DOWN_STABILIZED = "ScaleDownStabilized"
    """A higher recommendation lies within the scale-down stabilisation window."""
    SCALE_UP_STABILIZED = "ScaleUpStabilized"
    """A lower recommendation lies within the scale-up stabilisation window."""
    SCALE_UP_LIMIT = "ScaleUpLimit"
    """The rate limit for adding replicas was met."""
    SCALE_DOWN_LIMIT = "ScaleDownLimit"
    """The rate limit for removing replicas was met."""
    TOO_MANY_REPLICAS = "TooManyReplicas"
    """The maximum caps the replicas."""
    TOO_FEW_REPLICAS = "TooFewReplicas"
    """The minimum raises the replicas."""
    READY_FOR_NEW_SCALE = "ReadyForNewScale"
    """The replicas are already what they should be."""
    SCALING_DISABLED = "ScalingDisabled"
    """Somebody scaled the workload to zero, which switches autoscaling off."""
    INVALID_SPEC = "InvalidSpec"
    """The object asks for something that cannot be followed."""
    VERTICAL_ALONE = "VerticalAlone"
    """The object sizes containers and leaves replicas to others."""
    NO_TARGET = "FailedGetScale"
    """The target is not there, or has no scale that can be read."""
    PAUSED = "Paused"
    """The object, or everything, is paused: decided, but not to be acted on."""
    CONFLICT = "Conflict"
    """Something else steers the same target: decided, but not to be acted on."""
    CHANGED_BY_OTHERS = "ChangedByOthers"
    """Somebody else has just set the replicas: decided, but not to be acted on for a while."""
    UNTOLD_CHANGE = "UntoldChange"
    """A copy of the controller set the replicas and could not tell why."""
    ROLLOUT = "RolloutInProgress"
    """A rollout is in progress: no replicas are removed meanwhile."""
    DISRUPTION_BUDGET = "DisruptionBudget"
    """A PodDisruptionBudget allows no more pods to go now."""
    ERROR_BUDGET_BURNS = "ErrorBudgetBurns"
    """The SLA is violated so often that nothing is removed."""
    BREAK_EVEN = "BreakEven"
    """Replicas are kept that will soon be needed again: to start them anew would cost more."""
    SURVIVES_LOSS = "SurvivesLoss"
    """More replicas than demand needs, as a node or zone may be lost."""
    DOMAINS_UNKNOWN = "DomainsUnknown"
    """Which nodes or zones the pods are in is not known: none are removed meanwhile."""
    LITTLE_HISTORY = "LittleHistory"
    """Too little of a container's usage is known to recommend a request."""
    PREDICTED_PEAK = "PredictedPeak"
    """The predicted peak of a pool decided its oversubscription ratio."""
    PEAK_ABOVE_REQUESTS = "PeakAboveRequests"
    """The predicted peak of a pool exceeds its requests: no oversubscription."""
    MAX_RATIO = "MaxRatio"
    """The configured maximum caps the oversubscription ratio."""
    LEVEL_NOT_SUPPORTED = "LevelNotSupported"
    """History is too short for the quantile level, so a bound above the highest peak was used."""
    COLD_WORKLOADS = "ColdWorkloads"
    """Workloads with too little history count at their limit or request."""
    NO_EVIDENCE = "NoEvidence"
    """Too little is known to oversell anything."""
    PEAK_ABOVE_USABLE = "PeakAboveUsable"
    """The predicted peak of a node leaves nothing of what is usable."""
    BUDGET_OVERDRAWN = "BudgetOverdrawn"
    """What was told of a policy's nodes was wrong more often than it may be: less of what is left is sold."""
    NODE_FULL = "NodeFull"
    """More of a node is used than is usable: no more is sold on it, and pods that opted in go. Of GPUs, the memory of a
    shared one is that full: it is divided into no more shares than pods have."""
    NODE_PRESSURE = "NodePressure"
    """A node is short of memory by its own word."""
    KUBELET_EVICTION = "KubeletEviction"
    """A kubelet has just ended a pod, as the node was short of memory."""
    CPU_PRESSURE = "CPUPressure"
    """Tasks of a node wait for CPU for too much of the time, though less of it is used than is usable."""
    STALE_NODE = "StaleNodeMetrics"
    """What a node uses, or its GPUs, was not measured lately: it offers what it has sold and no more."""
    GPU_MEMORY = "GPUMemory"
    """The memory of a GPU holds no more shares."""
    SHARES_IN_USE = "SharesInUse"
    """Pods on a node have more shares of its GPUs than would be made of them now."""
    NO_POLICY = "NoPolicy"
    """No policy in mode Auto is sure to cover every node that a pod may go to."""
    STALE_RATE = "StaleRate"
    """A policy's rate was not told lately, or not for the spec that it has now."""
    NOT_OVERSOLD = "NotOversold"
    """Nothing of the resource may be sold a second time now."""
    SOLD_OUT = "SoldOut"
    """No node has as much of what was reclaimed unsold as a pod would ask for."""
    REQUESTS_NOTHING = "RequestsNothing"
    """A pod requests nothing that could be lowered, or no more than the floor."""
    GUARANTEED_POD = "GuaranteedPod"
    """A pod's requests are its limits: lowering them would take its quality of service class from it."""
    ALREADY_CHANGED = "AlreadyChanged"
    """A pod carries the annotation with what it requested at first, or asks for reclaimed resources by itself."""
    POD_LEVEL_RESOURCES = "PodLevelResources"
    """A pod requests as a whole, not by container."""
    NAMESPACE_RULES = "NamespaceRules"
    """A LimitRange or ResourceQuota of the namespace would refuse the changed pod."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason: its code, and a sentence with the figures it rests on."""

    code: ReasonCode
    message: str

    def __str__(self) -> str:
        return f"{self.code.value}: {self.message}"


@dataclass(frozen=True, slots=True)
class Hold:
    """No answer, or the decision to leave alone, and why. Never a zero, a NaN or a bare None."""

    reason: Reason

    def __str__(self) -> str:
        return str(self.reason)


UNTOLD = Reason(
    ReasonCode.UNTOLD_CHANGE, "set by a copy of foresize that ended, or lost the answer, before it could tell why"
)


def level_text(level: float) -> str:
    """A quantile level in few digits, but in as many as tell it from 1."""
    short = f"{level:g}"
    return short if float(short) < 1.0 else f"{level:.10g}"


def replicas_text(count: int) -> str:
    """So many replicas, in words: `1 replica`, `3 replicas`."""
    return f"{count} replica" if count == 1 else f"{count} replicas"
