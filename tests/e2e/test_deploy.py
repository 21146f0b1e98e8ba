"""The manifests: the API server takes them, and their roles are enough and not more."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from foresize.settings import load_settings
from tests.support.controlplane import ControlPlane

pytestmark = pytest.mark.e2e
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FILES = (
    "namespace.yaml",
    "crd.yaml",
    "crd-oversubscriptionpolicies.yaml",
    "rbac.yaml",
    "controller.yaml",
    "binding-auto.yaml",
    "binding-inplace.yaml",
    "binding-nodes.yaml",
)


def manifests() -> Iterator[dict[str, Any]]:
    for file in FILES:
        yield from yaml.safe_load_all((DEPLOY / file).read_text())


def test_the_api_server_takes_every_manifest(control_plane: ControlPlane) -> None:
    """Each object is created as it is written."""
    for manifest in manifests():
        created = control_plane.apply(manifest)

        assert created["metadata"]["name"] == manifest["metadata"]["name"]


def test_the_settings_in_the_manifests_are_settings() -> None:
    """The ConfigMap's file is read by the same loader as any other."""
    settings = load_settings(DEPLOY / "foresize.yaml", {}, {})

    assert settings.serving.host == "0.0.0.0"
