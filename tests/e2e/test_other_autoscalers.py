"""Beside an HPA that stays in charge, and against an HPA, a VPA and a ScaledObject that steer the same target."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest

from tests.support.controlplane import ControlPlane, deployment, wait_until
from tests.support.kube_api import JsonObject
from tests.support.live_demand import LiveDemand
from tests.support.running import LITTLE, MUCH, SOON_SECONDS, Scene, a_scene, an_object

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}


# --- an HPA in charge


def an_hpa(namespace: str, most: int) -> JsonObject:
    """By CPU, of which nothing is measured here: then an HPA does no more than keep its target within its bounds."""
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "in-charge", "namespace": namespace},
        "spec": {"scaleTargetRef": TARGET, "minReplicas": 1, "maxReplicas": most},
    }


def writers(thing: JsonObject) -> set[str]:
    """Who has written fields of the object, as the API server notes it."""
    return {str(each["manager"]) for each in thing["metadata"]["managedFields"]}


def test_the_minimum_of_an_hpa_is_moved_and_the_hpa_moves_the_replicas(
    control_plane: ControlPlane, demand: LiveDemand, tmp_path: Path
) -> None:
    """Raised as far as the HPA allows, which the real HPA controller follows, and lowered again.

    The scale of the Deployment is the HPA's alone throughout, and the HPA outlives the object.
    """
    behaviour = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    with a_scene(control_plane, demand, tmp_path) as scene:
        scene.use(LITTLE, "web")
        control_plane.apply(deployment("web", scene.namespace, 1))
        manifest = an_object(scene.namespace, "web", maxReplicas=9, behavior=behaviour)
        manifest["spec"]["actuator"] = "HPAMinReplicas"
        control_plane.apply(manifest)
        copy = scene.start()
        missing = scene.until_condition("web", "Conflict", "True", "Conflict")
        assert missing.startswith("actuator HPAMinReplicas needs a HorizontalPodAutoscaler")

        hpa = an_hpa(scene.namespace, most=4)
        hpa_path = control_plane.api.path_of(hpa)
        control_plane.apply(hpa)
        said = scene.until_condition("web", "Conflict", "False", "NoConflict")
        assert said.startswith("only the HorizontalPodAutoscaler in charge steers")

        scene.use(MUCH, "web")
        wait_until(lambda: control_plane.get(hpa_path)["spec"]["minReplicas"] == 4, SOON_SECONDS, "a raised minimum")
        scene.until_replicas("web", 4)  # the HPA looks once in 15 s
        limited = scene.until_condition("web", "ScalingLimited", "True", "TooManyReplicas")
        assert limited.endswith("the maximum is 4, that of HorizontalPodAutoscaler in-charge")
        wait_until(lambda: scene.status("web")["currentReplicas"] == 4, SOON_SECONDS, "a status of what the HPA did")
        assert scene.status("web")["desiredReplicas"] == 4

        scene.use(LITTLE, "web")
        wait_until(lambda: control_plane.get(hpa_path)["spec"]["minReplicas"] == 1, SOON_SECONDS, "a lowered minimum")
        wait_until(lambda: scene.reasons("web").count("SuccessfulRescale") == 2, SOON_SECONDS, "two Events")
        notes = [note for reason, note in scene.events("web") if reason == "SuccessfulRescale"]
        assert [note.partition(": ")[0] for note in notes] == [
            "minReplicas of HorizontalPodAutoscaler in-charge from 1 to 4",
            "minReplicas of HorizontalPodAutoscaler in-charge from 4 to 1",
        ]
        done = [(each["from"], each["to"], each["outcome"]) for each in reversed(scene.status("web")["decisions"])]
        assert [each for each in done if each[2] == "applied"] == [(1, 4, "applied"), (4, 1, "applied")]

        control_plane.api.delete(scene.object_path("web"))
        wait_until(lambda: not copy.lines("cycle")[-1]["workloads"], SOON_SECONDS, "a cycle without the object")
        left = control_plane.get(hpa_path)
        assert (left["spec"]["minReplicas"], left["spec"]["maxReplicas"]) == (1, 4)
        assert "foresize" in writers(left)
        assert "foresize" not in writers(control_plane.get(scene.path("web"))), "the HPA alone scales the Deployment"
        assert scene.replicas("web") == 4, "without a metric an HPA removes nothing, and nobody else may"


def test_a_minimum_that_a_dead_leader_set_and_could_not_tell_is_told_by_the_next(
    control_plane: ControlPlane, demand: LiveDemand, tmp_path: Path
) -> None:
    """As foresize's own, by an Event and an entry among the decisions; what a person sets is not taken for that."""
    with a_scene(control_plane, demand, tmp_path) as scene:
        scene.use(LITTLE, "web")
        control_plane.apply(deployment("web", scene.namespace, 1))
        hpa = an_hpa(scene.namespace, most=4)
        hpa_path = control_plane.api.path_of(hpa)
        control_plane.apply(hpa)
        manifest = an_object(scene.namespace, "web", maxReplicas=9)
        manifest["spec"]["actuator"] = "HPAMinReplicas"
        control_plane.apply(manifest)

        def until_known(minimum: int) -> None:
            wait_until(
                lambda: scene.status("web").get("stabilization", {}).get("lastMinimum") == minimum,
                SOON_SECONDS,
                f"a status that knows of the minimum {minimum}",
            )

        def set_by(manager: str, minimum: int) -> None:
            control_plane.api.request(
                "PATCH",
                hpa_path,
                {"spec": {"minReplicas": minimum}},
                params={"fieldManager": manager},
                content_type="application/merge-patch+json",
            )

        def untold() -> list[str]:
            return [note for reason, note in scene.events("web") if "could tell why" in note]

        first = scene.start()
        until_known(1)
        first.kill()
        scene.use(2.5, "web")
        set_by("foresize", 3)
        second = scene.start()
        wait_until(untold, SOON_SECONDS, "the Event of the next leader")
        (note,) = untold()
        assert note.startswith("minReplicas of HorizontalPodAutoscaler in-charge from 1 to 3: UntoldChange: set by")
        until_known(3)
        entry = scene.status("web")["decisions"][-1]
        assert (entry["from"], entry["to"], entry["reason"], entry["outcome"]) == (1, 3, "UntoldChange", "applied")

        second.kill()
        scene.use(3.5, "web")
        set_by("kubectl", 4)
        scene.start()
        until_known(4)
        assert untold() == [note]


