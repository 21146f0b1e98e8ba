"""A forecast service over a small made-up history, on a clock that the test moves."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np

from models import catalog
from models.forecast import Target
from predictor.api.accuracy_file import AccuracyFile
from predictor.api.service import ForecastService
from predictor.registry.memory import MemoryBundleStore
from predictor.serving.accuracy import AccuracyTracker, followed_horizons
from predictor.serving.bundle import Bundle, SeriesModel
from predictor.serving.ports import UsageSource
from predictor.serving.predictor import Predictor
from predictor.sources.files import MemorySource
from predictor.usage.panel import Resource, SeriesKey, UsagePanel

STEP_SECONDS = 300
START_SECONDS = 1_760_054_400
"""A midnight, UTC."""
LEVELS = (0.5, 0.9, 0.95, 0.99)
CART = "shop/Deployment/cart"
SEARCH = "shop/Deployment/search"


@dataclass
class ManualClock:
    """A clock that stands where it was put."""

    now: float

    def __call__(self) -> float:
        return self.now


def a_history(days: int = 4, seed: int = 7) -> UsagePanel:
    """Two workloads with a daily rhythm and noise; one of them on two resources."""
    steps = days * 288
    rng = np.random.default_rng(seed)
    rhythm = 1.0 + 0.5 * np.sin(np.arange(steps) * 2 * np.pi / 288)
    keys = (SeriesKey(CART, Resource.CPU), SeriesKey(CART, Resource.MEMORY), SeriesKey(SEARCH, Resource.CPU))
    scale = np.asarray([[2.0], [4e9], [0.5]])
    usage = scale * rhythm * (1 + 0.1 * rng.standard_normal((3, steps)))
    return UsagePanel(keys, START_SECONDS, STEP_SECONDS, usage)


def a_store(panel: UsagePanel, trained_until_seconds: int) -> MemoryBundleStore:
    """A store whose champion serves every series by the seasonal naive, uncorrected."""
    bundle = Bundle(
        step_seconds=STEP_SECONDS,
        target=Target(48),
        levels=LEVELS,
        forecasters={(r, "seasonal_naive"): catalog.create("seasonal_naive") for r in Resource},
        series={
            key: SeriesModel(key, "seasonal_naive", np.zeros(len(LEVELS)), reason="a test's") for key in panel.keys
        },
        trained_until_seconds=trained_until_seconds,
    )
    store = MemoryBundleStore()
    store.set_alias("champion", store.add(bundle))
    return store


@dataclass
class ServiceParts:
    """What a service is made of; replace a part to make it fail."""

    panel: UsagePanel = field(default_factory=a_history)
    store: MemoryBundleStore | None = None
    source: UsageSource | None = None
    accuracy_file: Path | None = None
    detailed_series: int = 100
    clock: ManualClock = field(default_factory=lambda: ManualClock(START_SECONDS + 3 * 86_400))

    def service(self) -> ForecastService:
        """The service, nothing refreshed yet."""
        predictor = Predictor(
            source=self.source if self.source is not None else MemorySource(self.panel),
            store=self.store if self.store is not None else a_store(self.panel, START_SECONDS + 3 * 86_400),
            step_seconds=STEP_SECONDS,
            span=timedelta(days=2),
            horizon=timedelta(hours=4),
            levels=LEVELS,
            stale_after=timedelta(minutes=15),
        )
        return ForecastService(
            predictor,
            AccuracyTracker(LEVELS, followed_horizons(STEP_SECONDS, 14_400), STEP_SECONDS),
            self.clock,
            timedelta(minutes=1),
            accuracy_file=AccuracyFile(self.accuracy_file) if self.accuracy_file else None,
            detailed_series=self.detailed_series,
        )
