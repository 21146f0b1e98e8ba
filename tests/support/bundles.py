"""A small fitted bundle, and usage to forecast from."""

import numpy as np

from models import catalog
from models.calibration import BEYOND, Calibration
from models.forecast import Target
from predictor.serving.bundle import Bundle, SeriesModel
from predictor.usage.panel import Resource, SeriesKey, UsagePanel
from tests.support.histories import STEP_SECONDS, daily_usage
from tests.support.panels import a_panel

LEVELS = (0.5, 0.9)


def some_usage() -> UsagePanel:
    """Nine days of two workloads' cpu."""
    return a_panel(daily_usage(series=2, days=9))


def a_bundle(covered: float | None = None) -> Bundle:
    """The workloads of `some_usage`, served by two forecasters; with a record in which .9 covered this share."""
    keys = (SeriesKey("shop/Deployment/w0", Resource.CPU), SeriesKey("shop/Deployment/w1", Resource.CPU))
    names = ("seasonal_naive", "decaying_histogram")
    return Bundle(
        step_seconds=STEP_SECONDS,
        target=Target(8),
        levels=LEVELS,
        forecasters={
            (Resource.CPU, name): catalog.create(name).fit(some_usage().history(), Target(8)) for name in names
        },
        series={key: SeriesModel(key, name, reason="a test's") for key, name in zip(keys, names, strict=True)},
        trained_until_seconds=some_usage().end_seconds,
        calibrations={} if covered is None else {Resource.CPU: a_calibration(covered)},
    )


def a_calibration(covered: float) -> Calibration:
    """Many cutoffs at which the quantile of .9 covered a share of the outcomes of two series, others in proportion."""
    empty = Calibration.without_record(2, LEVELS, 8)
    shares = np.append(np.interp(empty.levels, (0.0, 0.9, 1.0), (0.0, covered, 1.0)), np.ones(len(BEYOND)))
    evidence = np.full((2, len(empty.part_ends)), 1e9)
    return Calibration(empty.levels, empty.part_ends, shares * evidence[:, :, None], evidence)
