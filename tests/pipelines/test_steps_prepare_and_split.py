"""A history is checked, fingerprinted and cut in time before anything learns from it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.forecast import Target
from pipelines.errors import NotEnoughHistory
from pipelines.steps.plan import Question, planned
from pipelines.steps.prepare import fingerprint, prepared
from pipelines.steps.split import affordable, inner_split, observed_times, split_in_time, spread_cutoffs
from predictor.errors import UnknownWorkload
from predictor.usage.kin import Kin
from predictor.usage.panel import Finding, Resource, SeriesKey, Severity
from tests.support.histories import STEP_SECONDS, daily_usage
from tests.support.panels import DAY_STEPS, a_fleet, a_panel, a_settings, throttled

QUESTION = Question(target=Target(8), levels=(0.5, 0.9), past_steps=8 * DAY_STEPS)


def test_the_order_of_the_series_does_not_change_the_fingerprint() -> None:
    """Two sources that list the same workloads differently hold the same data."""
    panel = a_fleet()

    assert fingerprint(panel) == fingerprint(panel.select(range(len(panel.keys) - 1, -1, -1)))


@pytest.mark.parametrize("changed", ["value", "key", "gap"])
def test_any_change_of_the_data_changes_the_fingerprint(changed: str) -> None:
    """One value, one name or one lost sample is another data set."""
    panel = a_panel(daily_usage(series=2))
    usage, names = panel.usage.copy(), [key.workload for key in panel.keys]
    if changed == "value":
        usage[1, 5] *= 1 + 1e-6
    elif changed == "gap":
        usage[1, 5] = np.nan
    else:
        names[1] += "x"

    assert fingerprint(a_panel(usage, names=tuple(names))) != fingerprint(panel)


def test_the_order_in_which_a_server_adds_up_pods_does_not_change_the_fingerprint() -> None:
    """The sixteenth digit differs from one answer to the next; the data are the same."""
    panel = a_panel(daily_usage(series=2))

    assert fingerprint(a_panel(panel.usage * (1 + 4e-16))) == fingerprint(panel)


def test_preparing_sorts_the_series_and_drops_empty_ends() -> None:
    """Steps before the first and after the last sample say nothing and would only shorten the parts."""
    usage = np.full((2, 40), np.nan)
    usage[0, 10:30], usage[1, 12:25] = 1.0, 2.0

    ready = prepared(a_panel(usage, names=("b/Deployment/b", "a/Deployment/a")))

    assert [key.workload for key in ready.panel.keys] == ["a/Deployment/a", "b/Deployment/b"]
    assert ready.panel.steps == 20


def test_a_pattern_selects_workloads() -> None:
    """`new/*` is every workload of the namespace."""
    ready = prepared(a_fleet(), "new/*")

    assert ready.panel.workloads == ("new/Job/young",)


def test_a_pattern_that_matches_nothing_names_what_there_is() -> None:
    """A typing error is answered with the nearest names."""
    with pytest.raises(UnknownWorkload, match="did you mean shop/Deployment/w"):
        prepared(a_fleet(), "shop/Deployment/w")


def test_a_history_without_any_sample_says_what_to_check() -> None:
    """An empty answer is not a history."""
    with pytest.raises(NotEnoughHistory, match="no sample of any workload"):
        prepared(a_panel(np.full((2, 50), np.nan)))


def test_a_history_of_unusable_series_says_what_is_wrong_with_them() -> None:
    """Three samples of the only workload are not "no sample": the finding is the answer."""
    nothing = a_panel(np.empty((0, 40)), names=())
    broken = Finding("shop/Deployment/cart", "cpu", Severity.BROKEN, "only 3 samples; at least 4 are needed")

    with pytest.raises(NotEnoughHistory, match=r"none of the 1 series can be used.*only 3 samples; at least 4"):
        prepared(replace(nothing, findings=(broken,)))


def test_a_sparse_series_is_reported() -> None:
    """Who reads the findings learns that a series is mostly gaps."""
    usage = daily_usage(series=1, days=4)
    usage[0, ::2] = np.nan
    usage[0, ::3] = np.nan

    (finding,) = prepared(a_panel(usage)).findings

    assert "of the steps" in finding.message


@pytest.mark.parametrize(("top", "named"), [(2.0, True), (1.5, False), (6.0, False)])
def test_a_series_at_its_limit_is_named(top: float, *, named: bool) -> None:
    """What is throttled shows less than demand; what goes far above the limit is not held by it."""
    usage = np.minimum(daily_usage(series=2, noise=0.0) * 9, top)

    ready = prepared(replace(a_panel(usage), attributes={"limit": np.full(usage.shape, 2.0)}))

    said = [f for f in ready.findings if "at its limit in" in f.message and "raise the limit" in f.message]
    assert bool(said) is named


def test_images_and_owners_change_the_fingerprint() -> None:
    """Forecasts depend on them; of a workload that is not in the history they do not."""
    panel = a_fleet()
    workload = panel.keys[0].workload

    known = [fingerprint(replace(panel, kin={workload: kin})) for kin in (Kin("cart"), Kin("", "cart"))]

    assert len({fingerprint(panel), *known}) == 3
    assert fingerprint(replace(panel, kin={"other/Job/one": Kin("cart")})) == fingerprint(panel)


def test_where_usage_was_cut_off_changes_the_fingerprint() -> None:
    """The same usage under another limit trains another model; a limit that nothing reaches changes nothing."""
    panel = throttled(a_fleet(), [0])
    higher = replace(panel, attributes={"limit": 2 * panel.attributes["limit"]})

    assert fingerprint(panel) != fingerprint(higher)
    assert fingerprint(higher) == fingerprint(replace(panel, attributes={}))


def test_cuts_change_the_fingerprint_only_where_there_are_any() -> None:
    """Fingerprints of histories that know of none are what they were before there was the column."""
    panel = a_fleet()
    nothing, unknown = np.zeros(panel.usage.shape), np.full(panel.usage.shape, np.nan)
    some = nothing.copy()
    some[0, 5] = 1.0

    quiet, silent, cut = (
        fingerprint(replace(panel, attributes={"cut_off": each})) for each in (nothing, unknown, some)
    )

    assert quiet == silent == fingerprint(panel)
    assert cut != quiet


@pytest.mark.parametrize(
    ("resource", "said"), [(Resource.CPU, "throttled or held"), (Resource.MEMORY, "cut off by an OOM kill or held")]
)
def test_a_series_that_is_often_cut_off_is_named(resource: Resource, said: str) -> None:
    """With what happened to it."""
    usage = daily_usage(series=1) * 1e9
    cuts = np.zeros(usage.shape)
    cuts[:, ::10] = 1.0
    panel = replace(a_panel(usage, resource=resource), attributes={"cut_off": cuts})

    (finding,) = prepared(panel).findings

    assert finding.message.startswith(said)
    assert "raise the limit" in finding.message


@settings(max_examples=40, deadline=None)
@given(days=st.floats(1.5, 20), horizon=st.integers(1, 10), gap=st.integers(0, 3))
def test_nothing_crosses_a_cut(days: float, horizon: int, gap: int) -> None:
    """Whatever the length: fit before calibration before held-out, and no forecast reaches over its part's end."""
    usage = np.ones((2, int(days * DAY_STEPS)))
    usage[:, 20 : 20 + gap * 10] = np.nan
    panel = a_panel(usage)

    split = split_in_time(panel, horizon, a_settings().training)

    reach = horizon * STEP_SECONDS
    assert split.fitted_until_seconds < split.calibrated_until_seconds < split.end_seconds
    assert all(
        split.fitted_until_seconds <= c and c + reach <= split.calibrated_until_seconds
        for c in split.calibration_cutoffs
    )
    assert all(split.calibrated_until_seconds <= c and c + reach <= split.end_seconds for c in split.held_out_cutoffs)
    assert len(split.held_out_cutoffs) >= 2 and len(split.calibration_cutoffs) >= 2


