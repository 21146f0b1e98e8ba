"""The long usage table and the way between it and aligned arrays. Checked once, here, at the border.

Columns: `workload` (`namespace/kind/name`), `resource`, `timestamp` (UTC), `usage`, and optionally `request`,
`limit`, `capacity`, `replicas`, `node_pool`. pandas is imported inside the functions: the controller never
needs a frame.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.forecast import FloatArray, carried_forward
from predictor.errors import InvalidUsage
from predictor.usage.panel import ATTRIBUTES, Finding, Resource, SeriesKey, Severity, UsagePanel

if TYPE_CHECKING:
    import pandas as pd

IntArray = NDArray[np.int64]

REQUIRED_COLUMNS: tuple[str, ...] = ("workload", "resource", "timestamp", "usage")
OPTIONAL_COLUMNS: tuple[str, ...] = (*ATTRIBUTES, "node_pool")
MIN_SAMPLES = 4
"""Fewer samples than this make a series unusable: nothing can be learned or checked from them."""
LARGE_GAP_SECONDS = 6 * 3600
UNIT_CEILING = {Resource.CPU: 1e5, Resource.GPU: 1e4}
"""Above this, values are surely in another unit (millicores, percent of a percent)."""
MAX_SOURCE_STEPS = 2_000_000


def panel_from_table(
    table: "pd.DataFrame", *, step_seconds: int | None = None, now_seconds: int | None = None
) -> UsagePanel:
    """The table as aligned arrays, with a finding for everything a reader should know.

    Rows are averaged into steps of `step_seconds` (default: the table's own most common spacing). Unsorted rows
    are fine; equal duplicates are merged, conflicting ones averaged with a warning. Timestamps must carry one
    time zone or be UTC; those after `now_seconds` are left out with a warning. A series that cannot be used is
    left out with a `broken` finding. Raises InvalidUsage when the table as a whole cannot be read.
    """
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
    spacing = _spacing(group, seconds)
    step = step_seconds or spacing
    if step < spacing:
        raise InvalidUsage(
            f"samples are {spacing} s apart, so a step of {step} s would be mostly empty; use --step {spacing}s"
        )
    start = int(seconds.min() // step * step)
    steps = int(seconds.max() // step - start // step) + 1
    if steps > MAX_SOURCE_STEPS:
        raise InvalidUsage(
            f"timestamps span {steps} steps of {step} s, which is more than {MAX_SOURCE_STEPS}: "
            "one timestamp is probably wrong, or --step too small"
        )
    column = ((seconds - start) // step).astype(np.int64)
    keys = tuple(SeriesKey(str(w), Resource(r)) for w, r in uniques)
    _find_duplicates(group, seconds, frame["usage"].to_numpy(np.float64), keys, findings)
    _find_unsorted(group, seconds, keys, findings)
    cells = group.astype(np.int64) * steps + column
    shape = (len(keys), steps)
    usage = _cell_means(cells, frame["usage"].to_numpy(np.float64), shape)
    attributes = {
        name: carried_forward(_cell_means(cells, frame[name].to_numpy(np.float64), shape))
        for name in ATTRIBUTES
        if name in frame
    }
    pools: dict[str, str] = {}
    if "node_pool" in frame:
        named = frame.dropna(subset=["node_pool"])
        modes = named.groupby(named["workload"].astype(str))["node_pool"].agg(lambda p: str(p.mode().iloc[0]))
        pools = {str(k): str(v) for k, v in modes.items()}
    panel = UsagePanel(keys, start, step, usage, attributes, (), pools)
    kept, more = checked_series(panel)
    return UsagePanel(kept.keys, start, step, kept.usage, kept.attributes, (*findings, *more), pools)


def checked_series(panel: UsagePanel) -> tuple[UsagePanel, tuple[Finding, ...]]:
    """The usable series of a panel, and what was found in all of them.

    Too few samples, only NaN or infinities, or values that can only be another unit make a series unusable.
    Negative usage becomes "no sample". A constant series and a long gap are noted.
    """
    findings: list[Finding] = []
    keep: list[int] = []
    usage = panel.usage.copy()
    for i, key in enumerate(panel.keys):
        values = usage[i]
        infinite = np.isinf(values)
        negative = values < 0
        if infinite.any() or negative.any():
            values[infinite | negative] = np.nan
            count = int(infinite.sum() + negative.sum())
            findings.append(_finding(key, Severity.WARNING, f"{count} negative or infinite samples taken as no sample"))
        present = np.flatnonzero(~np.isnan(values))
        if present.size < MIN_SAMPLES:
            what = "no sample that is a number" if present.size == 0 else f"{present.size} samples"
            findings.append(_finding(key, Severity.BROKEN, f"{what}, need {MIN_SAMPLES}; left out"))
            continue
        ceiling = UNIT_CEILING.get(key.resource)
        median = float(np.median(values[present]))
        if ceiling is not None and median > ceiling:
            findings.append(
                _finding(
                    key,
                    Severity.BROKEN,
                    f"median {median:.3g} cannot be {key.resource.value} in base units (cores or device fractions); "
                    "left out: convert the column first",
                )
            )
            continue
        keep.append(i)
        longest = int(np.diff(present).max(initial=1)) - 1
        if longest * panel.step_seconds >= LARGE_GAP_SECONDS:
            hours = longest * panel.step_seconds / 3600
            findings.append(_finding(key, Severity.NOTE, f"a gap of {hours:.1f} h without samples"))
        if values[present].min() == values[present].max():
            findings.append(_finding(key, Severity.NOTE, f"constant at {median:.6g}"))
    index = np.asarray(keep, dtype=np.intp)
    cleaned = UsagePanel(
        panel.keys,
        panel.start_seconds,
        panel.step_seconds,
        usage,
        panel.attributes,
        panel.findings,
        panel.node_pool,
    )
    return cleaned.select(index), tuple(findings)


def table_from_panel(panel: UsagePanel) -> "pd.DataFrame":
    """The panel as the long table, without the steps that hold no sample."""
    import pandas as pd

    row, column = np.nonzero(~np.isnan(panel.usage))
    frame = pd.DataFrame(
        {
            "workload": _labels([k.workload for k in panel.keys], row),
            "resource": _labels([k.resource.value for k in panel.keys], row),
            "timestamp": pd.to_datetime(panel.times[column], unit="s", utc=True),
            "usage": panel.usage[row, column],
        }
    )
    for name, values in panel.attributes.items():
        frame[name] = values[row, column]
    if panel.node_pool:
        frame["node_pool"] = [panel.node_pool.get(panel.keys[i].workload) for i in row]
    return frame


def _labels(names: list[str], row: IntArray) -> "pd.Categorical[str]":
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
    zones = {getattr(value, "tzinfo", None) and value.utcoffset() for value in column if hasattr(value, "tzinfo")}
    text = column[column.map(lambda value: isinstance(value, str))]
    endings = set(text.str.extract(r"(Z|[+-]\d{2}:?\d{2})$", expand=False).fillna("none").unique())
    endings -= {"none"} if len(endings) == 1 else set()
    offsets = {"Z" if e in ("+00:00", "+0000") else e for e in endings}
    if len(zones) > 1 or len(offsets) > 1:
        shown = ", ".join(sorted(str(o) for o in (offsets or zones)))
        raise InvalidUsage(
            f"column 'timestamp' mixes time zones ({shown}); convert every row to UTC first, or a day of "
            "history would silently move"
        )
    try:
        return pd.to_datetime(column, utc=True, format="ISO8601" if len(text) else None)
    except (ValueError, TypeError) as error:
        raise InvalidUsage(f"column 'timestamp' cannot be read as times: {error}") from error


def _numbers(column: "pd.Series", name: str) -> "pd.Series":
    import pandas as pd

    try:
        return pd.to_numeric(column).astype(np.float64)
    except (ValueError, TypeError) as error:
        raise InvalidUsage(f"column {name!r} holds something that is not a number: {error}") from error


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


def _spacing(group: IntArray, seconds: IntArray) -> int:
    order = np.lexsort((seconds, group))
    gaps = np.diff(seconds[order])
    same = (np.diff(group[order]) == 0) & (gaps > 0)
    if not same.any():
        raise InvalidUsage("no workload has two samples at different times; a history needs a past")
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
    for i in np.unique(g[1:][twice]):
        here = g[1:] == i
        conflicting = int((differ & here).sum())
        detail = f", {conflicting} with another value: averaged" if conflicting else ", all equal: merged"
        severity = Severity.WARNING if conflicting else Severity.NOTE
        findings.append(_finding(keys[int(i)], severity, f"{int((twice & here).sum())} duplicate timestamps{detail}"))


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


def _cell_means(cells: IntArray, values: FloatArray, shape: tuple[int, int]) -> FloatArray:
    present = ~np.isnan(values)
    size = shape[0] * shape[1]
    total = np.bincount(cells[present], weights=values[present], minlength=size)
    count = np.bincount(cells[present], minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(count > 0, total / count, np.nan), dtype=np.float64).reshape(shape)
