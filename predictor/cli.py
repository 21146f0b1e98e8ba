"""The predictor's commands: `forecast` and `serve`. Heavy imports live inside the commands."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from predictor.serving.forecasts import Forecasts, ServedForecast
    from predictor.settings import PredictorSettings

LoadSettings = Callable[[Mapping[tuple[str, ...], Any]], "PredictorSettings"]
"""How a command asks for its settings: by key path, options that override files and variables; None is not given."""

RESOURCES = ("cpu", "memory", "gpu", "gpu_memory", "requests")


@click.command()
@click.argument("workload", metavar="NAMESPACE/NAME")
@click.option("--resource", type=click.Choice(RESOURCES), default="cpu", show_default=True, help="What to forecast.")
@click.option("--history", type=click.Path(path_type=Path), help="Usage table (Parquet or CSV) instead of Prometheus.")
@click.option("--prometheus", metavar="URL", help="Base address of Prometheus.")
@click.option("--model", metavar="ALIAS|VERSION", help="Which registered model (default: the alias in the settings).")
@click.option("--horizon", metavar="DURATION", help="How far ahead, such as 2h.")
@click.option("--step", metavar="DURATION", help="Spacing of samples and forecast steps, such as 5m: the model's own.")
@click.option(
    "--level",
    "levels",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    multiple=True,
    help="Quantile level in (0, 1); may be repeated.",
)
@click.option(
    "--out", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True, help="How to print it."
)
@click.pass_obj
def forecast(
    load: LoadSettings,
    *,
    workload: str,
    resource: str,
    history: Path | None,
    prometheus: str | None,
    model: str | None,
    horizon: str | None,
    step: str | None,
    levels: tuple[float, ...],
    out: str,
) -> None:
    """Print what a workload is going to use, as quantiles over time.

    NAMESPACE/NAME names a workload; write NAMESPACE/KIND/NAME where two kinds share a name. With --history the
    forecast starts where the file ends.

    \b
    Examples:
      foresize forecast shop/cart
      foresize forecast shop/StatefulSet/db --resource memory --horizon 12h
      foresize forecast shop/cart --history usage.parquet --level 0.5 --level 0.99 --out csv
      foresize forecast shop/cart --model 7                  what version 7 would have said
    """
    import time
    from datetime import timedelta

    from predictor.serving.bundle import NoForecast
    from predictor.serving.forecasts import Origin
    from predictor.settings import duration_text
    from predictor.sources.files import FileSource
    from predictor.usage.panel import Resource
    from predictor.wiring import build_predictor, build_source

    settings = load(
        {
            ("prometheus", "url"): prometheus,
            ("history", "step"): step,
            ("forecast", "horizon"): horizon,
            ("forecast", "levels"): sorted(set(levels)) or None,
        }
    )
    wanted = Resource(resource)
    source = build_source(settings, history)
    now = time.time()
    if isinstance(source, FileSource):
        step_seconds = int(settings.history.step.total_seconds())
        now = source.panel(step_seconds).end_seconds + step_seconds
    predictor = build_predictor(settings, source, model=model, resources=(wanted,), peaks_within=timedelta.max)
    answers = predictor.predict(now)
    if answers.source_problem is not None:
        raise answers.source_problem
    if model is not None and answers.model.origin is Origin.NONE and answers.model.problem is not None:
        raise answers.model.problem  # another forecaster is no answer to who asked for this model
    answer = answers.of(answers.named(workload, wanted))
    if isinstance(answer, NoForecast):
        raise click.ClickException(f"no forecast for {workload} {resource}: {answer.reason}")
    trained_for = answers.model.bundle.target.steps
    if answers.model.version and answer.series.values.shape[1] > trained_for:
        reach = duration_text(timedelta(seconds=trained_for * answer.series.step_seconds))
        click.echo(f"the model was trained and calibrated for {reach} ahead; what lies further is less sure", err=True)
    printers = {"table": _print_table, "csv": _print_csv, "json": _print_json}
    printers[out](answer, answers)


def _times(answer: "ServedForecast") -> list[str]:
    series = answer.series
    return [_time(series.cutoff_seconds + int(ahead) * series.step_seconds) for ahead in series.target.ahead]


def _time(seconds: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _print_table(answer: "ServedForecast", answers: "Forecasts") -> None:
    from predictor.backtest.rolling import target_name

    series, model = answer.series, answer.model
    key, served = series.key, series.served
    click.echo(f"{key.workload} {key.resource.value}, in {key.resource.unit}")
    click.echo(f"  by {served.forecaster} of {model.description}" if model.version else f"  by {model.description}")
    if answer.reason and model.version:
        click.echo(f"  {answer.reason}")
    if model.problem is not None:
        click.echo(f"  {model.problem}", err=True)
    click.echo(f"  newest sample {answer.data_age_seconds:.0f} s before the forecast\n")
    rows = [
        [time.replace("T", " ").removesuffix(":00Z"), *(f"{value:.4g}" for value in series.values[:, step])]
        for step, time in enumerate(_times(answer))
    ]
    head = ["UTC", *(f"P{level * 100:g}" for level in series.levels)]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        click.echo("  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    observed = answers.observed(key)
    value = getattr(observed, "value", None)
    if value is not None:
        click.echo(f"\n  now {value:.4g}")
    for peak in answer.peaks:
        window = target_name(peak.target, peak.step_seconds).removeprefix("peak_")
        at_levels = ", ".join(f"P{q * 100:g} {v:.4g}" for q, v in zip(peak.levels, peak.values[:, 0], strict=True))
        click.echo(f"  highest within {window}: {at_levels}")


def _print_csv(answer: "ServedForecast", _: "Forecasts") -> None:
    from predictor.backtest.rolling import target_name

    click.echo("workload,resource,target,cutoff,timestamp,level,value")
    for series in (answer.series, *answer.peaks):
        name = f"{series.key.workload},{series.key.resource.value},{target_name(series.target, series.step_seconds)}"
        for ahead, values in zip(series.target.ahead, series.values.T, strict=True):
            when = f"{_time(series.cutoff_seconds)},{_time(series.cutoff_seconds + int(ahead) * series.step_seconds)}"
            for level, value in zip(series.levels, values.tolist(), strict=True):
                click.echo(f"{name},{when},{level:g},{value!r}")


def _print_json(answer: "ServedForecast", answers: "Forecasts") -> None:
    import orjson

    series, model = answer.series, answer.model
    content = {
        "workload": series.key.workload,
        "resource": series.key.resource.value,
        "unit": series.key.resource.unit,
        "model_version": model.version,
        "model_origin": model.origin.value,
        "model_age_seconds": model.age_seconds(answers.now_seconds),
        "model_problem": str(model.problem) if model.problem else None,
        "forecaster": series.served.forecaster,
        "reason": answer.reason,
        "is_cold": series.served.is_cold,
        "data_age_seconds": answer.data_age_seconds,
        "timestamps": _times(answer),
        "quantiles": {f"{level:g}": series.values[i].tolist() for i, level in enumerate(series.levels)},
        "peaks": [
            {
                "window_seconds": peak.target.steps * peak.step_seconds,
                "quantiles": {f"{level:g}": float(peak.at(level)[0]) for level in peak.levels},
            }
            for peak in answer.peaks
        ],
    }
    click.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())


@click.command()
@click.option("--host", help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.")
@click.option("--history", type=click.Path(path_type=Path), help="Usage table (Parquet or CSV) instead of Prometheus.")
@click.option("--prometheus", metavar="URL", help="Base address of Prometheus.")
@click.pass_obj
def serve(load: LoadSettings, host: str | None, port: int | None, history: Path | None, prometheus: str | None) -> None:
    """Serve forecasts, their accuracy, health and metrics over HTTP until stopped.

    Reads usage, forecasts every workload and scores what it forecast before, over and over; requests are answered
    from memory. With --history the time stands still where the file ends.

    \b
    Examples:
      foresize serve --prometheus http://prom:9090
      foresize serve --host 0.0.0.0 --port 8080
      foresize serve --history usage.parquet --port 0
      curl 'localhost:8080/v1/forecasts?workload=shop/Deployment/cart&resource=cpu&level=0.99'
    """
    import sys
    import time

    import structlog

    from predictor.api import server
    from predictor.api.app import build_app
    from predictor.sources.files import FileSource
    from predictor.wiring import build_protection, build_service, build_source

    settings = load({("serving", "host"): host, ("serving", "port"): port, ("prometheus", "url"): prometheus})
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    # Before anything slow: a port in use is known at once.
    listening = server.listen(settings.serving.host, settings.serving.port)
    protection = build_protection(settings)
    source = build_source(settings, history)
    clock = time.time
    if isinstance(source, FileSource):
        step = int(settings.history.step.total_seconds())
        end = float(source.panel(step).end_seconds + step)

        def clock() -> float:
            return end

    service = build_service(settings, source, clock, keep_scores=history is None)
    name, bound = listening.getsockname()[:2]
    shown = f"[{name}]" if ":" in name else name
    server.serve(
        service,
        build_app(service),
        listening,
        lambda: click.echo(f"serving on {protection.scheme}://{shown}:{bound} (Ctrl-C stops)"),
        protection,
    )
