"""A backtest as a person reads it: lines for the terminal, a page for the browser, values for a program."""

import math
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import Any

from pipelines.flows.backtest import BacktestReport
from pipelines.flows.pictures import forecast_plot
from pipelines.flows.summary import accuracy_rows, aligned, counted, plain
from pipelines.report.page import Headline, Page, PageSection, Plot, Table
from pipelines.report.plots import coverage_by_level
from pipelines.steps.figures import CoverageRow, MethodAccuracy, SeriesAccuracy, Span
from predictor.backtest.resampling import Estimate
from predictor.settings import duration_text

RETRAINING = (
    "Forecasters are fitted, weighed and calibrated once, before the first cutoff, and not retrained between cutoffs; "
    "only their weights go on learning, as they do in serving."
)
"""What happens between cutoffs, for a reader of the report or of `--help`."""
FIGURES = {
    "ratio": "pinball loss ÷ {baseline}'s, pooled: all series together, so the large ones own it",
    "equal_ratio": "pinball loss ÷ {baseline}'s, equal weight: geometric mean of the series' own ratios",
    "quantile_loss": "mean weighted quantile loss (near CRPS ÷ mean usage), pooled",
    "equal_quantile_loss": "mean weighted quantile loss, equal weight: mean of the series' own",
}
"""The figures that every method is compared by, and what they are."""
FEW_SERIES = 20
"""With fewer series than this an interval over series says little."""
LARGE_SHORTFALL = 0.02
FEWEST_POINTS = 100
MOST_SHORTFALLS = 8
MOST_FINDINGS = 200


def method_lines(report: BacktestReport) -> list[str]:
    """Every method over the whole horizon, for each resource and target, with 95 % intervals over series."""
    lines = []
    for subject in _measured(report):
        heads = (subject, f"loss ÷ {report.baseline}", "equal weight", "quantile loss", "equal weight")
        lines += ["", *aligned([heads, *(_method_row(each) for each in report.figures[subject].whole)])]
    if lines:
        lines.append(
            "[…]: 95 % interval over series; quantile loss: 2 Σ pinball ÷ Σ usage, near CRPS ÷ mean usage; equal "
            "weight: each series counts the same; forecasters alone are uncalibrated"
        )
    return lines


def page(report: BacktestReport) -> Page:
    """The report as one page."""
    return Page(
        "foresize: your history, forecast from its past",
        f"{report.series} series, {counted(len(report.cutoffs_seconds), 'cutoff')} from "
        f"{_time(report.cutoffs_seconds[0])} to {_time(report.cutoffs_seconds[-1])}; {report.horizon} ahead in steps "
        f"of {report.step}",
        headlines(report),
        [_short(report), _accuracy(report), _coverage(report), _series(report), _findings(report)],
        f"Made by foresize {metadata.version('foresize')} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. Data fingerprint "
        f"{report.fingerprint[:16]}.",
    )


def headlines(report: BacktestReport) -> list[Headline]:
    """For each resource and target: is it better than the baseline, and where does the highest quantile not hold."""
    made = []
    for subject in _measured(report):
        ours, *others = report.figures[subject].whole
        rivals = [each for each in others if each.method != report.baseline and math.isfinite(each.ratio.value)]
        best = min(rivals, key=_ratio_of, default=None)
        said = f"; {best.method}, the best other forecaster alone, had {best.ratio.value:.2f} ×" if best else ""
        made.append(
            Headline(
                f"{subject}: {ours.ratio.value:.2f} ×",
                f"the loss of {report.baseline} (95 % interval {ours.ratio.low:.2f} to {ours.ratio.high:.2f}){said}",
                _tone(ours.ratio),
            )
        )
        top = report.levels[-1]
        overall, worst = (_row(report, subject, by).coverage[-1] for by in ("all", "worst tenth"))
        made.append(
            Headline(
                f"{subject}: {overall:.1%}",
                f"of usage stayed at or under {_level(top)}, which promises {top:.1%}; in the tenth of series where it "
                f"is lowest, {worst:.1%}",
                "good" if overall >= top - LARGE_SHORTFALL / 2 else "bad",
            )
        )
    return made


