"""A workload that is sized by what it was seen to carry, and teaches by that what it carries, for weeks on end.

    python -m benchmarks.capacity_loop

A shared M/M/c queue with exponential service, 99 % of requests within ten mean service times, in steps of five minutes.
The first week is sized by utilisation, late and roughly; from then on by the learned capacity, learned anew every six
hours from the last seven days. Demand that is sized for is that of the step itself, known with an error of 5 %, at its
99 % quantile; pods are there at once: what is tried here is the loop of learning alone. In two cases another version
runs from the third week on, which serves a tenth more slowly or faster. Results go to results/capacity_loop.json and
capacity_loop.md.
"""

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from autoscaler.cluster.reasons import Hold
from autoscaler.controller.learning import (
    LearningAnswer,
    learned_knots,
    load_history,
    of_this_version,
    standing_capacity,
)
from autoscaler.decisions.capacity_curve import Knots, LearnedCurve, fewest_kept, relied_on
from benchmarks.forecast_speed import circumstances
from benchmarks.running import RESULTS, made_with
from models.capacity import LoadHistory
from models.forecast import FloatArray
from models.queueing import largest_loads, late_shares
from predictor.usage.ready import ReadyHistory

STEP_SECONDS, STEPS_A_DAY = 300, 288
WEEK = 7 * STEPS_A_DAY
WEEKS = 6
LEARNED_EVERY = 72
RATE, THRESHOLD, LEVEL = 10.0, 1.0, 0.99
ERROR, QUANTILE = 0.05, 2.33
MOST = 200
SEEDS = 2


@dataclass(frozen=True, slots=True)
class Case:
    """How large a workload is, what is relied on, and what another version does to its rate."""

    peak: float
    relies_on: str
    new_rate: float = 1.0

    @property
    def name(self) -> str:
        """What the table calls it."""
        version = "" if self.new_rate == 1.0 else f", from week 3 on {self.new_rate:g} times as fast"
        return f"{self.peak:g} requests/s, the {self.relies_on}{version}"


CASES = (
    *(Case(peak, relies_on) for peak in (40.0, 200.0) for relies_on in ("low end", "likeliest")),
    Case(40.0, "low end", 0.9),
    Case(40.0, "low end", 1.1),
)


def truly_carried(rate: float) -> FloatArray:
    """What 1, 2, 3 … replicas carry."""
    carried: FloatArray = rate * largest_loads(np.arange(1.0, MOST + 1), THRESHOLD * rate, LEVEL)
    return carried


def demand_of(rng: np.random.Generator, peak: float) -> FloatArray:
    """Requests a second, [steps]: a day's rhythm, and an autoregression with a memory of an hour."""
    hours = np.arange((WEEKS + 1) * WEEK) % STEPS_A_DAY / 12
    wandering, value = np.zeros(hours.size), 0.0
    for step, shock in enumerate(rng.normal(0, 0.05, hours.size).tolist()):
        value = 0.92 * value + shock
        wandering[step] = value
    made: FloatArray = peak * (0.55 - 0.4 * np.cos(2 * np.pi * hours / 24)) * np.exp(wandering)
    return made


