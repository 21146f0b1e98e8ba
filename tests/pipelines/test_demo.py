"""`foresize demo` as a newcomer runs it: the whole path on a made-up cluster."""

import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pipelines.settings import Settings
from pipelines.wiring import DemoHistory, demo_history

FORESIZE = Path(sys.executable).parent / "foresize"


def run_demo(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(FORESIZE), "demo", "--days", "14", "--seed", "3"]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("FORESIZE_")}
    return subprocess.run(
        command, cwd=folder, env=variables | environment, capture_output=True, text=True, check=False, timeout=300
    )


def assert_whole(result: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert result.returncode == 0, result.stderr
    for part in ("is the new champion", "violations", "oracle (sees the future)", "mlflow ui", "report "):
        assert part in result.stdout
    report = (folder / ".foresize" / "demo" / "report.html").read_text()
    assert report.count("data:image/png;base64,") >= 6
    assert (folder / ".foresize" / "demo" / "mlflow.db").exists()


@pytest.mark.real
@pytest.mark.timeout(300)
def test_the_demo_runs_on_a_real_prometheus(tmp_path: Path) -> None:
    """History in a real Prometheus, a registered champion with one peak, a replay with node pools, and the report.

    One day is held out and replayed instead of three: every part is there, and the longest takes a third of its time.
    """
    result = run_demo(tmp_path, {"FORESIZE_FORECAST__PEAKS": "15m", "FORESIZE_TRAINING__HELD_OUT": "1d"})

    assert_whole(result, tmp_path)
    assert "usage came from  a Prometheus on loopback" in result.stdout
    assert "general cpu" in result.stdout


def test_without_a_prometheus_the_demo_reads_parquet_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine on which there is no Prometheus still has the same history; a second run finds the file."""
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("FORESIZE_CACHE", str(tmp_path / "empty"))

    def history() -> AbstractContextManager[DemoHistory]:
        now = 1_795_500_000.0
        return demo_history(Settings(), tmp_path, seed=3, days=14, now_seconds=now, told=lambda *_: None)

    with history() as first, history() as second:
        panel = first.source.fetch(
            start_seconds=first.end_seconds - 86_400, end_seconds=first.end_seconds, step_seconds=300
        )

    assert ".parquet (there is no prometheus with its promtool" in first.origin
    assert (second.origin, second.end_seconds) == (first.origin, first.end_seconds)
    assert len(panel.workloads) > 25
