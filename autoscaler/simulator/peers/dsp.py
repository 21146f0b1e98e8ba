"""Crane's DSP forecast: one period of demand, from the strongest frequencies of its Fourier transform.

Source: gocrane/crane pkg/prediction/dsp, read as shipped: (1) gaps are filled and a history with a long gap begins
after it; (2) outliers become the value before them; (3) the period is looked for among the frequencies that stand out
against random permutations and confirmed by autocorrelation, and is accepted only if it is exactly a day or a week; (4)
eight estimators keep the strongest frequencies and add a margin; (5) the one that forecasts the last period best is
used.

**As shipped, a frequency is not folded**: each bin k counts as k ÷ (N · step), so that the mirror of a slow and weak
one counts as fast and is dropped alone, which halves its amplitude. `is_folded` is what was intended. Amounts matter:
the least amplitudes are 1 and 0.05 of demand's base unit.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.forecast import SECONDS_PER_DAY, FloatArray

SECONDS_PER_HOUR = 3600
LONGEST_GAP_SECONDS = 3600
PERIODS_SECONDS = (SECONDS_PER_DAY, 7 * SECONDS_PER_DAY)
PERMUTATIONS, SIGNIFICANT_RANK = 100, 98
PEAK_REACH_SECONDS = 4 * SECONDS_PER_HOUR
FAST_HERTZ = 1 / 3600
MOST_FREQUENCIES = 100
LEAST_FORECAST = 0.01
"""What stands in for a forecast of nothing or less, in demand's base unit."""


class Estimator(NamedTuple):
    """Which frequencies are kept, and the margin that is added."""

    least_frequencies: int
    least_amplitude: float
    margin: float


ESTIMATORS = tuple(
    Estimator(frequencies, amplitude, margin)
    for frequencies, amplitude in ((3, 1.0), (50, 0.05))
    for margin in (0.01, 0.10, 0.15, 0.20)
)


@dataclass(frozen=True, slots=True)
class PeriodForecast:
    """One period of demand, [steps of a period], that repeats for ever."""

    values: FloatArray
    begins_after: int
    """Steps of the history after which the period begins for the first time."""

    def between(self, first_step: int, last_step: int) -> float:
        """The highest demand of these steps, the last one included; counted as the history's steps are."""
        places = np.arange(first_step, last_step + 1) - self.begins_after
        return float(self.values[places % len(self.values)].max())


def dsp_forecast(
    history: FloatArray, step_seconds: int, rng: np.random.Generator, *, is_folded: bool
) -> PeriodForecast | None:
    """The forecast after this history, [steps], NaN where unknown; None where no day or week is found in it.

    `rng` draws the permutations. Steps must divide an hour.
    """
    signal = filled(history, step_seconds)
    if len(signal) == 0:
        return None
    signal = without_outliers(signal)
    steps = period_of(signal, step_seconds, rng)
    if steps is None:
        return None
    signal = signal[len(signal) % steps :]
    best = _best_estimator(signal, steps, step_seconds, is_folded=is_folded)
    (values,) = estimates(signal, steps, step_seconds, (best,), is_folded=is_folded)
    last_known = int(np.flatnonzero(~np.isnan(history))[-1])
    return PeriodForecast(values, last_known + 1)


