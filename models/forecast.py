"""What a history and a forecast are, and the one contract every forecaster keeps."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, Protocol, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
"""Numbers in double precision, but for usage of a whole fleet, which may be held in single."""
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatT = TypeVar("FloatT", np.float32, np.float64)
SampleT = TypeVar("SampleT", "np.floating[Any]", np.bool_)
Derived = TypeVar("Derived")
JsonValue = str | int | float | bool | None | Sequence["JsonValue"] | Mapping[str, "JsonValue"]

DEFAULT_LEVELS: tuple[float, ...] = (0.5, 0.9, 0.95, 0.99)
SECONDS_PER_DAY = 86_400
LONGEST_PAST_SECONDS = 28 * SECONDS_PER_DAY
"""No forecast depends on more past than this, so that serving need not read more."""
LEAST_SEEN = 0.5
"""The peak of a window is known if this share of its steps has a sample."""


class ForecastError(ValueError):
    """A history, horizon or state that no forecaster can work with; the message says which and why."""


@dataclass(frozen=True, slots=True)
class History:
    """The observed past of some series on one regular grid.

    `usage` is [series, steps] in the resource's base unit; NaN is "no sample", never zero.
    `end_seconds` is the epoch second at which the last step starts: the cutoff. A sample stands for the mean
    over its step.
    """

    usage: FloatArray
    end_seconds: int
    step_seconds: int
    is_bound: BoolArray | None = None
    """Where usage was cut off, so that demand was that or more, [series, steps]; None where it nowhere was."""
    _derived: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.usage.ndim != 2:
            raise ForecastError(f"usage must be [series, steps], got {self.usage.ndim} dimensions")
        if self.step_seconds <= 0:
            raise ForecastError(f"step_seconds must be positive, got {self.step_seconds}")
        if self.is_bound is not None and self.is_bound.shape != self.usage.shape:
            raise ForecastError(f"usage is {self.usage.shape}, but what of it is a bound {self.is_bound.shape}")

    @property
    def series_count(self) -> int:
        """How many series."""
        return int(self.usage.shape[0])

    @property
    def steps(self) -> int:
        """How many steps of past."""
        return int(self.usage.shape[1])

    @property
    def times(self) -> NDArray[np.int64]:
        """Epoch second at which each step starts, [steps]."""
        return self.end_seconds - self.step_seconds * np.arange(self.steps - 1, -1, -1, dtype=np.int64)

    def once(self, name: Hashable, make: "Callable[[], Derived]") -> "Derived":
        """What is derived from this history alone, made at the first call with the name and kept with it.

        What several forecasters need of one past is worked out once; nobody writes to it.
        """
        if name not in self._derived:
            self._derived[name] = make()
        return cast("Derived", self._derived[name])

    def until(self, cutoff_seconds: int) -> Self:
        """The same series as they were known at an earlier cutoff; nothing after it is reachable."""
        drop = (self.end_seconds - cutoff_seconds) // self.step_seconds
        if drop < 0:
            raise ForecastError(f"cutoff {cutoff_seconds} lies after the history's end {self.end_seconds}")
        keep = max(self.steps - drop, 0)
        return self._part((slice(None), slice(keep)), self.end_seconds - drop * self.step_seconds)

    def last(self, steps: int) -> Self:
        """The newest `steps` steps, or all where there are fewer."""
        if steps >= self.steps:
            return self
        return self._part((slice(None), slice(max(self.steps - steps, 0), None)), self.end_seconds)

    def select(self, rows: Sequence[int] | NDArray[np.intp]) -> Self:
        """Some of the series, in the order given and in double precision, whatever a fleet's usage is held in."""
        return self._part(np.asarray(rows, dtype=np.intp), self.end_seconds)

    def _part(self, place: NDArray[np.intp] | tuple[slice, slice], end_seconds: int) -> Self:
        is_bound = None if self.is_bound is None else self.is_bound[place]
        usage = self.usage[place]
        if not isinstance(place, tuple):
            usage = usage.astype(np.float64, copy=False)
        return type(self)(usage, end_seconds, self.step_seconds, is_bound)


