"""How near the capacity learned from a simulated workload's history comes to its true one.

    python -m benchmarks.capacity

Queues of known capacity (`queues.py`), each seen for a day in intervals of five minutes or for a week in intervals of
one, with exponential service times as the fitted queue assumes, and off its assumptions: steadier and wilder service,
and figures that are measured badly. Beside it the fitted queue alone, without a factor, and LightGBM with a rising
binary objective in place of the centred isotonic regression. Results go to results/capacity.json and capacity.md.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import lightgbm
import numpy as np

from benchmarks.forecast_speed import circumstances
from benchmarks.queues import in_one_queue, in_pooled_queue, service_times, simulated
from benchmarks.running import RESULTS, made_with
from models.capacity import LearnedCapacity, LoadHistory, learned_capacity
from models.forecast import FloatArray
from models.queueing import largest_load

LEVEL = 0.99
THRESHOLD, WILD_THRESHOLD = 10.0, 20.0
"""99 % of requests within so many mean service times; of a CV of 2, service alone takes .7 % longer than ten."""
REPLICAS = (1, 4, 16)
SEEDS = {300: 12, 60: 6}
SEED = 0
TRUTH_REQUESTS = 1_000_000


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of workload and how it is seen."""

    is_pooled: bool
    most_replicas: int
    days: int
    interval_seconds: int
    service_cv: float = 1.0
    noise: float = 0.0
    """Relative error of load and late share in each interval."""

    @property
    def name(self) -> str:
        """What the table calls it."""
        queues = "one queue" if self.is_pooled else "own queues"
        return f"{queues}, {self.days} d of {self.interval_seconds} s, CV {self.service_cv:g}, noise {self.noise:.0%}"


def cases() -> Iterator[Case]:
    """All that are measured."""
    for is_pooled in (True, False):
        for days, interval, sizes in ((1, 300, (4, 30)), (7, 60, (2, 12))):
            for cv, noise in ((1.0, 0.0), (1.0, 0.1), (0.5, 0.0), (2.0, 0.0)):
                for most in sizes:
                    yield Case(is_pooled, most, days, interval, cv, noise)


def threshold_for(cv: float) -> float:
    """The SLO's threshold in mean service times."""
    return WILD_THRESHOLD if cv > 1 else THRESHOLD


@cache
def true_capacity(replicas: int, is_pooled: bool, cv: float) -> float:
    """The load at which so many replicas are late as often as is allowed, in requests per second."""
    if not is_pooled:
        return replicas * (
            true_capacity(1, True, cv) if replicas > 1 or cv != 1.0 else largest_load(1, THRESHOLD, LEVEL)
        )
    if cv == 1.0:
        return largest_load(replicas, THRESHOLD, LEVEL)
    rng = np.random.default_rng(SEED)
    service = service_times(rng, TRUTH_REQUESTS, cv)
    arrived = np.cumsum(rng.exponential(1.0, TRUTH_REQUESTS))
    low, high = 0.0, float(replicas)
    for _ in range(11):
        load = (low + high) / 2
        at = arrived / load
        done = in_one_queue(at, service) if replicas == 1 else in_pooled_queue(at, service, replicas)
        low, high = (load, high) if np.mean(done - at > threshold_for(cv)) <= 1 - LEVEL else (low, load)
    return low


