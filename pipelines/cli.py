"""The pipelines' commands. Heavy imports live inside the commands, so that `--help` costs nothing."""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from types import FrameType

    from pipelines.flows.clock import Told
    from pipelines.settings import Settings

LoadSettings = Callable[[Mapping[tuple[str, ...], Any]], "Settings"]
"""How a command asks for its settings: by key path, options that override files and variables; None is not given."""

HISTORY = click.Path(exists=True, dir_okay=False, path_type=Path)


class BadInput(click.ClickException):
    """Input or configuration that cannot be used. Exit code 2."""

    exit_code = 2


@click.command()
@click.option("--history", type=HISTORY, help="Usage table (Parquet or CSV) instead of Prometheus.")
@click.option("--prometheus", metavar="URL", help="Base address of Prometheus.")
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
      foresize train --tracking-uri http://mlflow:5000 --json report.json
      foresize train --history usage.csv --dry-run           what a cycle would say, leaving no trace
    """
    _check_one_source(history, prometheus)
    settings = load(
        {
            ("prometheus", "url"): prometheus,
            ("history", "step"): step,
            ("history", "span"): span,
            ("forecast", "horizon"): horizon,
            ("forecast", "levels"): _numbers("--levels", levels),
            ("training", "held_out"): held_out,
            ("training", "forecasters"): _names(forecasters),
            ("registry", "tracking_uri"): tracking_uri,
        }
    )
    import json

    from pipelines.flows import summary
    from pipelines.flows.train import train as run_cycle
    from pipelines.wiring import build_tracker, build_training_store, history_end_seconds
    from predictor.wiring import build_source

    with _bad_input(), stopped_by_sigterm(), shown_progress() as told:
        source = build_source(settings, history)
        report = run_cycle(
            settings,
            source,
            build_training_store(settings),
            None if dry_run else build_tracker(settings),
            end_seconds=lambda: history_end_seconds(settings, source, time.time()),
            workloads=workloads,
            told=told,
        )
    for line in summary.training_lines(report, settings.tracking_uri):
        click.echo(line)
    if json_path is not None:
        from predictor.registry.folder import replace_file

        replace_file(json_path, json.dumps(summary.training_json(report), indent=1, ensure_ascii=False))


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

    Forecasters are fitted, chosen per series and calibrated once, on what lies before the first cutoff; each cutoff
    is then forecast from the usage up to it, without retraining. The file is long, with one row for each workload,
    resource, cutoff, timestamp and level. A series with too few samples before a cutoff has no rows for it.

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
            ("forecast", "levels"): _numbers("--levels", levels),
            ("training", "held_out"): held_out,
            ("training", "forecasters"): _names(forecasters),
        }
    )
    asked = _cutoffs(cutoffs)

    from pipelines.flows import summary
    from pipelines.flows.backtest import backtest as run_backtest
    from pipelines.tracking.forecast_file import ForecastFile
    from predictor.sources.files import FileSource

    with _bad_input(), stopped_by_sigterm(), ForecastFile(out) as file, shown_progress() as told:
        told("read", 0, 1)
        panel = FileSource(history).panel(int(settings.history.step.total_seconds()))
        told("read", 1, 1)
        report = run_backtest(settings, panel, file.write, cutoffs=asked, workloads=workloads, told=told)
    for line in summary.backtest_lines(report, str(out)):
        click.echo(line)


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
    _check_one_source(history, prometheus)
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
    with _bad_input(), stopped_by_sigterm(), shown_progress() as told:
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
    for line in [*simulation_text.text_lines(made), "", *summary.finding_lines(made.findings)]:
        click.echo(line)
    if json_path is not None:
        replace_file(json_path, json.dumps(simulation_text.json_values(made), indent=1, ensure_ascii=False))
    if report is not None:
        write_page(simulation_text.page(made), report)
        click.echo(f"report: {report}")


@click.command()
@click.option("--seed", type=int, default=7, show_default=True, help="Seed of the made-up cluster.")
@click.option("--days", type=click.IntRange(min=14), default=21, show_default=True, help="Days of history.")
@click.pass_obj
def demo(load: LoadSettings, *, seed: int, days: int) -> None:
    """The whole path on a cluster made up for you: Prometheus, training, replay, one table and one report.

    Starts a real Prometheus on loopback over a history in the names and labels that clusters have (or reads the same
    history from Parquet where there is no Prometheus, and says so), fits and registers forecasters in a local MLflow,
    and replays the days that no fit has seen. Everything is kept in the folder `demo` of the state folder; a second
    run reuses it. Nothing outside is needed or touched.

    \b
    Examples:
      foresize demo
      foresize demo --seed 11 --days 28
    """
    from pipelines.flows import simulation_text, summary
    from pipelines.flows.demo import demo as run_demo
    from pipelines.report.page import write_page
    from pipelines.wiring import build_tracker, build_training_store, demo_history, fetch_pools

    settings = load({})
    begun = time.monotonic()
    folder = settings.state_folder / "demo"
    settings = load(
        {
            ("state_folder",): folder,
            ("history", "span"): f"{days}d",
            ("history", "step"): "5m",
            ("registry", "tracking_uri"): "",
            ("prometheus", "scrape_interval"): "5m",
        }
    )
    with (
        stopped_by_sigterm(),
        shown_progress() as told,
        demo_history(settings, folder, seed=seed, days=days, now_seconds=time.time(), told=told) as world,
    ):
        made = run_demo(
            settings,
            world.source,
            lambda start, end, step: fetch_pools(world.source, start, end, step),
            build_training_store(settings),
            build_tracker(settings),
            end_seconds=world.end_seconds,
            origin=world.origin,
            told=told,
        )
    report = folder / "report.html"
    write_page(made.page, report)
    for line in ["", *summary.training_lines(made.training, settings.tracking_uri)]:
        click.echo(line)
    for line in ["", *simulation_text.text_lines(made.simulation)]:
        click.echo(line)
    click.echo("")
    click.echo(f"usage came from  {world.origin}")
    click.echo(f"report           {report.resolve()}")
    click.echo(f"MLflow           mlflow ui --backend-store-uri {settings.tracking_uri}")
    click.echo("dashboards       dashboards/grafana (how to import them: dashboards/README.md)")
    click.echo(f"took             {time.monotonic() - begun:.0f} s")


@contextmanager
def shown_progress() -> "Iterator[Told]":
    """Bars on a terminal, one line per finished step elsewhere; on standard error, so that output stays clean."""
    if not sys.stderr.isatty():
        begun: dict[str, float] = {}

        def told(step: str, done: int, total: int) -> None:
            begun.setdefault(step, time.monotonic())
            if done == total:
                click.echo(f"{step}: {time.monotonic() - begun.pop(step):.1f} s", err=True)

        yield told
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<10}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def drawn(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=None)
            # A step that does not say how far it is moves to and fro until it is over.
            bars.update(tasks[step], completed=done, total=None if (done, total) == (0, 1) else total)

        yield drawn


@contextmanager
def _bad_input() -> Iterator[None]:
    """What the user can mend in the input or the configuration ends with exit code 2."""
    from pipelines.errors import NotEnoughHistory
    from predictor.errors import InvalidUsage, SourceRefused, UnknownWorkload

    try:
        yield
    except (InvalidUsage, UnknownWorkload, SourceRefused, NotEnoughHistory) as error:
        raise BadInput(str(error)) from error


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """A pod that is told to stop ends as if interrupted at the keyboard: the run is marked, nothing is left behind."""

    def stop(_number: int, _frame: "FrameType | None") -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_one_source(history: Path | None, prometheus: str | None) -> None:
    if history is not None and prometheus is not None:
        raise click.UsageError("--history and --prometheus exclude each other: usage is read from one place")


def _numbers(option: str, text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{option}: {text!r} is not a list of numbers such as 0.5,0.9,0.99") from None


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


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
