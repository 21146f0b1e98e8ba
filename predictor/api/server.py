"""Runs the HTTP service in the foreground until it is told to stop."""

import contextlib
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from predictor.api.protection import Protection
from predictor.api.service import ForecastService
from predictor.errors import PredictorError


class AddressUnavailable(PredictorError):
    """The service cannot listen there: choose another address or stop what uses it."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises AddressUnavailable."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        why = "is in use by another program" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        raise AddressUnavailable(
            f"{host}:{port} {why}; choose another with --port or serving.port (0 takes a free one)"
        ) from error


def serve(
    service: ForecastService,
    app: ASGIApp,
    listening: socket.socket,
    started: Callable[[], None],
    protection: Protection | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, refreshing in the background; then stops both and returns."""
    stop = threading.Event()
    refreshing = threading.Thread(target=service.run, args=(stop,), name="refresh", daemon=True)
    server = _Server((protection or Protection()).config(app, grace_seconds=5))
    refreshing.start()
    started()
    try:
        server.run(sockets=[listening])
    finally:
        stop.set()
        refreshing.join(timeout=5)


class _Server(uvicorn.Server):
    """Stops on SIGTERM and SIGINT and then returns: uvicorn's own would raise the signal again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def leave(_signal: int, _frame: FrameType | None) -> None:
            self.should_exit = True

        before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
