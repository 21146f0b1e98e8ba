"""What the commands share: how settings are asked for, progress, the exit codes of bad input and of being stopped."""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from types import FrameType

    from pipelines.flows.clock import Told
    from pipelines.settings import Settings

LoadSettings = Callable[[Mapping[tuple[str, ...], Any]], "Settings"]
"""How a command asks for its settings: by key path, options that override files and variables; None is not given."""

HISTORY = click.Path(exists=True, dir_okay=False, path_type=Path)


class FiniteRange(click.FloatRange):
    """A number within bounds. `nan` and `inf` are floats to Python, but no amount of anything."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number. Fails where it is none."""
        number = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class BadInput(click.ClickException):
    """Input or configuration that cannot be used. Exit code 2."""

    exit_code = 2


@contextmanager
def shown_progress() -> "Iterator[Told]":
    """Bars on a terminal, one line per finished step elsewhere; on standard error, so that output stays clean."""
    if not sys.stderr.isatty():
        begun: dict[str, float] = {}

        def told(step: str, done: int, total: int) -> None:
            begun.setdefault(step, time.monotonic())
            if done == total:
                click.echo(f"{step}: {time.monotonic() - begun.pop(step):.1f} s", err=True)

        yield told
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<10}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def drawn(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=None)
            # A step that does not say how far it is moves to and fro until it is over.
            bars.update(tasks[step], completed=done, total=None if (done, total) == (0, 1) else total)

        yield drawn


@contextmanager
def bad_input() -> Iterator[None]:
    """What the user can mend in the input or the configuration ends with exit code 2."""
    from pipelines.errors import TO_BE_MENDED

    try:
        yield
    except TO_BE_MENDED as error:
        raise BadInput(str(error)) from error


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """A pod that is told to stop ends as if interrupted at the keyboard: the run is marked, nothing is left behind."""

    def stop(_number: int, _frame: "FrameType | None") -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def check_outputs(read: Mapping[str, Path | None], written: Mapping[str, Path | None]) -> None:
    """Refuses, before any work is done for them, files to write that are read as well, that are the same, or that
    cannot be written; both by option, None is not given.
    """
    taken = {path.resolve(): option for option, path in read.items() if path is not None}
    for option, path in written.items():
        if path is None:
            continue
        other = taken.setdefault(path.resolve(), option)
        if other != option:
            raise BadInput(f"{option} and {other} are the same file, {path}: name another for {option}")
        _writable(path)


def _writable(path: Path) -> None:
    import tempfile

    if not path.parent.is_dir():
        raise BadInput(f"{path}: cannot be written: there is no folder {path.parent}")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from error


def check_one_source(history: Path | None, prometheus: str | None) -> None:
    """Refuses two sources at once."""
    if history is not None and prometheus is not None:
        raise click.UsageError("--history and --prometheus exclude each other: usage is read from one place")


def numbers(option: str, text: str | None) -> list[float] | None:
    """A comma-separated list of numbers; None is not given."""
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{option}: {text!r} is not a list of numbers such as 0.5,0.9,0.99") from None


def names(text: str | None) -> list[str] | None:
    """A comma-separated list of names; None is not given."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]
