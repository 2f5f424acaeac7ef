"""What the commands share: options, settings, and errors as sentences with an exit code."""

from __future__ import annotations

import errno
import os
import re
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import anyio
import typer

from daylily_daemon.application.errors import Invalid, NotFound
from daylily_daemon.cli import later, printing
from daylily_daemon.domain.errors import CREDENTIALS, DaemonError, Impeded, Transient, leaf

if TYPE_CHECKING:
    from daylily_daemon.application.backend import Backend
    from daylily_daemon.settings.sources import Loaded, Sources

T = TypeVar("T")
UsageError: Final[Any] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)
"""What typer raises for a command line it cannot make sense of; it has no public name for all of them."""


INTERRUPTED: Final = 130


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_REACHABLE = 4


class Failed(DaemonError):
    """The command did what it could, and it was not enough."""


class Usage(DaemonError):
    """The arguments do not make sense together."""


CONFIG: Final = "DAYLILY_CONFIG"
"""The variable that names the settings file where no option does."""
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Settings file (YAML).", envvar=CONFIG),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="One setting, as control.bucket=lab."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def _ids(ctx: typer.Context, incomplete: str) -> list[str]:
    return later.ids.ids_for(ctx, incomplete)


WorksetArgument = Annotated[
    str, typer.Argument(metavar="WORKSET", help="Id of the workset.", autocompletion=_ids)
]


def sources(
    config: Path | None, settings: list[str] | None, *required: str, **flags: str | None
) -> Sources:
    """Return where settings come from. Raises Usage for a ``--set`` without ``=``."""
    pairs: dict[str, str] = {}
    for text in settings or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise Usage(f"--set {text}: write it as KEY=VALUE, for example control.bucket=lab.")
        pairs[key.strip()] = value
    pairs.update({k.replace("__", "."): v for k, v in flags.items() if v is not None})
    return later.sources.Sources(
        config=config, environment=os.environ, command_line=pairs, required=tuple(required)
    )


def loaded(config: Path | None, settings: list[str] | None, *required: str) -> Loaded:
    """Load settings for a command that talks to AWS; what is wrong with them ends the command."""
    with reporting():
        found = later.sources.load(sources(config, settings, *required))
    later.telemetry.configure("warning", json=False)
    return found


@contextmanager
def reporting() -> Iterator[None]:
    """Turn what went wrong into a sentence on stderr and the exit code that belongs to it."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except Exception as exc:  # noqa: BLE001 - the one blanket of a command: people read sentences
        found = leaf(exc)
        if isinstance(found, (UsageError, typer.Exit, typer.Abort, BrokenPipeError)):
            raise found from None
        known = isinstance(found, DaemonError)
        printing.complain(str(found) if known else unforeseen(found))
        raise typer.Exit(int(exit_code(found))) from None


def exit_code(error: BaseException) -> Exit:
    """Return the exit code that belongs to what went wrong."""
    if isinstance(error, Impeded) and error.code == CREDENTIALS:
        return Exit.NOT_REACHABLE
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.FAILED)


_CODES: Final = (
    (Usage, Exit.USAGE),
    (Invalid, Exit.USAGE),
    (NotFound, Exit.NOT_FOUND),
    (Impeded, Exit.FAILED),
    (Transient, Exit.NOT_REACHABLE),
)
"""The first kind that fits decides."""


_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})


def unforeseen(error: BaseException) -> str:
    """Return what to say of an exception that nobody translated, and where it was raised."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return printing.unwritten(error)
    *_, frame = traceback.extract_tb(error.__traceback__) or [None]
    place = f" at {Path(frame.filename).name}:{frame.lineno}" if frame else ""
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    return f"This command met something nobody foresaw{place} ({what}). Please report it with this line."


def run_async(work: Callable[[], Awaitable[T]]) -> T:
    """Run ``work`` to its end, reporting our errors as the shell expects."""
    with reporting():
        return anyio.run(work)
    raise AssertionError("reporting either returns or raises")


def seconds(text: str) -> float:
    """Return the length of an age such as ``90m``. Raises Usage."""
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise Usage(f"{text[:100]!r} is no age: write 30s, 90m, 12h, 7d or 2w.")
    return float(found[1]) * _UNITS_S[found[2]]


_AGE: Final = re.compile(r"([0-9]{1,9})([smhdw])")
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def with_backend(found: Loaded, work: Callable[[Backend], Awaitable[T]]) -> T:
    return run_async(partial(_with_backend, found, work))


async def _with_backend(found: Loaded, work: Callable[[Backend], Awaitable[T]]) -> T:
    async with later.backend.open_backend(found.settings) as backend:
        return await work(backend)
