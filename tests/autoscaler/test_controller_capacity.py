"""Learned capacity in the controller: what it is learned from, what is decided by it, what is told and kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from autoscaler.cluster.capacity import Capacity
from autoscaler.cluster.reasons import Hold
from autoscaler.cluster.resources import Resources
from autoscaler.controller.autoscalers import NOTHING_REMEMBERED, Indicator, IndicatorKind
from autoscaler.controller.explanation import explanation
from autoscaler.controller.learning import (
    LatencyQueries,
    LearningAnswer,
    capacity_status,
    learned_knots,
    load_history,
    queries_of,
    recorded_curve,
    remembered_curve,
    standing_capacity,
    with_capacity,
)
from autoscaler.controller.policy import policy_of
from autoscaler.decisions.capacity_curve import Knot, LearnedCurve, relied_on
from autoscaler.settings import ScalingSettings
from models.forecast import FloatArray
from models.queueing import largest_loads, late_shares
from predictor.errors import PredictorError, SourceUnavailable
from predictor.usage.panel import Resource, SeriesKey, UsagePanel
from predictor.usage.ready import ReadyHistory
from predictor.usage.throttled import ThrottledHistory
from tests.support.learning import LearningController
from tests.support.scaling import CART, DAYS, NOON_SECONDS, ScalingParts, a_target, an_autoscaler
from tests.support.serving import START_SECONDS, STEP_SECONDS

RATE = 10.0
"""Requests a second that one server is done with; a replica is one, and all share a queue."""
THRESHOLD = 1.0
TRULY = RATE * largest_loads(np.arange(1.0, 41.0), THRESHOLD * RATE, 0.99)
"""What 1 to 40 replicas carry with 99 % of requests within the threshold."""
HISTOGRAM = Indicator(IndicatorKind.LATENCY, THRESHOLD, histogram='http_seconds{service="cart"}')
STEPS = DAYS * 288


@dataclass
class LatePast:
    """A workload's past as Prometheus would tell it: from 4 replicas on for an hour each, now and then too few; around
    noon all is calm, with 20 requests a second."""

    bounds: tuple[str, ...] = ("0.5", "1", "2.5", "+Inf")
    is_down: bool = False
    fewest: int = 4
    """Replicas that there ever were; most are 6 more."""
    busiest: float = 1.04
    """Load ÷ what the replicas carry at most."""
    new_from: int | None = None
    """Step from which on another version ran."""
    asked: list[str] = field(default_factory=list)
    ready_of: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(1)
        self.replicas = np.repeat(rng.integers(self.fewest, self.fewest + 7, STEPS // 12), 12).astype(np.float64)
        self.load: FloatArray = TRULY[self.replicas.astype(np.intp) - 1] * rng.uniform(0.4, self.busiest, STEPS)
        hour = np.arange(STEPS) % 288 / 12
        self.load[(hour >= 10) & (hour < 18)] = 20.0
        requests = (self.load * STEP_SECONDS).astype(np.intp)
        share = late_shares(self.load / RATE, self.replicas, THRESHOLD * RATE)
        self.late = rng.binomial(requests, np.clip(share, 0.0, 1.0)) / requests

    def fetch_bounds(
        self, histograms: Mapping[SeriesKey, str], *, end_seconds: int, step_seconds: int
    ) -> dict[SeriesKey, tuple[str, ...] | PredictorError]:
        if self.is_down:
            raise SourceUnavailable("http://prometheus:9090 did not answer within 60 s")
        return dict.fromkeys(histograms, self.bounds)

    def fetch_values(
        self,
        queries: Mapping[SeriesKey, str],
        *,
        start_seconds: int,
        end_seconds: int,
        step_seconds: int,
        within_seconds: float | None = None,
    ) -> UsagePanel:
        if self.is_down:
            raise SourceUnavailable("http://prometheus:9090 did not answer within 60 s")
        ((key, query),) = queries.items()
        self.asked.append(query)
        values = {"1": self.late, "s": self.load, "q": np.where(self.late > 0.01, 2.0, 0.5)}[query[0]]
        part = values[
            (start_seconds - START_SECONDS) // STEP_SECONDS : (end_seconds - START_SECONDS) // STEP_SECONDS + 1
        ]
        return UsagePanel((key,), start_seconds, step_seconds, part[None, :])

    def fetch_ready(self, workload: str, *, start_seconds: int, end_seconds: int, step_seconds: int) -> ReadyHistory:
        self.ready_of.append(workload)
        first, last = ((each - START_SECONDS) // STEP_SECONDS for each in (start_seconds, end_seconds))
        is_current = np.arange(STEPS) >= (self.new_from or 0)
        return ReadyHistory(self.replicas[first : last + 1], is_current[first : last + 1])

    def fetch_throttled(
        self, workload: str, *, start_seconds: int, end_seconds: int, step_seconds: int
    ) -> ThrottledHistory:
        raise AssertionError("requests are not throttled")


@dataclass
class Learning(LearningController):
    """A workload whose capacity is learned."""

    spec: Mapping[str, Any] = field(default_factory=lambda: {"indicator": HISTOGRAM})
    past: LatePast = field(default_factory=LatePast)
    replicas: int = 8

    def __post_init__(self) -> None:
        parts = ScalingParts(
            usage_by_workload={CART: self.past.load},
            autoscalers=(an_autoscaler(resource=Resource.REQUESTS, **self.spec),),
            targets=(a_target(replicas=self.replicas, version="one"),),
            settings=ScalingSettings(learned_margins=False),
            resource=Resource.REQUESTS,
        )
        self.begin(parts, self.past)


def test_replicas_are_chosen_by_what_was_learned_that_they_carry() -> None:
    """Enough for what is forecast by the true queue, and not many more; status, condition and explanation say why."""
    learning = Learning()
    learning.minutes(1)

    told = learning.told
    desired = learning.parts.status()["desiredReplicas"]
    peak = learning.parts.status()["forecast"]["value"]
    assert TRULY[desired - 1] >= peak
    assert TRULY[desired - 1] <= 1.6 * peak
    assert told["replicas"] == 8
    assert 0.75 * TRULY[7] <= told["low"] <= TRULY[7] <= told["high"]
    assert told["low"] <= told["likeliest"] <= told["high"]
    assert told["perReplica"] == pytest.approx(told["low"] / 8, rel=1e-4)
    assert "from 4 to 10 replicas" in told["reason"]
    assert learning.past.ready_of == [CART]
    message = next(c["message"] for c in learning.parts.status()["conditions"] if c["type"] == "ScalingActive")
    assert "the low end of what was learned at" in message
    assert learning.controller.report is not None
    words = explanation(learning.controller.report.records[0].as_json())
    assert f"with {desired} replicas (the low end of what was learned" in words
    assert f"needs {desired}: {desired - 1} carry" in words


def test_fewer_replicas_than_have_been_seen_are_not_chosen() -> None:
    """Four fifths of ten are kept, where the object and its maximum allow it; the reason is told."""
    ten = LearnedCurve((Knot(10, 100.0, 110.0, 120.0),), 0.0, "terms", "one")
    standing = standing_capacity(ten, None, "terms", "one", 0.0)
    for minimum, maximum, kept in ((1, 20, 8), (9, 20, 9), (1, 5, 5)):
        spec: dict[str, Any] = {"indicator": HISTOGRAM, "min_replicas": minimum, "max_replicas": maximum}
        autoscaler = an_autoscaler(resource=Resource.REQUESTS, **spec)
        plain = policy_of(autoscaler, Resources(), (), NOTHING_REMEMBERED, settings=ScalingSettings(), now_seconds=0.0)
        policy = with_capacity(plain, standing)

        assert policy.min_replicas == kept
        assert ("no fewer than 10 were seen" in policy.min_source) == (kept > minimum)
        assert policy.capacity == Capacity(10.0, tuple(10.0 * n for n in range(1, 11)))


def test_it_is_learned_about_once_an_hour_and_not_in_each_cycle() -> None:
    """Two questions each time: what was late, and how many requests that is of."""
    learning = Learning()
    learning.minutes(50)
    assert len(learning.past.asked) == 2
    learning.minutes(30)
    assert len(learning.past.asked) == 4


def test_a_new_leader_goes_on_from_the_status_to_the_digit() -> None:
    """It asks nothing before the hour is over, and relies on the same curve."""
    learning = Learning()
    learning.minutes(4)
    before, asked = learning.told, len(learning.past.asked)
    desired = learning.parts.status()["desiredReplicas"]

    learning.controller = learning.another()
    learning.minutes(2)

    assert learning.told == before
    assert learning.parts.status()["desiredReplicas"] == desired
    assert len(learning.past.asked) == asked


def test_a_changed_image_widens_what_is_known_and_is_learned_from_at_once() -> None:
    """Where the new version has no past of its own the low end falls; a rollout is waited for."""
    learning = Learning()
    learning.minutes(1)
    before, asked = learning.told, len(learning.past.asked)

    learning.past.new_from = STEPS
    target = learning.parts.cluster.targets[CART]
    learning.parts.cluster.put(replace(target, version="two", rollout="a rollout is in progress"))
    learning.minutes(1)
    widened = learning.told
    assert widened["low"] == pytest.approx(0.7453 * before["low"] * widened["replicas"] / before["replicas"], rel=0.2)
    assert "of another version" in widened["reason"]
    assert len(learning.past.asked) == asked

    learning.parts.cluster.put(replace(learning.parts.cluster.targets[CART], rollout=""))
    learning.minutes(1)
    assert len(learning.past.asked) > asked
    assert "of another version" in learning.told["reason"], "this one has taught nothing yet"
    assert learning.told["low"] < before["low"] * learning.told["replicas"] / before["replicas"]


def test_without_an_answer_replicas_stay_and_the_reason_is_told() -> None:
    """Nothing learned yet: a hold. Something learned before: it stays, and why it is not newer."""
    learning = Learning()
    learning.past.is_down = True
    learning.minutes(1)
    assert learning.parts.replicas() == 8
    assert learning.parts.condition("ScalingActive") == ("False", "CapacityNotLearned")
    assert "did not answer within 60 s" in learning.told["reason"]

    learning.past.is_down = False
    learning.minutes(10)
    assert "low" in learning.told
    learning.past.is_down = True
    learning.minutes(80)
    assert "low" in learning.told
    assert "not since: what replicas carry cannot be learned: http://prometheus:9090" in learning.told["reason"]


def test_what_cannot_be_told_from_the_past_is_refused_with_the_reason() -> None:
    """Where requests were never late there is no telling how much more would be too much."""
    learning = Learning(past=LatePast(busiest=0.6))
    learning.minutes(1)

    assert learning.parts.condition("ScalingActive") == ("False", "CapacityNotLearned")
    assert "fewer are late than may be" in learning.told["reason"]


def test_another_threshold_is_not_judged_by_a_curve_for_the_former_one() -> None:
    """Nothing is known for it until it was asked about."""
    learning = Learning()
    learning.minutes(1)
    learning.past.is_down = True
    autoscaler = next(iter(learning.parts.cluster.autoscalers.values()))
    learning.parts.cluster.put(replace(autoscaler, indicator=replace(HISTOGRAM, bound=0.5)))
    learning.minutes(1)

    assert learning.parts.condition("ScalingActive") == ("False", "CapacityNotLearned")


def test_a_latency_by_a_query_is_late_as_a_whole_or_not_at_all() -> None:
    """The level is then the SLA's share of time, and the status says that it is by a latency alone."""
    query = Indicator(IndicatorKind.LATENCY, 1.0, query="q99")
    learning = Learning({"indicator": query, "percentile": 90.0})
    learning.minutes(1)

    assert learning.past.asked == ["q99"]
    assert "a step is late as a whole or not at all" in learning.told["reason"]


