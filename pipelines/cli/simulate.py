"""`foresize simulate`."""

import time
from pathlib import Path

import click

from pipelines.cli.common import (
    HISTORY,
    LoadSettings,
    bad_input,
    check_one_source,
    check_outputs,
    shown_progress,
    stopped_by_sigterm,
)


@click.command()
@click.option("--history", type=HISTORY, help="Usage table (Parquet or CSV) instead of Prometheus.")
@click.option("--prometheus", metavar="URL", help="Base address of Prometheus.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="How many of the newest days are replayed.")
@click.option("--step", metavar="DURATION", help="Spacing of samples, such as 5m.")
@click.option("--span", metavar="DURATION", help="How much past is read, such as 21d.")
@click.option("--workloads", metavar="PATTERN", help="Only workloads that match, such as 'shop/*'.")
@click.option(
    "--sla-percentile", type=float, metavar="P", help="Share of intervals in which demand must fit, in percent."
)
@click.option(
    "--pod-ready", metavar="DURATION", default="2m", show_default=True, help="From a scale-out to Ready pods."
)
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
    step: str | None,
    span: str | None,
    workloads: str | None,
    sla_percentile: float | None,
    pod_ready: str,
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
    """
    check_one_source(history, prometheus)
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
    from datetime import timedelta

    from pipelines.flows import simulation_text, summary
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
    with bad_input(), stopped_by_sigterm(), shown_progress() as told:
        source = build_source(settings, history)
        panel = fetch_history(settings, source, time.time(), told)
        pools = fetch_pools(source, panel.start_seconds, panel.end_seconds, panel.step_seconds)
        made = run_replay(
            settings,
            panel,
            pools,
            None if fit else build_training_store(settings),
            span=timedelta(days=days) if days else None,
            pod_ready=ready,
            workloads=workloads,
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
