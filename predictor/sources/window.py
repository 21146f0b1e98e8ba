"""The window of usage that a service forecasts from: appended to at every step instead of read whole.

The first read goes part by part from the oldest on, and what was read is kept though a later part fails. From then on
a step asks for what is new and for the `LATE_STEPS` before, and once an hour for the last `SETTLED_SECONDS`, as samples
come late through Thanos or remote write. What is returned is to the bit what a whole read, made slim, would be:

- Usage is held as it was read. Artefacts, which take the whole window to tell, are looked for anew in every step.
- Of what bounds usage the marks of each sample are held, which is all that looking back a day takes.
- Of what is asked for, and of replicas, the newest value is held. One that the store takes back is taken to have been
  the same in the step before those that were read anew.
"""

import math
import time
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.forecast import FloatArray
from predictor.errors import SourceUnavailable
from predictor.serving.ports import Progress
from predictor.sources.assembly import (
    ANSWER_WITH,
    Answers,
    Part,
    Service,
    kin_of,
    left_out_findings,
    most_common_pool,
    remarks,
    requests_to,
    was_held_back,
    workloads_behind,
)
from predictor.sources.matrix import Labels, Matrix
from predictor.sources.prometheus import DAY, SETTLED_SECONDS, Grid, PrometheusSource, checked_grid
from predictor.sources.promql import METRICS
from predictor.usage.bounds import ABOVE, BOUNDED, HIGH, Marks, limit_marks, limited, was_cut_off
from predictor.usage.panel import BY_SOURCE, IS_BOUND, CutOff, Finding, Resource, SeriesKey, Severity, UsagePanel
from predictor.usage.table import checked_usage, largest_capacity

LATE_STEPS = 3
"""So many steps before the new ones are read again every time."""
SETTLE_SECONDS = 3600
"""So often the last `SETTLED_SECONDS` are read again."""
PART_SAMPLES = 4_000_000
"""About so many samples are read at once, at most a day and at least an hour: what is read takes many times the memory
of what is kept."""
FIRST_PART_SECONDS = 3600
"""The first part is short: it tells how many series there are."""
LEFT_OUT = 32
"""Mark of a step that holds no sample because only some of the running pods were measured."""
IDLE = 1
"""Mark of a workload's step in which it is known to have no replicas."""
PARTIAL: Mapping[str, int] = {"containers": 2, "gpus": 4}
"""Marks of those of them in which too many running pods were not measured, by the name of the answer that tells."""
KIN_ANSWERS = ("images", "owners")
ORDER = ("replicas", "containers", "asked", "gpus", "requests", "pods by pool", *KIN_ANSWERS)
"""In which order a whole read tells what Prometheus remarked on its answers."""

Key = TypeVar("Key", bound=Hashable)


