"""The Kubernetes API in raw JSON, for the tests: one client per user, and what tests say about its objects."""

import json
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2

JsonObject = dict[str, Any]
Seen = TypeVar("Seen")

FIELD_MANAGER = "foresize-tests"


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


def wait_until(predicate: Callable[[], Seen], timeout_seconds: float, what: str) -> Seen:
    """The first true answer of the predicate; refusals and lost connections count as "not yet".

    Raises TimeoutError that names `what` and the last answer.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        last: object
        try:
            seen = predicate()
            if seen:
                return seen
            last = seen
        except (ApiError, httpx2.TransportError) as error:
            last = error
        if time.monotonic() >= deadline:
            raise TimeoutError(f"after {timeout_seconds:g} s still waiting for {what}; last answer: {last!r}")
        time.sleep(0.05)


class KubeApi:
    """The Kubernetes API as one user sees it, in raw JSON."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client
        self._resource_by_kind: dict[tuple[str, str], JsonObject] = {}

    @classmethod
    def from_kubeconfig(cls, kubeconfig: Path, timeout_seconds: float = 30.0) -> Self:
        """The API server and user of the kubeconfig's current context."""
        from kubernetes import client as official
        from kubernetes import config as official_config

        loader: Any = official_config  # the official client's loader knows every way to authenticate; it has no types
        settings: Any = official.Configuration()
        loader.load_kube_config(config_file=str(kubeconfig), client_configuration=settings)
        tls = ssl.create_default_context(cafile=settings.ssl_ca_cert)
        if not settings.verify_ssl:
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
        if settings.cert_file:
            tls.load_cert_chain(settings.cert_file, settings.key_file)
        token = settings.auth_settings().get("BearerToken")
        return cls(
            httpx2.Client(
                base_url=settings.host,
                verify=tls,
                headers={"Authorization": token["value"]} if token else {},
                timeout=timeout_seconds,
                trust_env=False,
            )
        )

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> JsonObject:
        """The decoded answer; raises ApiError for a status of 400 and above."""
        content = None if body is None else json.dumps(body).encode()
        headers = {"Accept": accept} | ({} if body is None else {"Content-Type": content_type})
        response = self._client.request(method, path, params=params, content=content, headers=headers)
        try:
            answer: object = response.json()
        except ValueError:
            answer = {"message": response.text}
        decoded: JsonObject = answer if isinstance(answer, dict) else {"items": answer}
        if response.status_code >= 400:
            message = str(decoded.get("message", ""))
            raise ApiError(response.status_code, str(decoded.get("reason", response.reason_phrase)), message)
        return decoded

    def get(self, path: str, **params: str) -> JsonObject:
        """The object or list at the path; `params` are query parameters such as labelSelector."""
        return self.request("GET", path, params=params)

    def create(self, path: str, manifest: JsonObject) -> JsonObject:
        """The new object in the collection at the path, its status included where the kind allows that."""
        return self.request("POST", path, manifest)

    def patch(self, path: str, changes: object, content_type: str = "application/merge-patch+json") -> JsonObject:
        """The object after a merge patch (or another kind of patch, named by its content type)."""
        return self.request("PATCH", path, changes, content_type=content_type)

    def delete(self, path: str) -> None:
        """Deletes the object in the background way; one that is already gone is fine."""
        try:
            self.request("DELETE", path, {"propagationPolicy": "Background"})
        except ApiError as error:
            if error.status != 404:
                raise

    def apply(self, manifest: JsonObject) -> JsonObject:
        """The object after a server-side apply that takes over conflicting fields; a new CRD is usable on return."""
        path = self.path_of(manifest)
        params = {"fieldManager": FIELD_MANAGER, "force": "true"}
        content_type = "application/apply-patch+yaml"
        applied = self.request("PATCH", path, manifest, params=params, content_type=content_type)
        if manifest["kind"] == "CustomResourceDefinition":
            wait_until(lambda: condition(self.get(path), "Established") == "True", 20, f"{path} to be established")
        return applied

    def path_of(self, manifest: JsonObject) -> str:
        """The path of the manifest's object, by discovery; the namespace is "default" where none is named."""
        api_version, kind, metadata = manifest["apiVersion"], manifest["kind"], manifest["metadata"]
        prefix = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        resource = self._resource(prefix, kind)
        if resource["namespaced"]:
            prefix += f"/namespaces/{metadata.get('namespace', 'default')}"
        return f"{prefix}/{resource['name']}/{metadata['name']}"

    def _resource(self, prefix: str, kind: str) -> JsonObject:
        if (prefix, kind) not in self._resource_by_kind:
            for resource in self.get(prefix)["resources"]:
                if "/" not in resource["name"]:
                    self._resource_by_kind[prefix, resource["kind"]] = resource
        if (prefix, kind) not in self._resource_by_kind:
            raise ApiError(404, "NotFound", f"the server has no kind {kind} in {prefix}")
        return self._resource_by_kind[prefix, kind]


def condition(thing: JsonObject, kind: str) -> str:
    """The status of the object's condition of that type; "Unknown" where it has none."""
    conditions = thing.get("status", {}).get("conditions") or []
    return next((str(c["status"]) for c in conditions if c["type"] == kind), "Unknown")


def deployment(
    name: str,
    namespace: str,
    replicas: int,
    *,
    requests: Mapping[str, str] | None = None,
    limits: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> JsonObject:
    """A Deployment of one container "app" whose pods carry the label app=NAME and the given annotations."""
    labels = {"app": name}
    resources: JsonObject = {"requests": dict(requests or {"cpu": "100m", "memory": "64Mi"})}
    if limits:
        resources["limits"] = dict(limits)
    container = {"name": "app", "image": "busybox", "command": ["sleep", "infinity"], "resources": resources}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": dict(annotations or {})},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
            },
        },
    }
