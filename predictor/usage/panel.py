"""Observed usage as arrays: what sources return and forecasters are fed. NumPy only, so the controller is slim."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from models.forecast import BoolArray, FloatArray, History
from predictor.errors import InvalidUsage, UnknownWorkload
from predictor.usage.bounds import BOUNDS, CUT_OFF, Marks, at_its_limit, was_cut_off
from predictor.usage.kin import Kin, joined_kin


class Resource(StrEnum):
    """What is used, in base units."""

    CPU = "cpu"
    """Cores."""
    MEMORY = "memory"
    """Bytes (working set)."""
    GPU = "gpu"
    """Fraction of one device, summed over devices."""
    GPU_MEMORY = "gpu_memory"
    """Bytes of device memory."""
    REQUESTS = "requests"
    """Requests per second."""
    CUSTOM = "custom"
    """What a query of somebody's own says, in no unit that is known here."""

    @property
    def unit(self) -> str:
        """The base unit, for a person."""
        return _UNITS[self.value]

    @property
    def is_held(self) -> bool:
        """Whether it is memory, which is held from step to step; all else is spent."""
        return self in (Resource.MEMORY, Resource.GPU_MEMORY)

    @property
    def cut_off_text(self) -> str:
        """What becomes of usage where more is demanded than given, for a person."""
        return f"{'cut off by an OOM kill' if self.is_held else 'throttled'} or held at its most replicas"


_UNITS = {
    "cpu": "cores",
    "memory": "bytes",
    "gpu": "devices",
    "gpu_memory": "bytes",
    "requests": "requests/s",
    "custom": "",
}


class SeriesKey(NamedTuple):
    """One series: a workload (`namespace/kind/name`, for example `shop/Deployment/cart`) and a resource."""

    workload: str
    resource: Resource

    @property
    def namespace(self) -> str:
        """The Kubernetes namespace; the whole name where it has no parts."""
        return self.workload.split("/", 1)[0]

    def __str__(self) -> str:
        return f"{self.workload} {self.resource.value}"


class Severity(StrEnum):
    """How much a finding matters."""

    NOTE = "note"
    """Worth knowing; the data were used as they are."""
    WARNING = "warning"
    """Some samples were left out or repaired; the series is used."""
    BROKEN = "broken"
    """The series cannot be used and was left out."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a reader of the data should know, for one workload or (with an empty name) for all of them."""

    workload: str
    resource: str
    severity: Severity
    message: str

    def __str__(self) -> str:
        where = " ".join(part for part in (self.workload, self.resource) if part) or "history"
        return f"{self.severity.value}: {where}: {self.message}"


ATTRIBUTES: tuple[str, ...] = ("request", "limit", "capacity", "replicas", CUT_OFF)
"""What a panel can hold beside usage, in the unit of the resource (`replicas` is a count, `cut_off` a share of the
step)."""


IS_BOUND, BY_SOURCE = 1, 2


@dataclass(frozen=True, slots=True)
class CutOff:
    """Where usage is only a bound of what was demanded, and where the source says so itself.

    Throttled, killed, or held at the most replicas.
    """

    marks: Marks | None
    """The sum of IS_BOUND and BY_SOURCE where they hold, [series, steps], other bits being others'; None for nowhere.

    One byte a step: flags by themselves would be as many again for each of them.
    """

    @property
    def is_bound(self) -> BoolArray | None:
        """Where usage is only a bound, [series, steps]; None where it nowhere is."""
        return self._where(IS_BOUND)

    @property
    def by_source(self) -> BoolArray | None:
        """Where the source says so, [series, steps]; None where it nowhere does."""
        return self._where(BY_SOURCE)

    def part(self, place: NDArray[np.intp] | tuple[slice, slice]) -> Self:
        """Some of the series, or some of the steps."""
        return type(self)(None if self.marks is None else self.marks[place])

    def _where(self, mark: int) -> BoolArray | None:
        if self.marks is None:
            return None
        found = (self.marks & mark) > 0
        return found if found.any() else None


