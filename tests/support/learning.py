"""A controller that learns what its replicas carry, from a past made up for the test."""

from typing import Any

from autoscaler.controller.capacities import CapacityWatch
from autoscaler.controller.loop import Controller
from autoscaler.controller.ports import CapacitySource
from tests.support.scaling import ScalingParts
from tests.support.serving import STEP_SECONDS


class LearningController:
    """One workload and a controller, once `begin` was called."""

    def begin(self, parts: ScalingParts, past: CapacitySource) -> None:
        """Over this past, nothing decided yet."""
        self.parts, self._past = parts, past
        self.controller = self.another()

    def another(self) -> Controller:
        """One more copy of the controller, which knows nothing but what the cluster says."""
        made = self.parts.controller()
        made.capacities = CapacityWatch(self._past, self.parts.settings, STEP_SECONDS, is_patient=True)
        return made

    def minutes(self, count: int) -> None:
        """So many pass, a cycle each."""
        for _ in range(count):
            self.parts.clock.now += 60
            self.controller.cycle()

    @property
    def told(self) -> dict[str, Any]:
        """What the status says of capacity."""
        return dict(self.parts.status()["capacity"])
