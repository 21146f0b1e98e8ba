"""`foresize backtest`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from pipelines.cli.common import (
    HISTORY,
    BadInput,
    LoadSettings,
    bad_input,
    check_outputs,
    names,
    numbers,
    shown_progress,
    stopped_by_sigterm,
)

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--history", type=HISTORY, required=True, help="Usage table (Parquet or CSV).")
@click.option("--out", type=FILE, required=True, help="Forecasts, .parquet or .csv.")
@click.option("--report", type=FILE, help="Write an HTML report.")
@click.option("--json", "json_path", type=FILE, help="Write every figure as JSON.")
@click.option(
    "--cutoffs",
    metavar="N|FILE",
    default="12",
    show_default=True,
    help="How many cutoffs, spread over the newest days; or a file with one ISO 8601 time per line.",
)
@click.option("--horizon", metavar="DURATION", help="How far ahead is forecast, such as 4h.")
@click.option("--step", metavar="DURATION", help="Spacing of samples and forecast steps, such as 5m.")
@click.option("--levels", metavar="L1,L2,…", help="Quantile levels, such as 0.5,0.9,0.99.")
@click.option(
    "--peak",
    "--peaks",
    "peak",
    metavar="DURATION,…",
    help="Windows whose highest usage is forecast as well, such as 1h,24h.",
)
@click.option("--held-out", metavar="DURATION", help="The newest part, over which a number of cutoffs is spread.")
@click.option("--forecasters", metavar="NAME,…", help="Candidates by catalogue name.")
@click.option("--workloads", metavar="PATTERN", help="Only workloads that match, such as 'shop/*'.")
@click.option(
    "--sum",
    "together",
    type=click.Choice(["namespace", "node_pool", "all"]),
    help="Forecast what the workloads of a namespace, of a node pool, or all use together, instead of each.",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes, at most.  [default: the number of cores]")
@click.option("--restart", is_flag=True, help="Begin anew, whatever an interrupted run has kept.")
@click.pass_obj
def backtest(
    load: LoadSettings,
    *,
    history: Path,
    out: Path,
    report: Path | None,
    json_path: Path | None,
    cutoffs: str,
    horizon: str | None,
    step: str | None,
    levels: str | None,
    peak: str | None,
    held_out: str | None,
    forecasters: str | None,
    workloads: str | None,
    together: str | None,
    jobs: int | None,
    restart: bool,
) -> None:
    """Forecast a history from past cutoffs, write every forecast, and say how good they were.

    Forecasters are fitted, weighed and calibrated once, before the first cutoff, and not retrained between cutoffs;
    only their weights go on learning, as they do in serving. Each cutoff is forecast from the usage up to it. The file
    is long, with one row for each workload, resource, target, cutoff, timestamp and level. The target is `step`, or
    with --peak also `peak_1h` and alike, whose timestamp is the window's last step. A series with too few samples
    before a cutoff has no rows for it.

    foresize is compared with every forecaster alone, on the same points. Intervals are bootstraps over series.

    With --sum each sum is a series of its own, fitted and calibrated as such: the quantile of a sum is not the sum of
    quantiles, nor its peak the sum of peaks.

    What is done is kept in OUT.partial until all of it is: the same command continues an interrupted run. A changed
    history, setting or cutoff begins anew. The number of jobs changes nothing but the time.

    \b
    Examples:
      foresize backtest --history usage.parquet --out forecasts.parquet --report backtest.html
      foresize backtest --history usage.csv --out forecasts.csv --cutoffs 48 --horizon 2h --levels 0.5,0.95
      foresize backtest --history usage.parquet --out peaks.parquet --peak 15m,1h,24h --cutoffs 24
      foresize backtest --history usage.parquet --out pools.parquet --sum node_pool --peak 24h
      foresize backtest --history usage.parquet --out f.parquet --cutoffs times.txt --workloads 'shop/*' --json f.json
    """
    settings = load(
        {
            ("history", "step"): step,
            ("forecast", "horizon"): horizon,
            ("forecast", "levels"): numbers("--levels", levels),
            ("forecast", "peaks"): names(peak) or [],
            ("training", "held_out"): held_out,
            ("training", "forecasters"): names(forecasters),
        }
    )
    asked = _cutoffs(cutoffs)

    times = None if isinstance(asked, int) else Path(cutoffs)
    check_outputs({"--history": history, "--cutoffs": times}, {"--out": out, "--report": report, "--json": json_path})

    import json

    from joblib import cpu_count

    from pipelines.flows import backtest_text, summary
    from pipelines.flows.backtest import backtest as run_backtest
    from pipelines.report.page import write_page
    from pipelines.tracking.forecast_file import ForecastFile
    from pipelines.tracking.partial_backtest import PartialBacktest
    from predictor.registry.folder import replace_file
    from predictor.sources.files import FileSource
    from predictor.usage.sums import Together

    partial = PartialBacktest(out, restart=restart)
    with bad_input(), stopped_by_sigterm(), _kept_when_stopped(partial.folder):
        with ForecastFile(out) as file, shown_progress() as told:
            told("read", 0, 1)
            panel = FileSource(history).panel(int(settings.history.step.total_seconds()))
            told("read", 1, 1)
            made = run_backtest(
                settings,
                panel,
                file.write,
                partial,
                cutoffs=asked,
                workloads=workloads,
                together=Together(together) if together else None,
                jobs=jobs or cpu_count(),
                told=told,
                said=lambda sentence: click.echo(sentence, err=True),
            )
        # Files first: who reads what is printed may have gone away.
        try:
            if json_path is not None:
                replace_file(json_path, json.dumps(backtest_text.json_values(made), indent=1, ensure_ascii=False))
            if report is not None:
                write_page(backtest_text.page(made), report)
        except OSError as error:
            raise BadInput(f"{error.filename or report}: cannot be written: {error.strerror}") from error
        partial.remove()
        for line in [*summary.backtest_lines(made, str(out)), *backtest_text.method_lines(made)]:
            click.echo(line)
        for line in ["", *summary.finding_lines(made.findings)]:
            click.echo(line)
        if report is not None:
            click.echo(f"report: {report}")


@contextmanager
def _kept_when_stopped(folder: Path) -> Iterator[None]:
    """Says where an interrupted run can be continued from."""
    try:
        yield
    except KeyboardInterrupt:
        if folder.exists():
            click.echo(f"stopped; what is done is kept in {folder}: the same command continues there", err=True)
        raise


def _cutoffs(text: str) -> int | tuple[int, ...]:
    """A number of cutoffs, or those in a file as epoch seconds; a time without a zone is UTC."""
    from datetime import UTC, datetime

    if text.lstrip("-").isdigit():
        if int(text) < 1:
            raise click.BadParameter(f"--cutoffs: {text} cutoffs; needed is at least one")
        return int(text)
    path = Path(text)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problem = f"--cutoffs: {text!r} is neither a number nor a file that can be read: {error}"
        raise click.BadParameter(problem) from None
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            when = datetime.fromisoformat(line.strip())
        except ValueError:
            raise click.BadParameter(f"--cutoffs: {path}:{number}: {line.strip()!r} is not an ISO 8601 time") from None
        found.append(int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()))
    if not found:
        raise click.BadParameter(f"--cutoffs: {path} holds no time")
    return tuple(found)
