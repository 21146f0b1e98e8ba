"""`foresize webhook` as a process that a real API server calls, for the pods of one namespace."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from tests.support.controlplane import ControlPlane, JsonObject, free_port, wait_until

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FORESIZE = Path(sys.executable).parent / "foresize"
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
POLICIES = "/apis/foresize.io/v1alpha1/oversubscriptionpolicies"
CRD = yaml.safe_load((DEPLOY / "crd-oversubscriptionpolicies.yaml").read_text())
ORIGINAL = "foresize.io/original-resources"


@dataclass
class Webhook:
    """The process and what it was given; everything is named after the namespace."""

    plane: ControlPlane
    namespace: str
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def configure(self) -> None:
        """Applies deploy/webhook/configuration.yaml, for the pods of this namespace and this address."""
        configuration = yaml.safe_load((DEPLOY / "webhook" / "configuration.yaml").read_text())
        configuration["metadata"]["name"] = self.namespace
        for hook in configuration["webhooks"]:
            path = hook["clientConfig"].pop("service")["path"]
            hook["clientConfig"]["url"] = f"https://localhost:{self.port}{path}"
            expressions = hook["namespaceSelector"].setdefault("matchExpressions", [])
            expressions.append({"key": "kubernetes.io/metadata.name", "operator": "In", "values": [self.namespace]})
            hook["timeoutSeconds"] = 10  # On a slow machine; what is promised is that pods start without an answer.
        self.plane.apply(configuration)

    def start(self, *, has_secret: bool = True) -> None:
        """Starts it with the roles of deploy/webhook."""
        rules = []
        for each in yaml.safe_load_all((DEPLOY / "webhook" / "rbac.yaml").read_text()):
            for rule in each.get("rules") or ():
                named = {"resourceNames": [self.namespace]} if "resourceNames" in rule else {}
                rules.append(rule | named)
        kubeconfig = self.plane.kubeconfig_for(f"{self.namespace}-webhook", rules)
        if has_secret:
            self.make_secret()
        settings = {
            "DNS_NAME": "localhost",
            "CONFIGURATION": self.namespace,
            "CERTIFICATE_NAMESPACE": self.namespace,
            "CERTIFICATE_NAME": self.namespace,
        }
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FORESIZE_")}
        with (self.folder / "webhook.log").open("wb") as output:
            self.process = subprocess.Popen(
                [str(FORESIZE), "webhook", "--port", str(self.port), "--kubeconfig", str(kubeconfig)],
                cwd=self.folder,
                env=clean | {f"FORESIZE_WEBHOOK__{name}": value for name, value in settings.items()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def make_secret(self) -> None:
        """An empty one, as deploy/webhook has it."""
        secret = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque"}
        self.plane.apply(secret | {"metadata": {"name": self.namespace, "namespace": self.namespace}})

    def stop(self) -> int:
        """Ends it as a kubelet would; its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=30)

    def log(self) -> str:
        """What it said."""
        return (self.folder / "webhook.log").read_text()

    # --- the cluster

    def opt_in(self) -> None:
        """Labels the namespace."""
        labels = {"metadata": {"labels": {"foresize.io/oversubscribe": "true"}}}
        self.plane.api.patch(f"/api/v1/namespaces/{self.namespace}", labels)

    def policy(self, name: str = "", **spec: Any) -> str:
        """Applies a policy in mode Auto over nodes that are labelled with the namespace; its name."""
        name = name or self.namespace
        wanted = {
            "nodeSelector": {"pool": self.namespace},
            "mode": "Auto",
            "resources": [{"name": "cpu"}],
            "actuator": {"type": "RequestAmplification"},
        }
        manifest = {"apiVersion": "foresize.io/v1alpha1", "kind": "OversubscriptionPolicy"}
        self.plane.apply(manifest | {"metadata": {"name": name}, "spec": wanted | spec})
        return name

    def tell(self, policy: str, **resource: Any) -> None:
        """Writes into the policy's status what a controller would, as of now."""
        found = self.plane.get(f"{POLICIES}/{policy}")
        status = {
            "lookedAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "observedGeneration": found["metadata"]["generation"],
            "resources": [{"name": "cpu", **resource}],
        }
        self.plane.api.patch(f"{POLICIES}/{policy}/status", {"status": status})

    def pod(
        self, name: str, resources: JsonObject | None = None, labels: Mapping[str, str] | None = None
    ) -> JsonObject:
        """A pod that goes to the policy's nodes, as it is created."""
        asked = {"requests": {"cpu": "300m"}} if resources is None else resources
        spec = {
            "nodeSelector": {"pool": self.namespace},
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "app", "image": "busybox", "resources": asked}],
        }
        metadata = {"name": name, "namespace": self.namespace, "labels": dict(labels or {})}
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        return self.plane.api.create(path, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    def until_changed(self, what: str, resources: JsonObject | None = None) -> JsonObject:
        """The first new pod that was changed: the API server takes a moment to see objects and certificates."""
        numbers = iter(range(10_000))

        def changed() -> JsonObject:
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"the webhook ended: {self.log()}")
            pod = self.pod(f"{what}-{next(numbers)}", resources)
            return pod if ORIGINAL in (pod["metadata"].get("annotations") or {}) else {}

        return wait_until(changed, 60, f"a changed pod ({what})")

    def trusted(self) -> bytes:
        """Whom the configuration trusts, in PEM."""
        hooks = self.plane.get(f"{CONFIGURATIONS}/{self.namespace}")["webhooks"]
        (bundle,) = {str(each["clientConfig"].get("caBundle") or "") for each in hooks}
        return base64.b64decode(bundle)


def requests(pod: JsonObject) -> JsonObject:
    """Of its only container."""
    found: JsonObject = pod["spec"]["containers"][0]["resources"].get("requests") or {}
    return found


@contextmanager
def a_webhook(plane: ControlPlane, folder: Path, namespace: str) -> Iterator[Webhook]:
    """What a webhook needs, and nothing of it left at the end."""
    plane.apply(CRD)
    webhook = Webhook(plane, namespace, folder, free_port())
    try:
        yield webhook
    finally:
        if webhook.process is not None and webhook.process.poll() is None:
            webhook.process.kill()
            webhook.process.wait()
        for path in (CONFIGURATIONS, POLICIES):
            for each in plane.get(path)["items"]:
                if each["metadata"]["name"].startswith(namespace):
                    plane.api.delete(f"{path}/{each['metadata']['name']}")
