"""The pipelines' settings: how forecasters are fitted, judged and promoted."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field, field_validator

from autoscaler.settings import AutoscalerSettings
from predictor.settings import Duration, Listed, Section


class TrainingSettings(Section):
    """How a training cycle runs."""

    held_out: Duration = timedelta(days=3)
    """The newest part of the history: never seen by any fit, only by the final score."""
    calibration: Duration = timedelta(days=14)
    """The part before it: forecasters are weighed, chosen and calibrated on it."""
    cutoffs: int = Field(default=24, ge=2)
    """Rolling cutoffs in the held-out part."""
    rehearsals: int = Field(default=60, ge=2)
    """Rolling cutoffs in the calibration part, at most: a large fleet, which knows more from each, gets fewer."""
    forecasters: Annotated[tuple[str, ...], Listed] = (
        "seasonal_naive",
        "decaying_histogram",
        "trailing_4h",
        "trailing_24h",
        "trailing_72h",
        "trailing_7d",
        "trailing_28d",
        "hour_of_day",
        "trailing_mixture",
        "analogs_short",
        "analogs_long",
        "lightgbm_quantiles",
    )
    """What is combined for every workload, by catalogue name."""
    baseline: str = "seasonal_naive"
    """What the combination must beat for a workload; it serves where it does not."""
    minimum_gain: float = Field(default=0.01, ge=0, lt=1)
    """Relative gain in pinball loss that a challenger needs over the champion."""
    seed: int = 0
    """Seed of every random choice."""
    threads: int = Field(default=2, ge=1)
    """Threads to fit and to forecast with; each forecasts some of the series."""

    @field_validator("forecasters", "baseline")
    @classmethod
    def _in_the_catalogue(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        from models import catalog

        unknown = [name for name in ((value,) if isinstance(value, str) else value) if name not in catalog.names()]
        if unknown:
            raise ValueError(f"there is no forecaster {', '.join(unknown)}; accepted: {', '.join(catalog.names())}")
        return value


class Settings(AutoscalerSettings):
    """The whole configuration: foresize.yaml and FORESIZE_* variables."""

    training: TrainingSettings = TrainingSettings()
