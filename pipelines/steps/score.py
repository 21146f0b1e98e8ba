"""Scores a bundle on the held-out days, beside the baseline and on the same points."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from models.forecast import FloatArray, History, QuantileForecast, Target
from pipelines.steps.fit import Fitted, resources_of
from pipelines.steps.plan import Plan, Progress, Question, untold
from predictor.backtest.rolling import Backtest, backtest_of, subject_name, target_name
from predictor.backtest.scores import Scores, score
from predictor.serving.bundle import FALLBACK, Bundle
from predictor.usage.panel import Resource, SeriesKey, UsagePanel

if TYPE_CHECKING:
    import pandas as pd

PART_SECONDS: tuple[int, ...] = (1800, 3600, 14_400, 43_200, 86_400)
"""Ends of the parts of the horizon that accuracy is told for."""


@dataclass(frozen=True, slots=True)
class ResourceAccuracy:
    """How good the forecasts of one resource's warm series were."""

    resource: Resource
    target: str
    """What was forecast: `step`, or a peak such as `peak_1h`."""
    series: int
    """Warm series."""
    cold: int
    scored: int
    """Warm series that were observed after some cutoff."""
    chosen: Mapping[str, int]
    """How many warm series each forecaster serves."""
    points: int
    pinball: float
    """Mean over series, steps and levels, in the resource's base unit; NaN without points."""
    baseline_pinball: float
    median_ratio: float
    """Median over series of pinball ÷ the baseline's: the typical series, however small it is."""
    coverage: tuple[float, ...]
    """Share of actuals at or below the forecast, for each level."""

    @property
    def name(self) -> str:
        """The resource, and the target if it is a peak."""
        return subject_name(self.resource, self.target)

    @property
    def ratio(self) -> float:
        """Pinball loss ÷ the baseline's; below 1 is better. NaN where the baseline made no error."""
        return self.pinball / self.baseline_pinball if self.baseline_pinball > 0 else float("nan")


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Forecasts of a bundle and of the baseline, for the same series at the same cutoffs."""

    keys: tuple[SeriesKey, ...]
    bundle: Backtest
    baseline: Backtest

    def scores(self, part_ends: Sequence[int] | None = None) -> tuple[Scores, Scores]:
        """The bundle's and the baseline's, over the points for which both have a forecast."""
        bundle, baseline = on_common_points(self.bundle, self.baseline)
        return score(bundle, part_ends), score(baseline, part_ends)


def held_out(plan: Plan, bundle: Bundle, models: Fitted, progress: Progress = untold) -> HeldOut:
    """The bundle and the baseline over the held-out cutoffs of a plan, all its series, cold ones included."""
    return held_out_together([(plan, models)], bundle, progress)[0]


def held_out_together(
    asked: Sequence[tuple[Plan, Fitted]], bundle: Bundle, progress: Progress = untold
) -> tuple[HeldOut, ...]:
    """The same for plans of several targets of the same history, as they are served beside each other."""
    panel = asked[0][0].panel
    questions = [(plan.question, plan.split.held_out_cutoffs) for plan, _ in asked]
    found = []
    for ours, (plan, models) in zip(bundle_backtests(bundle, panel, questions, progress), asked, strict=True):
        name, cutoffs = plan.training.baseline, plan.split.held_out_cutoffs
        found.append(HeldOut(panel.keys, ours, baseline_backtest(models, name, panel, cutoffs, question=plan.question)))
    return tuple(found)


def bundle_backtests(
    bundle: Bundle,
    panel: UsagePanel,
    asked: Sequence[tuple[Question, Sequence[int]]],
    progress: Progress = untold,
) -> tuple[Backtest, ...]:
    """As `bundle_backtest` for several targets, each at its own cutoffs: at one that they share, what is served of them
    at once. They are asked at the same levels, and with the same past."""
    history = panel.history()
    cutoffs = sorted({cutoff for _, own in asked for cutoff in own})
    made: dict[tuple[Target, int], QuantileForecast] = {}
    for number, cutoff in enumerate(cutoffs):
        progress(number, len(cutoffs))
        here = [question for question, own in asked if cutoff in own]
        recent = history.until(cutoff).last(here[0].past_steps)
        bundle = bundle.learned(panel.keys, recent)
        targets = [question.target for question in here]
        answers = bundle.forecasts_history(panel.keys, recent, targets, here[0].levels, kin=panel.kin)
        made |= {(each.forecast.target, cutoff): each.forecast for each in answers}
    progress(len(cutoffs), len(cutoffs))

    def backtest(target: Target, own: Sequence[int]) -> Backtest:
        return backtest_of(lambda past: made[target, past.end_seconds], history, own)

    return tuple(backtest(question.target, own) for question, own in asked)


def bundle_backtest(
    bundle: Bundle,
    panel: UsagePanel,
    cutoffs: Sequence[int],
    question: Question,
    *,
    progress: Progress = untold,
) -> Backtest:
    """What the bundle would have forecast for every series of the panel at each cutoff, learning as it goes.

    Raises ForecastError for a bundle of another step length.
    """
    asked = 0

    def predict(past: History) -> QuantileForecast:
        nonlocal asked, bundle
        progress(asked, len(cutoffs))
        asked += 1
        recent = past.last(question.past_steps)
        bundle = bundle.learned(panel.keys, recent)
        return bundle.forecast_history(panel.keys, recent, question.target, question.levels, kin=panel.kin).forecast

    made = backtest_of(predict, panel.history(), cutoffs)
    progress(len(cutoffs), len(cutoffs))
    return made


def baseline_backtest(
    models: Fitted, name: str, panel: UsagePanel, cutoffs: Sequence[int], *, question: Question
) -> Backtest:
    """What the baseline would have forecast for every series of the panel at each cutoff, uncalibrated.

    A resource it was not fitted for is NaN throughout.
    """
    shape = (len(panel.keys), len(question.levels), len(question.target.ahead))

    def predict(past: History) -> QuantileForecast:
        values = np.full(shape, np.nan)
        for resource in resources_of(panel.keys):
            if (resource, name) in models:
                rows = panel.rows(resource)
                values[rows] = question.asked_of(models[resource, name])(past.select(rows)).values
        return QuantileForecast(question.levels, values, past.end_seconds, past.step_seconds, question.target)

    return backtest_of(predict, panel.history(), cutoffs)


def on_common_points(*made: Backtest) -> tuple[Backtest, ...]:
    """The same backtests with every point masked for which one of them has no forecast."""
    is_common = np.all([~np.isnan(each.forecast).any(axis=2) for each in made], axis=0)
    return tuple(replace(each, actual=np.where(is_common, each.actual, np.nan)) for each in made)


def part_ends(target: Target, step_seconds: int) -> tuple[int, ...]:
    """Last outcomes of the parts of the horizon that accuracy is told for; a peak has one part."""
    if target.is_peak:
        return (1,)
    inside = (seconds // step_seconds for seconds in PART_SECONDS)
    return (*sorted({steps for steps in inside if 1 <= steps < target.steps}), target.steps)


def added(first: Scores, second: Scores) -> Scores:
    """The sums of two backtests of the same series taken together."""
    return replace(
        first,
        under=first.under + second.under,
        over=first.over + second.over,
        covered=first.covered + second.covered,
        usage=first.usage + second.usage,
        count=first.count + second.count,
        missing=first.missing + second.missing,
    )


def resource_accuracy(
    keys: Sequence[SeriesKey], ours: Scores, theirs: Scores, bundle: Bundle
) -> tuple[ResourceAccuracy, ...]:
    """A row for each resource, from its warm series; `theirs` are the baseline's scores over the same points."""
    target = target_name(bundle.target, bundle.step_seconds)
    found = []
    for resource in resources_of(keys):
        here = [(row, key) for row, key in enumerate(keys) if key.resource == resource]
        warm = [row for row, key in here if key in bundle.series]
        a, b = (of_rows(each, warm).pooled(parts=True) for each in (ours, theirs))
        loss = a.pinball.mean(axis=(1, 2))
        baseline = b.pinball.mean(axis=(1, 2))
        both, other = a.pooled(series=True), b.pooled(series=True)
        found.append(
            ResourceAccuracy(
                resource=resource,
                target=target,
                series=len(warm),
                cold=len(here) - len(warm),
                scored=int(np.sum(a.count > 0)),
                chosen=dict(Counter(bundle.series[key].forecaster for _, key in here if key in bundle.series)),
                points=int(both.count.sum()),
                pinball=float(both.pinball.mean()),
                baseline_pinball=float(other.pinball.mean()),
                median_ratio=_median(loss[baseline > 0] / baseline[baseline > 0]),
                coverage=tuple(float(share) for share in both.coverage[0, :, 0]),
            )
        )
    return tuple(found)


