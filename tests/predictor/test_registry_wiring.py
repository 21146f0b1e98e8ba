"""Settings become a source and a store."""

from pathlib import Path
from typing import Any

import pytest

from predictor.errors import SourceRefused
from predictor.registry.mlflow import MlflowBundleStore
from predictor.settings import PredictorSettings, PrometheusSettings
from predictor.sources.files import FileSource
from predictor.sources.prometheus import PrometheusSource
from predictor.wiring import build_source, build_store


def some_settings(folder: Path, **prometheus: Any) -> PredictorSettings:
    return PredictorSettings(state_folder=folder, prometheus=PrometheusSettings(**prometheus))


def test_the_store_is_mlflow_with_its_copy_in_the_state_folder(tmp_path: Path) -> None:
    """Without a tracking address it is an SQLite file there; nothing is made by building it."""
    store = build_store(some_settings(tmp_path))

    assert isinstance(store.inner, MlflowBundleStore)
    assert store.inner.tracking_uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert store.copy.folder.is_relative_to(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_history_file_stands_in_for_prometheus(tmp_path: Path) -> None:
    """Given, it is the source; otherwise Prometheus is."""
    file = tmp_path / "usage.parquet"

    assert isinstance(build_source(some_settings(tmp_path), file), FileSource)
    assert isinstance(build_source(some_settings(tmp_path)), PrometheusSource)


def test_a_token_file_that_cannot_be_read_names_the_setting(tmp_path: Path) -> None:
    """A mounted secret that is not there is a matter of configuration."""
    with pytest.raises(SourceRefused, match="bearer_token_file"):
        build_source(some_settings(tmp_path, bearer_token_file=tmp_path / "token"))


@pytest.mark.parametrize(
    ("content", "flaw"),
    [
        (b"-----BEGIN KEY-----\ns3cret\n", "holds more than one line"),
        (b"s3cr\xc3\xa9t", "holds characters that no header may hold"),
        (b"s3cr\xfft", "holds characters that no header may hold"),
        (b"\n", "is empty"),
    ],
)
def test_a_token_file_that_holds_no_token_is_refused_unseen(tmp_path: Path, content: bytes, flaw: str) -> None:
    """Whatever it holds instead, such as a private key, is in no message."""
    file = tmp_path / "token"
    file.write_bytes(content)

    with pytest.raises(SourceRefused) as caught:
        build_source(some_settings(tmp_path, bearer_token_file=file))

    assert str(caught.value) == f"prometheus.bearer_token_file: {file} {flaw}"
