"""What so many replicas carry within an SLO, learned from how late requests were at which load.

Of each interval are known the load of the whole workload, the replicas that were ready, and the share of requests that
took longer than the SLO's threshold. Two things are learned from them:

- **a curve**: the queue under which the late requests are likeliest, by binomial likelihood: M/M/c (`models.queueing`)
  with waits longer or shorter by how irregular arrivals and service are (Allen 1978, Cunneen). It has a rate, servers
  per replica, and either all replicas share it or each has its own, as random load balancing gives. It says how what
  is carried depends on the number of replicas;
- **a factor** on that curve, free of the queue's assumptions: load ÷ what the curve carries is where intervals with
  different replicas are one sample; over it the late share is a rising curve of no given form (centred isotonic
  regression, Oron and Flournoy 2017), and the factor is where that reaches what the SLO allows. The fitted queue takes
  part in it as a few hundred requests, so that it decides while data are few and is outvoted later.

What both may be by chance comes from drawing blocks of successive intervals (Künsch 1989), as these are alike.
Pure: the dice are an argument.
"""

from dataclasses import dataclass
from itertools import product
from math import inf, log
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from models.forecast import BoolArray, FloatArray, ForecastError
from models.queueing import largest_loads, late_shares

LEAST_POINTS = 40
"""From fewer points nothing is learned."""
POINT_REQUESTS = 1_000.0
"""Successive intervals are taken together until they have so many requests: their number is then known within 3 %."""
MOST_POINTS = 1_000.0
"""And further until they are about so few: a queue takes a while to be as long as its load makes it."""
POINT_INTERVALS = 15
"""But no more of them than this, as load changes meanwhile."""
LEAST_SPREAD = 1.25
"""Load per replica must differ by this factor between its lowest and highest fiftieth."""
LEAST_BUSY_INTERVALS = 5
"""So many intervals at least must be about as late as the SLO allows, or later."""
LEAST_CORRELATION = 0.05
"""So much at least must load and lateness surely rise together, by their ranks."""
NEAR = 0.5
"""Late by this share of what is allowed is near what is allowed."""
OLDER_WEIGHT = 0.1
"""What an interval of an older version counts beside one of the version that runs."""
VERSION_SPREAD = 0.15
"""By about this much, relative, what is carried changes from version to version."""
PRIOR_REQUESTS = 200.0
"""What each point of the fitted queue counts in the factor's curve, in independent requests."""
PRIOR_POINTS = np.linspace(0.5, 1.3, 17)
"""Where those points lie, in what the curve carries."""
SERVERS_PER_REPLICA = (1, 3, 10)
"""What a replica is tried as."""
VARIABILITIES = (0.4, 0.48, 0.58, 0.7, 0.84, 1.0, 1.2, 1.44, 1.73, 2.07, 2.5, 3.0)
"""How irregular arrivals and service are tried as: half the sum of their squared coefficients of variation."""
SIMPLICITY = 0.25
"""Standard deviation of the logarithms of both: a replica is one server of an M/M/c queue unless data say otherwise."""
RATES_FROM, RATES_TO = 0.5, 8.0
"""Between which multiples of the highest load per replica the rate of a replica is looked for."""
LEAST_LATE, MOST_LATE = 0.01, 0.9
"""A queue says no less than this share of what is allowed, and no more than this: any interval may have had other
reasons to be late, and a queue that grows without end in the steady state is not yet long after some minutes."""
RATE_STEP = 1.04
"""Rates are tried in steps of this factor."""
CELL_STEP = 1.02
"""Loads that differ by less than this factor, with as many replicas, are counted together."""
FORM_SPREAD = 0.02
"""By about this much, relative, what is carried is off because no queue is an M/M/c queue in a steady state."""
FEWER_SPREAD, MORE_SPREAD = 0.1, 0.03
"""And by this much for each halving of the replicas below the fewest that were seen, each doubling above the most."""
BLOCK_FACTOR = 2.0
"""A block is so many times the cube root of all points long: of a day in intervals of five minutes about an hour."""
RESAMPLES = 200
INTERVAL = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class LoadHistory:
    """What was seen of a workload in successive intervals of one length, each field [intervals].

    Intervals in which something is not known (NaN), or without replicas or requests, are left out.
    """

    replicas: FloatArray
    """How many were ready."""
    load: FloatArray
    """Of the whole workload, in requests per second."""
    late_share: FloatArray
    """Share of requests that took longer than the SLO's threshold; 1 or 0 where only a percentile is known."""
    requests: FloatArray | None = None
    """How many requests that is a share of; None where that is not known: all intervals then count the same."""
    is_current: BoolArray | None = None
    """Whether the version ran that runs now; None: in all of them."""

    def __post_init__(self) -> None:
        each = (self.replicas, self.load, self.late_share, self.requests, self.is_current)
        shapes = {one.shape for one in each if one is not None}
        if len(shapes) != 1 or self.load.ndim != 1:
            raise ForecastError(f"a history of load has one value of each per interval; got shapes {shapes}")
        known = self.late_share[~np.isnan(self.late_share)]
        if ((known < 0) | (known > 1)).any():
            raise ForecastError("late shares must lie between 0 and 1")