@dataclass(frozen=True, slots=True)
class UsagePanel:
    """Usage of many series on one regular grid.

    `usage` and each array in `attributes` (a subset of ATTRIBUTES) are [series, steps]; NaN is "no sample" or
    "not known", never zero. `start_seconds` is the epoch second (UTC) at which the first step starts.
    `node_pool` maps a workload to the pool most of its pods ran in, `kin` to what it has in common with others, where
    the source knows.
    """

    keys: tuple[SeriesKey, ...]
    start_seconds: int
    step_seconds: int
    usage: FloatArray
    attributes: Mapping[str, FloatArray] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    node_pool: Mapping[str, str] = field(default_factory=dict)
    kin: Mapping[str, Kin] = field(default_factory=dict)
    newest: Mapping[str, FloatArray] = field(default_factory=dict)
    """The last known value of attributes that are not kept for every step, [series]; NaN where there never was one."""
    cut_off: CutOff | None = None
    """Where usage is only a bound, where that was found before the attributes that tell it were left out."""
    _bounds: list[BoolArray | None] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.usage.ndim != 2 or self.usage.shape[0] != len(self.keys):
            raise InvalidUsage(f"usage is {self.usage.shape}, but there are {len(self.keys)} series")
        for name, values in self.attributes.items():
            if name not in ATTRIBUTES:
                raise InvalidUsage(f"unknown attribute {name!r}; known: {', '.join(ATTRIBUTES)}")
            if values.shape != self.usage.shape:
                raise InvalidUsage(f"{name} is {values.shape}, but usage is {self.usage.shape}")
        if len(set(self.keys)) != len(self.keys):
            seen = sorted({str(k) for k in self.keys if self.keys.count(k) > 1})
            raise InvalidUsage(f"series given twice: {', '.join(seen[:5])}")

    @property
    def steps(self) -> int:
        """How many steps."""
        return int(self.usage.shape[1])

    @property
    def end_seconds(self) -> int:
        """Epoch second at which the last step starts."""
        return self.start_seconds + (self.steps - 1) * self.step_seconds

    @property
    def times(self) -> NDArray[np.int64]:
        """Epoch second at which each step starts, [steps]."""
        return self.start_seconds + self.step_seconds * np.arange(self.steps, dtype=np.int64)

    @property
    def workloads(self) -> tuple[str, ...]:
        """Workload names in order of first appearance."""
        return tuple(dict.fromkeys(key.workload for key in self.keys))

    def row(self, key: SeriesKey) -> int:
        """Where a series stands. Raises UnknownWorkload with the nearest names."""
        try:
            return self.keys.index(key)
        except ValueError:
            raise unknown_workload(str(key), [str(k) for k in self.keys]) from None

    def rows(self, resource: Resource) -> NDArray[np.intp]:
        """Where the series of one resource stand."""
        return np.asarray([i for i, key in enumerate(self.keys) if key.resource == resource], dtype=np.intp)

    def select(self, rows: Sequence[int] | NDArray[np.intp]) -> Self:
        """Some of the series, in the order given."""
        index = np.asarray(rows, dtype=np.intp)
        return replace(
            self,
            keys=tuple(self.keys[i] for i in index),
            usage=self.usage[index],
            attributes={name: values[index] for name, values in self.attributes.items()},
            newest={name: values[index] for name, values in self.newest.items()},
            cut_off=self.cut_off.part(index) if self.cut_off else None,
        )

    def between(self, start_seconds: int, end_seconds: int) -> Self:
        """The steps that start in [start, end]; a bound outside the panel is moved to its edge."""
        first = max(0, -(-(start_seconds - self.start_seconds) // self.step_seconds))
        last = min(self.steps - 1, (end_seconds - self.start_seconds) // self.step_seconds)
        stop = max(last + 1, first)
        return replace(
            self,
            start_seconds=self.start_seconds + first * self.step_seconds,
            usage=self.usage[:, first:stop],
            attributes={name: values[:, first:stop] for name, values in self.attributes.items()},
            cut_off=self.cut_off.part((slice(None), slice(first, stop))) if self.cut_off else None,
        )

    def followed_by(self, later: Self) -> Self:
        """This panel and a later one as one: the series of either in the order of their names, the later's findings.

        What both say of a step is the later's. Raises InvalidUsage for panels whose grids do not meet.
        """
        shift = later.start_seconds - self.start_seconds
        if later.step_seconds != self.step_seconds or shift % self.step_seconds or shift < 0:
            raise InvalidUsage(
                f"usage on steps of {later.step_seconds} s from {later.start_seconds} does not continue usage on steps "
                f"of {self.step_seconds} s from {self.start_seconds}"
            )
        keys = tuple(sorted({*self.keys, *later.keys}))
        place = {key: row for row, key in enumerate(keys)}
        old_rows, new_rows = ([place[key] for key in panel.keys] for panel in (self, later))
        first = shift // self.step_seconds
        shape = (len(keys), max(self.steps, first + later.steps))

        def joined(old: FloatArray | None, new: FloatArray | None) -> FloatArray:
            kept = [each.dtype for each in (old, new) if each is not None]
            values = np.full(shape, np.nan, np.result_type(*kept))
            if old is not None:
                values[old_rows, : self.steps] = old
            if new is not None:
                values[new_rows, first : first + later.steps] = new
            return values

        cut_off = None
        if self.cut_off is not None or later.cut_off is not None:
            old_marks, new_marks = self._cut_off().marks, later._cut_off().marks
            marks = None
            if old_marks is not None or new_marks is not None:
                marks = np.zeros(shape, dtype=np.uint8)
                if old_marks is not None:
                    marks[old_rows, : self.steps] = old_marks
                marks[new_rows, first : first + later.steps] = 0 if new_marks is None else new_marks
            cut_off = CutOff(marks)
        names = dict.fromkeys((*self.attributes, *later.attributes))
        return replace(
            later,
            keys=keys,
            start_seconds=self.start_seconds,
            usage=joined(self.usage, later.usage),
            attributes={name: joined(self.attributes.get(name), later.attributes.get(name)) for name in names},
            node_pool={**self.node_pool, **later.node_pool},
            kin=joined_kin(self.kin, later.kin, {key.workload for key in keys}),
            newest={
                name: _newer(len(keys), (old_rows, self.newest.get(name)), (new_rows, later.newest.get(name)))
                for name in dict.fromkeys((*self.newest, *later.newest))
            },
            cut_off=cut_off,
        )

    def beside(self, other: Self) -> Self:
        """This panel and another on the same grid as one, with the findings of both; where both say something of a
        step, the other does."""
        return replace(self.followed_by(other), findings=(*self.findings, *other.findings))

    def bare(self) -> Self:
        """Only what forecasts are made from: usage, what bounds it, and whose record it may lean on."""
        bounds = {name: values for name, values in self.attributes.items() if name in (*BOUNDS, CUT_OFF)}
        return replace(self, attributes=bounds, findings=(), node_pool={})

    def slim(self) -> Self:
        """What serving needs of a whole fleet, in little memory: usage in single precision, where it was cut off, and
        of all else that is known for every step the newest value.
        """
        return replace(
            self,
            usage=self.usage.astype(np.float32, copy=False),
            attributes={},
            newest={
                **self.newest,
                # That a step was cut off says nothing of the next.
                **{name: newest(values) for name, values in self.attributes.items() if name != CUT_OFF},
            },
            cut_off=self._cut_off(),
        )

    def _cut_off(self) -> CutOff:
        """Where usage is only a bound, in little memory."""
        if self.cut_off is not None:
            return self.cut_off
        marks = None
        for where, mark in ((self.is_bound, IS_BOUND), (self.was_cut_off, BY_SOURCE)):
            if where is not None:
                marks = np.zeros(where.shape, dtype=np.uint8) if marks is None else marks
                marks |= where * np.uint8(mark)
        return CutOff(marks)

    def history(self) -> History:
        """Usage as forecasters take it, with where it was cut off; rows in the order of `keys`."""
        return History(self.usage, self.end_seconds, self.step_seconds, self.is_bound)

    @property
    def is_bound(self) -> BoolArray | None:
        """Which usage was cut off by a limit, by capacity or by a kill, [series, steps]; None where none was.

        Looked for once.
        """
        if self.cut_off is not None:
            return self.cut_off.is_bound
        if not self._bounds:
            bounds = [self.attributes[name] for name in BOUNDS if name in self.attributes]
            self._bounds.append(at_its_limit(self.usage, bounds, self.step_seconds, self.was_cut_off))
        return self._bounds[0]

    def bounds_in_words(self, steps: int) -> list[tuple[int, str]]:
        """For each series in how many of the newest steps usage is only a bound, and what cut it off, for a person."""
        newest = (slice(None), slice(-steps, None))
        if self.cut_off is not None:
            cut_off = self.cut_off.part(newest)
            is_bound, by_source = cut_off.is_bound, cut_off.by_source
        else:
            is_bound, by_source = (None if each is None else each[newest] for each in (self.is_bound, self.was_cut_off))
        if is_bound is None:
            return [(0, "")] * len(self.keys)
        told = np.zeros_like(is_bound) if by_source is None else is_bound & by_source
        words = []
        for key, own, by_source in zip(self.keys, is_bound, told, strict=True):
            causes = {"at its limit": own & ~by_source, key.resource.cut_off_text: by_source}
            words.append(" or ".join(cause for cause, steps in causes.items() if steps.any()))
        return list(zip(is_bound.sum(axis=1).tolist(), words, strict=True))

    @property
    def was_cut_off(self) -> BoolArray | None:
        """Where the source says so itself (see CutOff), [series, steps]; None if nowhere."""
        if self.cut_off is not None:
            return self.cut_off.by_source
        if CUT_OFF not in self.attributes:
            return None
        is_held = np.asarray([key.resource.is_held for key in self.keys], dtype=np.bool_)
        found = was_cut_off(self.attributes[CUT_OFF], is_held)
        return found if found.any() else None


def _newer(count: int, *known: tuple[Sequence[int], FloatArray | None]) -> FloatArray:
    """One value for each of `count` series from those that some of them have, the last that is given and known."""
    values = np.full(count, np.nan)
    for rows, own in known:
        if own is not None:
            values[rows] = np.where(np.isnan(own), values[rows], own)
    return values


def newest(values: FloatArray) -> FloatArray:
    """The last known value of each row of [rows, steps], NaN where none is; what is [rows] is that already."""
    if values.ndim == 1:
        return values
    known = ~np.isnan(values)
    last = values.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
    return np.asarray(np.where(known.any(axis=1), values[np.arange(len(values)), last], np.nan), dtype=np.float64)


def unknown_workload(name: str, known: Iterable[str], where: str = "") -> UnknownWorkload:
    """The error for a name that nothing is known under, with the nearest names that are, and where was looked."""
    from difflib import get_close_matches

    names = sorted(set(known))
    near = get_close_matches(name, names, n=3, cutoff=0.4) or names[:3]
    hint = f"; did you mean {', '.join(near)}?" if near else "; the history holds no workload at all"
    return UnknownWorkload(f"unknown workload {name!r} ({len(names)} known{' ' + where if where else ''}){hint}")
