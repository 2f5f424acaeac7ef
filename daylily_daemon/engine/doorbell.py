"""From queue to item: a message is a doorbell, answered by one conditional write and then deleted.

A command for a workset nobody holds is applied at once. For one that is held it goes into the item's bounded
inbox, where the owner finds it with its next write. Either way the message is settled only afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog
from anyio import CancelScope, create_task_group, current_time, sleep

from daylily_daemon.domain.commands import apply, register
from daylily_daemon.domain.errors import AlreadyDone, Permanent, Transient
from daylily_daemon.domain.model import INBOX_LIMIT, Command, Retry, State, Submit, Workset
from daylily_daemon.engine.dials import Live
from daylily_daemon.engine.lease import Desk
from daylily_daemon.ports import Change, Conflict, Delivery, Mailbox, Unreadable

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Doorbell:
    mailbox: Mailbox
    desk: Desk
    live: Live
    on_workset: Callable[[Workset], None]
    """Called with what was committed, so that nothing waits for the next sweep."""
    tries: int = 5
    pause_s: float = 1.0
    answer_s: float = 5.0
    """How long a batch may take; what has no answer by then comes again. A cancel waits for it, because a
    message in hand would stay invisible for long."""

    async def listen(self) -> None:
        """Answer messages until cancelled."""
        while True:
            try:
                deliveries = await self.mailbox.receive()
                with CancelScope(shield=True, deadline=current_time() + self.answer_s):
                    await self._answer(deliveries)
            except (Transient, Permanent) as exc:
                log.warning("commands_unreachable", error=str(exc))
                await sleep(self.pause_s)

    async def _answer(self, deliveries: Sequence[Delivery]) -> None:
        """Worksets at the same time, the commands of one workset in their order."""
        lines: dict[str, list[Delivery]] = {}
        for delivery in deliveries:
            lines.setdefault(_workset_of(delivery), []).append(delivery)
        settled: list[Delivery] = []
        async with create_task_group() as tg:
            for line in lines.values():
                tg.start_soon(self._answer_line, line, settled)
        if settled:
            await self.mailbox.settle(settled)

    async def _answer_line(self, line: Sequence[Delivery], settled: list[Delivery]) -> None:
        """Stop at the first that gets no answer: what is behind it must not overtake it."""
        for delivery in line:
            if isinstance(delivery.content, Unreadable):
                await _park(self.mailbox, delivery, delivery.content.reason)
                continue
            try:
                for command in delivery.content:
                    await self._ring_until_answered(command)
            except Transient as exc:
                log.warning("command_comes_again", error=str(exc), tries=delivery.tries)
                return
            except Permanent as exc:
                await _park(self.mailbox, delivery, str(exc))
            else:
                settled.append(delivery)

    async def _ring_until_answered(self, command: Command) -> None:
        for left in reversed(range(self.tries)):
            try:
                return await self.ring(command)
            except Transient:
                if not left:
                    raise
                await sleep(self.pause_s)
        return None

    async def ring(self, command: Command) -> None:
        """Store what ``command`` asks for. Raises Transient; repeating it changes nothing."""
        bound = log.bind(workset=command.workset_id, command=command.id)
        current: Workset | None = None
        if not isinstance(command.ask, Submit):
            current = await self.desk.worksets.load(command.workset_id)
        while (change := self._change(current, command)) is not None:
            try:
                stored = await self.desk.write(change)
            except AlreadyDone:
                bound.info("command_repeated")
                return
            except Conflict as conflict:
                current = conflict.current
            else:
                asked = type(command.ask).__name__.lower()
                bound.info("command_taken", asked=asked, by=command.by, state=stored.state)
                self.on_workset(stored)
                return
        bound.info("command_without_effect", known=current is not None)

    def _change(self, current: Workset | None, command: Command) -> Change | None:
        now, routing = self.desk.clock.now(), self.live.now.routing
        once = command.id if isinstance(command.ask, Submit) else None
        if current is None:
            if not isinstance(command.ask, Submit):
                return None
            decision = register(command, command.ask, now)
        elif _is_for_the_owner(command, current):
            waiting = enqueue(current, command)
            return self.desk.change(current, waiting, (), routing) if waiting else None
        else:
            decision = apply(current, command, now)
            if decision.workset == current:
                return None
        change = self.desk.change(current, decision.workset, decision.records, routing)
        return replace(change, once=once)


def _is_for_the_owner(command: Command, current: Workset) -> bool:
    """Return whether an owner, or the next one, has to see it. Only a run in progress has an owner.

    Of a machine that is said to be gone, the next one has to find out whether it is its own.
    """
    vouches = isinstance(command.ask, Retry) and command.ask.host_gone
    return current.state is State.IN_PROGRESS and (current.lock_owner is not None or vouches)


def enqueue(ws: Workset, command: Command) -> Workset | None:
    """Put ``command`` into the inbox; None if it is known. Raises Transient while it is full."""
    if command.id in ws.seen_commands or any(c.id == command.id for c in ws.inbox):
        return None
    if len(ws.inbox) >= INBOX_LIMIT:
        raise Transient(
            f"{ws.id} has {INBOX_LIMIT} commands waiting; its owner must read them first."
        )
    return replace(ws, inbox=(*ws.inbox, command))


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """From the intake queue, which S3 can write to, to the FIFO queue, which it cannot."""

    intake: Mailbox
    commands: Mailbox
    pause_s: float = 1.0

    async def listen(self) -> None:
        while True:
            try:
                await self._pass_on(await self.intake.receive())
            except (Transient, Permanent) as exc:
                log.warning("intake_unreachable", error=str(exc))
                await sleep(self.pause_s)

    async def _pass_on(self, deliveries: Sequence[Delivery]) -> None:
        good: list[Delivery] = []
        commands: list[Command] = []
        for delivery in deliveries:
            if isinstance(delivery.content, Unreadable):
                await _park(self.intake, delivery, delivery.content.reason)
            else:
                good.append(delivery)
                commands.extend(delivery.content)
        if commands:
            await self.commands.send(commands)
        if good:
            await self.intake.settle(good)


def _workset_of(delivery: Delivery) -> str:
    known = isinstance(delivery.content, tuple) and delivery.content
    return known[0].workset_id if known else ""


async def _park(mailbox: Mailbox, delivery: Delivery, reason: str) -> None:
    log.error("message_parked", reason=reason, tries=delivery.tries)
    await mailbox.park(delivery, reason)
