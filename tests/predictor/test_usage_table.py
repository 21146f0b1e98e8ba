"""The border: a usage table is checked once, and what is wrong with it is named."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictor.errors import InvalidUsage, UnknownWorkload
from predictor.sources.files import FileSource
from predictor.usage.kin import Kin, repositories
from predictor.usage.panel import Resource, SeriesKey, Severity
from predictor.usage.table import newest_from_table, panel_from_table, table_from_panel

START = datetime(2026, 3, 1, tzinfo=UTC)
CART = "shop/Deployment/cart"


def a_table(
    usage: list[float] | None = None,
    *,
    workload: str = CART,
    resource: str = "cpu",
    start: datetime = START,
    step: timedelta = timedelta(minutes=5),
) -> pd.DataFrame:
    values = [1.0, 2.0, 3.0, 4.0, 5.0] if usage is None else usage
    times = [start + step * i for i in range(len(values))]
    return pd.DataFrame({"workload": workload, "resource": resource, "timestamp": times, "usage": values})


def messages(table: pd.DataFrame, **options: int) -> str:
    return "\n".join(str(finding) for finding in panel_from_table(table, **options).findings)


def test_a_table_becomes_aligned_arrays() -> None:
    """Two series that start at different times share one grid; where one has no sample there is NaN, not zero."""
    table = pd.concat([a_table(), a_table(workload="shop/Deployment/pay", start=START + timedelta(minutes=10))])

    panel = panel_from_table(table)

    assert panel.step_seconds == 300
    assert panel.keys == (SeriesKey(CART, Resource.CPU), SeriesKey("shop/Deployment/pay", Resource.CPU))
    assert panel.usage[0].tolist() == pytest.approx([1, 2, 3, 4, 5, np.nan, np.nan], nan_ok=True)
    assert panel.usage[1].tolist() == pytest.approx([np.nan, np.nan, 1, 2, 3, 4, 5], nan_ok=True)
    assert panel.times[0] == int(START.timestamp())


@given(st.permutations(range(8)))
def test_the_order_of_rows_means_nothing(order: list[int]) -> None:
    """A shuffled table gives the same arrays."""
    table = a_table([float(i) for i in range(8)])

    assert np.array_equal(panel_from_table(table.iloc[order]).usage, panel_from_table(table).usage)


def test_unsorted_rows_are_reported_per_workload() -> None:
    """Rows out of time order are sorted, and the reader is told for which workload."""
    found = messages(a_table().iloc[::-1])

    assert f"note: {CART} cpu: rows were not in time order" in found


def test_there_and_back_loses_nothing() -> None:
    """The long table made from a panel reads back as the same panel."""
    panel = panel_from_table(pd.concat([a_table(), a_table([9, 8, np.nan, 6, 5], resource="requests")]))

    again = panel_from_table(table_from_panel(panel))

    assert again.keys == panel.keys
    assert np.array_equal(again.usage, panel.usage, equal_nan=True)


def test_images_and_owners_go_there_and_back() -> None:
    """The repositories of the newest images, without their versions; a workload without either is not in it."""
    other, bare = "shop/StatefulSet/db", "shop/Job/seed"
    images = ["eu.io:5000/shop/cart:v1,istio/proxyv2"] + ["istio/proxyv2@sha256:00,eu.io:5000/shop/cart:v2"] * 4
    table = pd.concat(
        [
            a_table().assign(image=images, owner="Store/main"),
            a_table(workload=other).assign(image=None, owner="Store/main"),
            a_table(workload=bare),
        ]
    )

    panel = panel_from_table(table)

    assert panel.kin == {
        CART: Kin("eu.io:5000/shop/cart,istio/proxyv2", "Store/main"),
        other: Kin(owner="Store/main"),
    }
    assert panel_from_table(table.iloc[::-1]).kin == panel.kin
    assert panel_from_table(table_from_panel(panel)).kin == panel.kin
    assert {"image", "owner"}.isdisjoint(table_from_panel(panel_from_table(a_table())).columns)


def test_the_newest_image_and_owner_that_are_known_count() -> None:
    """As from Prometheus, which is asked at the end of the time; what is empty or a bare digest says nothing."""
    images = ["shop/cart:v1", "shop/cart:v1", "shop/cart:v1", "shop/basket:v1", f"sha256:{'0' * 64}"]
    table = a_table().assign(image=images, owner=["Store/old", "Store/old", "Store/new", "", ""])

    assert panel_from_table(table).kin == {CART: Kin("shop/basket", "Store/new")}
    assert panel_from_table(table.iloc[::-1]).kin == panel_from_table(table).kin


def test_several_images_may_be_a_list(tmp_path: Path) -> None:
    """The natural form for several containers, as Parquet holds it, is the same as the text joined by commas."""
    images = pd.Series([["istio/proxyv2", "shop/cart:v1"]] * 4 + [None], dtype=object)
    lists = a_table().assign(image=images, owner=pd.Series([["Store/main"]] * 5))
    lists.to_parquet(tmp_path / "usage.parquet")

    assert FileSource(tmp_path / "usage.parquet").panel().kin == {CART: Kin("istio/proxyv2,shop/cart", "Store/main")}
    assert panel_from_table(lists).kin == panel_from_table(lists.assign(image="shop/cart:v2,istio/proxyv2")).kin


@pytest.mark.parametrize("cell", [{"cart": "shop/cart:v1"}, [1, 2], ["shop/cart", None], True, 1.5])
@pytest.mark.parametrize("column", ["image", "owner", "node_pool"])
def test_what_is_no_name_is_refused_with_its_place(column: str, cell: object) -> None:
    """The message says which column, row and workload, and what to write instead."""
    table = a_table().assign(**{column: pd.Series(["shop/cart", None, cell, None, None], dtype=object)})

    with pytest.raises(InvalidUsage, match=rf"column '{column}' holds .* in row 3, of {CART}; write text such as"):
        panel_from_table(table)


def test_an_owner_that_is_a_number_is_the_same_with_and_without_gaps(tmp_path: Path) -> None:
    """An empty cell must not make another owner of the number; so in CSV, and in Parquet where it is a number."""
    found = []
    for name, owners in (("whole", [7, 7, 7, 7, 7]), ("torn", [7, None, 7, 7, None])):
        numbers = pd.Series(owners, dtype="Int64")
        a_table().assign(owner=numbers).to_csv(tmp_path / f"{name}.csv", index=False)
        a_table().assign(owner=numbers.astype(np.float64)).to_parquet(tmp_path / f"{name}.parquet")
        found += [FileSource(tmp_path / f"{name}.{ending}").panel().kin for ending in ("csv", "parquet")]

    assert found == [{CART: Kin(owner="7")}] * 4


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_images_and_owners_are_kept_in_files(tmp_path: Path, suffix: str) -> None:
    """In either format, beside workloads of which nothing is known."""
    known = a_table().assign(image="shop/cart:v1", owner="Store/main")
    panel = panel_from_table(pd.concat([known, a_table(workload="shop/Job/seed")]))
    path, table = tmp_path / f"usage{suffix}", table_from_panel(panel)
    table.to_parquet(path) if suffix == ".parquet" else table.to_csv(path, index=False)

    assert FileSource(path).panel().kin == {CART: Kin("shop/cart", "Store/main")}


@pytest.mark.parametrize(
    ("images", "known"),
    [
        (["cart"], "cart"),
        (["cart:v1", "cart:v2"], "cart"),
        (["localhost:5000/cart"], "localhost:5000/cart"),
        (["localhost:5000/shop/cart:v1@sha256:" + "0" * 64], "localhost:5000/shop/cart"),
        (["b", "a:1", "b@sha256:00"], "a,b"),
        (["sha256:" + "a" * 64], ""),
        (["cart", "f" * 64], ""),
        ([" ", ""], ""),
    ],
)
def test_an_image_is_known_by_its_repository(images: list[str], known: str) -> None:
    """Whatever its version; where one of several is known by its digest alone nothing is."""
    assert repositories(images) == known


def test_what_comes_later_adds_to_what_was_known_of_a_workload() -> None:
    """A later image counts, an owner that is not told again stays, and who is gone is forgotten."""
    panel = panel_from_table(a_table())
    before = replace(panel, kin={CART: Kin("cart", "Store/main"), "shop/Job/gone": Kin("gone")})
    after = replace(panel, start_seconds=panel.end_seconds + 300, kin={CART: Kin("trolley")})

    assert before.followed_by(after).kin == {CART: Kin("trolley", "Store/main")}


def test_finer_samples_are_averaged_into_the_step() -> None:
    """A step's usage is the mean of the samples in it."""
    panel = panel_from_table(a_table([1, 3, 5, 7, 2, 2, 4, 8], step=timedelta(minutes=1)), step_seconds=120)

    assert panel.usage[0].tolist() == [2, 6, 2, 6]


