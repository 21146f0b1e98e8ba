"""A latency that an object names moves its level and keeps its replicas, on a real API server and a real Prometheus."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.controlplane import ControlPlane, wait_until
from tests.support.live_demand import LiveDemand
from tests.support.running import SOON_SECONDS, Scene, a_scene, an_object

pytestmark = pytest.mark.e2e
LATENCY = 'sum(container_memory_working_set_bytes{pod=~"latency-.*"})'
"""What stands for a latency: the test sets it, in seconds."""
FAST, SLOW = 0.1, 0.4


@pytest.fixture
def scene(control_plane: ControlPlane, demand: LiveDemand, tmp_path: Path) -> Iterator[Scene]:
    """Violations are looked at over a minute and five seconds, so that nobody waits for the hour."""
    with a_scene(control_plane, demand, tmp_path, error_budget_window="1m") as made:
        yield made


def slow_web(scene: Scene, seconds: float) -> None:
    """From now on the latency is this."""
    scene.demand.use(scene.namespace, seconds, "latency")


def test_a_violated_latency_keeps_replicas_and_tightens_until_it_recovers(scene: Scene) -> None:
    """Status, condition and Event say so while it lasts; then what is not needed is removed."""
    behaviour = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    scene.put("web", replicas=4, behavior=behaviour)
    manifest = an_object(scene.namespace, "web", behavior=behaviour)
    manifest["spec"]["sla"] = {"percentile": 99, "latency": {"query": LATENCY, "thresholdSeconds": 0.25}}
    scene.plane.apply(manifest)
    scene.use(4.0, "web")
    slow_web(scene, SLOW)
    scene.leader(scene.start())

    def budget() -> dict[str, object]:
        return dict(scene.status("web").get("errorBudget") or {})

    def until_events(*wanted: str) -> None:
        wait_until(
            lambda: [r for r in scene.reasons("web") if r.startswith("ErrorBudget")] == list(wanted),
            SOON_SECONDS,
            f"the Events {wanted}",
        )

    wait_until(lambda: budget().get("burnsFast"), SOON_SECONDS, "fast burn")
    scene.use(1.0, "web")
    scene.until_condition("web", "AbleToScale", "True", "ErrorBudgetBurns")
    assert scene.replicas("web") == 4
    told = budget()
    assert float(str(told["level"])) > 0.99
    assert float(str(told["remaining"])) < 1
    assert "times as often as allowed" in str(told["reason"])
    until_events("ErrorBudgetBurns")

    slow_web(scene, FAST)
    scene.until_replicas("web", 1)
    wait_until(lambda: budget().get("burnsFast") is False, SOON_SECONDS, "the end of it")
    until_events("ErrorBudgetBurns", "ErrorBudgetRecovers")


def test_a_latency_that_cannot_be_read_is_said_and_stops_nothing(scene: Scene) -> None:
    """The query of another namespace is refused; replicas follow demand as ever."""
    scene.put("web")
    manifest = an_object(scene.namespace, "web")
    other = 'sum(container_memory_working_set_bytes{namespace="bank"})'
    manifest["spec"]["sla"] = {"latency": {"query": other, "thresholdSeconds": 0.25}}
    scene.plane.apply(manifest)
    scene.use(3.0, "web")
    scene.leader(scene.start())

    scene.until_replicas("web", 3)
    scene.use(5.0, "web")
    scene.until_replicas("web", 5)
    told = dict(scene.status("web")["errorBudget"])
    wait_until(
        lambda: "reads what is not namespace=" in scene.status("web")["errorBudget"]["reason"], SOON_SECONDS, "why"
    )
    assert told["remaining"] == 1.0
