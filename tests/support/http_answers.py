"""A tiny real HTTP server that answers what it is told, badly where asked, and remembers what it was asked."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl

import orjson

Form = dict[str, str]


@dataclass(frozen=True)
class Stream:
    """An answer in chunks, whose length is not known when it begins."""

    chunks: tuple[bytes, ...] = ()
    is_cut: bool = False
    """Whether the connection ends without the chunk that says so."""
    silent_seconds: float = 0.0
    """How long it stays open after the last chunk with nothing more to say."""


@dataclass(frozen=True)
class Answer:
    """One answer. `missing_bytes` are promised in Content-Length and never sent; a trickle sends a byte at a time."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    missing_bytes: int = 0
    trickle_seconds: float = 0.0
    stream: Stream | None = None
    """Sent instead of the body."""


@dataclass
class Asked:
    """What one request looked like."""

    path: str
    form: Form
    headers: dict[str, str]
    method: str = "GET"
    body: bytes = b""


@dataclass
class AnsweringServer:
    """A server that runs."""

    url: str
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def answering(
    answer: Callable[[Asked, int], Answer] | Answer, *, certificate: tuple[Path, Path] | None = None
) -> Iterator[AnsweringServer]:
    """A server whose answer is always the same or follows from the request and its number (from 0).

    With a certificate and its key it speaks TLS.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", "0"))
            body = self.rfile.read(length)
            form = dict(parse_qsl(body.decode(errors="replace")))
            asked = Asked(self.path, form, {k.lower(): v for k, v in self.headers.items()}, self.command, body)
            with lock:
                number = len(server.asked)
                server.asked.append(asked)
            self._send(answer(asked, number) if callable(answer) else answer)

        do_GET = do_PATCH = do_POST

        def _send(self, chosen: Answer) -> None:
            stopped.wait(chosen.delay_seconds)
            try:
                self.send_response(chosen.status)
                for name, value in chosen.headers.items():
                    self.send_header(name, value)
                if chosen.stream is not None:
                    self._send_stream(chosen.stream)
                    return
                self.send_header("content-length", str(len(chosen.body) + chosen.missing_bytes))
                self.end_headers()
                if chosen.trickle_seconds:
                    for byte in chosen.body:
                        self.wfile.write(bytes([byte]))
                        self.wfile.flush()
                        if stopped.wait(chosen.trickle_seconds):
                            return
                else:
                    self.wfile.write(chosen.body)
            except OSError:
                # The client has gone: that is what some tests are about.
                self.close_connection = True

        def _send_stream(self, stream: Stream) -> None:
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for chunk in stream.chunks:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()
            stopped.wait(stream.silent_seconds)
            if not stream.is_cut:
                self.wfile.write(b"0\r\n\r\n")

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    lock, stopped = threading.Lock(), threading.Event()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True, do_handshake_on_connect=False)
    server = AnsweringServer(f"http{'s' if certificate else ''}://127.0.0.1:{httpd.server_address[1]}")
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        stopped.set()
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def a_matrix(*series: dict[str, object], **more: object) -> Answer:
    """A successful range answer with these series; `more` are further top-level fields such as `warnings`."""
    return Answer(
        body=orjson.dumps({"status": "success", "data": {"resultType": "matrix", "result": series}, **more}),
        headers={"content-type": "application/json"},
    )


def evaluated(asked: Asked, value: Callable[[int], float] = float) -> dict[str, object]:
    """One series with a value at each point that the request asks for."""
    start, end, step = (int(asked.form[name]) for name in ("start", "end", "step"))
    points = range(start, end + 1, step)
    return {"metric": {"job": "x"}, "values": [[t, str(value(t))] for t in points]}


def an_error(status: int, kind: str, message: str) -> Answer:
    """An error as Prometheus words it."""
    return Answer(status, orjson.dumps({"status": "error", "errorType": kind, "error": message}))


def unused_url() -> str:
    """An address on this machine where nothing listens."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def seconds_since(start: float) -> float:
    """Seconds on the monotonic clock."""
    return time.monotonic() - start
