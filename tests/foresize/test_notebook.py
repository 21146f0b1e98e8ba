"""The notebook in docs/ runs as it is, and is kept without what it printed."""

from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "notebook.ipynb"


def the_notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]  # it has types only in part


def test_the_notebook_holds_no_outputs() -> None:
    """A diff of it shows what somebody wrote, and nothing that a run left behind."""
    cells = [cell for cell in the_notebook().cells if cell.cell_type == "code"]

    assert len(cells) > 10
    assert [cell for cell in cells if cell.outputs or cell.execution_count] == []


def test_the_notebook_runs(tmp_path: Path) -> None:
    """From top to bottom in a kernel of its own, in an empty folder that stays empty; it compares forecasts itself."""
    notebook = the_notebook()

    NotebookClient(notebook, timeout=100, resources={"metadata": {"path": str(tmp_path)}}).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert list(tmp_path.iterdir()) == []
