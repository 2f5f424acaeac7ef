"""The one door through which commands reach a terminal, a pipe or a file.

Nothing else in the package may print, write to stdout or stderr, or make a Console (``tests/arch`` looks):
so whatever is printed was made printable first. Widths count on terminals only; ``COLUMNS`` is what people
set for those. What programs read is never cut and never wrapped.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

from daylily_daemon.cli import later

if TYPE_CHECKING:
    from daylily_daemon.cli.layout import Grid, Line


UNKNOWN_WIDTH: Final = 80
BROKEN_PIPE: Final = 141
"""As the shell shows a program that SIGPIPE ended."""


def prepare() -> None:
    """Let no character fail that the locale of this terminal cannot show: it is spelled out."""
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # replaced by a test or an embedding program
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _open_what_is_closed() -> None:
    """Have all three streams (``>&-`` closes one): no file that is opened later may be taken for one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def say(text: str = "", style: str = "") -> None:
    """Print sentences for whoever asked; on a terminal they are broken between words."""
    _print(_lines(text, width(), style))


def say_whole(text: str) -> None:
    """Print a line that is meant to be copied: a command, an address. It is never broken."""
    _print(_lines(text, None))


def say_as_it_is(text: str) -> None:
    """Print what was laid out already: a help, a script."""
    _print(_lines(text, None))


def complain(text: str, style: str = "red") -> None:
    """Print sentences on stderr."""
    with _heard_or_not():
        _print(_lines(text, _width(sys.stderr), style), stderr=True)


def complain_as_it_is(text: str) -> None:
    """Print on stderr what was laid out already: the help of a command, a tail of a log."""
    with _heard_or_not():
        _print(_lines(text, None), stderr=True)


def _lines(text: str, room: int | None, style: str = "") -> Iterator[Line]:
    layout = later.layout
    return ((layout.Piece(line, style),) for line in layout.wrapped(text, room))


@contextmanager
def _heard_or_not() -> Iterator[None]:
    """A stderr that takes nothing must not change how the command ends."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError:
        return


def say_facts(pairs: Iterable[tuple[str, str]]) -> None:
    _print(later.layout.facts(pairs, width()))


def say_grid(grid: Grid) -> None:
    _print(grid.lines(width()))


def say_lines(lines: Iterable[Line]) -> None:
    _print(lines)


def say_json(value: Any) -> None:
    """Print ``value``, which holds only what JSON has. What a terminal might obey is written as an escape."""
    _say_json(value, indent=2)


def _say_json(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    out = later.drawing.out()
    out.file.write("".join(_escaped(char) for char in text) + "\n")
    out.file.flush()


def _escaped(char: str) -> str:
    return char if char == "\n" or later.printable.is_plain(char) else json.dumps(char)[1:-1]


def write_bytes(data: bytes) -> None:
    """Write to stdout exactly what is given: for ``--raw`` alone."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def write_text(text: str) -> None:
    """Write lines that were made printable already, without adding a line end."""
    out = later.drawing.out()
    out.file.write(text)
    out.file.flush()


def width() -> int | None:
    """Return how many cells a line of stdout has; None for a pipe or a file: as many as it takes."""
    return _width(sys.stdout)


def is_terminal() -> bool:
    return sys.stdout.isatty()


def somebody_is_there() -> bool:
    """Tell whether a question can be read and answered here."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def agreed(question: str) -> bool:
    """Ask on stderr; only ``y`` and ``yes`` are a yes, and the end of the input is a no."""
    complain_as_it_is(f"{question} [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def tell_grid(grid: Grid) -> None:
    """Print a table on stderr, for who is asked about it."""
    with _heard_or_not():
        _print(grid.lines(_width(sys.stderr)), stderr=True)


def say_line(value: Any) -> None:
    """Print ``value`` as one line of JSON."""
    _say_json(value, indent=None)


def log_stream() -> IO[str]:
    """Return where log lines go; only ``telemetry`` writes there, through the same rules."""
    return sys.stderr


@contextmanager
def to_the_end() -> Iterator[None]:
    """Turn a reader that went away, or a full disk behind stdout, into an exit code without a traceback."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise SystemExit(BROKEN_PIPE) from None
    except OSError as exc:
        complain(unwritten(exc))
        raise SystemExit(1) from None
    finally:
        _let_go(sys.stdout)
        _let_go(sys.stderr)


def unwritten(error: OSError) -> str:
    """Return what to say of output that could not be stored."""
    where = f" to {error.filename}" if error.filename else ""
    what = f"This command could not write all it had to say{where}: {error.strerror}."
    return f"{what} Make room and run it again."


def _let_go(stream: IO[str]) -> None:
    """Leave nothing buffered that the interpreter could not write: it would end with another exit code."""
    try:
        stream.flush()
    except OSError:
        _close_quietly(stream)


def _close_quietly(stream: IO[str]) -> None:
    """Point the descriptor elsewhere: what is still buffered must not complain at the interpreter's end."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def _width(stream: IO[str]) -> int | None:
    if not stream.isatty():
        return None
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told):
        return int(told)
    try:
        return os.get_terminal_size(stream.fileno()).columns or UNKNOWN_WIDTH
    except (OSError, ValueError):
        return UNKNOWN_WIDTH


def _print(lines: Iterable[Line], *, stderr: bool = False) -> None:
    console = later.drawing.err() if stderr else later.drawing.out()
    for line in lines:
        console.print(later.drawing.text(line), soft_wrap=True)


def leave(code: int) -> NoReturn:
    """End now. A thread that hangs on a dead mount would be waited for by an orderly exit, for ever."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
