"""Raw JSON over the official client's connection: its ways to authenticate, none of its typed models.

Typed lists cost ten times the time and four times the memory of the same JSON. Every request has a timeout, and
every failure leaves here as one of the errors in autoscaler/errors.py. The client is imported inside the functions:
half a second that `--help` must not pay.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlencode

import orjson

from autoscaler.errors import (
    AutoscalerError,
    ClusterRefused,
    ClusterUnavailable,
    CommandConflict,
    HistoryExpired,
    ObjectGone,
)

JsonObject = dict[str, Any]
Sent = TypeVar("Sent")

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
PAGE_ITEMS = 500
"""How many objects one answer to a list may hold, as kubectl asks."""
WATCH_CHUNK_BYTES = 65_536
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
VERBS: Mapping[str, str] = {
    "WATCH": "watch",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
"""What a role calls a request; GET is `get` or `list`."""


@dataclass
class KubeClient:
    """One API server as one user."""

    api: Any
    """The official `ApiClient`: connection pool and credentials, refreshed as they expire."""
    server: str
    timeout_seconds: tuple[float, float] | float = field(default=(CONNECT_SECONDS, READ_SECONDS))
    """To connect and to read; one number is for both together."""
    told: Callable[[str, int], None] = lambda _method, _status: None
    """Told of every answer: the method (`WATCH` for a watch) and the status."""

    @classmethod
    def connect(cls, kubeconfig: Path | None = None, context: str | None = None) -> "KubeClient":
        """The API server that a kubeconfig names, else the one this pod runs in, else the default kubeconfig's.

        Nothing is sent yet. Raises ClusterUnavailable where none of them is there or usable.
        """
        import yaml
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
        except yaml.MarkedYAMLError as error:
            # Without the text of the line, which may be a token.
            mark = error.problem_mark or error.context_mark
            line = f" line {mark.line + 1}" if mark else ""
            where = kubeconfig or "the default kubeconfig"
            raise ClusterUnavailable(f"{where}{line}: is not YAML: {error.problem}; mend it, or name another") from None
        except (config.ConfigException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            where = kubeconfig or "the default kubeconfig or a pod's service account"
            raise ClusterUnavailable(
                f"no cluster from {where}: {error}; name a kubeconfig with --kubeconfig and --context. "
                "`foresize forecast` and `foresize simulate` need no cluster"
            ) from error
        settings.retries = False  # a silent server would take every time-out several times
        return cls(ApiClient(settings), str(settings.host))

    def with_timeout(self, seconds: float) -> "KubeClient":
        """The same connections, for requests that may take so long in all."""
        return replace(self, timeout_seconds=seconds)

    def get(self, path: str, **params: str | int) -> JsonObject:
        """The object at the path."""
        return self._request("GET", path, params)

    def pages(self, path: str, **params: str | int) -> Iterator[JsonObject]:
        """The answers to a list, one after the other, all as of one resource version: never the whole in memory.

        Raises HistoryExpired where the server forgot that version between two of them.
        """
        following = ""
        while True:
            page = {**params, "limit": PAGE_ITEMS} | ({"continue": following} if following else {})
            answer = self._request("GET", path, page)
            following = str((answer.get("metadata") or {}).get("continue") or "")
            yield answer
            if not following:
                return

    def watch(self, path: str, read_timeout_seconds: float, **params: str | int) -> "WatchStream":
        """An open watch on the collection, for the caller to close. Raises HistoryExpired besides the usual errors."""
        with self._failures_named("WATCH", path):
            prepared = self._prepared("GET", path, {**params, "watch": "true"})
            timeout = (self._connect_seconds, read_timeout_seconds)
            answer = self._with_a_live_connection(lambda: self.api.call_api(*prepared, _request_timeout=timeout))
            content = answer.read() if answer.status >= 400 else b""
        self.told("WATCH", int(answer.status))
        if answer.status >= 400:
            raise self.refusal("WATCH", path, int(answer.status), _message(content))
        return WatchStream(self, path, answer.response)

    def create(self, path: str, manifest: JsonObject, **params: str | int) -> JsonObject:
        """The new object in the collection. Raises CommandConflict where there is one of that name."""
        return self._request("POST", path, params, manifest, JSON)

    def patch(self, path: str, changes: JsonObject, **params: str | int) -> JsonObject:
        """The object after a merge patch. Raises CommandConflict where a precondition in it does not hold."""
        return self._request("PATCH", path, params, changes, MERGE_PATCH)

    def strategic_patch(self, path: str, changes: JsonObject, **params: str | int) -> JsonObject:
        """The same, where lists such as a pod's containers are merged by name; only kinds of Kubernetes itself can."""
        return self._request("PATCH", path, params, changes, STRATEGIC_PATCH)

    def json_patch(self, path: str, operations: Sequence[JsonObject], **params: str | int) -> JsonObject:
        """The object after the operations of a JSON patch. Raises ClusterRefused where a `test` in it fails."""
        return self._request("PATCH", path, params, list(operations), JSON_PATCH)

    def close(self) -> None:
        """Closes the connections."""
        self.api.rest_client.close()

    @property
    def _connect_seconds(self) -> float:
        return self.timeout_seconds if isinstance(self.timeout_seconds, float) else self.timeout_seconds[0]

    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int],
        body: JsonObject | list[JsonObject] | None = None,
        content_type: str = "",
    ) -> JsonObject:
        with self._failures_named(method, path):
            prepared = self._prepared(method, path, params, body, content_type)
            if method == "GET":
                answer, content = self._with_a_live_connection(lambda: self._sent(prepared))
            else:
                answer, content = self._sent(prepared)
        self.told(method, int(answer.status))
        if answer.status >= 400:
            raise self.refusal(method, path, int(answer.status), _message(content))
        return self.decoded(method, path, content)

    @contextlib.contextmanager
    def _failures_named(self, method: str, path: str) -> Iterator[None]:
        """What the network and the official client raise, as ours."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except (ApiException, HTTPError, OSError) as error:
            raise self.no_answer(method, path, error) from error
        except ValueError:
            # Of the request itself, as a token with a line break: what it says holds the token.
            raise ClusterUnavailable(
                f"{method} {path} could not be sent to {self.server}: the token of the kubeconfig or service account "
                "holds characters that no header may hold; renew it"
            ) from None

    def _prepared(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int],
        body: JsonObject | list[JsonObject] | None = None,
        content_type: str = "",
    ) -> Any:
        headers = {"Accept": JSON} | ({} if body is None else {"Content-Type": content_type})
        resource = path + (f"?{urlencode(params)}" if params else "")
        return self.api.param_serialize(
            method, resource, header_params=headers, body=body, auth_settings=["BearerToken"]
        )

    def _sent(self, prepared: Any) -> tuple[Any, bytes]:
        answer = self.api.call_api(*prepared, _request_timeout=self.timeout_seconds)
        return answer, answer.read()

    def _with_a_live_connection(self, send: Callable[[], Sent]) -> Sent:
        """What `send` returns: tried again once, as the kept-alive connection may have died with a restarted server."""
        from urllib3.exceptions import ProtocolError

        try:
            return send()
        except ProtocolError:
            return send()

    def decoded(self, method: str, path: str, content: bytes) -> JsonObject:
        """The JSON object in the answer's content. Raises ClusterUnavailable where it is none."""
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

    def no_answer(self, method: str, path: str, error: Exception) -> ClusterUnavailable:
        """The error for a request that the network did not carry to its end."""
        return ClusterUnavailable(f"the API server {self.server} did not answer {method} {path}: {_short(error)}")

    def refusal(self, method: str, path: str, status: int, message: str) -> AutoscalerError:
        """The error for an answer with that status."""
        what = f"{method} {path}"
        match status:
            case 401:
                return ClusterRefused(f"{self.server} does not know this user (401, {what}): renew the credentials")
            case 403:
                advice = f"{our_role(path)}{missing_rule(method, path)}"
                return ClusterRefused(f"{self.server} forbids {what} (403): {message}; {advice}")
            case 404:
                return ObjectGone(f"{what}: not found (404): {message}")
            case 409:
                return CommandConflict(f"{what}: {message or 'the object has changed (409)'}")
            case 429 if path.endswith("/eviction"):
                return CommandConflict(f"a disruption budget does not allow it now: {message}")
            case 500 if path.endswith("/eviction") and "PodDisruptionBudget" in message:
                return CommandConflict(f"its disruption budgets do not allow it: {message}")
            case 410:
                return HistoryExpired(f"{self.server} could not answer {what} (410): {message}")
            case 422 if "metadata.uid" in message and "immutable" in message:
                # What some kinds answer to a precondition that others call a conflict.
                return CommandConflict(f"{what}: deleted and made anew: {message}")
            case 429 | 500 | 502 | 503 | 504:
                return ClusterUnavailable(f"{self.server} could not answer {what} ({status}): {message}")
            case _:
                return ClusterRefused(f"{self.server} refused {what} ({status}): {message}")


