"""`foresize oversubscribe`."""

from pathlib import Path

import click

from pipelines.cli.common import (
    HISTORY,
    FiniteRange,
    LoadSettings,
    bad_input,
    check_outputs,
    shown_progress,
    stopped_by_sigterm,
)


@click.command()
@click.option("--history", type=HISTORY, required=True, help="Usage table (Parquet or CSV).")
@click.option("--placement", type=HISTORY, help="Table (Parquet or CSV) with the columns workload and node.")
@click.option(
    "--violation-probability",
    type=FiniteRange(0, 0.5, min_open=True, max_open=True),
    metavar="P",
    help="Share of decisions that usage may exceed, below a half, of every resource; without it 0.01, and 0.001 of "
    "memory.",
)
@click.option("--horizon", metavar="DURATION", help="How far ahead the peak is foretold, up to 4d; without it 24h.")
@click.option("--step", metavar="DURATION", help="Spacing of samples, such as 5m.")
@click.option("--span", metavar="DURATION", help="How much past is read, such as 35d.")
@click.option(
    "--packing/--no-packing", default=True, show_default=True, help="Say how much could be hosted; that takes minutes."
)
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write an HTML report.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write every figure as JSON."
)
@click.pass_obj
def oversubscribe(
    load: LoadSettings,
    *,
    history: Path,
    placement: Path | None,
    violation_probability: float | None,
    horizon: str | None,
    step: str | None,
    span: str | None,
    packing: bool,
    report: Path | None,
    json_path: Path | None,
) -> None:
    """Say how much of its limits each node will not use within a day, and how often that would have been wrong.

    Needs no cluster and changes nothing. The peak of a node is that of the sum of what runs there now, each workload
    capped at its limit (else its capacity or request). Without --placement a node pool stands for a node, and without
    the column node_pool everything is on one; with it the nodes of each pool are added up as well. Then workloads, at
    most 300 that are drawn, are packed onto nodes with too little room by first, best and worst fit: how much is
    hosted, and how often usage exceeds capacity.

    \b
    Examples:
      foresize oversubscribe --history usage.parquet --placement nodes.csv
      foresize oversubscribe --history usage.parquet --violation-probability 0.05 --report oversold.html
    """
    check_outputs({"--history": history, "--placement": placement}, {"--report": report, "--json": json_path})
    settings = load(
        {
            ("oversubscription", "violation_probability"): violation_probability,
            ("oversubscription", "memory_violation_probability"): violation_probability,
            ("oversubscription", "horizon"): horizon,
            ("history", "step"): step,
            ("history", "span"): span,
        }
    )
    import json
    import time

    from pipelines.flows import oversubscription_text, summary
    from pipelines.flows.oversubscribe import oversubscribe as run_decisions
    from pipelines.report.page import write_page
    from pipelines.wiring import fetch_history, read_placement
    from predictor.registry.folder import replace_file
    from predictor.wiring import build_source

    with bad_input(), stopped_by_sigterm(), shown_progress() as told:
        placed = None if placement is None else read_placement(placement)
        panel = fetch_history(settings, build_source(settings, history), time.time(), told)
        made = run_decisions(settings, panel, placed, with_packing=packing, told=told)
    # Files first: who reads what is printed may have gone away.
    if json_path is not None:
        replace_file(json_path, json.dumps(oversubscription_text.json_values(made), indent=1, ensure_ascii=False))
    if report is not None:
        write_page(oversubscription_text.page(made), report)
    for line in [*oversubscription_text.text_lines(made), "", *summary.finding_lines(made.findings)]:
        click.echo(line)
    if report is not None:
        click.echo(f"report: {report}")
