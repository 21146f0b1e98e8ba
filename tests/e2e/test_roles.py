"""`foresize run` by a user who has exactly the roles of deploy/rbac.yaml: they suffice, and allow nothing else."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.controlplane import ControlPlane, deployment
from tests.support.kube_api import ApiError, JsonObject
from tests.support.running import CRD, an_object

pytestmark = pytest.mark.e2e
ROLES: dict[str, list[dict[str, Any]]] = {
    each["metadata"]["name"]: each["rules"]
    for each in yaml.safe_load_all((Path(__file__).resolve().parents[2] / "deploy" / "rbac.yaml").read_text())
    if each["kind"] in ("ClusterRole", "Role")
}
FORESIZE = Path(sys.executable).parent / "foresize"
OBSERVING = ("foresize-read", "foresize-tell", "foresize-lease")
SCALING = (*OBSERVING, "foresize-scale")


@dataclass
class Place:
    """A namespace with one replica of `web` that uses what four carry, and its object."""

    plane: ControlPlane
    namespace: str
    folder: Path

    def user(self, *roles: str) -> Path:
        """The kubeconfig of somebody with these roles, here."""
        return self.plane.kubeconfig_for(roles[-1], [rule for role in roles for rule in ROLES[role]], self.namespace)

    def run(self, user: Path) -> "subprocess.CompletedProcess[str]":
        """One cycle of `foresize run` as that user, on usage from a file."""
        usage = self.folder / "usage.csv"
        now = datetime.fromtimestamp(int(time.time()) // 300 * 300, UTC)
        times = [now - timedelta(seconds=300 * n) for n in range(600)]
        rows = [f"{self.namespace}/Deployment/web,memory,{at.isoformat()},3.5e9" for at in times]
        usage.write_text("\n".join(["workload,resource,timestamp,usage", *rows]) + "\n")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FORESIZE_")}
        keys = {"FORESIZE_SCALING__NAMESPACES": self.namespace, "FORESIZE_SCALING__LEASE_NAMESPACE": self.namespace}
        return subprocess.run(
            [str(FORESIZE), "run", "--once", "--kubeconfig", str(user), "--history", str(usage)],
            cwd=self.folder,
            env=clean | keys,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    @property
    def object_path(self) -> str:
        """Of the PredictiveAutoscaler."""
        return f"/apis/foresize.io/v1alpha1/namespaces/{self.namespace}/predictiveautoscalers/web"

    def status(self) -> JsonObject:
        """Of the object."""
        return dict(self.plane.get(self.object_path).get("status") or {})

    def replicas(self) -> int:
        """Of the Deployment."""
        return int(self.plane.get(f"/apis/apps/v1/namespaces/{self.namespace}/deployments/web")["spec"]["replicas"])

    def reasons(self) -> list[str]:
        """Of the Events about the object."""
        items = self.plane.get(f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")["items"]
        return [str(each["reason"]) for each in items if each["regarding"]["kind"] == "PredictiveAutoscaler"]


@pytest.fixture
def place(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Place]:
    """Nobody but the administrator has a role here yet."""
    control_plane.apply(CRD)
    with control_plane.namespace("roles") as namespace:
        control_plane.apply(deployment("web", namespace, replicas=1))
        control_plane.apply(an_object(namespace, "web", maxReplicas=9))
        yield Place(control_plane, namespace, tmp_path)


def test_reading_and_telling_suffice_to_observe(place: Place) -> None:
    """A whole cycle: status and lease written, the workload untouched; in mode Auto the missing rule is named."""
    place.plane.api.patch(place.object_path, {"spec": {"mode": "Observe"}})
    user = place.user(*OBSERVING)

    observed = place.run(user)

    assert observed.returncode == 0, observed.stderr
    assert place.status()["currentReplicas"] == 1
    assert place.status()["desiredReplicas"] == 4
    lease = place.plane.get(f"/apis/coordination.k8s.io/v1/namespaces/{place.namespace}/leases")["items"]
    assert len(lease) == 1
    assert place.replicas() == 1

    place.plane.api.patch(place.object_path, {"spec": {"mode": "Auto"}})
    refused = place.run(user)

    assert refused.returncode == 1, refused.stderr
    assert place.replicas() == 1
    able = next(each for each in place.status()["conditions"] if each["type"] == "AbleToScale")
    assert (able["status"], able["reason"]) == ("False", "FailedUpdateScale")
    assert "deployments/scale" in able["message"]
    assert "FailedRescale" in place.reasons(), "the role to tell covers Events"


def test_the_role_to_scale_suffices_to_act(place: Place) -> None:
    """The Deployment is raised, the status and an Event say so."""
    acted = place.run(place.user(*SCALING))

    assert acted.returncode == 0, acted.stderr
    assert place.replicas() == 4
    assert place.status()["currentReplicas"] == 4
    assert place.reasons() == ["SuccessfulRescale"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/namespaces/{namespace}/secrets"),
        ("GET", "/api/v1/namespaces/{namespace}/configmaps"),
        ("DELETE", "/apis/apps/v1/namespaces/{namespace}/deployments/web"),
        ("PATCH", "/apis/apps/v1/namespaces/{namespace}/deployments/web"),
        ("PATCH", "/apis/foresize.io/v1alpha1/namespaces/{namespace}/predictiveautoscalers/web"),
        ("DELETE", "/api/v1/namespaces/{namespace}/pods/web-0"),
        ("POST", "/api/v1/namespaces/{namespace}/pods/web-0/exec"),
        ("GET", "/apis/apps/v1/namespaces/default/deployments"),
    ],
)
def test_what_no_role_names_is_refused(place: Place, method: str, path: str) -> None:
    """Whoever gets hold of the controller's token reads no secret, ends no pod and changes no template or object."""
    thief = place.plane.api_for(place.user(*SCALING))

    with pytest.raises(ApiError) as refused:
        thief.request(
            method,
            path.format(namespace=place.namespace),
            {} if method in ("PATCH", "POST") else None,
            content_type="application/merge-patch+json" if method == "PATCH" else "application/json",
        )

    assert refused.value.status == 403
