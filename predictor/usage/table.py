"""The long usage table and the way between it and aligned arrays. Checked once, here, at the border.

Columns: `workload` (`namespace/kind/name`), `resource`, `timestamp` (UTC), `usage`, and optionally `request`,
`limit`, `capacity`, `replicas`, `cut_off` (share of the step in which more was demanded than given), `node_pool`,
`image` (of all containers, as a list or joined by commas) and `owner` (of the workload itself, such as `Kafka/orders`).
pandas is imported inside the functions: the controller needs no frame.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.forecast import BoolArray, FloatArray, carried_forward
from predictor.errors import InvalidUsage
from predictor.usage.artefacts import UNIT_CEILING, spikes, without_sense
from predictor.usage.bounds import CUT_OFF
from predictor.usage.kin import UNKNOWN_KIN, kin_by_workload, repositories
from predictor.usage.panel import ATTRIBUTES, Finding, Resource, SeriesKey, Severity, UsagePanel

if TYPE_CHECKING:
    import pandas as pd

IntArray = NDArray[np.int64]

REQUIRED_COLUMNS: tuple[str, ...] = ("workload", "resource", "timestamp", "usage")
NAME_COLUMNS: tuple[str, ...] = ("node_pool", "image", "owner")
OPTIONAL_COLUMNS: tuple[str, ...] = (*ATTRIBUTES, *NAME_COLUMNS)
TEXT_COLUMNS: tuple[str, ...] = ("workload", "resource", *NAME_COLUMNS)
"""A file in which nothing says of which type a column is must not make numbers of these."""
MIN_SAMPLES = 4
"""Fewer samples than this make a series unusable: nothing can be learned or checked from them."""
LARGE_GAP_SECONDS = 6 * 3600
LARGEST_JITTER = 0.1
"""Samples whose distance is off by more than this share of it are not on a regular grid."""
LEAST_CLOCK_CHANGE_SECONDS = 20 * 86_400
"""Daylight saving time begins and ends farther apart than this, and moves a clock by no more than …"""
LARGEST_CLOCK_CHANGE_SECONDS = 2 * 3600
MAX_SOURCE_STEPS = 2_000_000
LONGEST_SHOWN = 60
"""Characters of a cell that cannot be used, in the message that says so."""


def panel_from_table(
    table: "pd.DataFrame", *, step_seconds: int | None = None, now_seconds: int | None = None
) -> UsagePanel:
    """The table as aligned arrays, with a finding for everything a reader should know.

    Rows are averaged into steps of `step_seconds` (default: the table's own most common spacing). Unsorted rows
    are fine; equal duplicates are merged, conflicting ones averaged with a warning. Timestamps must carry one
    time zone or be UTC; those after `now_seconds` are left out with a warning. A series that cannot be used is
    left out with a `broken` finding. Raises InvalidUsage when the table as a whole cannot be read.
    """
    rows = _rows(table, now_seconds)
    spacing = _spacing(rows.group, rows.seconds)
    if spacing is None:
        raise InvalidUsage("no workload has two samples at different times; a history needs a past")
    step = step_seconds or spacing
    if 2 * step <= spacing:
        raise InvalidUsage(
            f"samples are {spacing} s apart, so a step of {step} s would be mostly empty; use --step {spacing}s"
        )
    panel = _on_steps(rows, step)
    kept, more = checked_series(panel)
    return replace(kept, findings=(*panel.findings, *more))


def newest_from_table(table: "pd.DataFrame", step_seconds: int) -> UsagePanel:
    """Rows that continue a history, on its steps; a single sample will do.

    As `panel_from_table`, but what can only be said of a series with a past is not checked.
    """
    rows = _rows(table, None)
    spacing = _spacing(rows.group, rows.seconds) or step_seconds
    if 2 * step_seconds <= spacing and np.unique(rows.seconds).size >= MIN_SAMPLES:
        raise InvalidUsage(
            f"samples are {spacing} s apart, but the history that they continue is on steps of {step_seconds} s: give "
            "samples as fine as its own"
        )
    return _on_steps(rows, step_seconds)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of a table, each with its place among the series and its time."""

    frame: "pd.DataFrame"
    keys: tuple[SeriesKey, ...]
    group: IntArray
    """[rows], place among the keys."""
    seconds: IntArray
    """[rows], epoch seconds."""
    findings: tuple[Finding, ...]


def _rows(table: "pd.DataFrame", now_seconds: int | None) -> _Rows:
    """The known columns of a table, each of its type."""
    import pandas as pd

    _check_columns(table)
    if table.empty:
        raise InvalidUsage("the history is empty: 0 rows; check the file or the query that made it")
    frame = table.loc[:, [c for c in (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS) if c in table.columns]].copy()
    frame["timestamp"] = _utc(frame["timestamp"])
    frame["usage"] = _numbers(frame["usage"], "usage")
    for name in ATTRIBUTES:
        if name in frame:
            frame[name] = _numbers(frame[name], name)
    _check_shares(frame)
    for name in NAME_COLUMNS:
        if name in frame:
            frame[name] = _names(frame[name], frame["workload"])
    resources = frame["resource"].astype(str)
    known = {r.value for r in Resource}
    foreign = sorted(set(resources.unique()) - known)
    if foreign:
        raise InvalidUsage(
            f"column 'resource' holds {', '.join(map(repr, foreign[:5]))}; accepted: {', '.join(sorted(known))}"
        )
    findings: list[Finding] = []
    if now_seconds is not None:
        frame = _without_future(frame, now_seconds, findings)
    seconds = frame["timestamp"].to_numpy("datetime64[s]").astype(np.int64)
    if frame.empty:
        raise InvalidUsage("every row of the history lies in the future; check the clock and the time zone")
    group, uniques = pd.MultiIndex.from_arrays(
        [frame["workload"].astype(str), frame["resource"].astype(str)]
    ).factorize(sort=True)
    keys = tuple(SeriesKey(str(w), Resource(r)) for w, r in uniques)
    return _Rows(frame, keys, group, seconds, tuple(findings))


def _on_steps(rows: _Rows, step: int) -> UsagePanel:
    """The rows averaged into steps."""
    frame, keys, group, seconds = rows.frame, rows.keys, rows.group, rows.seconds
    start = int(seconds.min() // step * step)
    steps = int(seconds.max() // step - start // step) + 1
    if steps > MAX_SOURCE_STEPS:
        raise InvalidUsage(
            f"timestamps span {steps} steps of {step} s, which is more than {MAX_SOURCE_STEPS}: "
            "one timestamp is probably wrong, or --step too small"
        )
    column = ((seconds - start) // step).astype(np.int64)
    findings = list(rows.findings)
    _find_duplicates(group, seconds, frame["usage"].to_numpy(np.float64), keys, findings)
    _find_unsorted(group, seconds, keys, findings)
    _find_irregular(group, seconds, step, keys, findings)
    cells = group.astype(np.int64) * steps + column
    shape = (len(keys), steps)
    usage = _cell_means(cells, frame["usage"].to_numpy(np.float64), shape)
    means = {name: _cell_means(cells, frame[name].to_numpy(np.float64), shape) for name in ATTRIBUTES if name in frame}
    # What was asked for lasts until it is changed; that a step was cut off says nothing of the next.
    attributes = {name: values if name == CUT_OFF else carried_forward(values) for name, values in means.items()}
    kin = kin_by_workload(_newest(frame, "image", _repositories), _newest(frame, "owner", str.strip))
    return UsagePanel(keys, start, step, usage, attributes, tuple(findings), _most_common(frame, "node_pool"), kin)


def _most_common(frame: "pd.DataFrame", column: str) -> dict[str, str]:
    """What a column of names mostly says of each workload; without those of which it says nothing."""
    if column not in frame:
        return {}
    named = frame.dropna(subset=[column])
    modes = named.groupby(named["workload"].astype(str))[column].agg(lambda names: str(names.mode().iloc[0]))
    return {str(workload): str(name) for workload, name in modes.items()}


def _newest(frame: "pd.DataFrame", column: str, said: Callable[[str], str]) -> dict[str, str]:
    """What a column of names says last of each workload, as Prometheus is asked at the end of the time; without those
    of which it says nothing. Of several at the same time it is the last by name: the order of rows means nothing.
    """
    if column not in frame:
        return {}
    meant = frame[column].map({name: said(name) for name in frame[column].dropna().unique()})
    named = frame[["workload", "timestamp"]].assign(name=meant).loc[(meant.notna() & (meant != "")).to_numpy()]
    ordered = named.sort_values(["timestamp", "name"])
    last = ordered.groupby(ordered["workload"].astype(str).to_numpy())["name"].last()
    return {str(workload): str(name) for workload, name in last.items()}


def _repositories(images: str) -> str:
    return repositories(images.split(","))


def checked_series(panel: UsagePanel) -> tuple[UsagePanel, tuple[Finding, ...]]:
    """The usable series of a panel, and what was found in all of them.

    Too few samples, only NaN or infinities, or values that can only be another unit make a series unusable.
    Samples that cannot be usage (see `predictor.usage.artefacts`) become "no sample". A constant series and a long
    gap are noted.
    """
    findings: list[Finding] = []
    keep: list[int] = []
    mended: dict[int, FloatArray] = {}
    capacity = panel.attributes.get("capacity")
    for row, key in enumerate(panel.keys):
        largest = None if capacity is None else largest_capacity(capacity[row])
        checked = checked_usage(key, panel.usage[row], largest, panel.step_seconds)
        findings += checked.findings
        if checked.is_usable:
            keep.append(row)
            if checked.left_out.any():
                mended[row] = np.where(checked.left_out, np.nan, panel.usage[row])
    # A fleet's panel is large: it is copied only where something is to be changed or left out.
    if mended:
        usage = panel.usage.copy()
        for row, values in mended.items():
            usage[row] = values
        panel = replace(panel, usage=usage)
    kept = panel if len(keep) == len(panel.keys) else panel.select(np.asarray(keep, dtype=np.intp))
    return kept, tuple(findings)


@dataclass(frozen=True, slots=True)
class CheckedUsage:
    """What one series is worth."""

    is_usable: bool
    left_out: BoolArray
    """Samples that cannot be usage, [steps]."""
    findings: tuple[Finding, ...]


def checked_usage(key: SeriesKey, usage: FloatArray, capacity: float | None, step_seconds: int) -> CheckedUsage:
    """One series, [steps], as `checked_series` has it; `capacity` is the most that ever bounded it."""
    findings: list[Finding] = []
    values, senseless = usage, without_sense(usage)
    if senseless.any():
        values = np.where(senseless, np.nan, values)
        text = f"{int(senseless.sum())} negative or infinite samples taken as no sample"
        findings.append(_finding(key, Severity.WARNING, text))
    if problem := _problem(key, values):
        return CheckedUsage(False, senseless, (*findings, _finding(key, Severity.BROKEN, problem)))
    artefacts = spikes(values, key.resource, capacity)
    if artefacts.any():
        values = np.where(artefacts, np.nan, values)
        findings.append(_finding(key, Severity.WARNING, _spikes_text(usage[artefacts], values)))
    findings += [_finding(key, Severity.NOTE, text) for text in _notes(values, step_seconds)]
    return CheckedUsage(True, senseless | artefacts, tuple(findings))


def largest_capacity(capacity: FloatArray) -> float | None:
    """The most that a series was ever bounded by, of its capacity in each step; None where that is not known."""
    most = capacity.max(initial=0.0, where=capacity > 0)
    return float(most) if most > 0 else None


def _problem(key: SeriesKey, usage: FloatArray) -> str:
    """Why a series cannot be used; empty where it can."""
    present = usage[~np.isnan(usage)]
    if present.size < MIN_SAMPLES:
        count = f"only {present.size} sample{'' if present.size == 1 else 's'}"
        what = count if present.size else "no sample that is a number"
        return f"{what}; at least {MIN_SAMPLES} are needed"
    ceiling = UNIT_CEILING[key.resource]
    if present.max() > ceiling and (median := float(np.median(present))) > ceiling:
        return (
            f"median {median:.3g} cannot be {key.resource.value} in base units ({key.resource.unit}); left out: "
            "convert the column first"
        )
    return ""


def _spikes_text(spikes: FloatArray, usage: FloatArray) -> str:
    return (
        f"{spikes.size} samples taken as no sample: up to {spikes.max():.3g} where all others are at most "
        f"{np.nanmax(usage):.3g}; a counter artefact? If not, look at the query or give a capacity"
    )


def _notes(usage: FloatArray, step_seconds: int) -> list[str]:
    """What is worth knowing about the samples of a usable series."""
    present = np.flatnonzero(~np.isnan(usage))
    gap_seconds = (int(np.diff(present).max(initial=1)) - 1) * step_seconds
    notes = [f"a gap of {gap_seconds / 3600:.1f} h without samples"] if gap_seconds >= LARGE_GAP_SECONDS else []
    low, high = float(usage[present].min()), float(usage[present].max())
    return [*notes, f"constant at {low:.6g}"] if low == high else notes


def table_from_panel(panel: UsagePanel) -> "pd.DataFrame":
    """The panel as the long table, without the steps that hold no sample."""
    import pandas as pd

    row, column = np.nonzero(~np.isnan(panel.usage))
    frame = pd.DataFrame(
        {
            "workload": labels([k.workload for k in panel.keys], row),
            "resource": labels([k.resource.value for k in panel.keys], row),
            "timestamp": pd.to_datetime(panel.times[column], unit="s", utc=True),
            "usage": panel.usage[row, column],
        }
    )
    for name, values in panel.attributes.items():
        frame[name] = values[row, column]
    if panel.node_pool:
        frame["node_pool"] = [panel.node_pool.get(panel.keys[i].workload) for i in row]
    kin = [panel.kin.get(key.workload, UNKNOWN_KIN) for key in panel.keys]
    if any(each.image for each in kin):
        frame["image"] = [kin[i].image or None for i in row]
    if any(each.owner for each in kin):
        frame["owner"] = [kin[i].owner or None for i in row]
    return frame


def labels(names: list[str], row: IntArray) -> "pd.Categorical[str]":
    """A column of names, one for each row that `row` names the place of; its categories are sorted."""
    import pandas as pd

    categories = sorted(set(names))
    place = {name: code for code, name in enumerate(categories)}
    codes = np.asarray([place[name] for name in names], dtype=np.int64)[row]
    return pd.Categorical.from_codes(codes, categories=pd.Index(categories))


def _finding(key: SeriesKey, severity: Severity, message: str) -> Finding:
    return Finding(key.workload, key.resource.value, severity, message)


def _check_columns(table: "pd.DataFrame") -> None:
    missing = [c for c in REQUIRED_COLUMNS if c not in table.columns]
    if missing:
        raise InvalidUsage(
            f"the history has no column {', '.join(map(repr, missing))}; it has {', '.join(map(str, table.columns))}. "
            f"Needed: {', '.join(REQUIRED_COLUMNS)}; optional: {', '.join(OPTIONAL_COLUMNS)}"
        )
    for name in ("workload", "resource", "timestamp"):
        is_empty = table[name].isna() | (table[name].astype(str).str.strip() == "" if name == "workload" else False)
        if is_empty.any():
            raise InvalidUsage(f"column {name!r} has {int(is_empty.sum())} empty cells; every row needs one")


def _check_shares(frame: "pd.DataFrame") -> None:
    if CUT_OFF not in frame:
        return
    shares = frame[CUT_OFF].to_numpy(np.float64)
    wrong = shares[(shares < 0) | (shares > 1)]
    if wrong.size:
        raise InvalidUsage(
            f"column {CUT_OFF!r} holds {wrong[0]:.6g}; it is a share of the step, from 0 to 1: of CPU the throttled "
            "part of its periods, of memory 1 where a container was killed for want of it, of anything 1 where its "
            "autoscaler wanted more than its most replicas"
        )


def _utc(column: "pd.Series") -> "pd.Series":
    import pandas as pd

    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return pd.Series(column.dt.tz_convert("UTC"))
    if pd.api.types.is_datetime64_any_dtype(column):
        return pd.Series(column.dt.tz_localize("UTC"))
    if pd.api.types.is_numeric_dtype(column):
        raise InvalidUsage(
            "column 'timestamp' holds bare numbers, whose unit cannot be known; give ISO 8601 times in UTC"
        )
    has_text = column.map(lambda value: isinstance(value, str)).any()
    try:
        times = pd.Series(pd.to_datetime(column, utc=True, format="ISO8601" if has_text else None))
    except (ValueError, TypeError) as error:
        raise InvalidUsage(f"column 'timestamp' cannot be read as times: {error}") from error
    offsets = _offset_seconds(column)
    if offsets.nunique(dropna=False) > 1 and not _is_one_clock(times, offsets):
        shown = ", ".join("none" if np.isnan(each) else f"UTC{each / 3600:+g}" for each in np.unique(offsets))
        raise InvalidUsage(
            f"column 'timestamp' mixes time zones ({shown}); convert every row to UTC first, or a day of history "
            "would silently move"
        )
    return times


def _offset_seconds(column: "pd.Series") -> "pd.Series":
    """How far east of UTC each time says that it is; NaN where it names no zone."""
    endings = column.astype(str).str.extract(r"(Z|[+-]\d{2}:?\d{2})$", expand=False)
    return endings.map({each: _east_seconds(each) for each in endings.dropna().unique()}).astype(np.float64)


def _east_seconds(ending: str) -> int:
    if ending == "Z":
        return 0
    size = 3600 * int(ending[1:3]) + 60 * int(ending[-2:])
    return -size if ending[0] == "-" else size


def _is_one_clock(times: "pd.Series", offsets: "pd.Series") -> bool:
    """Whether the offsets are those of one place: they change by an hour or two, and rarely."""
    seconds, east = times.to_numpy("datetime64[s]").astype(np.int64), offsets.to_numpy(np.float64)
    order = np.lexsort((east, seconds))
    jumps = np.diff(east[order])
    at_seconds = seconds[order][1:][jumps != 0]
    is_small = bool((np.abs(jumps) <= LARGEST_CLOCK_CHANGE_SECONDS).all())
    return is_small and bool((np.diff(at_seconds) >= LEAST_CLOCK_CHANGE_SECONDS).all())


def _numbers(column: "pd.Series", name: str) -> "pd.Series":
    import pandas as pd

    try:
        return pd.to_numeric(column).astype(np.float64)
    except (ValueError, TypeError) as error:
        raise InvalidUsage(f"column {name!r} holds something that is not a number: {error}") from error


def _names(column: "pd.Series", workloads: "pd.Series") -> "pd.Series":
    """A column of names as text: of several, as of a workload's containers, all joined by commas; None where empty."""
    import pandas as pd

    made: list[str | None] = []
    is_empty = column.isna().to_numpy()
    for place, cell in enumerate(column.tolist()):
        name = "" if is_empty[place] else _name(cell)
        if name is None:
            shown = repr(cell) if len(repr(cell)) <= LONGEST_SHOWN else f"{repr(cell)[:LONGEST_SHOWN]}…"
            raise InvalidUsage(
                f"column {column.name!r} holds {shown} in row {place + 1}, of {workloads.iloc[place]}; write text such "
                "as 'shop/cart:v1', a list of such texts for several, or nothing where it is not known"
            )
        made.append(name or None)
    return pd.Series(made, index=column.index, dtype=object)


def _name(cell: object) -> str | None:
    """A cell of a column of names as text; None for what is no name."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, list | tuple | np.ndarray):
        parts = list(cell)
        return ",".join(sorted(parts)) if all(isinstance(part, str) for part in parts) else None
    # An empty cell among numbers makes numbers with a point of all others.
    if isinstance(cell, int | float) and not isinstance(cell, bool) and float(cell).is_integer():
        return str(int(cell))
    return None


def _without_future(frame: "pd.DataFrame", now_seconds: int, findings: list[Finding]) -> "pd.DataFrame":
    future = frame["timestamp"].to_numpy("datetime64[s]").astype(np.int64) > now_seconds
    if future.any():
        late = frame.loc[future]
        for workload, rows in late.groupby(late["workload"].astype(str)):
            findings.append(
                Finding(
                    str(workload),
                    "",
                    Severity.WARNING,
                    f"{len(rows)} samples lie in the future (up to {rows['timestamp'].max()}) and were left out; "
                    "check the clock and the time zone of the source",
                )
            )
    return frame.loc[~future]


def _spacing(group: IntArray, seconds: IntArray) -> int | None:
    """The most common distance between two samples of a series; None where no series has two."""
    order = np.lexsort((seconds, group))
    gaps = np.diff(seconds[order])
    same = (np.diff(group[order]) == 0) & (gaps > 0)
    if not same.any():
        return None
    values, counts = np.unique(gaps[same], return_counts=True)
    return int(values[np.argmax(counts)])


def _find_duplicates(
    group: IntArray,
    seconds: IntArray,
    usage: FloatArray,
    keys: tuple[SeriesKey, ...],
    findings: list[Finding],
) -> None:
    order = np.lexsort((seconds, group))
    g, s, u = group[order], seconds[order], usage[order]
    twice = (g[1:] == g[:-1]) & (s[1:] == s[:-1])
    differ = twice & ~((u[1:] == u[:-1]) | (np.isnan(u[1:]) & np.isnan(u[:-1])))
    duplicates, conflicts = (np.bincount(g[1:][which], minlength=len(keys)) for which in (twice, differ))
    for row in np.flatnonzero(duplicates):
        count, conflicting = int(duplicates[row]), int(conflicts[row])
        detail = (
            f", {conflicting} with another value: averaged; is it local time in which an hour came twice? Give UTC"
            if conflicting
            else ", all equal: merged"
        )
        severity = Severity.WARNING if conflicting else Severity.NOTE
        findings.append(_finding(keys[row], severity, f"{count} duplicate timestamps{detail}"))


def _find_unsorted(
    group: IntArray,
    seconds: IntArray,
    keys: tuple[SeriesKey, ...],
    findings: list[Finding],
) -> None:
    order = np.argsort(group, kind="stable")
    backwards = (np.diff(group[order]) == 0) & (np.diff(seconds[order]) < 0)
    for i in np.unique(group[order][1:][backwards]):
        findings.append(_finding(keys[int(i)], Severity.NOTE, "rows were not in time order: sorted"))


def _find_irregular(
    group: IntArray, seconds: IntArray, step: int, keys: tuple[SeriesKey, ...], findings: list[Finding]
) -> None:
    """Series whose own samples are farther apart than a step, or not evenly."""
    order = np.lexsort((seconds, group))
    gaps = np.diff(seconds[order])
    inside = (np.diff(group[order]) == 0) & (gaps > 0)
    owner, gaps = group[order][1:][inside], gaps[inside]
    usual = _group_medians(owner, gaps, len(keys))
    ratio = gaps / usual[owner]
    is_off = np.abs(ratio - np.maximum(ratio.round(), 1.0)) > LARGEST_JITTER
    uneven = np.bincount(owner[is_off], minlength=len(keys)) > LARGEST_JITTER * np.bincount(owner, minlength=len(keys))
    for row in np.flatnonzero((usual > (1 + LARGEST_JITTER) * step) | uneven):
        if usual[row] > (1 + LARGEST_JITTER) * step:
            text = (
                f"samples are {usual[row]:.0f} s apart, the history's steps {step} s: those between hold no sample; "
                f"export it finer, or use --step {usual[row]:.0f}s for all"
            )
            findings.append(_finding(keys[row], Severity.WARNING, text))
        else:
            text = f"samples come at irregular times, {usual[row]:.0f} s apart in the middle: averaged into steps"
            findings.append(_finding(keys[row], Severity.NOTE, text))


def _group_medians(group: IntArray, values: IntArray, groups: int) -> FloatArray:
    """The upper median of the values in each group, [groups]; 0 for a group without any."""
    order = np.lexsort((values, group))
    counts = np.bincount(group, minlength=groups)
    middle = np.cumsum(counts) - counts + counts // 2
    medians = np.zeros(groups)
    medians[counts > 0] = values[order][middle[counts > 0]]
    return medians


def _cell_means(cells: IntArray, values: FloatArray, shape: tuple[int, int]) -> FloatArray:
    present = ~np.isnan(values)
    size = shape[0] * shape[1]
    total = np.bincount(cells[present], weights=values[present], minlength=size)
    count = np.bincount(cells[present], minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(count > 0, total / count, np.nan), dtype=np.float64).reshape(shape)
