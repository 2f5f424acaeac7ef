"""What became of commands: a line for people, an object for programs, and the exit code."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from daylily_daemon.cli import later
from daylily_daemon.cli.options import Exit, Usage, exit_code
from daylily_daemon.domain.model import Ask, Command, CommandEffect

if TYPE_CHECKING:
    from daylily_daemon.application.batch import Unasked
    from daylily_daemon.application.requests import Followed

    Outcome: TypeAlias = Followed | Unasked

NAME_CHARS: Final = 64


def exit_code_of(outcome: Followed) -> Exit:
    """0 only for a command that was applied, and of which nothing is still to happen."""
    if outcome.answer is None or not outcome.is_settled:
        return Exit.NOT_REACHABLE
    if outcome.answer.effect is not CommandEffect.APPLIED:
        return Exit.FAILED
    return Exit.NOT_REACHABLE if outcome.is_stopping else Exit.OK


def code_of(outcome: Outcome, *, waited: bool) -> Exit:
    """Without waiting 0 for whatever lies in the queue."""
    if isinstance(outcome, later.batch.Unasked):
        return Exit(exit_code(outcome.error))
    return exit_code_of(outcome) if waited else Exit.OK


def code_of_all(codes: Sequence[Exit]) -> Exit:
    """0 only if all were done. What is not known yet counts more than what had no effect."""
    return next((code for code in _WORST_FIRST if code in codes), Exit.OK)


_WORST_FIRST: Final = (Exit.NOT_REACHABLE, Exit.FAILED, Exit.NOT_FOUND, Exit.USAGE)


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


_VERBS: Final = {"SetPriority": "priority", "HostLost": "retry"}


def verb(ask: Ask) -> str:
    """Return the name of the command that asks this."""
    name = type(ask).__name__
    return _VERBS.get(name, name.lower())


def asked_for(command: Command) -> str:
    return f"{verb(command.ask)} of {command.workset_id}"


def sentence_of(outcome: Outcome, *, waited: bool) -> str:
    """Return what became of it, for people."""
    command = outcome.command
    if isinstance(outcome, later.batch.Unasked):
        if outcome.sent:
            return f"{asked_for(command)} is asked for; no answer could be read: {outcome.error}"
        return f"{asked_for(command)} could not be asked for: {outcome.error}"
    if not waited:
        return (
            f"{asked_for(command)} is asked for. `daylily-daemon events {command.workset_id}` shows what "
            "became of it, and --wait waits for that."
        )
    return _answered(outcome)


def _answered(outcome: Followed) -> str:
    command, answer = outcome.command, outcome.answer
    if answer is None:
        return (
            f"{asked_for(command)} is asked for, and no daemon has answered it yet. It stays in the queue "
            f"until one does; there is no need to ask again.{outcome.hint}"
        )
    if not outcome.is_settled:
        return (
            f"{asked_for(command)} was handed to the daemon that runs it ({answer.text}), which has not "
            "answered yet. It stays there until it does."
        )
    said = f"{command.workset_id}: {later.wording.sentence(answer.text)}"
    if outcome.is_stopping:
        return f"{said} Its job has not ended yet."
    is_done = exit_code_of(outcome) is Exit.OK and outcome.workset
    return f"{said} It is {outcome.workset.shown_state}." if is_done and outcome.workset else said


def line_of(outcome: Outcome, *, waited: bool) -> str:
    """Return the outcome as one line of many, which begins with the id."""
    id = outcome.command.workset_id
    said = sentence_of(outcome, waited=waited).split("\n", 1)[0]
    if not waited and not isinstance(outcome, later.batch.Unasked):
        said = f"{verb(outcome.command.ask)} is asked for."
    return said if said.startswith(f"{id}: ") else f"{id}: {said}"


def as_json(outcome: Outcome) -> dict[str, Any]:
    shape = later.shapes.command_shape(outcome.command)
    if isinstance(outcome, later.batch.Unasked):
        return {**shape, "effect": None, "text": str(outcome.error), "state": None}
    answer = outcome.answer
    said = {"effect": answer.effect, "text": answer.text} if answer else {"effect": None}
    state = outcome.workset.shown_state if outcome.workset else None
    return {**shape, **said, "state": state}
