"""An HPA's minimum that changed while no copy of the controller was there to say why."""

from dataclasses import replace

import pytest

from autoscaler.controller.autoscalers import Actuator, Rival, RivalKind, TargetRef
from tests.support.scaling import CART, ScalingParts, a_target, an_autoscaler, noon_rush

HPA = Rival(
    RivalKind.HPA,
    "shop",
    "in-charge",
    TargetRef("apps/v1", "Deployment", "cart"),
    "hpa",
    min_replicas=3,
    max_replicas=9,
)


def watched(cores: float = 2.0) -> ScalingParts:
    """A steady workload whose HPA has the right minimum, decided for once."""
    parts = ScalingParts(
        usage_by_workload={CART: noon_rush(cores, cores)},
        targets=(a_target(replicas=3),),
        autoscalers=(an_autoscaler(actuator=Actuator.HPA_MIN_REPLICAS),),
    )
    parts.cluster.put(HPA)
    return parts


def untold(parts: ScalingParts) -> list[str]:
    """Events about changes of which nobody could tell why."""
    return [each.note for each in parts.cluster.events if "before it could tell why" in each.note]


def test_what_a_copy_set_before_it_died_is_told_by_the_next_leader() -> None:
    """Once, in an Event and among the decisions."""
    parts = watched()
    parts.controller().cycle()
    parts.cluster.put(replace(HPA, min_replicas=6, is_set_by_us=True))
    successor = parts.controller()

    for _ in range(2):
        successor.cycle()
        parts.clock.now += 1

    (note,) = untold(parts)
    assert note.startswith("minReplicas of HorizontalPodAutoscaler in-charge from 3 to 6: UntoldChange: set by a copy")
    told = [(d["from"], d["to"], d["outcome"]) for d in parts.status()["decisions"] if d["reason"] == "UntoldChange"]
    assert told == [(3, 6, "applied")]


@pytest.mark.parametrize("is_new_leader", [True, False])
def test_what_a_person_set_is_not_taken_for_ours(is_new_leader: bool) -> None:
    """Whether or not the leader changed meanwhile."""
    parts = watched()
    controller = parts.controller()
    controller.cycle()
    parts.cluster.put(replace(HPA, min_replicas=6, is_set_by_us=False))

    (parts.controller() if is_new_leader else controller).cycle()

    assert untold(parts) == []


def test_a_picture_older_than_its_own_write_is_no_change_of_a_dead_copy() -> None:
    """The leader raised the minimum, and its watch still shows what foresize had set before."""
    parts = watched(cores=5.0)
    parts.cluster.put(replace(HPA, is_set_by_us=True))
    controller = parts.controller()
    controller.cycle()
    assert parts.cluster.rivals["hpa"].min_replicas > 3
    parts.cluster.put(replace(HPA, is_set_by_us=True))

    controller.cycle()

    assert untold(parts) == []
