"""An interrupted backtest continues, and neither that nor the number of jobs changes what comes out."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.flows.backtest import backtest
from pipelines.flows.backtest_text import json_values
from pipelines.flows.parallel import mapped_over
from pipelines.tracking.partial_backtest import PartialBacktest
from predictor.errors import InvalidUsage
from predictor.usage.panel import UsagePanel
from tests.pipelines.test_backtest_cli import run, written
from tests.support.panels import a_fleet, a_settings

CUTOFFS = 5


@dataclass
class Run:
    """One run of the flow; `stop_at` interrupts it after so many cutoffs."""

    folder: Path
    panel: UsagePanel = field(default_factory=a_fleet)
    stop_at: int | None = None
    restart: bool = False
    jobs: int = 1
    training: dict[str, Any] = field(default_factory=lambda: {"forecasters": ("decaying_histogram",)})
    steps: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    tables: list[pd.DataFrame] = field(default_factory=list)

    def told(self, step: str, done: int, total: int) -> None:
        self.steps.append(step)
        if step == "forecast" and done == self.stop_at and total == CUTOFFS:
            raise KeyboardInterrupt

    def made(self) -> dict[str, Any]:
        report = backtest(
            a_settings(**self.training),
            self.panel,
            self.tables.append,
            PartialBacktest(self.folder / "f.parquet", restart=self.restart),
            cutoffs=CUTOFFS,
            jobs=self.jobs,
            told=self.told,
            said=self.said.append,
        )
        return json_values(report)

    def interrupted(self) -> None:
        with pytest.raises(KeyboardInterrupt):
            self.made()


def same_tables(first: Run, second: Run) -> None:
    pd.testing.assert_frame_equal(pd.concat(first.tables), pd.concat(second.tables), check_exact=True)


def test_a_resumed_run_gives_what_an_uninterrupted_one_gives(tmp_path: Path) -> None:
    """Interrupted twice; nothing is fitted again, and figures and forecasts are the same to the last bit."""
    (tmp_path / "other").mkdir()
    whole = Run(tmp_path / "other")
    expected = whole.made()
    Run(tmp_path, stop_at=2).interrupted()
    Run(tmp_path, stop_at=4).interrupted()
    last = Run(tmp_path)

    found = last.made()

    assert last.said == [f"continues an interrupted run: 4 of {CUTOFFS} cutoffs are done"]
    assert "fit" not in last.steps
    assert found == expected
    same_tables(last, whole)


def test_a_run_that_was_interrupted_before_anything_was_done_begins_without_a_word(tmp_path: Path) -> None:
    """The folder is there, but empty of results."""
    PartialBacktest(tmp_path / "f.parquet").begin({"history": "", "settings": "", "cutoffs": "", "version": ""})
    Run(tmp_path, stop_at=0).interrupted()
    last = Run(tmp_path)

    last.made()

    assert last.said == [f"continues an interrupted run: 0 of {CUTOFFS} cutoffs are done"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"panel": a_fleet(seed=1)}, "changed since the interrupted run: history"),
        ({"training": {"forecasters": ("seasonal_naive",)}}, "changed since the interrupted run: settings"),
        ({"restart": True}, "--restart was given"),
    ],
)
def test_a_changed_input_begins_anew_and_says_why(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    """What was kept is of no use for it, and its result is that of a first run."""
    (tmp_path / "other").mkdir()
    Run(tmp_path, stop_at=3).interrupted()
    again = Run(tmp_path, **changed)

    found = again.made()

    assert again.said == [f"begins anew: {reason}"]
    assert "fit" in again.steps
    assert found == Run(tmp_path / "other", **changed).made()


def test_what_is_damaged_is_not_continued(tmp_path: Path) -> None:
    """A bundle that does not match its checksums is refused as everywhere else."""
    Run(tmp_path, stop_at=3).interrupted()
    (tmp_path / "f.parquet.partial" / "bundle-3" / "arrays.npz").write_bytes(b"not an archive")
    again = Run(tmp_path)

    again.made()

    assert "damaged" in again.said[0]
    assert "fit" in again.steps


def test_damaged_forecasts_end_with_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    """Never half a table."""
    Run(tmp_path, stop_at=3).interrupted()
    next((tmp_path / "f.parquet.partial").glob("*.npz")).write_bytes(b"not an archive")

    with pytest.raises(InvalidUsage, match="--restart"):
        Run(tmp_path).made()


def test_what_is_kept_holds_no_pickle(tmp_path: Path) -> None:
    """JSON, text and arrays that load without pickles."""
    Run(tmp_path, stop_at=3).interrupted()

    files = [path for path in (tmp_path / "f.parquet.partial").rglob("*") if path.is_file()]

    assert {path.suffix for path in files} <= {".json", ".npz", ".txt"}
    for path in files:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as packed:
                assert all(packed[name].dtype != object for name in packed.files)


def test_the_number_of_jobs_changes_nothing(tmp_path: Path) -> None:
    """With boosters and a combination, interrupted under two jobs and continued under three; enough series for both."""
    panel = a_fleet(series=40)
    candidates = ("lightgbm_quantiles", "trailing_24h", "trailing_4h")
    training = {"forecasters": candidates, "rehearsals": 20, "threads": 2, "peaks": ("1h",)}
    (tmp_path / "other").mkdir()
    alone = Run(tmp_path / "other", panel, training=training)
    expected = alone.made()
    Run(tmp_path, panel, training=training, jobs=2, stop_at=2).interrupted()
    last = Run(tmp_path, panel, training=training, jobs=3)

    found = last.made()

    assert found == expected
    same_tables(last, alone)


def test_more_jobs_are_other_processes_with_one_thread_each_and_keep_the_order() -> None:
    """One job is this process."""
    with mapped_over(2) as mapped:
        answers = list(mapped(_asked, range(6)))
    with mapped_over(1) as mapped:
        own = list(mapped(_asked, range(2)))

    assert [number for number, _, _ in answers] == list(range(6))
    assert os.getpid() not in {process for _, process, _ in answers}
    assert {threads for _, _, threads in answers} == {"1"}
    assert {process for _, process, _ in own} == {os.getpid()}


def _asked(number: int) -> tuple[int, int, str | None]:
    return number, os.getpid(), os.environ.get("OMP_NUM_THREADS")


WORKERS_AT_WORK = """
import os, time
from pipelines.flows.parallel import mapped_over

