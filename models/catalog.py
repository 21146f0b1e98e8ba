"""Every forecaster there is, by name. The only such list."""

from collections.abc import Mapping
from typing import Any

from models.baselines.decaying_histogram import DecayingHistogram
from models.baselines.seasonal_naive import SeasonalNaive
from models.forecast import Forecaster, ForecastError, ForecasterState
from models.learned.lightgbm_quantiles import LightGBMQuantiles

FORECASTERS: Mapping[str, type[SeasonalNaive | DecayingHistogram | LightGBMQuantiles]] = {
    kind.name: kind for kind in (SeasonalNaive, DecayingHistogram, LightGBMQuantiles)
}


def names() -> tuple[str, ...]:
    """The names of all forecasters, baselines first."""
    return tuple(FORECASTERS)


def create(name: str, **parameters: Any) -> Forecaster:
    """A forecaster, not fitted, with its default parameters but for those given. Raises ForecastError for others."""
    try:
        return _kind(name)(**parameters)
    except TypeError as error:
        raise ForecastError(f"{name} does not take these parameters: {error}") from error


def from_state(name: str, state: ForecasterState) -> Forecaster:
    """A fitted forecaster back from its data. Raises ForecastError for an unknown name or a state it cannot be."""
    return _kind(name).from_state(state)


def _kind(name: str) -> type[SeasonalNaive | DecayingHistogram | LightGBMQuantiles]:
    if name not in FORECASTERS:
        raise ForecastError(f"there is no forecaster {name!r}; there are {', '.join(names())}")
    return FORECASTERS[name]