# --- others, which must not steer beside it


def a_kind(group: str, version: str, kind: str) -> JsonObject:
    """A CustomResourceDefinition that takes any spec."""
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # The API server takes names under k8s.io only with an approval; the VPA's own manifest has one.
        "metadata": {
            "name": f"{plural}.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "versions": [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


VPA = a_kind("autoscaling.k8s.io", "v1", "VerticalPodAutoscaler")
SCALED_OBJECT = a_kind("keda.sh", "v1alpha1", "ScaledObject")


@pytest.fixture(scope="module")
def kinds_of_others(control_plane: ControlPlane) -> Iterator[None]:
    """The kinds of the VPA and of KEDA, without anybody who acts on their objects."""
    for kind in (VPA, SCALED_OBJECT):
        control_plane.apply(kind)
    yield
    for kind in (VPA, SCALED_OBJECT):
        control_plane.api.delete(control_plane.api.path_of(kind))


def a_vpa(mode: str) -> JsonObject:
    """As the VPA's users write it."""
    return {
        "apiVersion": "autoscaling.k8s.io/v1",
        "kind": "VerticalPodAutoscaler",
        "metadata": {"name": "rival"},
        "spec": {"targetRef": TARGET, "updatePolicy": {"updateMode": mode}},
    }


def a_scaled_object() -> JsonObject:
    """As KEDA's users write it."""
    trigger = {"type": "cron", "metadata": {"start": "0 8 * * *", "end": "0 18 * * *", "desiredReplicas": "9"}}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "rival"},
        "spec": {"scaleTargetRef": {"name": "web"}, "triggers": [trigger]},
    }


def by_utilisation(scene: Scene) -> None:
    """A Deployment and an object that goes by a share of what the Deployment requests, which a VPA would change."""
    scene.plane.apply(deployment("web", scene.namespace, 1, requests={"cpu": "100m", "memory": "1G"}))
    scene.plane.apply(an_object(scene.namespace, "web", maxReplicas=5, target={"averageUtilization": 90}))


@pytest.mark.parametrize(
    "rival",
    [an_hpa("", most=9), a_vpa("Auto"), a_vpa("Recreate"), a_scaled_object()],
    ids=["HPA", "VPA in Auto", "VPA in Recreate", "ScaledObject"],
)
@pytest.mark.usefixtures("kinds_of_others")
def test_another_autoscaler_of_the_target_stops_every_write_until_it_is_gone(
    control_plane: ControlPlane, demand: LiveDemand, tmp_path: Path, rival: JsonObject
) -> None:
    """Said in a condition and an Event when it comes and when it goes; then the demand that rose meanwhile is met."""
    with a_scene(control_plane, demand, tmp_path) as scene:
        rival = deepcopy(rival)
        rival["metadata"]["namespace"] = scene.namespace
        scene.use(LITTLE, "web")
        by_utilisation(scene)
        scene.start()
        scene.until_condition("web", "Conflict", "False", "NoConflict")

        control_plane.apply(rival)
        message = scene.until_condition("web", "Conflict", "True", "Conflict")
        shown = f"{rival['kind']} {rival['metadata']['name']}"
        assert message.startswith(f"{shown} also steers {scene.namespace}/Deployment/web")
        scene.use(MUCH, "web")
        wait_until(lambda: scene.status("web")["desiredReplicas"] == 5, SOON_SECONDS, "a decision that is not acted on")
        assert scene.condition("web", "AbleToScale")[:2] == ("False", "Conflict")
        assert (scene.replicas("web"), scene.generation("web")) == (1, 1)
        assert scene.reasons("web").count("Conflict") == 1

        control_plane.api.delete(control_plane.api.path_of(rival))
        scene.until_replicas("web", 5)
        scene.until_condition("web", "Conflict", "False", "NoConflict")
        wait_until(lambda: "ConflictResolved" in scene.reasons("web"), SOON_SECONDS, "the Event")
        told = [reason for reason in scene.reasons("web") if not reason.startswith("Rung")]
        assert sorted(told) == ["Conflict", "ConflictResolved", "SuccessfulRescale"]
        assert scene.generation("web") == 2


@pytest.mark.usefixtures("kinds_of_others")
def test_a_vpa_that_only_recommends_is_no_conflict(
    control_plane: ControlPlane, demand: LiveDemand, tmp_path: Path
) -> None:
    """Its mode Off changes no pod, so the object goes on scaling."""
    with a_scene(control_plane, demand, tmp_path) as scene:
        rival = a_vpa("Off")
        rival["metadata"]["namespace"] = scene.namespace
        control_plane.apply(rival)
        scene.use(MUCH, "web")
        by_utilisation(scene)
        scene.start()

        scene.until_replicas("web", 5)
        scene.until_condition("web", "Conflict", "False", "NoConflict")
        assert "Conflict" not in scene.reasons("web")
