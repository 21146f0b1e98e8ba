"""Who may read what the HTTP services tell: TLS, and a token for everything but health and readiness."""

import hmac
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from predictor.errors import ProtectionFailed
from predictor.settings import checked_token

if TYPE_CHECKING:
    import uvicorn

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Told to anybody: a kubelet has no token, and they say no more than whether the process works."""
LOOK_SECONDS = 10.0
"""How often the files are looked at for a newer token or certificate."""


@dataclass
class Protection:
    """What the settings ask for; nothing by default."""

    token_file: Path | None = None
    """File with the token that a request must carry as `Authorization: Bearer`."""
    cert_file: Path | None = None
    key_file: Path | None = None

    def __post_init__(self) -> None:
        self._looked_at_seconds = 0.0
        self._context: ssl.SSLContext | None = None
        self._token = b""
        if (self.cert_file is None) != (self.key_file is None):
            raise ProtectionFailed("serving.tls_cert_file and serving.tls_key_file belong together: give both or none")
        if self.cert_file is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._look()

    def config(self, app: ASGIApp, *, grace_seconds: int) -> "uvicorn.Config":
        """How uvicorn serves the guarded application."""
        import uvicorn

        context = self._context
        return uvicorn.Config(
            self.guarded(app),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=grace_seconds,
            ssl_context_factory=None if context is None else lambda *_: context,
        )

    @property
    def scheme(self) -> str:
        """How the service is addressed."""
        return "http" if self._context is None else "https"

    def guarded(self, app: ASGIApp) -> ASGIApp:
        """The application for those who carry the token."""

        async def guard(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                self.refresh()
                if self.token_file is not None and scope["path"] not in OPEN_PATHS and not self._is_known(scope):
                    text = "this needs the header Authorization: Bearer TOKEN with the token in serving.token_file\n"
                    refusal = PlainTextResponse(text, 401, headers={"WWW-Authenticate": "Bearer"})
                    await refusal(scope, receive, send)
                    return
            await app(scope, receive, send)

        return guard

    def refresh(self) -> None:
        """Takes up a newer token or certificate; one that cannot be read leaves the one before in force."""
        if time.monotonic() - self._looked_at_seconds < LOOK_SECONDS:
            return
        try:
            self._look()
        except ProtectionFailed:
            self._looked_at_seconds = time.monotonic()

    def _look(self) -> None:
        if self.token_file is not None:
            try:
                # As bytes one by one, so that what is not ASCII is told as any other wrong character.
                token = checked_token(self._content(self.token_file, "serving.token_file").decode("latin-1"))
            except ValueError as flaw:
                raise ProtectionFailed(f"serving.token_file: {self.token_file} {flaw}") from None
            self._token = token.encode()
        if self._context is not None and self.cert_file is not None and self.key_file is not None:
            try:
                self._context.load_cert_chain(self.cert_file, self.key_file)
            except (OSError, ssl.SSLError) as error:
                raise ProtectionFailed(
                    f"serving.tls_cert_file {self.cert_file} and tls_key_file {self.key_file}: {error}"
                ) from error
        self._looked_at_seconds = time.monotonic()

    def _content(self, file: Path, setting: str) -> bytes:
        try:
            return file.read_bytes()
        except OSError as error:
            raise ProtectionFailed(f"{setting}: {file}: {error.strerror or error}") from error

    def _is_known(self, scope: Scope) -> bool:
        kind, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._token)
