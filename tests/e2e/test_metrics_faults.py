"""A Prometheus that is cut off, lags behind or fails, and demand that cannot be: replicas never shrink for it."""

import math
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.controlplane import ControlPlane, wait_until
from tests.support.live_demand import LiveDemand, gated
from tests.support.running import SOON_SECONDS, Scene, a_scene

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
FRESH = "8s"
"""How old what is observed may be; in these tests it is 2 to 4 s old."""


def rungs(scene: Scene) -> list[tuple[str, str]]:
    """The Events about the ladder."""
    return [(reason, note) for reason, note in scene.events("web") if reason.startswith("Rung")]


def until_rungs(scene: Scene, count: int) -> list[tuple[str, str]]:
    """Waits for so many Events about the ladder: those that are there then."""
    wait_until(lambda: len(rungs(scene)) >= count, SOON_SECONDS, f"{count} Events about the ladder")
    return rungs(scene)


def until_settled(scene: Scene, replicas: int) -> int:
    """Waits for the replicas and for a status that says so; how often the Deployment was written until then."""
    scene.until_replicas("web", replicas)
    wait_until(
        lambda: (scene.status("web").get("rung"), scene.status("web").get("currentReplicas")) == ("reactive", replicas),
        SOON_SECONDS,
        f"a status of {replicas} replicas",
    )
    return scene.generation("web")


def test_whatever_prometheus_does_nothing_shrinks(
    control_plane: ControlPlane, demand: LiveDemand, tmp_path: Path
) -> None:
    """Cut off, then lagging, then failing: one warning each with the reason, one Event for each return, then it acts.

    Even without a window for scaling in, and with less demand to be read after each outage.
    """
    behaviour = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    with gated(demand.url) as gate, a_scene(control_plane, demand, tmp_path, stale_after=FRESH) as scene:
        scene.use(2.5, "web")
        scene.put("web", replicas=3, maxReplicas=5, behavior=behaviour)
        copy = scene.start(prometheus=gate.url)
        written = until_settled(scene, 3)
        # A status is written before its Event.
        stood_on = [line["rung"] for line in copy.decisions()]
        seen = sum(one != another for one, another in pairwise(stood_on))
        until_rungs(scene, seen)

        outages = (
            ("cut", gate.cut, "FailedGetMetrics", "Prometheus"),
            ("lag", gate.lag, "StaleObservation", "8 s are accepted"),
            ("fail", lambda: setattr(gate, "is_failing", True), "FailedGetMetrics", "500"),
        )
        for name, begin, reason, words in outages:
            begin()
            wait_until(lambda: scene.status("web")["rung"] == "hold", SOON_SECONDS, f"a hold: {name}")
            assert words in scene.until_condition("web", "ScalingActive", "False", reason)
            assert scene.condition("web", "ForecastAvailable")[0] == "False"
            gate.mend()
            wait_until(lambda: scene.status("web")["rung"] == "reactive", SOON_SECONDS, f"the return: {name}")
            told = until_rungs(scene, seen + 2)[seen:]
            assert [kind for kind, _ in told] == ["RungLowered", "RungRaised"], name
            assert told[0][1].startswith("reactive -> hold: ")
            assert words in told[0][1]
            assert told[1][1].startswith("hold -> reactive")
            assert scene.generation("web") == written, f"{name}: replicas were changed"
            seen += 2

        scene.use(30, "web")
        scene.until_replicas("web", 5)
        wait_until(lambda: scene.reasons("web").count("SuccessfulRescale") == 1, SOON_SECONDS, "the Event")
        scene.until_condition("web", "ScalingLimited", "True", "TooManyReplicas")


def test_broken_demand_is_no_demand(control_plane: ControlPlane, demand: LiveDemand, tmp_path: Path) -> None:
    """NaN is no sample, zero removes nothing at once, and a spike ends at the rate limits and the maximum."""
    behaviour = {
        "scaleUp": {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 4}]},
        "scaleDown": {"stabilizationWindowSeconds": 600},
    }
    with a_scene(control_plane, demand, tmp_path, stale_after=FRESH) as scene:
        scene.use(2.5, "web")
        scene.put("web", replicas=3, maxReplicas=9, behavior=behaviour)
        copy = scene.start()
        written = until_settled(scene, 3)

        scene.use(math.nan, "web")
        scene.until_condition("web", "ScalingActive", "False", "StaleObservation")
        assert scene.status("web")["rung"] == "hold"
        assert scene.generation("web") == written
        scene.use(2.5, "web")
        until_settled(scene, 3)

        scene.use(0, "web")
        message = scene.until_condition("web", "AbleToScale", "True", "ScaleDownStabilized")
        assert "up to 3 were needed within the last 600 s" in message
        assert (scene.replicas("web"), scene.generation("web")) == (3, written)

        scene.use(2500, "web")
        scene.until_replicas("web", 9)
        message = scene.until_condition("web", "ScalingLimited", "True", "TooManyReplicas")
        assert "the maximum is 9" in message
        changes = [(each["from"], each["to"]) for each in reversed(scene.status("web")["decisions"])]
        assert changes == [(3, 7), (7, 9)]
        assert scene.generation("web") == written + 2
        wait_until(lambda: scene.reasons("web").count("SuccessfulRescale") == 2, SOON_SECONDS, "two Events")
        assert copy.process.poll() is None
