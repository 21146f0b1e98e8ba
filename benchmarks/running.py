"""The loop of the benchmarks of accuracy: measures what is asked for, and keeps it as it is made."""

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.forecast_speed import circumstances

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
        stored[task] = result | {key: round(value, 1) for key, value in taken.items()}
        stored[task] |= circumstances(result["seed"], int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
        (RESULTS / f"{name}.json").write_text(json.dumps(stored, indent=1))
        print(f"{task}: {taken['cpu_seconds']:.0f} s CPU", flush=True)
    page = f"{table(stored)}\n{made_with(stored)}\n"
    (RESULTS / f"{name}.md").write_text(page)
    print(page)


def kept(name: str) -> Stored:
    """The stored results of a benchmark by task; none before the first."""
    file = RESULTS / f"{name}.json"
    found: Stored = json.loads(file.read_text()) if file.exists() else {}
    return found


def made_with(stored: Stored) -> str:
    """Where, when and with what the results were measured; the oldest do not say all of it."""
    tasks_of: dict[str, list[str]] = {}
    for task, made in stored.items():
        tasks_of.setdefault(_circumstances(made), []).append(task)
    most = max(tasks_of, key=lambda each: len(tasks_of[each]), default="")
    return "\n".join(
        f"- {'All others' if said == most and len(tasks_of) > 1 else ', '.join(tasks)}: {said}."
        for said, tasks in sorted(tasks_of.items(), key=lambda item: item[0] == most)
    )


def _circumstances(made: Stored) -> str:
    seed = f"seed {made['seed']}"
    if "cores" not in made:
        versions = ", ".join(f"{name} {made[name]}" for name in ("foresize", "numpy", "lightgbm"))
        machine = f"{made['machine']}, Python {made['python']}, {versions}, {seed}"
        return f"{machine}; stored before processor, cores and date were"
    versions = ", ".join(f"{name} {version}" for name, version in made["ours"].items())
    machine = f"{made['machine']}, {made['cores']} cores, {made['threads']} thread(s), Python {made['python']}"
    return f"{machine}, {versions}, {seed}, {made['at']}"
