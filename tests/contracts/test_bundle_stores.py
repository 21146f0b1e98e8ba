"""What every bundle store promises: memory, a folder, MLflow on SQLite, and a real MLflow server."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.steps.record import Submission
from pipelines.tracking.mlflow import MlflowTracker
from predictor.errors import CorruptModel, ModelNotFound
from predictor.registry.folder import FolderBundleStore
from predictor.registry.memory import MemoryBundleStore
from predictor.registry.mlflow import MlflowBundleStore, prepare_mlflow
from predictor.serving.bundle import Bundle
from predictor.serving.ports import BundleStore
from predictor.usage.panel import Resource
from tests.support.bundles import a_bundle, some_usage
from tests.support.mlflow_server import mlflow_server


@dataclass
class Kept:
    """A store, and how a model gets into it: the port only reads."""

    store: BundleStore
    add: Callable[[Bundle], str]
    set_alias: Callable[[str, str], None]


def in_mlflow(uri: str) -> Kept:
    """A registered model filled by the tracker that `foresize train` uses."""
    tracker = MlflowTracker(uri, "contract", "contract-model", "champion")

    def client() -> Any:
        prepare_mlflow()
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri, registry_uri=uri)

    def add(bundle: Bundle) -> str:
        with tracker.run({}) as run:
            return run.register(Submission(bundle, {"foresize.fingerprint": "f"}, some_usage()))

    def set_alias(alias: str, version: str) -> None:
        client().set_registered_model_alias("contract-model", alias, version)

    return Kept(MlflowBundleStore(uri, "contract-model"), add, set_alias)


@pytest.fixture(
    scope="module",
    params=["memory", "folder", "mlflow-sqlite", pytest.param("mlflow-server", marks=pytest.mark.real)],
)
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """Each kind of store, empty at first; the facts below only ever add to it."""
    folder = tmp_path_factory.mktemp("store")
    with ExitStack() as stack:
        match request.param:
            case "memory":
                memory = MemoryBundleStore()
                yield Kept(memory, memory.add, memory.set_alias)
            case "folder":
                files = FolderBundleStore(folder / "models")
                yield Kept(files, files.add, files.set_alias)
            case "mlflow-sqlite":
                yield in_mlflow(f"sqlite:///{folder / 'mlflow.db'}")
            case _:
                yield in_mlflow(stack.enter_context(mlflow_server(folder)).uri)


def test_an_alias_that_nobody_set_is_not_found(kept: Kept) -> None:
    """And the message says how to get a model."""
    with pytest.raises(ModelNotFound, match="foresize train"):
        kept.store.version_of("nobody")


def test_a_bundle_comes_back_bit_identically(kept: Kept) -> None:
    """What was put in forecasts the same when it comes out."""
    bundle = a_bundle(0.3)

    loaded = kept.store.load(kept.add(bundle))

    assert loaded.trained_until_seconds == bundle.trained_until_seconds
    np.testing.assert_array_equal(
        loaded.forecast(some_usage()).forecast.values, bundle.forecast(some_usage()).forecast.values
    )


def test_an_alias_names_the_version_it_was_pointed_to(kept: Kept) -> None:
    """Moved, it names the other one; both versions stay as they were."""
    first, second = kept.add(a_bundle(0.8)), kept.add(a_bundle(0.7))

    kept.set_alias("champion", first)
    before = kept.store.version_of("champion")
    kept.set_alias("champion", second)

    assert (before, kept.store.version_of("champion")) == (first, second)
    for version, covered in ((first, 0.8), (second, 0.7)):
        loaded = kept.store.load(version).calibrations[Resource.CPU]
        np.testing.assert_array_equal(loaded.covered, a_bundle(covered).calibrations[Resource.CPU].covered)


@pytest.mark.parametrize("version", ["4711", "../1", "champion", ""])
def test_a_version_that_is_not_there_is_not_found(kept: Kept, version: str) -> None:
    """Whatever a configuration may name: it is an answer, not a breakdown, and never a path."""
    kept.add(a_bundle())

    with pytest.raises(ModelNotFound):
        kept.store.load(version)


def test_a_model_that_was_damaged_in_the_store_is_never_loaded(tmp_path: Path) -> None:
    """One byte changed in what the registry keeps is a CorruptModel that names the version."""
    kept = in_mlflow(f"sqlite:///{tmp_path / 'mlflow.db'}")
    version = kept.add(a_bundle())
    (arrays,) = tmp_path.rglob("arrays.npz")
    content = bytearray(arrays.read_bytes())
    content[len(content) // 2] ^= 0xFF
    arrays.write_bytes(content)

    with pytest.raises(CorruptModel, match=f"version {version}"):
        kept.store.load(version)


def test_a_model_that_foresize_did_not_make_is_never_loaded(tmp_path: Path) -> None:
    """A foreign version under our name is refused without running its code or fetching its files."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    kept = in_mlflow(uri)
    kept.add(a_bundle())
    from mlflow import MlflowClient

    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "MLmodel").write_text("flavors: {python_function: {loader_module: os}}\n")
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    version = client.create_model_version("contract-model", foreign.as_uri()).version

    with pytest.raises(CorruptModel, match="was not made by foresize"):
        kept.store.load(str(version))
