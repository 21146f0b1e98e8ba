"""A bundle store in a folder: versions are sub-folders, aliases one small file. Every change is one rename."""

import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from predictor.errors import CorruptModel, ModelNotFound, RegistryUnavailable

if TYPE_CHECKING:
    from predictor.serving.bundle import Bundle

ALIASES_FILE = "aliases.json"


def replace_file(path: Path, text: str) -> None:
    """Put the text under the path in one step: a reader sees the old file or the new one, never half of either."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        put_in_place(Path(name), path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def put_in_place(made: Path, path: Path) -> None:
    """Move a temporary file, which is its owner's alone, to its path, as readable as any other that the user makes."""
    mask = os.umask(0)
    os.umask(mask)
    made.chmod(0o666 & ~mask)
    made.replace(path)


@dataclass(frozen=True)
class FolderBundleStore:
    """Bundles under `<folder>/<version>/`, versions counting from 1; the folder is made when first written to."""

    folder: Path

    def add(self, bundle: "Bundle") -> str:
        """Keep a bundle; the answer is its version. Raises RegistryUnavailable where the folder cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(dir=self.folder, prefix=".incoming-"))
            try:
                bundle.save(staging)
                return self._claim(staging)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        except OSError as error:
            raise RegistryUnavailable(f"{self.folder}: a model cannot be written: {error}") from error

    def set_alias(self, alias: str, version: str) -> None:
        """Point an alias to a version. Raises ModelNotFound, or RegistryUnavailable where it cannot be written."""
        self._place(version)
        aliases = self._aliases() | {alias: version}
        try:
            replace_file(self.folder / ALIASES_FILE, json.dumps(aliases, sort_keys=True, indent=1))
        except OSError as error:
            raise RegistryUnavailable(f"{self.folder}: the alias {alias!r} cannot be written: {error}") from error

    def version_of(self, alias: str) -> str:
        """The version an alias points to. Raises ModelNotFound or RegistryUnavailable."""
        aliases = self._aliases()
        if alias not in aliases:
            raise ModelNotFound(f"{self.folder}: no model has the alias {alias!r}; train one with `foresize train`")
        return aliases[alias]

    def load(self, version: str) -> "Bundle":
        """The bundle of a version. Raises ModelNotFound, CorruptModel or RegistryUnavailable."""
        from predictor.serving.bundle import Bundle

        return Bundle.load(self._place(version))

    def _place(self, version: str) -> Path:
        # Only digits: a version is never a way out of the folder.
        if not re.fullmatch(r"[0-9]+", version) or not (self.folder / version).is_dir():
            raise ModelNotFound(f"{self.folder}: there is no model version {version!r}")
        return self.folder / version

    def _claim(self, staging: Path) -> str:
        taken = [int(p.name) for p in self.folder.iterdir() if p.name.isdigit()]
        version = max(taken, default=0) + 1
        while True:
            try:
                # A rename onto a folder that is not empty fails: a version claimed meanwhile is not overwritten.
                staging.rename(self.folder / str(version))
            except OSError:
                if not (self.folder / str(version)).exists():
                    raise
                version += 1
            else:
                return str(version)

    def _aliases(self) -> dict[str, str]:
        path = self.folder / ALIASES_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise RegistryUnavailable(f"{path}: cannot be read: {error}") from error
        except ValueError as error:
            raise CorruptModel(f"{path}: is not JSON: {error}; set the alias again after removing it") from error
        if not isinstance(content, dict) or not all(isinstance(v, str) for v in content.values()):
            raise CorruptModel(f"{path}: holds no map of aliases to versions; set the alias again after removing it")
        return content
