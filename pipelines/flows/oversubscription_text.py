"""What may be oversold, as a person reads it: lines for the terminal, a page for the browser, values for a program."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from autoscaler.simulator.packing import Fit
from pipelines.flows.oversubscribe import (
    FORESIZE,
    TOLERATED,
    NodeDecision,
    OversubscriptionReport,
    PackingReport,
    PoolSum,
)
from pipelines.flows.pictures import UNITS
from pipelines.flows.simulation_text import table_lines
from pipelines.report.page import Headline, Page, PageSection, Table
from predictor.usage.panel import Resource

SHOWN_NODES = 20
LIMITS = (
    "Workloads stay where they are: what is given to others with the room that is freed would use some of it.",
    "A violation is usage above what was foretold in any step of the horizon; on the past nobody was hurt by it.",
    "Usage within a step counts at its mean, and usage that a limit cut off may have been wanted higher.",
)

PACKING = (
    "Made-up nodes with far less room than is asked for; workloads wait in an order that is drawn, and are placed four "
    "times a horizon where what is foretold of a node and the whole limit of the newcomer fit.",
    "Nothing is known of a workload before it runs, and none is moved or evicted when its node gets full.",
    "The second half of the history counts. Methods are taken as they are: compare what is hosted at like contention.",
)


def text_lines(report: OversubscriptionReport) -> list[str]:
    """The tables, and how to read them."""
    rest = len(report.nodes) - SHOWN_NODES
    lines = [_sentence(report), "", *table_lines(_node_table(report, SHOWN_NODES))]
    if rest > 0:
        lines.append(f"… and {rest} more (--json or --report has all)")
    if report.pools:
        lines += ["", *table_lines(_pool_table(report))]
    for resource in report.replays:
        lines += ["", *table_lines(_replay_table(report, resource))]
    for resource, packing in report.packings.items():
        lines += ["", *table_lines(_packing_table(packing, resource))]
    return lines


def page(report: OversubscriptionReport) -> Page:
    """The report as a page."""
    headlines = []
    for resource, methods in report.replays.items():
        ours, accepted = methods[FORESIZE], report.violation_probabilities[resource]
        headlines.append(
            Headline(
                f"{ours.savings:.0%} of {resource.value}",
                f"limits that could have been given to others, with {ours.violation_share:.2%} of the decisions "
                f"violated where {_percent(accepted)} were accepted",
                "good" if ours.violation_share <= TOLERATED * accepted else "bad",
            )
        )
    sections = [
        PageSection(
            "Now",
            _sentence(report),
            [*([_pool_table(report)] if report.pools else []), _node_table(report, len(report.nodes))],
            notes=[str(f) for f in report.findings],
        ),
        PageSection(
            "On the past",
            "Each decision from what lay before it, then compared with what came.",
            [_replay_table(report, resource) for resource in report.replays],
            notes=LIMITS,
        ),
    ]
    if report.packings:
        sections.append(
            PageSection(
                "Packed by it",
                "How much would have been hosted if workloads had been placed by what each method says is free.",
                [_packing_table(packing, resource) for resource, packing in report.packings.items()],
                notes=PACKING,
            )
        )
    return Page("foresize: oversubscription", f"{len(report.nodes)} decisions", headlines, sections)


def json_values(report: OversubscriptionReport) -> dict[str, Any]:
    """Every figure, in base units."""
    return {
        "violation_probability": {each.value: p for each, p in report.violation_probabilities.items()},
        "horizon_seconds": report.horizon_seconds,
        "decided_at_seconds": report.decided_at_seconds,
        "nodes": [asdict(each) | {"resource": each.resource.value, "freed": each.freed} for each in report.nodes],
        "pools": [asdict(each) | {"resource": each.resource.value, "freed": each.freed} for each in report.pools],
        "replay": {
            resource.value: {name: asdict(outcome) for name, outcome in methods.items()}
            for resource, methods in report.replays.items()
        },
        "unanswered": {resource.value: count for resource, count in report.unanswered.items()},
        "packing": {
            resource.value: {
                "workloads": packing.workloads,
                "nodes": packing.nodes,
                "capacity": packing.capacity,
                "asked": packing.asked,
                "methods": {
                    name: {fit.value: asdict(outcome) for fit, outcome in by_fit.items()}
                    for name, by_fit in packing.outcomes.items()
                },
            }
            for resource, packing in report.packings.items()
        },
        "findings": [str(finding) for finding in report.findings],
    }


def _sentence(report: OversubscriptionReport) -> str:
    when = datetime.fromtimestamp(report.decided_at_seconds, UTC)
    accepted = " and ".join(f"{_percent(p)} ({each.value})" for each, p in report.violation_probabilities.items())
    hours = report.horizon_seconds / 3600
    ahead = f"{hours:g} h" if hours >= 1 else f"{60 * hours:g} min"
    return (
        f"decided at {when:%Y-%m-%d %H:%M} UTC for the next {ahead}: no more than {accepted} of nodes should exceed "
        "the peak they are foretold"
    )


def _percent(probability: float) -> str:
    """To two places, and one that is smaller to two digits: none that is accepted is shown as 0."""
    return f"{probability:.2%}" if probability >= 1e-4 else f"{100 * probability:.2g}%"


def _node_table(report: OversubscriptionReport, most: int) -> Table:
    rows = [(f"{each.node} {each.resource.value}", *_amounts(each), each.reason) for each in report.nodes[:most]]
    return Table(("node", "limits", "peak", "freed", "of limits", "remark"), rows, "Each node, the emptiest first")


def _pool_table(report: OversubscriptionReport) -> Table:
    rows = [
        (
            f"{each.node_pool} {each.resource.value}",
            str(each.nodes),
            *_amounts(each),
            *(("", "") if each.past is None else (f"{each.past.violation_share:.2%}", f"{each.past.severity:.1%}")),
        )
        for each in report.pools
    ]
    columns = ("node pool", "nodes", "limits", "peaks", "freed", "of limits", "violated on the past", "severity")
    return Table(columns, rows, "Each node pool, the sums of its nodes")


def _amounts(each: NodeDecision | PoolSum) -> tuple[str, ...]:
    unit, scale = UNITS[each.resource]
    share = each.freed / each.limits if each.limits > 0 else 0.0
    shown = (f"{_rounded(amount / scale)} {unit}" for amount in (each.limits, each.peak, each.freed))
    return (*shown, f"{share:.1%}")


def _rounded(amount: float) -> str:
    """To four digits, and large ones to whole units: no powers of ten."""
    return f"{amount:,.0f}" if amount >= 9999.5 else f"{amount:,.4g}"


def _replay_table(report: OversubscriptionReport, resource: Resource) -> Table:
    methods = report.replays[resource]
    rows = [
        (name, f"{o.violation_share:.2%}", f"{o.worst_tenth_share:.1%}", f"{o.severity:.1%}", f"{o.savings:.1%}")
        for name, o in methods.items()
    ]
    columns = ("method", "violated", "worst tenth of nodes", "severity", "of limits freed")
    title = f"{resource.value}: {methods[FORESIZE].decisions:,} decisions of the past, replayed"
    if unanswered := report.unanswered[resource]:
        title += f"; for {unanswered:,} of them foresize knew too little, and limits stood"
    return Table(columns, rows, title)


def _packing_table(packing: PackingReport, resource: Resource) -> Table:
    rows = [
        (name, *(f"{by_fit[fit].hosted:.2f} at {by_fit[fit].contention:.2%}" for fit in Fit))
        for name, by_fit in packing.outcomes.items()
    ]
    unit, scale = UNITS[resource]
    title = (
        f"{resource.value}: hosted limits ÷ capacity, at which share of time in contention (usage above capacity); "
        f"{packing.workloads} workloads ask for {packing.asked:.1f} times what {packing.nodes} made-up nodes of "
        f"{packing.capacity / scale:,.4g} {unit} have"
    )
    return Table(("method", *(f"{fit.value} fit" for fit in Fit)), rows, title)
