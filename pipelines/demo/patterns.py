"""How demand moves: rhythms of the day and week, drift, noise and surprises. Arrays in, arrays out, dice handed in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.forecast import SECONDS_PER_DAY, FloatArray

SECONDS_PER_HOUR = 3600
Knots = tuple[tuple[float, float], ...]
"""Hour of the day (UTC) and level, joined by straight lines."""

CONSUMER: Knots = (
    (0, 0.35), (3, 0.14), (5.5, 0.16), (7, 0.42), (8, 0.62), (10, 0.70), (12.5, 0.84), (14.5, 0.70),
    (17, 0.78), (19, 0.96), (20.5, 1.0), (22, 0.72), (24, 0.35),
)  # fmt: skip
"""People at home: awake from 6, busiest in the evening."""
OFFICE: Knots = (
    (0, 0.04), (6.5, 0.05), (7.5, 0.18), (8.1, 0.72), (9.0, 1.0), (11.5, 0.92), (12.5, 0.66), (13.5, 0.94),
    (16.5, 0.82), (18, 0.32), (20, 0.10), (24, 0.04),
)  # fmt: skip
"""People at work: a steep rise around 8, lunch, home at 18."""
GLOBAL: Knots = (
    (0, 0.62), (3, 0.70), (6, 0.66), (9, 0.84), (13, 0.92), (16, 1.0), (19, 0.86), (22, 0.68), (24, 0.62),
)  # fmt: skip
"""Several time zones: never quiet."""
FLAT: Knots = ((0, 1.0), (24, 1.0))

WORKING_WEEK = (1.0, 1.03, 1.04, 1.0, 0.92, 0.22, 0.18)
SHOPPING_WEEK = (0.90, 0.88, 0.90, 0.95, 1.06, 1.18, 1.12)
EVEN_WEEK = (1.0, 1.0, 1.01, 1.0, 0.99, 0.92, 0.90)
"""Monday to Sunday."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What demand is made of. A level of 1 is a usual peak."""

    day: Knots = FLAT
    week: Sequence[float] = EVEN_WEEK
    floor: float = 0.02
    """Level that is never gone below."""
    drift: float = 0.0
    """Growth over three weeks, as a fraction."""
    day_to_day: float = 0.06
    """Standard deviation of the logarithm of each day's own level."""
    wander: float = 0.05
    """The same for a slow wander within the day (its memory is about two hours)."""
    jitter: float = 0.03
    """The same for independent noise of each step."""
    pushes: tuple[tuple[float, float], ...] = ()
    """Hour and height of a rise that comes each day by schedule and fades within half an hour."""
    bursts_per_week: float = 0.0
    """Surprises: sudden rises at any time."""
    burst_height: float = 0.8


def demand(pattern: Demand, times: NDArray[np.int64], rng: np.random.Generator) -> FloatArray:
    """The level of demand in each step."""
    step = int(times[1] - times[0])
    hours = (times % SECONDS_PER_DAY) / SECONDS_PER_HOUR
    days = times // SECONDS_PER_DAY
    # 1970-01-01 was a Thursday. The factor moves over to the next day's in the small hours, not at midnight sharp.
    weekday = (((times - 4 * SECONDS_PER_HOUR) // SECONDS_PER_DAY) + 3) % 7
    knots = np.asarray(pattern.day)
    level = np.interp(hours, knots[:, 0], knots[:, 1]) * np.asarray(pattern.week)[weekday]
    level *= 1 + pattern.drift * (times - times[0]) / (21 * SECONDS_PER_DAY)
    own_level = rng.normal(0, pattern.day_to_day, int(days[-1] - days[0]) + 2)
    level *= np.exp(np.interp(times / SECONDS_PER_DAY, days[0] + np.arange(own_level.size), own_level))
    for hour, height in pattern.pushes:
        since = (hours - hour) % 24
        level += height * np.clip(since / 0.15, 0, 1) * np.exp(-np.maximum(since - 0.15, 0) / 0.35) * (since < 3)
    level *= np.exp(wander(times.size, pattern.wander, 7200 / step, rng))
    level *= np.exp(rng.normal(0, pattern.jitter, times.size))
    level += bursts(times.size, step, pattern.bursts_per_week, pattern.burst_height, rng)
    return np.asarray(np.maximum(level, pattern.floor), dtype=np.float64)


def wander(steps: int, deviation: float, memory_steps: float, rng: np.random.Generator) -> FloatArray:
    """A first-order autoregressive walk around 0."""
    keep = float(np.exp(-1 / memory_steps))
    shocks = rng.normal(0, deviation * np.sqrt(1 - keep**2), steps)
    out = np.empty(steps)
    value = float(rng.normal(0, deviation))
    for i, shock in enumerate(shocks.tolist()):
        value = keep * value + shock
        out[i] = value
    return out


def bursts(steps: int, step_seconds: int, per_week: float, height: float, rng: np.random.Generator) -> FloatArray:
    """Sudden rises at random times, 10 to 60 minutes long, that fade out."""
    out = np.zeros(steps)
    for start in rng.integers(0, steps, rng.poisson(per_week * steps * step_seconds / (7 * SECONDS_PER_DAY))):
        length = max(2, int(rng.uniform(600, 3600) / step_seconds))
        shape = height * rng.lognormal(0, 0.4) * np.exp(-np.arange(3 * length) / length)
        end = min(steps, start + shape.size)
        out[start:end] += shape[: end - start]
    return out
