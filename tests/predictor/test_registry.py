"""Models survive a registry that is down, slow, wrong or damaged; nothing half-written is ever read."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from predictor.errors import CorruptModel, ModelNotFound, RegistryUnavailable, without_login
from predictor.registry.folder import ALIASES_FILE, FolderBundleStore, replace_file
from predictor.registry.kept import KeptModel
from predictor.registry.last_good import LastGoodStore
from predictor.registry.memory import MemoryBundleStore
from predictor.registry.mlflow import MlflowBundleStore, bounded_requests, in_short
from predictor.serving.bundle import Bundle
from tests.support.bundles import a_bundle
from tests.support.mlflow_server import free_port


@dataclass
class Gone:
    """A registry that does not answer."""

    def version_of(self, alias: str) -> str:
        raise RegistryUnavailable("no answer")

    def load(self, version: str) -> Bundle:
        raise RegistryUnavailable("no answer")


def a_filled_store() -> MemoryBundleStore:
    store = MemoryBundleStore()
    store.set_alias("champion", store.add(a_bundle()))
    return store


def test_the_last_model_loaded_survives_a_restart_without_the_registry(tmp_path: Path) -> None:
    """With its version and the time at which the registry gave it out."""
    LastGoodStore(a_filled_store(), KeptModel(tmp_path, clock=lambda: 1234.5)).load("1")

    restarted = LastGoodStore(Gone(), KeptModel(tmp_path))
    kept = restarted.last_good()

    assert kept is not None
    assert (kept.stored.version, kept.kept_at_seconds) == ("1", 1234)
    assert kept.stored.bundle.series.keys() == a_bundle().series.keys()
    with pytest.raises(RegistryUnavailable):
        restarted.load("1")


def test_only_the_newest_copy_is_kept(tmp_path: Path) -> None:
    """A controller that runs for months does not fill its disk."""
    inner = a_filled_store()
    inner.add(a_bundle(0.5))
    store = LastGoodStore(inner, KeptModel(tmp_path))

    store.load("1")
    store.load("2")

    kept = store.last_good()
    assert kept is not None and kept.stored.version == "2"
    assert len(list(tmp_path.glob("model-*"))) == 1


def test_nothing_kept_is_no_model(tmp_path: Path) -> None:
    """A first start without a registry has nothing to go on with."""
    assert LastGoodStore(Gone(), KeptModel(tmp_path / "not there")).last_good() is None


@pytest.mark.parametrize("damaged", ["arrays.npz", "manifest.json", "kept.json"])
def test_a_damaged_copy_is_never_served(tmp_path: Path, damaged: str) -> None:
    """Whichever file is cut short, there is no last good model rather than a wrong one."""
    store = LastGoodStore(a_filled_store(), KeptModel(tmp_path))
    store.load("1")
    (file,) = tmp_path.rglob(damaged)
    file.write_bytes(file.read_bytes()[:20])

    assert store.last_good() is None


def test_a_copy_that_cannot_be_written_does_not_spoil_the_load(tmp_path: Path) -> None:
    """The place is taken by a file, as a full or read-only disk would be: the model serves all the same."""
    (tmp_path / "taken").write_text("")

    bundle = LastGoodStore(a_filled_store(), KeptModel(tmp_path / "taken")).load("1")

    assert bundle.series.keys() == a_bundle().series.keys()


def test_a_half_written_version_is_not_a_version(tmp_path: Path) -> None:
    """What an interrupted write leaves behind is neither listed nor loaded, and is in nobody's way."""
    store = FolderBundleStore(tmp_path)
    (tmp_path / ".incoming-abc").mkdir()

    assert store.add(a_bundle()) == "1"
    with pytest.raises(ModelNotFound):
        store.load(".incoming-abc")


def test_a_damaged_version_in_a_folder_is_corrupt(tmp_path: Path) -> None:
    """Its checksum is not right, so it is not loaded."""
    store = FolderBundleStore(tmp_path)
    version = store.add(a_bundle())
    (tmp_path / version / "arrays.npz").write_bytes(b"PK")

    with pytest.raises(CorruptModel):
        store.load(version)


@pytest.mark.parametrize("content", ["{", "[1]", '{"champion": 1}'])
def test_a_damaged_alias_file_is_said_to_be(tmp_path: Path, content: str) -> None:
    """Not taken for an empty one, which would look like 'no model'."""
    store = FolderBundleStore(tmp_path)
    store.add(a_bundle())
    (tmp_path / ALIASES_FILE).write_text(content)

    with pytest.raises(CorruptModel, match=ALIASES_FILE):
        store.version_of("champion")


