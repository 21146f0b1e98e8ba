"""A TCP relay in front of a server: one client's network, which can be cut or go silent while the server lives on."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import yaml


@dataclass
class Relay:
    """Passes bytes both ways, TLS and all."""

    upstream: tuple[str, int]
    port: int = 0
    delay_seconds: float = 0.0
    """How long what the client says is under way; may be set at any time."""
    _sockets: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._is_cut = False
        self._flows = threading.Event()
        self._flows.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> None:
        """Ends every connection and takes no new one."""
        with self._lock:
            self._is_cut = True
            for one in self._sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """New connections come through again."""
        with self._lock:
            self._is_cut = False
        self._flows.set()

    def silence(self) -> None:
        """Every connection stays open, and nothing comes through."""
        self._flows.clear()

    def close(self) -> None:
        """Ends everything."""
        self.cut()
        self._flows.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in list(self._threads):
            thread.join()
        for one in self._sockets:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._sockets.append(here)
                if self._is_cut:
                    here.shutdown(socket.SHUT_RDWR)
                    continue
                try:
                    there = socket.create_connection(self.upstream, timeout=5)
                except OSError:
                    here.shutdown(socket.SHUT_RDWR)
                    continue
                there.settimeout(None)
                self._sockets.append(there)
            for source, target in ((here, there), (there, here)):
                thread = threading.Thread(target=self._pump, args=(source, target, source is here), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pump(self, source: socket.socket, target: socket.socket, is_asking: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._flows.wait()
                if self.delay_seconds and is_asking:
                    time.sleep(self.delay_seconds)
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def relayed(kubeconfig: Path, folder: Path) -> Iterator[tuple[Relay, Path]]:
    """A relay to the kubeconfig's server, and the kubeconfig that goes through it."""
    config = yaml.safe_load(kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    address = urlsplit(cluster["server"])
    relay = Relay((str(address.hostname), int(address.port or 443)))
    cluster["server"] = f"{address.scheme}://127.0.0.1:{relay.port}"
    cluster["tls-server-name"] = address.hostname
    path = folder / f"relayed-{relay.port}.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    try:
        yield relay, path
    finally:
        relay.close()
