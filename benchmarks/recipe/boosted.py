"""The recipe itself: what it starts from, and the boosters that correct that. Fitted on a history, asked about pasts.

Up to 48 five-minute steps ahead it starts from E: analogs of 12 steps up to step 4, of 24 up to step 24, then the mean
of the latter and the mixture A; elsewhere from A alone. Where the recipe leaves it open: an analog's distance weighs by
its root; a corrected value is at most twice the largest sample of the past; boosters begin at zero; origins have a
week behind them; rows for A see no analogs.
"""

from dataclasses import dataclass, field
from typing import Any

import lightgbm
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from benchmarks.recipe.features import features, scale_of
from benchmarks.recipe.mixture import LONG_STEPS, Mixture, fitted_mixture
from models.forecast import FloatArray, History, QuantileForecast, Target, completed, monotone
from models.learned.analogs import Analogs
from models.learned.features import mean_of_samples

FIVE_MINUTES, WEEK = 300, 604_800
PAST_STEPS = 6000
"""How much past anything is made from."""
ANALOG_SECONDS = PAST_STEPS * FIVE_MINUTES
SHORT_ANALOGS = Analogs(context_steps=12, neighbours=40, lag_decay=0.3, history_seconds=ANALOG_SECONDS)
LONG_ANALOGS = Analogs(context_steps=24, neighbours=60, lag_decay=0.1, history_seconds=ANALOG_SECONDS)
SHORT_UNTIL, LONG_UNTIL = 4, 24
STEPS_PER_ORIGIN = 5
CHUNK = 512
CAP_FACTOR = 2.0
ON_ANALOGS = {"learning_rate": 0.08, "num_leaves": 24, "min_data_in_leaf": 250, "rounds": 60}
ON_MIXTURE = {"learning_rate": 0.1, "num_leaves": 8, "min_data_in_leaf": 800, "rounds": 40}


@dataclass(frozen=True, slots=True)
class Origins:
    """Pasts that end at cutoffs, and the steps ahead that are asked for."""

    past: FloatArray
    """[rows, past steps]"""
    scale: FloatArray
    cutoff_seconds: NDArray[np.int64]
    ahead: NDArray[np.intp]
    """[rows, steps]"""
    step_seconds: int

    @property
    def unit(self) -> FloatArray:
        """The scale in the shape of forecasts, [rows, 1, 1]."""
        return self.scale[:, None, None]


@dataclass(frozen=True, slots=True)
class Bases:
    """The untrained forecasts of some rows, each [rows, steps, levels]; the last is what is corrected."""

    by_name: dict[str, FloatArray]

    @property
    def start(self) -> FloatArray:
        """What the boosters correct."""
        return list(self.by_name.values())[-1]


