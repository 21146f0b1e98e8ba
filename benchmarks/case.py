"""What every measurement of speed has in common: what is asked, how it is timed, how much memory the process has held.

The standard library alone, as the peers' environment uses it too.
"""

import argparse
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

STEP_SECONDS, DAYS, HORIZON_STEPS = 300, 28, 24
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
Parts = dict[str, dict[str, float]]


def parser_of(about: str | None, cases: Iterable[str]) -> argparse.ArgumentParser:
    """The command line: which case, of how many series, from which seed, on how many threads."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=tuple(cases))
    parser.add_argument("series", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser


@contextmanager
def timed(parts: Parts, name: str) -> Iterator[None]:
    """Add what happens within to the parts, in seconds by the clock and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    taken = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    parts[name] = {key: round(value, 3) for key, value in taken.items()}


def peak_mb() -> float:
    """Peak resident memory of this process since it began, in MB (Linux; its parent's does not count)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
