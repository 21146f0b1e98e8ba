"""Usage from a file or from memory: only the span that is asked for counts."""

import numpy as np

from predictor.sources.files import MemorySource
from predictor.usage.panel import Resource, SeriesKey, Severity, UsagePanel

STEP = 300
KEYS = (SeriesKey("shop/Deployment/cart", Resource.CPU), SeriesKey("shop/Deployment/gone", Resource.CPU))


def test_a_workload_that_ended_before_the_span_is_left_out_with_a_note() -> None:
    """It is not broken: it has simply no sample in the span that is read."""
    usage = np.ones((2, 40)) + np.arange(40)
    usage[1, 20:] = np.nan
    source = MemorySource(UsagePanel(KEYS, 0, STEP, usage))

    panel = source.fetch(start_seconds=20 * STEP, end_seconds=39 * STEP, step_seconds=STEP)

    assert panel.keys == KEYS[:1]
    assert [(each.workload, each.severity) for each in panel.findings] == [("shop/Deployment/gone", Severity.NOTE)]


def test_an_artefact_in_the_newest_sample_is_not_served_from() -> None:
    """A controller reads its window anew each time: what no workload can use is missing there too, and named."""
    usage = np.ones((2, 40)) + np.arange(40)
    usage[1, 39] = 1e12
    source = MemorySource(UsagePanel(KEYS, 0, STEP, usage))

    panel = source.fetch(start_seconds=10 * STEP, end_seconds=39 * STEP, step_seconds=STEP)

    assert np.isnan(panel.usage).tolist() == [[False] * 30, [False] * 29 + [True]]
    assert "1 samples taken as no sample: up to 1e+12 where all others are at most 39" in panel.findings[0].message
