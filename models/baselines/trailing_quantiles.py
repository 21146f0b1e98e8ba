"""The next hours are a draw from the last ones: quantiles of a trailing window, the same for each step ahead."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from models.forecast import (
    SECONDS_PER_DAY,
    ForecasterState,
    History,
    QuantileForecast,
    checked_horizon,
    checked_levels,
    checked_parameters,
    last_samples,
    monotone,
    row_quantiles,
)


@dataclass(frozen=True, slots=True)
class TrailingQuantiles:
    """Quantiles of the samples of the last `window_seconds`; of the newest sample where the window holds none."""

    name: ClassVar[str] = "trailing_quantiles"

    window_seconds: int = SECONDS_PER_DAY

    def fit(self, history: History) -> Self:  # noqa: ARG002 - the contract's argument
        """Nothing is learned across series."""
        return self

    def predict(self, history: History, horizon_steps: int, levels: Sequence[float]) -> QuantileForecast:
        """Quantiles of each step, flat over the horizon; see the contract."""
        quantiles = checked_levels(levels)
        horizon = checked_horizon(horizon_steps)
        window = history.last(max(self.window_seconds // history.step_seconds, 1)).usage
        found = row_quantiles(window, quantiles)
        found = np.where(np.isnan(found), last_samples(history.usage)[:, None], found)
        values = np.repeat(found[:, :, None], horizon, axis=2)
        return QuantileForecast(tuple(quantiles.tolist()), monotone(values), history.end_seconds, history.step_seconds)

    def to_state(self) -> ForecasterState:
        """The parameters."""
        return ForecasterState({"window_seconds": self.window_seconds})

    @classmethod
    def from_state(cls, state: ForecasterState) -> Self:
        """Back from the parameters."""
        return cls(**checked_parameters(cls.name, state, {"window_seconds": int}))
