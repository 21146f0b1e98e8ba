"""The front door: mounts each package's commands under one script and loads the settings they share; the Python API.

The API's names are loaded when they are first asked for: the commands start without data frames.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.api import BacktestResult, Model, backtest, fit, load, node_peak_quantile, node_totals, read_usage

__all__ = ["BacktestResult", "Model", "backtest", "fit", "load", "node_peak_quantile", "node_totals", "read_usage"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'foresize' has no attribute {name!r}; its API: {', '.join(__all__)}")
    wait_passively()
    try:
        from pipelines import api
    except ModuleNotFoundError as error:
        raise ImportError(
            f"foresize.{name} needs the pipelines profile: pip install 'foresize[pipelines]' ({error})"
        ) from error
    return getattr(api, name)


def wait_passively() -> None:
    """LightGBM's idle threads sleep instead of spinning, unless told otherwise: on a busy machine fits take 20 times as
    long else. In force if nothing has loaded OpenMP yet.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
