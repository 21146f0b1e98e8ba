"""The promotion gate: whether the challenger may take the champion's place. A value with its reasons."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.steps.fit import resources_of
from pipelines.steps.score import on_common_points
from predictor.backtest.rolling import Backtest
from predictor.backtest.scores import Scores, score
from predictor.usage.panel import SeriesKey

LARGEST_COVERAGE_LOSS = 0.01
"""How much less of the actuals the challenger may cover at the top level than the champion."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a bundle did on the held-out days."""

    loss: float
    """Pinball loss ÷ the baseline's, geometric mean over resources: 1 is as good as the baseline."""
    top_level: float
    top_coverage: float
    """Share of actuals at or below the forecast at the top level, mean over resources."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the challenger becomes champion."""

    promote: bool
    reasons: tuple[str, ...]
    challenger: Standing
    champion: Standing | None = None
    """On the same points; None where there is no champion to compare with."""


def judged(
    keys: Sequence[SeriesKey],
    challenger: Backtest,
    baseline: Backtest,
    champion: Backtest | None,
    *,
    minimum_gain: float,
    remarks: Sequence[str] = (),
) -> Verdict:
    """The verdict over the points for which all that are compared have a forecast.

    Against a champion, the challenger needs a loss lower by `minimum_gain` and may not cover noticeably less at the
    top level, where a miss is a violation. Without one, it needs to beat the baseline. `remarks` go before the
    reasons.
    """
    if champion is None:
        ours, theirs = on_common_points(challenger, baseline)
        standing = _standing(keys, score(ours), score(theirs))
        if np.isnan(standing.loss):
            return Verdict(False, (*remarks, "nothing could be scored on the held-out days"), standing)
        is_better = standing.loss < 1
        word = "beats" if is_better else "does not beat"
        reason = f"it {word} the baseline: {standing.loss:.3f} of its pinball loss on the held-out days"
        return Verdict(is_better, (*remarks, reason), standing)
    ours, theirs, before = on_common_points(challenger, baseline, champion)
    new, old = (_standing(keys, score(made), score(theirs)) for made in (ours, before))
    if np.isnan(new.loss) or np.isnan(old.loss):
        return Verdict(False, (*remarks, "nothing could be scored on the held-out days"), new, old)
    gain = 1 - new.loss / old.loss if old.loss > 0 else 0.0
    is_better = gain >= minimum_gain and gain > 0
    is_covering = new.top_coverage >= old.top_coverage - LARGEST_COVERAGE_LOSS
    reasons = (
        f"its pinball loss is {new.loss:.3f} of the baseline's, the champion's is {old.loss:.3f}: a gain of {gain:.1%} "
        f"where {minimum_gain:.1%} {'was' if is_better else 'would have been'} needed",
        f"at level {new.top_level:g} it covers {new.top_coverage:.1%}, the champion {old.top_coverage:.1%}"
        + ("" if is_covering else f": more than {LARGEST_COVERAGE_LOSS:.0%} less"),
    )
    return Verdict(is_better and is_covering, (*remarks, *reasons), new, old)


def without_loss_of_workloads(
    verdict: Verdict,
    champion: Collection[SeriesKey],
    challenger: Collection[SeriesKey],
    *,
    left_out: Collection[SeriesKey],
) -> Verdict:
    """The verdict, or a refusal where the promotion would take the champion away from workloads that it serves.

    `left_out` are the series that the history has but the cycle did not train on, as a pattern excluded them. Those
    that the history no longer has are gone and lose nothing; but a challenger that shares none of the champion's
    series was trained on another fleet.
    """
    served = set(champion)
    lost = sorted(served & set(left_out))
    objection = ""
    if lost:
        objection = (
            f"it knows nothing of {len(lost)} series that the champion serves and that were left out, first {lost[0]}: "
            "train on all workloads, or keep a model of its own for these (registry.model_name)"
        )
    elif served and not served & set(challenger):
        objection = (
            f"it knows none of the {len(served)} series that the champion serves: is this the history of another "
            "cluster? Keep a model of its own for it (registry.model_name)"
        )
    if not objection or not verdict.promote:
        return verdict
    return replace(verdict, promote=False, reasons=(*verdict.reasons, objection))


def _standing(keys: Sequence[SeriesKey], ours: Scores, baseline: Scores) -> Standing:
    ratios, coverage = [], []
    for resource in resources_of(keys):
        rows = np.asarray([i for i, key in enumerate(keys) if key.resource == resource], dtype=np.intp)
        points = ours.count[rows].sum()
        if points == 0:
            continue
        coverage.append(float(ours.covered[rows, -1].sum() / points))
        loss, other = (_total(each, rows) for each in (ours, baseline))
        # A resource in which the baseline made no error has nothing to be put in proportion to.
        if other > 0:
            ratios.append(loss / other)
    with np.errstate(divide="ignore"):
        loss = float(np.exp(np.mean(np.log(ratios)))) if ratios else float("nan")
    return Standing(loss, ours.levels[-1], float(np.mean(coverage)) if coverage else float("nan"))


def _total(scores: Scores, rows: "np.typing.NDArray[np.intp]") -> float:
    level = np.asarray(scores.levels)[:, None]
    return float((level * scores.under[rows] + (1 - level) * scores.over[rows]).sum())
