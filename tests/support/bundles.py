"""A small fitted bundle, and usage to forecast from."""

import numpy as np

from models import catalog
from models.forecast import Target
from predictor.serving.bundle import Bundle, SeriesModel
from predictor.usage.panel import Resource, SeriesKey, UsagePanel
from tests.support.histories import STEP_SECONDS, daily_usage
from tests.support.panels import a_panel

LEVELS = (0.5, 0.9)


def some_usage() -> UsagePanel:
    """Nine days of two workloads' cpu."""
    return a_panel(daily_usage(series=2, days=9))


def a_bundle(offset: float = 0.0) -> Bundle:
    """The workloads of `some_usage`, served by two forecasters, their quantiles moved by an offset."""
    keys = (SeriesKey("shop/Deployment/w0", Resource.CPU), SeriesKey("shop/Deployment/w1", Resource.CPU))
    names = ("seasonal_naive", "decaying_histogram")
    return Bundle(
        step_seconds=STEP_SECONDS,
        target=Target(8),
        levels=LEVELS,
        forecasters={
            (Resource.CPU, name): catalog.create(name).fit(some_usage().history(), Target(8)) for name in names
        },
        series={
            key: SeriesModel(key, name, np.asarray([0.0, offset]), reason="a test's")
            for key, name in zip(keys, names, strict=True)
        },
        trained_until_seconds=some_usage().end_seconds,
    )