def json_values(report: BacktestReport) -> dict[str, Any]:
    """Every figure, for a program; what could not be measured is null. The same backtest gives the same values."""
    figures = report.figures.values()
    return {
        "version": metadata.version("foresize"),
        "fingerprint": report.fingerprint,
        "cutoffs": [_iso(second) for second in report.cutoffs_seconds],
        "trained_until": _iso(report.trained_until_seconds),
        "retraining": RETRAINING,
        "horizon": report.horizon,
        "step": report.step,
        "levels": list(report.levels),
        "baseline": report.baseline,
        "series_count": report.series,
        "forecasts": report.forecasts,
        "without_forecast": report.without_forecast,
        "resources": [plain(asdict(each)) | {"ratio": plain(each.ratio)} for each in report.resources],
        "accuracy": [plain(asdict(each)) for one in figures for each in one.methods],
        "coverage": [plain(asdict(each)) for one in figures for each in one.coverage],
        "series": [_series_values(each) for one in figures for each in one.series],
        "findings": [plain(asdict(finding)) for finding in report.findings],
    }


def _short(report: BacktestReport) -> PageSection:
    heads, *rows = accuracy_rows(report.resources, report.levels, report.baseline)
    weak = _shortfalls(report)
    notes = weak or ["No group of hours, of series or of ramps falls short of its quantiles by more than 2 points."]
    few = [f"{each} ({n})" for each in _measured(report) if (n := report.figures[each].whole[0].series) < FEW_SERIES]
    if few:
        notes = [*notes, f"Few series: {', '.join(few)}. An interval over so few of them is a rough guide."]
    return PageSection(
        "In short",
        f"{RETRAINING} Here the fit saw usage up to {_time(report.trained_until_seconds)} and nothing after it. Loss "
        f"is pinball loss as a share of that of {report.baseline}: below 1 is better. ≤P90 is the share of usage at or "
        "below the 90 % quantile, ideally 90 %. Do not trust the quantiles where the list below says that they fell "
        "short.",
        (Table(heads, rows, "Series that are warm; cold ones were too young to be trained on"),),
        notes=notes,
    )


def _accuracy(report: BacktestReport) -> PageSection:
    tables = []
    for subject in _measured(report):
        methods = report.figures[subject].methods
        spans = list(dict.fromkeys(each.span for each in methods))
        order = [each.method for each in report.figures[subject].whole]
        known = {(each.method, each.span): each for each in methods}
        for name, meaning in FIGURES.items():
            rows = [(method, *(_estimate(getattr(known[method, span], name)) for span in spans)) for method in order]
            caption = f"{subject}: {meaning.format(baseline=report.baseline)}"
            tables.append(Table((subject, *(_span(span) for span in spans)), rows, caption))
    return PageSection(
        "Accuracy beside every forecaster",
        "Each forecaster alone, uncalibrated, was asked the same as foresize; a point counts where all have an answer. "
        "Columns are parts of the horizon. In brackets is the 95 % interval that a bootstrap over series gives (series "
        "drawn with replacement, 500 times, seeded): if another fleet like this one had been measured.",
        tables,
    )


def _coverage(report: BacktestReport) -> PageSection:
    tables, heads = [], [_level(level) for level in report.levels]
    for subject in _measured(report):
        rows = report.figures[subject].coverage
        for title, kinds in (
            (
                "all usage, on ramps and off them, and in the tenth of series with the lowest",
                ("all", "ramp", "worst tenth"),
            ),
            ("series by volatility, from steady to volatile", ("volatility",)),
            ("hour of day, UTC", ("hour of day",)),
        ):
            shown = [
                (each.group, str(each.series), str(each.points or ""), *(_share(share) for share in each.coverage))
                for each in rows
                if each.by in kinds
            ]
            tables.append(Table(("", "series", "points", *heads), shown, f"{subject}: {title}"))
    known = {each.name: each.coverage for each in report.resources if each.points > 0}
    plot = coverage_by_level(
        report.levels, known, title="Share of usage at or under each quantile", caption="On the line is as promised."
    )
    return PageSection(
        "Where the quantiles can be trusted",
        "Share of usage at or under each quantile. A step is on a ramp if usage changed more within the hour before it "
        "than in nine of ten cases before the first cutoff. Volatility is the standard deviation of the change from "
        "step to step ÷ mean usage, before the first cutoff; tenths of the series are numbered from the steadiest. "
        "The worst tenth is, for each quantile, the mean over the tenth of series with the lowest coverage. Ramps "
        "and the worst tenth are known only afterwards: even quantiles that are right hold less often there.",
        tables,
        (plot,) if known else (),
    )


