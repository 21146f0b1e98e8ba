"""The doctor about namespaces that the settings name and a real API server does not know."""

from pathlib import Path
from typing import Any

import pytest

from foresize.checks.cluster import cluster_checks
from foresize.settings import load_settings
from tests.support.controlplane import ControlPlane
from tests.support.running import CRD

pytestmark = pytest.mark.e2e


def warned(kubeconfig: Path, *names: str) -> list[str]:
    """What the doctor says of namespaces that are not there."""
    chosen: dict[tuple[str, ...], Any] = {("scaling", "namespaces"): names, ("scaling", "lease_namespace"): names[0]}
    checks = cluster_checks(load_settings(None, {}, chosen), kubeconfig, None, asks_queries=False)
    return [each.message for each in checks if each.status == "WARN" and "no such namespace" in each.message]


def test_a_namespace_that_does_not_exist_is_named(control_plane: ControlPlane) -> None:
    """A slip in the settings would else look like a cluster in which nothing is to be scaled."""
    control_plane.apply(CRD)
    with control_plane.namespace("doctor") as namespace:
        said = warned(control_plane.kubeconfig, namespace, "shpo")

        assert said == ["scaling.namespaces names shpo, and there is no such namespace"]


def test_who_may_not_see_namespaces_is_told_nothing_of_them(control_plane: ControlPlane) -> None:
    """With a Role in each namespace it is not known which others there are."""
    control_plane.apply(CRD)
    rules = [{"apiGroups": ["foresize.io"], "resources": ["predictiveautoscalers"], "verbs": ["list", "watch"]}]
    with control_plane.namespace("doctor") as namespace:
        assert warned(control_plane.kubeconfig_for("narrow", rules, namespace), namespace, "shpo") == []
