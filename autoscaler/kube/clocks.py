"""The clock by which pictures age and leases end."""

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def seconds_since_boot() -> float:
    """Seconds that nobody can set, and that go on while this process is stopped or the machine sleeps.

    `time.monotonic` stands still while the machine sleeps: what is old would look young afterwards.
    """
    return time.clock_gettime(_CLOCK)
