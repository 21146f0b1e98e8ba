"""Builders of usage panels and settings for training tests: small, seeded, on a coarse grid."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np

from foresize.settings import load_settings
from models.forecast import FloatArray
from pipelines.settings import Settings
from predictor.usage.panel import Resource, SeriesKey, UsagePanel
from tests.support.histories import MONDAY, STEP_SECONDS, bursty_usage, daily_usage

DAY_STEPS = 86_400 // STEP_SECONDS


def a_panel(usage: FloatArray, *, resource: Resource = Resource.CPU, names: tuple[str, ...] = ()) -> UsagePanel:
    """A panel of [series, steps], one workload of the shop per row."""
    called = names or tuple(f"shop/Deployment/w{row}" for row in range(len(usage)))
    keys = tuple(SeriesKey(name, resource) for name in called)
    return UsagePanel(keys, MONDAY, STEP_SECONDS, np.asarray(usage, dtype=np.float64))


def a_fleet(*, days: float = 12, series: int = 4, seed: int = 0) -> UsagePanel:
    """Daily rhythms in cpu and memory, bursts in cpu, one constant workload and one born on the last day."""
    rhythm = daily_usage(series=series, days=days, seed=seed)
    burst = bursty_usage(series=1, days=days, seed=seed)
    constant = np.full((1, rhythm.shape[1]), 2.5)
    young = rhythm[:1] * 0.3
    young[:, :-DAY_STEPS] = np.nan
    cpu = np.concatenate([rhythm, burst, constant, young])
    memory = 1e9 * (2 + daily_usage(series=series, days=days, seed=seed + 1))
    names = (
        *(f"shop/Deployment/w{n}" for n in range(series)),
        "shop/CronJob/burst",
        "shop/Deployment/flat",
        "new/Job/young",
    )
    keys = [SeriesKey(name, Resource.CPU) for name in names]
    keys += [SeriesKey(name, Resource.MEMORY) for name in names[:series]]
    return UsagePanel(tuple(keys), MONDAY, STEP_SECONDS, np.concatenate([cpu, memory]))


def throttled(panel: UsagePanel, rows: Sequence[int], share: float = 0.8) -> UsagePanel:
    """The panel with some series cut off by a limit that this share of their samples stays under."""
    limit = np.full(panel.usage.shape, np.nan)
    limit[list(rows)] = np.nanquantile(panel.usage[list(rows)], share, axis=1, keepdims=True)
    usage = np.where(panel.usage > limit, limit, panel.usage)
    return replace(panel, usage=usage, attributes={"limit": limit})


def in_single_precision(panel: UsagePanel) -> UsagePanel:
    """The panel with every sample as the predictor holds it, so that both sides start from the same numbers."""
    return replace(panel, usage=panel.usage.astype(np.float32).astype(np.float64))


def a_settings(*, peaks: Sequence[str] = ("1h", "24h"), **training: Any) -> Settings:
    """Settings for the grid of these panels, with a cycle short enough for a test."""
    chosen = {"held_out": "2d", "calibration": "2d", "cutoffs": 4, "rehearsals": 6, "threads": 1} | training
    overrides: dict[tuple[str, ...], Any] = {("training", key): value for key, value in chosen.items()}
    overrides[("history", "step")] = timedelta(seconds=STEP_SECONDS)
    overrides[("history", "span")] = timedelta(days=30)
    overrides[("forecast", "horizon")] = timedelta(hours=2)
    overrides[("forecast", "peaks")] = peaks
    return load_settings(None, {}, overrides)
