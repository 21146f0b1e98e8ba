"""Builds what the flows are handed, from settings."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.settings import Settings
    from pipelines.tracking.mlflow import MlflowTracker
    from predictor.registry.mlflow import MlflowBundleStore
    from predictor.serving.ports import UsageSource


def build_tracker(settings: "Settings") -> "MlflowTracker":
    """MLflow, as `registry` in the settings says."""
    from pipelines.tracking.mlflow import MlflowTracker

    registry = settings.registry
    return MlflowTracker(
        settings.tracking_uri, registry.experiment, registry.model_name, registry.alias, registry.timeout
    )


def build_training_store(settings: "Settings") -> "MlflowBundleStore":
    """Where the champion is read from when a challenger is judged: the registry itself, never a local copy."""
    from predictor.registry.mlflow import MlflowBundleStore

    return MlflowBundleStore(settings.tracking_uri, settings.registry.model_name, settings.registry.timeout)


def history_end_seconds(settings: "Settings", source: "UsageSource", now_seconds: float) -> int:
    """When the newest step to train on starts: a file's last one, or the last that is over by now."""
    from predictor.sources.files import FileSource, MemorySource

    step_seconds = int(settings.history.step.total_seconds())
    if isinstance(source, FileSource):
        return source.panel(step_seconds).end_seconds
    if isinstance(source, MemorySource):
        return source.panel.end_seconds
    return int(now_seconds) // step_seconds * step_seconds - step_seconds