def test_a_given_target_is_followed_and_nothing_learned() -> None:
    """Whoever says what a replica carries means it."""
    learning = Learning({"indicator": HISTOGRAM, "target_value": 5.0})
    learning.minutes(1)

    assert learning.past.asked == []
    assert "capacity" not in learning.parts.status()


# --- the pieces


def test_late_is_counted_from_the_next_bound_above_the_threshold() -> None:
    """However bounds are written; exactly there nothing needs to be said."""
    exact = queries_of(HISTOGRAM, ("0.5", "1.0", "1", "+Inf"), 600)
    above = queries_of(replace(HISTOGRAM, bound=0.7, histogram="h"), ("0.5", "1.0", "+Inf"), 600)

    assert isinstance(exact, LatencyQueries)
    assert exact.late == (
        '1 - sum(rate(http_seconds_bucket{service="cart",le=~"1\\\\.0|1"}[600s]))'
        ' / sum(rate(http_seconds_count{service="cart"}[600s]))'
    )
    assert (exact.threshold_seconds, exact.remark) == (1.0, "")
    assert isinstance(above, LatencyQueries)
    assert above.requests == "sum(rate(h_count[600s]))"
    assert above.threshold_seconds == 1.0
    assert "from 1 s on, as no bucket ends at 0.7 s" in above.remark