class WatchStream:
    """The events of one watch, as they come. One thread reads; any thread may close, which ends the reading."""

    def __init__(self, client: KubeClient, path: str, response: Any) -> None:
        self._client, self._path, self._response = client, path, response
        self._is_closing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closing = True
        self._response.close()

    def __iter__(self) -> Iterator[JsonObject]:
        """Each event, `{"type": …, "object": …}`, until the server ends the watch or somebody closes it.

        An ERROR event is raised as what its status means, and what is no event as ClusterUnavailable.
        """
        from urllib3.exceptions import HTTPError

        begun = b""
        try:
            for chunk in self._response.stream(WATCH_CHUNK_BYTES):
                *lines, begun = (begun + chunk).split(b"\n")
                for line in lines:
                    yield self._event(line)
            if begun:
                yield self._event(begun)
        except AutoscalerError:
            raise
        except (HTTPError, OSError) as error:
            if not self._is_closing:
                raise self._client.no_answer("WATCH", self._path, error) from error
        except (ValueError, AttributeError):
            # A TLS socket that is shut down between two of the reader's steps.
            if not self._is_closing:
                raise

    def close(self) -> None:
        """Ends the reading, at once, from another thread; whoever reads closes the connection."""
        self._is_closing = True
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # it has ended by itself
            self._response.shutdown()

    def _event(self, line: bytes) -> JsonObject:
        event = self._client.decoded("WATCH", self._path, line)
        item = event.get("object")
        if event.get("type") == "ERROR" and isinstance(item, dict):
            status, message = int(item.get("code") or 500), str(item.get("message", ""))
            raise self._client.refusal("WATCH", self._path, status, message)
        version = (item.get("metadata") or {}).get("resourceVersion") if isinstance(item, dict) else None
        if "type" not in event or not version:
            raise ClusterUnavailable(
                f"{self._client.server} answered WATCH {self._path} with what is no event: {line[:80]!r}"
            )
        return event


