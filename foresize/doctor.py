"""`foresize doctor`: what is configured, reachable and allowed, and how to mend what is not. Changes nothing.

Each area is checked in a thread of its own against a deadline, so the whole takes seconds even when nothing answers.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from foresize.checks.check import Check, Checks, Status
from foresize.checks.cluster import cluster_checks
from foresize.checks.machine import configuration_checks, disk_checks, mlflow_checks
from foresize.checks.prometheus import prometheus_checks

if TYPE_CHECKING:
    from pipelines.settings import Settings

DEADLINE_SECONDS = 12.0
"""Longest any area may take."""
LoadSettings = Callable[[Mapping[tuple[str, ...], Any]], "Settings"]


@click.command()
@click.option("--prometheus", metavar="URL", help="Base address of Prometheus.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Default: the pod's own, else ~/.kube/config.")
@click.option("--context", metavar="NAME", help="Context of the kubeconfig (default: its current one).")
@click.option("--skip-prometheus", is_flag=True, help="Do not ask Prometheus.")
@click.option("--skip-mlflow", is_flag=True, help="Do not ask MLflow.")
@click.option("--skip-cluster", is_flag=True, help="Do not ask the Kubernetes API.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
@click.pass_context
def doctor(
    ctx: click.Context,
    *,
    prometheus: str | None,
    kubeconfig: Path | None,
    context: str | None,
    skip_prometheus: bool,
    skip_mlflow: bool,
    skip_cluster: bool,
    as_json: bool,
) -> None:
    """Check configuration, disk, Prometheus, MLflow, the cluster and permissions, and say what to mend.

    Nothing is changed. Ends with exit code 0 where foresize can work (warnings are allowed), 1 where it cannot.

    \b
    Examples:
      foresize doctor
      foresize doctor --prometheus http://prom:9090 --context staging
      foresize doctor --skip-cluster                 before there is one
      foresize doctor --json | jq '.checks[] | select(.status != "OK")'
    """
    load: LoadSettings = ctx.obj
    settings = load({("prometheus", "url"): prometheus})
    areas: dict[str, Callable[[], Checks]] = {"disk": lambda: disk_checks(settings)}
    if not skip_prometheus:
        areas["prometheus"] = lambda: prometheus_checks(settings, time.time())
    if not skip_mlflow:
        areas["mlflow"] = lambda: mlflow_checks(settings)
    if not skip_cluster:
        areas["cluster"] = lambda: cluster_checks(settings, kubeconfig, context, asks_queries=not skip_prometheus)
    given = ctx.parent.params.get("config") if ctx.parent is not None else None
    checks = [*configuration_checks(settings, given, os.environ), *all_checks(areas, DEADLINE_SECONDS)]
    fails = sum(check.status == "FAIL" for check in checks)
    if as_json:
        import orjson

        body = {"ok": fails == 0, "checks": [asdict(check) for check in checks]}
        click.echo(orjson.dumps(body, option=orjson.OPT_INDENT_2).decode())
    else:
        _print(checks, fails)
    if fails:
        sys.exit(1)


def all_checks(areas: Mapping[str, Callable[[], Checks]], deadline_seconds: float) -> list[Check]:
    """The checks of all areas, in their order; an area that is not done in time fails with what it had so far."""
    from autoscaler.errors import AutoscalerError
    from predictor.errors import CorruptModel, PredictorError

    done: dict[str, list[Check]] = {area: [] for area in areas}

    def work(area: str, checks: Callable[[], Checks]) -> None:
        try:
            for check in checks():
                done[area].append(check)
        except CorruptModel as error:
            done[area].append(
                Check(area, "FAIL", str(error), "run `foresize train`; until then the last good model serves")
            )
        except (PredictorError, AutoscalerError) as error:
            done[area].append(
                Check(area, "FAIL", str(error), f"check the {area} settings (docs/settings.md) and the network")
            )
        except Exception as error:  # a check that breaks must not hide the others
            done[area].append(
                Check(area, "FAIL", f"the check itself broke: {type(error).__name__}: {error}", "report it")
            )

    # Daemons: one that hangs must not keep the process.
    threads = {a: threading.Thread(target=work, args=(a, c), name=a, daemon=True) for a, c in areas.items()}
    until = time.monotonic() + deadline_seconds
    for thread in threads.values():
        thread.start()
    checks: list[Check] = []
    for area, thread in threads.items():
        thread.join(max(0.0, until - time.monotonic()))
        checks += done[area]
        if thread.is_alive():
            # Without the registry the ladder goes on.
            status: Status = "WARN" if area == "mlflow" else "FAIL"
            advice = "check the address, the network and whether it is overloaded"
            checks.append(Check(area, status, f"no answer within {deadline_seconds:g} s", advice))
    return checks


def _print(checks: list[Check], fails: int) -> None:
    colours = {"OK": "green", "WARN": "yellow", "FAIL": "red"}
    for check in checks:
        click.echo(f"{click.style(f'{check.status:<4}', fg=colours[check.status])}  {check.area:<10}  {check.message}")
        if check.advice:
            click.echo(f"{'':18}→ {check.advice}")
    warnings = sum(check.status == "WARN" for check in checks)
    ending = "foresize can work" if not fails else "foresize cannot work yet"
    click.echo(f"\n{ending}: {len(checks) - warnings - fails} OK, {warnings} warnings, {fails} failures")
