"""Commands that ask for something: cancel, retry, ignore, priority. What becomes of it is a daemon's answer.

Without ``--wait`` they end once the question lies in the queue, which says nothing about the answer. With it
they end with the answer, and with 0 only if it had an effect.
"""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

import anyio
import typer

from daylily_daemon.adapters.codec import command_to_dict
from daylily_daemon.adapters.host import StateDir, SystemClock
from daylily_daemon.bootstrap import Tools
from daylily_daemon.cli import output, printing
from daylily_daemon.cli.health import of_this_host
from daylily_daemon.cli.options import (
    ConfigOption,
    Exit,
    JsonOption,
    SetOption,
    Usage,
    WorksetArgument,
    existing,
    loaded,
    reporting,
    with_tools,
)
from daylily_daemon.domain.model import (
    Answer,
    Ask,
    Cancel,
    Command,
    CommandEffect,
    HostLost,
    Ignore,
    Priority,
    Retry,
    SetPriority,
    WorksetId,
)
from daylily_daemon.domain.workset import Workset

FIRST_LOOK_S: Final = 0.2
LOOK_S: Final = 1.0
TIMEOUT_S: Final = 60.0
NAME_CHARS: Final = 64

WaitOption = Annotated[
    bool, typer.Option("--wait", help="Return when it is known what became of it.")
]
TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", min=0.0, help="With --wait: no longer than this."),
]


class Answers(Protocol):
    """Where it is written what became of a command."""

    async def answer_to(self, id: WorksetId, command_id: str) -> Answer | None: ...


class Loads(Protocol):
    async def load(self, id: WorksetId) -> Workset | None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of a command when the waiting ends."""

    command: Command
    answer: Answer | None
    workset: Workset | None = None
    hint: str = ""
    """Why there may be no answer yet."""

    @property
    def is_stopping(self) -> bool:
        """Tell whether a cancel was obeyed and the job has not ended yet."""
        ws = self.workset
        return isinstance(self.command.ask, Cancel) and bool(ws and _is_being_stopped(ws))

    @property
    def code(self) -> Exit:
        if self.answer is None or not is_settled(self.answer):
            return Exit.NOT_REACHABLE
        if self.answer.effect is not CommandEffect.APPLIED:
            return Exit.FAILED
        return Exit.NOT_REACHABLE if self.is_stopping else Exit.OK


def command_for(id: WorksetId, ask: Ask) -> Command:
    return Command(id=secrets.token_hex(12), workset_id=id, by=f"cli:{_user()}", ask=ask)


def _user() -> str:
    """Return who asks, for the audit trail; a container may have no name for its user."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = f"uid-{os.getuid()}"
    return f"{name[:NAME_CHARS]}@{socket.gethostname()[:NAME_CHARS]}"


async def answered(
    answers: Answers, command: Command, timeout_s: float | None, is_enough: Callable[[Answer], bool]
) -> Answer | None:
    """Wait until the answer is enough; return the last one there was when the time is up."""
    last: Answer | None = None
    pause_s = FIRST_LOOK_S
    with anyio.move_on_after(timeout_s):
        while True:
            last = await answers.answer_to(command.workset_id, command.id) or last
            if last is not None and is_enough(last):
                return last
            await anyio.sleep(pause_s)
            pause_s = min(LOOK_S, 2 * pause_s)
    return last


def is_settled(answer: Answer) -> bool:
    """Tell whether nothing more will be written about it; a queued one is answered by who runs it."""
    return answer.effect is not CommandEffect.QUEUED


async def stopped(worksets: Loads, id: WorksetId, timeout_s: float | None) -> Workset | None:
    """Wait until a workset that is being stopped has stopped; return it as it is then."""
    ws = await worksets.load(id)
    with anyio.move_on_after(timeout_s):
        while ws is not None and _is_being_stopped(ws):
            await anyio.sleep(LOOK_S)
            ws = await worksets.load(id)
    return ws


def _is_being_stopped(ws: Workset) -> bool:
    return ws.run is not None and ws.step is not None and bool(ws.run.stopping)


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
    outcome = with_tools(found, partial(_asked, id, ask, how))
    _tell(outcome, how)
    if how.wait:
        raise typer.Exit(int(outcome.code))


async def _asked(id: str, ask: Ask, how: How, tools: Tools) -> Outcome:
    ws = await existing(tools, id)
    command = command_for(ws.id, ask)
    await (await tools.commands()).send([command])
    if not how.wait:
        return Outcome(command, None)
    timeout_s = TIMEOUT_S if how.timeout_s is None else how.timeout_s
    began = anyio.current_time()
    answer = await answered(tools.trail, command, timeout_s, is_settled)
    left_s = max(0.0, timeout_s - (anyio.current_time() - began))
    now = await stopped(tools.worksets, ws.id, left_s) if isinstance(ask, Cancel) else None
    hint = "" if answer else why_no_answer(tools)
    return Outcome(command, answer, now or await tools.worksets.load(ws.id), hint)


def why_no_answer(tools: Tools, *, unless_none_ran: bool = False) -> str:
    """Return what is wrong with the daemon of this host, as a sentence to be added; empty if nothing is.

    ``unless_none_ran``: a host that never had a daemon is not worth a word, others have it.
    """
    daemon = of_this_host(StateDir(tools.settings.daemon.state_dir), SystemClock().now())
    if unless_none_ran and daemon.status is None:
        return ""
    return "" if daemon.verdict.healthy else f"\nThe daemon of this host: {daemon.verdict.text}"


def _tell(outcome: Outcome, how: How) -> None:
    command, answer = outcome.command, outcome.answer
    what = f"{verb(command.ask)} of {command.workset_id}"
    if how.json:
        output.print_json(as_json(outcome))
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
    elif not is_settled(answer):
        printing.complain(
            f"{what} was handed to the daemon that runs it ({answer.text}), which has not answered yet. It "
            "stays there until it does."
        )
    elif outcome.is_stopping:
        printing.complain(
            f"{command.workset_id}: {sentence(answer.text)} Its job has not ended yet."
        )
    elif outcome.code is Exit.OK:
        state = f" It is {outcome.workset.shown_state}." if outcome.workset else ""
        printing.say(f"{command.workset_id}: {sentence(answer.text)}{state}")
    else:
        printing.complain(f"{command.workset_id}: {sentence(answer.text)}")


def sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def verb(ask: Ask) -> str:
    """Return the name of the command that asks this."""
    return type(ask).__name__.lower().replace("setp", "p")


def as_json(outcome: Outcome) -> dict[str, Any]:
    answer = outcome.answer
    said = {"effect": answer.effect, "text": answer.text} if answer else {"effect": None}
    state = outcome.workset.shown_state if outcome.workset else None
    return {**command_to_dict(outcome.command), **said, "state": state}


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