@dataclass(frozen=True, slots=True)
class Target:
    """What is forecast of the next `steps` steps: usage in each of them, or the peak, the highest of them all.

    Either way a forecaster deals with outcomes: what usage of the steps up to some step came to. A peak is forecast as
    such, from past peaks of as many steps: the largest of the steps' own quantiles is less than the peak's quantile.
    """

    steps: int
    is_peak: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ForecastError(f"a forecast needs at least one step ahead, got {self.steps}")

    @property
    def ahead(self) -> NDArray[np.intp]:
        """How many steps ahead each outcome that is asked for ends: 1 to `steps`, or `steps` alone for a peak."""
        return np.arange(self.steps if self.is_peak else 1, self.steps + 1)

    def outcomes(self, usage: FloatArray) -> FloatArray:
        """The outcome that ends at each step, [series, steps]: usage itself, or the peak of the `steps` up to it.

        A peak is known where at least half of its window's steps have a sample; before the array there is none.
        """
        if not self.is_peak or self.steps == 1:
            return usage
        highest = _trailing_maximum(usage, self.steps)
        is_missing = np.isnan(usage)
        if is_missing.any():
            count = np.cumsum(~is_missing, axis=1, dtype=np.int32)
            seen = count.copy()
            seen[:, self.steps :] -= count[:, : -self.steps]
            highest[seen < self.steps * LEAST_SEEN] = np.nan
        highest[:, : math.ceil(self.steps * LEAST_SEEN) - 1] = np.nan
        return highest

    def past_outcomes(self, history: "History", steps: int) -> FloatArray:
        """The outcomes that ended in the newest `steps` steps of a history, [series, as many or all there are].

        Their windows may begin before those steps, but no more than four weeks back.
        """
        if not self.is_peak:
            return history.last(steps).usage
        longest = max(LONGEST_PAST_SECONDS // history.step_seconds, steps)
        known = history.once(("outcomes", self, longest), lambda: self.outcomes(history.last(longest).usage))
        return known[:, -steps:]

    def after(self, history: "History", cutoff_seconds: int) -> FloatArray:
        """What then happened: the outcomes asked for at a cutoff, [series, outcomes]; NaN where it is not known."""
        window = self._window(history.usage, history, cutoff_seconds, np.nan).astype(np.float64, copy=False)
        return self.outcomes(window)[:, self.ahead - 1]

    def bounds_after(self, history: "History", cutoff_seconds: int) -> BoolArray | None:
        """Which of these outcomes are only bounds of what was demanded, [series, outcomes]; None where none is.

        A peak is one if its highest usage is.
        """
        if history.is_bound is None:
            return None
        is_bound = self._window(history.is_bound, history, cutoff_seconds, False)
        if not self.is_peak:
            return is_bound
        usage = self._window(history.usage, history, cutoff_seconds, np.nan).astype(np.float64, copy=False)
        cut_off = np.where(is_bound, usage, np.nan)
        return np.asarray(np.fmax.reduce(cut_off, axis=1, keepdims=True) >= self.after(history, cutoff_seconds))

    def _window(
        self, values: NDArray[SampleT], history: "History", cutoff_seconds: int, missing: float | bool
    ) -> NDArray[SampleT]:
        """Of values like a history's usage those of the steps after a cutoff; `missing` beyond the history's end."""
        first = history.until(cutoff_seconds).steps
        window = values[:, first : first + self.steps]
        return np.pad(window, ((0, 0), (0, self.steps - window.shape[1])), constant_values=missing)


@dataclass(frozen=True, slots=True)
class QuantileForecast:
    """Quantiles of the outcomes of a target after a cutoff.

    `values` is [series, levels, outcomes] in the resource's base unit, finite, >= 0 and never crossing: along the
    levels axis each value is at least the one before.
    """

    levels: tuple[float, ...]
    values: FloatArray
    cutoff_seconds: int
    step_seconds: int
    target: Target

    @property
    def times(self) -> NDArray[np.int64]:
        """Epoch second at which the step starts that each outcome ends with, [outcomes]."""
        return self.cutoff_seconds + self.step_seconds * self.target.ahead.astype(np.int64)


@dataclass(frozen=True, slots=True)
class ForecasterState:
    """What a fitted forecaster knows, as data: JSON values, arrays and native model text. Never a pickle."""

    parameters: Mapping[str, JsonValue] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


class Forecaster(Protocol):
    """A method that forecasts.

    The constructor only stores its arguments; `fit` learns what is common to the series it sees (attributes
    ending in `_`) and returns itself; `predict` answers for any histories on the same grid, of series seen in
    `fit` or not, and looks at nothing but its arguments and what was learned. So fitting once and predicting
    from ever newer history is the same call online and offline.
    """

    name: ClassVar[str]

    def fit(self, history: History, target: Target) -> Self:
        """Learn from the series to forecast a target; one with nothing to learn returns itself unchanged."""
        ...

    def predict(self, history: History, target: Target, levels: Sequence[float]) -> QuantileForecast:
        """Quantiles of each outcome of the target for each series of `history`.

        A series whose history holds no sample at all is forecast as NaN throughout: it is the caller's task not to
        serve it. Raises ForecastError for levels outside (0, 1) or not ascending, and for a target of another kind
        than was fitted for.
        """
        ...

    def to_state(self) -> ForecasterState:
        """Everything that `from_state` needs to predict bit-identically."""
        ...

    @classmethod
    def from_state(cls, state: ForecasterState) -> Self:
        """The fitted forecaster back from its data. Raises ForecastError for a state it cannot be."""
        ...


class Empirical(ABC):
    """A forecaster that learns nothing across series: a dataclass whose fields are all that it knows.

    What a kind of it adds is `quantiles`; checks, order and state are the same for all, and where it has no answer,
    quantiles of the whole past stand in.
    """

    __slots__ = ()
    name: ClassVar[str]

    @abstractmethod
    def quantiles(self, history: History, target: Target, levels: FloatArray) -> FloatArray:
        """Quantiles [series, levels, outcomes] of what comes after the history, in any order and of any sign.

        NaN is "no answer". The array is the caller's to write to.
        """

    def fit(self, history: History, target: Target) -> Self:  # noqa: ARG002 - the contract's arguments
        """Nothing is learned: all that counts lies in the past that a forecast is made from."""
        return self

    def predict(self, history: History, target: Target, levels: Sequence[float]) -> QuantileForecast:
        """Quantiles of each outcome; see the contract."""
        asked = checked_levels(levels)
        made = monotone(completed(self.quantiles(history, target, asked), history, target, asked))
        return QuantileForecast(tuple(asked.tolist()), made, history.end_seconds, history.step_seconds, target)

    def to_state(self) -> ForecasterState:
        """The parameters."""
        return ForecasterState({each.name: getattr(self, each.name) for each in self._fields()})

    @classmethod
    def from_state(cls, state: ForecasterState) -> Self:
        """Back from the parameters."""
        return cls(**checked_parameters(cls.name, state, {each.name: type(each.default) for each in cls._fields()}))

    @classmethod
    def _fields(cls) -> "tuple[Field[Any], ...]":
        return fields(cls)  # type: ignore[arg-type]  # every kind is a dataclass


def completed(values: FloatArray, history: History, target: Target, levels: FloatArray) -> FloatArray:
    """The forecasts, with quantiles of the whole past where there is none: of outcomes, or of samples before any."""
    lacking = np.flatnonzero(np.isnan(values).any(axis=(1, 2)))
    if lacking.size:
        usage = history.usage[lacking]
        whole = row_quantiles(target.outcomes(usage), levels)
        whole = np.where(np.isnan(whole), row_quantiles(usage, levels), whole)[:, :, None]
        values[lacking] = np.where(np.isnan(values[lacking]), whole, values[lacking])
    return values


def checked_levels(levels: Sequence[float]) -> FloatArray:
    """The quantile levels as an ascending array inside (0, 1). Raises ForecastError otherwise."""
    array = np.asarray(levels, dtype=np.float64)
    if array.size == 0 or array.min() <= 0 or array.max() >= 1 or np.any(np.diff(array) <= 0):
        raise ForecastError(f"quantile levels must ascend inside (0, 1), got {list(levels)}")
    return array


def checked_parameters(name: str, state: ForecasterState, types: Mapping[str, type]) -> dict[str, Any]:
    """A state's parameters, exactly those named and of the types named. Raises ForecastError otherwise."""
    found = dict(state.parameters)
    if found.keys() != types.keys() or any(type(found[key]) is not kind for key, kind in types.items()):
        wanted = ", ".join(f"{key} ({kind.__name__})" for key, kind in types.items())
        raise ForecastError(f"this is no state of {name}: it has {found}, needed are {wanted}")
    return found


def monotone(values: FloatArray) -> FloatArray:
    """Quantiles [series, levels, steps] made non-crossing by sorting along the levels, and clipped at 0.

    Rearrangement never increases the pinball loss (Chernozhukov, Fernández-Val and Galichon 2010).
    """
    return np.maximum(np.sort(values, axis=1), 0.0)


def between_levels(
    values: FloatArray, fitted: Sequence[float] | FloatArray, levels: Sequence[float] | FloatArray
) -> FloatArray:
    """What is known at some levels (the last axis) at others: linear between the known ones, constant outside them."""
    known = np.asarray(fitted, dtype=np.float64)
    if len(known) == 1:
        return np.repeat(values, len(levels), axis=-1)
    above = np.clip(np.searchsorted(known, levels), 1, len(known) - 1)
    share = np.clip((np.asarray(levels) - known[above - 1]) / (known[above] - known[above - 1]), 0.0, 1.0)
    return np.asarray(values[..., above - 1] * (1 - share) + values[..., above] * share)


def row_quantiles(values: FloatArray, levels: FloatArray) -> FloatArray:
    """Quantiles of the samples in each row, [rows, levels], linear between order statistics; NaN is no sample.

    A row without any sample gives NaN. As `np.nanquantile(values, levels, axis=1).T`, without its loop over rows.
    """
    return sorted_quantiles(np.sort(values, axis=1), levels)


def sorted_quantiles(ordered: FloatArray, levels: FloatArray) -> FloatArray:
    """The same of rows that ascend, with NaN last."""
    rows, width = ordered.shape
    if width == 0:
        return np.full((rows, len(levels)), np.nan)
    count = np.sum(~np.isnan(ordered), axis=1, keepdims=True)
    position = np.maximum(count - 1, 0) * levels
    below = np.floor(position).astype(np.intp)
    above = np.minimum(below + 1, np.maximum(count - 1, 0))
    low = np.take_along_axis(ordered, below, axis=1)
    high = np.take_along_axis(ordered, above, axis=1)
    return np.asarray(low + (high - low) * (position - below), dtype=np.float64)


def carried_forward(values: "NDArray[FloatT]") -> "NDArray[FloatT]":
    """Each missing sample of [rows, steps] as the last before it; those before a row's first sample stay NaN."""
    filled = np.array(values, order="C")
    flat, width = filled.reshape(-1), values.shape[1]
    missing = np.flatnonzero(np.isnan(flat))
    if missing.size:
        begins = (np.diff(missing, prepend=-2) != 1) | (missing % width == 0)
        first = missing[np.maximum.accumulate(np.where(begins, np.arange(missing.size), 0))]
        is_inside = first % width > 0
        flat[missing[is_inside]] = flat[first[is_inside] - 1]
    return filled


def _trailing_maximum(values: FloatArray, steps: int) -> FloatArray:
    """The highest of the `steps` values up to each, [rows, columns], NaN being none; fewer at a row's beginning."""
    highest, reach = np.array(values), 1
    while reach < min(steps, values.shape[1]):
        # Two windows that reach so far, the one begun `lag` earlier, cover `lag` more.
        lag = min(reach, steps - reach)
        highest[:, lag:] = np.fmax(highest[:, lag:], highest[:, :-lag])
        reach += lag
    return highest


def last_samples(usage: FloatArray) -> FloatArray:
    """The newest sample of each row that is not NaN, [rows]; NaN for a row without any."""
    rows, width = usage.shape
    if width == 0:
        return np.full(rows, np.nan)
    newest = width - 1 - np.argmax(~np.isnan(usage)[:, ::-1], axis=1)
    return np.asarray(usage[np.arange(rows), newest], dtype=np.float64)
