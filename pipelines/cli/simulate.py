"""`foresize simulate`."""

import time
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.cli.common import (
    HISTORY,
    FiniteRange,
    LoadSettings,
    bad_input,
    check_one_source,
    check_outputs,
    names,
    shown_progress,
    stopped_by_sigterm,
)

if TYPE_CHECKING:
    from autoscaler.simulator.switching import SwitchingCosts
    from pipelines.steps.replay import LatencySlo

TIME = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])
MOST_DAYS = 36_500.0
WIDEST_SPREAD = 5.0
"""One order in twenty then takes more than 3,000 times the median: beyond anything that pods do."""
MOST_REPLICAS = 20_000
LONGEST_READY_SECONDS = 86_400.0 * MOST_DAYS
LONGEST_METRIC = timedelta(hours=1)


@click.command()
@click.option("--history", type=HISTORY, help="Usage table (Parquet or CSV) instead of Prometheus.")
@click.option("--prometheus", metavar="URL", help="Base address of Prometheus.")
@click.option(
    "--days", type=FiniteRange(min=0, max=MOST_DAYS, min_open=True), help="How many of the newest days are replayed."
)
@click.option("--from", "begin", type=TIME, help="Replay from this time on, instead of --days; UTC.")
@click.option("--to", "end", type=TIME, help="Look at nothing after this time; UTC.")
@click.option("--step", metavar="DURATION", help="Spacing of samples, such as 5m.")
@click.option("--span", metavar="DURATION", help="How much past is read, such as 21d.")
@click.option("--workloads", metavar="PATTERN", help="Only workloads that match, such as 'shop/*'.")
@click.option(
    "--sla-percentile", type=float, metavar="P", help="Share of intervals in which demand must fit, in percent."
)
@click.option(
    "--pod-ready",
    metavar="DURATION",
    help="From a scale-out to Ready pods, of every workload.  [default: with Prometheus what its pods took, where 5 "
    "or more were seen to get Ready; else 2m]",
)
@click.option(
    "--ready-spread",
    type=FiniteRange(min=0, max=WIDEST_SPREAD),
    default=0.0,
    help="Spread of its logarithm, such as 0.3; with it nothing is learned from pods.",
)
@click.option(
    "--ready-seconds", metavar="LIST", help="Times that pods took, to draw from: 31,35,34,90. Not --pod-ready."
)
@click.option(
    "--metric-window",
    metavar="DURATION",
    default="60s",
    show_default=True,
    help="Policies see usage as its mean over so long, 15s to 1h in whole 15s.",
)
@click.option(
    "--metric-delay",
    metavar="DURATION",
    default="15s",
    show_default=True,
    help="How late they see it, 0s to 1h in whole 15s.",
)
@click.option(
    "--min-replicas",
    type=click.IntRange(1, MOST_REPLICAS),
    default=1,
    show_default=True,
    help="The fewest of every workload.",
)
@click.option(
    "--max-replicas",
    type=click.IntRange(1, MOST_REPLICAS),
    help="The most of every workload.  [default: twice what the past needed, at least 20]",
)
@click.option(
    "--slo-latency",
    type=FiniteRange(min=0, min_open=True),
    metavar="SECONDS",
    help="A violation is then a time in which too few requests are done within it, by an M/M/c queue.",
)
@click.option("--service-time", type=FiniteRange(min=0, min_open=True), metavar="SECONDS", help="Mean, of a request.")
@click.option(
    "--slo-percentile",
    type=FiniteRange(min=0, max=100, min_open=True, max_open=True),
    default=99.0,
    show_default=True,
    metavar="P",
    help="Share of requests that must be within --slo-latency.",
)
@click.option(
    "--change-cost",
    type=FiniteRange(min=0),
    metavar="HOURS",
    help="Also the oracle that pays so many replica-hours for each replica added or removed.",
)
@click.option(
    "--violation-cost",
    type=FiniteRange(min=0),
    metavar="HOURS",
    help="What that oracle pays for an hour in violation; without it, it violates nothing that it can help.",
)
@click.option("--policies", metavar="NAMES", help="Others to replay as well, with commas between.")
@click.option(
    "--requests",
    is_flag=True,
    help="What containers request as well: beside the VPA, Autopilot and what they request now.",
)
@click.option("--sweep", is_flag=True, help="Every setting of every policy as well, compared at equal violations.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Processes that fit and replay, and threads that forecast, at most.  [default: the number of cores]",
)
@click.option("--dask", metavar="ADDRESS", help="A Dask scheduler whose workers replay, such as tcp://10.0.0.5:8786.")
@click.option("--fit", is_flag=True, help="Fit forecasters for this replay and never ask the registry.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write an HTML report.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write every figure as JSON."
)
@click.pass_obj
def simulate(
    load: LoadSettings,
    *,
    history: Path | None,
    prometheus: str | None,
    days: float | None,
    begin: datetime | None,
    end: datetime | None,
    step: str | None,
    span: str | None,
    workloads: str | None,
    sla_percentile: float | None,
    pod_ready: str | None,
    ready_spread: float,
    ready_seconds: str | None,
    metric_window: str,
    metric_delay: str,
    min_replicas: int,
    max_replicas: int | None,
    slo_latency: float | None,
    service_time: float | None,
    slo_percentile: float,
    change_cost: float | None,
    violation_cost: float | None,
    policies: str | None,
    sweep: bool,
    jobs: int | None,
    dask: str | None,
    requests: bool,
    fit: bool,
    report: Path | None,
    json_path: Path | None,
) -> None:
    """Replay your newest days: what foresize would have done beside the HPA, and how far pools could be oversold.

    Needs no cluster and changes nothing. The replayed days are unseen: the champion forecasts if it was trained
    before them and knows the workloads, else forecasters are fitted on what lies before.

    \b
    Policies beside foresize and hpa, which are always replayed:
      foresize_budget, hpa_requests, keda, kpa, phpa_linear, phpa_holt_winters,
      crane_ehpa, crane_ehpa_folded, aws_predictive, seasonal_naive,
      static_peak, static_p95, autopilot, autopilot_p95

    \b
    Examples:
      foresize simulate --prometheus http://prometheus:9090 --days 3 --report replay.html
      foresize simulate --history usage.parquet --workloads 'shop/*' --sla-percentile 99.5
      foresize simulate --history usage.csv --fit --json replay.json
      foresize simulate --history usage.csv --slo-latency 0.3 --service-time 0.05
      foresize simulate --prometheus http://prometheus:9090 --requests --report replay.html
      foresize simulate --history usage.parquet --from 2026-06-01 --to 2026-06-08 --sweep
    """
    check_one_source(history, prometheus)
    if days is not None and begin is not None:
        raise click.UsageError("--days and --from exclude each other: both say where the replay begins")
    if begin is not None and end is not None and begin >= end:
        raise click.UsageError(f"--from {begin} is not before --to {end}")
    if ready_seconds is not None and ready_spread:
        raise click.UsageError("--ready-seconds and --ready-spread exclude each other: the times given are the spread")
    if ready_seconds is not None and pod_ready is not None:
        raise click.UsageError("--ready-seconds and --pod-ready exclude each other: both say what pods take")
    if max_replicas is not None and min_replicas > max_replicas:
        raise click.UsageError(f"--min-replicas {min_replicas} is more than --max-replicas {max_replicas}")
    check_outputs({"--history": history}, {"--report": report, "--json": json_path})
    settings = load(
        {
            ("prometheus", "url"): prometheus,
            ("history", "step"): step,
            ("history", "span"): span,
            ("scaling", "sla_percentile"): sla_percentile,
        }
    )
    import json

    from joblib import cpu_count

    from autoscaler.simulator.catalog import named
    from autoscaler.simulator.outcome import ReplayError
    from pipelines.flows import simulation_text, summary
    from pipelines.flows.simulate import Asked
    from pipelines.flows.simulate import simulate as run_replay
    from pipelines.report.page import write_page
    from pipelines.wiring import build_training_store, fetch_history, fetch_pools, fetch_ready_times
    from predictor.registry.folder import replace_file
    from predictor.wiring import build_source

    is_learned = pod_ready is None and ready_seconds is None and not ready_spread
    asked = Asked(
        span=timedelta(days=days) if days else None,
        from_seconds=_utc_seconds(begin),
        to_seconds=_utc_seconds(end),
        pod_ready=_duration("--pod-ready", pod_ready or "2m"),
        ready_spread=ready_spread,
        ready_seconds=_seconds(ready_seconds),
        metric_window=_in_ticks("--metric-window", metric_window, least=1),
        metric_delay=_in_ticks("--metric-delay", metric_delay, least=0),
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        slo=_slo(slo_latency, service_time, slo_percentile),
        costs=_costs(change_cost, violation_cost),
        workloads=workloads,
        policies=tuple(names(policies) or ()),
        sweep=sweep,
        requests=requests,
        jobs=jobs or cpu_count(),
        dask=dask,
    )
    for name in asked.policies:
        try:
            named(name)
        except ReplayError as error:
            raise click.BadParameter(f"--policies: {error}") from None
    with bad_input(), stopped_by_sigterm(), shown_progress() as told:
        source = build_source(settings, history)
        panel = fetch_history(settings, source, time.time(), told)
        pools = fetch_pools(source, panel.start_seconds, panel.end_seconds, panel.step_seconds)
        made = run_replay(
            settings,
            panel,
            pools,
            None if fit else build_training_store(settings),
            asked,
            ready_times=fetch_ready_times(source, panel, told) if is_learned else None,
            told=told,
        )
    # Files first: who reads what is printed may have gone away.
    if json_path is not None:
        replace_file(json_path, json.dumps(simulation_text.json_values(made), indent=1, ensure_ascii=False))
    if report is not None:
        write_page(simulation_text.page(made), report)
    for line in [*simulation_text.text_lines(made), "", *summary.finding_lines(made.findings)]:
        click.echo(line)
    if report is not None:
        click.echo(f"report: {report}")