class UsageWindow:
    """A UsageSource over Prometheus for who asks again and again, each time for a window that moved on.

    It is read whole again when the clock goes back, when the grid or the span of the window changes, and when a
    resource is asked for that is not held. Not to be used by several threads at once; panels that were returned stay as
    they are.
    """

    def __init__(self, source: PrometheusSource, part_samples: int = PART_SAMPLES) -> None:
        self._source = source
        self._part_samples = part_samples
        self._shares = 1
        """Into so many a part is cut, after reads that failed."""
        self._held: _Held | None = None

    def fetch(
        self,
        *,
        start_seconds: int,
        end_seconds: int,
        step_seconds: int,
        resources: Collection[Resource] = tuple(Resource),
        progress: Progress | None = None,
    ) -> UsagePanel:
        """As `UsageSource.fetch` promises, slim. What was read is kept when it fails, and the next call goes on there.

        The endpoint's deadline is for all that one call reads: a first read that takes longer is continued by the next.
        """
        grid = checked_grid(start_seconds, end_seconds, step_seconds)
        wanted = [resource for resource in METRICS if resource in resources]
        if self._held is not None and not self._held.continues(grid, wanted):
            self._held = None
        held = self._held or _Held(grid, wanted)
        is_moved = False
        endpoint = self._source.endpoint
        deadline = time.monotonic() + endpoint.deadline_seconds
        begin_seconds, is_settling = held.read_from(grid)
        stop_seconds = min(grid.end_seconds, _last_over(grid, int(time.time()))) + step_seconds
        at_seconds = begin_seconds
        while at_seconds < stop_seconds:
            if at_seconds > begin_seconds and time.monotonic() + endpoint.timeout_seconds > deadline:
                raise SourceUnavailable(_too_long(grid, at_seconds, endpoint.deadline_seconds))
            part, by_days = held.next_part(at_seconds, stop_seconds, self._part_samples // self._shares)
            is_last = part.end_seconds + step_seconds >= stop_seconds
            try:
                made, answers = self._source.fetch_part(
                    part,
                    held.resources,
                    known=list(held.told),
                    pods=_pods_in(grid, part),
                    kin=grid.newest(int(time.time())) if is_last else None,
                    deadline=deadline,
                    with_cache=by_days,
                )
            except SourceUnavailable:
                # A store that is too slow for so much at once may not be for less.
                self._shares = min(2 * self._shares, self._part_samples)
                raise
            # Only now, as a read that fails is to leave the window as it was.
            if not is_moved:
                held, is_moved = held.moved(grid), True
                self._held = held
            held.put(part, made, answers)
            at_seconds = part.end_seconds + step_seconds
            if progress is not None:
                progress(at_seconds - begin_seconds, stop_seconds - begin_seconds)
        if not is_moved:
            held = self._held = held.moved(grid)
        self._shares = 1
        if is_settling:
            held.settled_at_seconds = grid.end_seconds
        return held.panel(self._source, grid, wanted)


@dataclass
class _Newest(Generic[Key]):
    """The last known value of each key, and the start of the step that it is of."""

    known: dict[Key, tuple[float, int]] = field(default_factory=dict)

    def put(self, keys: Sequence[Key], values: FloatArray, grid: Grid) -> None:
        """What the steps of a grid say, [keys, steps]."""
        if not keys:
            return
        is_known = ~np.isnan(values)
        last = values.shape[1] - 1 - np.argmax(is_known[:, ::-1], axis=1)
        newest = values[np.arange(len(keys)), last].tolist()
        at = (grid.start_seconds + last * grid.step_seconds).tolist()
        for key, value, seconds in zip(keys, newest, at, strict=True):
            if not math.isnan(value):
                self.known[key] = value, seconds
            elif (held := self.known.get(key)) is not None and grid.start_seconds <= held[1] <= grid.end_seconds:
                self.known[key] = held[0], grid.start_seconds - grid.step_seconds

    def since(self, start_seconds: int) -> "_Newest[Key]":
        """Without what is older."""
        return _Newest({key: each for key, each in self.known.items() if each[1] >= start_seconds})

    def values(self, keys: Sequence[Key]) -> FloatArray:
        """Of each key, NaN where there is none."""
        unknown = (np.nan, 0)
        return np.asarray([self.known.get(key, unknown)[0] for key in keys], dtype=np.float64)


class _Held:
    """What is kept of a window. Rows of the two large arrays stand in the order of `keys`, with room for more."""

    def __init__(self, grid: Grid, resources: Sequence[Resource], rows: int = 0) -> None:
        self.grid = grid
        self.resources = tuple(resources)
        self.until_seconds = grid.start_seconds
        """Start of the first step that was never read."""
        self.settled_at_seconds: int | None = None
        """End of the window when its newest part was last read again."""
        self.samples_per_step = 0
        """Of the last part that was read; 0 is not known yet."""
        self.keys: list[SeriesKey] = []
        self.rows: dict[SeriesKey, int] = {}
        room = rows + rows // 8 + 16
        self.usage = np.empty((room, grid.steps), dtype=np.float32)
        self.marks: Marks | None = None
        """IS_BOUND, BY_SOURCE, HIGH, ABOVE, BOUNDED and LEFT_OUT; None where there is none of them."""
        self.mended: dict[SeriesKey, tuple[NDArray[np.int64], NDArray[np.float32]]] = {}
        """Samples that are not in `usage` as they cannot be usage: the starts of their steps, and what was read."""
        self.told: dict[SeriesKey, int] = {}
        """Start of the newest step in which each series but requests had a sample."""
        self.newest: dict[str, _Newest[SeriesKey]] = {name: _Newest() for name in ("request", "limit", "capacity")}
        self.replicas: _Newest[str] = _Newest()
        self.idle: dict[str, Marks] = {}
        """IDLE and PARTIAL of workloads that were idle, [steps]: a series that begins later was 0 then."""
        self.capacity: dict[SeriesKey, FloatArray] = {}
        """[steps], as spikes are told by the largest of them."""
        self.services: dict[Service, NDArray[np.float32]] = {}
        self.at_maximum: dict[str, Marks] = {}
        """1 in the steps in which a workload's autoscaler wanted more than its most replicas, [steps]."""
        self.running: dict[str, int] = {}
        """By the name of an answer, start of the newest step in which pods were known to run."""
        self.pods_grid = grid.coarse()
        self.pods: dict[Labels, NDArray[np.float32]] = {}
        self.kin: dict[str, Matrix] = {}
        self.remarks: dict[Finding, int] = {}
        """What Prometheus said of its answers, and the end of the part that it last said so of."""
        self.absent: tuple[tuple[Resource, ...], tuple[Finding, ...]] = ((), ())

    def continues(self, grid: Grid, resources: Collection[Resource]) -> bool:
        """Whether a window can be had from this one by moving on."""
        return (
            set(resources) <= set(self.resources)
            and grid.step_seconds == self.grid.step_seconds
            and grid.coarse().step_seconds == self.pods_grid.step_seconds
            and (grid.start_seconds - self.grid.start_seconds) % grid.step_seconds == 0
            and self.grid.start_seconds <= grid.start_seconds <= self.until_seconds
            and self.grid.end_seconds <= grid.end_seconds
        )

    def read_from(self, grid: Grid) -> tuple[int, bool]:
        """Start of the first step to read, and whether that is all that may still change."""
        step = grid.step_seconds
        begin = self.until_seconds - LATE_STEPS * step
        settled_at = self.settled_at_seconds
        is_due = settled_at is None or grid.end_seconds - settled_at >= SETTLE_SECONDS
        if is_due:
            begin = min(begin, grid.end_seconds - -(-SETTLED_SECONDS // step) * step + step)
        return max(begin, grid.start_seconds), is_due

    def next_part(self, at_seconds: int, stop_seconds: int, part_samples: int) -> tuple[Grid, bool]:
        """The next steps to read, and whether they are cut by days, so that whole ones are kept on disk."""
        step = self.grid.step_seconds
        if not self.samples_per_step:
            seconds = FIRST_PART_SECONDS
        else:
            seconds = max(part_samples // self.samples_per_step * step, FIRST_PART_SECONDS)
        # More than is read again, so that every part brings something new.
        stop, by_days = at_seconds + max(seconds // step, LATE_STEPS + 1) * step, seconds >= DAY
        if by_days:
            midnight = ((at_seconds + LATE_STEPS * step) // DAY + 1) * DAY
            stop = at_seconds + -(-(midnight - at_seconds) // step) * step
        return Grid(at_seconds, min(stop, stop_seconds) - step, step), by_days

    def moved(self, grid: Grid) -> "_Held":
        """A copy for a later window, in arrays of its own, without the series that are gone."""
        step, start = grid.step_seconds, grid.start_seconds
        shift = (start - self.grid.start_seconds) // step
        kept = [key for key in self.keys if self.told.get(key, -1) >= start]
        made = _Held(grid, self.resources, len(self.keys))
        made.until_seconds, made.settled_at_seconds = self.until_seconds, self.settled_at_seconds
        made.samples_per_step, made.absent = self.samples_per_step, self.absent
        made._add(kept)
        common = max(self.grid.steps - shift, 0)
        for row, key in enumerate(kept):
            made.usage[row, :common] = self.usage[self.rows[key], shift:]
            made.usage[row, common:] = np.nan
        if self.marks is not None:
            made.marks = np.zeros(made.usage.shape, dtype=np.uint8)
            for row, key in enumerate(kept):
                made.marks[row, :common] = self.marks[self.rows[key], shift:]
        for key, (seconds, raw) in self.mended.items():
            if key in made.rows:
                is_in = seconds >= start
                made.usage[made.rows[key], (seconds[is_in] - start) // step] = raw[is_in]
        made.told = {key: self.told[key] for key in kept}
        made.newest = {name: each.since(start) for name, each in self.newest.items()}
        made.replicas = self.replicas.since(start)
        made.idle = _shifted(self.idle, shift, grid.steps, 0)
        made.capacity = {
            key: each for key, each in _shifted(self.capacity, shift, grid.steps, np.nan).items() if key in made.rows
        }
        made.services = _shifted(self.services, shift, grid.steps, np.nan)
        made.at_maximum = _shifted(self.at_maximum, shift, grid.steps, 0)
        made.running = self.running
        pods_shift = (made.pods_grid.start_seconds - self.pods_grid.start_seconds) // made.pods_grid.step_seconds
        made.pods = _shifted(self.pods, pods_shift, made.pods_grid.steps, np.nan)
        made.kin = self.kin
        made.remarks = {said: at for said, at in self.remarks.items() if at >= start}
        return made

    def put(self, grid: Grid, part: Part, answers: Answers) -> None:
        """What was read of some steps, in the place of what was known of them."""
        step = grid.step_seconds
        first = (grid.start_seconds - self.grid.start_seconds) // step
        columns = slice(first, first + part.steps)
        self._put_idle(part, columns)
        self._add([key for key, at in zip(part.keys, part.newest_told.tolist(), strict=True) if at >= 0])
        is_held = np.asarray([key in self.rows for key in part.keys], dtype=np.bool_)
        rows = np.asarray([self.rows[key] for key in part.keys if key in self.rows], dtype=np.intp)
        self.usage[rows, columns] = part.usage[is_held]
        marks = _marks(part)[is_held]
        if self.marks is None and marks.any():
            self.marks = np.zeros(self.usage.shape, dtype=np.uint8)
        if self.marks is not None:
            self.marks[rows, columns] = marks
        for key, at in zip(part.keys, part.newest_told.tolist(), strict=True):
            if at >= 0:
                self.told[key] = max(self.told.get(key, 0), grid.start_seconds + at * step)
        for name, values in (("request", part.request), ("limit", part.limit), ("capacity", part.capacity)):
            self.newest[name].put(part.keys, values, grid)
        for key, values in zip(part.keys, part.capacity, strict=True):
            if key in self.capacity or not np.isnan(values).all():
                self.capacity.setdefault(key, np.full(self.grid.steps, np.nan))[columns] = values
        _put(self.services, part.services, columns, self.grid.steps)
        for name in {*self.at_maximum, *part.at_maximum}:
            held = self.at_maximum.setdefault(name, np.zeros(self.grid.steps, dtype=np.uint8))
            held[columns] = part.at_maximum.get(name, False)
        names = list({**self.replicas.known, **part.replicas})
        unknown = np.full(part.steps, np.nan)
        self.replicas.put(
            names, np.stack([part.replicas.get(name, unknown) for name in names]) if names else unknown[None], grid
        )
        for name, pods in part.running.items():
            if (known := np.flatnonzero(~np.isnan(pods))).size:
                self.running[name] = max(self.running.get(name, 0), grid.start_seconds + int(known[-1]) * step)
        self._put_pods(grid, answers)
        self._put_remarks(grid, answers)
        self.kin |= {name: answers[name] for name in KIN_ANSWERS if name in answers}
        series = sum(len(answers[name].labels) for name in answers if name in ORDER[:5])
        self.samples_per_step = max(series, 1)
        self.until_seconds = max(self.until_seconds, grid.end_seconds + step)

    def panel(self, source: PrometheusSource, grid: Grid, wanted: Sequence[Resource]) -> UsagePanel:
        """The window as a slim panel, over these arrays."""
        told = sorted(key for key in self.told if key.resource in wanted)
        has_series = {key.resource for key in told} | ({Resource.REQUESTS} if self.services else set())
        absent = tuple(resource for resource in wanted if resource not in has_series)
        if list(absent) == list(wanted):
            raise source.nothing_of(wanted, grid)
        if self.absent[0] != absent or self.settled_at_seconds == grid.end_seconds:
            self.absent = absent, tuple(source.absent(absent, grid))
        findings = self._put_requests(source, told) if Resource.REQUESTS in wanted else []
        keys = sorted(key for key in self.keys if key.resource in wanted)
        counts = [(key, self._count_left_out(key)) for key in told]
        findings += left_out_findings(
            counts, {name: self.running.get(name, -1) >= grid.start_seconds for name in PARTIAL}
        )
        said = sorted(
            self.remarks, key=lambda each: (ORDER.index(each.resource), each.severity is Severity.NOTE, each.message)
        )
        findings += [*self.absent[1], *said, *source.cache_problem()]
        kept = []
        for key in keys:
            is_usable, found = self._check(key)
            findings += found
            if is_usable:
                kept.append(key)
        self._arrange(kept)
        workloads = {key.workload for key in keys}
        return UsagePanel(
            tuple(kept),
            grid.start_seconds,
            grid.step_seconds,
            self.usage[: len(kept)],
            findings=tuple(findings),
            node_pool=most_common_pool(self.pods.items(), workloads),
            kin=kin_of(self.kin, workloads),
            newest=self._newest_of(keys, kept),
            cut_off=CutOff(self._marks_of(len(kept))),
        )

    def _add(self, keys: Sequence[SeriesKey]) -> None:
        """Rows for series that have none yet, with what is known of them: that they were idle."""
        added = [key for key in keys if key not in self.rows]
        first, rows = len(self.keys), len(self.keys) + len(added)
        if rows > len(self.usage):
            room = np.empty((rows + rows // 2 - len(self.usage), self.grid.steps), dtype=np.float32)
            self.usage = np.concatenate([self.usage, room])
            if self.marks is not None:
                marks = np.zeros(self.usage.shape, dtype=np.uint8)
                marks[: len(self.marks)] = self.marks
                self.marks = marks
        for row, key in enumerate(added, start=first):
            self.keys.append(key)
            self.rows[key] = row
            self.usage[row] = np.nan
            idle = self.idle.get(key.workload)
            if idle is None or key.resource is Resource.REQUESTS:
                continue
            was_idle, is_partial = (idle & IDLE) > 0, (idle & PARTIAL[ANSWER_WITH[key.resource]]) > 0
            self.usage[row, was_idle & ~is_partial] = 0.0
            if (was_idle & is_partial).any():
                self.marks = np.zeros(self.usage.shape, dtype=np.uint8) if self.marks is None else self.marks
                self.marks[row, was_idle & is_partial] = LEFT_OUT

    def _put_idle(self, part: Part, columns: slice) -> None:
        nowhere = np.zeros(part.steps, dtype=np.uint8)
        for workload in {*self.idle, *part.replicas}:
            replicas = part.replicas.get(workload)
            is_idle = replicas == 0 if replicas is not None else nowhere.astype(np.bool_)
            if workload not in self.idle and not is_idle.any():
                continue
            marks = np.where(is_idle, IDLE, 0).astype(np.uint8)
            for name, of_workloads in part.partial.items():
                if workload in of_workloads:
                    marks[is_idle & of_workloads[workload]] |= PARTIAL[name]
            self.idle.setdefault(workload, np.zeros(self.grid.steps, dtype=np.uint8))[columns] = marks

    def _put_pods(self, grid: Grid, answers: Answers) -> None:
        asked = _pods_in(self.grid, grid)
        if asked is None:
            return
        first = (asked.start_seconds - self.pods_grid.start_seconds) // asked.step_seconds
        _put(self.pods, dict(answers["pods by pool"].rows()), slice(first, first + asked.steps), self.pods_grid.steps)

    def _put_remarks(self, grid: Grid, answers: Answers) -> None:
        # A whole read asks for these once.
        again = {name for name in KIN_ANSWERS if name in answers}
        self.remarks = {said: at for said, at in self.remarks.items() if said.resource not in again}
        self.remarks |= dict.fromkeys(remarks(answers), grid.end_seconds)

    def _put_requests(self, source: PrometheusSource, told: Sequence[SeriesKey]) -> list[Finding]:
        """Rows of requests per second, made anew of what Services say; and what is to be said of these."""
        known = {key.workload for key in told} | set(self.replicas.known)
        behind, findings = workloads_behind(self.services, known, source.service_workloads)
        self._add([SeriesKey(workload, Resource.REQUESTS) for workload in behind])
        for workload, services in behind.items():
            row = self.rows[SeriesKey(workload, Resource.REQUESTS)]
            usage = requests_to(services, self.services)
            self.usage[row] = usage
            if self.marks is not None:
                self.marks[row] = 0
            if workload not in self.at_maximum:
                continue
            if self.marks is None:
                self.marks = np.zeros(self.usage.shape, dtype=np.uint8)
            self.marks[row] = was_held_back(usage, self.at_maximum[workload] > 0) * np.uint8(BY_SOURCE)
        return findings

    def _count_left_out(self, key: SeriesKey) -> int:
        return 0 if self.marks is None else int(((self.marks[self.rows[key]] & LEFT_OUT) > 0).sum())

    def _check(self, key: SeriesKey) -> tuple[bool, tuple[Finding, ...]]:
        """Whether a series can be used, and what was found; puts aside what cannot be usage, and marks bounds."""
        row, step = self.rows[key], self.grid.step_seconds
        values = self.usage[row].astype(np.float64)
        capacity = largest_capacity(self.capacity[key]) if key in self.capacity else None
        checked = checked_usage(key, values, capacity, step)
        if not checked.is_usable:
            return False, checked.findings
        is_artefact = checked.left_out.any()
        if is_artefact:
            columns = np.flatnonzero(checked.left_out)
            self.mended[key] = self.grid.start_seconds + columns * step, self.usage[row, columns]
            self.usage[row, columns] = np.nan
        marks = None if self.marks is None else self.marks[row]
        if marks is not None and (marks & (HIGH | BY_SOURCE)).any():
            by_itself = np.where(checked.left_out, marks & ~np.uint8(HIGH | ABOVE | BOUNDED), marks)
            is_bound = ((marks & BY_SOURCE) > 0) & ~np.isnan(self.usage[row])
            if (at_limit := limited(by_itself, step)) is not None:
                is_bound |= at_limit
            marks[:] = (marks & ~np.uint8(IS_BOUND)) | is_bound * np.uint8(IS_BOUND)
        return True, checked.findings

    def _arrange(self, kept: Sequence[SeriesKey]) -> None:
        """Puts the rows of these series first, in their order."""
        first = set(kept)
        keys = [*kept, *(key for key in self.keys if key not in first)]
        order = [self.rows[key] for key in keys]
        _permute(self.usage, order)
        if self.marks is not None:
            _permute(self.marks, order)
        self.keys, self.rows = keys, {key: row for row, key in enumerate(keys)}

    def _marks_of(self, rows: int) -> Marks | None:
        return None if self.marks is None else self.marks[:rows]

    def _newest_of(self, keys: Sequence[SeriesKey], kept: Sequence[SeriesKey]) -> dict[str, FloatArray]:
        """The newest values of the kept series; of attributes that are known of any of the keys."""
        found = {name: each.values(keys) for name, each in self.newest.items()}
        found["replicas"] = self.replicas.values([key.workload for key in keys])
        for row, key in enumerate(keys):
            if key in self.newest["request"].known and (idle := self.idle.get(key.workload)) is not None:
                was_idle = np.flatnonzero(idle & IDLE)
                seconds = self.grid.start_seconds + int(was_idle[-1]) * self.grid.step_seconds if was_idle.size else -1
                if seconds > self.newest["request"].known[key][1]:
                    found["request"][row] = 0.0
        is_in = set(kept)
        is_kept = np.asarray([key in is_in for key in keys], dtype=np.bool_)
        return {name: values[is_kept] for name, values in found.items() if not np.isnan(values).all()}


def _last_over(grid: Grid, now_seconds: int) -> int:
    """Start of the last step of a grid that goes on without end that is over."""
    return grid.start_seconds + ((now_seconds - grid.start_seconds) // grid.step_seconds - 1) * grid.step_seconds


def _too_long(grid: Grid, at_seconds: int, deadline_seconds: float) -> str:
    span = Grid(at_seconds, grid.end_seconds, grid.step_seconds)
    return (
        f"reading usage takes longer than {deadline_seconds:.0f} s; what was read is kept, and {span} is read next. "
        "Until then nothing is forecast"
    )


def _pods_in(window: Grid, part: Grid) -> Grid | None:
    """The steps of the window's coarse grid that end within the part; None where there is none."""
    coarse = window.coarse()
    step, start = coarse.step_seconds, coarse.start_seconds
    first = max((part.start_seconds - start) // step, 0)
    last = (part.end_seconds + part.step_seconds - start) // step - 1
    return Grid(start + first * step, start + last * step, step) if last >= first else None


def _marks(part: Part) -> Marks:
    """What each sample of a part is by itself, [keys, steps]."""
    marks = limit_marks(part.usage, [part.limit, part.capacity])
    if part.cut_off is not None:
        is_held = np.asarray([key.resource.is_held for key in part.keys], dtype=np.bool_)
        marks[was_cut_off(part.cut_off, is_held)] |= BY_SOURCE
    marks[part.left_out] |= LEFT_OUT
    return marks


Kind = TypeVar("Kind", np.uint8, np.float32, np.float64)


def _shifted(rows: Mapping[Key, NDArray[Kind]], shift: int, steps: int, fill: float) -> dict[Key, NDArray[Kind]]:
    """The rows some steps later, [steps]; without those that say nothing any more."""
    made: dict[Key, NDArray[Kind]] = {}
    for key, values in rows.items():
        later = np.full(steps, fill, dtype=values.dtype)
        common = values[shift:][:steps]
        later[: common.size] = common
        if not (np.isnan(later) if np.isnan(fill) else later == fill).all():
            made[key] = later
    return made


def _put(rows: dict[Key, NDArray[np.float32]], part: Mapping[Key, FloatArray], columns: slice, steps: int) -> None:
    """Writes the part into the rows, [steps]; what it does not have is not known in its steps."""
    for key in {*rows, *part}:
        if key not in rows:
            rows[key] = np.full(steps, np.nan, dtype=np.float32)
        rows[key][columns] = part.get(key, np.nan)


def _permute(values: NDArray[Kind], order: Sequence[int]) -> None:
    """Puts row `order[n]` in the place of row n, for all n at once, with one row of extra memory."""
    is_done = [False] * len(order)
    for first, source in enumerate(order):
        if is_done[first] or source == first:
            continue
        kept, row = values[first].copy(), first
        while order[row] != first:
            values[row] = values[order[row]]
            is_done[row] = True
            row = order[row]
        values[row] = kept
        is_done[row] = True
