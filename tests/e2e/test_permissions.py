"""`foresize run --once` by users who lack a role: what is missing is named, and the exit code says so."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.controlplane import ControlPlane, deployment

pytestmark = pytest.mark.e2e
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FORESIZE = Path(sys.executable).parent / "foresize"
ROLES: dict[str, list[dict[str, Any]]] = {
    each["metadata"]["name"]: each["rules"]
    for each in yaml.safe_load_all((DEPLOY / "rbac.yaml").read_text())
    if each["kind"] in ("ClusterRole", "Role")
}


@pytest.mark.parametrize(
    ("roles", "rule"),
    [
        (("foresize-read", "foresize-lease"), 'resources: ["predictiveautoscalers/status"], verbs: ["patch"]'),
        (("foresize-read", "foresize-tell"), 'resources: ["leases"], verbs: ["get"]'),
    ],
    ids=["no status", "no lease"],
)
def test_a_missing_rule_is_named(
    control_plane: ControlPlane, tmp_path: Path, roles: tuple[str, ...], rule: str
) -> None:
    """A status that was not written, or a lease that may not be had, is no success and no wait for another copy."""
    control_plane.apply(yaml.safe_load((DEPLOY / "crd.yaml").read_text()))
    usage = tmp_path / "usage.csv"
    now = int(time.time()) // 300 * 300
    rows = [f"shop/Deployment/web,cpu,{now - 300 * n},0.5" for n in range(600)]
    usage.write_text("\n".join(["workload,resource,timestamp,usage", *rows]) + "\n")
    with control_plane.namespace() as namespace:
        control_plane.apply(deployment("web", namespace, replicas=1))
        control_plane.apply(
            {
                "apiVersion": "foresize.io/v1alpha1",
                "kind": "PredictiveAutoscaler",
                "metadata": {"name": "web", "namespace": namespace},
                "spec": {
                    "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                    "horizontal": {"minReplicas": 1, "maxReplicas": 3},
                },
            }
        )
        kubeconfig = control_plane.kubeconfig_for("reader", [r for role in roles for r in ROLES[role]], namespace)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FORESIZE_")}
        settings = {"FORESIZE_SCALING__NAMESPACES": namespace, "FORESIZE_SCALING__LEASE_NAMESPACE": namespace}

        ran = subprocess.run(
            [str(FORESIZE), "run", "--once", "--kubeconfig", str(kubeconfig), "--history", str(usage)],
            cwd=tmp_path,
            env=clean | settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert ran.returncode == 1, ran.stderr
    assert rule in ran.stderr.splitlines()[-1]
    assert f"in namespace {namespace}" in ran.stderr.splitlines()[-1]
