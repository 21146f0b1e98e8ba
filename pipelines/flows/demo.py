"""The whole path in one go: train on a history, replay its newest days, and put both on one page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipelines.flows import simulation_text
from pipelines.flows.clock import Told
from pipelines.flows.pictures import forecast_plot
from pipelines.flows.ports import Tracker
from pipelines.flows.simulate import SimulationReport, simulate
from pipelines.flows.summary import accuracy_rows
from pipelines.flows.train import TrainingReport, train
from pipelines.report.page import Headline, Page, PageSection, Plot, Table
from pipelines.report.plots import coverage_by_level
from pipelines.settings import Settings
from pipelines.steps.plan import question_of
from pipelines.steps.score import bundle_backtest
from predictor.backtest.rolling import STEP
from predictor.serving.bundle import Bundle
from predictor.serving.ports import BundleStore, UsageSource
from predictor.usage.node_pools import NodePools
from predictor.usage.panel import Resource, UsagePanel

BAND_PLOTS = 4
FetchPools = Callable[[int, int, int], NodePools | None]
"""The node pools between two epoch seconds, on steps of that many seconds; None where nobody knows them."""


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What came of the demo."""

    training: TrainingReport
    simulation: SimulationReport
    page: Page


def demo(
    settings: Settings,
    source: UsageSource,
    fetch_pools: FetchPools,
    store: BundleStore,
    tracker: Tracker,
    *,
    end_seconds: int,
    origin: str,
    told: Told,
) -> DemoReport:
    """Train, replay the held-out days with the champion, and the page about both; `origin` says where usage is from."""
    training = train(settings, source, store, tracker, end_seconds=end_seconds, told=told)
    step = int(settings.history.step.total_seconds())
    start = end_seconds - int(settings.history.span.total_seconds()) + step
    panel = source.fetch(start_seconds=start, end_seconds=end_seconds, step_seconds=step)
    simulation = simulate(settings, panel, fetch_pools(start, end_seconds, step), store, told=told)
    return DemoReport(training, simulation, _page(settings, panel, training, simulation, origin))


def _page(
    settings: Settings, panel: UsagePanel, training: TrainingReport, simulation: SimulationReport, origin: str
) -> Page:
    replayed = simulation_text.page(simulation)
    resources = [each for each in training.resources if each.target == STEP]
    better = [each for each in resources if each.ratio < 1]
    headline = Headline(
        f"{len(better)} of {len(resources)}",
        f"resources forecast better than {training.baseline} (pinball loss, days no fit has seen)",
        "good" if len(better) == len(resources) else "neutral",
    )
    top = training.levels[-1]
    forecasts = PageSection(
        "Forecasts: can they be trusted?",
        "Each workload has the forecaster that did best on its past; scores are from held-out days. Loss is pinball "
        f"loss as a share of {training.baseline}'s: below 1 is better. The columns ≤P… are the share of what happened "
        f"that lay at or under that quantile: under ≤P{top * 100:g} it should say {top:.0%}.",
        (Table(*_split(accuracy_rows(training.resources, training.levels, training.baseline))),),
        (
            coverage_by_level(
                training.levels,
                {each.name: each.coverage for each in training.resources if each.points},
                title="Do quantiles mean what they say?",
                caption="On the diagonal they do; above it they are too cautious, below it too bold.",
            ),
            *_bands(settings, panel, training.bundle, simulation.plan.start_seconds),
        ),
        tuple(training.verdict.reasons),
    )
    return Page(
        "foresize: the whole path on a made-up cluster",
        f"{training.workloads} workloads; usage from {origin}; {replayed.subtitle}",
        (headline, *replayed.headlines),
        (*replayed.sections, forecasts),
        replayed.footer,
    )


def _split(rows: Sequence[Sequence[str]]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    return rows[0], rows[1:]


def _bands(settings: Settings, panel: UsagePanel, bundle: Bundle, start_seconds: int) -> list[Plot]:
    """Forecasts over the replayed days for the largest series of CPU, memory, GPU and requests."""
    question = question_of(settings)
    horizon_seconds = question.horizon_steps * panel.step_seconds
    first = start_seconds - panel.step_seconds
    cutoffs = tuple(range(first, panel.end_seconds - horizon_seconds + 1, horizon_seconds))
    rows = []
    for resource in (Resource.CPU, Resource.REQUESTS, Resource.MEMORY, Resource.GPU):
        known = [int(row) for row in panel.rows(resource) if panel.keys[row] in bundle.series]
        if known and cutoffs:
            rows.append(max(known, key=lambda row: _mean(panel, row)))
    shown = panel.select(rows)
    if not rows:
        return []
    made = bundle_backtest(bundle, shown, cutoffs, question)
    return [
        forecast_plot(
            made,
            row,
            key,
            title=str(key),
            caption=f"Made every {horizon_seconds / 3600:g} h for the hours to the next one, from usage up to then, by "
            f"{bundle.series[key].forecaster}.",
        )
        for row, key in enumerate(shown.keys[:BAND_PLOTS])
    ]


def _mean(panel: UsagePanel, row: int) -> float:
    known = panel.usage[row][panel.usage[row] >= 0]
    return float(known.mean()) if known.size else 0.0
