"""Serves an application in a thread beside the loop."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from autoscaler.errors import AutoscalerError
from predictor.api.protection import Protection

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.types import ASGIApp

START_SECONDS = 10.0


class AddressInUse(AutoscalerError):
    """The address to listen on is taken or not ours: choose another port, or 0 for a free one."""


class Guard(Protocol):
    """How an application is served: over TLS or not, and to whom."""

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        ...

    def config(self, app: ASGIApp, *, grace_seconds: int) -> uvicorn.Config:
        """How uvicorn serves it."""
        ...


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server in its thread, until `stop`."""

    address: str
    server: uvicorn.Server
    thread: threading.Thread

    def stop(self) -> None:
        """Finishes what is being answered, then ends."""
        self.server.should_exit = True
        self.thread.join(START_SECONDS)


def start_server(app: Starlette, host: str, port: int, protection: Guard | None = None) -> RunningServer:
    """The application at `host:port`, answering once this returns; port 0 takes a free one. Raises AddressInUse."""
    import uvicorn

    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (while")[0]
        raise AddressInUse(
            f"cannot listen on {host}:{port}: {why}; choose another with --port, or 0 for a free one"
        ) from error
    protection = protection or Protection()
    server = uvicorn.Server(protection.config(app, grace_seconds=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="http", daemon=True)
    thread.start()
    shown = f"[{host}]" if ":" in host else host
    return RunningServer(f"{protection.scheme}://{shown}:{listener.getsockname()[1]}", server, thread)
