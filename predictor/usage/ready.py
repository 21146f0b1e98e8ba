"""How many replicas of a workload were Ready and of which version, and how long its pods took. Pure values."""

from collections.abc import Mapping
from dataclasses import dataclass

from models.forecast import BoolArray, FloatArray
from predictor.usage.panel import Finding


@dataclass(frozen=True, slots=True)
class ReadyHistory:
    """What was Ready at the end of each step, each field [steps]."""

    replicas: FloatArray
    """NaN where nothing is known."""
    is_current: BoolArray
    """Whether all of them had the images that the newest ones have; true where images are not told."""


@dataclass(frozen=True, slots=True)
class ReadyTimes:
    """How long pods took from their creation to being Ready for the first time, in seconds."""

    by_workload: Mapping[str, tuple[float, ...]]
    """Ascending, one of each pod; workloads of which no pod was seen are not in it."""
    findings: tuple[Finding, ...] = ()
    """Why nothing is known, where it is so."""
