"""How a bundle lies in a folder: manifest.json, arrays.npz and boosters/*.txt, each with its checksum."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from models.forecast import JsonValue
from predictor.errors import CorruptModel

FORMAT = "foresize-bundle"
VERSION = 5
READABLE = (3, 4, VERSION)
"""Version 3 knew neither images nor owners, version 4 no gates: what they hold is read as if none were known, and all
gates are open."""
MANIFEST = "manifest.json"
ARRAYS = "arrays.npz"
BOOSTERS = "boosters"


@dataclass(frozen=True, slots=True)
class Parts:
    """A bundle taken apart into what can be written without pickles; texts are native booster texts."""

    content: Mapping[str, JsonValue]
    arrays: Mapping[str, NDArray[np.generic]]
    texts: Mapping[str, str]


def write(folder: Path, parts: Parts) -> None:
    """Write the parts, the manifest last; files of an earlier bundle that this one does not have are removed."""
    (folder / BOOSTERS).mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    packed = BytesIO()
    np.savez(packed, allow_pickle=False, **dict(parts.arrays))
    names = {key: f"{BOOSTERS}/{number:04d}.txt" for number, key in enumerate(parts.texts)}
    payload = {ARRAYS: packed.getvalue()} | {names[key]: text.encode() for key, text in parts.texts.items()}
    for old in (folder / BOOSTERS).glob("*.txt"):
        old.unlink()
    for name, data in payload.items():
        (folder / name).write_bytes(data)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "content_sha256": _digest_of_content(parts.content, names),
        "files": {name: sha256(data).hexdigest() for name, data in payload.items()},
        "texts": names,
        "content": parts.content,
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False)
    half_written = folder / f"{MANIFEST}.part"
    half_written.write_text(text, encoding="utf-8")
    half_written.replace(folder / MANIFEST)


def read(folder: Path) -> Parts:
    """The parts back, every checksum verified before anything is parsed. Raises CorruptModel."""
    manifest = _manifest(folder)
    try:
        content, files, names = manifest["content"], manifest["files"], manifest["texts"]
        if manifest["content_sha256"] != _digest_of_content(content, names):
            raise _damaged(folder, f"{MANIFEST} does not match its checksum")
        payload = {name: _verified(folder, name, digest) for name, digest in files.items()}
        with np.load(BytesIO(payload[ARRAYS]), allow_pickle=False) as packed:
            arrays = {key: packed[key] for key in packed.files}
        return Parts(content, arrays, {key: payload[name].decode() for key, name in names.items()})
    except (KeyError, TypeError, AttributeError, ValueError, EOFError, BadZipFile) as error:
        raise _damaged(folder, str(error)) from error


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise _damaged(folder, f"{MANIFEST} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise _damaged(folder, f"{MANIFEST} is not JSON ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CorruptModel(f"{folder} holds no {FORMAT}: its {MANIFEST} names another format; train a model")
    if manifest.get("version") not in READABLE:
        raise CorruptModel(
            f"the model in {folder} has format version {manifest.get('version')}, this foresize reads "
            f"{', '.join(map(str, READABLE))}; "
            "use the foresize that wrote it, or train again"
        )
    return manifest


def _verified(folder: Path, name: str, digest: str) -> bytes:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise _damaged(folder, f"{name!r} lies outside of it")
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise _damaged(folder, f"{name} cannot be read ({error.strerror})") from error
    if sha256(data).hexdigest() != digest:
        raise _damaged(folder, f"{name} does not match its checksum")
    return data


def _digest_of_content(content: Mapping[str, JsonValue], names: Mapping[str, str]) -> str:
    return sha256(json.dumps([content, names], sort_keys=True, allow_nan=False).encode()).hexdigest()


def _damaged(folder: Path, what: str) -> CorruptModel:
    return CorruptModel(f"the model in {folder} is damaged: {what}; keep the last good one, or train again")
