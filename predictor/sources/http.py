"""The wire to Prometheus: form-POST range queries, a deadline, retries where they help, no silent partial answer.

`prometheus-api-client` is not used here: it sends POST in the URL, does not retry it and drops warnings
(docs/decisions/0003-prometheus-client.md).
"""

import hashlib
import random
import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx2
import orjson

from predictor.errors import MalformedAnswer, PredictorError, SourceRefused, SourceUnavailable
from predictor.settings import checked_header
from predictor.sources.matrix import Matrix, joined_in_rows, joined_in_time, matrix_from_json

MAX_POINTS_PER_SERIES = 11_000
"""Prometheus refuses a range query that asks for more."""
BACKOFF_SECONDS = 0.25
LONGEST_BACKOFF_SECONDS = 8.0
SERIES = b'{"metric":'
"""What each series of an answer begins with. It is found nowhere else: within a text its quotes would be escaped."""
PIECE_BYTES = 1_000_000
"""So much of an answer is decoded at once: as Python objects it takes several times the memory of its text."""
PARTIAL = re.compile(
    r"partial|truncated|rpc error|storeapi|no store|remote.?read|sending request|unavailable|deadline|timed? ?out",
    re.IGNORECASE,
)
"""How Thanos, Mimir and Prometheus's remote read say that a part of the data is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusEndpoint:
    """Where a Prometheus-compatible API is and how to be let in. Its repr shows no secret."""

    url: str = field(repr=False)
    """Base URL; a path prefix (Mimir, a reverse proxy) is kept. `user:password@` in it is taken as basic auth."""
    timeout_seconds: float = 60.0
    """Longest one answer may take, its body included."""
    deadline_seconds: float = 900.0
    """Longest a whole fetch may take, retries included."""
    bearer_token: str | None = field(default=None, repr=False)
    basic_auth: tuple[str, str] | None = field(default=None, repr=False)
    """User and password."""
    ca_file: Path | None = None
    """PEM file of the authority that signed the server's certificate."""
    verify: bool = True
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every request, for example `X-Scope-OrgID` for a Mimir tenant."""
    max_parallel: int = 4
    """Requests under way at once."""
    retries: int = 3
    """Attempts after the first, for connection errors and answers 429 and 5xx only."""
    cache_name: str | None = None
    """What the cache calls this endpoint, where its URL changes but its data do not; otherwise the URL."""

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            valid = False
        if not valid:
            raise SourceRefused("the Prometheus URL must look like http://host:9090 or https://host/prefix")
        if self.bearer_token is not None and self._login is not None:
            raise SourceRefused("give Prometheus a bearer token or basic auth, not both")
        if self.timeout_seconds <= 0 or self.deadline_seconds <= 0 or self.max_parallel < 1 or self.retries < 0:
            raise SourceRefused("Prometheus timeouts and max_parallel must be positive, retries at least 0")
        try:
            for name, value in self.request_headers().items():
                checked_header(name, value)
        except ValueError as flaw:
            raise SourceRefused(f"a header for Prometheus cannot be sent: {flaw}") from None

    @property
    def shown_url(self) -> str:
        """The URL without user, password and query: fit for messages."""
        parts = urlsplit(self.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        netloc = f"{host}:{parts.port}" if parts.port else f"{host}"
        return urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))

    @property
    def fingerprint(self) -> str:
        """Names this endpoint in the cache: tenants and users do not share answers."""
        user = self._login[0] if self._login else ""
        named = [self.cache_name or self.shown_url, user, *(f"{k}={v}" for k, v in sorted(self.headers.items()))]
        return hashlib.sha256("\n".join(named).encode()).hexdigest()[:16]

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine, where no proxy belongs in between."""
        return urlsplit(self.url).hostname in ("127.0.0.1", "::1", "localhost")

    @property
    def _login(self) -> tuple[str, str] | None:
        parts = urlsplit(self.url)
        if self.basic_auth is None and parts.username is not None:
            return (parts.username, parts.password or "")
        return self.basic_auth

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User and password, from wherever they were given."""
        return self._login

    def request_headers(self) -> dict[str, str]:
        """Every header to send, the bearer token among them."""
        bearer = {} if self.bearer_token is None else {"Authorization": f"Bearer {self.bearer_token}"}
        return {**self.headers, **bearer}

    def without_secrets(self, text: str) -> str:
        """The text with every secret of this endpoint blotted out, whoever put it there."""
        secrets = [self.bearer_token, self._login[1] if self._login else None, *self.headers.values()]
        for secret in secrets:
            if secret:
                text = text.replace(secret, "***")
        return text


class _Failed(Exception):
    """One attempt failed in a way that another may mend."""

    def __init__(self, error: PredictorError, wait_seconds: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait_seconds = wait_seconds


class TooManySamples(SourceRefused):
    """The server will not load so much at once: ask for less time in one query."""


class PrometheusClient:
    """Range queries to one endpoint. Safe to use from several threads."""

    def __init__(self, endpoint: PrometheusEndpoint) -> None:
        self.endpoint = endpoint
        self._where = f"Prometheus at {endpoint.shown_url}"
        login = endpoint.credentials
        self._client = httpx2.Client(
            headers=endpoint.request_headers(),
            auth=httpx2.BasicAuth(*login) if login else None,
            verify=_ssl_context(endpoint),
            timeout=endpoint.timeout_seconds,
            limits=httpx2.Limits(max_connections=endpoint.max_parallel),
            trust_env=not endpoint.is_loopback,
            follow_redirects=False,
        )
        self.stopped = threading.Event()
        """Set to make everything under way give up."""

    def close(self) -> None:
        """Give up what is under way and close the connections."""
        self.stopped.set()
        self._client.close()

    def range(
        self, query: str, *, start_seconds: int, points: int, step_seconds: int, deadline: float = float("inf")
    ) -> Matrix:
        """The query evaluated at start, start+step, …: `points` times. NaN where it has no value.

        Split into several requests where the server's caps ask for it. `deadline` is on the monotonic clock.
        """
        parts = -(-points // MAX_POINTS_PER_SERIES)
        if parts > 1:
            size = -(-points // parts)
            cuts = [(first, min(size, points - first)) for first in range(0, points, size)]
            return joined_in_time(
                [
                    self.range(
                        query,
                        start_seconds=start_seconds + first * step_seconds,
                        points=count,
                        step_seconds=step_seconds,
                        deadline=deadline,
                    )
                    for first, count in cuts
                ]
            )
        form = {
            "query": query,
            "start": str(start_seconds),
            "end": str(start_seconds + (points - 1) * step_seconds),
            "step": str(step_seconds),
            "timeout": f"{max(1, round(self.endpoint.timeout_seconds))}s",
            # Thanos and VictoriaMetrics: fail rather than leave a part out. Prometheus ignores both.
            "partial_response": "false",
            "deny_partial_response": "1",
        }
        try:
            body = self._post("/api/v1/query_range", form, query, deadline)
        except TooManySamples:
            if points == 1:
                raise
            half = points // 2
            return joined_in_time(
                [
                    self.range(
                        query,
                        start_seconds=start_seconds + first * step_seconds,
                        points=count,
                        step_seconds=step_seconds,
                        deadline=deadline,
                    )
                    for first, count in ((0, half), (half, points - half))
                ]
            )
        pieces, rest = _cut(body, PIECE_BYTES)
        answer = self._answer(rest)
        partial = [w for w in _texts(answer, "warnings") if PARTIAL.search(w)]
        if answer.get("isPartial") is True or partial:
            said = f": {self.endpoint.without_secrets('; '.join(partial))}" if partial else ""
            raise MalformedAnswer(f"{self._where} answered with only a part of the data{said}")
        try:
            data = answer["data"]
            several = (orjson.loads(b"[" + body[begin:end].rstrip(b", \r\n\t") + b"]") for begin, end in pieces)
            read = [
                matrix_from_json(each, start_seconds=start_seconds, points=points, step_seconds=step_seconds)
                for each in chain(({**data, "result": series} for series in several), (data,))
            ]
            return joined_in_rows(
                read,
                warnings=tuple(self.endpoint.without_secrets(w) for w in _texts(answer, "warnings")),
                infos=tuple(self.endpoint.without_secrets(i) for i in _texts(answer, "infos")),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise MalformedAnswer(f"{self._where} sent a range answer of an unknown shape: {error!r}") from error

    def _post(self, path: str, form: Mapping[str, str], query: str, deadline: float) -> bytes:
        attempt = 0
        while True:
            try:
                return self._attempt(path, form, query, deadline)
            except _Failed as failure:
                wait = failure.wait_seconds
                if wait is None:
                    # Full jitter, so that many clients do not come back together. Not a secret: any dice will do.
                    wait = BACKOFF_SECONDS * 2**attempt * (0.5 + random.random())  # noqa: S311
                wait = min(wait, LONGEST_BACKOFF_SECONDS)
                attempt += 1
                if attempt > self.endpoint.retries or time.monotonic() + wait > deadline or self.stopped.wait(wait):
                    raise failure.error from failure.__cause__

    def _attempt(self, path: str, form: Mapping[str, str], query: str, deadline: float) -> bytes:
        url = self.endpoint.shown_url + path
        timeout = self.endpoint.timeout_seconds
        until = time.monotonic() + timeout
        if deadline < until:
            until, timeout = deadline, max(deadline - time.monotonic(), 0.001)
        try:
            with self._client.stream("POST", url, data=dict(form), timeout=timeout) as response:
                body = b"".join(self._chunks(response, until))
                self._check_status(response, body, query)
                return body
        except httpx2.TimeoutException as error:
            raise SourceUnavailable(
                f"{self._where} did not answer within {timeout:.3g} s; is it overloaded, or the timeout too short?"
            ) from error
        except httpx2.LocalProtocolError:
            # Its words, and with them any stack trace, would hold the header that it is about.
            raise SourceRefused(
                f"{self._where} was not asked: the request breaks the rules of HTTP; check the token and the headers"
            ) from None
        except (httpx2.TransportError, OSError) as error:
            reason = self.endpoint.without_secrets(str(error)) or type(error).__name__
            raise _Failed(
                SourceUnavailable(f"{self._where} cannot be reached: {reason}; check the URL, the network and TLS")
            ) from error

    def _chunks(self, response: httpx2.Response, until: float) -> Iterator[bytes]:
        try:
            for chunk in response.iter_bytes():
                # The client's own timeout starts anew with each piece: a trickle would never end.
                if time.monotonic() > until or self.stopped.is_set():
                    raise httpx2.ReadTimeout("answer not complete in time")
                yield chunk
        except httpx2.TimeoutException:
            raise
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise MalformedAnswer(f"{self._where} broke off in the middle of its answer: {error}") from error

    def _check_status(self, response: httpx2.Response, body: bytes, query: str) -> None:
        status = response.status_code
        if status == 200:
            return
        said = self._said(body)
        if status == 429 or status >= 500:
            error = SourceUnavailable(f"{self._where} answered {status}{said}")
            raise _Failed(error, _retry_after(response))
        if 300 <= status < 400:
            raise SourceRefused(
                f"{self._where} redirects elsewhere ({status}); set the final URL, or log in to its proxy"
            )
        if status in (401, 403):
            raise SourceRefused(
                f"{self._where} does not let us in ({status}{said}); check the token, user or tenant header"
            )
        if status == 404:
            raise SourceRefused(f"{self._where} has no query API there (404{said}); check the URL and its path prefix")
        kind = TooManySamples if "too many samples" in said else SourceRefused
        raise kind(f"{self._where} refused the query ({status}{said}). Query: {query}")

    def _said(self, body: bytes) -> str:
        """The server's own words, as far as they are words."""
        try:
            answer = orjson.loads(body)
            text = str(answer["error"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            text = "" if body.lstrip()[:1] == b"<" else body[:200].decode(errors="replace").strip()
        return f": {self.endpoint.without_secrets(text)}" if text else ""

    def _answer(self, body: bytes) -> dict[str, Any]:
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            what = "HTML" if body.lstrip()[:1] == b"<" else f"{len(body)} bytes that are not complete JSON"
            raise MalformedAnswer(
                f"{self._where} answered with {what}; is the URL that of the API, or of a login page or proxy?"
            ) from error
        if not isinstance(answer, dict) or answer.get("status") != "success":
            said = self.endpoint.without_secrets(str(answer.get("error", ""))) if isinstance(answer, dict) else ""
            raise MalformedAnswer(f"{self._where} did not say 'success'{': ' + said if said else ''}")
        return answer


def _cut(body: bytes, piece_bytes: int) -> tuple[list[tuple[int, int]], bytes]:
    """Where some megabytes of whole series stand in an answer, one after the other; and the answer without them."""
    first = begin = body.find(SERIES)
    pieces = []
    while begin >= 0 and (end := body.find(SERIES, begin + piece_bytes)) > 0:
        pieces.append((begin, end))
        begin = end
    return pieces, body[:first] + body[begin:] if pieces else body


def _texts(answer: Mapping[str, Any], name: str) -> list[str]:
    return [str(text) for text in answer.get(name) or ()]


def _retry_after(response: httpx2.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def _ssl_context(endpoint: PrometheusEndpoint) -> ssl.SSLContext | bool:
    if not endpoint.verify:
        return False
    if endpoint.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=endpoint.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SourceRefused(f"the CA file {endpoint.ca_file} cannot be read as PEM: {error}") from error
