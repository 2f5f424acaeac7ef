"""``dlq``: the messages that were given up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Final, TypeVar

import typer

from daylily_daemon.adapters.deadletters import DeadLetter, DeadLetters
from daylily_daemon.bootstrap import Tools
from daylily_daemon.cli import output, printing
from daylily_daemon.cli.layout import Column, Grid
from daylily_daemon.cli.options import (
    ConfigOption,
    JsonOption,
    NotFound,
    SetOption,
    Usage,
    loaded,
    with_tools,
)

T = TypeVar("T")
LISTED: Final = (
    Column(heading="MESSAGE"),
    Column(heading="QUEUE", missed=1),
    Column(heading="SENT (UTC)", missed=2),
    Column(heading="TRIES", missed=3),
    Column(heading="REASON"),
)
IdArgument = Annotated[
    str, typer.Argument(metavar="MESSAGE", help="Id of the message, or how it begins.")
]
OptionalId = Annotated[
    str, typer.Argument(metavar="[MESSAGE]", help="Id of the message, or how it begins.")
]
AllOption = Annotated[bool, typer.Option("--all", help="Every message.")]
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def _work(config: ConfigOption, set_: SetOption, do: Callable[[DeadLetters], Awaitable[T]]) -> T:
    async def work(tools: Tools) -> T:
        return await do(await tools.dead_letters())

    return with_tools(loaded(config, set_), work)


def _json(letter: DeadLetter) -> dict[str, object]:
    return {
        "id": letter.id,
        "queue": letter.queue,
        "sent_at": letter.sent_at,
        "tries": letter.tries,
        "reason": letter.reason,
        "body": letter.body,
    }


@app.command("list")
def list_(config: ConfigOption = None, set_: SetOption = None, json: JsonOption = False) -> None:
    """List the messages that were given up, with the reason.

    Example: daylily-daemon dlq list
    """
    letters = _work(config, set_, _looked_at)
    if json:
        output.print_json([_json(letter) for letter in letters])
        return
    if not letters:
        printing.say("No message was given up.")
        return
    rows = [
        (found.id, found.queue, output.when(found.sent_at), str(found.tries), found.reason)
        for found in letters
    ]
    printing.say_grid(Grid(columns=LISTED, rows=rows))


@app.command()
def show(
    message: IdArgument,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Show one message whole.

    Example: daylily-daemon dlq show 3f2a91c0
    """

    async def find(found: DeadLetters) -> DeadLetter:
        return _one(await _looked_at(found), message)

    letter = _work(config, set_, find)
    if json:
        output.print_json(_json(letter))
        return
    pairs = [(name, str(value)) for name, value in _json(letter).items()]
    printing.say_facts(pairs)


@app.command()
def replay(
    message: OptionalId = "",
    all_: AllOption = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Send a message to its queue again, for example after an upgrade that can read it.

    Example: daylily-daemon dlq replay 3f2a91c0
    """

    async def send(found: DeadLetters) -> int:
        chosen = await _taken(found, message, all_)
        for letter in chosen:
            await found.replay(letter)
        return len(chosen)

    printing.say(f"{_work(config, set_, send)} messages sent again.")


@app.command()
def drop(
    message: OptionalId = "",
    all_: AllOption = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Delete a message for good.

    Example: daylily-daemon dlq drop 3f2a91c0
    """

    async def delete(found: DeadLetters) -> int:
        chosen = await _taken(found, message, all_)
        for letter in chosen:
            await found.drop(letter)
        return len(chosen)

    printing.say(f"{_work(config, set_, delete)} messages dropped.")


async def _looked_at(found: DeadLetters) -> list[DeadLetter]:
    letters = await found.look()
    await found.put_back(letters)
    return letters


async def _taken(found: DeadLetters, id: str, all_: bool) -> list[DeadLetter]:
    """Return the messages asked for; the others can be looked at again."""
    letters = await found.look()
    chosen: list[DeadLetter] = []
    try:
        chosen = _chosen(letters, id, all_)
    finally:
        await found.put_back([letter for letter in letters if letter not in chosen])
    return chosen


def _chosen(letters: Sequence[DeadLetter], id: str, all_: bool) -> list[DeadLetter]:
    if bool(id) == all_:
        raise Usage("Name one message by its id, or all of them with --all.")
    return list(letters) if all_ else [_one(letters, id)]


def _one(letters: Sequence[DeadLetter], id: str) -> DeadLetter:
    found = [letter for letter in letters if letter.id.startswith(id)]
    if not found:
        raise NotFound(
            f"No message that was given up begins with {id}. See `daylily-daemon dlq list`."
        )
    if len(found) > 1:
        raise Usage(f"{len(found)} messages begin with {id}; give more of the id.")
    return found[0]