def test_a_step_finer_than_the_samples_is_refused() -> None:
    """Asking for more detail than there is names the spacing to use instead."""
    with pytest.raises(InvalidUsage, match=r"300 s apart.*use --step 300s"):
        panel_from_table(a_table(), step_seconds=60)


@pytest.mark.parametrize("column", ["workload", "resource", "timestamp", "usage"])
def test_a_missing_column_is_named(column: str) -> None:
    """Without a required column nothing is read, and the message lists what there is and what is needed."""
    with pytest.raises(InvalidUsage, match=f"no column '{column}'"):
        panel_from_table(a_table().drop(columns=column))


def test_an_unknown_resource_is_named() -> None:
    """A resource that foresize does not know is an error that lists the accepted ones."""
    with pytest.raises(InvalidUsage, match=r"'cpu_percent'; accepted: cpu, custom, gpu, gpu_memory, memory, requests"):
        panel_from_table(a_table(resource="cpu_percent"))


def test_three_samples_are_too_few() -> None:
    """A workload with 3 samples is left out by name; the others are served."""
    panel = panel_from_table(pd.concat([a_table(), a_table([1, 2, 3], workload="shop/Deployment/new")]))

    assert [k.workload for k in panel.keys] == [CART]
    assert "broken: shop/Deployment/new cpu: only 3 samples; at least 4 are needed" in "\n".join(
        map(str, panel.findings)
    )