def test_a_short_history_gets_shorter_parts_and_says_so() -> None:
    """Two days cannot hold out two days; a quarter is held out and the reader is told."""
    split = split_in_time(a_panel(daily_usage(days=2)), 8, a_settings().training)

    assert (split.end_seconds - split.calibrated_until_seconds) // STEP_SECONDS == 2 * DAY_STEPS // 4
    assert any("training.held_out" in finding.message for finding in split.findings)


def test_a_history_too_short_for_the_horizon_says_what_to_change() -> None:
    """The message has the span that is needed and the two ways out."""
    with pytest.raises(NotEnoughHistory, match=r"Read at least .*--span.*--horizon"):
        split_in_time(a_panel(daily_usage(days=1)), 40, a_settings().training)


def test_what_is_too_short_is_named_where_the_history_is_not() -> None:
    """The part that is held out, or what lies before the first cutoff."""
    panel, training = a_panel(daily_usage(days=12)), a_settings(held_out="30m").training

    with pytest.raises(NotEnoughHistory, match=r"30m are held out .*--held-out.*: hold out at least"):
        split_in_time(panel, 16, training)
    with pytest.raises(NotEnoughHistory, match=r"3 h of history lie before the first cutoff.*first cutoff be later"):
        inner_split(panel, 16, training, 12)


