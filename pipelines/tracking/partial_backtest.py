"""A backtest that is not over yet, kept as data beside its output so that it can be continued."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from predictor.errors import CorruptModel, InvalidUsage
from predictor.registry.folder import replace_file
from predictor.serving.bundle import Bundle

ABOUT = "about.json"
FORMAT = "foresize-partial-backtest-1"
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Kept:
    """How far a backtest had come."""

    done: int
    """The first so many cutoffs are done."""
    bundle: Bundle
    """What it had learned by the last of them."""


@dataclass(frozen=True, slots=True)
class NothingKept:
    """That a backtest begins at its beginning, and why; without a reason there never was another."""

    reason: str = ""


class PartialBacktest:
    """The folder of one output: a bundle for each time that something was done, the arrays of each cutoff.

    `fingerprint` names all that the outcome depends on; a folder with another one is of no use and is emptied.
    Raises InvalidUsage for a folder that cannot be written to or is somebody else's.
    """

    def __init__(self, output: Path, *, restart: bool = False) -> None:
        self.folder = output.with_name(f"{output.name}.partial")
        self._restart = restart

    def begin(self, fingerprint: Mapping[str, str]) -> Kept | NothingKept:
        """What an interrupted run of the same kept; else the folder is made anew."""
        kept = self._kept(fingerprint)
        if isinstance(kept, Kept):
            return kept
        self.remove()
        try:
            self.folder.mkdir()
            about = {"format": FORMAT, "fingerprint": dict(fingerprint)}
            replace_file(self.folder / ABOUT, json.dumps(about, indent=1))
        except OSError as error:
            raise self._unwritable(error) from error
        return kept

    def keep(self, done: int, bundle: Bundle, answers: Mapping[int, Arrays]) -> None:
        """The answers by their cutoffs' seconds, and the bundle, with which the first `done` cutoffs are done."""
        try:
            for cutoff, arrays in answers.items():
                packed = BytesIO()
                np.savez(packed, allow_pickle=False, **dict(arrays))
                self._of(cutoff).write_bytes(packed.getvalue())
            # The bundle last, under its own name only when it is whole: it says that the answers are there.
            incoming = self.folder / "incoming"
            shutil.rmtree(incoming, ignore_errors=True)
            bundle.save(incoming)
            older = list(self.folder.glob("bundle-*"))
            incoming.rename(self.folder / f"bundle-{done}")
        except OSError as error:
            raise self._unwritable(error) from error
        for folder in older:
            shutil.rmtree(folder, ignore_errors=True)

    def answer(self, cutoff: int) -> Arrays:
        """The arrays that were kept of a cutoff. Raises InvalidUsage where they are damaged."""
        try:
            with np.load(self._of(cutoff), allow_pickle=False) as packed:
                return {name: packed[name] for name in packed.files}
        except (OSError, ValueError, EOFError, BadZipFile, KeyError) as error:
            raise InvalidUsage(f"{self._of(cutoff)} is damaged; run again with --restart") from error

    def remove(self) -> None:
        """Nothing is kept any longer."""
        if not self.folder.exists():
            return
        if not (self.folder / ABOUT).exists() and any(self.folder.iterdir()):
            raise InvalidUsage(f"{self.folder} is not the folder of an interrupted backtest: move it away")
        try:
            shutil.rmtree(self.folder)
        except OSError as error:
            raise self._unwritable(error) from error

    def _kept(self, fingerprint: Mapping[str, str]) -> Kept | NothingKept:
        try:
            about = json.loads((self.folder / ABOUT).read_text(encoding="utf-8"))
        except OSError:
            return NothingKept()
        except ValueError:
            return NothingKept("what an earlier run kept is damaged")
        before = about.get("fingerprint", {}) if isinstance(about, dict) and about.get("format") == FORMAT else {}
        changed = [name for name, digest in fingerprint.items() if before.get(name) != digest]
        if self._restart:
            return NothingKept("--restart was given")
        if changed:
            return NothingKept(f"changed since the interrupted run: {', '.join(changed)}")
        return self._newest()

    def _newest(self) -> Kept | NothingKept:
        numbers = [int(folder.name.removeprefix("bundle-")) for folder in self.folder.glob("bundle-*")]
        if not numbers:
            return NothingKept()
        try:
            return Kept(max(numbers), Bundle.load(self.folder / f"bundle-{max(numbers)}"))
        except CorruptModel as error:
            return NothingKept(f"what an earlier run kept is damaged ({error})")

    def _of(self, cutoff: int) -> Path:
        return self.folder / f"{cutoff}.npz"

    def _unwritable(self, error: OSError) -> InvalidUsage:
        return InvalidUsage(f"{self.folder}: cannot be written: {error.strerror or error}")
