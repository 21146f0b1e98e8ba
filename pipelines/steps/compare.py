"""What one cutoff says about the series of one resource and target: the bundle's forecasts, and the errors of it and of
every forecaster alone, on the same points. Cutoffs know nothing of each other, so each can be asked on its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.forecast import FloatArray, Target
from pipelines.steps.fit import resources_of
from pipelines.steps.plan import Plan, Question
from pipelines.steps.score import added, baseline_backtest, bundle_backtests, on_common_points, part_ends
from predictor.backtest.coverage import HOURS_OF_DAY, GroupedCoverage, grouped_coverage, hours_of_day, ramps, volatility
from predictor.backtest.rolling import Backtest, subject_name, target_name
from predictor.backtest.scores import Scores, score
from predictor.serving.bundle import Bundle
from predictor.usage.panel import Resource, UsagePanel

FORESIZE = "foresize"
"""What serves, among the methods that are compared."""
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Lane:
    """The series of one resource, and what they are asked: the steps, or a peak."""

    resource: Resource
    panel: UsagePanel
    question: Question
    methods: tuple[str, ...]
    """Catalogue names of the forecasters that are compared."""
    is_ramp: NDArray[np.bool_]
    """[series, steps], like the panel's usage."""
    volatility: FloatArray
    """[series], known before the first cutoff."""

    @property
    def target(self) -> str:
        """What the target is called in tables."""
        return target_name(self.question.target, self.panel.step_seconds)

    @property
    def name(self) -> str:
        """What its figures are called."""
        return subject_name(self.resource, self.target)

    def seen_from(self, cutoff: int) -> UsagePanel:
        """No more of the panel than one cutoff needs: the window that serving reads, and what then happened."""
        step = self.panel.step_seconds
        return self.panel.between(
            cutoff - (self.question.past_steps - 1) * step, cutoff + self.question.horizon_steps * step
        )

    def outcome(self, cutoff: int) -> FloatArray:
        """What happened after a cutoff, [series, outcomes]; NaN beyond the panel's end."""
        return self.question.target.after(self.panel.history(), cutoff)

    def ramp_after(self, cutoff: int) -> NDArray[np.intp]:
        """1 for each outcome after a cutoff that is on a ramp, a peak if any of its steps is, else 0."""
        history = replace(self.panel.history(), usage=self.is_ramp.astype(np.float64))
        return np.asarray(self.question.target.after(history, cutoff) > 0, dtype=np.intp)


@dataclass(frozen=True, slots=True)
class Sums:
    """Errors of each method by its name, and the bundle's coverage by hour of day and by ramp (0 is none, 1 is one)."""

    scores: Mapping[str, Scores]
    hours: GroupedCoverage
    ramps: GroupedCoverage

    def __add__(self, other: "Sums") -> "Sums":
        scores = {name: added(each, other.scores[name]) for name, each in self.scores.items()}
        return Sums(scores, self.hours + other.hours, self.ramps + other.ramps)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one cutoff: the bundle's quantiles, [series, levels, outcomes], and the sums."""

    forecast: FloatArray
    sums: Sums

    def to_arrays(self) -> Arrays:
        """Everything as named arrays."""
        methods = list(self.sums.scores.values())
        found = {
            "forecast": self.forecast,
            "part_ends": np.asarray(methods[0].part_ends),
            "usage": methods[0].usage,
            "count": methods[0].count,
            "missing": methods[0].missing,
        }
        found |= {name: np.stack([getattr(each, name) for each in methods]) for name in ("under", "over", "covered")}
        for name, grouped in (("hours", self.sums.hours), ("ramps", self.sums.ramps)):
            found |= {f"{name}_covered": grouped.covered, f"{name}_count": grouped.count}
        return found

    @classmethod
    def from_arrays(cls, arrays: Arrays, methods: Sequence[str], levels: tuple[float, ...]) -> "Answer":
        """The answer back, bit by bit. Raises KeyError where an array is missing."""
        known = {name: np.asarray(values) for name, values in arrays.items()}
        ends = tuple(int(end) for end in known["part_ends"])
        shared = known["usage"], known["count"], known["missing"]
        scores = {
            name: Scores(levels, ends, known["under"][row], known["over"][row], known["covered"][row], *shared)
            for row, name in enumerate((FORESIZE, *methods))
        }
        hours, on_ramps = (
            GroupedCoverage(known[f"{name}_covered"], known[f"{name}_count"]) for name in ("hours", "ramps")
        )
        return cls(known["forecast"], Sums(scores, hours, on_ramps))


