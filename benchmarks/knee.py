"""How near the knee of throttling learned from a simulated workload's past comes to its true one.

    python -m benchmarks.knee

Containers with a CPU limit of one core each, whose demand in each of the scheduler's periods is gamma distributed and
does not depend on the period before; replicas of one workload are busier or idler than their mean by 5 %. Two to nine
replicas follow a daily rhythm, now and then beyond the knee. Beside it the plain way: usage in bins a twentieth of the
largest wide, of which the last counts before the mean share of throttled periods exceeds what is allowed.

Then a closed loop of six weeks: replicas hold the hour's highest demand and a margin at 90 % of the request for a week,
and from then on at the low end of what the last week taught, learned anew each day. Prints a table of each.
"""

from dataclasses import dataclass
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
PEAKS, WEEKS, LOOP_SEEDS = (4.0, 40.0), 6, 3
"""Cores of the loop's demand at its daily highest, in the mean."""
CONFIGURED = 0.9
NOISE = 0.08
"""Standard deviation of the logarithm of demand around its daily rhythm; the margin is its P99."""
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


@dataclass(frozen=True)
class Week:
    """What a week of the closed loop came to."""

    relied_on: float
    """Usage per replica at its end, ÷ the true knee; of the configured one where none was learned."""
    short_share: float
    """Share of the steps in which more was throttled than allowed."""
    replicas: float
    """Mean."""


def closed_loop(burstiness: float, peak: float, seed: int) -> list[Week]:
    """Six weeks of a workload that is sized by what it taught, for 1 % of the periods."""
    rng = np.random.default_rng(seed)
    allowed, per_week = 0.01, 7 * STEPS_PER_DAY
    knee, step = true_knee(burstiness, allowed), np.arange(WEEKS * per_week)
    expected = peak * (0.6 + 0.4 * np.sin(2 * np.pi * step / STEPS_PER_DAY))
    demand = expected * np.exp(rng.normal(0, NOISE, len(step)))
    safe = np.repeat(expected.reshape(-1, 12).max(axis=1), 12) * np.exp(2.33 * NOISE)
    replicas, share = np.empty(len(step)), np.empty(len(step))
    used, weeks = CONFIGURED, []
    for end in range(STEPS_PER_DAY, len(step) + 1, STEPS_PER_DAY):
        day, last = slice(end - STEPS_PER_DAY, end), slice(max(0, end - per_week), end)
        replicas[day] = np.ceil(safe[day] / used)
        share[day] = counted(np.minimum(demand[day] / replicas[day], 1.0), replicas[day], burstiness, rng)
        if end >= per_week:
            found = learned_usage(demand[last] / replicas[last], share[last], allowed=allowed, rng=rng)
            used = found.low if isinstance(found, LearnedUsage) else used
        if end % per_week == 0:
            weeks.append(Week(used / knee, float((share[last] > allowed).mean()), float(replicas[last].mean())))
    return weeks


def loop_table() -> None:
    """Means over seeds, each week's end beside the first week at the configured utilisation."""
    print(
        "\n| deviation | peak, cores | knee | relied on ÷ knee after week 1 | 2 | 6 "
        "| steps too throttled, week 1 | 2 | 6 | replicas in week 6 ÷ week 1 |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for burstiness, peak in product(BURSTINESS, PEAKS):
        runs = [closed_loop(burstiness, peak, seed) for seed in range(LOOP_SEEDS)]
        told = [f"{np.mean([run[n].relied_on for run in runs]):.2f}" for n in (0, 1, WEEKS - 1)]
        told += [f"{np.mean([run[n].short_share for run in runs]):.1%}" for n in (0, 1, WEEKS - 1)]
        more = np.mean([run[-1].replicas / run[0].replicas for run in runs])
        print(f"| {burstiness:.0%} | {peak:g} | {true_knee(burstiness, 0.01):.2f} | {' | '.join(told)} | {more:.2f} |")


def main() -> None:
    """Print the tables."""
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
            f"| {np.mean(holds):.0%} | {np.mean(safe):.0%} | {np.mean(below):.1%} "
            f"| {np.median(plain):.1%} | {max(plain):.1%} |"
        )
    loop_table()


if __name__ == "__main__":
    main()
