"""What can go wrong between a decision and the cluster; each type says what to do next."""


class AutoscalerError(Exception):
    """Base of everything the autoscaler raises on purpose. The message is fit for a user."""


class ClusterUnavailable(AutoscalerError):
    """The API server did not answer, or not in time: assume nothing, hold, and retry next cycle."""


class HistoryExpired(ClusterUnavailable):
    """The API server no longer knows what came after the version that was asked about: list everything again."""


class ClusterRefused(AutoscalerError):
    """The API server answered that this may not or cannot be done: mend the role or the request; do not retry."""


class ObjectGone(AutoscalerError):
    """The object is not there (any more): forget the command."""


class CommandConflict(AutoscalerError):
    """The object is no longer as it was when the command was decided: drop the command, decide afresh."""


class ControllerUnreachable(AutoscalerError):
    """The running controller that was asked did not answer: check the address, or ask for a fresh decision."""


class UnknownNode(AutoscalerError):
    """A node that no OversubscriptionPolicy selects was asked about: check its name and labels."""