def series_table(scored: HeldOut, bundle: Bundle) -> "pd.DataFrame":
    """A row for each series and level: what serves it, how far it was off, and why it was chosen."""
    import pandas as pd

    ours, theirs = scored.scores()
    levels = scored.bundle.levels
    # Figures of all series at once: they are worked out anew at each look.
    pinball, baseline, coverage, bias = ours.pinball, theirs.pinball, ours.coverage, ours.bias
    asked_of: dict[SeriesKey, FloatArray] = {}
    for resource in resources_of(scored.keys):
        known = [key for key in scored.keys if key.resource == resource and key in bundle.series]
        asked_of |= zip(known, bundle.asked_levels(resource, known, levels).mean(axis=1), strict=True) if known else ()
    rows = []
    for row, key in enumerate(scored.keys):
        model = bundle.series.get(key)
        asked = asked_of.get(key, levels)
        for column, level in enumerate(levels):
            rows.append(
                {
                    "workload": key.workload,
                    "resource": key.resource.value,
                    "level": level,
                    "forecaster": model.forecaster if model else FALLBACK,
                    "is_cold": model is None,
                    "points": int(ours.count[row, 0]),
                    "pinball": float(pinball[row, column, 0]),
                    "baseline_pinball": float(baseline[row, column, 0]),
                    "coverage": float(coverage[row, column, 0]),
                    "bias": float(bias[row, column, 0]),
                    "asked_level": float(asked[column]),
                    "reason": model.reason if model else "cold: too few samples to be trained on",
                }
            )
    return pd.DataFrame(rows)