def _series(report: BacktestReport) -> PageSection:
    plots: list[Plot] = []
    for subject, shown in report.exemplars.items():
        for exemplar in shown:
            own = report.figures[subject].series[exemplar.row]
            shares = ", ".join(
                f"{share:.0%} ≤ {_level(level)}" for level, share in zip(report.levels, own.coverage, strict=True)
            )
            title = f"{own.key.workload} {subject}: {exemplar.name} against {report.baseline}"
            caption = f"{own.ratio:.2f} of the loss of {report.baseline}; served by {own.forecaster}; {shares}."
            plots.append(forecast_plot(exemplar.made, 0, own.key, title=title, caption=caption))
    return PageSection(
        "The best, the median and the worst series",
        f"By loss against {report.baseline}. Forecasts of successive cutoffs and what happened; of two forecasts for "
        "the same step the earlier is shown, and gaps are time that no cutoff looked ahead to.",
        plots=plots,
    )


def _findings(report: BacktestReport) -> PageSection:
    ordered = sorted(report.findings, key=lambda finding: (bool(finding.workload), finding.severity.value))
    notes = [str(finding) for finding in ordered[:MOST_FINDINGS]]
    if len(ordered) > MOST_FINDINGS:
        notes.append(f"{len(ordered) - MOST_FINDINGS} more")
    if report.without_forecast:
        notes.insert(
            0,
            f"{report.without_forecast} pairs of series and cutoff have no forecast: too few samples in the "
            f"{report.past} before the cutoff (history.serving_span)",
        )
    return PageSection("Findings", "What was found in the history." if notes else "There are none.", notes=notes)


def _shortfalls(report: BacktestReport) -> list[str]:
    """The groups that fall short of an upper quantile by most, as sentences."""
    found = [
        (level - share, f"{subject}, {_where(each)}: only {share:.1%} of usage under {_level(level)}")
        for subject in _measured(report)
        for each in report.figures[subject].coverage
        for level, share in zip(report.levels, each.coverage, strict=True)
        if level > 0.5 and each.points >= FEWEST_POINTS and each.by != "all" and level - share > LARGE_SHORTFALL
    ]
    return [sentence for _, sentence in sorted(found, reverse=True)[:MOST_SHORTFALLS]]


def _where(row: CoverageRow) -> str:
    if row.by == "hour of day":
        return f"from {row.group}:00 UTC for an hour"
    if row.by == "ramp":
        return "on ramps" if row.group == "ramp" else "off ramps"
    return f"series in tenth {row.group} of volatility"


def _measured(report: BacktestReport) -> list[str]:
    """What figures there are of: `cpu`, `cpu peak_1h`."""
    return [subject for subject, each in report.figures.items() if each.methods]


def _row(report: BacktestReport, subject: str, by: str) -> CoverageRow:
    return next(each for each in report.figures[subject].coverage if each.by == by)


def _method_row(each: MethodAccuracy) -> tuple[str, ...]:
    return (each.method, *(_estimate(getattr(each, name)) for name in FIGURES))


def _ratio_of(each: MethodAccuracy) -> float:
    return each.ratio.value


def _tone(ratio: Estimate) -> str:
    if ratio.high < 1:
        return "good"
    return "bad" if ratio.low > 1 else "neutral"


def _estimate(estimate: Estimate) -> str:
    if not math.isfinite(estimate.value):
        return "-"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _span(span: Span) -> str:
    if span.is_whole:
        return "whole horizon"
    start, end = (duration_text(timedelta(seconds=each)) for each in (span.after_seconds, span.until_seconds))
    return f"{start} to {end}" if span.after_seconds else f"first {end}"


def _level(level: float) -> str:
    return f"P{level * 100:g}"


def _share(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else "-"


def _series_values(each: SeriesAccuracy) -> dict[str, Any]:
    values: dict[str, Any] = plain(asdict(each))
    values.pop("key")
    return {"workload": each.key.workload, "resource": each.key.resource.value} | values


def _time(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
