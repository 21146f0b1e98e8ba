"""Learned utilisation in the controller: replicas are as full as they can be without being throttled, or as is set."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from math import ceil
from typing import Any

import numpy as np
import pytest

from autoscaler.controller.autoscalers import Indicator, IndicatorKind
from autoscaler.controller.explanation import explanation
from autoscaler.controller.learning import usage_history
from autoscaler.controller.records import DecisionRecord
from autoscaler.settings import ScalingSettings
from benchmarks.knee import counted, true_knee
from models.forecast import FloatArray
from predictor.errors import PredictorError, SourceUnavailable
from predictor.usage.panel import SeriesKey, UsagePanel
from predictor.usage.ready import ReadyHistory
from predictor.usage.throttled import ThrottledHistory
from tests.support.learning import LearningController
from tests.support.scaling import CART, DAYS, ScalingParts, a_target, an_autoscaler
from tests.support.serving import START_SECONDS, STEP_SECONDS

STEPS = DAYS * 288
BURSTINESS = 0.3
KNEE = true_knee(BURSTINESS, 0.01)
"""Cores, and share of the request of one core: 0.54 for 1 % of the periods throttled."""
CALM = 3.0
"""Cores around noon, of 8 replicas."""
DOWN = "http://prometheus:9090 did not answer within 60 s"


@dataclass
class ThrottledPast:
    """A workload's past as Prometheus would tell it: replicas with a limit each, now and then too few."""

    limit_cores: float = 1.0
    """NaN: none, so that no periods are counted."""
    burstiness: float = BURSTINESS
    busiest: float = 1.1
    """Usage ÷ the knee, of those with a limit of one core."""
    new_from: int = 0
    """Step from which on another version ran."""
    is_down: bool = False
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(1)
        self.replicas = np.repeat(rng.integers(4, 11, STEPS // 12), 12).astype(np.float64)
        each = true_knee(self.burstiness, 0.01) * rng.uniform(0.4, self.busiest, STEPS)
        hour = np.arange(STEPS) // 12 % 24
        is_calm = (hour >= 10) & (hour < 18)
        self.replicas[is_calm] = 8.0
        self.usage: FloatArray = np.where(is_calm, CALM, each * self.replicas)
        self.share = counted(self.usage / self.replicas, self.replicas, self.burstiness, rng)
        if np.isnan(self.limit_cores):
            self.share = np.full(STEPS, np.nan)

    def fetch_bounds(
        self, histograms: Mapping[SeriesKey, str], *, end_seconds: int, step_seconds: int
    ) -> dict[SeriesKey, tuple[str, ...] | PredictorError]:
        raise AssertionError("no latency is asked for")

    def fetch_values(self, queries: Mapping[SeriesKey, str], **grid: Any) -> UsagePanel:
        raise AssertionError("no query is asked for")

    def fetch_ready(self, workload: str, *, start_seconds: int, end_seconds: int, step_seconds: int) -> ReadyHistory:
        part = self._part(start_seconds, end_seconds)
        return ReadyHistory(self.replicas[part], np.arange(STEPS)[part] >= self.new_from)

    def fetch_throttled(
        self, workload: str, *, start_seconds: int, end_seconds: int, step_seconds: int
    ) -> ThrottledHistory:
        if self.is_down:
            raise SourceUnavailable(DOWN)
        self.asked.append(workload)
        part = self._part(start_seconds, end_seconds)
        return ThrottledHistory(self.share[part], np.full(STEPS, self.limit_cores)[part])

    @staticmethod
    def _part(start_seconds: int, end_seconds: int) -> slice:
        first, last = ((each - START_SECONDS) // STEP_SECONDS for each in (start_seconds, end_seconds))
        return slice(first, last + 1)


@dataclass
class Learning(LearningController):
    """A workload whose utilisation is learned."""

    spec: Mapping[str, Any] = field(default_factory=dict)
    past: ThrottledPast = field(default_factory=ThrottledPast)
    is_on: bool = True
    cpu_cores: float = 1.0
    """Request of a replica."""
    cpu_limit_cores: float = 1.0
    """Its limit, as its template says."""
    configured: float = 0.9
    """Utilisation."""

    def __post_init__(self) -> None:
        parts = ScalingParts(
            usage_by_workload={CART: self.past.usage},
            autoscalers=(an_autoscaler(**self.spec),),
            targets=(
                a_target(replicas=8, cpu_cores=self.cpu_cores, cpu_limit_cores=self.cpu_limit_cores, version="one"),
            ),
            settings=ScalingSettings(
                learned_margins=False,
                learned_utilisation=self.is_on,
                target_utilisation=self.configured,
                reactive_utilisation=self.configured * 0.8,
                scale_down_stabilisation=timedelta(0),
            ),
        )
        self.begin(parts, self.past)

    @property
    def record(self) -> DecisionRecord:
        """The last decision."""
        assert self.controller.report is not None
        return self.controller.report.records[0]

    def needed(self, per_replica: float) -> int:
        """Replicas for what is forecast, or for what is seen where that is more."""
        status = self.parts.status()
        return ceil(max(float(status["forecast"]["value"]), float(status["observed"]["value"])) / per_replica)


def test_replicas_are_as_full_as_they_can_be_without_being_throttled() -> None:
    """Six by a knee at .54 of the request, where the configured .9 asks for four; told in status, words and metrics."""
    learning = Learning()
    learning.minutes(1)

    told, desired = learning.told, learning.parts.status()["desiredReplicas"]
    assert desired == learning.needed(told["perReplica"])
    assert desired > learning.needed(0.9)
    assert told["likeliest"] / told["replicas"] == pytest.approx(KNEE, rel=0.05)
    assert 0.95 * KNEE <= told["perReplica"] <= KNEE
    assert told["averageUtilization"] == round(100 * told["perReplica"])
    assert "more than 1 % of the CPU periods were throttled" in told["reason"]
    assert "the knee is at 5" in told["reason"]
    message = next(c["message"] for c in learning.parts.status()["conditions"] if c["type"] == "ScalingActive")
    assert "the knee is at 5" in message
    words = explanation(learning.record.as_json())
    assert f"with {desired} replicas (the low end of what was learned at" in words
    assert "% of the CPU request" in words
    reading = learning.record.reading()
    assert reading.capacity is not None
    assert reading.resource == "cpu"
    assert reading.capacity.low == pytest.approx(told["low"], rel=1e-5)


def test_it_is_learned_only_where_that_is_asked_for() -> None:
    """Off by default: the configured utilisation, and no question."""
    assert not ScalingSettings().learned_utilisation
    learning = Learning(is_on=False)
    learning.minutes(1)

    assert learning.past.asked == []
    assert "capacity" not in learning.parts.status()
    assert learning.parts.status()["desiredReplicas"] == learning.needed(0.9)


@pytest.mark.parametrize(
    "spec",
    [
        {"target_utilisation": 0.8},
        {"target_value": 0.7},
        {"indicator": Indicator(IndicatorKind.LATENCY, 0.3, query="q99")},
    ],
)
def test_a_given_target_or_latency_is_followed_and_nothing_learned(spec: dict[str, Any]) -> None:
    """Whoever says how full replicas are, or how fast they must be, means it."""
    learning = Learning(spec)
    learning.minutes(1)

    assert learning.past.asked == []
    assert "capacity" not in learning.parts.status()


@pytest.mark.parametrize(
    ("past", "why"),
    [
        (ThrottledPast(limit_cores=np.nan), "without a CPU limit none is ever throttled"),
        (ThrottledPast(busiest=0.7), "fewer are throttled than may be"),
        (ThrottledPast(is_down=True), DOWN),
    ],
)
def test_where_it_cannot_be_learned_the_configured_utilisation_stands(past: ThrottledPast, why: str) -> None:
    """No hold: it scales as it did, and status and explanation say why no knee is known."""
    learning = Learning(past=past)
    learning.minutes(1)

    assert learning.parts.status()["desiredReplicas"] == learning.needed(0.9)
    assert learning.parts.condition("ScalingActive")[0] == "True"
    assert why in learning.told["reason"]
    assert "perReplica" not in learning.told
    words = explanation(learning.record.as_json())
    assert "request of 1 × target utilisation 0.9, as what replicas carry cannot be learned" in words
    assert why in words


def test_a_workload_without_a_request_has_no_utilisation() -> None:
    """The reason is the missing request, as ever."""
    learning = Learning(cpu_cores=0.0)
    learning.minutes(1)

    assert learning.parts.condition("ScalingActive") == ("False", "MissingRequest")
    assert "capacity" not in learning.parts.status()


def test_a_new_leader_goes_on_from_the_status() -> None:
    """It asks nothing before the hour is over, and fills replicas as far."""
    learning = Learning()
    learning.minutes(2)
    before = learning.told

    learning.controller = learning.another()
    learning.minutes(2)

    assert learning.told == before
    assert learning.past.asked == [CART]


def test_another_limit_is_another_knee() -> None:
    """The curve of the former one is not relied on: the configured utilisation stands until it was asked anew."""
    learning = Learning()
    learning.minutes(1)
    learning.past.is_down = True
    learning.parts.cluster.put(replace(learning.parts.cluster.targets[CART], cpu_limit_cores=2.0))
    learning.minutes(1)

    assert "perReplica" not in learning.told
    assert learning.parts.status()["desiredReplicas"] == learning.needed(0.9)


def test_another_version_is_filled_less_until_it_has_taught_its_own_knee() -> None:
    """By what versions differ by; the reason says so."""
    learning = Learning()
    learning.minutes(1)
    before = learning.told["perReplica"]

    learning.past.new_from = STEPS
    learning.parts.cluster.put(replace(learning.parts.cluster.targets[CART], version="two"))
    learning.minutes(2)

    assert 0.7 * before <= learning.told["perReplica"] <= 0.8 * before
    assert "of another version" in learning.told["reason"]


@pytest.mark.parametrize(("configured", "relied"), [(0.9, 0.3), (0.2, 0.25)])
def test_bursts_that_are_throttled_early_do_not_multiply_replicas_without_end(configured: float, relied: float) -> None:
    """Throttled from a quarter of the request on: three tenths are used all the same, unless less is configured."""
    learning = Learning(past=ThrottledPast(burstiness=0.8), configured=configured)
    learning.minutes(1)

    assert learning.told["perReplica"] == pytest.approx(relied, abs=0.02)
    assert ("relied on is 30%, the least that is allowed" in learning.told["reason"]) == (configured > 0.3)


@pytest.mark.parametrize(
    ("request_cores", "limit_cores", "relied"),
    [
        (0.25, 1.0, KNEE),
        (0.25, 0.4, 0.4),
        (0.25, 0.0, 0.25),
    ],
)
def test_more_than_the_request_is_used_only_up_to_a_limit_above_it(
    request_cores: float, limit_cores: float, relied: float
) -> None:
    """Where none of its limits is known to the template, as a LimitRange's is not, the request is the most."""
    learning = Learning(cpu_cores=request_cores, cpu_limit_cores=limit_cores)
    learning.minutes(1)

    assert learning.told["perReplica"] == pytest.approx(relied, rel=0.05)
    assert learning.told["averageUtilization"] == round(100 * learning.told["perReplica"] / request_cores)
    assert ("the most that is allowed" in learning.told["reason"]) == (relied < KNEE)


def test_steps_under_another_limit_are_not_learned_from() -> None:
    """A limit that was raised: what was throttled under the former one says nothing of it."""
    throttled = ThrottledHistory(np.array([0.5, 0.5, 0.1, 0.2]), np.array([1.0, np.nan, 2.0, 2.001]))

    history = usage_history(np.full(4, 3.0), ReadyHistory(np.full(4, 2.0), np.ones(4, np.bool_)), throttled, 300)

    assert history.late_share.tolist() == pytest.approx([np.nan, 0.5, 0.1, 0.2], nan_ok=True)