def lanes_of(plan: Plan, bundle: Bundle, first_cutoff: int) -> tuple[Lane, ...]:
    """A lane for each target of the bundle and each resource, the steps first.

    What counts as a ramp and how volatile a series is is known at the first cutoff.
    """
    of_steps = []
    for resource in resources_of(plan.panel.keys):
        panel = plan.panel.select(plan.panel.rows(resource)).bare()
        if panel.is_bound is None:
            panel = replace(panel, attributes={})
        past = panel.history().until(first_cutoff).last(plan.question.past_steps)
        on_ramp = ramps(panel.history(), first_cutoff)
        of_steps.append(Lane(resource, panel, plan.question, plan.candidates, on_ramp, volatility(past)))
    targets = (plan.question.target, *(part.target for part in bundle.peaks))
    questions = [replace(plan.question, target=target) for target in targets]
    return tuple(replace(lane, question=question) for question in questions for lane in of_steps)


def learned_over(bundle: Bundle, lane: Lane, cutoffs: Sequence[int]) -> list[Bundle]:
    """The bundle as it serves at each of the cutoffs, which follow the last that it has learned from."""
    found = []
    for cutoff in cutoffs:
        seen = lane.seen_from(cutoff)
        bundle = bundle.learned(seen.keys, seen.history().until(cutoff))
        found.append(bundle)
    return found


def answered(bundle: Bundle, lanes: Sequence[Lane], cutoff: int) -> list[Answer]:
    """What the bundle, as it serves at the cutoff, and each forecaster alone, uncalibrated, say at one cutoff, for each
    of a resource's lanes: steps and peaks as they are served beside each other.
    """
    longest = max(lanes, key=lambda lane: lane.question.horizon_steps)
    made = bundle_backtests(bundle, longest.seen_from(cutoff), [(lane.question, (cutoff,)) for lane in lanes])
    return [_compared(part_for(bundle, lane), ours, lane, cutoff) for lane, ours in zip(lanes, made, strict=True)]


def _compared(bundle: Bundle, ours: Backtest, lane: Lane, cutoff: int) -> Answer:
    seen, question = lane.seen_from(cutoff), lane.question
    alone = [baseline_backtest(bundle.forecasters, name, seen, (cutoff,), question=question) for name in lane.methods]
    common = on_common_points(ours, *alone)
    ends = part_ends(question.target, seen.step_seconds)
    scores = {name: score(made, ends) for name, made in zip((FORESIZE, *lane.methods), common, strict=True)}
    return Answer(
        ours.forecast[0],
        Sums(
            scores,
            grouped_coverage(common[0], hours_of_day(common[0]), HOURS_OF_DAY),
            grouped_coverage(common[0], lane.ramp_after(cutoff)[None], 2),
        ),
    )


def part_for(bundle: Bundle, lane: Lane) -> Bundle:
    """The part of a bundle that serves a lane."""
    target, resource = lane.question.target, lane.resource
    whole = bundle.peak(target) if target.is_peak else replace(bundle, peaks=())
    return replace(
        whole,
        forecasters={key: each for key, each in whole.forecasters.items() if key[0] == resource},
        series={key: each for key, each in whole.series.items() if key.resource == resource},
        combinations={key: each for key, each in whole.combinations.items() if key == resource},
        calibrations={key: each for key, each in whole.calibrations.items() if key == resource},
        gates={key: each for key, each in whole.gates.items() if key == resource},
    )


def joined(lanes: Sequence[Lane], parts: Sequence[Bundle]) -> Bundle:
    """The bundle from its parts, one for each lane."""
    by_target: dict[Target, list[Bundle]] = {}
    for lane, part in zip(lanes, parts, strict=True):
        by_target.setdefault(lane.question.target, []).append(part)
    steps, *peaks = (_joined(each) for each in by_target.values())
    return replace(steps, peaks=tuple(peaks))


def _joined(parts: Sequence[Bundle]) -> Bundle:
    """The bundle of one target from its resources'."""
    return replace(
        parts[0],
        forecasters={key: each for part in parts for key, each in part.forecasters.items()},
        series={key: each for part in parts for key, each in part.series.items()},
        combinations={key: each for part in parts for key, each in part.combinations.items()},
        calibrations={key: each for part in parts for key, each in part.calibrations.items()},
        gates={key: each for part in parts for key, each in part.gates.items()},
        learned_until_seconds=max(part.learned_until_seconds for part in parts),
    )