def test_versions_added_at_once_do_not_overwrite_each_other(tmp_path: Path) -> None:
    """Each gets a number of its own."""
    store, versions = FolderBundleStore(tmp_path), []
    threads = [threading.Thread(target=lambda: versions.append(store.add(a_bundle()))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(versions) == ["1", "2", "3", "4", "5", "6"]


def test_a_server_that_refuses_is_told_at_once() -> None:
    """No retries for minutes: the last good model is waiting."""
    store = MlflowBundleStore(f"http://127.0.0.1:{free_port()}", "foresize", timedelta(seconds=2))
    store_of_warm_client(store)
    started = time.monotonic()

    with pytest.raises(RegistryUnavailable, match="foresize@champion"):
        store.version_of("champion")

    assert time.monotonic() - started < 2


def test_a_server_that_is_silent_costs_the_timeout_and_no_more() -> None:
    """It accepts the connection and says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        store = MlflowBundleStore(f"http://127.0.0.1:{silent.getsockname()[1]}", "foresize", timedelta(seconds=1))
        store_of_warm_client(store)
        started = time.monotonic()

        with pytest.raises(RegistryUnavailable):
            store.load("1")

        assert time.monotonic() - started < 5


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Something that is not MLflow."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body"), [(200, b"<html>sign in</html>"), (404, b"not here"), (503, b"busy"), (403, b"no")]
)
def test_an_address_that_is_not_mlflow_is_unavailable(status: int, body: bytes) -> None:
    """A login page or a proxy's error is no answer about models: the last good one goes on."""
    with answering(status, body) as uri, pytest.raises(RegistryUnavailable):
        MlflowBundleStore(uri, "foresize", timedelta(seconds=2)).version_of("champion")


@pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\x00 cut short"])
def test_a_store_file_that_is_no_database_is_unavailable(tmp_path: Path, content: bytes) -> None:
    """It is said which file, without a stack trace of the database's library."""
    file = tmp_path / "mlflow.db"
    file.write_bytes(content)

    with pytest.raises(RegistryUnavailable, match=r"mlflow\.db"):
        MlflowBundleStore(f"sqlite:///{file}", "foresize").version_of("champion")


def test_an_address_of_an_unknown_kind_says_which_kinds_there_are() -> None:
    """As an SQLite file is to the controller's profile, which has no database library."""
    with pytest.raises(RegistryUnavailable, match=r"http://"):
        MlflowBundleStore("ftp://models", "foresize").version_of("champion")


def test_limits_hold_for_the_request_and_are_put_back() -> None:
    """MLflow reads them from the environment; another user of it in the process keeps its own."""
    os.environ.pop("MLFLOW_HTTP_REQUEST_TIMEOUT", None)

    with bounded_requests(timedelta(milliseconds=1500)):
        inside = os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"], os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]

    assert inside == ("2", "0")
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


def store_of_warm_client(store: MlflowBundleStore) -> None:
    """Import MLflow before the time is taken."""
    with pytest.raises(RegistryUnavailable):
        store.version_of("anything")


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device (free some disk space)"),
        (ValueError("(sqlite3.DatabaseError) malformed\n[SQL: CREATE TABLE t]"), "(sqlite3.DatabaseError) malformed"),
        (RuntimeError(""), "RuntimeError"),
        (
            ValueError("return character(s) in header value: 'Bearer s3cret'"),
            "a header of the request cannot be sent; check MLFLOW_TRACKING_TOKEN, USERNAME and PASSWORD",
        ),
        (
            OSError(
                "API request to http://m/api failed with exception HTTPConnectionPool(host='m', port=9): Max retries "
                "exceeded with url: /api (Caused by NewConnectionError(\"HTTPConnection(host='m', port=9): Failed to "
                'establish a new connection: [Errno 111] Connection refused"))'
            ),
            "Failed to establish a new connection: [Errno 111] Connection refused",
        ),
        (
            OSError(
                "HTTPSConnectionPool(host='m', port=443): Max retries exceeded with url: /api (Caused by "
                "ConnectTimeoutError(<urllib3.connection.HTTPSConnection object at 0x7f>, 'Connection to m timed out. "
                "(connect timeout=10)'))"
            ),
            "Connection to m timed out. (connect timeout=10)",
        ),
    ],
)
def test_a_stores_exception_is_told_in_a_line(problem: Exception, said: str) -> None:
    """Without the SQL or the token that it came from; a full disk is called one."""
    assert in_short(problem) == said


def test_a_file_that_is_put_in_place_can_be_read_by_others(tmp_path: Path) -> None:
    """As any file that the user makes, whatever temporary files are."""
    plain = tmp_path / "plain"
    plain.write_text("made by hand")

    replace_file(tmp_path / "report.json", "{}")

    assert (tmp_path / "report.json").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("password", ["hunter2", "p%40ss:w"])
def test_the_login_in_the_address_of_a_registry_is_never_told(password: str) -> None:
    """Not when it does not answer, and not by what MLflow itself says of it."""
    uri = f"http://me:{password}@127.0.0.1:9"
    store = MlflowBundleStore(uri, "foresize", timedelta(seconds=1))

    with pytest.raises(RegistryUnavailable) as caught:
        store.version_of("champion")

    assert "http://***@127.0.0.1:9" in str(caught.value)
    assert password not in str(caught.value)
    assert without_login(f"GET {uri}/api failed, see http://other/x") == (
        "GET http://***@127.0.0.1:9/api failed, see http://other/x"
    )
