"""How many replicas of one workload were Ready, and whether they were of the version that is there now. Pure values."""

from dataclasses import dataclass

from models.forecast import BoolArray, FloatArray


@dataclass(frozen=True, slots=True)
class ReadyHistory:
    """What was Ready at the end of each step, each field [steps]."""

    replicas: FloatArray
    """NaN where nothing is known."""
    is_current: BoolArray
    """Whether all of them had the images that the newest ones have; true where images are not told."""
