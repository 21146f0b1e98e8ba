"""The same work by statsforecast and mlforecast, in a process and an environment of their own: prints a line of JSON.

    python -m benchmarks.peers_speed seasonal_naive 1000

Building the data frames is not measured. They forecast from 28 days of 5-minute samples, 24 steps at 5 levels.
"""

import argparse
import json
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.fleet import synthetic_usage
from benchmarks.memory import peak_mb

STEP_SECONDS, DAY_STEPS, HORIZON_STEPS = 300, 288, 24
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
INTERVALS = [60, 80, 90, 98]
"""Central intervals whose upper ends are the levels above the median."""
THETA_SERIES = 10
"""Theta takes a second or so a series: that many are measured, and nothing is extrapolated."""
FITTED_DAYS = 7
"""mlforecast learns from the newest days; all 28 would be four times the rows."""


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("series", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
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
    fit = _timed(lambda: made.fit(frame[frame["ds"] < newest], static_features=[]))
    update = _timed(lambda: made.update(frame[frame["ds"] == newest]))
    predict = _timed(lambda: made.predict(HORIZON_STEPS))
    return {"series": series, "rows": len(frame), "parts": {"fit": fit, "update": update, "forecast": predict}}


CASES: dict[str, Callable[[int, int, int], dict[str, Any]]] = {
    "seasonal_naive": seasonal_naive,
    "theta": theta,
    "mlforecast_lightgbm": mlforecast_lightgbm,
}


def _statsforecast(model: object, series: int, seed: int, threads: int) -> dict[str, Any]:
    from statsforecast import StatsForecast

    frame = _frame(synthetic_usage(series, seed=seed))
    made = StatsForecast(models=[model], freq=f"{STEP_SECONDS}s", n_jobs=threads)
    taken = _timed(lambda: made.forecast(df=frame, h=HORIZON_STEPS, level=INTERVALS))
    return {"series": series, "rows": len(frame), "parts": {"forecast": taken}}


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


def _timed(work: Callable[[], object]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {
        "wall_seconds": round(time.perf_counter() - wall, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
    }


if __name__ == "__main__":
    main()