def test_only_nan_is_no_history() -> None:
    """A workload without one number is left out by name."""
    found = messages(pd.concat([a_table(), a_table([np.nan] * 6, workload="shop/Deployment/mute")]))

    assert "broken: shop/Deployment/mute cpu: no sample that is a number" in found


def test_a_constant_workload_is_served_and_noted() -> None:
    """Constant usage is legitimate (an idle service), and worth a note."""
    panel = panel_from_table(a_table([2.0] * 6))

    assert len(panel.keys) == 1
    assert [f.severity for f in panel.findings] == [Severity.NOTE]
    assert "constant at 2" in panel.findings[0].message


def test_a_gap_of_a_day_is_noted_and_stays_a_gap() -> None:
    """Missing rows stay missing: nothing is interpolated, and the reader is told how long the gap is."""
    late = a_table(start=START + timedelta(days=1, minutes=25))

    panel = panel_from_table(pd.concat([a_table(), late]))

    assert int(np.isnan(panel.usage).sum()) == 288
    assert "a gap of 24.0 h" in "\n".join(map(str, panel.findings))


def test_samples_from_the_future_are_left_out() -> None:
    """A timestamp after now is a clock or time zone fault: not used, and named with its workload."""
    now = int((START + timedelta(minutes=20)).timestamp())
    table = pd.concat([a_table(), a_table([99.0], start=START + timedelta(hours=5))])

    panel = panel_from_table(table, now_seconds=now)

    assert np.nanmax(panel.usage) == 5
    assert f"warning: {CART}: 1 samples lie in the future" in str(panel.findings[0])


def test_two_time_zones_are_refused() -> None:
    """Rows in two zones cannot be told apart from a shifted day, so nothing is read."""
    table = a_table([1.0] * 9)
    table["timestamp"] = [f"2026-03-01T{i:02d}:00:00{'+01:00' if i % 2 else '+00:00'}" for i in range(9)]

    with pytest.raises(InvalidUsage, match=r"mixes time zones \(UTC\+0, UTC\+1\)"):
        panel_from_table(table)


def test_text_times_in_one_zone_are_read() -> None:
    """ISO 8601 text in one zone is converted to UTC."""
    table = a_table()
    table["timestamp"] = [f"2026-03-01T01:{5 * i:02d}:00+01:00" for i in range(5)]

    assert panel_from_table(table).times[0] == int(START.timestamp())