def accuracy_table(scored: HeldOut, bundle: Bundle) -> "pd.DataFrame":
    """A row for each resource, level and part of the horizon, warm series only; a peak has one part."""
    import pandas as pd

    made = scored.bundle
    ends = part_ends(made.target, made.step_seconds)
    ours, theirs = scored.scores(ends)
    rows = []
    for resource in resources_of(scored.keys):
        warm = [i for i, key in enumerate(scored.keys) if key.resource == resource and key in bundle.series]
        a, b = (of_rows(each, warm).pooled(series=True) for each in (ours, theirs))
        for column, level in enumerate(made.levels):
            for part, end in enumerate(ends):
                rows.append(
                    {
                        "resource": resource.value,
                        "target": target_name(made.target, made.step_seconds),
                        "level": level,
                        "ahead_seconds": int(made.target.ahead[end - 1]) * made.step_seconds,
                        "points": int(a.count[0, part]),
                        "pinball": float(a.pinball[0, column, part]),
                        "baseline_pinball": float(b.pinball[0, column, part]),
                        "coverage": float(a.coverage[0, column, part]),
                        "bias": float(a.bias[0, column, part]),
                    }
                )
    return pd.DataFrame(rows)


def of_rows(scores: Scores, rows: "Sequence[int] | np.typing.NDArray[np.intp]") -> Scores:
    """The sums of some of the series, in the order given."""
    index = np.asarray(rows, dtype=np.intp)
    return replace(
        scores,
        under=scores.under[index],
        over=scores.over[index],
        covered=scores.covered[index],
        usage=scores.usage[index],
        count=scores.count[index],
        missing=scores.missing[index],
    )


def _median(ratios: "np.typing.NDArray[np.float64]") -> float:
    known = ratios[np.isfinite(ratios)]
    return float(np.median(known)) if known.size else float("nan")
