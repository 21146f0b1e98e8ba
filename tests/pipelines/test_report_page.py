"""The report is one file that opens anywhere."""

import re
from pathlib import Path

import numpy as np

from pipelines.report.page import Headline, Page, PageSection, Table, html, write_page
from pipelines.report.plots import coverage_by_level, forecast_band, peak_over_usage, replicas_over_demand

TIMES = np.arange(0, 3600, 300, dtype=np.int64)
USAGE = np.linspace(1.0, 2.0, TIMES.size)


def a_page() -> Page:
    plots = (
        forecast_band(TIMES, USAGE, (0.5, 0.99), np.stack([USAGE, USAGE + 1]), title="t", unit="cores", caption="band"),
        replicas_over_demand(TIMES, USAGE, {"foresize": USAGE + 1, "HPA": USAGE - 0.5}, title="t", caption="replicas"),
        peak_over_usage(TIMES, USAGE, USAGE * 0 + 1.8, requested=4.0, title="t", unit="cores", caption="pool"),
        coverage_by_level((0.5, 0.9), {"cpu": (0.48, 0.91)}, title="t", caption="coverage"),
    )
    table = Table(("workload", "minutes"), (("shop/Deployment/<cart>", "3"),), "short")
    section = PageSection("Replicas", "How to read it.", (table,), plots, ("a note",))
    return Page("foresize", "21 days", (Headline("3 min", "under-provisioned", "good"),), (section,), "made by a test")


def test_the_page_links_to_nothing_outside() -> None:
    """No script, style, font or picture comes from elsewhere: the file works offline and tells nobody."""
    text = html(a_page())

    assert re.findall(r'(?:src|href)="(?!data:)', text) == []
    assert "<script" not in text


def test_every_text_is_escaped() -> None:
    """A workload's name is data: it can never become markup."""
    text = html(a_page())

    assert "shop/Deployment/&lt;cart&gt;" in text
    assert "<cart>" not in text


def test_everything_given_is_on_the_page() -> None:
    """Headline, table, plots with captions, notes and footer all arrive."""
    text = html(a_page())

    assert text.count("data:image/png;base64,") == 4
    assert all(part in text for part in ("3 min", "under-provisioned", "How to read it.", "a note", "made by a test"))


def test_a_page_is_written_whole(tmp_path: Path) -> None:
    """The file appears under its name only when it is complete."""
    write_page(a_page(), tmp_path / "deep" / "report.html")

    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["report.html"]