@dataclass(frozen=True, slots=True)
class _Points:
    """Successive intervals together, each field [points]."""

    replicas: FloatArray
    load: FloatArray
    late_share: FloatArray
    weight: FloatArray
    is_current: BoolArray

    @classmethod
    def of(cls, history: LoadHistory) -> Self:
        """Those in which all is known, together until they have enough requests for their load to be no chance."""
        requests = np.ones_like(history.load) if history.requests is None else history.requests
        current = np.ones(len(requests), np.bool_) if history.is_current is None else history.is_current
        is_known = (history.replicas >= 1) & (history.load > 0) & (requests > 0) & ~np.isnan(history.late_share)
        is_known &= np.isfinite(history.load) & np.isfinite(requests) & np.isfinite(history.replicas)
        replicas, load, late = history.replicas[is_known], history.load[is_known], history.late_share[is_known]
        weight, current = requests[is_known], current[is_known]
        if not len(load) or history.requests is None:
            return cls(replicas, load, late, weight, current)
        first = _first_of_each(np.flatnonzero(is_known), replicas, current, weight)
        total = np.add.reduceat(weight, first)
        # The mean over time, not over requests: what was carried, as the next one is counted.
        seen = np.add.reduceat(load, first) / np.diff(first, append=len(load))
        return cls(replicas[first], seen, np.add.reduceat(weight * late, first) / total, total, current[first])

    def where(self, is_taken: BoolArray) -> Self:
        """Only those."""
        replicas, load, late = self.replicas[is_taken], self.load[is_taken], self.late_share[is_taken]
        return type(self)(replicas, load, late, self.weight[is_taken], self.is_current[is_taken])


def _first_of_each(
    place: NDArray[np.intp], replicas: FloatArray, current: BoolArray, requests: FloatArray
) -> NDArray[np.intp]:
    """Where points of successive intervals begin, of which each has the same replicas and version throughout."""
    begins = (np.diff(place, prepend=-2) != 1) | (np.diff(replicas, prepend=-1) != 0) | np.diff(current, prepend=False)
    enough = max(POINT_REQUESTS, float(requests.sum()) / MOST_POINTS)
    first = []
    together, count = 0.0, 0
    for i, (is_new, asked) in enumerate(zip(begins.tolist(), requests.tolist(), strict=True)):
        if is_new or together >= enough or count >= POINT_INTERVALS:
            first.append(i)
            together, count = 0.0, 0
        together, count = together + asked, count + 1
    return np.array(first, dtype=np.intp)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing was learned."""

    reason: str
    at_least: float | None = None
    """The load per replica up to which it is known that few enough requests were late, where that is known."""


@dataclass(frozen=True, slots=True)
class LearnedCapacity:
    """What replicas carry within the SLO."""

    carried: FloatArray
    """The load that 1, 2, 3 … replicas carry, in the unit of the history's load; never falling."""
    low: FloatArray
    """Its 2.5 % quantile over histories like this one."""
    high: FloatArray
    """Its 97.5 % quantile."""
    is_pooled: bool
    """Whether the replicas are likelier to share one queue than to have one each."""
    servers_per_replica: int
    """How many servers of the M/M/c queue a replica is likeliest worth."""
    service_rate: float
    """How many requests a second each of those serves in the likeliest queue; not the truth where it is not M/M/c."""
    variability: float
    """How irregular arrivals and service are in it, half the sum of their squared coefficients of variation."""
    factor: float
    """What is carried ÷ what the likeliest queue carries."""