def test_times_without_a_zone_beside_times_with_one_are_refused() -> None:
    """Nobody can say what the former mean."""
    table = a_table()
    table["timestamp"] = [f"2026-03-01T0{i}:00:00{'Z' if i % 2 else ''}" for i in range(5)]

    with pytest.raises(InvalidUsage, match=r"mixes time zones \(UTC\+0, none\)"):
        panel_from_table(table)


@pytest.mark.parametrize("change", ["2026-03-29T01:00:00Z", "2026-10-25T01:00:00Z"])
@pytest.mark.parametrize("as_text", [True, False])
def test_a_clock_change_moves_nothing(change: str, *, as_text: bool) -> None:
    """Local times that name their offset are the same instants: no hour is missing or there twice."""
    local = pd.date_range(pd.Timestamp(change) - pd.Timedelta("1D"), periods=49, freq="1h").tz_convert("Europe/Berlin")
    times = [time.isoformat() if as_text else time for time in local]
    table = a_table([float(n) for n in range(49)]).assign(timestamp=pd.Series(times, dtype=object))

    panel = panel_from_table(table)

    assert panel.usage[0].tolist() == list(range(49))
    assert panel.findings == ()


def test_an_hour_that_comes_twice_is_named() -> None:
    """Local times without a zone cannot be told apart when the clock is set back: averaged, and what to do is said."""
    local = pd.date_range("2026-10-24T00:00Z", periods=72, freq="1h").tz_convert("Europe/Berlin").tz_localize(None)
    table = a_table([float(n) for n in range(72)]).assign(timestamp=local)

    panel = panel_from_table(table)

    assert not np.isnan(panel.usage).any()
    assert "1 duplicate timestamps, 1 with another value: averaged; is it local time" in str(panel.findings[0])


def test_a_series_on_coarser_steps_is_served_and_named() -> None:
    """Its steps between hold no sample, and the reader is told which step would suit it."""
    hourly = a_table([1.0, 2.0] * 6, workload="shop/Deployment/slow", step=timedelta(hours=1))

    panel = panel_from_table(pd.concat([a_table([1.0, 2.0] * 72), hourly]))

    assert np.sum(~np.isnan(panel.usage), axis=1).tolist() == [144, 12]
    assert [f.workload for f in panel.findings] == ["shop/Deployment/slow"]
    assert "samples are 3600 s apart, the history's steps 300 s" in panel.findings[0].message


def test_irregular_times_are_averaged_into_steps_and_named() -> None:
    """Jitter is no reason to refuse a table, even where the commonest distance is a little more than a step."""
    jitter = np.random.default_rng(0).integers(-90, 91, 200)
    times = [START + timedelta(seconds=300 * n + int(late)) for n, late in enumerate(jitter)]
    table = a_table([1.0, 2.0] * 100).assign(timestamp=times)

    panel = panel_from_table(table, step_seconds=300)

    assert np.nanmean(panel.usage) == pytest.approx(1.5, abs=0.05)
    assert [f.severity for f in panel.findings] == [Severity.NOTE]
    assert "samples come at irregular times" in panel.findings[0].message


def test_bare_numbers_are_not_times() -> None:
    """Seconds, milliseconds or days cannot be told apart, so numbers are refused."""
    with pytest.raises(InvalidUsage, match="bare numbers"):
        panel_from_table(a_table().assign(timestamp=range(5)))


def test_millicores_are_recognised() -> None:
    """A CPU usage that no machine has is another unit: the series is left out rather than learned."""
    found = messages(pd.concat([a_table(), a_table([250_000.0] * 5, workload="shop/Deployment/milli")]))

    assert "broken: shop/Deployment/milli cpu: median 2.5e+05 cannot be cpu in base units" in found


def test_negative_usage_is_no_sample() -> None:
    """Usage below zero is an artefact: it becomes a gap and is counted."""
    panel = panel_from_table(a_table([1, -5, 2, 3, 4, np.inf]))

    assert int(np.isnan(panel.usage).sum()) == 2
    assert "2 negative or infinite samples" in str(panel.findings[0])


