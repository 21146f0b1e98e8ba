"""How near the knee of throttling learned from a simulated workload's past comes to its true one.

    python -m benchmarks.knee

Containers with a CPU limit of one core each, whose demand in each of the scheduler's periods is gamma distributed and
does not depend on the period before; replicas of one workload are busier or idler than their mean by 5 %. Two to nine
replicas follow a daily rhythm, now and then beyond the knee. Beside it the plain way: usage in bins a twentieth of the
largest wide, of which the last counts before the mean share of throttled periods exceeds what is allowed. Prints a
table.
"""

from itertools import product

import numpy as np
from scipy.optimize import brentq
from scipy.stats import gamma

from models.capacity import LearnedUsage, learned_usage
from models.forecast import FloatArray

PERIODS = 3_000
"""In a step of five minutes."""
STEPS_PER_DAY = 288
UNEVENNESS = 0.05
"""Standard deviation of the logarithm of one replica's usage ÷ the mean of all."""
BURSTINESS = (0.07, 0.16, 0.32, 0.5)
ALLOWED = (0.01, 0.05, 0.1)
DAYS, SEEDS = (1, 7), 12
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(31)


def throttled_share(usage: FloatArray, burstiness: float, limit: float = 1.0) -> FloatArray:
    """Share of periods in which more is asked for than the limit, where usage is so much on average.

    What a period asks for has a standard deviation of `burstiness` x its mean.
    """
    shape = burstiness**-2
    return np.asarray(gamma.sf(limit, shape, scale=usage / shape))


def true_knee(burstiness: float, allowed: float) -> float:
    """The mean usage at which the throttled share of all replicas, uneven as they are, is as much as is allowed."""

    def excess(used: float) -> float:
        share = throttled_share(used * np.exp(UNEVENNESS * _NODES), burstiness)
        return float(share @ _WEIGHTS / _WEIGHTS.sum()) - allowed

    return float(brentq(excess, 1e-3, 1.0))


def counted(usage: FloatArray, replicas: FloatArray, burstiness: float, rng: np.random.Generator) -> FloatArray:
    """The share as it is counted over each step, where so many replicas use so much on average, [steps]."""
    most = int(replicas.max())
    own = usage[:, None] * np.exp(rng.normal(0, UNEVENNESS, (len(usage), most)))
    throttled = rng.binomial(PERIODS, throttled_share(own, burstiness))
    is_there = np.arange(most) < replicas[:, None]
    return np.asarray((throttled * is_there).sum(axis=1) / (PERIODS * replicas))


def a_past(days: int, knee: float, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Usage per replica, and replicas, of a workload that goes beyond its knee each noon."""
    step = np.arange(days * STEPS_PER_DAY)
    rhythm = 0.6 + 0.4 * np.sin(2 * np.pi * step / STEPS_PER_DAY)
    usage = 1.05 * knee * rhythm * np.exp(rng.normal(0, 0.08, len(step)))
    return usage, rng.integers(2, 10, len(step)).astype(np.float64)


def by_bins(usage: FloatArray, share: FloatArray, allowed: float) -> float:
    """The upper end of the last bin before the mean share of one exceeds what is allowed."""
    ends = np.linspace(0.0, float(usage.max()), 21)
    place = np.minimum(np.searchsorted(ends, usage, side="left"), 20)
    for number in range(1, 21):
        inside = place == number
        if inside.any() and share[inside].mean() > allowed:
            return float(ends[number - 1])
    return float(ends[-1])


def main() -> None:
    """Print the table."""
    print(
        "| days | refused | error, median | at most | 95 % interval holds | low end is safe | low end below | by bins: "
        "median | at most |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for days in DAYS:
        errors, plain, holds, safe, below, refused = [], [], [], [], [], 0
        for burstiness, allowed, seed in product(BURSTINESS, ALLOWED, range(SEEDS)):
            rng = np.random.default_rng(seed)
            knee = true_knee(burstiness, allowed)
            usage, replicas = a_past(days, knee, rng)
            share = counted(usage, replicas, burstiness, rng)
            found = learned_usage(usage, share, allowed=allowed, rng=rng)
            plain.append(abs(by_bins(usage, share, allowed) / knee - 1))
            if not isinstance(found, LearnedUsage):
                refused += 1
                continue
            errors.append(abs(found.usage / knee - 1))
            holds.append(found.low <= knee <= found.high)
            safe.append(found.low <= knee)
            below.append(1 - found.low / knee)
        print(
            f"| {days} | {refused} of {len(plain)} | {np.median(errors):.1%} | {max(errors):.1%} "
            f"| {np.mean(holds):.0%} | {np.mean(safe):.0%} | {np.mean(below):.1%} | {np.median(plain):.1%} | {max(plain):.1%} |"
        )


if __name__ == "__main__":
    main()