@dataclass(frozen=True, slots=True)
class _Queue:
    """A queue that all replicas share, or one of each."""

    service_rate: float
    """Requests a second of one server."""
    servers_per_replica: int
    is_pooled: bool
    variability: float = 1.0
    """How irregular arrivals and service are; waits are so many times as long (Allen and Cunneen)."""

    def threshold(self, seconds: float) -> float:
        """The threshold in what a service time counts as."""
        return seconds * self.service_rate / self.variability

    def carried(self, replicas: FloatArray, threshold_seconds: float, level: float) -> FloatArray:
        """The largest load of each number of replicas."""
        threshold = self.threshold(threshold_seconds)
        if self.is_pooled:
            return self.service_rate * largest_loads(replicas * self.servers_per_replica, threshold, level)
        one = float(largest_loads(np.array([float(self.servers_per_replica)]), threshold, level)[0])
        return self.service_rate * one * replicas

    def late(self, load: FloatArray, replicas: FloatArray, threshold_seconds: float) -> FloatArray:
        """The share of requests that it makes wait longer than the threshold."""
        each = replicas if self.is_pooled else np.ones_like(replicas)
        erlangs = load * each / replicas / self.service_rate
        return late_shares(erlangs, each * self.servers_per_replica, self.threshold(threshold_seconds))


@dataclass(frozen=True, slots=True)
class _Resamples:
    """Blocks of successive points, and how often each is drawn."""

    block: NDArray[np.intp]
    """The block of each point."""
    drawn: FloatArray
    """How much each block counts in each draw, [draws, blocks]; the first draw is the history itself."""

    @classmethod
    def of(cls, points: _Points, rng: np.random.Generator) -> Self:
        """Blocks that grow as the cube root of the points (Hall, Horowitz and Jing 1995), each of one version.

        Of blocks of older versions fewer are drawn, which makes what they say less certain.
        """
        count = len(points.load)
        place = np.arange(count) // int(np.ceil(BLOCK_FACTOR * count ** (1 / 3))) * 2 + points.is_current
        _, block = np.unique(place, return_inverse=True)
        is_older = np.ones(int(block.max()) + 1, np.bool_)
        is_older[block] = ~points.is_current
        drawn = np.where(is_older, OLDER_WEIGHT, np.ones((1 + RESAMPLES, len(is_older))))
        for which, share in ((~is_older, 1.0), (is_older, OLDER_WEIGHT)):
            if blocks := int(which.sum()):
                times = int(np.ceil(blocks * share))
                drawn[1:, which] = rng.multinomial(times, np.full(blocks, 1 / blocks), RESAMPLES)
        return cls(block, drawn)

    def sums(self, amount: FloatArray, group: NDArray[np.intp]) -> FloatArray:
        """The amounts of the points of each group, added up in each draw, [draws, groups]."""
        by_block = np.zeros((self.drawn.shape[1], int(group.max()) + 1))
        np.add.at(by_block, (self.block, group), amount)
        return np.asarray(self.drawn @ by_block)


