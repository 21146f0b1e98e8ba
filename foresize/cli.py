"""The one console script. Mounts each package's commands, loads settings when one asks, and turns errors into words.

Exit codes: 0 done; 1 it could not be done (the message says why); 2 the command line or the configuration is
wrong; 130 interrupted.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoscaler.cli import explain, run, webhook
from foresize import wait_passively
from foresize.doctor import doctor
from pipelines.cli import backtest, demo, oversubscribe, simulate, train
from predictor.cli import forecast, serve

if TYPE_CHECKING:
    from pipelines.settings import Settings

EXAMPLES = """\b
Examples:
  foresize demo                                     the whole path on a cluster made up for you
  foresize doctor                                   what is configured, reachable and allowed
  foresize train --prometheus http://prom:9090      fit, judge and register forecasters
  foresize simulate --history usage.parquet         replay your history against the HPA
  foresize run --dry-run                            watch the cluster and say what would be done
  foresize run                                      … tell it in the objects, and do it for those in mode Auto
"""


class Commands(click.Group):
    """The commands in the order in which a newcomer meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in the order they were mounted."""
        return list(self.commands)


@click.group(
    cls=Commands,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("--config", type=click.Path(path_type=Path), help="Settings file (default: ./foresize.yaml if there).")
@click.version_option(package_name="foresize")
@click.pass_context
def main_group(ctx: click.Context, config: Path | None) -> None:
    """Predicts what Kubernetes workloads will use, and sizes them by a stated SLA percentile.

    Settings come from foresize.yaml, then FORESIZE_* variables (FORESIZE_PROMETHEUS__URL sets prometheus.url),
    then options; docs/settings.md lists them all.
    """

    def settings(overrides: Mapping[tuple[str, ...], Any]) -> "Settings":
        from foresize.settings import load_settings

        given = {path: value for path, value in overrides.items() if value is not None}
        return load_settings(config, os.environ, given)

    ctx.obj = settings


for command in (demo, train, backtest, forecast, simulate, oversubscribe, run, webhook, serve, explain, doctor):
    main_group.add_command(command)


def main() -> None:
    """Run the command line; a known error becomes one message and an exit code, never a stack trace."""
    wait_passively()  # before anything loads OpenMP
    try:
        outcome = main_group.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("foresize: interrupted", err=True)
        sys.exit(130)
    except Exception as error:
        if not _is_ours(error):
            raise
        click.echo(f"foresize: {error}", err=True)
        sys.exit(2 if _is_to_be_mended(error) else 1)
    # Outside its standalone mode click returns the code that a command exits with.
    sys.exit(outcome if isinstance(outcome, int) else 0)


def _is_to_be_mended(error: Exception) -> bool:
    from pipelines.errors import TO_BE_MENDED

    return isinstance(error, TO_BE_MENDED)


def _is_ours(error: Exception) -> bool:
    # Imported here, where the heavy path has long been loaded: `--help` must not pay for NumPy.
    from autoscaler.errors import AutoscalerError
    from models.forecast import ForecastError
    from pipelines.errors import PipelineError
    from predictor.errors import PredictorError

    return isinstance(error, AutoscalerError | ForecastError | PipelineError | PredictorError)
