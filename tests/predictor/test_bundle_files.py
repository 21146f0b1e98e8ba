"""A bundle in a folder: read back whole and to the bit, or refused with what is wrong."""

import json
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from models import catalog
from models.calibration import Calibration
from models.forecast import Forecaster, Target
from predictor.errors import CorruptModel
from predictor.serving.bundle import Bundle, SeriesModel
from predictor.usage.kin import UNKNOWN_KIN, Kin
from predictor.usage.panel import Resource, SeriesKey
from tests.support.bundles import some_usage
from tests.support.histories import STEP_SECONDS
from tests.support.panels import a_fleet

LEVELS = (0.5, 0.95)


@cache
def learned(resource: Resource) -> Forecaster:
    fleet = a_fleet()
    small = catalog.create("lightgbm_quantiles", levels=LEVELS, rounds=8, maximum_rows=2000, threads=1)
    return small.fit(fleet.history().select(fleet.rows(resource)), Target(8))


def a_learned_bundle() -> Bundle:
    """Two resources with a booster per level each, beside a baseline."""
    forecasters = {(r, "lightgbm_quantiles"): learned(r) for r in (Resource.CPU, Resource.MEMORY)}
    series = {
        key: SeriesModel(
            key,
            "seasonal_naive" if key.workload == "shop/CronJob/burst" else "lightgbm_quantiles",
            {"seasonal_naive": 1.25, "lightgbm_quantiles": 1 / 3},
            gate_passed=row % 2 == 0,
            reason=f"größer als {row}",
            kin=Kin("registry/shop,registry/proxy" if row % 2 else "", f"Kafka/k{row % 3}"),
        )
        for row, key in enumerate(a_fleet().keys)
    }
    return Bundle(
        STEP_SECONDS,
        Target(8),
        LEVELS,
        forecasters | {(Resource.CPU, "seasonal_naive"): catalog.create("seasonal_naive")},
        series,
        a_fleet().end_seconds,
        calibrations={Resource.CPU: a_record(len(a_fleet().rows(Resource.CPU)))},
    )


def a_record(series: int) -> Calibration:
    """Some coverage of each series."""
    empty = Calibration.without_record(series, LEVELS, 8)
    covered = np.sort(np.random.default_rng(0).uniform(0, 9, empty.covered.shape), axis=2)
    return Calibration(empty.levels, empty.part_ends, covered, empty.evidence + 9)


def test_a_bundle_comes_back_to_the_bit(tmp_path: Path) -> None:
    """The same forecasts, and everything that was known of each series."""
    made = a_learned_bundle()
    made.save(tmp_path / "a" / "b")

    back = Bundle.load(tmp_path / "a" / "b")

    panel = a_fleet(seed=3)
    np.testing.assert_array_equal(back.forecast(panel).forecast.values, made.forecast(panel).forecast.values)
    assert back.forecast(panel).outcomes == made.forecast(panel).outcomes
    assert list(back.series) == list(made.series)
    np.testing.assert_array_equal(back.calibrations[Resource.CPU].covered, made.calibrations[Resource.CPU].covered)
    for key, model in made.series.items():
        assert (back.series[key].scores, back.series[key].gate_passed) == (model.scores, model.gate_passed)
        assert back.series[key].kin == model.kin
    assert (back.levels, back.trained_until_seconds) == (made.levels, made.trained_until_seconds)


def test_a_bundle_of_before_images_and_owners_were_known_is_read(tmp_path: Path) -> None:
    """The version before has neither: it forecasts as it did, and nothing is known of its kin."""
    made = a_learned_bundle()
    made.save(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for row in manifest["content"]["series"]:
        del row["image"], row["owner"]
    body = json.dumps([manifest["content"], manifest["texts"]], sort_keys=True)
    manifest |= {"version": 3, "content_sha256": sha256(body.encode()).hexdigest()}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))

    back = Bundle.load(tmp_path)

    panel = a_fleet(seed=3)
    np.testing.assert_array_equal(back.forecast(panel).forecast.values, made.forecast(panel).forecast.values)
    assert {model.kin for model in back.series.values()} == {UNKNOWN_KIN}


