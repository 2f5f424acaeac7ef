"""``dlq``: the messages that were given up."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from daylily_daemon.application.errors import NotFound
from daylily_daemon.cli import later, printing
from daylily_daemon.cli.answers import verb
from daylily_daemon.cli.options import (
    ConfigOption,
    Exit,
    JsonOption,
    SetOption,
    Usage,
    loaded,
    reporting,
    run_async,
)
from daylily_daemon.cli.parsing import LazyCommand, LazyGroup
from daylily_daemon.domain.errors import DaemonError

if TYPE_CHECKING:
    from daylily_daemon.domain.model import Command
    from daylily_daemon.ports import DeadLetter, GivenUp

T = TypeVar("T")
IdArgument = Annotated[
    str, typer.Argument(metavar="MESSAGE", help="Id of the message, or how it begins.")
]
OptionalId = Annotated[
    str, typer.Argument(metavar="[MESSAGE]", help="Id of the message, or how it begins.")
]
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,2}")
ValuesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="A value in the message, as ask.priority=urgent."
    ),
]
EditOption = Annotated[bool, typer.Option("--edit", help="Open the message in $VISUAL or $EDITOR.")]
BodyOption = Annotated[
    Path | None, typer.Option("--body", metavar="FILE", help="The new message, whole.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what it would ask for; send nothing.")
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
    message: Annotated[
        str,
        typer.Argument(metavar="MESSAGE", help="Its number in the list, or how its id begins."),
    ],
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Show one message whole, by its id or its number in the list.

    Example: daylily-daemon dlq show 3f2a91c0
    """
    letter = _work(config, set_, partial(_found, id=message, by_number=True))
    if json:
        later.output.print_json(_json(letter))
        return
    pairs = [(name, str(value)) for name, value in _json(letter).items()]
    printing.say_facts(pairs)


@app.command(cls=LazyCommand)
def mend(
    message: IdArgument,
    values: ValuesOption = None,
    edit: EditOption = False,
    body: BodyOption = None,
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
) -> None:
    """Put a message right and send it to its queue in place of the old one.

    The new message is read first as a daemon would; one that cannot be understood is refused, and the old one
    stays. It goes into the line of the workset that it names.

    Example: daylily-daemon dlq mend 3f2a91c0 --set ask.priority=urgent
    """
    with reporting():
        if [bool(values), edit, body is not None].count(True) != 1:
            raise Usage("Say how to mend it with one of --set, --edit and --body.")
    letter = _work(config, None, partial(_found, id=message))
    with reporting():
        new = _mended(letter, values or (), body)
    if new == letter.body:
        printing.complain("That is the old message; `daylily-daemon dlq replay` sends it again.")
        raise typer.Exit(int(Exit.FAILED))
    commands = _work(config, None, partial(_sent, letter=letter, new=new, dry_run=dry_run))
    told = ", ".join(f"{verb(one.ask)} of {one.workset_id}" for one in commands)
    if dry_run:
        printing.say(f"It would ask for {told}. Nothing was sent (--dry-run).")
    else:
        printing.say(f"Sent to {letter.queue}: {told}. The old message is gone.")


async def _sent(
    found: GivenUp, *, letter: DeadLetter, new: str, dry_run: bool
) -> Sequence[Command]:
    """Send it if it can be understood, and if the old one is still there."""
    commands = await found.check(letter, new)
    if dry_run:
        return commands
    taken = await _taken(found, letter.id)
    try:
        return await found.mend(taken, new)
    except DaemonError:
        await found.put_back([taken])
        raise


def _mended(letter: DeadLetter, values: Sequence[str], body: Path | None) -> str:
    """Return the new message. Raises Invalid and Usage."""
    mending = later.mending
    if values:
        return str(mending.with_values(letter.body, values))
    if body is not None:
        return str(mending.checked(_read(body)))
    before = mending.laid_out(letter.body)
    after = later.editing.edited(before)
    return letter.body if after == before else str(mending.checked(after))


def _read(body: Path) -> str:
    try:
        with body.open("rb") as file:
            return file.read(later.mending.LARGEST_BYTES + 1).decode()
    except OSError as exc:
        raise Usage(f"{body} cannot be read: {exc.strerror}.") from exc
    except UnicodeDecodeError:
        raise Usage(f"{body} is not UTF-8, as messages must be.") from None


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


async def _found(found: GivenUp, *, id: str, by_number: bool = False) -> DeadLetter:
    """Return one message, which stays where it is."""
    letters, unseen = await _looked_at(found)
    if by_number and _NUMBER.fullmatch(id):
        return _numbered(letters, int(id))
    return _one(letters, unseen, id)


def _numbered(letters: Sequence[DeadLetter], number: int) -> DeadLetter:
    """Return a message by its number in the list. Raises NotFound."""
    if number > len(letters):
        raise NotFound(
            f"The list has no message {number}. See `daylily-daemon dlq list`; four characters or more "
            "are an id."
        )
    return letters[number - 1]


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
