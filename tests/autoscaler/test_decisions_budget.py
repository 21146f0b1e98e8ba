"""The error budget: violations settle at what the SLA allows, and nothing is removed while it burns fast."""

from collections.abc import Iterable
from math import isclose

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.cluster.reasons import ReasonCode
from autoscaler.decisions.budget import (
    GAIN_PER_MINUTE,
    LADDER,
    NO_VIOLATIONS,
    PERIOD_SECONDS,
    Budget,
    BudgetMemory,
    BudgetRules,
    StepVerdict,
    budget_after,
    level_at,
    log_odds,
    priced_level,
    shares_of_rungs,
)

RULES = BudgetRules(0.99)
levels = st.floats(0.51, 0.9999)
shares = st.one_of(st.none(), st.floats(0, 1))


def minutes(shares: Iterable[float | None], *, from_minute: int = 0, seconds: float = 60.0) -> list[StepVerdict]:
    """Steps one after the other, a minute long unless told otherwise."""
    return [StepVerdict(from_minute * 60.0 + (i + 1) * seconds, seconds, share) for i, share in enumerate(shares)]


def after(*shares: float | None, rules: BudgetRules = RULES, memory: BudgetMemory = NO_VIOLATIONS) -> Budget:
    """The budget after minutes with these shares in violation."""
    return budget_after(memory, minutes(shares), rules)


def test_without_violations_the_stated_level_holds() -> None:
    """Exactly, and however long nothing happens; the whole budget is left."""
    budget = after(*[0.0] * 500)

    assert (budget.level, budget.remaining, budget.burn_rate, budget.veto) == (0.99, 1.0, 0.0, None)


def test_a_violated_minute_tightens_and_good_ones_bring_the_stated_level_back() -> None:
    """As many good minutes as the SLA allows for one that is violated."""
    tightened = after(1.0)

    assert isclose(log_odds(tightened.level) - log_odds(0.99), GAIN_PER_MINUTE * 0.99, rel_tol=1e-2)
    assert "the SLA was violated" in tightened.reason
    assert after(1.0, *[0.0] * 98).level > 0.99
    assert after(1.0, *[0.0] * 100).level == 0.99


def test_another_promise_begins_another_budget() -> None:
    """What was violated under another one says nothing of it; what has been counted is not counted again."""
    spent = after(*[1.0] * 30).memory

    same = after(memory=spent)
    stricter = after(memory=spent, rules=BudgetRules(0.999))

    assert same.veto is not None and same.remaining < 1.0
    assert (stricter.level, stricter.remaining, stricter.veto) == (0.999, 1.0, None)
    assert stricter.memory.until_seconds == spent.until_seconds
    assert after(*[1.0] * 30, memory=stricter.memory, rules=BudgetRules(0.999)).memory == stricter.memory


def test_one_long_step_moves_the_level_no_more_than_a_minute() -> None:
    """A step of five minutes is one look."""
    long = budget_after(NO_VIOLATIONS, minutes([1.0], seconds=300.0), RULES)

    assert long.level == after(1.0).level
    assert long.memory.spent_seconds == 300.0


@pytest.mark.parametrize("seconds", [15.0, 60.0, 300.0])
@pytest.mark.parametrize("level", [0.95, 0.99])
def test_violations_settle_at_what_is_allowed(level: float, seconds: float) -> None:
    """Demand that violates one and a half times as often as its forecasts say, at whatever step it is watched.

    Exactly that often where the level may relax as well, and no more often where it only tightens.
    """
    for relaxation, least in ((4.0, 0.85), (1.0, 0.5)):
        rng, rules, memory = np.random.default_rng(5), BudgetRules(level, relaxation), NO_VIOLATIONS
        violated = []
        for step in range(20_000):
            budget = budget_after(memory, (), rules)
            violated.append(float(rng.random() < 1.5 * (1 - budget.level)))
            memory = budget_after(memory, [StepVerdict((step + 1) * seconds, seconds, violated[-1])], rules).memory

        assert least < np.mean(violated[1000:]) / (1 - level) < 1.15


@given(st.lists(shares, max_size=60), levels, st.floats(1, 10))
def test_the_level_stays_between_its_bounds_and_on_the_rungs(
    given: list[float | None], level: float, relaxation: float
) -> None:
    """Whatever happens, no level is asked for that the rungs do not reach, nor looser than allowed."""
    rules = BudgetRules(level, relaxation)
    budget = after(*given, rules=rules)

    assert rules.rungs[0] <= budget.level + 1e-6
    assert budget.level <= rules.rungs[-1] + 1e-6
    assert budget.level >= level_at(level, -np.log(relaxation)) - 1e-6


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.data())
def test_one_more_violation_never_loosens(given: list[float], data: st.DataObject) -> None:
    """The same past with one step worse asks for no lower a level and leaves no more of the budget."""
    place = data.draw(st.integers(0, len(given) - 1))
    worse = [*given[:place], 1.0, *given[place + 1 :]]

    assert after(*worse).level >= after(*given).level
    assert after(*worse).remaining <= after(*given).remaining


