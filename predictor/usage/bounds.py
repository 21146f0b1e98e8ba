"""Where usage was cut off by a limit, by capacity or by a kill: there it is only a bound of what was demanded. Pure."""

from collections.abc import Sequence

import numpy as np

from models.forecast import SECONDS_PER_DAY, BoolArray, FloatArray

BOUNDS: tuple[str, ...] = ("limit", "capacity")
"""The attributes of a panel that bound usage; the smaller of them counts."""
CUT_OFF = "cut_off"
"""The attribute that says in which share of a step more was demanded than given: throttled, or killed for memory."""
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
    day = max(SECONDS_PER_DAY // step_seconds, 1)
    # Row by row: a series fits into the processor's cache, and few are ever at their limit.
    for row, used in enumerate(usage if bounds else ()):
        bound = np.fmin.reduce([each[row] for each in bounds])
        is_bounded = bound > 0
        is_high = (used >= AT_ITS_LIMIT[0] * bound) & is_bounded
        if not is_high.any():
            continue
        is_above = (used > AT_ITS_LIMIT[1] * bound) & is_bounded
        if is_above.any():
            samples = ~np.isnan(used) & is_bounded
            is_high &= ~is_above & (_counts(is_above, day) < OFTEN * _counts(samples, day))
        if found is None:
            found = np.zeros(usage.shape, dtype=np.bool_)
        found[row] |= is_high
    return found if found is not None and found.any() else None


def _counts(flags: BoolArray, steps: int) -> FloatArray:
    """How many of the `steps` flags up to each are set."""
    total = np.cumsum(flags, dtype=np.float64)
    return np.concatenate([total[:steps], total[steps:] - total[:-steps]])