@pytest.mark.parametrize(("bounds", "why"), [((), "has no buckets"), (("0.5", "+Inf"), "add one there")])
def test_a_histogram_that_cannot_tell_is_refused(bounds: tuple[str, ...], why: str) -> None:
    """With what may be done."""
    refused = queries_of(HISTOGRAM, bounds, 600)

    assert isinstance(refused, Hold)
    assert why in refused.reason.message


def test_steps_in_which_replicas_changed_are_not_learned_from() -> None:
    """Nor those without requests; what is a rounding error below none late is none."""
    ready = ReadyHistory(np.array([2.0, 2.0, 3.0, 3.0]), np.ones(4, np.bool_))
    history = load_history(np.full(4, 9.0), ready, np.array([0.1, -1e-17, 0.2, np.nan]), np.full(4, 5.0), 60)

    assert np.isnan(history.replicas).tolist() == [True, False, True, False]
    assert history.late_share[1] == 0.0
    assert np.isnan(history.late_share[3])
    assert history.requests is not None
    assert history.requests.tolist() == [300.0] * 4


def test_nothing_is_learned_of_a_past_in_which_nothing_is_known() -> None:
    """A hold, not an error."""
    nothing = np.full(100, np.nan)
    history = load_history(nothing, ReadyHistory(nothing, np.ones(100, np.bool_)), nothing, nothing, 300)

    assert isinstance(learned_knots(history, 1.0, 0.99, np.random.default_rng(0)), Hold)


