"""The copy to go on with: every model that was loaded is kept on local disk, with when that was."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import structlog

from predictor.errors import CorruptModel
from predictor.registry.folder import replace_file
from predictor.serving.ports import BundleStore, StoredBundle

if TYPE_CHECKING:
    from predictor.serving.bundle import Bundle

POINTER_FILE = "last_good.json"

log = structlog.get_logger(__name__)


class LastGood(NamedTuple):
    """A model that once came out of the store, and the epoch second at which it did."""

    stored: StoredBundle
    loaded_at_seconds: int


@dataclass(frozen=True)
class LastGoodStore:
    """Any bundle store, which remembers across restarts what it last loaded.

    The copy is never served by `load`: falling back is the caller's decision, who asks for `last_good`. A copy
    that cannot be written does not spoil a load; it is logged, and the older copy stays.
    """

    inner: BundleStore
    folder: Path
    clock: Callable[[], float] = time.time

    def version_of(self, alias: str) -> str:
        """As the inner store answers."""
        return self.inner.version_of(alias)

    def load(self, version: str) -> "Bundle":
        """As the inner store answers; a success is kept."""
        bundle = self.inner.load(version)
        try:
            self._keep(version, bundle)
        except OSError as error:
            log.warning("last good model not kept", version=version, folder=str(self.folder), error=str(error))
        return bundle

    def last_good(self) -> LastGood | None:
        """What was last kept, or None where there is nothing that can be trusted (the log says why)."""
        from predictor.serving.bundle import Bundle

        path = self.folder / POINTER_FILE
        try:
            pointer = json.loads(path.read_text(encoding="utf-8"))
            version, loaded_at = str(pointer["version"]), int(pointer["loaded_at_seconds"])
            place = self.folder / Path(str(pointer["folder"])).name
            return LastGood(StoredBundle(version, Bundle.load(place)), loaded_at)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, CorruptModel) as error:
            log.warning("last good model unusable", path=str(path), error=str(error))
            return None

    def _keep(self, version: str, bundle: "Bundle") -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=self.folder, prefix="model-"))
        try:
            bundle.save(fresh)
            pointer = {"version": version, "loaded_at_seconds": int(self.clock()), "folder": fresh.name}
            replace_file(self.folder / POINTER_FILE, json.dumps(pointer, sort_keys=True))
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        # Only now is nothing pointing at the older copies.
        for old in self.folder.glob("model-*"):
            if old != fresh:
                shutil.rmtree(old, ignore_errors=True)
