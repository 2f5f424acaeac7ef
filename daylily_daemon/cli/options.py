"""What the commands share: options, settings, and errors as sentences with an exit code."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import anyio
import typer
from rich.console import Console

from daylily_daemon import telemetry
from daylily_daemon.bootstrap import Tools, open_tools
from daylily_daemon.domain.errors import DaemonError, Permanent, Transient
from daylily_daemon.domain.model import WORKSET_ID, Workset, WorksetId
from daylily_daemon.settings import BadSettings, Loaded, Sources, load

T = TypeVar("T")
out = Console(highlight=False)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_REACHABLE = 4


class NotFound(DaemonError):
    """What was asked for does not exist."""


class Failed(DaemonError):
    """The command did what it could, and it was not enough."""


class Usage(DaemonError):
    """The arguments do not make sense together."""


ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Settings file (YAML).", envvar="DAYLILY_CONFIG"),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="One setting, as control.bucket=lab."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
WorksetArgument = Annotated[str, typer.Argument(metavar="WORKSET", help="Id of the workset.")]


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
    return Sources(
        config=config, environment=os.environ, command_line=pairs, required=tuple(required)
    )


def loaded(config: Path | None, settings: list[str] | None, *required: str) -> Loaded:
    """Load settings for a command that talks to AWS; what is wrong with them ends the command."""
    with reporting():
        found = load(sources(config, settings, *required))
    telemetry.configure("warning", json=False)
    return found


@contextmanager
def reporting() -> Iterator[None]:
    """Turn our errors into a sentence on stderr and the exit code that belongs to it."""
    try:
        yield
    except BaseExceptionGroup as group:
        known, rest = group.split(DaemonError)
        if rest is not None or known is None:
            raise
        _leave(_leaf(known))
    except DaemonError as exc:
        _leave(exc)
    except (KeyboardInterrupt, BrokenPipeError):
        raise typer.Exit(130) from None


def _leave(exc: BaseException) -> None:
    code = next((code for kind, code in _CODES if isinstance(exc, kind)), Exit.FAILED)
    err.print(str(exc), style="red", markup=False)
    raise typer.Exit(int(code))


_CODES = (
    (BadSettings, Exit.USAGE),
    (Usage, Exit.USAGE),
    (NotFound, Exit.NOT_FOUND),
    (Transient, Exit.NOT_REACHABLE),
    (Failed, Exit.FAILED),
    (Permanent, Exit.FAILED),
)


def _leaf(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def run_async(work: Callable[[], Awaitable[T]]) -> T:
    """Run ``work`` to its end, reporting our errors as the shell expects."""
    with reporting():
        return anyio.run(work)
    raise AssertionError("reporting either returns or raises")


def with_tools(found: Loaded, work: Callable[[Tools], Awaitable[T]]) -> T:
    return run_async(partial(_with_tools, found, work))


async def _with_tools(found: Loaded, work: Callable[[Tools], Awaitable[T]]) -> T:
    async with open_tools(found.settings) as tools:
        return await work(tools)


def workset_id(text: str) -> WorksetId:
    """Raises Usage for what can be no id."""
    if not WORKSET_ID.fullmatch(text):
        raise Usage(
            f"{text!r} is no workset id: letters, digits, - and _, at most 80, the first a letter or digit."
        )
    return WorksetId(text)


async def existing(tools: Tools, text: str) -> Workset:
    """Return the workset. Raises NotFound."""
    ws = await tools.worksets.load(workset_id(text))
    if ws is None:
        raise NotFound(f"There is no workset {text}. `daylily-daemon list` shows those there are.")
    return ws
