"""The benchmark of scaling: workloads of a size that suits their series, and stored trials that are compared whole."""

from pathlib import Path

import numpy as np
import pytest

from autoscaler.simulator.catalog import FORESIZE, HPA
from benchmarks import scaling
from tests.support.panels import a_fleet


def test_the_upper_quantile_of_a_series_needs_the_stated_replicas() -> None:
    """Whatever its unit; and one replica alone may be far less busy than many."""
    panel = a_fleet(days=2)

    for workload, usage in zip(scaling.workloads_of(panel), panel.usage, strict=True):
        top = float(np.nanquantile(usage, 0.99))
        assert workload.within_slo.replicas_for(top) == scaling.REPLICAS
        assert workload.within_slo.demand_at(1) / workload.request_per_replica == pytest.approx(0.58, abs=0.005)


def test_series_that_are_lost_come_first(tmp_path: Path) -> None:
    """Figures of two tasks are compared together, those of knobs apart from those of defaults."""

    def task(series: str, ours: float) -> dict[str, object]:
        trials = [
            {"policy": policy, "knob": knob, "outcomes": [f"1000 {violated} {cost} 8 4"]}
            for policy, cost in ((FORESIZE, ours), (HPA, 200.0))
            for knob, violated in ((None, 20.0), (0.5, 4.0))
        ]
        return {"series": [series], "trials": trials, "oracle": ["1000 0 100 2 4"]}

    page = scaling.table({"first": task("won", 150.0), "second": task("lost", 210.0)}, tmp_path)

    rows = [line for line in page.splitlines() if line.startswith(("| won", "| lost"))]
    assert rows == ["| lost | hpa | 2.00 | 2.00 | 2.10 | -0.10 |", "| won | hpa | 2.00 | 2.00 | 1.50 | 0.50 |"]
    assert "| foresize | 2.00% | 2.00% | 0% | 1.775 | 2.0 |" in page
    assert (tmp_path / "scaling.svg").exists()