@dataclass(frozen=True, slots=True)
class _Cells:
    """Points counted by replicas and load, in each draw."""

    replicas: FloatArray
    load: FloatArray
    total: FloatArray
    """Weight, [draws, cells]."""
    late: FloatArray
    """Weight of the late ones, [draws, cells]."""

    @classmethod
    def of(cls, points: _Points, resamples: _Resamples) -> Self:
        """Counts of points with the same replicas and nearly the same load, whose mean stands for all."""
        steps = np.floor(np.log(points.load / points.load.min()) / log(CELL_STEP))
        keys, cell = np.unique(np.stack([points.replicas, steps], axis=1), axis=0, return_inverse=True)
        load = np.bincount(cell, points.weight * points.load) / np.bincount(cell, points.weight)
        late = resamples.sums(points.weight * points.late_share, cell)
        return cls(keys[:, 0], load, resamples.sums(points.weight, cell), late)


def learned_capacity(
    history: LoadHistory, *, threshold_seconds: float, level: float, replicas: int, rng: np.random.Generator
) -> LearnedCapacity | Refusal:
    """What 1 to `replicas` replicas carry while a share `level` of requests takes at most `threshold_seconds`."""
    if threshold_seconds <= 0 or not 0 < level < 1 or replicas < 1:
        raise ForecastError(
            f"a capacity needs a threshold above 0, a level between 0 and 1 and a replica; got {threshold_seconds:g} s,"
            f" {level:g} and {replicas}"
        )
    points = _Points.of(history)
    if not points.is_current.all():
        # What ran before is asked only as long as what runs now does not say enough by itself.
        alone = _learned(points.where(points.is_current), threshold_seconds, level, replicas, rng)
        if isinstance(alone, LearnedCapacity):
            return alone
    return _learned(points, threshold_seconds, level, replicas, rng)


def _learned(
    points: _Points, threshold_seconds: float, level: float, replicas: int, rng: np.random.Generator
) -> LearnedCapacity | Refusal:
    """What is learned from all these points."""
    allowed = 1.0 - level
    if refusal := _unfit(points, allowed, "late"):
        return refusal
    resamples = _Resamples.of(points, rng)
    if refusal := _unrelated(points, resamples, "late"):
        return refusal
    cells = _Cells.of(points, resamples)
    dispersion = _dispersion(points)
    queues, chosen = _likeliest(cells, dispersion, threshold_seconds, level)
    if not queues:
        return Refusal(f"no queue as busy as this one has {level:.4g} of its requests done in {threshold_seconds:g} s")
    asked = np.arange(1.0, replicas + 1)
    typical = np.median(points.replicas, keepdims=True)
    carried, factors = np.empty((len(chosen), replicas)), np.empty(len(chosen))
    for number, queue in enumerate(queues):
        curve = queue.carried(asked, threshold_seconds, level)
        place = np.concatenate([cells.load / queue.carried(cells.replicas, threshold_seconds, level), PRIOR_POINTS])
        at_typical = PRIOR_POINTS * queue.carried(typical, threshold_seconds, level)
        prior_late = queue.late(at_typical, np.full(len(PRIOR_POINTS), typical[0]), threshold_seconds)
        prior = np.full(len(PRIOR_POINTS), PRIOR_REQUESTS * dispersion)
        for draw in np.flatnonzero(chosen == number):
            late = np.concatenate([cells.late[draw], prior * prior_late])
            total = np.concatenate([cells.total[draw], prior])
            factors[draw] = RisingShare.of(place, late, total).reaches(allowed)
            carried[draw] = factors[draw] * curve
    fewer = np.maximum(np.log2(points.replicas.min() / asked), 0.0)
    more = np.maximum(np.log2(asked / points.replicas.max()), 0.0)
    form = FORM_SPREAD + FEWER_SPREAD * fewer + MORE_SPREAD * more
    weight = np.where(points.is_current, 1.0, OLDER_WEIGHT) * points.weight
    older_share = 1.0 - weight[points.is_current].sum() / weight.sum()
    spread = np.hypot(form, VERSION_SPREAD * older_share)
    off = np.exp(rng.standard_normal(RESAMPLES)[:, None] * spread)
    # Each quantile of curves that rise rises too, but for what is off by chance.
    low, high = np.maximum.accumulate(np.quantile(carried[1:] * off, INTERVAL, axis=0), axis=1)
    best = queues[chosen[0]]
    return LearnedCapacity(
        carried[0],
        low,
        high,
        best.is_pooled,
        best.servers_per_replica,
        best.service_rate,
        best.variability,
        float(factors[0]),
    )


