"""The image and the manifests fit together; the API server's own word on the manifests is in tests/e2e."""

import re
from pathlib import Path

import yaml

from foresize.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def test_the_image_runs_as_the_user_of_the_manifests() -> None:
    """Not as root, and without the working directory among the places that Python imports from."""
    controller = next(yaml.safe_load_all((DEPLOY / "controller.yaml").read_text()))
    user = controller["spec"]["template"]["spec"]["securityContext"]["runAsUser"]

    assert f"USER {user}:{user}" in DOCKERFILE
    assert "PYTHONSAFEPATH=1" in DOCKERFILE


def test_the_image_is_pinned_as_everything_else_is() -> None:
    """The installer by the lock file's version, all else by the lock file."""
    installer = re.search(r"^uv==\S+", (ROOT / "requirements.lock").read_text(), re.M)

    assert installer is not None
    assert f"{installer[0]} " in DOCKERFILE
    assert "--constraint /build/requirements.lock /build/*.whl" in DOCKERFILE


def test_uninstalling_begins_with_what_the_kustomization_leaves() -> None:
    """A binding that is no part of it would be in force again with the next installation."""
    installed = set(yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())["resources"])
    left = {file.name for file in DEPLOY.glob("binding-*.yaml")} - installed
    first = next(line for line in (DEPLOY / "README.md").read_text().splitlines() if line.startswith("kubectl delete"))

    assert left
    assert all(f"deploy/{name}" in first for name in left)


def test_the_webhooks_manifests_name_what_its_settings_do() -> None:
    """Else its certificate is made out to another name, or kept and trusted where nobody looks."""
    folder = DEPLOY / "webhook"
    settings = load_settings(folder / "foresize.yaml", {}, {}).webhook
    (configuration,) = yaml.safe_load_all((folder / "configuration.yaml").read_text())
    objects = {each["kind"]: each for each in yaml.safe_load_all((folder / "webhook.yaml").read_text())}
    (container,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    (port,) = objects["Service"]["spec"]["ports"]

    assert configuration["metadata"]["name"] == settings.configuration
    for hook in configuration["webhooks"]:
        service = hook["clientConfig"]["service"]
        assert f"{service['name']}.{service['namespace']}.svc" == settings.dns_name
        assert service["name"] == objects["Service"]["metadata"]["name"]
        assert service["port"] == port["port"]
        assert hook["failurePolicy"] == "Ignore"
        assert hook["timeoutSeconds"] == 2
    secret = objects["Secret"]["metadata"]
    assert (secret["namespace"], secret["name"]) == (settings.certificate_namespace, settings.certificate_name)
    assert [each["containerPort"] for each in container["ports"]] == [settings.port]
    roles = [each for each in yaml.safe_load_all((folder / "rbac.yaml").read_text()) if "Role" in each["kind"]]
    named = {name for role in roles for rule in role.get("rules") or () for name in rule.get("resourceNames") or ()}
    assert named == {settings.configuration, settings.certificate_name}
