"""A history cut in time: fitted on | chosen and calibrated on | held out for the score. Nothing crosses a cut.

Parts are measured in steps in which anything was observed, so an outage of the metrics store, or a history made of
separate days, does not leave a part empty.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.forecast import SECONDS_PER_DAY
from pipelines.errors import NotEnoughHistory
from pipelines.settings import TrainingSettings
from predictor.serving.bundle import MINIMUM_SAMPLES
from predictor.settings import duration_text
from predictor.usage.panel import Finding, SeriesKey, Severity, UsagePanel

IntArray = NDArray[np.int64]

LARGEST_HELD_OUT = 1 / 4
"""Of a short history no more than this share is held out …"""
LARGEST_CALIBRATION = 1 / 4
"""… and no more than this share of the rest is for weighing, choosing and calibrating; …"""
LONG_CALIBRATION = 1 / 2
"""… of a long history no more than this."""
LONG_SECONDS = 14 * SECONDS_PER_DAY
"""A history is long if this much of it is not held out."""
MOST_FORECASTS = 30_000
"""Forecasts of all series together in one of the later parts, about: a large fleet gets fewer cutoffs, …"""
FEWEST_CUTOFFS = 12
"""… but no fewer than this for that reason."""
CUTOFFS_PER_HORIZON = 2
"""A long horizon is rehearsed from no more cutoffs than this in its own length."""


@dataclass(frozen=True, slots=True)
class Split:
    """Where the parts end, and the rolling cutoffs in the later two.

    Forecasts from a calibration cutoff end by `calibrated_until_seconds`, those from a held-out cutoff by
    `end_seconds`.
    """

    fitted_until_seconds: int
    calibrated_until_seconds: int
    end_seconds: int
    calibration_cutoffs: tuple[int, ...]
    held_out_cutoffs: tuple[int, ...]
    findings: tuple[Finding, ...] = ()


def split_in_time(panel: UsagePanel, horizon_steps: int, training: TrainingSettings) -> Split:
    """The split that the settings ask for, with shorter parts (and a finding) where the history is short.

    Raises NotEnoughHistory where even those cannot hold two forecasts each.
    """
    times = observed_times(panel)
    held_out = _part_steps(training.held_out.total_seconds(), panel.step_seconds, len(times), LARGEST_HELD_OUT)
    inner = inner_split(panel, horizon_steps, training, len(times) - held_out)
    held_out_cutoffs = spread_cutoffs(times[-held_out - 1 :], horizon_steps * panel.step_seconds, training.cutoffs)
    asked = int(training.held_out.total_seconds()) // panel.step_seconds
    if len(held_out_cutoffs) < min(2, training.cutoffs):
        if held_out == asked:
            needed = _text((horizon_steps + 1) * panel.step_seconds)
            raise NotEnoughHistory(
                f"{duration_text(training.held_out)} are held out (training.held_out, or --held-out), too few for "
                f"two forecasts of {_text(horizon_steps * panel.step_seconds)}: hold out at least {needed}"
            )
        raise _too_short(panel, len(times), horizon_steps, "held out")
    findings = list(inner.findings)
    if held_out < asked:
        findings.append(_shortened("held out", held_out, asked, panel.step_seconds, "training.held_out"))
    return Split(
        fitted_until_seconds=inner.fitted_until_seconds,
        calibrated_until_seconds=inner.calibrated_until_seconds,
        end_seconds=int(times[-1]),
        calibration_cutoffs=inner.calibration_cutoffs,
        held_out_cutoffs=held_out_cutoffs,
        findings=tuple(findings),
    )


def inner_split(panel: UsagePanel, horizon_steps: int, training: TrainingSettings, steps: int) -> Split:
    """The first `steps` observed steps, cut into the fit and the calibration part, with nothing held out.

    Raises NotEnoughHistory where they cannot hold a fit and two forecasts to calibrate on.
    """
    times = observed_times(panel)[: max(steps, 0)]
    asked = int(training.calibration.total_seconds()) // panel.step_seconds
    is_long = len(times) * panel.step_seconds >= LONG_SECONDS
    share = LONG_CALIBRATION if is_long else LARGEST_CALIBRATION
    calibration = _part_steps(training.calibration.total_seconds(), panel.step_seconds, len(times), share)
    fit = len(times) - calibration
    cutoffs: tuple[int, ...] = ()
    if fit > 0:
        count = affordable(training.rehearsals, len(panel.keys))
        cutoffs = spread_cutoffs(times[fit - 1 :], horizon_steps * panel.step_seconds, count)
    if len(cutoffs) < 2:
        everything, needed = len(observed_times(panel)), int((horizon_steps + 2) / LARGEST_CALIBRATION) + 1
        if len(times) < needed <= everything * (1 - LARGEST_HELD_OUT):
            raise NotEnoughHistory(
                f"{_text(len(times) * panel.step_seconds)} of history lie before the first cutoff: to fit and "
                f"calibrate forecasts of {_text(horizon_steps * panel.step_seconds)}, "
                f"{_text(needed * panel.step_seconds)} are needed; let the first cutoff be later, or hold out less"
            )
        raise _too_short(panel, everything, horizon_steps, "calibrated on")
    findings: tuple[Finding, ...] = ()
    if calibration < asked:
        findings = (_shortened("calibrated on", calibration, asked, panel.step_seconds, "training.calibration"),)
    return Split(
        fitted_until_seconds=int(times[fit - 1]),
        calibrated_until_seconds=int(times[-1]),
        end_seconds=int(times[-1]),
        calibration_cutoffs=cutoffs,
        held_out_cutoffs=(),
        findings=findings,
    )


def for_horizon(split: Split, panel: UsagePanel, horizon_steps: int, training: TrainingSettings) -> Split:
    """The same parts, with cutoffs from which a forecast of another horizon ends within its part.

    Raises NotEnoughHistory where the calibration part cannot hold two.
    """
    times, horizon_seconds = observed_times(panel), horizon_steps * panel.step_seconds
    part = times[(times >= split.fitted_until_seconds) & (times <= split.calibrated_until_seconds)]
    # Cutoffs far closer than the horizon see the same outcomes again.
    most = max(int(CUTOFFS_PER_HORIZON * len(part) / horizon_steps), FEWEST_CUTOFFS)
    cutoffs = spread_cutoffs(part, horizon_seconds, min(affordable(training.rehearsals, len(panel.keys)), most))
    if len(cutoffs) < 2:
        raise _too_short(panel, len(times), horizon_steps, "calibrated on")
    held_out = tuple(each for each in split.held_out_cutoffs if each + horizon_seconds <= split.end_seconds)
    return replace(split, calibration_cutoffs=cutoffs, held_out_cutoffs=held_out, findings=())


def affordable(cutoffs: int, series: int) -> int:
    """The number of cutoffs that is asked for, or fewer where so many series would make it long."""
    return min(cutoffs, max(MOST_FORECASTS // max(series, 1), FEWEST_CUTOFFS))


def observed_times(panel: UsagePanel) -> IntArray:
    """Epoch seconds of the steps in which any series has a sample."""
    return np.asarray(panel.times[(~np.isnan(panel.usage)).any(axis=0)])


def spread_cutoffs(times: IntArray, horizon_seconds: int, count: int) -> tuple[int, ...]:
    """Up to `count` cutoffs, evenly spread over the times from which a whole horizon ends by the last time."""
    candidates = times[times + horizon_seconds <= times[-1]]
    if candidates.size == 0:
        return ()
    places = np.linspace(0, candidates.size - 1, min(count, candidates.size)).round().astype(np.intp)
    return tuple(int(t) for t in candidates[np.unique(places)])


def warm_samples(horizon_steps: int, step_seconds: int) -> int:
    """How many samples in the fit part make a series warm: as long as what is forecast, up to a day."""
    return max(MINIMUM_SAMPLES, min(horizon_steps, SECONDS_PER_DAY // step_seconds))


def warm_keys(panel: UsagePanel, split: Split, needed: int) -> tuple[SeriesKey, ...]:
    """The series with `needed` samples in the fit part; all others are cold."""
    known = panel.times <= split.fitted_until_seconds
    counts = np.sum(~np.isnan(panel.usage[:, known]), axis=1)
    return tuple(key for key, count in zip(panel.keys, counts, strict=True) if count >= needed)


def _part_steps(wanted_seconds: float, step_seconds: int, steps: int, largest_share: float) -> int:
    return min(int(wanted_seconds) // step_seconds, int(steps * largest_share))


def _too_short(panel: UsagePanel, steps: int, horizon_steps: int, part: str) -> NotEnoughHistory:
    share = LARGEST_CALIBRATION * (1 - LARGEST_HELD_OUT)
    needed = int((horizon_steps + 2) / share) + 1
    possible = max(int(steps * share) - 2, 0)
    shorter = f"at most {_text(possible * panel.step_seconds)} ahead" if possible else "on finer steps"
    return NotEnoughHistory(
        f"{_text(steps * panel.step_seconds)} of history hold samples: the part {part} cannot hold two forecasts of "
        f"{_text(horizon_steps * panel.step_seconds)}. Read at least {_text(needed * panel.step_seconds)} "
        f"(history.span, or --span), or forecast {shorter} (forecast.horizon, or --horizon)"
    )


def _shortened(part: str, steps: int, asked: int, step_seconds: int, setting: str) -> Finding:
    return Finding(
        "",
        "",
        Severity.WARNING,
        f"short: {_text(steps * step_seconds)} instead of {_text(asked * step_seconds)} are {part} ({setting})",
    )


def _text(seconds: int) -> str:
    from datetime import timedelta

    if seconds >= 2 * 86_400:
        return f"{seconds / 86_400:.1f} days".replace(".0 ", " ")
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.1f} h".replace(".0 ", " ")
    return duration_text(timedelta(seconds=seconds))
