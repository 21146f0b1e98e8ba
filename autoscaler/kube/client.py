"""Raw JSON over the official client's connection: its ways to authenticate, none of its typed models.

Typed lists cost ten times the time and four times the memory of the same JSON. Every request has a timeout, and
every failure leaves here as one of the errors in autoscaler/errors.py. The client is imported inside the functions:
half a second that `--help` must not pay.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson

from autoscaler.errors import ClusterRefused, ClusterUnavailable, CommandConflict, ObjectGone

JsonObject = dict[str, Any]

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
PAGE_ITEMS = 500
"""How many objects one answer to a list may hold, as kubectl asks."""
MERGE_PATCH = "application/merge-patch+json"


@dataclass
class KubeClient:
    """One API server as one user."""

    api: Any
    """The official `ApiClient`: connection pool and credentials, refreshed as they expire."""
    server: str
    timeout_seconds: tuple[float, float] = field(default=(CONNECT_SECONDS, READ_SECONDS))

    @classmethod
    def connect(cls, kubeconfig: Path | None = None, context: str | None = None) -> "KubeClient":
        """The API server that a kubeconfig names, else the one this pod runs in, else the default kubeconfig's.

        Nothing is sent yet. Raises ClusterUnavailable where none of them is there or usable.
        """
        from kubernetes import config as official_config
        from kubernetes.client.api_client import ApiClient
        from kubernetes.client.configuration import Configuration

        config: Any = official_config  # its functions have no types
        settings = Configuration()
        if kubeconfig is not None and not kubeconfig.exists():
            raise ClusterUnavailable(f"there is no kubeconfig {kubeconfig}; name another with --kubeconfig")
        try:
            if kubeconfig is None and context is None:
                try:
                    config.load_incluster_config(client_configuration=settings)
                except config.ConfigException:
                    config.load_kube_config(client_configuration=settings)
            else:
                file = str(kubeconfig) if kubeconfig else None
                config.load_kube_config(config_file=file, context=context, client_configuration=settings)
        except (config.ConfigException, OSError, ValueError, KeyError, TypeError) as error:
            where = kubeconfig or "the default kubeconfig or a pod's service account"
            raise ClusterUnavailable(
                f"no cluster from {where}: {error}; name a kubeconfig with --kubeconfig and --context. "
                "`foresize forecast` and `foresize simulate` need no cluster"
            ) from error
        settings.retries = False  # a silent server would take every time-out several times
        return cls(ApiClient(settings), str(settings.host))

    def get(self, path: str, **params: str | int) -> JsonObject:
        """The object at the path."""
        return self._request("GET", path, params)

    def list_all(self, path: str, **params: str | int) -> list[JsonObject]:
        """Every item of the collection, page by page."""
        items: list[JsonObject] = []
        following = ""
        while True:
            page = {**params, "limit": PAGE_ITEMS} | ({"continue": following} if following else {})
            answer = self._request("GET", path, page)
            items.extend(answer.get("items") or ())
            following = str((answer.get("metadata") or {}).get("continue") or "")
            if not following:
                return items

    def patch(self, path: str, changes: JsonObject, **params: str | int) -> JsonObject:
        """The object after a merge patch. Raises CommandConflict where a precondition in it does not hold."""
        return self._request("PATCH", path, params, changes)

    def close(self) -> None:
        """Closes the connections."""
        self.api.rest_client.close()

    def _request(
        self, method: str, path: str, params: Mapping[str, str | int], body: JsonObject | None = None
    ) -> JsonObject:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError, ProtocolError

        headers = {"Accept": "application/json"} | ({} if body is None else {"Content-Type": MERGE_PATCH})
        resource = path + (f"?{urlencode(params)}" if params else "")
        try:
            prepared = self.api.param_serialize(
                method, resource, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            try:
                answer, content = self._sent(prepared)
            except ProtocolError:
                if method != "GET":
                    raise
                # The kept-alive connection may have died with a restarted server.
                answer, content = self._sent(prepared)
        except (ApiException, HTTPError, OSError) as error:
            raise ClusterUnavailable(
                f"the API server {self.server} did not answer {method} {path}: {_short(error)}"
            ) from error
        if answer.status >= 400:
            raise self._refusal(method, path, int(answer.status), content)
        try:
            decoded = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise ClusterUnavailable(
                f"{self.server} answered {method} {path} with something that is not JSON: {content[:80]!r}; "
                "is it a Kubernetes API server?"
            ) from error
        if not isinstance(decoded, dict):
            raise ClusterUnavailable(f"{self.server} answered {method} {path} with {type(decoded).__name__}")
        return decoded

    def _sent(self, prepared: Any) -> tuple[Any, bytes]:
        answer = self.api.call_api(*prepared, _request_timeout=self.timeout_seconds)
        return answer, answer.read()

    def _refusal(self, method: str, path: str, status: int, content: bytes) -> Exception:
        message = _message(content)
        what = f"{method} {path}"
        match status:
            case 401:
                return ClusterRefused(f"{self.server} does not know this user (401, {what}): renew the credentials")
            case 403:
                return ClusterRefused(f"{self.server} forbids {what} (403): {message}; {missing_rule(method, path)}")
            case 404:
                return ObjectGone(f"{what}: not found (404): {message}")
            case 409:
                return CommandConflict(f"{what}: {message or 'the object has changed (409)'}")
            case 410 | 429 | 500 | 502 | 503 | 504:
                return ClusterUnavailable(f"{self.server} could not answer {what} ({status}): {message}")
            case _:
                return ClusterRefused(f"{self.server} refused {what} ({status}): {message}")


def missing_rule(method: str, path: str) -> str:
    """The RBAC rule that would allow the request, as YAML on one line."""
    parts = path.strip("/").split("/")
    group = parts[1] if parts[0] == "apis" else ""
    rest = parts[3:] if parts[0] == "apis" else parts[2:]
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    resource = rest[0] + (f"/{rest[2]}" if len(rest) > 2 else "")
    verb = "patch" if method == "PATCH" else ("get" if len(rest) > 1 else "list")
    where = f" in namespace {namespace}" if namespace else " in the cluster"
    return f'add to the role{where}: {{apiGroups: ["{group}"], resources: ["{resource}"], verbs: ["{verb}"]}}'


def _message(content: bytes) -> str:
    try:
        decoded = orjson.loads(content)
    except orjson.JSONDecodeError:
        return content[:200].decode(errors="replace").strip()
    return str(decoded.get("message", "")) if isinstance(decoded, dict) else ""


def _short(error: Exception) -> str:
    """The innermost reason: urllib3 wraps a refused connection three times."""
    reason = getattr(error, "reason", None)
    while isinstance(reason, Exception):
        error, reason = reason, getattr(reason, "reason", None)
    text = str(error).strip() or type(error).__name__
    return text.rsplit(": ", 1)[-1] if "Failed to establish" in text else text