def test_fast_burn_keeps_replicas_until_it_ends() -> None:
    """Ten minutes in violation veto; ten good ones later nothing does."""
    burning = after(*[1.0] * 10)

    assert burning.veto is not None
    assert burning.veto.code is ReasonCode.ERROR_BUDGET_BURNS
    assert burning.memory.burns_since_seconds == 600.0
    assert "times as often as allowed" in burning.veto.message
    ended = budget_after(burning.memory, minutes([0.0] * 10, from_minute=10), RULES)
    assert (ended.veto, ended.memory.burns_since_seconds) == (None, None)


def test_a_short_violation_is_no_fast_burn() -> None:
    """A minute in violation uses a little of the budget and vetoes nothing."""
    assert after(1.0).veto is None


def test_what_is_allowed_twice_as_often_burns_slowly() -> None:
    """Burn rates are multiples of what is allowed; twice as much lasts half as long."""
    steady = after(*[0.02] * 600)

    assert steady.burn_rate == pytest.approx(2.0, rel=0.01)
    assert steady.veto is None
    assert 1 - steady.remaining == pytest.approx(600 * 60 * 0.02 / (0.01 * PERIOD_SECONDS), rel=0.01)


def test_unknown_time_is_neither_good_nor_bad() -> None:
    """It moves neither the level nor what is left nor, for an hour, the rates; what it then says is nothing."""
    burning = after(*[1.0] * 10)
    unknown = budget_after(burning.memory, minutes([None] * 30, from_minute=10), RULES)

    assert unknown[:5] == burning[:5]
    assert unknown.veto is not None
    long = budget_after(burning.memory, minutes([None] * 61, from_minute=10), RULES)
    assert (long.veto, long.level, long.remaining) == (None, burning.level, burning.remaining)


def test_a_step_counts_once() -> None:
    """Seen again, by the same controller or the next, it changes nothing."""
    steps = minutes([1.0, 0.0, 1.0])
    once = budget_after(NO_VIOLATIONS, steps, RULES)

    assert budget_after(once.memory, steps, RULES) == once


def test_others_violations_move_no_level() -> None:
    """Where the decisions were not followed they use up the budget, and the level has nothing to learn."""
    budget = budget_after(NO_VIOLATIONS, minutes([1.0] * 10), RULES, moves_level=False)

    assert budget.level == 0.99
    assert budget.remaining < 1
    assert budget.veto is not None


def test_at_the_highest_level_that_is_forecast_it_says_so() -> None:
    """Nothing is extrapolated beyond it, and the way back is as short as from there."""
    high = after(*[1.0] * 60)
    stated_higher = after(1.0, rules=BudgetRules(0.9995))

    assert (high.level, LADDER[-1]) == (0.999, 0.999)
    assert "no higher one is forecast" in high.reason
    assert (stated_higher.level, stated_higher.memory.offset) == (0.9995, 0.0)
    assert "no higher one is forecast" in stated_higher.reason


def test_relaxed_only_as_far_as_allowed() -> None:
    """With leave to be three times as careless, good time lowers the level to that and no further."""
    rules = BudgetRules(0.99, relaxation=3.0)
    budget = after(*[0.0] * 2000, rules=rules)

    assert (1 - budget.level) / budget.level == pytest.approx(3 * 0.01 / 0.99, rel=1e-3)
    assert "less was violated" in budget.reason


def test_rungs_share_a_level_by_log_odds() -> None:
    """In between linear, on a rung that alone, outside the nearest."""
    rungs = (0.99, 0.995, 0.999)

    assert shares_of_rungs(rungs, 0.995) == ((0.995, 1.0),)
    assert shares_of_rungs(rungs, 0.9) == ((0.99, 1.0),)
    assert shares_of_rungs(rungs, 0.9999) == ((0.999, 1.0),)
    (low, share_low), (high, share_high) = shares_of_rungs(rungs, 0.998)
    assert (low, high) == (0.995, 0.999)
    assert share_low * log_odds(low) + share_high * log_odds(high) == pytest.approx(log_odds(0.998))


def test_prices_say_the_level_at_which_one_more_replica_pays() -> None:
    """At that level the last replica costs what it is likely to save; units are an hour of either."""
    level = priced_level(replica_hour=0.6, violated_minute=0.1)

    assert level == pytest.approx(6.0 / 6.6)
    assert (1 - level) * 60 * 0.1 == pytest.approx(level * 0.6)
    with pytest.raises(ValueError, match="above 0"):
        priced_level(0.0, 1.0)
