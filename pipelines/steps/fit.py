"""Fits every candidate, once per resource, on the fit part of the history."""

from collections.abc import Mapping, Sequence
from typing import Any

from models import catalog
from models.forecast import Forecaster
from pipelines.steps.plan import Plan, Progress, untold
from predictor.usage.panel import Resource, SeriesKey

Fitted = Mapping[tuple[Resource, str], Forecaster]


def resources_of(keys: Sequence[SeriesKey]) -> tuple[Resource, ...]:
    """The resources that the series have, in the order in which Resource lists them."""
    held = {key.resource for key in keys}
    return tuple(resource for resource in Resource if resource in held)


def fitted(plan: Plan, progress: Progress = untold) -> Fitted:
    """Each candidate fitted on the warm series of each resource, as they were known when the fit part ended."""
    past = plan.panel.history().until(plan.split.fitted_until_seconds)
    place = {key: row for row, key in enumerate(plan.panel.keys)}
    resources = resources_of(plan.warm)
    made: dict[tuple[Resource, str], Forecaster] = {}
    for resource in resources:
        history = past.select([place[key] for key in plan.warm if key.resource == resource])
        for name in plan.candidates:
            progress(len(made), len(plan.candidates) * len(resources))
            made[resource, name] = catalog.create(name, **_parameters(name, plan)).fit(history, plan.question.target)
    progress(len(made), len(made))
    return made


def _parameters(name: str, plan: Plan) -> dict[str, Any]:
    """Those of the cycle's parameters that the forecaster takes."""
    offered = {
        "levels": plan.question.levels,
        "seed": plan.training.seed,
        "threads": plan.training.threads,
    }
    taken = catalog.parameters_of(name)
    return {key: value for key, value in offered.items() if key in taken}
