"""Where usage was cut off by a limit, by capacity or by a kill: there it is only a bound of what was demanded. Pure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.forecast import SECONDS_PER_DAY, BoolArray, FloatArray

Marks = NDArray[np.uint8]
"""Flags of samples, the sum of those that hold; each as in `HIGH`."""
HIGH, ABOVE, BOUNDED = 4, 8, 16
"""Marks of a sample by itself: at its bound or above it; further above it than AT_ITS_LIMIT allows; it has a bound."""

BOUNDS: tuple[str, ...] = ("limit", "capacity")
"""The attributes of a panel that bound usage; the smaller of them counts."""
CUT_OFF = "cut_off"
"""The attribute that says in which share of a step more was demanded than given: throttled, killed for memory, or held
at the most replicas that its autoscaler may give it."""
AT_ITS_LIMIT = (0.98, 1.1)
"""Usage in this range of shares of what bounds it was cut off there …"""
OFTEN = 0.05
"""… unless it exceeded the bound by more in this share of the samples of the day up to then: such a bound is none, as
the limit of one of two containers."""
LEAST_THROTTLED = 0.25
"""Usage was cut off where at least this share of a step was throttled.

The kernel hands out CPU time in periods of a tenth of a second, and a container with several threads ready at once is
throttled in some of them far below its limit. What it is denied in one period it gets in the next, so that the step
still holds nearly all that was asked for: where a quarter of the periods is throttled some 2 % are missing
(`benchmarks/throttling.py`), as much as at the lower end of AT_ITS_LIMIT. It is also from where on CPUThrottlingHigh,
the alert that most clusters have, takes throttling to matter.
"""


def was_cut_off(cut_off: FloatArray, is_held: BoolArray) -> BoolArray:
    """In which steps, [series, steps], more was demanded than given, by the shares that are known; NaN is not known.

    `is_held` says of which series usage is held rather than spent, [series]: one kill for want of memory is enough.
    """
    return np.asarray(np.where(is_held[:, np.newaxis], cut_off > 0, cut_off >= LEAST_THROTTLED))


def at_its_limit(
    usage: FloatArray, bounds: Sequence[FloatArray], step_seconds: int, cut_off: BoolArray | None = None
) -> BoolArray | None:
    """Which samples, [series, steps], are only bounds of demand; None where none is.

    `bounds` are arrays like `usage`; NaN is not known. A sample that was `cut_off` is one, whatever bounds it. What
    comes after a sample has no say in whether it is one.
    """
    found = None if cut_off is None else cut_off & ~np.isnan(usage)
    # Row by row: a series fits into the processor's cache, and few are ever at their limit.
    for row, used in enumerate(usage if bounds else ()):
        is_limited = limited(limit_marks(used, [each[row] for each in bounds]), step_seconds)
        if is_limited is None:
            continue
        if found is None:
            found = np.zeros(usage.shape, dtype=np.bool_)
        found[row] |= is_limited
    return found if found is not None and found.any() else None


def limit_marks(usage: FloatArray, bounds: Sequence[FloatArray]) -> Marks:
    """What each sample is beside the smaller of its bounds, whatever is seen around it: sums of HIGH, ABOVE, BOUNDED.

    `bounds` are arrays like `usage`, of any shape; NaN is not known.
    """
    bound = np.fmin.reduce(bounds)
    is_bounded = bound > 0
    marks = np.where(is_bounded & ~np.isnan(usage), BOUNDED, 0).astype(np.uint8)
    marks[(usage >= AT_ITS_LIMIT[0] * bound) & is_bounded] |= HIGH
    marks[(usage > AT_ITS_LIMIT[1] * bound) & is_bounded] |= ABOVE
    return marks


def limited(marks: Marks, step_seconds: int) -> BoolArray | None:
    """Which samples of one series were cut off by what bounds it, [steps], by the marks of all; None if none was."""
    is_high = (marks & HIGH) > 0
    if not is_high.any():
        return None
    is_above = (marks & ABOVE) > 0
    if is_above.any():
        day = max(SECONDS_PER_DAY // step_seconds, 1)
        is_high &= ~is_above & (_counts(is_above, day) < OFTEN * _counts((marks & BOUNDED) > 0, day))
    return np.asarray(is_high)


def _counts(flags: BoolArray, steps: int) -> FloatArray:
    """How many of the `steps` flags up to each are set."""
    total = np.cumsum(flags, dtype=np.float64)
    return np.concatenate([total[:steps], total[steps:] - total[:-steps]])
