"""One gradient-boosted model per quantile level over the whole fleet, correcting the conditional empirical quantile.

LightGBM is imported inside the functions: a controller that serves baselines never loads it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from models.ascending import Ascending, ascending_past
from models.forecast import (
    DEFAULT_LEVELS,
    FloatArray,
    ForecastError,
    ForecasterState,
    History,
    QuantileForecast,
    Target,
    between_levels,
    checked_levels,
    completed,
    monotone,
)
from models.learned.features import PAST_SECONDS, Past, origin_features, scales, step_features
from models.learned.mixture import horizon_blocks, mixture_quantiles
from models.weighted import ascending_quantiles

if TYPE_CHECKING:
    from lightgbm import Booster

STEPS_PER_ORIGIN = 5
"""Steps ahead that each training origin is asked about, one from each fifth of the horizon."""
MINIMUM_ROWS = 200
"""With fewer training rows nothing is learned: the forecast is the empirical quantile alone."""
SERIES_CHUNK = 256


@dataclass
class LightGBMQuantiles:
    """Quantiles of sqrt(usage / scale), as the empirical quantile of the same level plus what boosters learned.

    The scale is the series' own, from its past alone, so one model serves series of any size. A level between two
    that were fitted takes a correction between theirs, one outside them that of the nearest; further ahead than was
    learned the correction of the last step learned is kept. A value is never above `cap_factor` times the largest
    sample seen. What is learned is for one target: steps, or a peak of so many steps.
    """

    name: ClassVar[str] = "lightgbm_quantiles"

    levels: tuple[float, ...] = DEFAULT_LEVELS
    rounds: int = 60
    learning_rate: float = 0.08
    leaves: int = 16
    minimum_leaf_rows: int = 50
    maximum_rows: int = 30_000
    """Rows that are learned from, sampled evenly over series, time and steps ahead."""
    cap_factor: float = 2.0
    seed: int = 0
    threads: int = 2
    """Threads to fit with; a forecast takes one, as blocks of series are forecast beside each other."""

    step_seconds_: int = field(default=0, init=False)
    target_: Target = field(default=Target(1), init=False)
    texts_: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    """Each level's booster in LightGBM's own text; empty where there was too little to learn from."""
    _boosters: "list[Booster]" = field(default_factory=list, init=False, repr=False, compare=False)

    def fit(self, history: History, target: Target) -> Self:
        """Learn the corrections from origins sampled over the history. Raises ForecastError for bad parameters."""
        import lightgbm

        levels = checked_levels(self.levels)
        self.step_seconds_, self.target_, self.texts_, self._boosters = history.step_seconds, target, {}, []
        inputs, base, outcome = self._training_rows(history, levels)
        if len(outcome) < MINIMUM_ROWS:
            return self
        shared = lightgbm.Dataset(inputs, params=self._parameters(levels[0]), free_raw_data=False)
        shared.construct()
        for column, level in enumerate(levels):
            shared.set_label(np.sqrt(outcome) - np.sqrt(base[:, column]))
            booster = lightgbm.train(self._parameters(level), shared, num_boost_round=self.rounds)
            self.texts_[repr(float(level))] = booster.model_to_string()
        self._boosters = _boosters(self.texts_)
        return self

    def predict(self, history: History, target: Target, levels: Sequence[float]) -> QuantileForecast:
        """Quantiles of each outcome; see the contract.

        Raises ForecastError before `fit`, for another step length, and for a peak that was not learned.
        """
        quantiles = checked_levels(levels)
        self._check(history.step_seconds, target)
        past_steps = max(PAST_SECONDS // history.step_seconds, 1)
        seen = Past(
            _padded(history.last(past_steps).usage, past_steps),
            ascending_past(history, Target(1)),
            _padded(target.past_outcomes(history, past_steps), past_steps),
            np.full(history.series_count, history.end_seconds),
            history.step_seconds,
        )
        # The fitted levels are asked for as well: they are features.
        wanted = np.unique(np.concatenate([quantiles, self.levels]))
        base = mixture_quantiles(history, target, wanted)
        values = np.full((history.series_count, len(quantiles), len(target.ahead)), np.nan)
        for start in range(0, history.series_count, SERIES_CHUNK):
            part = slice(start, start + SERIES_CHUNK)
            values[part] = self._values(seen.of(part), base[part], wanted, target, quantiles)
        made = monotone(completed(values, history, target, quantiles))
        return QuantileForecast(tuple(quantiles.tolist()), made, history.end_seconds, history.step_seconds, target)

    def _check(self, step_seconds: int, target: Target) -> None:
        if self.step_seconds_ == 0:
            raise ForecastError(f"{self.name} was not fitted")
        if step_seconds != self.step_seconds_:
            raise ForecastError(
                f"{self.name} was fitted on steps of {self.step_seconds_} s and cannot forecast steps of "
                f"{step_seconds} s"
            )
        if (target.is_peak or self.target_.is_peak) and target != self.target_:
            raise ForecastError(f"{self.name} was fitted to forecast {self.target_} and cannot forecast {target}")

    def to_state(self) -> ForecasterState:
        """Parameters, and a booster's native text per level."""
        if self.step_seconds_ == 0:
            raise ForecastError(f"{self.name} was not fitted")
        parameters = {name: getattr(self, name) for name in PARAMETERS}
        parameters |= {"levels": list(self.levels), "step_seconds": self.step_seconds_}
        parameters |= {"steps": self.target_.steps, "is_peak": self.target_.is_peak}
        parameters["texts_sha256"] = _digest(self.texts_)
        return ForecasterState(parameters, texts=dict(self.texts_))

    @classmethod
    def from_state(cls, state: ForecasterState) -> Self:
        """Back from parameters and texts. Raises ForecastError for texts that are not those that were saved.

        They are compared by checksum before LightGBM reads them: it ends the process on some damaged texts.
        """
        parameters: dict[str, Any] = dict(state.parameters)
        try:
            step_seconds = int(parameters.pop("step_seconds"))
            target = Target(int(parameters.pop("steps")), bool(parameters.pop("is_peak")))
            levels = tuple(float(level) for level in parameters.pop("levels"))
            digest = parameters.pop("texts_sha256")
            checked_levels(levels)
            kinds = {name: (int, float) if kind is float else (kind,) for name, kind in PARAMETERS.items()}
            if parameters.keys() != kinds.keys() or any(type(parameters[n]) not in kinds[n] for n in kinds):
                raise TypeError(f"parameters {parameters}")
        except (KeyError, TypeError, ValueError) as error:
            raise ForecastError(f"this is no state of {cls.name}: {error}") from error
        if state.texts and list(state.texts) != [repr(float(level)) for level in levels]:
            raise ForecastError(f"{cls.name} needs a booster for each of {levels}, got {list(state.texts)}")
        if digest != _digest(state.texts):
            raise ForecastError(f"the boosters of {cls.name} are damaged: they do not match their checksum")
        made = cls(**parameters, levels=levels)
        made.step_seconds_, made.target_ = step_seconds, target
        made.texts_, made._boosters = dict(state.texts), _boosters(state.texts)
        return made

    def _values(
        self, seen: Past, base: FloatArray, wanted: FloatArray, target: Target, levels: FloatArray
    ) -> FloatArray:
        """Forecasts of series whose past is padded to full length, [series, levels, outcomes].

        `base` is the empirical quantiles, [series, outcomes, wanted].
        """
        scale = scales(seen.ascending, self.step_seconds_)
        unit = np.where(scale > 0, scale, 1.0)
        past, base = seen.over(unit), base / unit[:, None, None]
        root = np.sqrt(base[:, :, np.searchsorted(wanted, levels)])
        if self._boosters:
            ahead = np.minimum(target.ahead, self.target_.steps)
            inputs = _inputs(past, ahead, base[:, :, np.searchsorted(wanted, np.asarray(self.levels))])
            learned = np.stack([b.predict(inputs, num_threads=1) for b in self._boosters], axis=1)
            learned = between_levels(learned, self.levels, levels).reshape(len(unit), len(ahead), len(levels))
            # What has never moved is not moved by what the others do.
            root = root + np.where(_is_constant(past.outcomes)[:, None, None], 0.0, learned)
        values = np.square(np.maximum(root, 0.0)) * scale[:, None, None]
        largest = np.max(seen.usage, axis=1, initial=-np.inf, where=~np.isnan(seen.usage))
        values = np.minimum(values, self.cap_factor * largest[:, None, None])
        values[np.isneginf(largest)] = np.nan
        return np.moveaxis(values, 1, 2)

    def _training_rows(self, history: History, levels: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Inputs [rows, features], empirical quantiles [rows, levels] and outcomes [rows], all over the scale."""
        target = self.target_
        past_steps = max(PAST_SECONDS // history.step_seconds, 1)
        rng = np.random.default_rng(self.seed)
        rows, ends = self._origins(history, past_steps, rng)
        blocks = horizon_blocks(target.ahead, past_steps, history.step_seconds)
        usage = history.usage[_canonical_order(history.usage)]
        outcomes = target.outcomes(usage)
        usage_windows, outcome_windows = (
            sliding_window_view(_padded(each, past_steps + usage.shape[1]), past_steps, axis=1)
            for each in (usage, outcomes)
        )
        edges = np.linspace(0, len(target.ahead), min(STEPS_PER_ORIGIN, len(target.ahead)) + 1).astype(np.intp)
        parts: list[tuple[FloatArray, FloatArray, FloatArray]] = []
        for start in range(0, len(rows), SERIES_CHUNK):
            row, end = rows[start : start + SERIES_CHUNK], ends[start : start + SERIES_CHUNK]
            # The window that ends at step `end` begins one step into the padding.
            window = np.asarray(usage_windows[row, end + 1])
            ascending = Ascending.of(window)
            scale = scales(ascending, history.step_seconds)
            unit = np.where(scale > 0, scale, 1.0)
            chosen = rng.integers(edges[:-1], edges[1:], size=(len(row), len(edges) - 1))
            ahead = target.ahead[chosen]
            place = end[:, None] + ahead
            known = np.minimum(place, usage.shape[1] - 1)
            outcome = np.where(place < usage.shape[1], outcomes[row[:, None], known], np.nan)
            outcome = outcome / np.where(scale > 0, scale, np.nan)[:, None]
            cutoff = history.end_seconds - (usage.shape[1] - 1 - end) * history.step_seconds
            seen = Past(window, ascending, np.asarray(outcome_windows[row, end + 1]), cutoff, history.step_seconds)
            past = seen.over(unit)
            sorted_outcomes = Ascending.of(past.outcomes) if target.is_peak else past.ascending
            base = ascending_quantiles(sorted_outcomes, blocks.of_step[chosen], blocks.weights, levels)
            base = base.reshape(-1, len(levels))
            inputs = _inputs_at(past, ahead, base)
            is_usable = np.isfinite(outcome.ravel()) & np.isfinite(base).all(axis=1)
            parts.append((inputs[is_usable], base[is_usable], outcome.ravel()[is_usable]))
        if not parts:
            return np.empty((0, 0)), np.empty((0, len(levels))), np.empty(0)
        return (
            np.concatenate([p[0] for p in parts]),
            np.concatenate([p[1] for p in parts]),
            np.concatenate([p[2] for p in parts]),
        )

    def _origins(
        self, history: History, past_steps: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Which series (in canonical order) and which last step each training window has.

        Times are strided evenly, each moved by a little at random; the first third of a short history, or the first
        full window of a long one, is only ever past.
        """
        first = min(past_steps, history.steps // 3)
        room = history.steps - 1 - first
        if room < 1 or history.series_count == 0:
            return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp)
        wanted = max(self.maximum_rows // STEPS_PER_ORIGIN, 1)
        count = min(wanted, room * history.series_count)
        # Origin number i is a place in the long row of all series' room laid end to end.
        stride = room * history.series_count / count
        place = np.floor((np.arange(count) + rng.random(count)) * stride).astype(np.intp)
        place = np.minimum(place, room * history.series_count - 1)
        return place // room, first + place % room

    def _parameters(self, level: float) -> dict[str, Any]:
        return {
            "objective": "quantile",
            "alpha": float(level),
            "learning_rate": self.learning_rate,
            "num_leaves": self.leaves,
            "min_data_in_leaf": self.minimum_leaf_rows,
            "feature_fraction": 0.6,
            "bagging_fraction": 0.6,
            "bagging_freq": 1,
            "max_bin": 63,
            "boost_from_average": False,
            "seed": self.seed,
            "deterministic": True,
            "force_col_wise": True,
            "num_threads": self.threads,
            "verbosity": -1,
        }


PARAMETERS: Mapping[str, type] = {
    "rounds": int,
    "learning_rate": float,
    "leaves": int,
    "minimum_leaf_rows": int,
    "maximum_rows": int,
    "cap_factor": float,
    "seed": int,
    "threads": int,
}


def _inputs(past: Past, ahead: NDArray[np.intp], base: FloatArray) -> FloatArray:
    """Inputs of every series at the same steps ahead, [series × steps, features]; `base` is [series, steps, levels]."""
    series = len(past.usage)
    return _inputs_at(past, np.tile(ahead, (series, 1)), base.reshape(series * len(ahead), -1))


def _inputs_at(past: Past, ahead: NDArray[np.intp], base: FloatArray) -> FloatArray:
    """Inputs of each row of the past at its own steps ahead, `ahead` being [rows, steps]; row-major over both."""
    of_origin = np.repeat(origin_features(past), ahead.shape[1], axis=0)
    return np.column_stack([of_origin, step_features(past, ahead), base])


def _canonical_order(usage: FloatArray) -> NDArray[np.intp]:
    """An order of the series that depends on neither the one given nor their units: the fit must not."""
    largest = np.max(usage, axis=1, initial=0.0, where=~np.isnan(usage))[:, None]
    shape = np.nan_to_num(np.round(usage / np.where(largest > 0, largest, 1.0), 6), nan=-1.0)
    digests = [blake2b(row.tobytes(), digest_size=16).digest() for row in shape]
    return np.asarray(sorted(range(len(digests)), key=digests.__getitem__), dtype=np.intp)


def _padded(usage: FloatArray, steps: int) -> FloatArray:
    """The past brought to a length by "no sample" in front."""
    missing = steps - usage.shape[1]
    if missing <= 0:
        return usage
    return np.concatenate([np.full((usage.shape[0], missing), np.nan), usage], axis=1)


def _is_constant(values: FloatArray) -> NDArray[np.bool_]:
    """Whether all samples of a row are the same, [rows]."""
    present = ~np.isnan(values)
    lowest = np.min(values, axis=1, initial=np.inf, where=present)
    return np.asarray(lowest == np.max(values, axis=1, initial=-np.inf, where=present))


def _digest(texts: Mapping[str, str]) -> str:
    return sha256("\0".join(f"{level}\0{text}" for level, text in texts.items()).encode()).hexdigest()


def _boosters(texts: Mapping[str, str]) -> "list[Booster]":
    import lightgbm

    return [lightgbm.Booster(model_str=text) for text in texts.values()]
