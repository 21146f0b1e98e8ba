"""How much of a workload's CPU time was throttled, and under which limit. Pure values."""

from dataclasses import dataclass

from models.forecast import FloatArray


@dataclass(frozen=True, slots=True)
class ThrottledHistory:
    """What was seen of each step, each field [steps]; NaN where nothing is known."""

    share: FloatArray
    """Share of the scheduler's periods, of all its containers with a limit, in which one was throttled."""
    limit_cores: FloatArray
    """CPU limit of its mean pod, of those of its containers that have one."""