def test_the_same_bundle_gives_the_same_bytes(tmp_path: Path) -> None:
    """So that two trainings on the same data can be told to be the same."""
    a_learned_bundle().save(tmp_path / "one")
    Bundle.load(tmp_path / "one").save(tmp_path / "two")

    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) == 2 + 2 * len(LEVELS)
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_saving_over_another_bundle_leaves_nothing_of_it(tmp_path: Path) -> None:
    """Boosters of the earlier one are gone."""
    a_learned_bundle().save(tmp_path)
    panel = some_usage()
    small = Bundle(
        STEP_SECONDS, Target(8), LEVELS, {(Resource.CPU, "seasonal_naive"): catalog.create("seasonal_naive")}, {}, 0
    )

    small.save(tmp_path)

    assert list((tmp_path / "boosters").iterdir()) == []
    assert Bundle.load(tmp_path).forecast(panel).outcomes == small.forecast(panel).outcomes


def test_nothing_is_pickled(tmp_path: Path) -> None:
    """Arrays are read with pickles off, and no file holds one."""
    a_learned_bundle().save(tmp_path)

    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)


def truncate(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return damage


def flip_a_byte(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(bytes(data))

    return damage


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def edit(change: Callable[[dict], None]) -> Callable[[Path], None]:  # type: ignore[type-arg]
    def damage(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return damage


def truncate_with_a_fitting_checksum(folder: Path) -> None:
    truncate("boosters/0000.txt")(folder)
    digest = sha256((folder / "boosters/0000.txt").read_bytes()).hexdigest()
    edit(lambda m: m["files"].update({"boosters/0000.txt": digest}))(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("manifest.json"), r"manifest.json cannot be read \(No such file"),
        (truncate("manifest.json"), "manifest.json is not JSON"),
        (remove("arrays.npz"), "arrays.npz cannot be read"),
        (truncate("arrays.npz"), "arrays.npz does not match its checksum"),
        (flip_a_byte("arrays.npz"), "arrays.npz does not match its checksum"),
        (remove("boosters/0001.txt"), "boosters/0001.txt cannot be read"),
        (truncate("boosters/0002.txt"), "boosters/0002.txt does not match its checksum"),
        (truncate_with_a_fitting_checksum, "boosters of lightgbm_quantiles are damaged"),
        (edit(lambda m: m["content"].update(step_seconds=9)), "manifest.json does not match its checksum"),
        (edit(lambda m: m["content"]["series"].pop()), "manifest.json does not match its checksum"),
        (edit(lambda m: m.pop("content")), "damaged: 'content'"),
        (edit(lambda m: m.update(files=[])), "damaged"),
        (edit(lambda m: m["files"].update({"../../outside": "0"})), "lies outside"),
        (edit(lambda m: m.update(format="other")), "holds no foresize-bundle"),
        (lambda f: (f / "manifest.json").write_text("[]"), "holds no foresize-bundle"),
        (edit(lambda m: m.update(version=6)), "has format version 6, this foresize reads 3, 4, 5"),
    ],
)
def test_a_damaged_or_foreign_folder_is_refused(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    """Whatever is missing, cut, changed or of another format is named; nothing is half-read."""
    a_learned_bundle().save(tmp_path)
    damage(tmp_path)

    with pytest.raises(CorruptModel, match=message):
        Bundle.load(tmp_path)


def test_an_unknown_forecaster_is_refused(tmp_path: Path) -> None:
    """A bundle of a foresize that knew more forecasters, whose checksums all hold."""
    a_learned_bundle().save(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["content"]["forecasters"][0]["name"] = "prophet"
    body = json.dumps([manifest["content"], manifest["texts"]], sort_keys=True)
    manifest["content_sha256"] = sha256(body.encode()).hexdigest()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(CorruptModel, match="no forecaster 'prophet'"):
        Bundle.load(tmp_path)


def test_an_interrupted_save_cannot_be_loaded(tmp_path: Path) -> None:
    """Without the manifest, which comes last, there is no bundle; not even the one that was there before."""
    a_learned_bundle().save(tmp_path)
    (tmp_path / "boosters/0000.txt").unlink()
    (tmp_path / "boosters/0000.txt").mkdir()

    with pytest.raises(OSError):
        a_learned_bundle().save(tmp_path)

    with pytest.raises(CorruptModel, match=r"manifest\.json cannot be read"):
        Bundle.load(tmp_path)


def test_a_key_of_the_bundle_is_a_series_key(tmp_path: Path) -> None:
    """After loading, a series is found under the same name."""
    a_learned_bundle().save(tmp_path)

    assert SeriesKey("shop/Deployment/w0", Resource.MEMORY) in Bundle.load(tmp_path).series
