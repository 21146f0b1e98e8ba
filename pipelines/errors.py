"""What can stop a training cycle; the message is fit for a user."""

from autoscaler.simulator.outcome import ReplayError
from predictor.errors import InvalidUsage, ProtectionFailed, SourceRefused, UnknownWorkload


class PipelineError(Exception):
    """Base of everything the pipelines raise on purpose."""


class NotEnoughHistory(PipelineError):
    """The history is too short to fit, calibrate and score on separate days: read more, or hold out less."""


class TrackingUnavailable(PipelineError):
    """The tracking server did not answer: start it, or mend registry.tracking_uri."""


class ClusterUnavailable(PipelineError):
    """The Dask cluster that was asked to work cannot be reached or used: mend its address, or work here."""


class DemoUnavailable(PipelineError):
    """The demo's Prometheus cannot be found, filled or started: install it, or run the demo from Parquet."""


TO_BE_MENDED = (
    InvalidUsage,
    ProtectionFailed,
    SourceRefused,
    UnknownWorkload,
    NotEnoughHistory,
    ClusterUnavailable,
    ReplayError,
)
"""What was asked or given cannot be used: the user can mend it, and a command ends with exit code 2."""
