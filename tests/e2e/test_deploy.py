"""The manifests: the API server takes them, and their roles are enough and not more."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from foresize.doctor import cluster_checks
from foresize.settings import load_settings
from tests.support.controlplane import ControlPlane

pytestmark = pytest.mark.e2e
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FILES = ("namespace.yaml", "rbac.yaml", "controller.yaml")


def manifests() -> Iterator[dict[str, Any]]:
    for file in FILES:
        yield from yaml.safe_load_all((DEPLOY / file).read_text())


def test_the_api_server_takes_every_manifest(control_plane: ControlPlane) -> None:
    """Each object is created as it is written."""
    for manifest in manifests():
        created = control_plane.apply(manifest)

        assert created["metadata"]["name"] == manifest["metadata"]["name"]


def test_the_roles_are_what_the_doctor_asks_for(control_plane: ControlPlane) -> None:
    """With both roles nothing is missing; with the reading one alone only acting is."""
    rules = {m["metadata"]["name"]: m["rules"] for m in manifests() if m["kind"] == "ClusterRole"}
    both = [*rules["foresize-read"], *rules["foresize-scale"]]
    with control_plane.namespace() as namespace:
        settings = load_settings(None, {}, {("scaling", "namespaces"): (namespace,)})

        full = cluster_checks(settings, control_plane.kubeconfig_for("deploy-full", both, namespace), None)
        reads = control_plane.kubeconfig_for("deploy-read", rules["foresize-read"], namespace)
        denied = [each.status for each in cluster_checks(settings, reads, None) if "may not" in each.message]

        assert [each.message for each in full if "may not" in each.message] == []
    assert denied == ["WARN", "WARN"]


def test_the_settings_in_the_manifests_are_settings() -> None:
    """The ConfigMap's file is read by the same loader as any other."""
    settings = load_settings(DEPLOY / "foresize.yaml", {}, {})

    assert settings.serving.host == "0.0.0.0"
