"""`foresize demo`."""

import time

import click

from pipelines.cli.common import LoadSettings, shown_progress, stopped_by_sigterm


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
    click.echo(f"MLflow           {summary.mlflow_command()} ui --backend-store-uri {settings.tracking_uri}")
    click.echo("dashboards       dashboards/grafana (how to import them: dashboards/README.md)")
    click.echo(f"took             {time.monotonic() - begun:.0f} s")