def filled(history: FloatArray, step_seconds: int) -> FloatArray:
    """The newest whole hours up to the last known step, gaps filled in a straight line, from the last long gap on."""
    known = np.flatnonzero(~np.isnan(history))
    if known.size == 0:
        return np.empty(0)
    long_gaps = np.flatnonzero(np.diff(known) * step_seconds > LONGEST_GAP_SECONDS)
    if long_gaps.size:
        known = known[long_gaps[-1] + 1 :]
    steps = np.arange(known[0], known[-1] + 1)
    signal = np.interp(steps, known, history[known])
    return signal[len(signal) % (SECONDS_PER_HOUR // step_seconds) :]


def without_outliers(signal: FloatArray) -> FloatArray:
    """Values above the 99.9th or below the 0.1st percentile replaced by the one before; the first stays."""
    ordered = np.sort(signal)
    low, high = _percentile(ordered, 0.1), _percentile(ordered, 99.9)
    if low is None or high is None:
        return signal
    keeps = (signal >= low) & (signal <= high)
    keeps[0] = True
    places = np.maximum.accumulate(np.where(keeps, np.arange(len(signal)), 0))
    return signal[places]


def _percentile(ordered: FloatArray, percent: float) -> float | None:
    """As montanaflynn/stats has it: the value at that rank or the mean of two; None for a rank below the first."""
    rank = percent / 100 * len(ordered)
    place = int(rank)
    if place == rank:
        return float(ordered[place - 1])
    return float((ordered[place - 1] + ordered[place]) / 2) if rank > 1 else None


def period_of(signal: FloatArray, step_seconds: int, rng: np.random.Generator) -> int | None:
    """Steps of the period of this signal, if that is exactly a day or a week; looked for in its newest whole ones."""
    day, week = (seconds // step_seconds for seconds in PERIODS_SECONDS)
    if len(signal) >= 2 * week:
        signal = signal[len(signal) % week :]
    elif len(signal) >= 2 * day:
        signal = signal[len(signal) % day :]
    else:
        return None
    spread = signal.std()
    if spread == 0:
        return None
    standardised = (signal - signal.mean()) / spread
    spectrum = np.fft.rfft(standardised)
    autocorrelation = np.fft.irfft(np.abs(spectrum) ** 2, len(signal)) / len(signal)
    reach = PEAK_REACH_SECONDS // step_seconds
    peaks = [hint for hint in _hints(standardised, spectrum, rng) if _is_peak(autocorrelation, hint, reach)]
    if not peaks:
        return None
    best = max(peaks, key=lambda hint: float(autocorrelation[hint]))
    return best if best in (day, week) else None


def _hints(standardised: FloatArray, spectrum: npt.NDArray[np.complex128], rng: np.random.Generator) -> list[int]:
    """Periods in steps, longest first, whose frequency is stronger than any of nearly all random permutations.

    Standardising scales all amplitudes alike, so what stands out is the same.
    """
    steps = len(standardised)
    half = np.arange(2, (steps + 1) // 2)
    shuffled = rng.permuted(np.broadcast_to(standardised, (PERMUTATIONS, steps)), axis=1)
    strongest = np.abs(np.fft.rfft(shuffled, axis=1)[:, 1 : (steps + 1) // 2]).max(axis=1)
    threshold = np.sort(strongest)[SIGNIFICANT_RANK]
    strong = half[np.abs(spectrum[half]) > threshold]
    return list(dict.fromkeys((steps // strong).tolist()))


def _is_peak(autocorrelation: FloatArray, hint: int, reach: int) -> bool:
    """Whether the autocorrelation rises before this lag and falls after it."""
    reach = min(reach, hint // 2)
    if reach == 0:
        return False
    centred = np.arange(reach + 1) - reach / 2
    before, after = autocorrelation[hint - reach : hint + 1], autocorrelation[hint : hint + reach + 1]
    return bool(centred @ before > 0 > centred @ after)


def estimates(
    signal: FloatArray, period: int, step_seconds: int, estimators: tuple[Estimator, ...], *, is_folded: bool
) -> list[FloatArray]:
    """The last period of the signal, as each estimator has it."""
    steps = len(signal)
    spectrum = np.fft.fft(signal)
    amplitudes = np.abs(spectrum) / steps
    bins = np.arange(steps)
    if is_folded:
        bins = np.minimum(bins, steps - bins)
    is_fast = bins / (steps * step_seconds) > FAST_HERTZ
    ordered = np.sort(amplitudes[1 : steps // 2])[::-1]
    kept: dict[tuple[int, float], FloatArray] = {}
    for least, amplitude, _ in estimators:
        if (least, amplitude) not in kept:
            weak = amplitudes < _least_amplitude(ordered, least, amplitude)
            back = np.fft.ifft(np.where(weak & is_fast, 0.0, spectrum)).real[-period:]
            kept[least, amplitude] = np.where(back <= 0, LEAST_FORECAST, back)
    return [kept[each.least_frequencies, each.least_amplitude] * (1 + each.margin) for each in estimators]


def _least_amplitude(ordered: FloatArray, least_frequencies: int, least_amplitude: float) -> float:
    """The amplitude from which on a frequency is kept: for at most 100 of them, and for at least so many."""
    lowest = max(float(ordered[min(MOST_FREQUENCIES, len(ordered)) - 1]), least_amplitude)
    if len(ordered) >= least_frequencies:
        lowest = min(lowest, float(ordered[least_frequencies - 1]))
    return lowest


def _best_estimator(signal: FloatArray, period: int, step_seconds: int, *, is_folded: bool) -> Estimator:
    """The one that, from all but the last period, comes nearest to the last."""
    actual = signal[-period:]
    tried = estimates(signal[:-period], period, step_seconds, ESTIMATORS, is_folded=is_folded)
    return ESTIMATORS[int(np.argmin([forecast_error(actual, each) for each in tried]))]


def forecast_error(actual: FloatArray, forecast: FloatArray) -> float:
    """Crane's error: the mean of what is too much, relative, and of what is too little, by its logarithm to base 1.25.

    Where anything actual is next to nothing: the mean absolute error.
    """
    if (actual < 1e-3).any():
        return float(np.abs(forecast - actual).mean())
    relative = (forecast - actual) / actual
    return float(np.where(relative >= 0, relative, -np.log(1 + np.minimum(relative, 0.0)) / np.log(1.25)).mean())