def work(number):
    os.write(1, b"at work\\n")
    time.sleep(600)

with mapped_over(2) as mapped:
    list(mapped(work, range(2)))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_a_stopped_process(how: signal.Signals) -> None:
    """Killed amid their work: what they print into is closed once the last of them is gone."""
    command = [sys.executable, "-c", WORKERS_AT_WORK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == [b"at work\n"] * 2
        process.send_signal(how)

        rest, _ = process.communicate(timeout=60)

    assert rest == b""
    assert process.returncode == -how


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_process_is_continued_by_the_same_command(tmp_path: Path, how: signal.Signals) -> None:
    """Killed without a word, or told to stop; the folder is gone when the result is there."""
    history, out = written(a_fleet(), tmp_path / "usage.parquet"), tmp_path / "f.parquet"
    options = ["--step", "15m", "--horizon", "2h", "--held-out", "2d", "--cutoffs", "60", "--jobs", "1"]
    options += ["--forecasters", "analogs_short,analogs_long,trailing_mixture"]
    command = [
        str(Path(sys.executable).with_name("foresize")),
        "backtest",
        "--history",
        str(history),
        "--out",
        str(out),
    ]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("f.parquet.partial/bundle-[1-9]*")) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(how)
        _, errors = process.communicate(timeout=60)

    again = subprocess.run([*command, *options], capture_output=True, text=True, cwd=tmp_path, check=True)

    assert how == signal.SIGKILL or "the same command continues there" in errors
    assert "continues an interrupted run" in again.stderr
    assert out.exists()
    assert not (tmp_path / "f.parquet.partial").exists()


def test_who_stops_reading_what_is_printed_loses_no_file(tmp_path: Path) -> None:
    """As with `| head -1`: every file is there before the first line, and nothing is left of the run."""
    history = written(a_fleet(), tmp_path / "usage.parquet")
    command = [str(Path(sys.executable).with_name("foresize")), "backtest", "--history", str(history)]
    command += ["--step", "15m", "--horizon", "2h", "--held-out", "2d", "--cutoffs", "2", "--jobs", "1"]
    command += ["--forecasters", "decaying_histogram", "--out", "f.parquet", "--json", "f.json", "--report", "f.html"]
    read_end, write_end = os.pipe()
    os.close(read_end)

    subprocess.run(command, stdout=write_end, cwd=tmp_path, check=False)
    os.close(write_end)

    assert {path.name for path in tmp_path.iterdir()} == {"usage.parquet", "f.parquet", "f.json", "f.html"}


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """It only has the name."""
    history, out = written(a_fleet(), tmp_path / "usage.parquet"), tmp_path / "f.parquet"
    foreign = tmp_path / "f.parquet.partial" / "thesis.txt"
    foreign.parent.mkdir()
    foreign.write_text("years of work")

    done = run(history, out, "--restart")

    assert done.exit_code == 2, done.output
    assert "move it away" in done.output
    assert foreign.read_text() == "years of work"
