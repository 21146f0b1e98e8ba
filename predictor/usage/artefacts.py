"""Which samples cannot be usage: negative ones, other units, and the spikes that a broken counter leaves. Pure.

A true burst is never taken away. So a sample counts as an artefact only if it is beyond what the resource allows, or
if it is short and far beyond both what one burst of a workload can be and all else that was seen of the series.
"""

import numpy as np
from numpy.typing import NDArray

from models.forecast import FloatArray
from predictor.usage.panel import Resource

BoolArray = NDArray[np.bool_]

UNIT_CEILING = {
    Resource.CPU: 1e5,
    Resource.MEMORY: 1e17,
    Resource.GPU: 1e4,
    Resource.GPU_MEMORY: 1e17,
    Resource.REQUESTS: 1e9,
    Resource.CUSTOM: 1e18,
}
"""No workload uses more, not even a whole cluster taken for one: a value above it is in another unit (millicores,
percent of a percent), or an artefact."""
LARGEST_BURST = {
    Resource.CPU: 1e3,
    Resource.MEMORY: 1e13,
    Resource.GPU: 1e3,
    Resource.GPU_MEMORY: 1e13,
    Resource.REQUESTS: 1e6,
    Resource.CUSTOM: 1e17,
}
"""Up to here a sample is believed whatever the others are: an idle batch job may take some large nodes at once."""
SPIKE_FACTOR = 100.0
"""Above the largest burst a sample must also exceed all lower ones by this factor to be a spike."""
CAPACITY_FACTOR = 10.0
"""Where a capacity is known, this many times the largest is beyond bursting and rounding: real ones reach twice."""
LONGEST_SPIKE_STEPS = 3
"""What lasts longer is believed: a rate reaches over a step or two, a workload that has grown stays."""
LARGEST_SPIKE_SHARE = 0.01
"""More of a series than this is its way, not an artefact."""


def without_sense(usage: FloatArray) -> BoolArray:
    """Where usage is negative or infinite, [steps]."""
    return np.asarray((usage < 0) | np.isinf(usage))


def spikes(usage: FloatArray, resource: Resource, capacity: float | None = None) -> BoolArray:
    """Which samples of one series, [steps], are impossibly high; of one in another unit throughout, the upper ones.

    `capacity` is the most that ever bounded the usage, where that is known.
    """
    ceiling = UNIT_CEILING[resource]
    is_high = usage > min(_believable(usage, resource, capacity), ceiling)
    high = int(is_high.sum())
    if high == 0:
        return is_high
    if high > max(LARGEST_SPIKE_SHARE * np.sum(~np.isnan(usage)), 1.0):
        return usage > ceiling
    return (is_high & (_run_lengths(is_high) <= LONGEST_SPIKE_STEPS)) | (usage > ceiling)


def _believable(usage: FloatArray, resource: Resource, capacity: float | None) -> float:
    """Up to which usage no explanation is needed."""
    if capacity is not None:
        return CAPACITY_FACTOR * capacity
    largest = LARGEST_BURST[resource]
    return max(largest, SPIKE_FACTOR * float(usage.max(initial=0.0, where=usage <= largest)))


def _run_lengths(flags: BoolArray) -> NDArray[np.int64]:
    """For each step, how many equal ones in a row it belongs to, [steps]."""
    starts = np.flatnonzero(np.diff(flags, prepend=~flags[:1]))
    lengths = np.diff(starts, append=flags.size)
    return np.repeat(lengths, lengths)