@dataclass(frozen=True, slots=True)
class LearnedUsage:
    """What one replica may use before more of it is cut off than is allowed."""

    usage: float
    """In the unit of the usage that it was learned from."""
    low: float
    """Its 2.5 % quantile over histories like this one."""
    high: float
    """Its 97.5 % quantile."""


def learned_usage(
    usage: FloatArray, throttled_share: FloatArray, *, allowed: float, rng: np.random.Generator
) -> LearnedUsage | Refusal:
    """The usage per replica, [intervals], at which the throttled share of the scheduler's periods reaches `allowed`.

    For workloads whose requests are not measured: where throttling begins in earnest, there is no more to be had.
    """
    if not 0 < allowed < 1:
        raise ForecastError(f"the throttled share that is allowed must lie between 0 and 1, got {allowed:g}")
    points = _Points.of(LoadHistory(np.ones(len(usage)), usage, throttled_share))
    if refusal := _unfit(points, allowed, "throttled"):
        return refusal
    resamples = _Resamples.of(points, rng)
    if refusal := _unrelated(points, resamples, "throttled"):
        return refusal
    cells = _Cells.of(points, resamples)
    drawn = zip(cells.late, cells.total, strict=True)
    reached = np.array([RisingShare.of(cells.load, late, total).reaches(allowed) for late, total in drawn])
    low, high = np.quantile(reached[1:], INTERVAL)
    return LearnedUsage(float(reached[0]), float(low), float(high))


@dataclass(frozen=True, slots=True)
class RisingShare:
    """The late share as a rising curve of load: where it is how high, between the points in a straight line.

    Centred isotonic regression: each level stretch of the isotonic fit stands at the mean load of what is in it.
    """

    load: FloatArray
    share: FloatArray

    @classmethod
    def of(cls, load: FloatArray, late: FloatArray, total: FloatArray) -> Self:
        """The curve through late ÷ total, each weighted by its total."""
        order = np.argsort(load, kind="stable")
        order = order[total[order] > 0]
        load, late, total = load[order], late[order], total[order]
        fitted = isotonic_regression(late / total, weights=total)
        starts = fitted.blocks[:-1]
        centre = np.add.reduceat(load * total, starts) / np.add.reduceat(total, starts)
        return cls(centre, fitted.x[starts])

    def at(self, load: FloatArray) -> FloatArray:
        """The share at each load; beyond the ends as at them."""
        return np.interp(load, self.load, self.share)

    def reaches(self, share: float) -> float:
        """The load at which it is so high; the first or last load where it is higher or lower everywhere."""
        return float(np.interp(share, self.share, self.load))


def _unfit(points: _Points, allowed: float, outcome: str) -> Refusal | None:
    """Why nothing can be learned from the points, by load per replica alone; None where something may be."""
    if len(points.load) < LEAST_POINTS:
        return Refusal(f"load and the {outcome} share are known of {len(points.load)} points, need {LEAST_POINTS}")
    each = points.load / points.replicas
    low, high = np.quantile(each, (0.02, 0.98)).tolist()
    curve = RisingShare.of(each, points.weight * points.late_share, points.weight)
    if curve.share[0] > allowed:
        return Refusal(f"{curve.share[0]:.2%} are {outcome} even at the lowest load, where {allowed:.2%} may be")
    if high < LEAST_SPREAD * low:
        is_fine = np.average(points.late_share, weights=points.weight) <= allowed
        return Refusal(f"load per replica hardly varies: {low:.4g} to {high:.4g}", low if is_fine else None)
    near = curve.reaches(NEAR * allowed) if curve.share[-1] >= NEAR * allowed else inf
    if (each >= near).sum() < LEAST_BUSY_INTERVALS:
        fine = min(high, near)
        return Refusal(f"up to a load of {fine:.4g} per replica fewer are {outcome} than may be", at_least=fine)
    return None


