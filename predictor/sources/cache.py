"""Days of query answers kept on disk, so that a retrain fetches only what is new.

One file per endpoint, UTC day, query text and step: an npz behind its own SHA-256. It appears only whole (written
beside its place, then renamed) and is believed only if its checksum holds and it says that it answers this very query;
anything else is deleted and fetched again. When the disk is full or read-only the cache says so once and stands aside.
"""

import hashlib
import io
import os
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson

from predictor.sources.matrix import Matrix

FORMAT = 1
SUFFIX = ".npz-checked"
UNUSED_SECONDS = 60 * 86_400
"""A file that nothing has read for this long is deleted."""


class DayCache:
    """Whole UTC days of answers of one endpoint. Safe to use from several threads and processes."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.folder = folder / endpoint
        self._lock = threading.Lock()
        self._problem = ""

    @property
    def problem(self) -> str:
        """Why nothing more is stored; empty while all is well."""
        return self._problem

    def load(self, query: str, step_seconds: int, day_seconds: int) -> Matrix | None:
        """The answer for the steps that start in this day; None where it is not there or cannot be believed."""
        path = self._path(query, step_seconds, day_seconds)
        try:
            with np.load(io.BytesIO(_checked(path.read_bytes())), allow_pickle=False) as stored:
                meta = orjson.loads(stored["meta"].tobytes())
                values = np.asarray(stored["values"], dtype=np.float64)
            labels = tuple(tuple((str(k), str(v)) for k, v in each) for each in meta.pop("labels"))
            expected = (len(labels), 86_400 // step_seconds)
            if meta != _identity(query, step_seconds, day_seconds) or values.shape != expected:
                raise ValueError("answers another query")
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError) as error:
            self._drop(path, error)
            return None
        return Matrix(labels, values)

    def store(self, query: str, step_seconds: int, day_seconds: int, answer: Matrix) -> None:
        """Keep an answer. An empty one is not kept: the data may still be on their way."""
        if self._problem or not answer.labels:
            return
        meta = {**_identity(query, step_seconds, day_seconds), "labels": answer.labels}
        path = self._path(query, step_seconds, day_seconds)
        packed = io.BytesIO()
        np.savez_compressed(packed, meta=np.frombuffer(orjson.dumps(meta), dtype=np.uint8), values=answer.values)
        unfinished = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, unfinished = tempfile.mkstemp(dir=path.parent, suffix=".unfinished")
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.sha256(packed.getbuffer()).digest())
                file.write(packed.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            Path(unfinished).replace(path)
        except OSError as error:
            if unfinished:
                Path(unfinished).unlink(missing_ok=True)
            with self._lock:
                self._problem = (
                    self._problem or f"the cache in {self.folder} cannot be written ({error.strerror or error})"
                )

    def prune(self, now_seconds: float) -> None:
        """Delete what nothing has read for long, and what a killed process left unfinished."""
        try:
            for path in self.folder.glob("*/*"):
                unread = now_seconds - path.stat().st_mtime
                if unread > UNUSED_SECONDS or (path.suffix == ".unfinished" and unread > 3600):
                    path.unlink(missing_ok=True)
        except OSError:
            # Another process prunes too, or the folder is read-only: both are no reason to stop.
            return

    def _drop(self, path: Path, reason: Exception) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError:
            with self._lock:
                self._problem = self._problem or f"{path} is damaged ({reason}) and cannot be deleted"

    def _path(self, query: str, step_seconds: int, day_seconds: int) -> Path:
        day = datetime.fromtimestamp(day_seconds, tz=UTC).strftime("%Y-%m-%d")
        name = hashlib.sha256(f"{FORMAT}\n{step_seconds}\n{query}".encode()).hexdigest()[:24]
        return self.folder / day / f"{name}{SUFFIX}"


def _checked(stored: bytes) -> bytes:
    """What lies behind the checksum. Raises ValueError where they do not belong together."""
    digest = hashlib.sha256().digest_size
    if hashlib.sha256(stored[digest:]).digest() != stored[:digest]:
        raise ValueError("checksum does not hold")
    return stored[digest:]


def _identity(query: str, step_seconds: int, day_seconds: int) -> dict[str, object]:
    return {"format": FORMAT, "query": query, "step": step_seconds, "day": day_seconds}
