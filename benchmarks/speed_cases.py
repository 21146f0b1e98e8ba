"""One measurement of the forecasts' speed, in a process of its own: prints a line of JSON.

python -m benchmarks.speed_cases tick 1000
python -m benchmarks.speed_cases training 300 --profile
"""

import cProfile
import json
import pstats
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.case import DAYS, HORIZON_STEPS, LEVELS, STEP_SECONDS, Parts, parser_of, peak_mb, timed
from benchmarks.fleet import KINDS, synthetic_usage
from foresize.settings import load_settings
from models.forecast import Target
from pipelines.flows.train import TrainingReport, train
from pipelines.settings import Settings
from predictor.registry.memory import MemoryBundleStore
from predictor.serving.bundle import Bundle
from predictor.sources.files import MemorySource
from predictor.usage.panel import Resource, SeriesKey, UsagePanel

START_SECONDS = 1_767_571_200
"""2026-01-05 00:00 UTC, a Monday."""
TRAINED_SERIES = 20 * KINDS
"""Series that the bundle of a tick is trained on; the others take their records, each that of one of its own kind."""
TRAINED_REHEARSALS = 12
PROFILED = 16


def main() -> None:
    """Measure what is asked for."""
    parser = parser_of(__doc__, CASES)
    parser.add_argument("--profile", action="store_true", help="Add where the time goes; the times are then longer.")
    asked = parser.parse_args()
    stopwatch = Stopwatch(asked.profile)
    CASES[asked.case](asked.series, asked.seed, asked.threads, stopwatch)
    print(json.dumps(stopwatch.result()))


class Stopwatch:
    """Times the parts of a case; what is not within a part is set-up."""

    def __init__(self, is_profiled: bool) -> None:
        self._profile = cProfile.Profile() if is_profiled else None
        self._parts: Parts = {}
        self._before_mb = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure what happens within."""
        self._before_mb = self._before_mb or peak_mb()
        if self._profile:
            self._profile.enable()
        with timed(self._parts, name):
            yield
        if self._profile:
            self._profile.disable()

    def result(self) -> dict[str, Any]:
        """Seconds of the whole and of each part, peak memory of the process, and the profile if there is one."""
        total = {
            key: round(sum(part[key] for part in self._parts.values()), 3) for key in ("wall_seconds", "cpu_seconds")
        }
        made = total | {"peak_mb": round(peak_mb()), "set_up_peak_mb": round(self._before_mb), "parts": self._parts}
        return made | ({"profile": _profiled(self._profile)} if self._profile else {})


def tick(series: int, seed: int, threads: int, stopwatch: Stopwatch) -> None:
    """The window moved on by a step, what became of the last horizon's forecasts learned, and all series forecast."""
    panel = _panel(series, seed)
    small = panel.select(range(min(series, TRAINED_SERIES)))
    bundle = _widened(_trained(small, _settings(threads, TRAINED_REHEARSALS)).bundle, panel.keys)
    newest = panel.usage[:, 0].copy()
    with stopwatch.part("update"):
        panel.usage[:, :-1] = panel.usage[:, 1:]
        panel.usage[:, -1] = newest
    with stopwatch.part("learn"):
        bundle = bundle.learned(panel.keys, panel.history())
    with stopwatch.part("forecast"):
        bundle.forecast(panel, Target(HORIZON_STEPS), LEVELS)
    with stopwatch.part("forecast peaks"):
        for each in bundle.peaks:
            bundle.forecast(panel, each.target, LEVELS)


def training(series: int, seed: int, threads: int, stopwatch: Stopwatch) -> None:
    """A whole cycle on a history in memory: fitted, rehearsed, calibrated, scored and judged; not tracked."""
    panel, settings = _panel(series, seed), _settings(threads)
    with stopwatch.part("train"):
        _trained(panel, settings)


CASES = {"tick": tick, "training": training}


def _panel(series: int, seed: int) -> UsagePanel:
    usage = synthetic_usage(series, days=DAYS, step_seconds=STEP_SECONDS, seed=seed)
    keys = tuple(SeriesKey(f"fleet/Deployment/workload-{number:06d}", Resource.CPU) for number in range(series))
    return UsagePanel(keys, START_SECONDS, STEP_SECONDS, usage)


def _settings(threads: int, rehearsals: int | None = None) -> Settings:
    asked: dict[tuple[str, ...], Any] = {
        ("history", "step"): f"{STEP_SECONDS}s",
        ("history", "span"): f"{DAYS}d",
        ("forecast", "horizon"): f"{HORIZON_STEPS * STEP_SECONDS}s",
        ("forecast", "levels"): LEVELS,
        ("training", "threads"): threads,
    }
    return load_settings(None, {}, asked | ({("training", "rehearsals"): rehearsals} if rehearsals else {}))


def _trained(panel: UsagePanel, settings: Settings) -> TrainingReport:
    return train(settings, MemorySource(panel), MemoryBundleStore(), None, end_seconds=panel.end_seconds)


def _widened(bundle: Bundle, keys: tuple[SeriesKey, ...]) -> Bundle:
    """The bundle for more series, each with the model and the record of one that it was trained on."""
    models = list(bundle.series.values())
    rows = np.arange(len(keys)) % len(models)
    records = {
        resource: replace(record, loss=record.loss[rows], evidence=record.evidence[rows])
        for resource, record in bundle.combinations.items()
    }
    calibrations = {
        resource: replace(each, covered=each.covered[rows], evidence=each.evidence[rows])
        for resource, each in bundle.calibrations.items()
    }
    series = {key: replace(models[row], key=key) for key, row in zip(keys, rows, strict=True)}
    peaks = tuple(_widened(each, keys) for each in bundle.peaks)
    return replace(bundle, series=series, combinations=records, calibrations=calibrations, peaks=peaks)


def _profiled(profile: cProfile.Profile) -> list[dict[str, Any]]:
    """The project's functions in which most time was spent, what they call included, longest first."""
    root = str(Path(__file__).parent.parent)
    # `stats` is pstats' own documented way in, and missing from its annotations.
    rows = [
        {
            "function": f"{Path(file).relative_to(root)}:{name}",
            "calls": calls,
            "own_seconds": round(own, 2),
            "seconds": round(total, 2),
        }
        for (file, _, name), (_, calls, own, total, _) in pstats.Stats(profile).stats.items()  # type: ignore[attr-defined]
        if file.startswith(root) and ".venv" not in file and not name.startswith("<")
    ]
    return sorted(rows, key=lambda row: -row["seconds"])[:PROFILED]


if __name__ == "__main__":
    main()
