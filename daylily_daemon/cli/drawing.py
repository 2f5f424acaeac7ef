"""What is drawn by rich: consoles for ``printing``, bars, tables that change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.text import Text

from daylily_daemon.cli.layout import Line


class _Plain(Console):
    """Draws what it is given, markup and emoji codes as text; a broken pipe is left to ``to_the_end``."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


@cache
def out() -> Console:
    return _Plain()


@cache
def err() -> Console:
    return _Plain(stderr=True)


def text(line: Line) -> Text:
    found = Text()
    for run in line:
        found.append(run.text, run.style or None)
    found.rstrip()
    return found


def table(lines: Iterator[Line]) -> Text:
    """Return a table for ``live``."""
    return Text("\n", no_wrap=True).join(text(line) for line in lines)


def bars() -> Progress:
    """Return bars for a copy, on stderr; they leave nothing behind."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
    return Progress(*columns, console=err(), transient=True)


@contextmanager
def live() -> Iterator[Live]:
    """Show a table that changes, on a terminal; it leaves nothing behind."""
    with Live(console=out(), refresh_per_second=8, transient=True) as shown:
        yield shown
