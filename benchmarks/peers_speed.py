"""The same work by statsforecast and mlforecast, in a process and an environment of their own: prints a line of JSON.

    python -m benchmarks.peers_speed seasonal_naive 1000

Building the data frames is not measured. They forecast from 28 days of 5-minute samples, 24 steps at 5 levels.
"""

import json
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.case import HORIZON_STEPS, LEVELS, STEP_SECONDS, Parts, parser_of, peak_mb, timed
from benchmarks.fleet import synthetic_usage

DAY_STEPS = 288
INTERVALS = [60, 80, 90, 98]
"""Central intervals whose upper ends are the levels above the median."""
THETA_SERIES = 10
"""Theta takes a second or so a series: that many are measured, and nothing is extrapolated."""
FITTED_DAYS = 7
"""mlforecast learns from the newest days; all 28 would be four times the rows."""


def main() -> None:
    """Measure what is asked for."""
    asked = parser_of(__doc__, CASES).parse_args()
    result = CASES[asked.case](asked.series, asked.seed, asked.threads)
    versions = {name: metadata.version(name) for name in ("statsforecast", "mlforecast", "lightgbm", "pandas", "numpy")}
    print(json.dumps(result | {"peak_mb": round(peak_mb()), "versions": versions}))


def seasonal_naive(series: int, seed: int, threads: int) -> dict[str, Any]:
    """Statsforecast's seasonal naive; it has no fit apart from its forecast."""
    from statsforecast.models import SeasonalNaive

    return _statsforecast(SeasonalNaive(season_length=DAY_STEPS), series, seed, threads)


def theta(series: int, seed: int, threads: int) -> dict[str, Any]:
    """Statsforecast's Theta, on some of the series."""
    from statsforecast.models import Theta

    return _statsforecast(Theta(season_length=DAY_STEPS), min(series, THETA_SERIES), seed, threads)


def mlforecast_lightgbm(series: int, seed: int, threads: int) -> dict[str, Any]:
    """Mlforecast with a LightGBM model per level: fitted once, then updated with a step and asked."""
    from lightgbm import LGBMRegressor
    from mlforecast import MLForecast

    frame = _frame(synthetic_usage(series, seed=seed)[:, -FITTED_DAYS * DAY_STEPS :])
    models = {
        f"q{level}": LGBMRegressor(
            objective="quantile", alpha=level, n_estimators=60, num_leaves=16, n_jobs=threads, verbosity=-1
        )
        for level in LEVELS
    }
    made = MLForecast(
        models=models, freq=f"{STEP_SECONDS}s", lags=[1, 2, 3, 6, 12, DAY_STEPS], date_features=["hour", "dayofweek"]
    )
    newest = frame["ds"].max()
    parts: Parts = {}
    with timed(parts, "fit"):
        made.fit(frame[frame["ds"] < newest], static_features=[])
    with timed(parts, "update"):
        made.update(frame[frame["ds"] == newest])
    with timed(parts, "forecast"):
        made.predict(HORIZON_STEPS)
    return {"series": series, "rows": len(frame), "parts": parts}


CASES: dict[str, Callable[[int, int, int], dict[str, Any]]] = {
    "seasonal_naive": seasonal_naive,
    "theta": theta,
    "mlforecast_lightgbm": mlforecast_lightgbm,
}


def _statsforecast(model: object, series: int, seed: int, threads: int) -> dict[str, Any]:
    from statsforecast import StatsForecast

    frame = _frame(synthetic_usage(series, seed=seed))
    made = StatsForecast(models=[model], freq=f"{STEP_SECONDS}s", n_jobs=threads)
    parts: Parts = {}
    with timed(parts, "forecast"):
        made.forecast(df=frame, h=HORIZON_STEPS, level=INTERVALS)
    return {"series": series, "rows": len(frame), "parts": parts}


def _frame(usage: "np.typing.NDArray[np.float64]") -> pd.DataFrame:
    """The long table; a missing sample is the one before, as neither peer takes gaps."""
    filled = pd.DataFrame(usage.T).ffill().bfill().to_numpy().T
    steps = usage.shape[1]
    times = pd.date_range("2026-01-05", periods=steps, freq=f"{STEP_SECONDS}s")
    return pd.DataFrame(
        {
            "unique_id": np.repeat(np.arange(len(usage)), steps),
            "ds": np.tile(times.to_numpy(), len(usage)),
            "y": filled.ravel().astype(np.float32),
        }
    )


if __name__ == "__main__":
    main()
