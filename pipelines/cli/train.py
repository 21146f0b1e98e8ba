"""`foresize train`."""

import time
from pathlib import Path

import click

from pipelines.cli.common import (
    HISTORY,
    LoadSettings,
    bad_input,
    check_one_source,
    check_outputs,
    names,
    numbers,
    shown_progress,
    stopped_by_sigterm,
)


@click.command()
@click.option("--history", type=HISTORY, help="Usage table (Parquet or CSV) instead of Prometheus.")
@click.option("--prometheus", metavar="URL", help="Base address of Prometheus.")
@click.option(
    "--autoscalers",
    type=click.Path(exists=True, path_type=Path),
    help="PredictiveAutoscalers (YAML, or a folder of it) whose queries are asked of Prometheus and trained on too.",
)
@click.option("--step", metavar="DURATION", help="Spacing of samples and forecast steps, such as 5m.")
@click.option("--span", metavar="DURATION", help="How much past is read, such as 21d.")
@click.option("--horizon", metavar="DURATION", help="How far ahead is forecast, such as 4h.")
@click.option("--levels", metavar="L1,L2,…", help="Quantile levels, such as 0.5,0.9,0.99.")
@click.option("--held-out", metavar="DURATION", help="The newest part, which no fit sees and the verdict is made on.")
@click.option("--forecasters", metavar="NAME,…", help="Candidates by catalogue name.")
@click.option("--workloads", metavar="PATTERN", help="Only workloads that match, such as 'shop/*'.")
@click.option("--tracking-uri", metavar="URI", help="MLflow server (default: SQLite in the state folder).")
@click.option("--dry-run", is_flag=True, help="Fit and judge, but write nothing down and register nothing.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as JSON.")
@click.pass_obj
def train(
    load: LoadSettings,
    *,
    history: Path | None,
    prometheus: str | None,
    autoscalers: Path | None,
    step: str | None,
    span: str | None,
    horizon: str | None,
    levels: str | None,
    held_out: str | None,
    forecasters: str | None,
    workloads: str | None,
    tracking_uri: str | None,
    dry_run: bool,
    json_path: Path | None,
) -> None:
    """Fit forecasters for every workload, judge them on days they never saw, and register the model.

    The alias `champion` moves to the new version only if it beats the serving one on the held-out days (or, where
    none serves yet, the baseline). What was judged is what serves: nothing is fitted again afterwards. Exit code 0
    says that the cycle ran, whichever of the two is champion after it.

    \b
    Examples:
      foresize train --prometheus http://prometheus:9090
      foresize train --history usage.parquet --span 30d --workloads 'shop/*'
      kubectl get predictiveautoscalers -A -o yaml > objects.yaml
      foresize train --autoscalers objects.yaml              demand that objects give by queries, too
      foresize train --tracking-uri http://mlflow:5000 --json report.json
      foresize train --history usage.csv --dry-run           what a cycle would say, leaving no trace
    """
    check_one_source(history, prometheus)
    if history is not None and autoscalers is not None:
        raise click.UsageError("--autoscalers needs Prometheus to ask; a history holds them as the resource `custom`")
    check_outputs({"--history": history}, {"--json": json_path})
    settings = load(
        {
            ("prometheus", "url"): prometheus,
            ("history", "step"): step,
            ("history", "span"): span,
            ("forecast", "horizon"): horizon,
            ("forecast", "levels"): numbers("--levels", levels),
            ("training", "held_out"): held_out,
            ("training", "forecasters"): names(forecasters),
            ("registry", "tracking_uri"): tracking_uri,
        }
    )
    import json

    from pipelines.flows import summary
    from pipelines.flows.train import train as run_cycle
    from pipelines.wiring import build_tracker, build_training_source, build_training_store, history_end_seconds

    with bad_input(), stopped_by_sigterm(), shown_progress() as told:
        source = build_training_source(settings, history, autoscalers)
        report = run_cycle(
            settings,
            source,
            build_training_store(settings),
            None if dry_run else build_tracker(settings),
            end_seconds=lambda: history_end_seconds(settings, source, time.time()),
            workloads=workloads,
            told=told,
        )
    # The file first: who reads what is printed may have gone away.
    if json_path is not None:
        from predictor.registry.folder import replace_file

        replace_file(json_path, json.dumps(summary.training_json(report), indent=1, ensure_ascii=False))
    for line in summary.training_lines(report, settings.tracking_uri):
        click.echo(line)
