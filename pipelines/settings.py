"""The pipelines' settings: how forecasters are fitted, judged and promoted."""

from datetime import timedelta

from pydantic import Field

from autoscaler.settings import AutoscalerSettings
from predictor.settings import Duration, Section


class TrainingSettings(Section):
    """How a training cycle runs."""

    held_out: Duration = timedelta(days=3)
    """The newest part of the history: never seen by any fit, only by the final score."""
    calibration: Duration = timedelta(days=2)
    """The part before it: forecasters are chosen and calibrated on it."""
    cutoffs: int = Field(default=12, ge=2)
    """Rolling cutoffs, spread over each of the two parts."""
    forecasters: tuple[str, ...] = ("seasonal_naive", "decaying_histogram", "lightgbm_quantiles")
    """Candidates for every workload, by catalogue name."""
    baseline: str = "seasonal_naive"
    """What a candidate must beat; it serves where nothing does."""
    minimum_gain: float = Field(default=0.01, ge=0, lt=1)
    """Relative gain in pinball loss that a challenger needs over the champion."""
    seed: int = 0
    """Seed of every random choice."""
    threads: int = Field(default=2, ge=1)
    """Threads for LightGBM."""


class Settings(AutoscalerSettings):
    """The whole configuration: foresize.yaml and FORESIZE_* variables."""

    training: TrainingSettings = TrainingSettings()
