"""What is used on nodes now, read beside the looks: who waits for a Prometheus that hangs does not guard."""

import threading
from concurrent.futures import Future, wait
from dataclasses import dataclass

from autoscaler.controller.node_ports import PlacedSource
from predictor.errors import SourceUnavailable
from predictor.usage.placed import NodeUsage


@dataclass
class UsageReader:
    """Reads usage in a thread of its own, one reading at a time, and hands it to the look that it is there for."""

    source: PlacedSource
    patience_seconds: float = 5.0
    """Longest that a look waits for an answer; one that comes later is the next look's, as old as it is by then."""

    def __post_init__(self) -> None:
        self._asked: Future[NodeUsage] | None = None

    def read(self, now_seconds: float) -> NodeUsage:
        """What is used, as of when it was asked for. Raises a PredictorError, SourceUnavailable while none came."""
        asked = self._asked
        if asked is None:
            asked = self._asked = Future()
            threading.Thread(target=self._work, args=(asked, now_seconds), name="node usage", daemon=True).start()
        wait([asked], self.patience_seconds)
        if not asked.done():
            # The same words each time, so that they are logged once.
            waited = f"more than {self.patience_seconds:g} s ago"
            raise SourceUnavailable(
                f"usage on nodes was asked for {waited} and is not told yet: is Prometheus overloaded?"
            )
        self._asked = None
        return asked.result()

    def _work(self, asked: "Future[NodeUsage]", now_seconds: float) -> None:
        try:
            asked.set_result(self.source.fetch_node_usage(now_seconds))
        except BaseException as error:
            asked.set_exception(error)
