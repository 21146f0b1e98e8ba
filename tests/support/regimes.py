"""A workload that changes its ways, and a bundle that believes too much in what it was before."""

from dataclasses import replace

import numpy as np

from models import catalog
from models.combination import Combination
from models.forecast import Target
from predictor.serving.bundle import COMBINATION, Bundle, SeriesModel
from predictor.usage.panel import Resource, SeriesKey, UsagePanel
from tests.support.bundles import LEVELS
from tests.support.histories import STEP_SECONDS
from tests.support.panels import DAY_STEPS, a_panel

NAMES = ("seasonal_naive", "trailing_24h")
NAIVE, TRAILING = range(2)
HORIZON = 8
PEAK = Target(4, is_peak=True)
DAYS = 24
RHYTHM_DAYS = 7
CHANGED = SeriesKey("shop/Deployment/w0", Resource.CPU)
STEADY = SeriesKey("shop/Deployment/w1", Resource.CPU)


def usage_that_changes() -> UsagePanel:
    """A week of a rhythm that is the same every day, then noise around a level; the other workload is noise always."""
    rng = np.random.default_rng(11)
    steps = DAYS * DAY_STEPS
    noise = 2.0 + rng.exponential(0.5, (2, steps))
    rhythm = 2.0 + 1.5 * np.sin(2 * np.pi * np.arange(steps) / DAY_STEPS) + 0.02 * rng.standard_normal(steps)
    noise[0, : RHYTHM_DAYS * DAY_STEPS] = rhythm[: RHYTHM_DAYS * DAY_STEPS]
    return a_panel(noise)


def a_stubborn_bundle(*, best: int = TRAILING, peak: bool = True, known: tuple[SeriesKey, ...] = ()) -> Bundle:
    """Both workloads, or those given, served by a combination whose long record is for one of two forecasters."""
    keys = known or (CHANGED, STEADY)
    start = usage_that_changes().start_seconds + 5 * 86_400
    made = Bundle(
        step_seconds=STEP_SECONDS,
        target=Target(HORIZON),
        levels=LEVELS,
        forecasters={(Resource.CPU, name): catalog.create(name) for name in NAMES},
        series={key: SeriesModel(key, COMBINATION, reason="a test's") for key in keys},
        trained_until_seconds=start,
        combinations={Resource.CPU: a_long_record(len(keys), HORIZON, best)},
        learned_until_seconds=start,
    )
    part = replace(made, target=PEAK, combinations={Resource.CPU: a_long_record(len(keys), 1, best)})
    return replace(made, peaks=(part,)) if peak else made


def a_long_record(series: int, outcomes: int, best: int) -> Combination:
    """So many cutoffs in which one forecaster lost half of what the other did that a week changes nothing."""
    record = Combination.without_record(series, NAMES, LEVELS, outcomes)
    loss = np.full(record.loss.shape, 1e4)
    loss[:, best] /= 2
    return replace(record, loss=loss, evidence=np.full(record.evidence.shape, 1e4))
