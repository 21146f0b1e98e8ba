"""Containers under a CPU limit whose knee is known: by how much each asks for in each of the scheduler's periods."""

import numpy as np
from scipy.optimize import brentq
from scipy.stats import gamma

from models.forecast import FloatArray

PERIODS = 3_000
"""In a step of five minutes."""


def throttled_share(usage: FloatArray, limit: float, burstiness: float) -> FloatArray:
    """Share of periods in which more is asked for than the limit, where usage is so much on average.

    What a period asks for is gamma distributed with a standard deviation of `burstiness` x its mean.
    """
    shape = burstiness**-2
    return np.asarray(gamma.sf(limit, shape, scale=usage / shape))


def true_knee(limit: float, burstiness: float, allowed: float) -> float:
    """The usage at which the throttled share is as much as is allowed."""
    found = brentq(lambda used: float(throttled_share(np.array([used]), limit, burstiness)[0]) - allowed, 1e-3, limit)
    return float(found)


def counted(share: FloatArray, replicas: FloatArray, rng: np.random.Generator) -> FloatArray:
    """The share as it is counted over one step of so many replicas."""
    periods = PERIODS * replicas.astype(np.int64)
    return np.asarray(rng.binomial(periods, share) / periods)
