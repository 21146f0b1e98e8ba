"""What the accuracy of forecasts is measured with: the same series, windows and points for every method, and figures.

Figures are ratios to a Gaussian seasonal naive on the same points: GluonTS's CRPS, pinball loss, and coverage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import gaussian_seasonal_naive
from benchmarks.traces import Task, cutoffs, read
from foresize.settings import load_settings
from models.forecast import FloatArray, History, QuantileForecast
from pipelines.flows.model import plan_of_all
from pipelines.settings import Settings
from pipelines.steps.plan import Plan, Question, question_of
from pipelines.steps.prepare import prepared
from predictor.backtest.coverage import worst_tenth, worst_tenth_if_alike
from predictor.backtest.resampling import INTERVAL, RESAMPLES, resampled
from predictor.backtest.rolling import Backtest, backtest_of
from predictor.usage.panel import UsagePanel

DECILES = tuple(round(0.1 * k, 1) for k in range(1, 10))
LEVELS = (*DECILES, 0.95, 0.99)
ALIKE_DRAWS = 50
SHOWN = (0.5, 0.9, 0.95, 0.99)
PEER = "gaussian_seasonal_naive"


@dataclass(frozen=True, slots=True)
class Asked:
    """A task, read: what is known, what is learned from, and what is asked from when."""

    panel: UsagePanel
    cutoffs: tuple[int, ...]
    settings: Settings
    plan: Plan
    """Of what is known at the first cutoff."""

    @property
    def question(self) -> Question:
        """The question that is asked at each cutoff."""
        return question_of(self.settings)

    @property
    def warm(self) -> list[int]:
        """The rows of the series that are scored."""
        place = {key: row for row, key in enumerate(self.panel.keys)}
        return [place[key] for key in self.plan.warm]

    def peer(self) -> Backtest:
        """The forecasts that every method's are divided by."""
        question = self.question

        def predict(past: History) -> QuantileForecast:
            values = gaussian_seasonal_naive(past, question.horizon_steps, LEVELS)
            return QuantileForecast(LEVELS, values, past.end_seconds, past.step_seconds, question.target)

        return backtest_of(predict, self.panel.history(), self.cutoffs)


def asked_of(task: Task, folder: Path) -> Asked:
    """The task read from the folder of traces."""
    source = read(task, folder)
    settings = load_settings(
        None,
        {},
        {
            ("history", "step"): f"{task.step_seconds}s",
            ("forecast", "horizon"): f"{task.horizon_seconds}s",
            ("forecast", "levels"): LEVELS,
        },
    )
    at = tuple(cutoffs(task, source))
    panel = prepared(source).panel
    return Asked(panel, at, settings, plan_of_all(panel.between(panel.start_seconds, at[0]), settings))


@dataclass(frozen=True, slots=True)
class Losses:
    """What each method lost on the points for which all have an answer."""

    by_method: Mapping[str, FloatArray]
    """Twice the pinball loss, summed over the horizon, [windows, series, levels]."""
    covered: Mapping[str, FloatArray]
    """How many points were covered, [windows, series, levels]."""
    count: FloatArray
    """How many points there are, [windows, series]."""

    def figures(self) -> dict[str, dict[str, Any]]:
        """Every method's figures."""
        return {name: self._figures(name) for name in self.by_method}

    def ratio_interval(self, method: str, other: str) -> list[float]:
        """The 95 % interval of the ratio of two methods' CRPS, had other series and other windows been drawn.

        Both are drawn at once, windows as blocks of time; the method was not chosen anew in each draw.
        """
        over, under = (self.by_method[name][:, :, : len(DECILES)].sum(axis=2) for name in (method, other))
        rng = np.random.default_rng(0)
        windows, series = (resampled(size, rng) for size in over.shape)
        above, below = (np.sum((windows @ loss) * series, axis=1) for loss in (over, under))
        drawn = above[below > 0] / below[below > 0]
        return [float(np.quantile(drawn, q)) for q in INTERVAL] if drawn.size else [float("nan")] * 2

    def worst_tenth_if_alike(self, method: str) -> list[float]:
        """What the worst tenth of series would show if all were covered alike, at the levels that are shown."""
        at = [LEVELS.index(level) for level in SHOWN]
        covered = self.covered[method][:, :, at]
        return worst_tenth_if_alike(covered, self.count, draws=ALIKE_DRAWS, seed=0).tolist()

    def _figures(self, method: str) -> dict[str, Any]:
        """Ratios to the peer: CRPS (mean over the deciles of summed loss), and with each series counting the same."""
        loss, peer = (self.by_method[name].sum(axis=0) for name in (method, PEER))
        ours, theirs = loss[:, : len(DECILES)].sum(axis=1), peer[:, : len(DECILES)].sum(axis=1)
        rng = np.random.default_rng(0)
        picked = rng.integers(0, len(ours), (RESAMPLES, len(ours)))
        # A draw of series on which the peer made no error has no ratio.
        total = theirs[picked].sum(axis=1)
        drawn = ours[picked].sum(axis=1)[total > 0] / total[total > 0]
        is_moving = (theirs > 0) & (ours > 0)
        ratio = np.clip(ours[is_moving] / theirs[is_moving], 1e-3, 1e3)
        at = [LEVELS.index(level) for level in SHOWN]
        covered, count = self.covered[method].sum(axis=0), self.count.sum(axis=0)
        return {
            "crps_ratio": float(ours.sum() / theirs.sum()),
            "interval": [float(np.quantile(drawn, q)) for q in INTERVAL],
            "equal_weight_ratio": float(np.exp(np.log(ratio).mean())) if ratio.size else float("nan"),
            "coverage": [float(covered[:, k].sum() / count.sum()) for k in at],
            "worst_tenth": worst_tenth(covered[count > 0][:, at] / count[count > 0, None]).tolist(),
            "pinball_ratio": [float(loss[:, k].sum() / peer[:, k].sum()) for k in at],
        }


def losses(made: Mapping[str, Backtest]) -> Losses:
    """What each method lost; a point counts where every method has an answer."""
    any_made = next(iter(made.values()))
    is_scored = ~np.isnan(any_made.actual)
    for each in made.values():
        is_scored &= ~np.isnan(each.forecast).any(axis=2)
    level = np.asarray(LEVELS)[:, None]
    lost, covered = {}, {}
    for name, each in made.items():
        gap = np.where(is_scored[:, :, None], each.actual[:, :, None] - each.forecast, 0.0)
        lost[name] = 2 * np.maximum(level * gap, (level - 1) * gap).sum(axis=3)
        covered[name] = ((gap <= 0) & is_scored[:, :, None]).sum(axis=3).astype(np.float64)
    return Losses(lost, covered, is_scored.sum(axis=2).astype(np.float64))


def shares(values: Sequence[float]) -> str:
    """Shares as percentages."""
    return " / ".join(f"{100 * value:.1f}" for value in values)


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean; NaN of none."""
    return float(np.exp(np.mean(np.log(values)))) if values else float("nan")