def looped(case: Case, seed: int) -> dict[str, list[float]]:
    """By week: the share of steps in which too many were late, and replicas ÷ those that were needed."""
    rng = np.random.default_rng(seed)
    demand = demand_of(rng, case.peak)
    safe = demand * np.exp(rng.normal(0, ERROR, demand.size) + QUANTILE * ERROR)
    rough = np.exp(rng.normal(0, 0.15, demand.size))
    is_new = np.arange(demand.size) >= 3 * WEEK
    rate = np.where(is_new, RATE * case.new_rate, RATE)
    replicas, late = np.zeros(demand.size), np.zeros(demand.size)
    asked = (demand * STEP_SECONDS).astype(np.intp)
    curve: LearnedCurve | None = None
    for step in range(demand.size):
        version = "two" if case.new_rate != 1.0 and is_new[step] else "one"
        before = replicas[step - 1] if step else 1.0
        if step < WEEK:
            wanted = np.ceil(demand[max(0, step - 6)] / (RATE * 0.7) * rough[step]) if step % 12 == 0 else before
        else:
            answer, now = None, float(step * STEP_SECONDS)
            if step % LEARNED_EVERY == 0:
                part = slice(step - WEEK, step)
                is_current = is_new[part] if version == "two" else np.ones(WEEK, np.bool_)
                ready = ReadyHistory(replicas[part], is_current)
                history = load_history(demand[part], ready, late[part], demand[part], STEP_SECONDS)
                answer = LearningAnswer(now, "terms", version, _learned(history, version, now))
            standing = standing_capacity(curve, answer, "terms", version, now)
            curve, knots = standing.curve, standing.knots
            wanted = before if knots is None else _replicas(_taken(knots, case), safe[step], before)
        replicas[step] = max(wanted, 1.0)
        share = late_shares(demand[[step]] / rate[step], replicas[[step]], THRESHOLD * rate[step])
        late[step] = rng.binomial(asked[step], np.clip(share[0], 0.0, 1.0)) / max(asked[step], 1)
    old, new = truly_carried(RATE), truly_carried(RATE * case.new_rate)
    needed = np.where(is_new, np.searchsorted(new, demand), np.searchsorted(old, demand)) + 1
    weeks = range(1, WEEKS + 1)
    return {
        "violated": [float((late[w * WEEK : (w + 1) * WEEK] > 1 - LEVEL).mean()) for w in weeks],
        "cost": [
            float(replicas[w * WEEK : (w + 1) * WEEK].sum() / needed[w * WEEK : (w + 1) * WEEK].sum()) for w in weeks
        ],
    }


def _learned(history: LoadHistory, version: str, now: float) -> LearnedCurve | Hold:
    """As the controller does: from this version alone where that says enough."""
    own, widened_at = of_this_version(history), None
    knots = learned_knots(history if own is None else own, THRESHOLD, LEVEL, np.random.default_rng(0))
    if isinstance(knots, Hold) and own is not None:
        knots, widened_at = learned_knots(history, THRESHOLD, LEVEL, np.random.default_rng(0)), now
    return knots if isinstance(knots, Hold) else LearnedCurve(knots, now, "terms", version, "", widened_at)


def _taken(knots: Knots, case: Case) -> Knots:
    return knots if case.relies_on == "low end" else tuple(each._replace(low=each.likeliest) for each in knots)


def _replicas(knots: Knots, demand: float, before: float) -> float:
    """As the controller would, with a tolerance of a tenth downwards."""
    wanted = max(relied_on(knots).replicas_for(demand), fewest_kept(knots))
    return before if 0.9 * before <= wanted <= before else float(wanted)


def table(stored: dict[str, dict[str, Any]]) -> str:
    """Means over the seeds, week by week."""
    weeks = " | ".join(f"week {week}" for week in range(1, WEEKS + 1))
    lines = [f"| case | | {weeks} |", "| --- | --- |" + " --- |" * WEEKS]
    for name, kept in stored.items():
        for key, form in (("violated", "{:.2%}"), ("cost", "{:.2f}")):
            means = np.mean([row[key] for row in kept["rows"]], axis=0)
            label = "steps too late" if key == "violated" else "replicas ÷ needed"
            lines.append(f"| {name} | {label} | {' | '.join(form.format(each) for each in means)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure all, store, print."""
    stored: dict[str, dict[str, Any]] = {}
    for case in CASES:
        wall = time.perf_counter()
        rows = [looped(case, seed) for seed in range(SEEDS)]
        stored[case.name] = {"case": asdict(case), "rows": rows} | circumstances(0, 1)
        print(f"{case.name}: {time.perf_counter() - wall:.0f} s", flush=True)
    (RESULTS / "capacity_loop.json").write_text(json.dumps(stored, indent=1))
    page = f"{table(stored)}\n\n{made_with({'all': next(iter(stored.values()))})}\n"
    (RESULTS / "capacity_loop.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
