"""The MLflow model registry as a bundle store. Works with mlflow-skinny against a server, and never waits long.

A version is a pyfunc model whose artifact folder `bundle` holds the bundle as data; nothing else of the model is
read, so loading runs no code and needs no pickle.
"""

import fcntl
import math
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predictor.errors import CorruptModel, ModelNotFound, RegistryUnavailable, without_login

if TYPE_CHECKING:
    from predictor.serving.bundle import Bundle

BUNDLE_FOLDER = "bundle"
"""Name of the artifact folder, inside a version's `artifacts`, that the bundle is written to."""
BUNDLE_PATH = f"artifacts/{BUNDLE_FOLDER}"

SQLITE = "sqlite:///"

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
"""What MLflow reads from the environment and we never want otherwise, unless the operator has set it."""

_environment = threading.RLock()


def prepare_mlflow() -> None:
    """Set MLflow's switches for this process before it is first imported; what is already set stays."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def bounded_requests(timeout: timedelta) -> Iterator[None]:
    """Let each request of MLflow's client take this long, and try it once.

    The client takes these limits from the environment only, at every request. They hold for the process while
    the block runs, so blocks exclude each other, and they are put back after it.
    """
    limits = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(max(1, math.ceil(timeout.total_seconds()))),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    with _environment:
        before = {name: os.environ.get(name) for name in limits}
        os.environ.update(limits)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def sqlite_file(tracking_uri: str) -> Path | None:
    """The file of an SQLite store; None for any other address."""
    return Path(tracking_uri.removeprefix(SQLITE)) if tracking_uri.startswith(SQLITE) else None


@contextmanager
def one_at_a_time(tracking_uri: str) -> Iterator[None]:
    """Keeps two processes from creating or migrating the same SQLite store at once, which MLflow does not survive."""
    path = sqlite_file(tracking_uri)
    if path is None:
        yield
        return
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def in_short(problem: Exception) -> str:
    """What an exception says, without the SQL and the login that it came from; a full disk is called one.

    One about a header holds the header, and with it the token, so it is told in other words.
    """
    if "header value" in str(problem):
        return "a header of the request cannot be sent; check MLFLOW_TRACKING_TOKEN, USERNAME and PASSWORD"
    said = without_login(str(getattr(problem, "message", None) or problem)).split("[SQL", 1)[0].strip()
    first = _cause(next((line.strip() for line in said.splitlines() if line.strip()), type(problem).__name__))
    return f"{first} (free some disk space)" if "full" in first or "No space" in first else first


def _cause(said: str) -> str:
    """Of an error of the HTTP library what caused it: people read this in the statuses of their objects."""
    _, caused, inner = said.rpartition("(Caused by ")
    if not caused:
        return said
    plain = inner.partition("(")[2].removesuffix("))").strip("\"'")
    return re.sub(r"^(\w+\(host=.*?\)|<.*?>)(: |, )", "", plain).strip("\"'")


def store_problems() -> tuple[type[Exception], ...]:
    """What reaches us beside MLflow's own exceptions: of the network, of files and, where it is there, of SQL."""
    from requests.exceptions import RequestException

    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        return (RequestException, OSError)
    return (RequestException, OSError, SQLAlchemyError)


@dataclass(frozen=True)
class MlflowBundleStore:
    """Versions of one registered model.

    A server that is down or silent costs at most `timeout` per request, and the first failure ends the call: the
    caller has a last good model and asks again later.
    """

    tracking_uri: str
    model_name: str
    timeout: timedelta = timedelta(seconds=10)

    @property
    def shown_uri(self) -> str:
        """The store's address, fit for messages."""
        return without_login(self.tracking_uri)

    def version_of(self, alias: str) -> str:
        """The version an alias points to. Raises RegistryUnavailable or ModelNotFound."""
        with self._asking(f"{self.model_name}@{alias}"):
            return str(self._client().get_model_version_by_alias(self.model_name, alias).version)

    def load(self, version: str) -> "Bundle":
        """The bundle of a version. Raises RegistryUnavailable, ModelNotFound or CorruptModel."""
        from predictor.serving.bundle import Bundle

        what = f"{self.model_name} version {version}"
        with tempfile.TemporaryDirectory(prefix="foresize-model-") as scratch:
            with self._asking(what):
                from mlflow.artifacts import download_artifacts, list_artifacts

                place = self._client().get_model_version_download_uri(self.model_name, version)
                place = place.rstrip("/")
                held = list_artifacts(f"{place}/artifacts", tracking_uri=self.tracking_uri)
                # Asked first, because a foreign model may be gigabytes.
                if BUNDLE_FOLDER not in {Path(item.path).name for item in held if item.is_dir}:
                    raise CorruptModel(
                        f"{self.shown_uri}: {what} was not made by foresize: it holds no {BUNDLE_PATH}; "
                        "train a new one with `foresize train`"
                    )
                folder = Path(
                    download_artifacts(
                        f"{place}/{BUNDLE_PATH}",
                        dst_path=scratch,
                        tracking_uri=self.tracking_uri,
                        registry_uri=self.tracking_uri,
                    )
                )
            try:
                return Bundle.load(folder)
            except CorruptModel as error:
                raise CorruptModel(f"{self.shown_uri}: {what}: {error}") from error

    def _client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Bounded requests, with MLflow's exceptions told apart by what to do next."""
        file = sqlite_file(self.tracking_uri)
        if file is not None and not file.exists():
            # Asking would make an empty store.
            raise ModelNotFound(f"{self.shown_uri}: there is no {what} yet; train one with `foresize train`")
        prepare_mlflow()
        from mlflow.exceptions import MlflowException
        from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException

        try:
            with one_at_a_time(self.tracking_uri), bounded_requests(self.timeout):
                yield
        except UnsupportedModelRegistryStoreURIException as error:
            raise RegistryUnavailable(
                f"{self.shown_uri}: this kind of store cannot be opened by this installation; set "
                "registry.tracking_uri to an MLflow server (http://…), or install foresize[pipelines]"
            ) from error
        except MlflowException as error:
            # An alias nobody set and a version that is no number are answered as invalid parameters.
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                said = without_login(str(error.message))
                raise ModelNotFound(
                    f"{self.shown_uri}: there is no {what}: {said}; train one with `foresize train`"
                ) from error
            raise RegistryUnavailable(f"{self.shown_uri}: asking for {what} failed: {in_short(error)}") from error
        except store_problems() as error:
            raise RegistryUnavailable(f"{self.shown_uri}: asking for {what} failed: {in_short(error)}") from error
