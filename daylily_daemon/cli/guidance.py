"""``help`` and ``completion``: what the program tells of itself."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.options import Usage, reporting

PROGRAM = "daylily-daemon"


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def _commands(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the commands that begin so; behind the first word none."""
    names = list(later.app.COMMANDS) if not ctx.params.get("command") else []
    return [name for name in names if name.startswith(incomplete)]


def help_(
    ctx: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND", help="As it is called: list, dlq show.", autocompletion=_commands
        ),
    ] = None,
) -> None:
    """Show the help of a command, or the list of all.

    Example: daylily-daemon help retry
    """
    with reporting():
        printing.say_as_it_is(_help_of(command or [], ctx.find_root()))


def _help_of(words: list[str], context: Any) -> str:
    """Raises Usage for a command that there is not."""
    for word in words:
        found = later.app.command_of(context.command, word)
        if found is None:
            raise Usage(f"There is no command {' '.join(words)}. `{PROGRAM} help` lists them.")
        context = type(context)(found, info_name=word, parent=context)
    return str(context.get_help())


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print what makes a shell complete commands, options and ids of worksets.

    For bash: eval "$(daylily-daemon completion bash)"

    Example: daylily-daemon completion bash
    """
    printing.say_as_it_is(later.app.completion_script(PROGRAM, str(shell)))
