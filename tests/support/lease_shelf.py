"""One Lease on a real HTTP server that can be made to hang, to refuse and to forget: for the election's tests."""

import threading
from dataclasses import dataclass, field

import orjson

from tests.support.http_answers import Answer, Asked
from tests.support.kube_api import JsonObject


@dataclass
class LeaseShelf:
    """Answers as an API server does for one Lease: conditional writes, a new version for each."""

    lease: JsonObject | None = None
    hang_seconds: float = 0.0
    """How long every answer takes to come, after what it asks for was done."""
    is_refusing: bool = False
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._version = 0

    def put(self, **spec: object) -> None:
        """What somebody else writes."""
        with self._lock:
            self._write(dict(spec))

    def delete(self) -> None:
        """As an operator does who wants a new election."""
        with self._lock:
            self.lease = None

    @property
    def holder(self) -> str:
        """Who holds it, as the server has it."""
        with self._lock:
            return str(self.lease["spec"]["holderIdentity"]) if self.lease else ""

    def __call__(self, asked: Asked, number: int) -> Answer:
        with self._lock:
            self.requests.append(asked.method)
            status, answer = self._answer(asked)
            return Answer(status, orjson.dumps(answer), delay_seconds=self.hang_seconds)

    def _answer(self, asked: Asked) -> tuple[int, JsonObject]:
        if self.is_refusing:
            return 503, {"message": "etcd is gone"}
        sent = orjson.loads(asked.body) if asked.body else {}
        match asked.method:
            case "POST" if self.lease is not None:
                return 409, {"message": "already exists"}
            case "POST":
                return 201, self._write(sent["spec"])
            case _ if self.lease is None:
                return 404, {"message": "leases not found"}
            case "PATCH" if sent["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
                return 409, {"message": "the object has been modified"}
            case "PATCH":
                return 200, self._write(self.lease["spec"] | sent["spec"])
            case _:
                return 200, self.lease

    def _write(self, spec: JsonObject) -> JsonObject:
        self._version += 1
        self.lease = {"metadata": {"name": "foresize", "resourceVersion": str(self._version)}, "spec": spec}
        return self.lease
