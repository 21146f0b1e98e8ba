"""`foresize backtest`."""

from pathlib import Path

import click

from pipelines.cli.common import HISTORY, LoadSettings, bad_input, names, numbers, shown_progress, stopped_by_sigterm


@click.command()
@click.option("--history", type=HISTORY, required=True, help="Usage table (Parquet or CSV).")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Forecasts, .parquet or .csv."
)
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
@click.option("--held-out", metavar="DURATION", help="The newest part, over which a number of cutoffs is spread.")
@click.option("--forecasters", metavar="NAME,…", help="Candidates by catalogue name.")
@click.option("--workloads", metavar="PATTERN", help="Only workloads that match, such as 'shop/*'.")
@click.pass_obj
def backtest(
    load: LoadSettings,
    *,
    history: Path,
    out: Path,
    cutoffs: str,
    horizon: str | None,
    step: str | None,
    levels: str | None,
    held_out: str | None,
    forecasters: str | None,
    workloads: str | None,
) -> None:
    """Forecast a history from past cutoffs, write every forecast, and say how good they were.

    Forecasters are fitted, weighed and calibrated once, on what lies before the first cutoff; each cutoff is then
    forecast from the usage up to it, without retraining; only the weights follow what happens. The file is long,
    with one row for each workload, resource, cutoff, timestamp and level. A series with too few samples before a
    cutoff has no rows for it.

    \b
    Examples:
      foresize backtest --history usage.parquet --out forecasts.parquet
      foresize backtest --history usage.csv --out forecasts.csv --cutoffs 48 --horizon 2h --levels 0.5,0.95
      foresize backtest --history usage.parquet --out f.parquet --cutoffs times.txt --workloads 'shop/*'
    """
    settings = load(
        {
            ("history", "step"): step,
            ("forecast", "horizon"): horizon,
            ("forecast", "levels"): numbers("--levels", levels),
            ("training", "held_out"): held_out,
            ("training", "forecasters"): names(forecasters),
        }
    )
    asked = _cutoffs(cutoffs)

    from pipelines.flows import summary
    from pipelines.flows.backtest import backtest as run_backtest
    from pipelines.tracking.forecast_file import ForecastFile
    from pipelines.tracking.partial_backtest import PartialBacktest
    from predictor.sources.files import FileSource

    with bad_input(), stopped_by_sigterm(), ForecastFile(out) as file, shown_progress() as told:
        told("read", 0, 1)
        panel = FileSource(history).panel(int(settings.history.step.total_seconds()))
        told("read", 1, 1)
        partial = PartialBacktest(out)
        report = run_backtest(
            settings,
            panel,
            file.write,
            partial,
            cutoffs=asked,
            workloads=workloads,
            told=told,
            said=lambda s: click.echo(s, err=True),
        )
        partial.remove()
    for line in summary.backtest_lines(report, str(out)):
        click.echo(line)


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
