"""The prototype's recipe made anew."""

import numpy as np
import pytest

from benchmarks.accuracy import LEVELS
from benchmarks.fleet import synthetic_usage
from benchmarks.recipe.beside import beside
from benchmarks.recipe.boosted import Recipe
from benchmarks.recipe.features import features
from benchmarks.recipe.mixture import WINDOWS, fitted_mixture, stretches
from models.forecast import History

FIVE_MINUTES, HOUR = 300, 3600


def a_history(*, series: int = 12, days: int = 16) -> History:
    usage = synthetic_usage(series, days=days, seed=1)
    return History(usage, (usage.shape[1] - 1) * FIVE_MINUTES, FIVE_MINUTES)


def test_stretches_are_the_recipes() -> None:
    """Finer within 4 h, coarser beyond, and their own where the step is an hour."""
    assert stretches(48, FIVE_MINUTES) == (1, 4, 12, 24, 48)
    assert stretches(720, FIVE_MINUTES) == (12, 48, 144, 288, 720)
    assert stretches(48, HOUR) == (1, 6, 24, 48)


def test_the_mixture_weighs_all_of_the_past_as_one() -> None:
    """Shares add up to one, so the weights do; the newest sample weighs most one step ahead of a slow series."""
    usage = np.cumsum(np.random.default_rng(0).standard_normal((8, 5000)), axis=1)
    made = fitted_mixture(History(usage - usage.min(), 5000 * FIVE_MINUTES, FIVE_MINUTES), 48)

    assert made.weights.shape == (48, WINDOWS[FIVE_MINUTES][-1])
    np.testing.assert_allclose(made.weights.sum(axis=1), 1.0)
    assert np.argmax(made.weights[0]) == made.weights.shape[1] - 1


def test_a_feature_of_the_same_phase_is_the_newest_known() -> None:
    """Of a ramp, yesterday's same time is what it was a whole day before the step, never after the cutoff."""
    past = np.arange(6000.0)[None]

    one, two = features(past, np.asarray([0]), np.asarray([[1, 289]]), FIVE_MINUTES)

    yesterdays = [5999 + 1 - 288, 5999 + 289 - 2 * 288]
    assert yesterdays[0] in one
    assert yesterdays[1] in two
    assert max(one.max(), two.max()) <= 5999


@pytest.mark.timeout(300)
def test_the_recipe_keeps_what_every_forecast_keeps() -> None:
    """Quantiles never cross, none is negative or above twice what was seen, and nothing after the cutoff matters."""
    history = a_history()
    known = history.until(history.end_seconds - 48 * FIVE_MINUTES)
    recipe = Recipe(LEVELS, 48, origins=300).fit(known)

    made = recipe.forecasts(known)

    assert set(made) == {"mixture", "analogs_12", "analogs_24", "blend", "recipe"}
    for each in made.values():
        assert np.all(np.diff(each.values, axis=1) >= 0)
        assert each.values.min() >= 0
    assert np.all(made["recipe"].values.max(axis=(1, 2)) <= 2 * np.nanmax(known.usage, axis=1) + 1e-9)
    again = Recipe(LEVELS, 48, origins=300).fit(known).forecasts(known)
    np.testing.assert_array_equal(again["recipe"].values, made["recipe"].values)


def test_the_blend_is_analogs_then_half_the_mixture() -> None:
    """Of twelve steps up to step 4, of twenty-four up to step 24, then the mean with the mixture."""
    history = a_history(series=6)
    recipe = Recipe((0.5,), 48, origins=50).fit(history)

    made = {name: each.values[:, 0] for name, each in recipe.forecasts(history).items()}

    np.testing.assert_array_equal(made["blend"][:, :4], made["analogs_12"][:, :4])
    np.testing.assert_array_equal(made["blend"][:, 4:24], made["analogs_24"][:, 4:24])
    np.testing.assert_allclose(made["blend"][:, 24:], (made["analogs_24"] + made["mixture"])[:, 24:] / 2)


def test_ours_are_shown_beside_the_recipes() -> None:
    """Where both were measured; the ratio is ours over the recipe's."""
    figures = {"crps_ratio": 0.3, "equal_weight_ratio": 0.2, "coverage": [0.5, 0.9, 0.95, 0.99], "pinball_ratio": [0.8]}
    half = figures | {"crps_ratio": 0.6}

    shown = beside(
        {"a": {"tuned_on": True, "methods": {"foresize": figures}}},
        {"a": {"methods": {"recipe": half, "mixture": half}}, "b": {}},
    )

    assert "| a † | 0.300 | 0.600 | 0.500 |" in shown
    assert "geometric mean: 0.500" in shown
