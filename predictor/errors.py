"""What can go wrong between a metrics store and a forecast; each type says what to do next."""

import re
from typing import TypeVar


class PredictorError(Exception):
    """Base of everything the predictor raises on purpose. The message is fit for a user."""


Problem = TypeVar("Problem", bound=PredictorError)


class SourceUnavailable(PredictorError):
    """The metrics store did not answer, or not in time: hold, and retry next cycle."""


class SourceRefused(PredictorError):
    """The metrics store answered that the request itself is wrong (4xx, bad PromQL): mend the configuration."""


class QueryRefused(SourceRefused):
    """A query that somebody wrote and that cannot be held to their namespace: mend the object that gives it."""


class MalformedAnswer(PredictorError):
    """The metrics store answered with something unusable (HTML, truncated, partial): treat as no answer."""


class ProtectionFailed(PredictorError):
    """A token or certificate of our own services that cannot be used: mend the file or the setting that names it."""


class InvalidUsage(PredictorError):
    """A usage table that breaks its contract; the message names the workload, the column and what to do."""


class UnknownWorkload(PredictorError):
    """Nothing is known under this name; the message lists the nearest names that are."""


class RegistryUnavailable(PredictorError):
    """The model registry did not answer: go on with the last model that was loaded."""


class ModelNotFound(PredictorError):
    """The registry answered that there is no such model, version or alias: train one."""


class CorruptModel(PredictorError):
    """A stored model that is damaged, foreign or of another format: never load it, keep the last good one."""


def without_frames(problem: Problem) -> Problem:
    """The error as it may be kept, without the calls it came through: they hold all that was in reach of them, a
    fleet's window of usage and the error kept before this one among it.
    """
    problem.__cause__ = problem.__context__ = None
    return problem.with_traceback(None)


def without_login(text: str) -> str:
    """What is said, without the user and password of any address in it."""
    return re.sub(r"://[^/\s]+@", "://***@", text)