def test_separate_days_are_split_by_what_was_observed() -> None:
    """Two days a month apart: the held-out part is the newest quarter of the samples, not of the calendar."""
    usage = np.full((2, 32 * DAY_STEPS), np.nan)
    usage[:, :DAY_STEPS], usage[:, -DAY_STEPS:] = 1.0, 2.0
    panel = a_panel(usage)

    split = split_in_time(panel, 4, a_settings().training)

    times = observed_times(panel)
    assert np.sum(times > split.calibrated_until_seconds) == len(times) // 4


def test_one_cutoff_is_a_backtest_too() -> None:
    """A single cutoff is the earliest possible one."""
    assert spread_cutoffs(np.arange(0, 100, 10), 30, 1) == (0,)


def test_a_workload_born_yesterday_is_cold_and_listed() -> None:
    """It has no samples where the fit looks; it is reported, not silently dropped."""
    panel = prepared(a_fleet()).panel
    training = a_settings().training

    plan = planned(panel, split_in_time(panel, 8, training), QUESTION, training)

    assert [key.workload for key in plan.cold] == ["new/Job/young"]
    assert any(f.workload == "new/Job/young" and "served by what its siblings" in f.message for f in plan.findings)
    usage = panel.usage.copy()
    usage[[key.workload == "new/Job/young" for key in panel.keys], :-8] = np.nan
    of_two_hours = planned(replace(panel, usage=usage), plan.split, QUESTION, training)
    found = [f.message for f in of_two_hours.findings if f.workload == "new/Job/young"]
    assert found == ["cold: fewer than 12 samples to fit on; no forecast before there are 12 samples, and there are 8"]


def test_a_fleet_of_newborns_cannot_be_trained_on() -> None:
    """If every series is cold, the message says how many samples are needed."""
    usage = np.full((3, 8 * DAY_STEPS), np.nan)
    usage[0, :10], usage[1:, -20:] = 1.0, 1.0
    usage[0, -40:-20] = np.nan
    panel = a_panel(usage)
    training = a_settings(held_out="1h", calibration="1h").training
    split = split_in_time(panel, 2, training)

    with pytest.raises(NotEnoughHistory, match="none of the 3 series"):
        planned(panel, split, Question(Target(40), (0.5,), DAY_STEPS), training)


def test_ended_series_are_told_apart_from_cold_ones() -> None:
    """A workload that was deleted has been fitted on but cannot be scored."""
    usage = daily_usage(series=2, days=10)
    usage[1, 5 * DAY_STEPS :] = np.nan
    panel = a_panel(usage)
    training = a_settings().training

    plan = planned(panel, split_in_time(panel, 8, training), QUESTION, training)

    assert SeriesKey("shop/Deployment/w1", panel.keys[1].resource) in plan.warm
    assert any("has ended" in f.message for f in plan.findings)


@pytest.mark.parametrize(("asked", "series", "given"), [(60, 1, 60), (60, 600, 50), (60, 10_000, 12), (4, 10_000, 4)])
def test_a_large_fleet_gets_fewer_cutoffs(asked: int, series: int, given: int) -> None:
    """Never more than asked for, and not so few that nothing can be learned from them."""
    assert affordable(asked, series) == given
