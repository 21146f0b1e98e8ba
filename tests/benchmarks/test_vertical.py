"""The benchmark of requests: every policy over the same series, and stored figures that are compared."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from autoscaler.simulator.peers.catalog import REQUEST_PEERS
from benchmarks import vertical
from benchmarks.traces import Task
from predictor.usage.panel import Resource


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve days of three workloads of CPU with a daily rhythm, the third of them idle in its second half."""
    folder = tmp_path_factory.mktemp("traces")
    times = pd.date_range("2026-01-05", periods=12 * 288, freq="5min", tz="UTC")
    rng = np.random.default_rng(0)
    daily = 1.0 + 0.5 * np.sin(np.arange(len(times)) * 2 * np.pi / 288)
    usage = [size * daily * rng.uniform(0.9, 1.1, len(times)) for size in (1.0, 4.0, 2.0)]
    usage[2][len(times) // 2 :] = 0.0
    parts = [
        pd.DataFrame({"workload": f"w{number}", "resource": "cpu", "timestamp": times, "usage": values})
        for number, values in enumerate(usage)
    ]
    pd.concat(parts).to_parquet(folder / "made_up.parquet")
    return folder


TASK = vertical.VerticalTask("made-up", Task("made-up", "made_up.parquet", Resource.CPU, 86_400))


def test_every_policy_is_replayed_over_the_second_half_of_each_series(traces: Path) -> None:
    """Of the series that are used in both; with every value of its knob, and as it is by default."""
    made = vertical.measured(TASK, traces)

    assert made["series"] == ["w0", "w1"]
    names = {vertical.FORECASTS, vertical.ON_THE_PAST, *REQUEST_PEERS}
    assert {each["policy"] for each in made["trials"]} == names
    assert {each["policy"] for each in made["trials"] if each["knob"] is None} == names
    for each in made["trials"]:
        known, violated, requested, used, beyond, _ = np.array([row.split() for row in each["outcomes"]], float).T
        assert known.tolist() == [6 * 1440] * 2
        assert (violated <= known).all()
        assert (requested + beyond >= used * (1 - 1e-5)).all(), "what is used was requested, or lies beyond"
    page = vertical.table({"made-up": made})
    assert "**made-up**: 2 series" in page


def test_only_the_busiest_are_kept_and_the_second_half_has_no_say_in_it(traces: Path) -> None:
    """By their usage in the first half."""
    panel = vertical.read(vertical.VerticalTask("one", TASK.task, busiest=1), traces)

    assert [key.workload for key in panel.keys] == ["w1"]


def test_a_factor_leaves_so_many_steps_above_the_requests() -> None:
    """Multiplied by it, demand exceeds them in that share of the steps that are known."""
    rng = np.random.default_rng(1)
    demand = rng.uniform(0.0, 1.0, (4, 500))
    demand[0, :100] = np.nan
    requests = rng.uniform(0.5, 2.0, (4, 500))

    for share in vertical.SHARES:
        factor = vertical.factor_for(demand, requests, share)
        exceeded = demand > factor * requests

        assert exceeded.sum() / np.isfinite(demand).sum() == pytest.approx(share, abs=1e-3)


def test_what_is_requested_is_told_as_a_multiple_of_what_is_used() -> None:
    """At equal violations between two knobs, and where no knob violates so rarely, that it does not."""

    def trial(policy: str, knob: float | None, *rows: str) -> dict[str, object]:
        return {"policy": policy, "knob": knob, "outcomes": list(rows), "factors": [2.0, 1.5, 1.0]}

    trials = [
        trial(vertical.FORECASTS, None, "1000 10 30 20 1 4"),
        trial(vertical.FORECASTS, 0.5, "1000 50 24 20 1 4"),
        trial(vertical.FORECASTS, 0.9, "1000 0 40 20 0 4"),
        trial("vpa", None, "1000 100 30 20 5 4"),
        trial("vpa", 0.15, "1000 100 30 20 5 4"),
    ]

    page = vertical.table({"one": {"series": ["w"], "trials": trials}})

    assert "| foresize | 1.98 | 1.98 (1) | 1.84 | 1.84 (1) | 1.20 | 1.20 (1) |" in page
    assert "| vpa | not reached | not reached | not reached | not reached | not reached | not reached |" in page
    assert (
        "| foresize | 1.00% | 1.00% | 1.00% | 5.00% | 5.8 | 1.50 | 3.00 (× 2.00) | 2.25 (× 1.50) | 1.50 (× 1.00) |"
        in page
    )
