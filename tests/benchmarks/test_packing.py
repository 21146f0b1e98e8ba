"""What the benchmark of packing makes of its figures."""

from typing import Any

import numpy as np
import pytest

from autoscaler.simulator.packing import Fit
from benchmarks.packing import even_mix, most_hosted, table


def a_method(*outcomes: tuple[str, float, float]) -> dict[str, Any]:
    """By knob: hosted and contention, alike by every fit."""
    return {
        knob: {fit.value: {"hosted": hosted, "contention": contention} for fit in Fit}
        for knob, hosted, contention in outcomes
    }


METHODS = {
    "foresize": a_method(("0.001", 2.0, 0.0), ("0.01", 3.0, 0.002), ("0.1", 4.0, 0.0021)),
    "koordinator": a_method(("1", 4.5, 0.3), ("3", 2.9, 0.1)),
}


def test_what_counts_is_the_most_that_is_hosted_within_the_contention_that_is_allowed() -> None:
    """0.2 % is within it, more is not; nobody is given what no setting of theirs has kept."""
    assert most_hosted(METHODS["foresize"], "first") == (3.0, "0.01")
    assert most_hosted(METHODS["koordinator"], "first") is None


def test_the_table_has_the_best_first_and_says_what_sight_would_have_hosted() -> None:
    cpu = {"virtual_machines": 300, "asked": 5.0, "nodes": 6, "even_mix": 2.9, "methods": METHODS}

    page = table({"cpu": cpu, "sight-cpu": {"drawn": 3.4, "quietest": 4.1}})

    rows = [line for line in page.splitlines() if line.startswith("| ") and "predictor" not in line]
    assert [row.split(" | ")[0] for row in rows] == ["| foresize", "| koordinator"]
    assert "3.00 at 0.20%" in rows[0]
    assert "4.50 at 30.00%" in rows[1]
    assert "none" in rows[1]
    assert "first fit hosts 3.40 in the order drawn and 4.10 quietest first" in page


def test_an_even_mix_is_as_busy_as_all_machines_together() -> None:
    """Two that are at a half of their limits in turn: a quarter of all, so four times the capacity."""
    usage = np.tile([[1.0, 0.0], [0.0, 1.0]], (1, 50))

    assert even_mix(usage, np.full(usage.shape, 2.0)) == pytest.approx(4.0)
