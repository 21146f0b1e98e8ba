"""The doctor against a real API server: it names exactly the permissions that a role lacks."""

import pytest

from foresize.doctor import cluster_checks
from foresize.settings import load_settings
from tests.support.controlplane import ControlPlane

pytestmark = pytest.mark.e2e

LISTS = {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets"], "verbs": ["list"]}
SCALES = {"apiGroups": ["apps"], "resources": ["deployments/scale", "statefulsets/scale"], "verbs": ["get", "patch"]}
READS_SCALE = {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["get"]}


def test_a_role_that_allows_all_that_is_needed_is_enough(control_plane: ControlPlane) -> None:
    """With list on workloads, and get and patch on their scale, nothing is missing; no workload yet is a warning."""
    with control_plane.namespace() as namespace:
        kubeconfig = control_plane.kubeconfig_for("doctor-full", [LISTS, SCALES], namespace)
        settings = load_settings(None, {}, {("scaling", "namespaces"): (namespace,)})

        checks = list(cluster_checks(settings, kubeconfig, None))

    assert [check.status for check in checks] == ["OK", "OK", "WARN"]
    assert checks[2].message.startswith("0 workloads carry foresize.io/managed=true")


def test_missing_permissions_are_named_one_by_one(control_plane: ControlPlane) -> None:
    """What even a dry run needs fails; what only acting needs is a warning."""
    with control_plane.namespace() as namespace:
        kubeconfig = control_plane.kubeconfig_for("doctor-poor", [LISTS, READS_SCALE], namespace)
        settings = load_settings(None, {}, {("scaling", "namespaces"): (namespace,)})

        checks = list(cluster_checks(settings, kubeconfig, None))

    denied = [(check.status, check.message) for check in checks if "may not" in check.message]
    assert denied == [
        ("FAIL", f"may not get statefulsets.apps/scale in namespace {namespace}"),
        ("WARN", f"may not patch deployments.apps/scale in namespace {namespace}"),
        ("WARN", f"may not patch statefulsets.apps/scale in namespace {namespace}"),
    ]