def our_role(path: str) -> str:
    """Which of the roles in deploy/ allows what the path is written for, and how it is bound; empty where none does."""
    part = path.rstrip("/").rpartition("/")[2]
    if part == "resize":
        return "bind foresize-resize (kubectl apply -f deploy/binding-inplace.yaml), or "
    if part == "scale" or "/horizontalpodautoscalers/" in path:
        return "bind foresize-scale (kubectl apply -f deploy/binding-auto.yaml), or "
    if part == "eviction" or (part == "status" and path.startswith("/api/v1/nodes/")):
        return "bind foresize-nodes (kubectl apply -f deploy/binding-nodes.yaml), or "
    if path.startswith("/api/v1/nodes/"):
        return "bind foresize-gpus (kubectl apply -f deploy/binding-gpus.yaml), or "
    if "/secrets/" in path or "/mutatingwebhookconfigurations/" in path:
        return "bind foresize-webhook (kubectl apply -k deploy/webhook), or "
    if part in ("status", "events"):
        return "bind foresize-tell (deploy/rbac.yaml), or "
    return "bind foresize-lease (deploy/rbac.yaml), or " if "/leases" in path else ""


def missing_rule(method: str, path: str) -> str:
    """The RBAC rule that would allow the request, as YAML on one line."""
    parts = path.strip("/").split("/")
    group = parts[1] if parts[0] == "apis" else ""
    rest = parts[3:] if parts[0] == "apis" else parts[2:]
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    resource = rest[0] + (f"/{rest[2]}" if len(rest) > 2 else "")
    verb = VERBS.get(method) or ("get" if len(rest) > 1 else "list")
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
