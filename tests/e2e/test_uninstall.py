"""After the commands under "Uninstall" in deploy/README.md nothing of foresize is left in the cluster."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.support.controlplane import ApiError, ControlPlane, JsonObject, wait_until
from tests.support.shop import Shop

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
FORESIZE = Path(sys.executable).parent / "foresize"
KINDS = {
    "MutatingWebhookConfiguration": "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "Namespace": "/api/v1/namespaces",
}
"""Where objects without a namespace are listed; all others go with the namespace, or are deleted before."""
NAMESPACED = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "Service": "/api/v1/namespaces/{}/services",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
}
PLURALS = ("predictiveautoscalers", "oversubscriptionpolicies")
GROUP = "/apis/foresize.io/v1alpha1"
OSP = f"{GROUP}/oversubscriptionpolicies"


def documented() -> list[str]:
    """The commands, without their comments."""
    section = (DEPLOY / "README.md").read_text().partition("## Uninstall")[2]
    block = section.split("```")[1]
    return [line.partition("#")[0].strip() for line in block.splitlines() if line.strip()]


def manifests(path: Path) -> Iterator[JsonObject]:
    """Of a file, or of a folder with a kustomization."""
    if path.is_file():
        yield from yaml.safe_load_all(path.read_text())
        return
    for each in yaml.safe_load((path / "kustomization.yaml").read_text())["resources"]:
        yield from manifests(path / each)


def path_of(manifest: JsonObject) -> str:
    kind, metadata = manifest["kind"], manifest["metadata"]
    collection = KINDS.get(kind) or NAMESPACED[kind].format(metadata.get("namespace"))
    return f"{collection}/{metadata['name']}"


def run(plane: ControlPlane, command: str) -> None:
    """What kubectl would do."""
    words = command.split()[1:]
    if words[0] == "annotate":
        key, _, value = words[-1].partition("=")
        for each in plane.get(OSP)["items"]:
            annotations = {"metadata": {"annotations": {key: value}}}
            plane.api.patch(f"{OSP}/{each['metadata']['name']}", annotations)
    elif words[0] == "delete":
        for path in re.findall(r"-[fk] (\S+)", command):
            for manifest in manifests(ROOT / path):
                try:
                    plane.api.delete(path_of(manifest))
                except ApiError as error:
                    if error.status != 404:
                        raise
    else:
        assert words[0] == "get", command


def left(plane: ControlPlane) -> list[str]:
    """Everything without a namespace that has foresize in its name, and all that is foresize's on nodes."""
    found: list[str] = []
    for kind, path in KINDS.items():
        items = plane.get(path)["items"]
        found += [
            f"{kind} {i['metadata']['name']}"
            for i in items
            if re.search(r"^foresize|foresize\.io$", i["metadata"]["name"])
        ]
    for node in plane.get("/api/v1/nodes")["items"]:
        of_node = (node["metadata"].get("labels"), node["status"]["capacity"], node["status"]["allocatable"])
        said = [f"{name}={value}" for part in of_node for name, value in (part or {}).items()]
        found += [f"{node['metadata']['name']} {each}" for each in said if "foresize" in each]
    return found


def secrets(plane: ControlPlane) -> list[str]:
    items = plane.get("/api/v1/secrets")["items"]
    return [i["metadata"]["name"] for i in items if i["metadata"]["namespace"] == "foresize"]


def test_the_documented_commands_leave_nothing_behind(shop: Shop, tmp_path: Path) -> None:
    """Nodes that were sold, and a webhook with its certificate, from a whole installation."""
    plane = shop.plane
    files = [DEPLOY, *sorted(DEPLOY.glob("binding-*.yaml")), DEPLOY / "webhook"]
    for manifest in [each for file in files for each in manifests(file)]:
        plane.apply(manifest)
    shop.policy()
    shop.until(shop.offered, "an offer")
    env = {name: value for name, value in os.environ.items() if not name.startswith("FORESIZE_")}
    argv = [str(FORESIZE), "webhook", "--port", "0", "--kubeconfig", str(plane.kubeconfig)]
    with (tmp_path / "log").open("wb") as output:
        process = subprocess.Popen(argv, cwd=tmp_path, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: has_certificate(plane), 60, "a certificate that the configuration trusts")
        assert secrets(plane) == ["foresize-webhook"]

        annotate, *others = documented()
        run(plane, annotate)
        shop.until(lambda: shop.offered() is None, "a clean node")
        for command in others:
            run(plane, command)

        wait_until(lambda: not left(plane), 90, "nothing to be left")
        assert secrets(plane) == []
        # It still runs, and makes nothing of it anew.
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(timeout=30)
        # Other tests find the kinds as they are used to.
        for name in ("crd", "crd-oversubscriptionpolicies"):
            wait_until(
                partial(plane.apply, yaml.safe_load((DEPLOY / f"{name}.yaml").read_text())), 60, "the kinds again"
            )
        wait_until(lambda: are_served(plane), 60, "the kinds to be served again")


def are_served(plane: ControlPlane) -> bool:
    """Established, told of, and listed: one comes a moment after the other."""
    kinds = [plane.get(f"{KINDS['CustomResourceDefinition']}/{name}.foresize.io") for name in PLURALS]
    said = [{each["type"]: each["status"] for each in kind["status"].get("conditions", ())} for kind in kinds]
    told = {each["name"] for each in plane.get(GROUP)["resources"]}
    lists = [plane.get(f"{GROUP}/{name}") for name in PLURALS]
    return all(each.get("Established") == "True" for each in said) and told.issuperset(PLURALS) and len(lists) == 2


def has_certificate(plane: ControlPlane) -> bool:
    hooks = plane.get(f"{KINDS['MutatingWebhookConfiguration']}/foresize")["webhooks"]
    return all(each["clientConfig"].get("caBundle") for each in hooks)
