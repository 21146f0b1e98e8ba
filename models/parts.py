"""The parts of a horizon, each with a record of its own: the next minutes are another question than the next hours.

What a record of realised forecasts is made by: where its parts end, how it fades, and how much a cutoff adds to it
that the one before had not seen.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.forecast import SECONDS_PER_DAY, FloatArray

HALF_LIFE_SECONDS = 20 * SECONDS_PER_DAY
"""In this time what was realised loses half its say."""
FLEET_CORRELATION = 0.1
"""How much the series of a fleet rise and fall together."""
PART_ENDS: tuple[int, ...] = (1, 4, 12, 24, 48, 144, 288)
"""Last steps ahead of the parts of a horizon; what lies beyond is one more."""


def part_ends(outcomes: int) -> tuple[int, ...]:
    """Last steps ahead of the parts that a horizon is weighted in; a peak is a single outcome and a part of its own."""
    return (*(end for end in PART_ENDS if end < outcomes), outcomes)


def part_of(outcomes: int, ends: Sequence[int]) -> NDArray[np.intp]:
    """The part that each outcome is in, [outcomes]; those beyond the last are in it."""
    return np.minimum(np.searchsorted(ends, np.arange(1, outcomes + 1)), len(ends) - 1)


def novelty(elapsed_seconds: float, reach_seconds: FloatArray) -> FloatArray:
    """Share of each part's outcomes that a cutoff so much earlier had not seen, [parts]."""
    return np.asarray(np.clip(elapsed_seconds / reach_seconds, 0.0, 1.0))


def independent_cutoffs(evidence: FloatArray) -> FloatArray:
    """How many cutoffs of a single series a fleet's evidence, [series, parts], is worth, [parts].

    n cutoffs of N series say as much as n N / (1 + (N − 1) ρ) of one, which is no more than n / ρ however many series
    there are (the design effect of clustered samples, Kish 1965). Series that have just begun hardly count.
    """
    total, squares = evidence.sum(axis=0), (evidence**2).sum(axis=0)
    series = total**2 / np.where(squares > 0, squares, 1.0)
    return np.asarray(total / (1 + np.maximum(series - 1, 0.0) * FLEET_CORRELATION))
