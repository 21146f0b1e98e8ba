"""Answers the API server about pods that are created, over TLS with a certificate that is renewed while it runs."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from autoscaler.errors import AutoscalerError

if TYPE_CHECKING:
    import uvicorn
    from starlette.requests import Request
    from starlette.types import ASGIApp

RULES = ("amplify", "reclaim")
"""Paths that the API server calls."""


def build_webhook_app(
    answer: Callable[[str, Mapping[str, Any]], Mapping[str, Any]],
    unready_because: Callable[[], str],
    registry: CollectorRegistry,
) -> Starlette:
    """The application; `answer` gets the rule and the AdmissionReview, and raises AutoscalerError for what is none."""

    async def review(rule: str, request: Request) -> Response:
        try:
            asked = orjson.loads(await request.body())
            if not isinstance(asked, dict):
                raise ValueError("it is no object")
        except ValueError as error:
            return PlainTextResponse(f"this answers AdmissionReviews in JSON: {error}\n", 400)
        try:
            # It only reads what is in memory, but under a lock that a watch may hold.
            answered = await run_in_threadpool(answer, rule, asked)
        except AutoscalerError as error:
            return PlainTextResponse(f"{error}\n", 400)
        return Response(orjson.dumps(answered), media_type="application/json")

    def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    def readyz(_: Request) -> Response:
        problem = unready_because()
        return PlainTextResponse(f"{problem}\n", 503) if problem else PlainTextResponse("ok\n")

    def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            *(Route(f"/{rule}", partial(review, rule), methods=["POST"]) for rule in RULES),
        ]
    )


class ServedCertificate:
    """TLS with a certificate that can be replaced; connections that are open keep the one they began with."""

    def __init__(self) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._served = b""

    @property
    def scheme(self) -> str:
        """How the service is addressed."""
        return "https"

    def serve(self, certificate: bytes, key: bytes) -> None:
        """From now on this certificate, in PEM."""
        if certificate == self._served:
            return
        # OpenSSL takes them from files only; nobody else may read this one, and it is gone at once.
        with tempfile.TemporaryDirectory(prefix="foresize-webhook-") as folder:
            file = Path(folder) / "certificate-and-key.pem"
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as written:
                written.write(certificate + key)
            self._context.load_cert_chain(file)
        self._served = certificate

    def config(self, app: ASGIApp, *, grace_seconds: int) -> uvicorn.Config:
        """How uvicorn serves the application."""
        import uvicorn

        return uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=grace_seconds,
            ssl_context_factory=lambda *_: self._context,
        )