@pytest.mark.parametrize(
    ("resource", "level", "spike"),
    [("cpu", 1.0, 1e12), ("cpu", 2.0, 5e3), ("memory", 1e9, 1e14), ("requests", 3.0, 1e8)],
)
def test_a_spike_of_a_broken_counter_is_no_sample(resource: str, level: float, spike: float) -> None:
    """Beyond what a workload can use, short, and far beyond all else that was seen: a gap, and named."""
    usage = [level, 1.2 * level] * 150
    usage[100:102] = [spike, spike / 2]

    panel = panel_from_table(a_table(usage, resource=resource))

    assert np.flatnonzero(np.isnan(panel.usage[0])).tolist() == [100, 101]
    assert f"2 samples taken as no sample: up to {spike:.3g}" in panel.findings[0].message


@pytest.mark.parametrize(("idle", "burst"), [(0.0, 8.0), (0.001, 8.0), (1e-6, 900.0), (0.01, 1.0)])
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_a_true_burst_is_kept(idle: float, burst: float, steps: int) -> None:
    """However idle a workload was: what some nodes can give may be used, and be it once."""
    usage = [idle] * 300
    usage[150 : 150 + steps] = [burst] * steps

    panel = panel_from_table(a_table(usage))

    assert panel.usage[0].tolist() == usage
    assert not [f for f in panel.findings if f.severity is Severity.WARNING]


def test_a_workload_that_grew_beyond_measure_is_believed() -> None:
    """What lasts longer than a rate's window is no artefact, though nothing like it was seen before."""
    usage = [2.0] * 300 + [5_000.0] * 4

    assert panel_from_table(a_table(usage)).usage[0].tolist() == usage


def test_usage_far_beyond_a_known_capacity_is_no_sample() -> None:
    """A bound that is known tells an artefact that would pass for a burst without it."""
    usage = [0.5, 0.9] * 150
    usage[7] = 1.9
    usage[99] = 40.0

    bounded = panel_from_table(a_table(usage).assign(capacity=1.0))
    unbounded = panel_from_table(a_table(usage))

    assert np.flatnonzero(np.isnan(bounded.usage[0])).tolist() == [99]
    assert np.flatnonzero(np.isnan(unbounded.usage[0])).tolist() == []


def test_a_capacity_in_another_unit_takes_nothing_away() -> None:
    """Where much of the usage exceeds it, the capacity is what is wrong."""
    usage = [20.0, 30.0] * 150

    assert panel_from_table(a_table(usage).assign(capacity=1.0)).usage[0].tolist() == usage


def test_conflicting_duplicates_are_averaged_with_a_warning() -> None:
    """Two values for one time cannot both be true: averaged, and said."""
    panel = panel_from_table(pd.concat([a_table(), a_table([3.0])]))

    assert panel.usage[0, 0] == 2
    assert "1 duplicate timestamps, 1 with another value: averaged" in str(panel.findings[0])


def test_a_request_holds_until_it_changes() -> None:
    """Attributes are carried forward: a request is valid until the next one is seen."""
    table = a_table().assign(request=[2.0, np.nan, np.nan, 4.0, np.nan])

    assert panel_from_table(table).attributes["request"][0].tolist() == [2, 2, 2, 4, 4]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_cuts_go_there_and_back_and_hold_for_their_step_alone(tmp_path: Path, suffix: str) -> None:
    """That a step was throttled says nothing of the next, other than a request does."""
    table = a_table().assign(cut_off=[0.25, np.nan, 1.0, 0.0, np.nan])
    path = tmp_path / f"history{suffix}"
    again = table_from_panel(panel_from_table(table))
    again.to_csv(path, index=False) if suffix == ".csv" else again.to_parquet(path)

    for panel in (panel_from_table(table), FileSource(path).panel()):
        np.testing.assert_array_equal(panel.attributes["cut_off"], [[0.25, np.nan, 1.0, 0.0, np.nan]])


def test_cuts_of_finer_samples_are_averaged_into_the_step() -> None:
    """A minute of five throttled is a fifth of the step; a kill in one is a kill."""
    usage = [1.0] * 20
    cuts = [1.0, 0.0, 0.0, 0.0, 0.0, *[0.5] * 5, *[0.0] * 10]
    fine = timedelta(minutes=1)
    tables = [a_table(usage, step=fine, resource=each).assign(cut_off=cuts) for each in ("cpu", "memory")]

    panel = panel_from_table(pd.concat(tables), step_seconds=300)

    np.testing.assert_allclose(panel.attributes["cut_off"], [[0.2, 0.5, 0.0, 0.0]] * 2)
    assert panel.is_bound is not None
    assert panel.is_bound.tolist() == [[False, True, False, False], [True, True, False, False]]


