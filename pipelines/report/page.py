"""What a page consists of, and the page as one HTML file without any outside link."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


@dataclass(frozen=True, slots=True)
class Headline:
    """A figure that a reader should take away, with the sentence that says what it means."""

    figure: str
    meaning: str
    tone: str = "neutral"
    """`good`, `bad` or `neutral`."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under column heads; the first column is the row's name."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture as base64 PNG, with what to see in it."""

    png_base64: str
    caption: str


@dataclass(frozen=True, slots=True)
class PageSection:
    """A part of the page: a heading, a paragraph that says how to read it, tables and plots."""

    title: str
    lead: str
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    headlines: Sequence[Headline]
    sections: Sequence[PageSection]
    footer: str = ""


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader

    folder = Path(__file__).parent
    return Environment(loader=FileSystemLoader(folder), autoescape=True).get_template("page.html")


def html(page: Page) -> str:
    """The page as HTML; every text is escaped, every picture is inline."""
    return _template().render(page=page)


def write_page(page: Page, file: Path) -> None:
    """Write the page so that a reader never sees half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    part.write_text(html(page), encoding="utf-8")
    part.replace(file)
