"""The documentation says what the code does."""

import re
from pathlib import Path

from click.testing import CliRunner

from autoscaler.simulator.catalog import CATALOG
from foresize.cli import main_group
from tools import crd_page
from tools.settings_page import page

ROOT = Path(__file__).resolve().parents[2]


def test_every_setting_is_documented_as_it_is() -> None:
    """docs/settings.md is what `make docs` writes; a new setting without its line fails here."""
    assert (ROOT / "docs" / "settings.md").read_text() == page()


def test_every_field_of_the_api_is_documented_as_it_is() -> None:
    """docs/api-reference.md is what `make docs` writes from the CRD."""
    assert (ROOT / "docs" / "api-reference.md").read_text() == crd_page.page()


def test_every_field_of_the_api_has_a_meaning() -> None:
    """No row of the page is without a sentence."""
    rows = [line for line in crd_page.page().splitlines() if line.startswith("| `")]

    assert [row for row in rows if row.endswith("|  |")] == []


def test_every_policy_of_a_replay_is_documented() -> None:
    """On the replay's page with its knob, and in `foresize simulate --help`."""
    lines = [line for line in (ROOT / "docs" / "replay.md").read_text().splitlines() if line.startswith("| `")]
    help_text = CliRunner().invoke(main_group, ["simulate", "--help"]).output

    for name, entry in CATALOG.items():
        assert [line for line in lines if f"`{name}`" in line and line.endswith(f"| {entry.knob} |")], name
        assert re.search(rf"\b{name}\b", help_text), name


def test_every_setting_has_a_meaning() -> None:
    """No row of the page is without a sentence."""
    rows = [line for line in page().splitlines() if line.startswith("| `")]

    assert [row for row in rows if row.rstrip(" |").endswith("`")] == []
