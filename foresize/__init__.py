"""The front door: mounts each package's commands under one script and loads the settings they share; the Python API.

The API's names are loaded when they are first asked for: the commands start without data frames.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.api import BacktestResult, Model, backtest, fit, load, read_usage

__all__ = ["BacktestResult", "Model", "backtest", "fit", "load", "read_usage"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'foresize' has no attribute {name!r}; its API: {', '.join(__all__)}")
    try:
        from pipelines import api
    except ModuleNotFoundError as error:
        raise ImportError(
            f"foresize.{name} needs the pipelines profile: pip install 'foresize[pipelines]' ({error})"
        ) from error
    return getattr(api, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
