"""Commands that ask for something: cancel, retry, ignore, priority. What becomes of it is a daemon's answer.

Without ``--wait`` they end once the question lies in the queue, which says nothing about the answer. With it
they end with the answer, and with 0 only if it had an effect.
"""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.options import (
    ConfigOption,
    Exit,
    JsonOption,
    SetOption,
    Usage,
    WorksetArgument,
    loaded,
    reporting,
    with_backend,
)
from daylily_daemon.domain.model import (
    Ask,
    Cancel,
    CommandEffect,
    HostLost,
    Ignore,
    Priority,
    Retry,
    SetPriority,
)

if TYPE_CHECKING:
    from daylily_daemon.application.backend import Backend
    from daylily_daemon.application.requests import Followed

TIMEOUT_S: Final = 60.0
NAME_CHARS: Final = 64

WaitOption = Annotated[
    bool, typer.Option("--wait", help="Return when it is known what became of it.")
]
TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", min=0.0, help="With --wait: no longer than this."),
]


def exit_code_of(outcome: Followed) -> Exit:
    """0 only for a command that was applied, and of which nothing is still to happen."""
    if outcome.answer is None or not outcome.is_settled:
        return Exit.NOT_REACHABLE
    if outcome.answer.effect is not CommandEffect.APPLIED:
        return Exit.FAILED
    return Exit.NOT_REACHABLE if outcome.is_stopping else Exit.OK


def asked_by() -> str:
    """Return who asks, for the audit trail; a container may have no name for its user."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = f"uid-{os.getuid()}"
    return f"cli:{name[:NAME_CHARS]}@{socket.gethostname()[:NAME_CHARS]}"


def check_wait(*, wait: bool, timeout_s: float | None) -> None:
    """Raises Usage for a time limit of nothing."""
    if timeout_s is not None and not wait:
        raise Usage("--timeout limits how long --wait waits; give both.")


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """The options that all of these commands share."""

    config: Path | None
    set_: list[str] | None
    json: bool
    wait: bool
    timeout_s: float | None


def _ask(id: str, ask: Ask, how: How) -> None:
    with reporting():
        check_wait(wait=how.wait, timeout_s=how.timeout_s)
    found = loaded(how.config, how.set_)
    outcome = with_backend(found, partial(_asked, id, ask, how))
    _tell(outcome, how)
    if how.wait:
        raise typer.Exit(int(exit_code_of(outcome)))


async def _asked(id: str, ask: Ask, how: How, backend: Backend) -> Followed:
    command = await later.requests.ask(backend, id, ask, asked_by())
    if not how.wait:
        return later.requests.Followed(command, None)
    timeout_s = TIMEOUT_S if how.timeout_s is None else how.timeout_s
    return await later.requests.answer_to(backend, command, timeout_s)


def _tell(outcome: Followed, how: How) -> None:
    command, answer = outcome.command, outcome.answer
    what = f"{verb(command.ask)} of {command.workset_id}"
    if how.json:
        later.output.print_json(as_json(outcome))
    elif not how.wait:
        printing.say(
            f"{what} is asked for. `daylily-daemon events {command.workset_id}` shows what became of it, "
            "and --wait waits for that."
        )
    elif answer is None:
        printing.complain(
            f"{what} is asked for, and no daemon has answered it yet. It stays in the queue until one does; "
            f"there is no need to ask again.{outcome.hint}"
        )
    elif not outcome.is_settled:
        printing.complain(
            f"{what} was handed to the daemon that runs it ({answer.text}), which has not answered yet. It "
            "stays there until it does."
        )
    elif outcome.is_stopping:
        printing.complain(
            f"{command.workset_id}: {later.wording.sentence(answer.text)} Its job has not ended yet."
        )
    elif exit_code_of(outcome) is Exit.OK:
        state = f" It is {outcome.workset.shown_state}." if outcome.workset else ""
        printing.say(f"{command.workset_id}: {later.wording.sentence(answer.text)}{state}")
    else:
        printing.complain(f"{command.workset_id}: {later.wording.sentence(answer.text)}")


def verb(ask: Ask) -> str:
    """Return the name of the command that asks this."""
    return type(ask).__name__.lower().replace("setp", "p")


def as_json(outcome: Followed) -> dict[str, Any]:
    answer = outcome.answer
    said = {"effect": answer.effect, "text": answer.text} if answer else {"effect": None}
    state = outcome.workset.shown_state if outcome.workset else None
    return {**later.shapes.command_shape(outcome.command), **said, "state": state}


def cancel(
    workset: WorksetArgument,
    reason: Annotated[str, typer.Option("--reason", help="For the audit trail.")] = "",
    wait: WaitOption = False,
    timeout: TimeoutOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Stop a running workset, or take a waiting one out.

    With --wait it returns when nothing of it runs any more, and with 0 only if that is so.

    Example: daylily-daemon cancel HG002-run7 --reason "wrong flow cell"
    """
    how = How(config=config, set_=set_, json=json, wait=wait, timeout_s=timeout)
    _ask(workset, Cancel(reason=reason), how)


def retry(
    workset: WorksetArgument,
    from_start: Annotated[bool, typer.Option("--from-start", help="Run every step again.")] = False,
    host_gone: Annotated[
        bool,
        typer.Option(
            "--host-gone",
            help="I know that the machine it ran on no longer exists, nor do its jobs.",
        ),
    ] = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Run a failed, parked, canceled or ignored workset again, from the step that failed.

    With --host-gone also one in progress on a machine that was terminated: no daemon can tell whether its
    job still runs, so somebody has to. A daemon that does reach that machine goes on with the run instead.
    With --wait it returns when it is ready again, not when that run has ended.

    Example: daylily-daemon retry HG002-run7
    """
    how = How(config=config, set_=set_, json=json, wait=wait, timeout_s=timeout)
    ask = HostLost(from_start=from_start) if host_gone else Retry(from_start=from_start)
    _ask(workset, ask, how)


def ignore(
    workset: WorksetArgument,
    reason: Annotated[str, typer.Option("--reason", help="For the audit trail.")] = "",
    wait: WaitOption = False,
    timeout: TimeoutOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Leave a workset alone until somebody retries it.

    Example: daylily-daemon ignore HG002-test
    """
    how = How(config=config, set_=set_, json=json, wait=wait, timeout_s=timeout)
    _ask(workset, Ignore(reason=reason), how)


def priority(
    workset: WorksetArgument,
    value: Annotated[Priority, typer.Argument(help="How urgent it is now.")],
    wait: WaitOption = False,
    timeout: TimeoutOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Change the priority of a workset.

    Example: daylily-daemon priority HG002-run7 urgent
    """
    how = How(config=config, set_=set_, json=json, wait=wait, timeout_s=timeout)
    _ask(workset, SetPriority(priority=value), how)
