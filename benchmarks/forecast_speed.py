"""How fast a fleet is forecast and trained on, beside statsforecast and mlforecast: time, memory and growth.

    python -m benchmarks.forecast_speed 1000 10000                        all cases at each size
    python -m benchmarks.forecast_speed 10000 50000 --case tick           only some

Every figure is from a process of its own, the peers' in an environment of their own (tools/peers.sh). What was measured
is kept in benchmarks/results/speed.json, with machine, versions and seed, and shown in speed.md.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).with_name("results")
OURS = ("tick", "training")
PEERS = ("seasonal_naive", "theta", "mlforecast_lightgbm")
TITLES = {
    "tick": "foresize, one tick",
    "training": "foresize, training",
    "seasonal_naive": "statsforecast SeasonalNaive",
    "theta": "statsforecast Theta",
    "mlforecast_lightgbm": "mlforecast, LightGBM, 5 quantiles, 7 days",
}
LARGEST_PEER_SERIES = 1000
"""The peers' frames of more series do not fit beside other work."""
PROFILED_SERIES = 300


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="+", help="Numbers of series.")
    parser.add_argument("--case", action="append", choices=(*OURS, *PEERS, "profile"), help="Default: all.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    file = RESULTS / "speed.json"
    stored: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    python = _peers_python() if not asked.case or set(asked.case) & set(PEERS) else ""
    for case, series in _plan(asked.case or (*OURS, *PEERS, "profile"), asked.sizes):
        options = ["--seed", str(asked.seed), "--threads", str(asked.threads)]
        if case in PEERS:
            made = _measured([python, "-m", "benchmarks.peers_speed", case, str(series), *options])
        elif case == "profile":
            command = [sys.executable, "-m", "benchmarks.speed_cases"]
            made = {each: _measured([*command, each, str(series), "--profile", *options]) for each in OURS}
        else:
            made = _measured([sys.executable, "-m", "benchmarks.speed_cases", case, str(series), *options])
        stored.setdefault(case, {})[str(series)] = made | circumstances(asked.seed, asked.threads)
        file.write_text(json.dumps(stored, indent=1))
        (RESULTS / "speed.md").write_text(page(stored))
        print(f"{case}, {series} series: {made.get('parts', 'profiled')}", flush=True)
    print(page(stored))


def growth_exponent(seconds_by_series: Mapping[int, float]) -> float:
    """Slope of log seconds over log series: 1 is linear growth; NaN for a single size."""
    if len(seconds_by_series) < 2:
        return math.nan
    sizes = np.log(list(seconds_by_series))
    return float(np.polyfit(sizes, np.log(list(seconds_by_series.values())), 1)[0])


def page(stored: Mapping[str, Any]) -> str:
    """The stored results as Markdown."""
    lines = [
        "| what | series | part | wall s | CPU s | peak MB | load before |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in (*OURS, *PEERS):
        for series, made in sorted(stored.get(case, {}).items(), key=lambda item: int(item[0])):
            for part, taken in made["parts"].items():
                lines.append(
                    f"| {TITLES[case]} | {made.get('series', int(series)):,} | {part} | {taken['wall_seconds']:.2f} "
                    f"| {taken['cpu_seconds']:.2f} | {made['peak_mb']:,} | {made['load']:.1f} |"
                )
    return "\n".join([*lines, "", *_growth(stored), "", *_profiles(stored), *_made_with(stored)]) + "\n"


def _plan(cases: Sequence[str], sizes: Sequence[int]) -> list[tuple[str, int]]:
    planned = [(case, series) for case in cases if case in OURS for series in sizes]
    planned += [(c, s) for c in cases if c in PEERS for s in sizes if s <= LARGEST_PEER_SERIES]
    return planned + [("profile", PROFILED_SERIES)] * ("profile" in cases)


def _peers_python() -> str:
    done = subprocess.run(["bash", "tools/peers.sh"], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _measured(command: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def circumstances(seed: int, threads: int) -> dict[str, Any]:
    """What a figure depends on besides the code."""
    versions = {name: metadata.version(name) for name in ("foresize", "numpy", "lightgbm")}
    return {
        "seed": seed,
        "threads": threads,
        "load": round(os.getloadavg()[1], 1),
        "machine": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "ours": versions,
        "at": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _growth(stored: Mapping[str, Any]) -> list[str]:
    lines = []
    for case in (*OURS, *PEERS):
        seconds = {int(n): sum(p["cpu_seconds"] for p in m["parts"].values()) for n, m in stored.get(case, {}).items()}
        if len(seconds) > 1 and case != "theta":
            sizes = ", ".join(f"{series:,}" for series in sorted(seconds))
            lines.append(f"- {TITLES[case]}: CPU seconds grow as series^{growth_exponent(seconds):.2f} over {sizes}.")
    return lines


def _profiles(stored: Mapping[str, Any]) -> list[str]:
    lines = []
    for series, made in stored.get("profile", {}).items():
        for case in (each for each in OURS if each in made):
            lines += [
                f"Where the time goes, {TITLES[case]}, {series} series; under the profiler, with what each calls:",
                "",
                "| function | calls | own s | s |",
                "|---|---|---|---|",
            ]
            lines += [
                f"| `{row['function']}` | {row['calls']:,} | {row['own_seconds']:.2f} | {row['seconds']:.2f} |"
                for row in made[case]["profile"]
            ]
            lines.append("")
    return lines


def _made_with(stored: Mapping[str, Any]) -> list[str]:
    newest = [made for case in stored.values() for made in case.values()]
    machines = {f"{made['machine']}, {made['cores']} cores, Python {made['python']}" for made in newest}
    ours = {f"{name} {version}" for made in newest for name, version in made["ours"].items()}
    peers = {f"{name} {version}" for made in newest for name, version in made.get("versions", {}).items()}
    seeds = {f"seed {made['seed']}, {made['threads']} thread(s), {made['at']}" for made in newest}
    return [
        f"On {'; '.join(sorted(machines))}: {', '.join(sorted(ours))}; peers with "
        f"{', '.join(sorted(peers)) or 'none'}. {'; '.join(sorted(seeds))}."
    ]


if __name__ == "__main__":
    main()
