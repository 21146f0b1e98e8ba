"""The tasks that accuracy is measured on."""

import numpy as np

from benchmarks.traces import DAY, LARGEST_WINDOWS, PLANETLAB, cutoffs, tasks
from predictor.usage.panel import Resource, SeriesKey, UsagePanel


def test_every_task_has_a_name_of_its_own_and_whole_steps() -> None:
    """Results are stored by name; a horizon is a whole number of steps."""
    made = tasks()

    assert len({task.name for task in made}) == len(made)
    assert all(task.horizon_seconds % task.step_seconds == 0 for task in made)


def test_planetlab_is_asked_about_each_of_its_days() -> None:
    """A month without a sample lies between them: a window across it would be empty."""
    asked = [task.between for task in tasks() if task.name.startswith("planetlab")]

    assert asked == list(PLANETLAB.values())
    assert all(between is not None and (between[1] - between[0]).total_seconds() == DAY for between in asked)


def test_windows_end_with_the_span_and_do_not_overlap() -> None:
    """A tenth of the span, in whole horizons, at most twenty."""
    task = next(task for task in tasks() if task.name == "nasa-requests-4h")
    for days, windows in ((1, 1), (10, 6), (62, LARGEST_WINDOWS)):
        panel = UsagePanel((SeriesKey("a/Deployment/b", Resource.REQUESTS),), 0, 300, np.zeros((1, days * 288)))

        made = cutoffs(task, panel)

        assert len(made) == windows
        assert np.all(np.diff(made) == task.horizon_seconds)
        assert made[-1] + task.horizon_seconds == panel.end_seconds
