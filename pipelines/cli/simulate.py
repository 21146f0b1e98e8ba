"""`foresize simulate`."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from pipelines.cli.common import (
    HISTORY,
    LoadSettings,
    bad_input,
    check_one_source,
    check_outputs,
    names,
    shown_progress,
    stopped_by_sigterm,
)

TIME = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])


@click.command()
@click.option("--history", type=HISTORY, help="Usage table (Parquet or CSV) instead of Prometheus.")
@click.option("--prometheus", metavar="URL", help="Base address of Prometheus.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="How many of the newest days are replayed.")
@click.option("--from", "begin", type=TIME, help="Replay from this time on, instead of --days; UTC.")
@click.option("--to", "end", type=TIME, help="Look at nothing after this time; UTC.")
@click.option("--step", metavar="DURATION", help="Spacing of samples, such as 5m.")
@click.option("--span", metavar="DURATION", help="How much past is read, such as 21d.")
@click.option("--workloads", metavar="PATTERN", help="Only workloads that match, such as 'shop/*'.")
@click.option(
    "--sla-percentile", type=float, metavar="P", help="Share of intervals in which demand must fit, in percent."
)
@click.option(
    "--pod-ready", metavar="DURATION", default="2m", show_default=True, help="From a scale-out to Ready pods."
)
@click.option("--policies", metavar="NAMES", help="Others to replay beside foresize and the HPA, with commas between.")
@click.option(
    "--requests",
    is_flag=True,
    help="What containers request as well: beside the VPA, Autopilot and what they request now.",
)
@click.option("--sweep", is_flag=True, help="Every setting of every policy as well, compared at equal violations.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that replay.")
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
    pod_ready: str,
    policies: str | None,
    sweep: bool,
    jobs: int,
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
    Examples:
      foresize simulate --prometheus http://prometheus:9090 --days 3 --report replay.html
      foresize simulate --history usage.parquet --workloads 'shop/*' --sla-percentile 99.5
      foresize simulate --history usage.csv --fit --json replay.json
      foresize simulate --prometheus http://prometheus:9090 --requests --report replay.html
      foresize simulate --history usage.parquet --from 2026-06-01 --to 2026-06-08 --sweep --jobs 4
    """
    check_one_source(history, prometheus)
    if days is not None and begin is not None:
        raise click.UsageError("--days and --from exclude each other: both say where the replay begins")
    if begin is not None and end is not None and begin >= end:
        raise click.UsageError(f"--from {begin} is not before --to {end}")
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

    from autoscaler.simulator.catalog import named
    from autoscaler.simulator.outcome import ReplayError
    from pipelines.flows import simulation_text, summary
    from pipelines.flows.simulate import Asked
    from pipelines.flows.simulate import simulate as run_replay
    from pipelines.report.page import write_page
    from pipelines.wiring import build_training_store, fetch_history, fetch_pools
    from predictor.registry.folder import replace_file
    from predictor.settings import parse_duration
    from predictor.wiring import build_source

    try:
        ready = parse_duration(pod_ready)
    except ValueError as error:
        raise click.BadParameter(f"--pod-ready: {error}") from None
    asked = Asked(
        span=timedelta(days=days) if days else None,
        from_seconds=_utc_seconds(begin),
        to_seconds=_utc_seconds(end),
        pod_ready=ready,
        workloads=workloads,
        policies=tuple(names(policies) or ()),
        sweep=sweep,
        requests=requests,
        jobs=jobs,
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


def _utc_seconds(when: datetime | None) -> int | None:
    return None if when is None else int(when.replace(tzinfo=UTC).timestamp())
