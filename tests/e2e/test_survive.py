"""What a lost zone leaves is enough, with kwok nodes in two zones of a real control plane."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.controlplane import ControlPlane, deployment, wait_until
from tests.support.kube_api import JsonObject
from tests.support.live_demand import LiveDemand
from tests.support.running import SOON_SECONDS, Scene, a_scene, an_object

pytestmark = pytest.mark.e2e
ZONE = "topology.kubernetes.io/zone"
ROLES: list[dict[str, Any]] = [
    rule
    for each in yaml.safe_load_all((Path(__file__).resolve().parents[2] / "deploy" / "rbac.yaml").read_text())
    if each["kind"] in ("ClusterRole", "Role")
    for rule in each["rules"]
]
NO_WAIT = {"scaleDown": {"stabilizationWindowSeconds": 0}}


@pytest.fixture
def scene(control_plane: ControlPlane, demand: LiveDemand, tmp_path: Path) -> Iterator[Scene]:
    """One test's namespace."""
    with a_scene(control_plane, demand, tmp_path) as made:
        yield made


@pytest.fixture
def zoned(scene: Scene) -> Iterator[tuple[str, ...]]:
    """Names of two nodes in two zones, which only this test's pods ask for."""
    names: list[str] = []
    try:
        for zone in ("north", "south"):
            names += scene.plane.add_nodes(1, labels={ZONE: zone, "test": scene.namespace}, prefix=f"zone-{zone}")
        yield tuple(names)
    finally:
        scene.plane.remove_nodes(names)


def a_spread_deployment(scene: Scene, replicas: int) -> JsonObject:
    """On the test's nodes, as many pods in each zone as in the other, but for one."""
    made = deployment("web", scene.namespace, replicas)
    pod = made["spec"]["template"]["spec"]
    pod["nodeSelector"] = {"test": scene.namespace}
    pod["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": ZONE,
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "web"}},
        }
    ]
    return made


def surviving(scene: Scene, **survive: int) -> JsonObject:
    """An object in mode Auto that survives this."""
    made = an_object(scene.namespace, "web", behavior=NO_WAIT)
    made["spec"]["sla"] = {"survive": survive}
    return made


def test_replicas_survive_the_loss_of_a_zone(scene: Scene, zoned: tuple[str, ...]) -> None:
    """Demand of two replicas takes four in two zones; a zone that takes no pods leaves nothing to survive by."""
    scene.plane.apply(a_spread_deployment(scene, 2))
    scene.plane.apply(surviving(scene, zones=1))
    scene.use(1.9, "web")
    scene.leader(scene.start())

    scene.until_replicas("web", 4)
    message = scene.until_condition("web", "SurvivesLoss", "True", "Survives")
    assert "without it 2 are left, and demand needs 2" in message
    assert ("SuccessfulRescale", True) in [(r, "one of 2 zones is lost" in note) for r, note in scene.events("web")]

    scene.plane.api.patch(f"/api/v1/nodes/{zoned[1]}", {"spec": {"unschedulable": True}})
    for pod in scene.plane.pods(scene.namespace):
        if pod["spec"].get("nodeName") == zoned[1]:
            scene.plane.api.delete(f"/api/v1/namespaces/{scene.namespace}/pods/{pod['metadata']['name']}")
    scene.until_condition("web", "SurvivesLoss", "False", "OneDomain")


def test_without_the_permission_to_see_nodes_nothing_is_removed(scene: Scene, zoned: tuple[str, ...]) -> None:
    """The condition says so; replicas are still added."""
    rules = [{k: v for k, v in rule.items() if k != "resourceNames"} for rule in ROLES]
    kubeconfig = scene.plane.kubeconfig_for("no-nodes", rules, scene.namespace)
    scene.plane.apply(a_spread_deployment(scene, 3))
    scene.plane.apply(surviving(scene, nodes=1))
    scene.use(0.9, "web")
    scene.leader(scene.start(kubeconfig=kubeconfig))

    message = scene.until_condition("web", "SurvivesLoss", "False", "DomainsUnknown")
    assert "nodes" in message
    scene.until_condition("web", "AbleToScale", "True", "DomainsUnknown")
    assert scene.replicas("web") == 3
    scene.use(4.9, "web")
    wait_until(lambda: scene.replicas("web") == 5, SOON_SECONDS, "5 replicas")
