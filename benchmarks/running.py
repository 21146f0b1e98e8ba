"""The loop of the benchmarks of accuracy: measures what is asked for, and keeps it as it is made."""

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
Stored = dict[str, Any]


def run(
    about: str | None, name: str, tasks: Mapping[str, Callable[[Path], Stored]], table: Callable[[Stored], str]
) -> None:
    """Ask the command line which tasks; write their results to results/`name`.json, and as a table to `name`.md.

    A task is a function of the folder with the traces.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", type=Path, help="Folder with the trace files.")
    parser.add_argument("--only", action="append", default=[], help="Only tasks whose name begins so.")
    parser.add_argument("--again", action="store_true", help="Measure anew what has a stored result.")
    asked = parser.parse_args()
    stored = kept(name)
    for task, measured in tasks.items():
        if (asked.only and not task.startswith(tuple(asked.only))) or (task in stored and not asked.again):
            continue
        wall, cpu = time.perf_counter(), time.process_time()
        result = measured(asked.traces)
        taken = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        stored[task] = result | {key: round(value, 1) for key, value in taken.items()} | _machine()
        (RESULTS / f"{name}.json").write_text(json.dumps(stored, indent=1))
        print(f"{task}: {taken['cpu_seconds']:.0f} s CPU", flush=True)
    (RESULTS / f"{name}.md").write_text(table(stored))
    print(table(stored))


def kept(name: str) -> Stored:
    """The stored results of a benchmark by task; none before the first."""
    file = RESULTS / f"{name}.json"
    found: Stored = json.loads(file.read_text()) if file.exists() else {}
    return found


def _machine() -> dict[str, str]:
    """Where and with what a figure was measured."""
    versions = {name: metadata.version(name) for name in ("numpy", "lightgbm", "foresize")}
    return {"machine": platform.processor() or platform.machine(), "python": platform.python_version()} | versions
