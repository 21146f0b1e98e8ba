"""A replay of what a real Prometheus holds: what pods took to get Ready is read where nothing else is asked for."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from foresize.cli import main_group
from pipelines.demo.exporters import RawSeries
from tests.support.prometheus import STEP, a_pod, a_prometheus, a_series

pytestmark = pytest.mark.real

STEPS = 9 * 288
START = int(time.time()) // 86_400 * 86_400 - STEPS * STEP
TOOK = (20.0, 31.0, 33.0, 35.0, 300.0)


def the_series() -> list[RawSeries]:
    """A StatefulSet with a daily rhythm, five pods of which were seen to start; another with one old pod."""
    hours = np.arange(STEPS) * STEP / 3600
    rhythm = (2 + np.sin(2 * np.pi * hours / 24)).tolist()
    always = np.ones(STEPS)
    node = {"node": "node-1"}
    series = [
        a_series("kube_node_info", always, **node),
        a_series("kube_node_status_allocatable", always * 8.0, **node, resource="cpu", unit="core"),
        *a_pod("db-0", cores=rhythm, owner=("StatefulSet", "db")),
    ]
    for number, took in enumerate(TOOK):
        pod, born = f"cart-{number}", 600 + number * 288
        ids = {"namespace": "shop", "pod": pod, "uid": pod}
        created = START + born * STEP
        series += [
            *a_pod(pod, cores=rhythm if number == 0 else [0.1] * (STEPS - born), first=0 if number == 0 else born),
            a_series("kube_pod_created", [created] * (STEPS - born), born, **ids),
            a_series("kube_pod_status_ready_time", [created + took] * (STEPS - born), born, **ids),
        ]
    return series


def test_times_of_pods_are_read_unless_others_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command; --pod-ready holds for every workload instead."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORESIZE_TRAINING__FORECASTERS", "[seasonal_naive]")
    monkeypatch.setenv("FORESIZE_TRAINING__CUTOFFS", "4")
    monkeypatch.setenv("FORESIZE_PROMETHEUS__SCRAPE_INTERVAL", "5m")
    monkeypatch.setenv("FORESIZE_PROMETHEUS__CACHE", "false")
    bounds = []
    with a_prometheus(tmp_path, the_series(), start_seconds=START) as running:
        command = ["simulate", "--prometheus", running.url, "--step", "30m", "--span", "9d", "--days", "1", "--fit"]
        for options in ([], ["--pod-ready", "50s"]):
            ran = CliRunner().invoke(main_group, [*command, "--json", "made.json", *options])
            assert ran.exit_code == 0, ran.output
            made = json.loads(Path("made.json").read_text())["bounds"]
            bounds.append({each["workload"]: (each["pods_seen"], each["lead_seconds"]) for each in made})

    learned, given = bounds
    assert learned == {"shop/StatefulSet/cart": (5, 300), "shop/StatefulSet/db": (None, 120)}
    assert set(given.values()) == {(None, 50)}
