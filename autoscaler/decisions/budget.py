"""The error budget: what the SLA allows to be violated, how fast that is used up, and what follows for decisions.

The level at which demand must fit moves on its log-odds: up by every minute in violation, down by every good one by the
share of time that the SLA allows, so that where the level decides, violations settle at what is allowed, or at less
where it may not relax below the stated one. It is adaptive conformal inference (Gibbs and Candès 2021) on the log-odds,
with bounds. While violations come fast, by a short and a long window at once (Site Reliability Workbook, chapter 5,
"multiwindow, multi-burn-rate alerts"), nothing is removed. Time of which nothing is known is neither good nor bad.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import exp, log
from typing import NamedTuple, Self

from autoscaler.cluster.reasons import Reason, ReasonCode, level_text

LADDER = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
"""Levels that demand is forecast at where a budget moves the level; in between, forecasts are interpolated. The highest
is the highest whose coverage every model follows."""
GAIN_PER_MINUTE = 1.2
"""What a minute in violation adds to the log-odds of the level."""
LONGEST_LOOK_MINUTES = 1.0
"""A longer step moves the level as one of this length: one look must not use up the whole range."""
TIGHTEST = 3.0
"""Most that is added to the log-odds: violations are then some twenty times rarer than stated."""
WINDOW_SECONDS = 3600.0
SHORT_SHARE = 1 / 12
"""Length of the short window ÷ that of the long one, as in the workbook."""
FAST_BURN = 14.4
"""The budget burns fast where both windows violate so many times more often than allowed: 2 % of it an hour."""
MOST_SHARE = 0.5
"""It also does where both are in violation for this share of the time, however much is allowed."""
PERIOD_SECONDS = 28 * 86_400.0
"""What is left of the budget is counted over so long; older violations fade."""


class BudgetMemory(NamedTuple):
    """What is remembered of one workload's violations."""

    offset: float = 0.0
    """Added to the log-odds of the stated level."""
    short: float = 0.0
    """Share of time in violation, fading with the short window; likewise the next with the long one."""
    long: float = 0.0
    spent_seconds: float = 0.0
    """Time in violation, fading with PERIOD_SECONDS."""
    known_until_seconds: float = 0.0
    """End of the last step of which it is known whether it was violated."""
    until_seconds: float = 0.0
    """End of the last step that was counted or found unknown."""
    burns_since_seconds: float | None = None
    """When the budget began to burn fast; None while it does not."""
    level: float | None = None
    """The stated level that all this was counted for; None where nothing was yet."""

    def under(self, level: float) -> Self:
        """The same, or none of it where another level was stated: a new promise begins a new budget."""
        if self.level == level:
            return self
        if self.level is None:
            return self._replace(level=level)
        return type(self)(known_until_seconds=self.known_until_seconds, until_seconds=self.until_seconds, level=level)


NO_VIOLATIONS = BudgetMemory()


class StepVerdict(NamedTuple):
    """Whether the SLA was kept in one step."""

    ended_at_seconds: float
    seconds: float
    violated: float | None
    """Share of the step that was in violation; None where that is not known."""


@dataclass(frozen=True, slots=True)
class BudgetRules:
    """What the SLA allows and how far the level may move."""

    level: float
    """The stated one, in (0, 1); the share of time that may be in violation is what lies above it."""
    relaxation: float = 1.0
    """How many times the odds of a violation may exceed those stated while there are none; 1: never looser."""
    window_seconds: float = WINDOW_SECONDS
    """The long window in which violations must come fast for nothing to be removed."""
    is_rung: bool = True
    """Whether it is forecast at the stated level itself, or only at those of the ladder: a fleet's prices name many."""

    def __post_init__(self) -> None:
        if not 0.0 < self.level < 1.0 or self.relaxation < 1.0 or self.window_seconds <= 0.0:
            raise ValueError(f"a budget needs a level in (0, 1), a relaxation of at least 1 and a window, got {self}")

    @property
    def allowed(self) -> float:
        """Share of time that may be in violation."""
        return 1.0 - self.level

    @property
    def rungs(self) -> tuple[float, ...]:
        """Levels to forecast at, ascending: every level that the budget asks for is one of them or between two."""
        return _rungs(self.level, self.relaxation, self.is_rung)

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest offset; none that the forecasts could not follow, so that it is not far to come back."""
        return _bounds(self.level, self.relaxation, self.is_rung)

    @property
    def fast_burn(self) -> float:
        """Multiple of the allowed share from which on the budget burns fast."""
        return min(FAST_BURN, MOST_SHARE / self.allowed)


class Budget(NamedTuple):
    """How the budget of one workload stands, and the memory to go on from."""

    level: float
    """At which demand must fit what is ready, now."""
    remaining: float
    """Share of the period's budget that is left; below 0 where more was violated than allowed."""
    burn_rate: float
    """Share in violation over the long window ÷ the share allowed: at 1 the budget lasts just as long as it must."""
    short_burn_rate: float
    veto: Reason | None
    """Why nothing may be removed now; None where it may."""
    reason: str
    """Why this level, in a sentence."""
    memory: BudgetMemory


def budget_after(
    memory: BudgetMemory, verdicts: Iterable[StepVerdict], rules: BudgetRules, *, moves_level: bool = True
) -> Budget:
    """How the budget stands after some more steps, oldest first; those that were counted before count no more.

    `moves_level` is whether the workload followed the decisions: the level learns from nobody else's violations.
    """
    memory = memory.under(rules.level)
    for each in verdicts:
        if each.ended_at_seconds > memory.until_seconds:
            memory = _counted(memory, each, rules, moves_level)
    return _standing(memory, rules)


