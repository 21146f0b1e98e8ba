"""How long each step of a flow took, and its progress under its name."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipelines.steps.plan import Progress

Told = Callable[[str, int, int], None]
"""Told (step, done, total) while a flow goes on; done equals total when, and only when, the step is over."""


def utc_text(seconds: int) -> str:
    """A time in epoch seconds, for a person."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


@dataclass
class StepClock:
    """Times steps, and passes their progress on."""

    told: Told
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each step that is over."""

    @contextmanager
    def step(self, name: str) -> Iterator[Progress]:
        """Times the block; the progress it is given is told under the step's name."""
        begun = time.perf_counter()
        self.told(name, 0, 1)

        def progress(done: int, total: int) -> None:
            if done < total:
                self.told(name, done, total)

        yield progress
        self.seconds[name] = time.perf_counter() - begun
        self.told(name, 1, 1)
