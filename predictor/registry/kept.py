"""One model kept on local disk, with when that was: what a process goes on with after a restart."""

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
from predictor.serving.ports import StoredBundle

if TYPE_CHECKING:
    from predictor.serving.bundle import Bundle

POINTER_FILE = "kept.json"

log = structlog.get_logger(__name__)


class Kept(NamedTuple):
    """A model, and the epoch second at which it was kept."""

    stored: StoredBundle
    kept_at_seconds: int


@dataclass(frozen=True)
class KeptModel:
    """A folder that holds the model that was kept last. Neither keeping nor reading ever fails a caller: the log says
    why a copy could not be written or used, and a copy that cannot be written leaves the older one.
    """

    folder: Path
    clock: Callable[[], float] = time.time

    def keep(self, version: str, bundle: "Bundle") -> None:
        """Put a model in the place of the one before."""
        try:
            self._replace(version, bundle)
        except OSError as error:
            log.warning("model not kept", version=version, folder=str(self.folder), error=str(error))

    def read(self) -> Kept | None:
        """What was last kept, or None where there is nothing that can be trusted."""
        from predictor.serving.bundle import Bundle

        path = self.folder / POINTER_FILE
        try:
            pointer = json.loads(path.read_text(encoding="utf-8"))
            version, kept_at = str(pointer["version"]), int(pointer["kept_at_seconds"])
            place = self.folder / Path(str(pointer["folder"])).name
            return Kept(StoredBundle(version, Bundle.load(place)), kept_at)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, CorruptModel) as error:
            log.warning("kept model unusable", path=str(path), error=str(error))
            return None

    def _replace(self, version: str, bundle: "Bundle") -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=self.folder, prefix="model-"))
        try:
            bundle.save(fresh)
            pointer = {"version": version, "kept_at_seconds": int(self.clock()), "folder": fresh.name}
            replace_file(self.folder / POINTER_FILE, json.dumps(pointer, sort_keys=True))
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        # Only now is nothing pointing at the older copies.
        for old in self.folder.glob("model-*"):
            if old != fresh:
                shutil.rmtree(old, ignore_errors=True)