NOW, DAY = float(NOON_SECONDS), 86_400.0
CURVE = LearnedCurve((Knot(2, 20.0, 25.0, 30.0), Knot(4, 60.0, 70.0, 80.0)), float(NOON_SECONDS), "terms", "one")


def test_a_curve_survives_the_status_and_a_broken_one_is_none() -> None:
    """What somebody wrote into a status must not be relied on unseen."""
    kept = recorded_curve(CURVE)

    assert remembered_curve(kept) == CURVE
    assert remembered_curve(None) is None
    for broken in ([[4, 1, 1, 1], [2, 1, 1, 1]], [[2, float("nan"), 1, 1]], [[2, 0, 0, 0]], []):
        with pytest.raises((ValueError, IndexError)):
            remembered_curve(kept | {"knots": broken})


def test_versions_that_follow_each_other_do_not_widen_what_is_known_again_and_again() -> None:
    """A third version is no further from the first than the second; the way back begins anew with it."""
    second = standing_capacity(CURVE, None, "terms", "two", NOW).curve
    third = standing_capacity(second, None, "terms", "three", NOW + DAY).curve

    assert second is not None
    assert third is not None
    # By hand: ln(25 / 20) / 1.96 = 0.1138, with 0.15 beside it 0.1883; 25 e^(-1.96 x 0.1883) = 17.28.
    assert second.knots[0].low == pytest.approx(17.28, rel=1e-3)
    assert third.knots == second.knots
    assert (second.widened_at_seconds, third.widened_at_seconds) == (NOW, NOW + DAY)
    assert relied_on(third.knots) == Capacity(second.knots[1].low / 4, relied_on(second.knots).curve)


def test_what_a_new_version_widened_comes_back_within_two_weeks() -> None:
    """A little each half day, also from leader to leader, and not beyond what it was; one that teaches starts anew."""
    curve = standing_capacity(CURVE, None, "terms", "two", NOW).curve
    assert curve is not None
    lows = []
    for days in range(20):
        standing = standing_capacity(remembered_curve(recorded_curve(curve)), None, "terms", "two", NOW + days * DAY)
        assert standing.curve == curve
        assert standing.knots is not None
        lows.append(standing.knots[0].low)

    assert lows == sorted(lows)
    assert lows[0] == curve.knots[0].low
    assert lows[7] < 20.0
    assert lows[14:] == pytest.approx([20.0] * 6, rel=1e-4)
    own = LearningAnswer(NOW + DAY, "terms", "two", CURVE._replace(version="two", learned_at_seconds=NOW + DAY))
    assert standing_capacity(curve, own, "terms", "two", NOW + DAY).knots == CURVE.knots


def test_learning_from_older_versions_again_does_not_begin_the_way_back_anew() -> None:
    """As long as it is the same version that runs."""
    kept = CURVE._replace(widened_at_seconds=NOW)
    again = CURVE._replace(learned_at_seconds=NOW + DAY, widened_at_seconds=NOW + DAY)
    made = standing_capacity(kept, LearningAnswer(NOW + DAY, "terms", "one", again), "terms", "one", NOW + DAY).curve

    assert made == again._replace(widened_at_seconds=NOW)


def test_an_older_answer_does_not_take_the_place_of_a_newer_curve() -> None:
    """Two copies led one after the other."""
    older = LearningAnswer(NOW, "terms", "one", CURVE._replace(learned_at_seconds=NOW - 60.0))

    assert standing_capacity(CURVE, older, "terms", "one", NOW).curve == CURVE
    assert capacity_status(standing_capacity(None, None, "terms", "one", NOW), 3) == {
        "reason": "what replicas carry has not been learned yet"
    }
