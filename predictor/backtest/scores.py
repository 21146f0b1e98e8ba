"""How far forecasts were off: sums that any average can be made of, per series, level and part of the horizon."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.forecast import FloatArray
from predictor.backtest.rolling import Backtest


@dataclass(frozen=True, slots=True)
class Scores:
    """Errors of a backtest, summed. Levels run along the second axis, parts of the horizon along the last.

    A point counts where both a forecast and a sample exist. `under` and `over` are the sums of what usage exceeded
    the forecast by, and fell short of it by, [series, levels, parts]; `covered` counts usage at or below it. Where
    usage was cut off it falls short by nothing: demand may have been as much as was forecast (Powell 1986).
    `usage` sums usage and `count` the points, `missing` those without a sample or a forecast, [series, parts].
    """

    levels: tuple[float, ...]
    part_ends: tuple[int, ...]
    """Last step ahead of each part of the horizon."""
    under: FloatArray
    over: FloatArray
    covered: NDArray[np.int64]
    usage: FloatArray
    count: NDArray[np.int64]
    missing: NDArray[np.int64]

    def pooled(self, *, series: bool = False, parts: bool = False) -> Self:
        """The same sums over all series, over the whole horizon, or both; the axis stays, with one entry."""
        axes = ((0,) if series else ()) + ((-1,) if parts else ())
        return type(self)(
            self.levels,
            self.part_ends[-1:] if parts else self.part_ends,
            self.under.sum(axis=axes, keepdims=True),
            self.over.sum(axis=axes, keepdims=True),
            self.covered.sum(axis=axes, keepdims=True),
            self.usage.sum(axis=axes, keepdims=True),
            self.count.sum(axis=axes, keepdims=True),
            self.missing.sum(axis=axes, keepdims=True),
        )

    @property
    def pinball(self) -> FloatArray:
        """Mean pinball loss in the resource's unit, [series, levels, parts]; NaN without points.

        ρ_τ(y, q) = τ max(y − q, 0) + (1 − τ) max(q − y, 0)  (Koenker and Bassett 1978).
        """
        return self._mean(self.pinball_sums)

    @property
    def coverage(self) -> FloatArray:
        """Share of points at or below the forecast, [series, levels, parts]; ideally the level."""
        return self._mean(self.covered)

    @property
    def bias(self) -> FloatArray:
        """Mean of forecast minus usage, at most zero where usage was cut off; positive is too high."""
        return self._mean(self.over - self.under)

    @property
    def weighted_quantile_loss(self) -> FloatArray:
        """Mean over the levels of 2 Σ pinball / Σ usage, [series, parts]; NaN where nothing was used.

        With many levels it nears the continuous ranked probability score over mean usage, and is GluonTS's
        `mean_weighted_sum_quantile_loss` for these levels.
        """
        total = np.where(self.usage > 0, self.usage, np.nan)
        return np.asarray(2 * self.pinball_sums.mean(axis=1) / total)

    def cost(self, under_price: float, over_price: float) -> FloatArray:
        """Mean cost of provisioning at each forecast, [series, levels, parts]: a price per unit short and one idle."""
        return self._mean(under_price * self.under + over_price * self.over)

    @property
    def pinball_sums(self) -> FloatArray:
        """Pinball loss summed over the points, [series, levels, parts]."""
        level = np.asarray(self.levels)[:, None]
        return np.asarray(level * self.under + (1 - level) * self.over)

    def _mean(self, total: FloatArray | NDArray[np.int64]) -> FloatArray:
        count = self.count[:, None, :]
        return np.asarray(total / np.where(count > 0, count, np.nan))


def score(made: Backtest, part_ends: Sequence[int] | None = None) -> Scores:
    """The errors of a backtest; `part_ends` gives the last step of each part of the horizon (default: one part)."""
    steps = made.actual.shape[2]
    ends = tuple(part_ends) if part_ends is not None else (steps,)
    if list(ends) != sorted(set(ends)) or not ends or ends[0] < 1 or ends[-1] != steps:
        raise ValueError(f"parts of the horizon must end at ascending steps, the last at {steps}; got {ends}")
    starts = np.asarray((0, *ends[:-1]))
    is_scored = ~np.isnan(made.actual) & ~np.isnan(made.forecast).any(axis=2)
    usage = np.where(is_scored, made.actual, 0.0)
    gap = np.where(is_scored[:, :, None, :], made.actual[:, :, None, :] - made.forecast, 0.0)

    def summed(values: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.asarray(np.add.reduceat(np.sum(values, axis=0), starts, axis=-1))

    over = np.maximum(-gap, 0.0)
    if made.is_bound is not None:
        over = np.where(made.is_bound[:, :, None, :], 0.0, over)
    return Scores(
        made.levels,
        ends,
        np.asarray(summed(np.maximum(gap, 0.0)), dtype=np.float64),
        np.asarray(summed(over), dtype=np.float64),
        np.asarray(summed(((gap <= 0) & is_scored[:, :, None, :]).astype(np.int64)), dtype=np.int64),
        np.asarray(summed(usage), dtype=np.float64),
        np.asarray(summed(is_scored.astype(np.int64)), dtype=np.int64),
        np.asarray(summed((~is_scored).astype(np.int64)), dtype=np.int64),
    )
