"""``dlq``: the messages that were given up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from daylily_daemon.application.errors import NotFound
from daylily_daemon.cli import later, printing
from daylily_daemon.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    Usage,
    loaded,
    reporting,
    run_async,
)
from daylily_daemon.cli.parsing import LazyCommand, LazyGroup

if TYPE_CHECKING:
    from daylily_daemon.ports import DeadLetter, GivenUp

T = TypeVar("T")
IdArgument = Annotated[
    str, typer.Argument(metavar="MESSAGE", help="Id of the message, or how it begins.")
]
OptionalId = Annotated[
    str, typer.Argument(metavar="[MESSAGE]", help="Id of the message, or how it begins.")
]
AllOption = Annotated[bool, typer.Option("--all", help="Every message.")]
app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Messages that were given up.",
)


def _work(config: ConfigOption, set_: SetOption, do: Callable[[GivenUp], Awaitable[T]]) -> T:
    found = loaded(config, set_)

    async def work() -> T:
        async with later.backend.open_given_up(found.settings) as given_up:
            return await do(given_up)

    return run_async(work)


def _json(letter: DeadLetter) -> dict[str, object]:
    return {
        "id": letter.id,
        "queue": letter.queue,
        "sent_at": letter.sent_at,
        "tries": letter.tries,
        "reason": letter.reason,
        "body": letter.body,
    }


@app.command("list", cls=LazyCommand)
def list_(config: ConfigOption = None, set_: SetOption = None, json: JsonOption = False) -> None:
    """List the messages that were given up, with the reason.

    Example: daylily-daemon dlq list
    """
    letters, unseen = _work(config, set_, _looked_at)
    if unseen:
        printing.complain(_more(unseen))
    if json:
        later.output.print_json([_json(letter) for letter in letters])
        return
    if not letters and not unseen:
        printing.say("No message was given up.")
        return
    printing.say_grid(later.output.letters_grid(letters))


@app.command(cls=LazyCommand)
def show(
    message: IdArgument,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Show one message whole.

    Example: daylily-daemon dlq show 3f2a91c0
    """

    async def find(found: GivenUp) -> DeadLetter:
        return _one(*await _looked_at(found), message)

    letter = _work(config, set_, find)
    if json:
        later.output.print_json(_json(letter))
        return
    pairs = [(name, str(value)) for name, value in _json(letter).items()]
    printing.say_facts(pairs)


@app.command(cls=LazyCommand)
def replay(
    message: OptionalId = "",
    all_: AllOption = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Send a message to its queue again, for example after an upgrade that can read it.

    Example: daylily-daemon dlq replay 3f2a91c0
    """

    async def send(found: GivenUp) -> int:
        if all_:
            return await _rest_told(found, await found.replay_all())
        await found.replay(await _taken(found, message))
        return 1

    _check(message, all_)
    printing.say(f"{_messages(_work(config, set_, send))} sent again.")


@app.command(cls=LazyCommand)
def drop(
    message: OptionalId = "",
    all_: AllOption = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Delete a message for good.

    Example: daylily-daemon dlq drop 3f2a91c0
    """

    async def delete(found: GivenUp) -> int:
        if all_:
            return await _rest_told(found, await found.drop_all())
        await found.drop(await _taken(found, message))
        return 1

    _check(message, all_)
    printing.say(f"{_messages(_work(config, set_, delete))} dropped.")


async def _rest_told(found: GivenUp, done: int) -> int:
    """Say what is left although all were asked for; return ``done``."""
    if left := await found.unseen():
        printing.complain(f"About {left} messages are left.")
    return done


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"


def _more(unseen: int) -> str:
    return (
        f"About {unseen} more are there: a FIFO queue shows ten of one workset at a time. "
        "Replay or drop some, and the next come into sight; --all goes through all of them."
    )


async def _looked_at(found: GivenUp) -> tuple[Sequence[DeadLetter], int]:
    """Return what can be seen, and about how many there are besides."""
    letters = await found.look()
    try:
        return letters, await found.unseen()
    finally:
        await found.put_back(letters)


async def _taken(found: GivenUp, id: str) -> DeadLetter:
    """Return the message asked for; the others can be looked at again."""
    letters = await found.look()
    chosen: DeadLetter | None = None
    try:
        chosen = _one(letters, await found.unseen(), id)
        return chosen
    finally:
        await found.put_back([letter for letter in letters if letter is not chosen])


def _check(id: str, all_: bool) -> None:
    """Raises Usage unless one message is named, or all are."""
    with reporting():
        if bool(id) == all_:
            raise Usage("Name one message by its id, or all of them with --all.")


def _one(letters: Sequence[DeadLetter], unseen: int, id: str) -> DeadLetter:
    found = [letter for letter in letters if letter.id.startswith(id)]
    if not found:
        more = f" {_more(unseen)}" if unseen else ""
        raise NotFound(
            f"No message that was given up begins with {id}. See `daylily-daemon dlq list`.{more}"
        )
    if len(found) > 1:
        raise Usage(f"{len(found)} messages begin with {id}; give more of the id.")
    return found[0]
