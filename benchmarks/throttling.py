"""How much demand is missing from usage where some of the scheduler's periods are throttled.

    python -m benchmarks.throttling

Made-up containers: some clients each wait a while, ask for some CPU time, get it in hundredths of a second and wait
anew. Every tenth of a second the container is given its limit's worth of time; a period in which more was ready to run
than was left of it is throttled. What is missing is the usage against that of the same clients without a limit. Prints
a table by the share of throttled periods; `predictor.usage.bounds.LEAST_THROTTLED` rests on it.
"""

import numpy as np

from models.forecast import FloatArray

CONTAINERS, CLIENTS = 1500, 48
SLICE_SECONDS, PERIOD_SLICES = 0.01, 10
SLICES, WARM_UP_SLICES = 90_000, 15_000
SHARES = (0.0, 0.05, 0.1, 0.15, 0.25, 0.4, 0.6, 0.8)


def replayed(seed: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Of each container the share of throttled periods, the share of demand missing, and usage ÷ limit."""
    dice = np.random.default_rng(seed)
    limit = dice.choice([0.2, 0.5, 1.0, 2.0], CONTAINERS)
    asked_seconds = np.exp(dice.uniform(np.log(0.005), 0.0, CONTAINERS))
    clients = dice.integers(2, CLIENTS + 1, CONTAINERS)
    wanted_cores = limit * dice.uniform(0.2, 1.3, CONTAINERS)
    wait_seconds = np.maximum(clients * asked_seconds / wanted_cores - asked_seconds, 0.0)
    demand = clients * asked_seconds / (wait_seconds + asked_seconds)
    waiting = dice.exponential(1.0, (CONTAINERS, CLIENTS)) * wait_seconds[:, None]
    waiting[np.arange(CLIENTS) >= clients[:, None]] = np.inf
    work = np.zeros_like(waiting)
    left = limit * SLICE_SECONDS * PERIOD_SLICES
    used, throttled, periods = np.zeros(CONTAINERS), np.zeros(CONTAINERS), np.zeros(CONTAINERS)
    is_short, is_busy = np.zeros(CONTAINERS, np.bool_), np.zeros(CONTAINERS, np.bool_)
    for number in range(SLICES):
        if number % PERIOD_SLICES == 0:
            if number > WARM_UP_SLICES:
                throttled += is_short
                periods += is_busy
            left = limit * SLICE_SECONDS * PERIOD_SLICES
            is_short, is_busy = np.zeros_like(is_short), np.zeros_like(is_busy)
        waiting -= SLICE_SECONDS
        asking = np.nonzero((waiting <= 0) & (work <= 0))
        work[asking] = dice.exponential(1.0, asking[0].size) * asked_seconds[asking[0]]
        ready = np.minimum(work, SLICE_SECONDS)
        total = ready.sum(axis=1)
        is_short |= total > left + 1e-12
        is_busy |= total > 0
        given = ready * np.minimum(left / np.maximum(total, 1e-12), 1.0)[:, None]
        work -= given
        done = np.nonzero((ready > 0) & (work <= 1e-9))
        work[done] = 0.0
        waiting[done] = dice.exponential(1.0, done[0].size) * wait_seconds[done[0]]
        spent = given.sum(axis=1)
        left -= spent
        if number > WARM_UP_SLICES:
            used += spent
    cores = used / ((SLICES - WARM_UP_SLICES - 1) * SLICE_SECONDS)
    return throttled / np.maximum(periods, 1), 1 - cores / demand, cores / limit


def main() -> None:
    """Print the table."""
    share, missing, utilisation = replayed(seed=0)
    print(
        "| periods throttled | containers | demand missing, median | usage ÷ limit, median |\n| --- | --- | --- | --- |"
    )
    for low, high in zip(SHARES, (*SHARES[1:], np.inf), strict=True):
        rows = (share >= low) & (share < high)
        if rows.any():
            medians = f"{np.median(missing[rows]):.1%} | {np.median(utilisation[rows]):.2f}"
            print(f"| {low:.0%} and more | {rows.sum()} | {medians} |")


if __name__ == "__main__":
    main()