def history(case: Case, seed: int) -> LoadHistory:
    """What is seen of one workload of that kind."""
    rng = np.random.default_rng((SEED, seed, case.most_replicas))
    middle = max(1, case.most_replicas // 2)
    seen = simulated(
        rng,
        seconds=case.days * 86_400,
        interval_seconds=case.interval_seconds,
        most_replicas=case.most_replicas,
        carried_by_one=true_capacity(middle, case.is_pooled, case.service_cv) / middle,
        threshold=threshold_for(case.service_cv),
        is_pooled=case.is_pooled,
        service_cv=case.service_cv,
    )
    wrong = np.exp(rng.normal(0.0, case.noise, (2, len(seen.load))))
    return replace(seen, load=seen.load * wrong[0], late_share=np.minimum(seen.late_share * wrong[1], 1.0))


def boosted(seen: LoadHistory, learned: LearnedCapacity) -> float:
    """The factor that LightGBM gives in place of the centred isotonic regression, from the same curve."""
    assert seen.requests is not None
    weight = seen.requests
    curve = learned.carried / learned.factor
    position = seen.load / curve[seen.replicas.astype(np.intp) - 1]
    both = np.concatenate([position, position])[:, None]
    labels = np.repeat([1.0, 0.0], len(position))
    weights = np.concatenate([weight * seen.late_share, weight * (1 - seen.late_share)])
    few = max(10, len(position) // 100)
    settings = {
        "objective": "binary", "monotone_constraints": [1], "num_leaves": 8, "learning_rate": 0.1, "verbosity": -1,
        "min_data_in_leaf": few, "min_sum_hessian_in_leaf": 1e-3, "num_threads": 1, "deterministic": True,
    }  # fmt: skip
    booster = lightgbm.train(settings, lightgbm.Dataset(both, labels, weight=weights), 150)
    grid = np.linspace(0.3, 1.5, 601)
    share: FloatArray = np.asarray(booster.predict(grid[:, None]))
    return float(grid[np.searchsorted(share, 1 - LEVEL, side="right") - 1])


def measured(case: Case) -> list[dict[str, float]]:
    """Relative errors at each number of replicas, by seed; nothing of a refusal but the reason."""
    results = []
    truth = np.array([true_capacity(n, case.is_pooled, case.service_cv) for n in REPLICAS])
    at = np.array(REPLICAS) - 1
    for seed in range(SEEDS[case.interval_seconds]):
        seen = history(case, seed)
        began = time.perf_counter()
        learned = learned_capacity(
            seen,
            threshold_seconds=threshold_for(case.service_cv),
            level=LEVEL,
            replicas=max(*REPLICAS, int(seen.replicas.max())),
            rng=np.random.default_rng(seed),
        )
        took = time.perf_counter() - began
        if not isinstance(learned, LearnedCapacity):
            results.append({"seconds": took, "refused": 1.0})
            continue
        row = {"seconds": took, "pooled": float(learned.is_pooled), "factor": learned.factor}
        other = boosted(seen, learned) / learned.factor
        for n, exact, place in zip(REPLICAS, truth, at, strict=True):
            row[f"error {n}"] = learned.carried[place] / exact - 1
            row[f"queue {n}"] = learned.carried[place] / learned.factor / exact - 1
            row[f"boosted {n}"] = learned.carried[place] * other / exact - 1
            row[f"inside {n}"] = float(learned.low[place] <= exact <= learned.high[place])
            row[f"safe {n}"] = float(learned.low[place] <= exact)
            row[f"width {n}"] = (learned.high[place] - learned.low[place]) / exact
        results.append(row)
    return results


def table(stored: dict[str, dict[str, Any]]) -> str:
    """Absolute errors, medians and largest, and the share of intervals that hold the truth."""
    lines = [
        "| workload | replicas at most | n | median error | largest | bias | queue alone | LightGBM |"
        " 95 % interval holds | low is safe | interval's width | queues told right |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kept in stored.values():
        case = Case(**kept["case"])
        rows = [row for row in kept["rows"] if "refused" not in row]
        for n in REPLICAS if rows else ():

            def of(key: str, n: int = n, rows: list[dict[str, float]] = rows) -> FloatArray:
                return np.array([row[f"{key} {n}"] for row in rows])

            right = np.mean([row["pooled"] == case.is_pooled for row in rows])
            lines.append(
                f"| {case.name} | {case.most_replicas} | {n} | {np.median(abs(of('error'))):.1%} |"
                f" {abs(of('error')).max():.1%} | {of('error').mean():+.1%} | {np.median(abs(of('queue'))):.1%} |"
                f" {np.median(abs(of('boosted'))):.1%} | {of('inside').mean():.0%} | {of('safe').mean():.0%} |"
                f" {np.median(of('width')):.1%} | {right:.0%} |"
            )
        if len(rows) < len(kept["rows"]):
            lines.append(f"| {case.name} | {case.most_replicas} | {len(kept['rows']) - len(rows)} refused |")
    return "\n".join(lines)


def main() -> None:
    """Measure all, store, print."""
    stored: dict[str, dict[str, Any]] = {}
    for case in cases():
        wall = time.perf_counter()
        stored[f"{case.name}, {case.most_replicas}"] = {"case": asdict(case), "rows": measured(case)} | circumstances(
            SEED, 1
        )
        print(f"{case.name}, {case.most_replicas}: {time.perf_counter() - wall:.0f} s", flush=True)
        (RESULTS / "capacity.json").write_text(json.dumps(stored, indent=1))
    page = f"{table(stored)}\n\n{made_with({'all': next(iter(stored.values()))})}\n"
    (RESULTS / "capacity.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