def _slo(latency: float | None, service: float | None, percentile: float) -> "LatencySlo | None":
    """What the options say that a violation is."""
    from autoscaler.simulator.outcome import ReplayError
    from pipelines.steps.replay import LatencySlo

    if (latency is None) != (service is None):
        raise click.UsageError("--slo-latency and --service-time belong together: what is late depends on both")
    if latency is None or service is None:
        return None
    try:
        return LatencySlo(threshold_seconds=latency, service_seconds=service, level=round(percentile / 100, 10))
    except ReplayError as error:
        raise click.BadParameter(f"--slo-latency: {error}") from None


def _costs(change: float | None, violation: float | None) -> "SwitchingCosts | None":
    """What the options say that the second oracle pays."""
    from autoscaler.simulator.switching import SwitchingCosts

    if change is None and violation is None:
        return None
    return SwitchingCosts(violation_hour=inf if violation is None else violation, change=change or 0.0)


def _duration(option: str, given: str) -> timedelta:
    from predictor.settings import parse_duration

    try:
        duration: timedelta = parse_duration(given)
    except ValueError as error:
        raise click.BadParameter(f"{option}: {error}") from None
    return duration


def _in_ticks(option: str, given: str, *, least: int) -> timedelta:
    """A time that is a whole number of ticks, as nothing happens between two of them."""
    from autoscaler.simulator.outcome import TICK_SECONDS

    duration, tick = _duration(option, given), timedelta(seconds=TICK_SECONDS)
    if duration % tick or not least * tick <= duration <= LONGEST_METRIC:
        raise click.BadParameter(
            f"{option}: {given} is not a multiple of {tick.seconds} s, at which policies decide, from "
            f"{least * tick.seconds} s to {LONGEST_METRIC.total_seconds():.0f} s"
        )
    return duration


def _seconds(given: str | None) -> tuple[float, ...]:
    """The times in a list with commas between."""
    try:
        times = tuple(float(each) for each in names(given) or ())
    except ValueError:
        times = (-1.0,)
    if not all(0 <= each <= LONGEST_READY_SECONDS for each in times):
        raise click.BadParameter(f"--ready-seconds: {given!r} is no list of seconds such as 31,35,34,90")
    return times


def _utc_seconds(when: datetime | None) -> int | None:
    return None if when is None else int(when.replace(tzinfo=UTC).timestamp())
