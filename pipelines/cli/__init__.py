"""The pipelines' commands, one a file. Heavy imports live inside the commands, so that `--help` costs nothing."""

from pipelines.cli.backtest import backtest
from pipelines.cli.demo import demo
from pipelines.cli.oversubscribe import oversubscribe
from pipelines.cli.simulate import simulate
from pipelines.cli.train import train

__all__ = ["backtest", "demo", "oversubscribe", "simulate", "train"]
