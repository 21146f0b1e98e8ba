"""docs/python-api.md says what can be typed."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from predictor.usage.table import table_from_panel
from tests.support.panels import a_fleet

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python-api.md"


def test_the_examples_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a file of usage and one of what came later, as somebody who copies them would run them."""
    table = table_from_panel(a_fleet(days=13, series=1))
    is_new = table["timestamp"] >= table["timestamp"].max() - pd.Timedelta(hours=2)
    table[~is_new].to_parquet(tmp_path / "usage.parquet")
    table.to_parquet(tmp_path / "newer.parquet")
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}

    for example in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(example, known)

    assert known["model"].cutoff == table["timestamp"].max()
    assert set(known["forecast"]["target"]) == {"step", "peak_1h"}
    assert "foresize" in set(known["whole"]["method"])
    assert 20 < known["peak"].value < 40
    assert known["peak"].blocks == 28
    assert set(known["by_hour"]["level"]) == {0.5, 0.9, 0.99}