@pytest.mark.parametrize("share", [-0.1, 1.5, np.inf, 100.0])
def test_a_cut_that_is_no_share_is_refused(share: float) -> None:
    """Percent, or a count of kills: the column, the value and what it should be."""
    with pytest.raises(InvalidUsage, match=r"column 'cut_off' holds .* share of the step, from 0 to 1"):
        panel_from_table(a_table().assign(cut_off=[0.0, np.nan, share, 0.0, 0.0]))


def test_an_unknown_workload_gets_the_nearest_names() -> None:
    """A typing error is answered with what was probably meant."""
    panel = panel_from_table(a_table())

    with pytest.raises(UnknownWorkload, match=r"did you mean shop/Deployment/cart cpu\?"):
        panel.row(SeriesKey("shop/Deployment/carts", Resource.CPU))


def test_what_continues_a_history_may_be_a_single_sample() -> None:
    """A panel of a step; as coarse as another history it is refused, unless there is too little to tell."""
    hourly = a_table([1.0, 2.0, 3.0, 4.0], step=timedelta(hours=1))

    assert newest_from_table(a_table([7.0]), 300).usage.tolist() == [[7.0]]
    assert newest_from_table(hourly.head(2), 300).steps == 13
    with pytest.raises(InvalidUsage, match="3600 s apart, but the history that they continue is on steps of 300 s"):
        newest_from_table(hourly, 300)


@given(st.integers(2, 38))
def test_a_panel_followed_by_its_rest_is_the_whole(cut: int) -> None:
    """Series, usage and what bounds it, wherever it is cut and whichever of them only one part knows."""
    late = a_table([1.0] * 20, workload="shop/Deployment/late", start=START + timedelta(minutes=100))
    whole = panel_from_table(pd.concat([a_table([float(i) for i in range(40)]).assign(capacity=50.0), late]))
    middle = whole.start_seconds + cut * whole.step_seconds

    joined = whole.between(whole.start_seconds, middle - 1).followed_by(whole.between(middle, whole.end_seconds))

    assert joined.keys == whole.keys
    np.testing.assert_array_equal(joined.usage, whole.usage)
    np.testing.assert_array_equal(joined.attributes["capacity"], whole.attributes["capacity"])
    only_late = whole.select([1]).between(middle, whole.end_seconds)
    apart = whole.select([0]).between(whole.start_seconds, middle - 1).followed_by(only_late)
    assert apart.keys == whole.keys
    assert np.isnan(apart.usage[0, cut:]).all()


def test_panels_whose_grids_do_not_meet_cannot_follow_each_other() -> None:
    """Another step, a start between two steps, and a start before the first."""
    panel = panel_from_table(a_table())

    with pytest.raises(InvalidUsage, match="usage on steps of 600 s"):
        panel.followed_by(panel_from_table(a_table(step=timedelta(minutes=10))))
    for start in (panel.start_seconds + 1500 + 1, panel.start_seconds - 300):
        with pytest.raises(InvalidUsage, match="does not continue"):
            panel.followed_by(replace(panel, start_seconds=start))


def test_slim_panels_stand_beside_each_other_as_whole_ones_do() -> None:
    """What is kept of a fleet's window, with what a query gave beside it: the same usage, bounds and newest values."""
    values = [float(min(i, 20)) for i in range(40)]
    whole = panel_from_table(a_table(values).assign(capacity=20.0, request=[3.0] * 30 + [np.nan] * 10))
    asked = replace(whole.select([0]).bare(), keys=(SeriesKey(whole.keys[0].workload, Resource.CUSTOM),))

    joined = whole.slim().beside(asked.slim())

    expected = whole.beside(asked).slim()
    assert joined.keys == expected.keys
    assert joined.usage.dtype == np.float32
    np.testing.assert_array_equal(joined.usage, expected.usage)
    assert joined.newest.keys() == expected.newest.keys()
    for name, known in expected.newest.items():
        np.testing.assert_array_equal(joined.newest[name], known)
    assert expected.is_bound is not None
    assert expected.is_bound.any()
    assert joined.is_bound is not None
    np.testing.assert_array_equal(joined.is_bound, expected.is_bound)
