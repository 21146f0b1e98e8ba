"""Every forecaster there is, by name. The only such list."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from models.baselines.decaying_histogram import DecayingHistogram
from models.baselines.hour_of_day import HourOfDay
from models.baselines.seasonal_naive import SeasonalNaive
from models.baselines.trailing_quantiles import TrailingQuantiles
from models.forecast import SECONDS_PER_DAY, Forecaster, ForecastError, ForecasterState
from models.learned.analogs import Analogs
from models.learned.lightgbm_quantiles import LightGBMQuantiles
from models.learned.mixture import TrailingMixture
from models.learned.ridge import RidgeFourier

Kind = type[
    SeasonalNaive
    | DecayingHistogram
    | TrailingQuantiles
    | HourOfDay
    | TrailingMixture
    | Analogs
    | RidgeFourier
    | LightGBMQuantiles
]


@dataclass(frozen=True, slots=True)
class Entry:
    """A kind of forecaster with the parameters that make it the one of this name."""

    kind: Kind
    parameters: Mapping[str, Any] = field(default_factory=dict)


FORECASTERS: Mapping[str, Entry] = {
    "seasonal_naive": Entry(SeasonalNaive),
    "decaying_histogram": Entry(DecayingHistogram),
    "trailing_4h": Entry(TrailingQuantiles, {"window_seconds": 4 * 3600}),
    "trailing_24h": Entry(TrailingQuantiles, {"window_seconds": SECONDS_PER_DAY}),
    "trailing_72h": Entry(TrailingQuantiles, {"window_seconds": 3 * SECONDS_PER_DAY}),
    "trailing_7d": Entry(TrailingQuantiles, {"window_seconds": 7 * SECONDS_PER_DAY}),
    "trailing_28d": Entry(TrailingQuantiles, {"window_seconds": 28 * SECONDS_PER_DAY}),
    "hour_of_day": Entry(HourOfDay),
    "trailing_mixture": Entry(TrailingMixture),
    "analogs_short": Entry(Analogs, {"context_steps": 12, "neighbours": 40, "lag_decay": 0.3}),
    "analogs_long": Entry(Analogs, {"context_steps": 24, "neighbours": 60, "lag_decay": 0.1}),
    "ridge_fourier": Entry(RidgeFourier),
    "lightgbm_quantiles": Entry(LightGBMQuantiles),
}


def names() -> tuple[str, ...]:
    """The names of all forecasters, baselines first."""
    return tuple(FORECASTERS)


def parameters_of(name: str) -> frozenset[str]:
    """What `create` accepts for a forecaster beside its name. Raises ForecastError for an unknown one."""
    return frozenset(field.name for field in fields(_entry(name).kind) if field.init)


def create(name: str, **parameters: Any) -> Forecaster:
    """A forecaster, not fitted, with its default parameters but for those given. Raises ForecastError for others."""
    entry = _entry(name)
    try:
        return entry.kind(**{**entry.parameters, **parameters})
    except TypeError as error:
        raise ForecastError(f"{name} does not take these parameters: {error}") from error


def from_state(name: str, state: ForecasterState) -> Forecaster:
    """A fitted forecaster back from its data. Raises ForecastError for an unknown name or a state it cannot be."""
    return _entry(name).kind.from_state(state)


def _entry(name: str) -> Entry:
    if name not in FORECASTERS:
        raise ForecastError(f"there is no forecaster {name!r}; there are {', '.join(names())}")
    return FORECASTERS[name]