@dataclass
class Recipe:
    """Fitted once on what is known before the first cutoff; then asked from ever newer pasts."""

    levels: tuple[float, ...]
    horizon_steps: int
    seed: int = 0
    origins: int = 13_000
    """How many pasts are learned from."""

    mixture_: Mixture = field(init=False)
    boosters_: list[lightgbm.Booster] = field(init=False)

    def fit(self, history: History) -> "Recipe":
        """Fit the mixture's shares, then a booster for each level on what it leaves."""
        self.mixture_ = fitted_mixture(history, self.horizon_steps, self.seed)
        inputs, start, outcome, weight = self._rows(history)
        asked = ON_ANALOGS if self._has_analogs(history.step_seconds) else ON_MIXTURE
        shared = lightgbm.Dataset(inputs, weight=weight, params=self._parameters(0.5, asked), free_raw_data=False)
        self.boosters_ = []
        for column, level in enumerate(self.levels):
            shared.construct().set_label(np.sqrt(outcome) - np.sqrt(start[:, column]))
            parameters = self._parameters(level, asked)
            self.boosters_.append(lightgbm.train(parameters, shared, num_boost_round=int(asked["rounds"])))
        return self

    def forecasts(self, history: History) -> dict[str, QuantileForecast]:
        """What the recipe and each of the forecasts it starts from say about the steps after a history."""
        target = Target(self.horizon_steps)
        past = _padded(history.last(PAST_STEPS).usage, PAST_STEPS)
        asked = Origins(
            past,
            scale_of(past, history.step_seconds),
            np.full(len(past), history.end_seconds),
            np.tile(target.ahead, (len(past), 1)),
            history.step_seconds,
        )
        bases = self._bases(asked)
        inputs = self._inputs(asked, bases)
        moved = np.stack([each.predict(inputs) for each in self.boosters_], axis=1).reshape(bases.start.shape)
        values = np.maximum(np.sqrt(bases.start / asked.unit) + moved, 0.0) ** 2 * asked.unit
        largest = np.max(past, axis=1, initial=0.0, where=~np.isnan(past))
        made = bases.by_name | {"recipe": np.minimum(values, CAP_FACTOR * largest[:, None, None])}
        levels = np.asarray(self.levels)
        return {
            name: QuantileForecast(
                self.levels,
                monotone(completed(np.moveaxis(each, 1, 2).copy(), history, target, levels)),
                history.end_seconds,
                history.step_seconds,
                target,
            )
            for name, each in made.items()
        }

    def _has_analogs(self, step_seconds: int) -> bool:
        return step_seconds == FIVE_MINUTES and self.horizon_steps <= LONG_STEPS

    def _bases(self, asked: Origins) -> Bases:
        """The mixture, and where analogs are used each of them and the blend."""
        mixture = self.mixture_.quantiles(asked.past, asked.ahead, self.levels)
        if not self._has_analogs(asked.step_seconds):
            return Bases({"mixture": mixture})
        history, target = History(asked.past, 0, asked.step_seconds), Target(self.horizon_steps)
        rows = np.arange(len(asked.past))[:, None]
        short, long = (
            np.moveaxis(each.predict(history, target, self.levels).values, 1, 2)[rows, asked.ahead - 1]
            for each in (SHORT_ANALOGS, LONG_ANALOGS)
        )
        step = asked.ahead[:, :, None]
        later = np.where(step <= LONG_UNTIL, long, (long + mixture) / 2)
        blend = np.where(step <= SHORT_UNTIL, short, later)
        return Bases({"mixture": mixture, "analogs_12": short, "analogs_24": long, "blend": blend})

    def _inputs(self, asked: Origins, bases: Bases) -> NDArray[np.float32]:
        """The features and, over the scale, the mixture's quantiles and the blend's, [rows × steps, features]."""
        seen = features(asked.past / asked.scale[:, None], asked.cutoff_seconds, asked.ahead, asked.step_seconds)
        used = [each for name, each in bases.by_name.items() if name in ("mixture", "blend")]
        quantiles = [(each / asked.unit).reshape(-1, len(self.levels)) for each in used]
        return np.concatenate([seen, *quantiles], axis=1).astype(np.float32)

    def _rows(self, history: History) -> tuple[NDArray[np.float32], FloatArray, FloatArray, FloatArray]:
        """Inputs, what is corrected, outcomes (both over the scale) and weights of the rows that are learned from.

        Origins are drawn for each series in proportion to the root of its mean; a row weighs what undoes that, times
        the root of the scale.
        """
        rng = np.random.default_rng(self.seed)
        usage, step_seconds = history.usage, history.step_seconds
        level = np.sqrt(np.nan_to_num(mean_of_samples(usage)))
        share = level / level.sum()
        row = rng.choice(len(usage), self.origins, p=share)
        first = min(WEEK // step_seconds, history.steps // 3)
        end = rng.integers(first, history.steps - self.horizon_steps, self.origins)
        is_known = ~np.isnan(usage[row, end])
        row, end = row[is_known], end[is_known]
        edges = np.linspace(0, self.horizon_steps, STEPS_PER_ORIGIN + 1).astype(np.intp)
        ahead = rng.integers(edges[:-1], edges[1:], (len(row), STEPS_PER_ORIGIN)) + 1
        windows = sliding_window_view(_padded(usage, PAST_STEPS + usage.shape[1]), PAST_STEPS, axis=1)
        inputs, starts, outcomes, weights = [], [], [], []
        for begin in range(0, len(row), CHUNK):
            part = slice(begin, begin + CHUNK)
            past = np.asarray(windows[row[part], end[part] + 1])
            cutoffs = history.end_seconds - (history.steps - 1 - end[part]) * step_seconds
            asked = Origins(past, scale_of(past, step_seconds), cutoffs, ahead[part], step_seconds)
            bases = self._bases(asked)
            outcome = usage[row[part][:, None], end[part][:, None] + ahead[part]] / asked.scale[:, None]
            start = (bases.start / asked.unit).reshape(-1, len(self.levels))
            is_usable = ~np.isnan(outcome.ravel()) & ~np.isnan(start).any(axis=1)
            inputs.append(self._inputs(asked, bases)[is_usable])
            starts.append(start[is_usable])
            outcomes.append(outcome.ravel()[is_usable])
            weight = np.sqrt(asked.scale) / share[row[part]]
            weights.append(np.repeat(weight, STEPS_PER_ORIGIN)[is_usable])
        weight = np.concatenate(weights)
        return np.concatenate(inputs), np.concatenate(starts), np.concatenate(outcomes), weight / weight.mean()

    def _parameters(self, level: float, asked: dict[str, float]) -> dict[str, Any]:
        return {
            "objective": "quantile",
            "alpha": level,
            **{name: value for name, value in asked.items() if name != "rounds"},
            "bagging_fraction": 0.4,
            "bagging_freq": 1,
            "feature_fraction": 0.4,
            "max_bin": 63,
            "boost_from_average": False,
            "seed": self.seed,
            "deterministic": True,
            "force_col_wise": True,
            "verbosity": -1,
        }


def _padded(usage: FloatArray, steps: int) -> FloatArray:
    """The past brought to a length by "no sample" in front, if it is shorter."""
    return np.pad(usage, ((0, 0), (max(steps - usage.shape[1], 0), 0)), constant_values=np.nan)
