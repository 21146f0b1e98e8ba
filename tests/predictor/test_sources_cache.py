"""Days on disk: only whole, only their own, and never a reason to stop."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from predictor.sources.cache import UNUSED_SECONDS, DayCache
from predictor.sources.matrix import Matrix

DAY = 1_700_006_400
STEP = 3600
QUERY = "sum by (namespace) (up)"


def an_answer() -> Matrix:
    """A day in hourly steps, with a gap."""
    values = np.arange(48, dtype=np.float64).reshape(2, 24)
    values[1, 3] = np.nan
    return Matrix(((("namespace", "a"),), (("namespace", "b"),)), values)


def a_filled_cache(folder: Path) -> tuple[DayCache, Path]:
    """A cache with one day, and that day's file."""
    cache = DayCache(folder, "endpoint")
    cache.store(QUERY, STEP, DAY, an_answer())
    (file,) = folder.rglob("*.npz-checked")
    return cache, file


def test_a_stored_day_comes_back_as_it_was(tmp_path: Path) -> None:
    """Labels, values and gaps."""
    cache, _ = a_filled_cache(tmp_path)

    loaded = cache.load(QUERY, STEP, DAY)

    assert loaded is not None
    assert loaded.labels == an_answer().labels
    np.testing.assert_array_equal(loaded.values, an_answer().values)


def test_another_query_step_day_or_endpoint_is_not_answered(tmp_path: Path) -> None:
    """A day answers its own question only."""
    cache, _ = a_filled_cache(tmp_path)

    assert cache.load(QUERY + " ", STEP, DAY) is None
    assert cache.load(QUERY, 300, DAY) is None
    assert cache.load(QUERY, STEP, DAY + 86_400) is None
    assert DayCache(tmp_path, "elsewhere").load(QUERY, STEP, DAY) is None


@pytest.mark.parametrize("keep", [0, 1, 100, 400])
def test_a_half_written_file_is_deleted_and_not_believed(tmp_path: Path, keep: int) -> None:
    """Whatever was cut off."""
    cache, file = a_filled_cache(tmp_path)
    file.write_bytes(file.read_bytes()[:keep])

    assert cache.load(QUERY, STEP, DAY) is None
    assert not file.exists()


def test_no_flipped_byte_changes_a_value(tmp_path: Path) -> None:
    """At every place of the file: it is noticed, and the file goes."""
    cache, file = a_filled_cache(tmp_path)
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        file.write_bytes(damaged)

        assert cache.load(QUERY, STEP, DAY) is None
        assert not file.exists()


def test_a_file_under_the_wrong_name_is_not_believed(tmp_path: Path) -> None:
    """A file says which query it answers."""
    cache, file = a_filled_cache(tmp_path)
    cache.store("other", STEP, DAY, an_answer())
    (other,) = set(tmp_path.rglob("*.npz-checked")) - {file}
    file.replace(other)

    assert cache.load("other", STEP, DAY) is None


def test_an_empty_answer_is_not_kept(tmp_path: Path) -> None:
    """Data that are not there yet may still come."""
    cache = DayCache(tmp_path, "endpoint")
    cache.store(QUERY, STEP, DAY, Matrix((), np.empty((0, 24))))

    assert not list(tmp_path.rglob("*.npz-checked"))


def test_what_nothing_reads_any_more_is_deleted(tmp_path: Path) -> None:
    """Old queries' days and what a killed process left behind go; what was read lately stays."""
    cache, file = a_filled_cache(tmp_path)
    left = file.with_name("left.unfinished")
    left.write_bytes(b"half")
    now = file.stat().st_mtime
    os.utime(left, (now - 7200, now - 7200))

    cache.prune(now)
    assert file.exists()
    assert not left.exists()

    cache.prune(now + UNUSED_SECONDS + 1)
    assert not file.exists()


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from predictor.sources.cache import DayCache
from predictor.sources.matrix import Matrix

values = np.random.default_rng(1).random((1, 24))
cache = DayCache(Path(sys.argv[1]), "endpoint")
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
cache.store("q", 3600, 1_700_006_400, Matrix(((("a", "b"),),), values))
print(cache.problem)
"""


def test_a_full_disk_leaves_nothing_behind_and_is_said(tmp_path: Path) -> None:
    """The operating system refuses to write on after 300 bytes: the problem is named, no file remains."""
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True)

    assert "cannot be written (File too large)" in done.stdout
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_is_none_is_said_and_does_no_harm(tmp_path: Path) -> None:
    """A file stands where the folder should be, as after a wrong mount."""
    (tmp_path / "endpoint").write_text("not a folder")
    cache = DayCache(tmp_path, "endpoint")

    cache.prune(DAY)
    cache.store(QUERY, STEP, DAY, an_answer())

    assert cache.load(QUERY, STEP, DAY) is None
    assert "cannot be written" in cache.problem or "cannot be deleted" in cache.problem
