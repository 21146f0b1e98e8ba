"""The plots of a training cycle, as PNG: are the quantiles honest, what is gained, and what it looks like."""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.forecast import FloatArray
from pipelines.report.page import Plot
from pipelines.report.plots import coverage_by_level, forecast_band
from pipelines.steps.plan import Plan
from pipelines.steps.score import HeldOut, ResourceAccuracy
from predictor.backtest.rolling import Backtest
from predictor.usage.panel import Resource, SeriesKey

UNITS: Mapping[Resource, tuple[str, float]] = {
    Resource.CPU: ("cores", 1.0),
    Resource.MEMORY: ("GiB", 2.0**30),
    Resource.GPU: ("devices", 1.0),
    Resource.GPU_MEMORY: ("GiB", 2.0**30),
    Resource.REQUESTS: ("requests / s", 1.0),
    Resource.CUSTOM: ("", 1.0),
}
"""What people read each resource in, and how much of its base unit that is."""


def training_pictures(plan: Plan, scored: HeldOut, accuracies: Sequence[ResourceAccuracy]) -> Mapping[str, bytes]:
    """PNG by name: coverage, gain over the baseline, and the best, the median and the worst series' forecasts."""
    levels = plan.question.levels
    known = {each.name: each.coverage for each in accuracies if each.points > 0}
    if not known:
        return {}
    coverage = coverage_by_level(
        levels, known, title="Share of what happened under each quantile", caption="On the diagonal is as promised."
    )
    pictures = {
        "coverage_by_level": base64.b64decode(coverage.png_base64),
        "pinball_against_baseline": _gains(accuracies, plan.training.baseline),
    }
    for name, row in _exemplars(plan, scored).items():
        key = scored.keys[row]
        title = f"{key} ({name} against the baseline)"
        plot = forecast_plot(scored.bundle, row, key, title=title, caption="Held-out days.")
        pictures[f"forecast_{name}"] = base64.b64decode(plot.png_base64)
    return pictures


def _exemplars(plan: Plan, scored: HeldOut) -> dict[str, int]:
    """Rows of the series with the best, the median and the worst loss against the baseline's."""
    ours, theirs = scored.scores()
    loss, baseline = (each.pinball.mean(axis=(1, 2)) for each in (ours, theirs))
    warm = set(plan.warm)
    rows = [i for i, key in enumerate(scored.keys) if key in warm and loss[i] >= 0 and baseline[i] > 0]
    if not rows:
        return {}
    ordered = sorted(rows, key=lambda i: loss[i] / baseline[i])
    return {"best": ordered[0], "median": ordered[len(ordered) // 2], "worst": ordered[-1]}


def forecast_plot(made: Backtest, row: int, key: SeriesKey, *, title: str, caption: str) -> Plot:
    """One series' forecasts from successive cutoffs over what happened, end to end, with gaps between them.

    Peaks are a line from cutoff to cutoff, each where its window ends.
    """
    times: list[NDArray[np.int64]] = []
    actual: list[FloatArray] = []
    values: list[FloatArray] = []
    end = 0
    for number, cutoff in enumerate(made.cutoffs_seconds):
        ahead = cutoff + made.step_seconds * made.target.ahead
        # A later cutoff's forecast begins where the one before ends: each step is shown once.
        fresh = ahead > end
        end = int(ahead[-1])
        times.append(ahead[fresh])
        actual.append(made.actual[number, row, fresh])
        values.append(made.forecast[number, row][:, fresh])
        if not made.target.is_peak:
            times.append(np.asarray([end]))
            actual.append(np.asarray([np.nan]))
            values.append(np.full((len(made.levels), 1), np.nan))
    unit, scale = UNITS[key.resource]
    return forecast_band(
        np.concatenate(times),
        np.concatenate(actual) / scale,
        made.levels,
        np.concatenate(values, axis=1) / scale,
        title=title,
        unit=unit,
        caption=caption,
    )


def _gains(accuracies: Sequence[ResourceAccuracy], baseline: str) -> bytes:
    """Pinball loss as a share of the baseline's, per resource: under 1 is better."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    known = [each for each in accuracies if np.isfinite(each.ratio)]
    place: FloatArray = np.arange(len(known), dtype=np.float64)
    figure = Figure(figsize=(9.6, 1.4 + 0.5 * len(known)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.barh(place - 0.2, [each.ratio for each in known], height=0.38, color="#2f6fb3", label="all, by size")
    axes.barh(place + 0.2, [each.median_ratio for each in known], height=0.38, color="#9cc3e6", label="median series")
    axes.axvline(1.0, color="#c2571a", lw=1.2, ls="--", label=baseline)
    axes.set_yticks(place, [each.name for each in known])
    axes.invert_yaxis()
    axes.set_xlabel(f"pinball loss ÷ that of {baseline}")
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
