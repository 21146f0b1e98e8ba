"""How good the forecasts that were really given turned out to be.

The tracker remembers each forecast until the usage it spoke of has been observed, then adds it to running sums.
It holds arrays only, asks nobody for the time, and its whole state is data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.forecast import FloatArray, JsonValue, QuantileForecast, checked_levels
from predictor.usage.panel import Resource, SeriesKey, UsagePanel

IntArray = NDArray[np.int64]
HORIZONS_SECONDS: tuple[int, ...] = (300, 1800, 3600, 14_400)
"""How far ahead forecasts are followed up: few, because each multiplies the number of time series exported."""
SUMS = ("scored", "unlabelled", "covered", "pinball_sum", "excess_sum", "shortfall_sum", "actual_sum")
PER_LEVEL = frozenset({"covered", "pinball_sum"})
COUNTS = frozenset({"scored", "unlabelled", "covered"})
PATIENCE_SECONDS = 3600
"""How long a sample may be late before its forecast is given up as never to be scored."""


class AccuracyError(ValueError):
    """Forecasts or a state that the tracker cannot take; the message says which and why."""


@dataclass(frozen=True, slots=True)
class AccuracyState:
    """Everything a tracker knows, as JSON values and arrays."""

    parameters: Mapping[str, JsonValue]
    arrays: Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Scores:
    """Sums over all forecasts scored so far; they only grow while a series is known.

    `scored`, `unlabelled` (given up: no sample came), `excess_sum` and `shortfall_sum` (what the forecast median
    was too high, too low: their difference is the bias, and both only grow) and `actual_sum` are
    [series, horizons]; `covered` (actual at or below the forecast) and `pinball_sum` are
    [series, levels, horizons]. Sums are in the resource's base unit.
    """

    keys: tuple[SeriesKey, ...]
    levels: tuple[float, ...]
    horizons_seconds: tuple[int, ...]
    scored: IntArray
    unlabelled: IntArray
    covered: IntArray
    pinball_sum: FloatArray
    excess_sum: FloatArray
    shortfall_sum: FloatArray
    actual_sum: FloatArray


@dataclass(slots=True)
class _Issued:
    """Forecasts made at one cutoff: which series, what was said, and what is still waiting for its actual."""

    slots: NDArray[np.intp]
    values: NDArray[np.float32]
    waiting: NDArray[np.bool_]


def followed_horizons(step_seconds: int, horizon_seconds: int) -> tuple[int, ...]:
    """Those of HORIZONS_SECONDS that fall on the grid and within the forecast; the first step where none does."""
    return tuple(h for h in HORIZONS_SECONDS if h % step_seconds == 0 and h <= horizon_seconds) or (step_seconds,)


class AccuracyTracker:
    """Scores forecasts once their actuals are observed, per series, quantile level and horizon.

    A forecast that was made again for the same cutoff counts once, as first said. One whose sample is missing is
    given up when newer samples are `patience_seconds` past it, and counted. A series that is no longer observed
    is forgotten, with its sums, when nothing of it waits any more; so memory is bounded by the series in sight.
    """

    def __init__(
        self,
        levels: Sequence[float],
        horizons_seconds: Sequence[int],
        step_seconds: int,
        patience_seconds: int = PATIENCE_SECONDS,
    ) -> None:
        off_grid = [h for h in horizons_seconds if h <= 0 or h % step_seconds]
        if off_grid or not horizons_seconds:
            raise AccuracyError(f"horizons must be positive multiples of {step_seconds} s, got {horizons_seconds}")
        self._level_column = checked_levels(levels)[None, :]
        self._levels = tuple(levels)
        self._horizons = tuple(sorted(horizons_seconds))
        self._step = step_seconds
        self._patience = patience_seconds
        self._pending: dict[int, _Issued] = {}
        self._keys: list[SeriesKey] = []
        self._slot_by_key: dict[SeriesKey, int] = {}
        self._sums = {name: self._zeros(name, 0) for name in SUMS}
        self._gone: dict[Resource, dict[str, NDArray[Any]]] = {}

    @property
    def waiting(self) -> int:
        """Forecasts (series × horizons × cutoffs) that are not scored yet."""
        return sum(int(issued.waiting.sum()) for issued in self._pending.values())

    @property
    def cutoffs(self) -> tuple[int, ...]:
        """Cutoffs whose forecasts are remembered, oldest first."""
        return tuple(sorted(self._pending))

    def issue(self, keys: Sequence[SeriesKey], forecast: QuantileForecast) -> None:
        """Remembers what was forecast for `keys` (the forecast's rows); a row with NaN is not a forecast.

        Horizons beyond the forecast's are left out. Raises AccuracyError for other levels or another grid.
        """
        if tuple(forecast.levels) != self._levels or forecast.step_seconds != self._step:
            raise AccuracyError(
                f"forecast has levels {forecast.levels} each {forecast.step_seconds} s; "
                f"the tracker follows {self._levels} each {self._step} s"
            )
        if len(keys) != forecast.values.shape[0]:
            raise AccuracyError(f"{len(keys)} series named, but {forecast.values.shape[0]} forecast")
        slots = np.asarray([self._slot(key) for key in keys], dtype=np.intp)
        issued = self._pending.get(forecast.cutoff_seconds)
        fresh = np.ones(len(keys), dtype=np.bool_)
        if issued is not None:
            fresh &= ~np.isin(slots, issued.slots)
        else:
            self._make_room()
        if not fresh.any():
            return
        values = np.full((int(fresh.sum()), len(self._levels), len(self._horizons)), np.nan, dtype=np.float32)
        for j, horizon in enumerate(self._horizons):
            if horizon // self._step <= forecast.target.steps:
                values[:, :, j] = forecast.values[fresh, :, horizon // self._step - 1]
        said: NDArray[np.bool_] = np.all(np.isfinite(values), axis=1)
        new = _Issued(slots[fresh], values, said)
        if issued is not None:
            new = _Issued(
                np.concatenate([issued.slots, new.slots]),
                np.concatenate([issued.values, new.values]),
                np.concatenate([issued.waiting, new.waiting]),
            )
        self._pending[forecast.cutoff_seconds] = new

    def observe(self, panel: UsagePanel) -> int:
        """Scores every waiting forecast whose step `panel` holds; returns how many were scored.

        Raises AccuracyError for a panel on another grid.
        """
        if panel.step_seconds != self._step:
            raise AccuracyError(f"panel has steps of {panel.step_seconds} s, the tracker {self._step} s")
        if panel.steps == 0:
            return 0
        row_by_slot = np.full(len(self._keys), -1, dtype=np.intp)
        for row, key in enumerate(panel.keys):
            slot = self._slot_by_key.get(key)
            if slot is not None:
                row_by_slot[slot] = row
        scored = 0
        for cutoff in self.cutoffs:
            issued = self._pending[cutoff]
            for j, horizon in enumerate(self._horizons):
                target = cutoff + horizon
                if target <= panel.end_seconds and issued.waiting[:, j].any():
                    actual = self._actual(panel, row_by_slot[issued.slots], target)
                    scored += self._close(issued, j, actual, panel.end_seconds - target >= self._patience)
            if not issued.waiting.any() and cutoff + self._horizons[-1] < panel.end_seconds:
                del self._pending[cutoff]
        self._forget(row_by_slot)
        return scored

    def said_for(self, target_seconds: int) -> FloatArray:
        """What was forecast for the step that starts at the target, [series, levels, horizons], in `scores` order.

        NaN where nothing was said that far ahead, or where it is forgotten: that the step was scored and a newer
        one observed.
        """
        said = np.full((len(self._keys), len(self._levels), len(self._horizons)), np.nan)
        for j, horizon in enumerate(self._horizons):
            issued = self._pending.get(target_seconds - horizon)
            if issued is not None:
                said[issued.slots, :, j] = issued.values[:, :, j]
        return said

    def scores(self) -> Scores:
        """The sums so far, as copies, for every series known."""
        n = len(self._keys)
        sums = {name: array[:n].copy() for name, array in self._sums.items()}
        return Scores(keys=tuple(self._keys), levels=self._levels, horizons_seconds=self._horizons, **sums)

    def totals(self) -> Scores:
        """The sums by resource over all series ever known, forgotten ones included; the workload's name is empty."""
        resources = sorted({key.resource for key in self._keys} | set(self._gone))
        rows = {r: [i for i, key in enumerate(self._keys) if key.resource == r] for r in resources}
        sums = {
            name: np.concatenate([self._zeros(name, 0), *(self._total(name, rows[r], r) for r in resources)])
            for name in SUMS
        }
        keys = tuple(SeriesKey("", r) for r in resources)
        return Scores(keys=keys, levels=self._levels, horizons_seconds=self._horizons, **sums)

    def to_state(self) -> AccuracyState:
        """Everything that `from_state` needs to go on exactly here."""
        cutoffs = self.cutoffs
        issued = [self._pending[c] for c in cutoffs]
        horizons, levels = len(self._horizons), len(self._levels)
        return AccuracyState(
            parameters={
                "levels": list(self._levels),
                "horizons_seconds": list(self._horizons),
                "step_seconds": self._step,
                "patience_seconds": self._patience,
            },
            arrays={
                "workloads": np.asarray([key.workload for key in self._keys], dtype=np.str_),
                "resources": np.asarray([key.resource.value for key in self._keys], dtype=np.str_),
                "cutoffs": np.repeat(np.asarray(cutoffs, dtype=np.int64), [len(i.slots) for i in issued]),
                "slots": np.concatenate([np.zeros(0, dtype=np.intp), *(i.slots for i in issued)]),
                "values": np.concatenate(
                    [np.zeros((0, levels, horizons), dtype=np.float32), *(i.values for i in issued)]
                ),
                "waiting": np.concatenate([np.zeros((0, horizons), dtype=np.bool_), *(i.waiting for i in issued)]),
                "gone": np.asarray([resource.value for resource in self._gone], dtype=np.str_),
                **{name: array[: len(self._keys)].copy() for name, array in self._sums.items()},
                **{
                    f"gone_{name}": np.concatenate(
                        [self._zeros(name, 0), *(sums[name] for sums in self._gone.values())]
                    )
                    for name in SUMS
                },
            },
        )

    @classmethod
    def from_state(cls, state: AccuracyState) -> Self:
        """The tracker back from its data. Raises AccuracyError for a state it cannot be."""
        try:
            tracker = cls(
                [float(v) for v in _numbers(state, "levels")],
                [int(v) for v in _numbers(state, "horizons_seconds")],
                int(_numbers(state, "step_seconds")[0]),
                int(_numbers(state, "patience_seconds")[0]),
            )
            arrays = state.arrays
            for workload, resource in zip(arrays["workloads"], arrays["resources"], strict=True):
                tracker._slot(SeriesKey(str(workload), Resource(str(resource))))
            n, shape = len(tracker._keys), (len(tracker._levels), len(tracker._horizons))
            for name, array in tracker._sums.items():
                array[:n] = arrays[name]
            for row, resource in enumerate(arrays["gone"]):
                tracker._gone[Resource(str(resource))] = {
                    name: arrays[f"gone_{name}"][row : row + 1].astype(tracker._sums[name].dtype) for name in SUMS
                }
            slots, cutoffs = arrays["slots"].astype(np.intp), arrays["cutoffs"].astype(np.int64)
            values = arrays["values"].astype(np.float32).reshape(len(slots), *shape)
            waiting = arrays["waiting"].astype(np.bool_).reshape(len(slots), shape[1])
            if len(slots) and (slots.min() < 0 or slots.max() >= n):
                raise AccuracyError("a waiting forecast belongs to no series")
            for cutoff in np.unique(cutoffs):
                mine = cutoffs == cutoff
                tracker._pending[int(cutoff)] = _Issued(slots[mine], values[mine], waiting[mine])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise AccuracyError(f"not the state of an accuracy tracker: {error}") from error
        return tracker

    def _actual(self, panel: UsagePanel, rows: NDArray[np.intp], target_seconds: int) -> FloatArray:
        """Usage of the rows in the step that starts at the target; NaN where there is no such row or step."""
        column, remainder = divmod(target_seconds - panel.start_seconds, self._step)
        if column < 0 or remainder:
            return np.full(len(rows), np.nan)
        return np.where(rows >= 0, panel.usage[rows, column], np.nan)

    def _close(self, issued: _Issued, horizon: int, actual: FloatArray, overdue: bool) -> int:
        """Adds the forecasts that have an actual to the sums; gives up the others if they are overdue."""
        waiting = issued.waiting[:, horizon]
        ready: NDArray[np.bool_] = waiting & np.isfinite(actual)
        slots, seen = issued.slots[ready], actual[ready, None]
        said = issued.values[ready, :, horizon].astype(np.float64)
        miss = seen - said
        self._sums["scored"][slots, horizon] += 1
        self._sums["covered"][slots, :, horizon] += miss <= 0
        self._sums["pinball_sum"][slots, :, horizon] += np.maximum(
            self._level_column * miss, (self._level_column - 1) * miss
        )
        median = int(np.argmin(np.abs(self._level_column[0] - 0.5)))
        self._sums["excess_sum"][slots, horizon] += np.maximum(-miss[:, median], 0.0)
        self._sums["shortfall_sum"][slots, horizon] += np.maximum(miss[:, median], 0.0)
        self._sums["actual_sum"][slots, horizon] += actual[ready]
        given_up = waiting & ~ready if overdue else np.zeros_like(waiting)
        self._sums["unlabelled"][issued.slots[given_up], horizon] += 1
        issued.waiting[:, horizon] &= ~(ready | given_up)
        return int(ready.sum())

    def _make_room(self) -> None:
        """Gives up the oldest cutoff where more wait than horizons and patience explain."""
        most = (self._horizons[-1] + self._patience) // self._step + 2
        while len(self._pending) >= most:
            issued = self._pending.pop(min(self._pending))
            np.add.at(self._sums["unlabelled"], issued.slots, issued.waiting)

    def _forget(self, row_by_slot: NDArray[np.intp]) -> None:
        """Releases the series that are out of sight and of which nothing waits."""
        keep = row_by_slot >= 0
        for issued in self._pending.values():
            keep[issued.slots] |= issued.waiting.any(axis=1)
        if keep.all():
            return
        moved = np.cumsum(keep) - 1
        for issued in self._pending.values():
            stays = keep[issued.slots]
            issued.slots = moved[issued.slots[stays]]
            issued.values, issued.waiting = issued.values[stays], issued.waiting[stays]
        kept, gone = np.flatnonzero(keep), np.flatnonzero(~keep)
        for slot in gone:
            of_resource = self._gone.setdefault(self._keys[slot].resource, {n: self._zeros(n, 1) for n in SUMS})
            for name, array in self._sums.items():
                of_resource[name] += array[slot : slot + 1]
        self._keys = [self._keys[i] for i in kept]
        self._slot_by_key = {key: i for i, key in enumerate(self._keys)}
        self._sums = {name: array[kept] for name, array in self._sums.items()}

    def _total(self, name: str, rows: Sequence[int], resource: Resource) -> NDArray[Any]:
        total: NDArray[Any] = self._sums[name][rows].sum(axis=0, keepdims=True)
        return total + self._gone[resource][name] if resource in self._gone else total

    def _zeros(self, name: str, series: int) -> NDArray[Any]:
        levels = (len(self._levels),) if name in PER_LEVEL else ()
        return np.zeros((series, *levels, len(self._horizons)), dtype=np.int64 if name in COUNTS else np.float64)

    def _slot(self, key: SeriesKey) -> int:
        slot = self._slot_by_key.get(key)
        if slot is None:
            slot = self._slot_by_key[key] = len(self._keys)
            self._keys.append(key)
            if slot >= len(self._sums["scored"]):
                self._sums = {
                    name: np.concatenate([array, self._zeros(name, max(64, len(array)))])
                    for name, array in self._sums.items()
                }
        return slot


def _numbers(state: AccuracyState, name: str) -> list[float]:
    value = state.parameters[name]
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return [float(v) for v in values if isinstance(v, int | float)]
