"""A comparison at equal violations as a person reads it: table, headline, section of a page, values for a program."""

from dataclasses import asdict
from math import isnan
from typing import Any

from autoscaler.simulator.catalog import FORESIZE, named
from autoscaler.simulator.comparison import AtShare, Comparison, WorkloadComparison
from pipelines.flows.summary import counted
from pipelines.report.page import Headline, PageSection, Plot, Table
from pipelines.report.plots import cost_over_violations
from predictor.backtest.resampling import Estimate

SHOWN_SHARE = 0.005
"""The violation share of headlines and of the table of workloads."""
NOT_REACHED = "not reached"
FEWEST_FOR_INTERVALS = 10
"""With fewer workloads a bootstrap over them is narrow by chance."""


def comparison_table(comparison: Comparison) -> Table:
    """Each policy at each violation share."""
    rows = [
        (
            each.policy,
            f"{at.violation_share:.1%}",
            _hours(at.fleet_core_hours),
            str(at.reached),
            _ratio(at.over_oracle),
            _ratio(at.over_peer),
            _share(at.gap_closed),
        )
        for each in comparison.policies
        for at in each.at
    ]
    columns = (
        "policy", "violations", "core-hours", "reached in", "÷ oracle", "÷ best reactive", "gap closed",
    )  # fmt: skip
    caption = (
        "Cost at equal violations. Core-hours: one setting for all workloads. The other figures: the best setting of "
        "each workload that reaches the share, geometric means and the median gap, with 95 % intervals over workloads"
    )
    count = len({each.workload for each in comparison.workloads})
    if count < FEWEST_FOR_INTERVALS:
        caption += f", which say little of {counted(count, 'workload')}"
    return Table(columns, rows, caption)


def comparison_headline(comparison: Comparison) -> Headline:
    """What foresize saves at equal violations."""
    at = _shown(comparison)
    if isnan(at.over_peer.value):
        return Headline(NOT_REACHED, f"violations in at most {at.violation_share:.1%} of the time: nothing to compare")
    saved = 1 - at.over_peer.value
    low, high = 1 - at.over_peer.high, 1 - at.over_peer.low
    return Headline(
        f"{abs(saved):.0%} {'fewer' if saved >= 0 else 'more'}",
        f"core-hours than the best-tuned reactive peer of each workload at violations in {at.violation_share:.1%} of "
        f"the time, which foresize reaches in {at.reached} workloads (95 % interval of what is saved: {low:.0%} to "
        f"{high:.0%})",
        "good" if low > 0 else "bad" if high < 0 else "neutral",
    )


def comparison_section(comparison: Comparison, oracle_core_hours: float) -> PageSection:
    """The comparison's part of a page: the table, the fronts, and the workloads, lost ones first."""
    return PageSection(
        "Cost at equal violations",
        "Every policy was replayed with every setting of its knob on these same days, so each is tuned in hindsight, "
        "foresize like its peers. Cost between two settings is a straight line; a share that no setting reaches has no "
        "cost. The gap is what lies between the best reactive peer and the oracle, which knows the future and never "
        "violates. " + "; ".join(f"{each.policy}: {named(each.policy).knob}" for each in comparison.policies) + ".",
        (comparison_table(comparison), _workload_table(comparison)),
        (_fronts(comparison, oracle_core_hours),),
    )


def comparison_values(comparison: Comparison) -> dict[str, Any]:
    """Every figure, for a program; what is not measured or not reached is null."""
    return {
        "policies": {
            each.policy: {
                "knob": named(each.policy).knob,
                "settings": [asdict(point) for point in each.points],
                "front": [asdict(point) for point in each.front],
                "at": [_at_values(at) for at in each.at],
            }
            for each in comparison.policies
        },
        "workloads": [
            {
                "workload": each.workload,
                "violation_share": each.violation_share,
                "core_hours": dict(each.core_hours),
                "oracle_core_hours": each.oracle_core_hours,
                "best_peer": each.best_peer,
                "gap_closed": dict(each.gap_closed),
            }
            for each in comparison.workloads
        ],
    }


def _workload_table(comparison: Comparison) -> Table:
    share = _shown(comparison).violation_share
    rows = [_workload_row(each) for each in comparison.lost_first(FORESIZE, share)]
    return Table(
        ("workload", "foresize", "best reactive", "", "oracle", "gap closed"),
        rows,
        f"Core-hours of each workload at violations in {share:.1%} of the time, those first that foresize loses",
    )


def _workload_row(each: WorkloadComparison) -> tuple[str, ...]:
    gap = each.gap_closed[FORESIZE]
    return (
        each.workload,
        _hours(each.core_hours[FORESIZE]),
        _hours(None if each.best_peer is None else each.core_hours[each.best_peer]),
        each.best_peer or "",
        _hours(each.oracle_core_hours),
        "no gap" if gap is None else f"{gap:.0%}",
    )


def _fronts(comparison: Comparison, oracle_core_hours: float) -> Plot:
    return cost_over_violations(
        {
            each.policy: [(point.violation_share, point.core_hours) for point in each.front]
            for each in comparison.policies
        },
        bound=oracle_core_hours,
        title="All workloads together, one setting for all",
        caption="Each dot is a setting that no other of the same policy beats; lower and further left is better.",
    )


def _shown(comparison: Comparison) -> AtShare:
    return min(comparison.of(FORESIZE).at, key=lambda at: abs(at.violation_share - SHOWN_SHARE))


def _at_values(at: AtShare) -> dict[str, Any]:
    values = asdict(at)
    for name, value in values.items():
        if isinstance(value, dict):
            values[name] = {part: None if isnan(number) else number for part, number in value.items()}
    return values


def _hours(value: float | None) -> str:
    return NOT_REACHED if value is None else f"{value:,.1f}"


def _ratio(estimate: Estimate) -> str:
    return "" if isnan(estimate.value) else f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _share(estimate: Estimate) -> str:
    return "" if isnan(estimate.value) else f"{estimate.value:.0%} ({estimate.low:.0%} to {estimate.high:.0%})"
