"""The plots of the report, each one picture with one message. matplotlib is imported when the first one is drawn."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.forecast import FloatArray
from pipelines.report.page import Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Times = NDArray[np.int64]
ACTUAL = "#1c2530"
FORECAST = "#2f6fb3"
OURS = "#0b7a4b"
PEER = "#c2571a"
BAD = "#b3261e"


def forecast_band(
    times: Times,
    actual: FloatArray,
    levels: Sequence[float],
    values: FloatArray,
    *,
    title: str,
    unit: str,
    caption: str,
) -> Plot:
    """Actual usage over the forecast's quantiles; `values` is [levels, steps]."""
    figure, axes = _figure()
    axes.set_xlabel("UTC", fontsize=8)
    when = _when(times)
    axes.fill_between(
        when,
        values[0],
        values[-1],
        color=FORECAST,
        alpha=0.18,
        lw=0,
        label=f"P{levels[0]:.0%} to P{levels[-1]:.0%}".replace("%", ""),
    )
    for level, row in zip(levels, values, strict=True):
        axes.plot(when, row, color=FORECAST, lw=0.9 if level != levels[-1] else 1.3, alpha=0.9)
    axes.plot(when, actual, color=ACTUAL, lw=1.1, label="what happened")
    return _plot(figure, axes, title, unit, caption)


def replicas_over_demand(
    times: Times, needed: FloatArray, ready: Mapping[str, FloatArray], *, title: str, caption: str
) -> Plot:
    """Ready replicas of each policy over the replicas that demand needed, all [steps]; shortfalls are marked."""
    figure, axes = _figure()
    axes.set_xlabel("UTC", fontsize=8)
    when = _when(times)
    axes.fill_between(when, 0, needed, step="post", color="#c9d1d9", lw=0, label="needed by demand")
    for (policy, replicas), colour in zip(ready.items(), (OURS, PEER, FORECAST), strict=False):
        axes.step(when, replicas, where="post", color=colour, lw=1.3, label=policy)
        short = np.where(replicas < needed, needed, np.nan)
        axes.plot(when, short, ls="none", marker=".", ms=4, color=colour)
    axes.set_ylim(bottom=0)
    return _plot(figure, axes, title, "replicas", caption)


def cost_over_violations(
    fronts: Mapping[str, Sequence[tuple[float, float]]], *, bound: float, title: str, caption: str
) -> Plot:
    """Core-hours of each policy's settings over the share of time in violation, from (share, core-hours)."""
    from matplotlib import colormaps

    figure, axes = _figure(height=3.6)
    # More than ten policies, of which no two may look alike.
    axes.set_prop_cycle(color=colormaps["tab20"].resampled(20)(range(20)))
    for name, front in fronts.items():
        shares, cores = np.asarray(sorted(front)).T
        # Cost is linear in the share between two settings, which is a curve on this axis.
        between = np.union1d(shares, np.geomspace(1e-5, 1.0, 400).clip(shares[0], shares[-1]))
        (line,) = axes.plot(between * 100, np.interp(between, shares, cores), lw=1.2, label=name)
        axes.plot(shares * 100, cores, ls="none", marker="o", ms=3.5, color=line.get_color())
    axes.axhline(bound, color="#8a949e", lw=1.0, ls="--", label="oracle")
    axes.set_xscale("symlog", linthresh=0.01)
    axes.set_xlim(left=0)
    axes.set_xlabel("time in violation, %")
    return _plot(figure, axes, title, "core-hours", caption)


def peak_over_usage(
    times: Times,
    usage: FloatArray,
    allowed: FloatArray,
    *,
    requested: float,
    title: str,
    unit: str,
    caption: str,
) -> Plot:
    """A pool's usage under its predicted peak and its requests; steps above the peak are violations."""
    figure, axes = _figure()
    axes.set_xlabel("UTC", fontsize=8)
    when = _when(times)
    axes.plot(when, usage, color=ACTUAL, lw=1.0, label="usage")
    axes.step(when, allowed, where="post", color=OURS, lw=1.5, label="predicted peak")
    axes.axhline(requested, color=PEER, lw=1.0, ls="--", label="requested")
    above = np.where(usage > allowed, usage, np.nan)
    axes.plot(
        when, above, ls="none", marker=".", ms=4, color=BAD, label="violation" if np.isfinite(above).any() else None
    )
    axes.set_ylim(bottom=0)
    return _plot(figure, axes, title, unit, caption)


def coverage_by_level(
    levels: Sequence[float], coverage: Mapping[str, Sequence[float]], *, title: str, caption: str
) -> Plot:
    """Share of actuals under each quantile, per resource; on the diagonal the quantiles mean what they say."""
    figure, axes = _figure(height=3.6)
    axes.plot([0, 1], [0, 1], color="#c9d1d9", lw=2, label="as promised")
    for name, shares in coverage.items():
        axes.plot(levels, shares, marker="o", ms=4, lw=1.1, label=name)
    axes.set_xlim(min(levels) - 0.05, 1.01)
    axes.set_ylim(min(levels) - 0.15, 1.01)
    axes.set_xlabel("quantile level")
    return _plot(figure, axes, title, "share of actuals under it", caption)


def _when(times: Times) -> "NDArray[np.datetime64]":
    return times.astype("datetime64[s]")


def _figure(height: float = 3.0) -> "tuple[Figure, Axes]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _plot(figure: "Figure", axes: "Axes", title: str, unit: str, caption: str) -> Plot:
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_ylabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.tick_params(labelsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return Plot(base64.b64encode(buffer.getvalue()).decode("ascii"), caption)