def _unrelated(points: _Points, resamples: _Resamples, outcome: str) -> Refusal | None:
    """Why load does not explain the late share: their rank correlation (Spearman 1904) may be chance."""
    load, late = _ranks(points.load / points.replicas), _ranks(points.late_share)
    together = np.zeros(len(load), np.intp)
    moments = [load, late, load * late, load**2, late**2]
    ones, *sums = (resamples.sums(each, together)[:, 0] for each in (np.ones(len(load)), *moments))
    mean_load, mean_late, both, load_squared, late_squared = (each / ones for each in sums)
    variance = (load_squared - mean_load**2) * (late_squared - mean_late**2)
    correlation = (both - mean_load * mean_late) / np.sqrt(np.maximum(variance, 1e-12))
    if np.quantile(correlation[1:], INTERVAL[0]) > LEAST_CORRELATION:
        return None
    return Refusal(
        f"load does not explain what is {outcome}: their rank correlation is {correlation[0]:.2f} and may be chance"
    )


def _ranks(values: FloatArray) -> FloatArray:
    """The rank of each from 0 to 1; equal ones share theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray(((np.cumsum(counts) - counts / 2) / len(values))[which])


def _likeliest(
    cells: _Cells, dispersion: float, threshold_seconds: float, level: float
) -> tuple[list[_Queue], NDArray[np.intp]]:
    """The queues that are the likeliest in some draw, and which of them is in each draw, [draws].

    The logarithm of the likelihood is divided by how much more late shares vary than by chance alone.
    """
    allowed = 1.0 - level
    highest = float((cells.load / cells.replicas).max())
    rates = highest * RATES_FROM * RATE_STEP ** np.arange(log(RATES_TO / RATES_FROM) / log(RATE_STEP))
    tried, likelihoods, priors = [], [], []
    for servers, is_pooled, rate, variability in product(SERVERS_PER_REPLICA, (False, True), rates, VARIABILITIES):
        queue = _Queue(float(rate / servers), servers, is_pooled, variability)
        if np.exp(-queue.threshold(threshold_seconds)) > allowed:
            continue
        late = np.clip(queue.late(cells.load, cells.replicas, threshold_seconds), LEAST_LATE * allowed, MOST_LATE)
        tried.append(queue)
        likelihoods.append(np.stack([np.log(late), np.log1p(-late)]))
        priors.append(-0.5 * (log(servers) ** 2 + log(variability) ** 2) / SIMPLICITY**2)
    if not tried:
        return [], np.empty(0, np.intp)
    logs = np.array(likelihoods)
    sums = cells.late @ logs[:, 0].T + (cells.total - cells.late) @ logs[:, 1].T
    found, chosen = np.unique((sums / dispersion + np.array(priors)).argmax(axis=1), return_inverse=True)
    return [tried[each] for each in found], chosen


def _dispersion(points: _Points) -> float:
    """How much more the late shares vary than those of independent requests would: Pearson's χ² per point."""
    each = points.load / points.replicas
    expected = RisingShare.of(each, points.weight * points.late_share, points.weight).at(each)
    variance = expected * (1 - expected)
    known = variance > 0
    squares = points.weight[known] * (points.late_share[known] - expected[known]) ** 2 / variance[known]
    return max(1.0, float(squares.sum()) / len(each))
