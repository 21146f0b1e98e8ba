"""The figures of a backtest, from the sums of its cutoffs: every method's accuracy, the bundle's coverage, each series.

Aggregates speak of the warm series that were observed after some cutoff; series that were too young to be trained on
only stand in the list of series.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from models.forecast import FloatArray
from pipelines.steps.compare import FORESIZE, Lane, Sums
from pipelines.steps.score import of_rows
from predictor.backtest.coverage import HOURS_OF_DAY, tenths, worst_tenth
from predictor.backtest.resampling import Estimate, mean_of_known, ratio_of_sums, resampled
from predictor.backtest.scores import Scores
from predictor.serving.bundle import FALLBACK, Bundle
from predictor.usage.panel import Resource, SeriesKey

LARGEST_RATIO = 1000.0
"""A series' own ratio counts for no more than this, and for no less than one over it."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the horizon: the steps that start later than one time after the cutoff, and up to another."""

    after_seconds: int
    until_seconds: int
    is_whole: bool
    """Whether that is the whole horizon."""


@dataclass(frozen=True, slots=True)
class MethodAccuracy:
    """How good one method was on one resource, over a part of the horizon or the whole.

    Pooled figures are sums over all series, so large series own them; the equal ones give each series the same say.
    """

    resource: Resource
    target: str
    method: str
    span: Span
    series: int
    points: int
    pinball: float
    """Mean over points and levels, in the resource's base unit."""
    ratio: Estimate
    """Pinball loss ÷ the baseline's; below 1 is better."""
    equal_ratio: Estimate
    """Geometric mean of the series' own ratios, where the baseline made an error."""
    quantile_loss: Estimate
    """Mean weighted quantile loss: mean over levels of 2 Σ pinball ÷ Σ usage."""
    equal_quantile_loss: Estimate
    """Mean of the series' own, where anything was used."""


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """Share of usage at or below the quantiles in one group of points or series."""

    resource: Resource
    target: str
    by: str
    """`all`, `hour of day`, `volatility`, `ramp` or `worst tenth`."""
    group: str
    series: int
    points: int
    coverage: tuple[float, ...]
    """For each level; NaN without a point."""


@dataclass(frozen=True, slots=True)
class SeriesAccuracy:
    """How good the forecasts of one series were."""

    key: SeriesKey
    target: str
    is_cold: bool
    forecaster: str
    points: int
    pinball: float
    ratio: float
    """Pinball loss ÷ the baseline's; NaN where that made no error."""
    quantile_loss: float
    coverage: tuple[float, ...]
    volatility: float


@dataclass(frozen=True, slots=True)
class LaneFigures:
    """Everything that is told of one resource and target."""

    methods: tuple[MethodAccuracy, ...]
    coverage: tuple[CoverageRow, ...]
    series: tuple[SeriesAccuracy, ...]

    @property
    def whole(self) -> tuple[MethodAccuracy, ...]:
        """The methods over the whole horizon, the best of the others after foresize first."""
        found = [each for each in self.methods if each.span.is_whole]
        return tuple(sorted(found, key=lambda each: (each.method != FORESIZE, each.quantile_loss.value)))


def lane_figures(lane: Lane, sums: Sums, bundle: Bundle, baseline: str, seed: int) -> LaneFigures:
    """The figures of one lane."""
    ours = sums.scores[FORESIZE].pooled(parts=True)
    is_warm = np.asarray([key in bundle.series for key in lane.panel.keys])
    rows = np.flatnonzero(is_warm & (ours.count[:, 0] > 0))
    return LaneFigures(
        method_accuracies(lane, sums.scores, rows, baseline, np.random.default_rng(seed)) if rows.size else (),
        coverage_rows(lane, sums, rows) if rows.size else (),
        series_accuracies(lane, ours, sums.scores[baseline].pooled(parts=True), bundle),
    )


def method_accuracies(
    lane: Lane,
    scores: Mapping[str, Scores],
    rows: NDArray[np.intp],
    baseline: str,
    rng: np.random.Generator,
) -> tuple[MethodAccuracy, ...]:
    """Every method over every part of the horizon and, where it has more than one part, over the whole."""
    drawn = resampled(len(rows), rng)
    known = {name: of_rows(each, rows) for name, each in scores.items()}
    ends = known[baseline].part_ends
    spans = {(start, end): part for part, (start, end) in enumerate(pairwise((0, *ends)))}
    found = []
    for start, end in dict.fromkeys((*spans, (0, ends[-1]))):
        is_whole = (start, end) == (0, ends[-1])
        until = int(lane.question.target.ahead[end - 1])
        span = Span(start * lane.panel.step_seconds, until * lane.panel.step_seconds, is_whole)
        here = {
            name: each.pooled(parts=True) if is_whole else _part(each, spans[start, end])
            for name, each in known.items()
        }
        theirs = _loss(here[baseline])
        found += [_accuracy(each, theirs, drawn, method=name, lane=lane, span=span) for name, each in here.items()]
    return tuple(found)


