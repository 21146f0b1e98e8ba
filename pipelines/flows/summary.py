"""What came of a flow, for a person (lines of text) and for a program (JSON values)."""

import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from shutil import which
from typing import Any

from pipelines.flows.backtest import BacktestReport
from pipelines.flows.train import TrainingReport
from pipelines.steps.score import ResourceAccuracy
from predictor.errors import without_login
from predictor.usage.panel import Finding, Severity

MOST_SHOWN = 5
"""Findings of one severity that are printed; the rest is counted."""
SQLITE = "sqlite:///"


def training_lines(report: TrainingReport, tracking_uri: str) -> list[str]:
    """A cycle's outcome: accuracy per resource, findings, verdict, and where to look."""
    lines = [
        f"{counted(report.workloads, 'workload')}; fitted up to {_time(report.fitted_until_seconds)}, held out "
        f"{_time(report.held_out_from_seconds)} to {_time(report.held_out_until_seconds)}",
        f"data fingerprint {report.fingerprint[:16]}",
        "",
        *accuracy_lines(report.resources, report.levels, report.baseline),
        "",
        *finding_lines(report.findings),
        "",
        *_verdict_lines(report),
    ]
    if report.run_id:
        lines.append(f"MLflow run {report.run_id}; look at it with: {_where(tracking_uri)}")
    return lines


def backtest_lines(report: BacktestReport, path: str) -> list[str]:
    """A backtest's outcome, what was and was not retrained, and the accuracy of each resource."""
    count = len(report.cutoffs_seconds)
    lines = [
        f"{report.rows} rows in {path}: {report.forecasts} forecasts of {report.series} series at "
        f"{counted(count, 'cutoff')}, {_time(report.cutoffs_seconds[0])} to {_time(report.cutoffs_seconds[-1])}",
        f"trained once, on usage up to {_time(report.trained_until_seconds)}; not retrained between cutoffs, "
        "but weighed anew",
    ]
    if report.without_forecast:
        lines.append(
            f"{report.without_forecast} pairs of series and cutoff have no forecast: too few samples in the "
            f"{report.past} before the cutoff (history.serving_span)"
        )
    return [*lines, "", *accuracy_lines(report.resources, report.levels, report.baseline)]


def accuracy_rows(resources: Sequence[ResourceAccuracy], levels: Sequence[float], baseline: str) -> list[list[str]]:
    """Heads, then a row per resource: series, what serves them, loss against the baseline's, coverage."""
    heads = ["resource", "series", "cold", "points", "served by", f"loss ÷ {baseline}", "median"]
    rows = [
        [
            each.name,
            str(each.series),
            str(each.cold),
            str(each.points),
            ", ".join(f"{name} {n}" for name, n in sorted(each.chosen.items(), key=lambda item: -item[1])) or "-",
            _ratio(each.ratio),
            _ratio(each.median_ratio),
            *(_share(share) for share in each.coverage),
        ]
        for each in resources
    ]
    return [[*heads, *(f"≤P{level * 100:g}" for level in levels)], *rows]


def accuracy_lines(resources: Sequence[ResourceAccuracy], levels: Sequence[float], baseline: str) -> list[str]:
    """The accuracy of each resource as a table of text, with how to read it."""
    return [
        *aligned(accuracy_rows(resources, levels, baseline)),
        f"loss: pinball loss as a share of {baseline}'s own, uncalibrated, below 1 is better; median: of the series in "
        "the middle;",
        "cold: series too young to be trained on; points: samples that forecasts were compared with; ≤P90: share of "
        "them at or below the 90 % quantile, ideally 90 %",
    ]


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """The worst findings, and how many more there are."""
    if not findings:
        return ["the history has no findings"]
    lines = []
    for severity in (Severity.BROKEN, Severity.WARNING, Severity.NOTE):
        # What concerns everything first: it must not drown among single workloads.
        found = sorted((f for f in findings if f.severity is severity), key=lambda f: bool(f.workload))
        is_long = severity is Severity.NOTE and len(found) > MOST_SHOWN
        shown = [each for each in found if not (is_long and each.workload)][:MOST_SHOWN]
        lines += [str(finding) for finding in shown]
        if len(found) > len(shown):
            kinds = Counter(_kind(finding) for finding in found[len(shown) :])
            most = "; ".join(f"{kind} ({n})" for kind, n in kinds.most_common(3))
            more = " more" if shown else ""
            lines.append(f"{severity.value}: {len(found) - len(shown)}{more}: {most}")
    return lines


def training_json(report: TrainingReport) -> dict[str, Any]:
    """The report as JSON values; what could not be measured is null."""
    return {
        "run_id": report.run_id or None,
        "version": report.version,
        "champion_before": report.champion_before,
        "promoted": report.promoted,
        "verdict": plain(asdict(report.verdict)),
        "baseline": report.baseline,
        "levels": list(report.levels),
        "resources": [plain(asdict(each)) | {"ratio": plain(each.ratio)} for each in report.resources],
        "findings": [plain(asdict(finding)) for finding in report.findings],
        "fingerprint": report.fingerprint,
        "workloads": report.workloads,
        "fitted_until": _time(report.fitted_until_seconds),
        "held_out_from": _time(report.held_out_from_seconds),
        "held_out_until": _time(report.held_out_until_seconds),
        "seconds_by_step": plain(report.seconds_by_step),
    }


def counted(number: int, what: str) -> str:
    """A number of things, in words."""
    return f"{number} {what}" if number == 1 else f"{number:,} {what}s"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines of columns; the first column to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 or not _is_number(rows[-1][column]) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _verdict_lines(report: TrainingReport) -> list[str]:
    if report.promoted:
        title = f"version {report.version} is the new champion"
    elif report.version is None:
        word = "would" if report.verdict.promote else "would not"
        title = f"dry run: nothing was registered; the model {word} become champion"
    else:
        before = report.champion_before
        champion = f"version {before} stays champion" if before else "there is still no champion"
        title = f"version {report.version} was registered but not promoted; {champion}"
    return [title, *(f"  - {reason}" for reason in report.verdict.reasons)]


def _where(tracking_uri: str) -> str:
    if tracking_uri.startswith(SQLITE):
        return f"{mlflow_command()} ui --backend-store-uri {tracking_uri}"
    return without_login(tracking_uri)


def mlflow_command() -> str:
    """How MLflow is called from here: by its name, or by its place where the environment is not activated."""
    return "mlflow" if which("mlflow") else str(Path(sys.executable).with_name("mlflow"))


def _kind(finding: Finding) -> str:
    """A finding without its figures, so that like is counted with like."""
    text = finding.message.split(";")[0].split(":")[0]
    return " ".join("N" if any(c.isdigit() for c in word) else word for word in text.split())


def _ratio(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


def _share(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else "-"


def _is_number(text: str) -> bool:
    return text[:1].isdigit() or text == "-"


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")


def plain(value: Any) -> Any:
    """The value as JSON knows it; what is not finite is null."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