@lru_cache(maxsize=20_000)
def _standing(memory: BudgetMemory, rules: BudgetRules) -> Budget:
    """How it stands with what was counted; asked again in every cycle in which no step ends."""
    lowest, highest = rules.bounds
    offset = min(max(memory.offset, lowest), highest)
    memory = memory._replace(offset=offset)
    short, long = memory.short / rules.allowed, memory.long / rules.allowed
    burns = min(short, long) > rules.fast_burn
    since = memory.burns_since_seconds
    memory = memory._replace(burns_since_seconds=(memory.until_seconds if since is None else since) if burns else None)
    remaining = 1.0 - memory.spent_seconds / (rules.allowed * PERIOD_SECONDS)
    veto = None
    if burns:
        text = (
            f"the SLA was violated {long:.3g} times as often as allowed within {rules.window_seconds:.0f} s and "
            f"{short:.3g} times within {rules.window_seconds * SHORT_SHARE:.0f} s; nothing is removed while both are "
            f"above {rules.fast_burn:.3g}"
        )
        veto = Reason(ReasonCode.ERROR_BUDGET_BURNS, text)
    level = round(level_at(rules.level, offset), 6) if offset else rules.level
    return Budget(level, remaining, long, short, veto, _why(offset, level, rules), memory)


def _counted(memory: BudgetMemory, verdict: StepVerdict, rules: BudgetRules, moves_level: bool) -> BudgetMemory:
    ended, seconds, violated = verdict
    if violated is None:
        memory = memory._replace(until_seconds=ended)
        # What burned so long ago says nothing of now.
        is_recent = ended - memory.known_until_seconds <= rules.window_seconds
        return memory if is_recent else memory._replace(short=0.0, long=0.0)
    if ended - memory.known_until_seconds > rules.window_seconds + seconds:
        memory = memory._replace(short=0.0, long=0.0)
    lowest, highest = rules.bounds
    minutes = min(seconds / 60.0, LONGEST_LOOK_MINUTES)
    moved = GAIN_PER_MINUTE * minutes * (violated - rules.allowed) if moves_level else 0.0
    return memory._replace(
        offset=min(max(memory.offset + moved, lowest), highest),
        short=_faded(memory.short, violated, seconds / (rules.window_seconds * SHORT_SHARE)),
        long=_faded(memory.long, violated, seconds / rules.window_seconds),
        spent_seconds=memory.spent_seconds * exp(-seconds / PERIOD_SECONDS) + violated * seconds,
        known_until_seconds=ended,
        until_seconds=ended,
    )


def _faded(mean: float, newest: float, windows: float) -> float:
    """An exponentially fading mean after so many windows of something new."""
    kept = exp(-windows)
    return mean * kept + newest * (1.0 - kept)


def _why(offset: float, level: float, rules: BudgetRules) -> str:
    stated, shown = f"the stated {level_text(rules.level)}", level_text(level)
    highest = rules.bounds[1]
    top = ""
    if offset >= highest:
        top = "; it is not raised further" if highest == TIGHTEST else "; no higher one is forecast"
    if offset > 0.0:
        return f"level {shown} instead of {stated}: the SLA was violated, and good time brings it back{top}"
    if offset < 0.0:
        return f"level {shown} instead of {stated}: less was violated than the SLA allows"
    return f"level {shown}, as stated{top}"


@lru_cache(maxsize=1000)
def _rungs(level: float, relaxation: float, is_rung: bool) -> tuple[float, ...]:
    lowest = level_at(level, -log(relaxation))
    below = [each for each in LADDER if each <= lowest][-1:] if lowest < level or not is_rung else []
    own = {level} if is_rung else set()
    return tuple(sorted({*own, *below, *(each for each in LADDER if each > lowest)}))


@lru_cache(maxsize=1000)
def _bounds(level: float, relaxation: float, is_rung: bool) -> tuple[float, float]:
    rungs = _rungs(level, relaxation, is_rung)
    loosest = max(-log(relaxation), log_odds(rungs[0]) - log_odds(level))
    return loosest, min(TIGHTEST, log_odds(rungs[-1]) - log_odds(level))


def log_odds(level: float) -> float:
    """ln(p / (1 - p))."""
    return log(level / (1.0 - level))


def level_at(level: float, offset: float) -> float:
    """The level whose log-odds are those of another and an offset."""
    return 1.0 / (1.0 + exp(-(log_odds(level) + offset))) if offset else level


def shares_of_rungs(rungs: tuple[float, ...], level: float) -> tuple[tuple[float, float], ...]:
    """The rungs that a level lies between, with what each counts: linear on the log-odds, constant outside them."""
    if level <= rungs[0]:
        return ((rungs[0], 1.0),)
    for low, high in pairwise(rungs):
        if level == high:
            return ((high, 1.0),)
        if level < high:
            share = (log_odds(level) - log_odds(low)) / (log_odds(high) - log_odds(low))
            return ((low, 1.0 - share), (high, share))
    return ((rungs[-1], 1.0),)


def priced_level(replica_hour: float, violated_minute: float) -> float:
    """The level at which one more replica costs as much as it is likely to save: the newsvendor's c_u / (c_u + c_o).

    Both prices are in one currency, above 0. Too many replicas cost c_o = `replica_hour` an hour each. Too few cost
    c_u = 60 · `violated_minute` an hour: a minute in violation is priced as the want of one replica.
    """
    if not (replica_hour > 0.0 and violated_minute > 0.0):
        raise ValueError(f"prices must be above 0, got {replica_hour:g} and {violated_minute:g}")
    short = 60.0 * violated_minute
    return short / (short + replica_hour)