def coverage_rows(lane: Lane, sums: Sums, rows: NDArray[np.intp]) -> tuple[CoverageRow, ...]:
    """Coverage over all points, by hour of day, by volatility, on ramps and off them, and of the worst tenth."""
    ours = of_rows(sums.scores[FORESIZE].pooled(parts=True), rows)
    covered, count = ours.covered[:, :, 0], ours.count[:, 0]

    def row(by: str, group: str, hit: NDArray[np.int64], points: NDArray[np.int64]) -> CoverageRow:
        total = int(points.sum())
        shares = hit.sum(axis=0) / total if total else np.full(hit.shape[1], np.nan)
        series = int(np.sum(points > 0))
        return CoverageRow(lane.resource, lane.target, by, group, series, total, tuple(shares.tolist()))

    found = [row("all", "all", covered, count)]
    for hour in range(HOURS_OF_DAY):
        found.append(row("hour of day", f"{hour:02d}", sums.hours.covered[rows, :, hour], sums.hours.count[rows, hour]))
    moved = lane.volatility[rows]
    tenth = tenths(moved)
    for number in range(int(tenth.max()) + 1):
        here = tenth == number
        group = f"{number + 1} ({moved[here].min():.3g} to {moved[here].max():.3g})"
        found.append(row("volatility", group, covered[here], count[here]))
    for number, group in enumerate(("steady", "ramp")):
        found.append(row("ramp", group, sums.ramps.covered[rows, :, number], sums.ramps.count[rows, number]))
    worst = worst_tenth(covered / count[:, None])
    tenth_of_all = -(-len(rows) // 10)
    name = "worst tenth"
    found.append(CoverageRow(lane.resource, lane.target, name, name, tenth_of_all, 0, tuple(worst.tolist())))
    return tuple(found)


def series_accuracies(lane: Lane, ours: Scores, theirs: Scores, bundle: Bundle) -> tuple[SeriesAccuracy, ...]:
    """A row for each series, in the panel's order; the scores have one part."""
    loss, baseline = (each.pinball.mean(axis=(1, 2)) for each in (ours, theirs))
    # Figures of all series at once: they are worked out anew at each look.
    quantile_loss, coverage = ours.weighted_quantile_loss[:, 0], ours.coverage[:, :, 0]
    found = []
    for row, key in enumerate(lane.panel.keys):
        model = bundle.series.get(key)
        found.append(
            SeriesAccuracy(
                key=key,
                target=lane.target,
                is_cold=model is None,
                forecaster=model.forecaster if model else FALLBACK,
                points=int(ours.count[row, 0]),
                pinball=float(loss[row]),
                ratio=float(loss[row] / baseline[row]) if baseline[row] > 0 else float("nan"),
                quantile_loss=float(quantile_loss[row]),
                coverage=tuple(coverage[row].tolist()),
                volatility=float(lane.volatility[row]),
            )
        )
    return tuple(found)


def exemplars(series: Sequence[SeriesAccuracy]) -> dict[str, int]:
    """Rows of the warm series with the best, the median and the worst ratio; fewer where fewer series have one."""
    rows = [row for row, each in enumerate(series) if not each.is_cold and np.isfinite(each.ratio)]
    if not rows:
        return {}
    ordered = sorted(rows, key=lambda row: series[row].ratio)
    picked = {"best": ordered[0], "worst": ordered[-1], "median": ordered[len(ordered) // 2]}
    # A series that is two of them is shown once.
    first_name = {row: name for name, row in reversed(picked.items())}
    return {name: row for name, row in picked.items() if first_name[row] == name}


def _part(scores: Scores, part: int) -> Scores:
    here = slice(part, part + 1)
    return replace(
        scores,
        part_ends=scores.part_ends[here],
        under=scores.under[:, :, here],
        over=scores.over[:, :, here],
        covered=scores.covered[:, :, here],
        usage=scores.usage[:, here],
        count=scores.count[:, here],
        missing=scores.missing[:, here],
    )


def _accuracy(
    scores: Scores, baseline: FloatArray, drawn: FloatArray, *, method: str, lane: Lane, span: Span
) -> MethodAccuracy:
    loss, usage, count = _loss(scores), scores.usage[:, 0], scores.count[:, 0]
    own = np.full(loss.shape, np.nan)
    np.divide(loss, baseline, out=own, where=baseline > 0)
    typical = mean_of_known(np.log(np.clip(own, 1 / LARGEST_RATIO, LARGEST_RATIO)), drawn)
    points = int(count.sum())
    return MethodAccuracy(
        resource=lane.resource,
        target=lane.target,
        method=method,
        span=span,
        series=int(np.sum(count > 0)),
        points=points,
        pinball=float(loss.sum() / points) if points else float("nan"),
        ratio=ratio_of_sums(loss, baseline, drawn),
        equal_ratio=Estimate(*(float(np.exp(each)) for each in (typical.value, typical.low, typical.high))),
        quantile_loss=ratio_of_sums(2 * loss, usage, drawn),
        equal_quantile_loss=mean_of_known(scores.weighted_quantile_loss[:, 0], drawn),
    )


def _loss(scores: Scores) -> FloatArray:
    """Pinball loss summed over points and averaged over levels, [series]."""
    return np.asarray(scores.pinball_sums[:, :, 0].mean(axis=1))
