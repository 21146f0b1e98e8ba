"""The doctor against a real API server: it names exactly the permissions that a role lacks."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from foresize.doctor import cluster_checks
from foresize.settings import load_settings
from tests.support.controlplane import ControlPlane

pytestmark = pytest.mark.e2e
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
ROLES: dict[str, list[dict[str, Any]]] = {
    each["metadata"]["name"]: each["rules"]
    for each in yaml.safe_load_all((DEPLOY / "rbac.yaml").read_text())
    if each["kind"] in ("ClusterRole", "Role")
}


def checked(plane: ControlPlane, *roles: str, without: str = "") -> list[tuple[str, str]]:
    """What the doctor says to a user who has these roles of ours, but for one resource."""
    plane.apply(yaml.safe_load((DEPLOY / "crd.yaml").read_text()))
    rules = [rule for role in roles for rule in ROLES[role] if without not in rule["resources"]]
    with plane.namespace() as namespace:
        chosen: dict[tuple[str, ...], Any] = {
            ("scaling", "namespaces"): (namespace,),
            ("scaling", "lease_namespace"): namespace,
        }
        kubeconfig = plane.kubeconfig_for("doctor", rules, namespace)
        checks = cluster_checks(load_settings(None, {}, chosen), kubeconfig, None)
        return [(check.status, check.message.replace(namespace, "NS")) for check in checks]


def test_our_own_roles_are_enough(control_plane: ControlPlane) -> None:
    """With all of them nothing is missing; no object yet is a warning."""
    checks = checked(control_plane, *ROLES)

    assert [status for status, _ in checks] == ["OK", "OK", "OK", "WARN"]
    assert checks[2] == ("OK", "may hold the lease foresize-controller in namespace NS")
    assert checks[3] == ("WARN", "0 PredictiveAutoscalers")


def test_the_reading_role_lacks_what_only_writing_needs(control_plane: ControlPlane) -> None:
    """Warnings, one by one: a dry run needs none of it."""
    denied = [check for check in checked(control_plane, "foresize-read") if "may not" in check[1]]

    assert denied == [
        ("WARN", "may not patch predictiveautoscalers.foresize.io/status in namespace NS"),
        ("WARN", "may not create events.events.k8s.io in namespace NS"),
        ("WARN", "may not get, patch deployments.apps/scale in namespace NS"),
        ("WARN", "may not get, patch statefulsets.apps/scale in namespace NS"),
        ("WARN", "may not get, patch horizontalpodautoscalers.autoscaling in namespace NS"),
        ("WARN", "may not patch pods/resize in namespace NS"),
        ("WARN", "may not get, create, patch leases.coordination.k8s.io in namespace NS"),
    ]


def test_what_oversubscription_policies_need_is_checked_where_there_are_any(control_plane: ControlPlane) -> None:
    """In the whole cluster, as nodes are in no namespace."""
    control_plane.apply(yaml.safe_load((DEPLOY / "crd.yaml").read_text()))
    control_plane.apply(yaml.safe_load((DEPLOY / "crd-oversubscriptionpolicies.yaml").read_text()))
    spec = {"nodeSelector": {"pool": "none"}, "resources": [{"name": "cpu"}]}
    policy = {"apiVersion": "foresize.io/v1alpha1", "kind": "OversubscriptionPolicy", "spec": spec}
    control_plane.apply(policy | {"metadata": {"name": "looked-at"}})

    def said(user: str, *roles: str) -> list[tuple[str, str]]:
        kubeconfig = control_plane.kubeconfig_for(user, [rule for role in roles for rule in ROLES[role]])
        checks = cluster_checks(load_settings(None, {}, {}), kubeconfig, None)
        return [
            (c.status, c.message)
            for c in checks
            if "nodes" in c.message or "eviction" in c.message or "Over" in c.message
        ]

    try:
        assert said("reads", "foresize-read", "foresize-tell") == [
            ("WARN", "may not patch nodes/status in the cluster"),
            ("WARN", "may not create pods/eviction in the cluster"),
        ]
        assert said("sells", *ROLES) == [("OK", "may do everything that 1 OversubscriptionPolicies can ask for")]
    finally:
        control_plane.api.delete("/apis/foresize.io/v1alpha1/oversubscriptionpolicies/looked-at")


def test_what_even_a_dry_run_needs_fails(control_plane: ControlPlane) -> None:
    """Without pods nothing can be learned of how long they take; no object is looked for then."""
    checks = checked(control_plane, *ROLES, without="pods")

    assert ("FAIL", "may not list, watch pods in namespace NS") in checks
    assert not any("PredictiveAutoscalers" in message for _, message in checks)
