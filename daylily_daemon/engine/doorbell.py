"""From queue to item: a message is a doorbell, answered by one conditional write and then deleted.

A command for a workset nobody holds is applied at once. For one that is held it goes into the item's bounded
inbox, where the owner finds it with its next write. Either way its answer is remembered in the same write,
for ever, and the message is settled only afterwards.

Each delivery stands alone: what one of them meets, being parked included, never touches another.

Trouble of ours (no answer, no rights, no table) is waited out with the messages in hand, hidden from others,
rather than by receiving them again: SQS counts every receive, and after a few it moves a message to the dead
letters by itself, however good it is.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import structlog
from anyio import (
    CancelScope,
    create_task_group,
    current_time,
    get_cancelled_exc_class,
    sleep,
)

from daylily_daemon.domain.errors import (
    AlreadyDone,
    DaemonError,
    InboxFull,
    Newer,
    Permanent,
    Transient,
    Unexpected,
)
from daylily_daemon.domain.events import Asked
from daylily_daemon.domain.model import Answer, Command, CommandEffect, Record, Submit, WorksetId
from daylily_daemon.domain.workset import Workset
from daylily_daemon.engine.ahead import HIDDEN_S, Ahead, Hand
from daylily_daemon.engine.boundary import foreign_as_unexpected
from daylily_daemon.engine.counting import CommandFate, Counting, EventFate
from daylily_daemon.engine.flood import Flood
from daylily_daemon.engine.writer import Applied, Overtaken, Writer
from daylily_daemon.ports import Delivery, Drops, Mailbox, Trail, Unreadable

log = structlog.get_logger()

BREAKS: Final = 3
"""Deliveries of one message that may meet trouble of its own; the next one parks it with that reason."""
SHARE_TRIES: Final = 3
"""Tries of messages in hand after which others may have what waits behind them, if nothing succeeds here."""
HOLD_TRIES: Final = 20
HOLD_CAP_S: Final = 30.0
"""Longest pause between two tries of messages in hand."""
DELETING: Final = 0.2
"""Share of the time for a batch that is kept for deleting what was answered. It begins when the rest is over,
which may be late: a write that was sent is heard out."""


@dataclass(slots=True)
class _Round:
    """What became of the messages of one batch."""

    done: list[Delivery] = field(default_factory=list)
    """To be deleted."""
    parked: int = 0
    waiting: int = 0
    """Stopped by trouble of ours."""
    until: float = math.inf
    """When what has no answer yet is cut off, on the loop's clock."""

    @property
    def in_vain(self) -> bool:
        """Whether there is no point in receiving more: nothing worked, for no reason of the messages."""
        return bool(self.waiting) and not self.done and not self.parked


async def _patiently(
    hand: Hand,
    attempt: Callable[[Sequence[Delivery]], Awaitable[_Round]],
    pause_s: float,
    others: Callable[[], int],
) -> None:
    """Repeat ``attempt`` until it is not in vain, pausing from ``pause_s`` up to half a minute.

    ``others`` counts what succeeds elsewhere meanwhile. Where that grows while these messages meet trouble
    again and again, it is theirs after all: they come again, and the rest need not wait for them.
    """
    known, tries = others(), 0
    while (await attempt(hand.deliveries)).in_vain:
        tries += 1
        if tries >= HOLD_TRIES and others() > known:
            return
        hand.ahead.hold()
        if tries >= SHARE_TRIES and others() == known:
            await hand.ahead.give_back()
        await hand.hide(HIDDEN_S)
        try:
            await sleep(pause_s)
        except get_cancelled_exc_class():
            await hand.give_back()
            raise
        pause_s = min(2 * pause_s, HOLD_CAP_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doorbell:
    mailbox: Mailbox
    trail: Trail
    writer: Writer
    on_workset: Callable[[Workset], None]
    """Called with what was committed, so that nothing waits for the next sweep."""
    written: Callable[[], int] = int
    """How many writes of this daemon were answered so far."""
    tries: int = 5
    pause_s: float = 1.0
    flood: Flood = field(default_factory=Flood)
    answer_s: float
    """How long a batch may take; what has no answer by then comes again. A cancel waits for it, because a
    message in hand would stay invisible for long."""

    async def listen(self) -> None:
        """Answer messages until cancelled."""
        ahead = Ahead(self.mailbox, self.flood)
        await ahead.listen("the command queue", self._take, self.pause_s)

    async def _take(self, hand: Hand) -> None:
        await _patiently(hand, self._answer, self.pause_s, self.written)

    async def _answer(self, deliveries: Sequence[Delivery]) -> _Round:
        """Worksets at the same time, the commands of one workset in their order."""
        lines: dict[str, list[Delivery]] = {}
        for delivery in deliveries:
            lines.setdefault(_workset_of(delivery), []).append(delivery)
        delete_s = DELETING * self.answer_s
        round = _Round(until=current_time() + self.answer_s - delete_s)
        with CancelScope(shield=True, deadline=round.until) as scope:
            async with create_task_group() as tg:
                for line in lines.values():
                    tg.start_soon(self._answer_line, line, round)
        round.waiting += scope.cancelled_caught
        if round.done:
            with CancelScope(shield=True, deadline=current_time() + delete_s):
                await self.mailbox.settle(round.done)
        return round

    async def _answer_line(self, line: Sequence[Delivery], round: _Round) -> None:
        """Stop at the first that gets no answer: what is behind it must not overtake it."""
        for delivery in line:
            if isinstance(delivery.content, Unreadable):
                round.parked += await self._park(delivery, delivery.content.reason)
                continue
            try:
                with foreign_as_unexpected("a command"):
                    for command in delivery.content:
                        await self._ring_until_answered(command, round.until)
            except DaemonError as exc:
                if not await self._trouble(delivery, exc, round):
                    return
            else:
                round.done.append(delivery)

    async def _trouble(self, delivery: Delivery, exc: DaemonError, round: _Round) -> bool:
        """Return whether the message was parked, so that the next in its line may be answered."""
        its_own = isinstance(exc, Unexpected | InboxFull | Newer)
        if isinstance(exc, InboxFull) and delivery.tries > BREAKS:
            return await self._refuse(delivery, exc, round)
        broken = isinstance(exc, Unexpected) and delivery.tries > BREAKS
        if isinstance(exc, Permanent) or broken:
            parked = await self._park(delivery, str(exc))
            round.parked += parked
            return parked
        log.warning("command_comes_again", error=str(exc), tries=delivery.tries)
        round.waiting += not its_own
        return False

    async def _park(self, delivery: Delivery, reason: str) -> bool:
        parked = await park(self.mailbox, delivery, reason)
        if parked:
            self._count(_commands_of(delivery) or (None,), CommandFate.PARKED)
        return parked

    def _count(self, commands: Sequence[Command | None], fate: CommandFate) -> None:
        for command in commands:
            self.writer.counting.command(command, fate)

    async def _refuse(self, delivery: Delivery, exc: InboxFull, round: _Round) -> bool:
        """Answer a command that found the inbox full all the time; whoever asked can ask again."""
        now = self.writer.clock.now()
        commands = _commands_of(delivery)
        try:
            with foreign_as_unexpected("a command"):
                for command in commands:
                    said = _answer(command, CommandEffect.REFUSED, str(exc), now)
                    await self.trail.answer(command.workset_id, said)
        except DaemonError as trouble:
            log.warning("command_comes_again", error=str(trouble), tries=delivery.tries)
            return False
        log.error("command_refused", error=str(exc), tries=delivery.tries)
        self._count(commands, CommandFate.REFUSED)
        round.done.append(delivery)
        return True

    async def _ring_until_answered(self, command: Command, until: float) -> None:
        """Repeat what gets no answer; end with its reason rather than be cut off without one."""
        for left in reversed(range(self.tries)):
            try:
                return await self.ring(command)
            except Transient:
                if not left or current_time() + self.pause_s >= until:
                    raise
                await sleep(self.pause_s)
        return None

    async def ring(self, command: Command) -> None:
        """Store what ``command`` asks for. Raises Transient; repeating it changes nothing."""
        submits = isinstance(command.ask, Submit)
        current = None if submits else await self.writer.worksets.load(command.workset_id)
        try:
            while isinstance(found := await self._apply(current, command), Overtaken):
                current = found.current
        except AlreadyDone:
            found = None
        if found is not None and found.written:
            self._taken(command, found.workset)
        else:
            log.info("command_repeated", workset=command.workset_id, command=command.id)

    async def _apply(self, current: Workset | None, command: Command) -> Applied | Overtaken | None:
        """Return None where there is nothing to apply it to; that has an answer too then."""
        match current, command.ask:
            case None, Submit() as submit:
                return await self._register(command, submit)
            case None, _:
                await self._answer_nobody(command)
                return None
            case Workset() as known, _:
                return await self.writer.apply(known, Asked(command))

    async def _register(self, command: Command, submit: Submit) -> Applied | Overtaken:
        try:
            return await self.writer.register(command, submit, [])
        except Permanent:
            left = await self._left_by(command.workset_id)
            if not left:
                raise
            return await self.writer.register(command, submit, left)

    def _taken(self, command: Command, stored: Workset) -> None:
        log.info(
            "command_taken",
            workset=stored.id,
            command=command.id,
            asked=type(command.ask).__name__.lower(),
            by=command.by,
            state=stored.state,
        )
        self.on_workset(stored)

    async def _left_by(self, id: WorksetId) -> list[Record]:
        """Return the audit trail of an item that somebody removed, page by page."""
        found: list[Record] = []
        while page := await self.trail.read(id, after=found[-1].seq if found else 0):
            found += page
        return found

    async def _answer_nobody(self, command: Command) -> None:
        """Remember that there was no such workset: every command has an answer."""
        text = f"There is no workset {command.workset_id}; submit it first."
        said = _answer(command, CommandEffect.NONE, text, self.writer.clock.now())
        await self.trail.answer(command.workset_id, said)
        self._count((command,), CommandFate.NO_EFFECT)
        log.info("command_without_effect", workset=command.workset_id, command=command.id)


def _answer(command: Command, effect: CommandEffect, text: str, now: datetime) -> Answer:
    return Answer(command_id=command.id, effect=effect, text=text, at=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """From the intake queue, which S3 can write to, to the FIFO queue, which it cannot."""

    intake: Mailbox
    commands: Mailbox
    drops: Drops
    sent: Callable[[], int] = int
    """How many looks at S3 were answered so far."""
    told: Callable[[Sequence[Command]], None] = lambda commands: None
    """Called with what events have told of."""
    pause_s: float = 1.0
    flood: Flood = field(default_factory=Flood)
    counting: Counting = field(default_factory=Counting)

    async def listen(self) -> None:
        """Pass events on until cancelled."""
        ahead = Ahead(self.intake, self.flood)
        await ahead.listen("the intake queue", self._take, self.pause_s)

    async def _take(self, hand: Hand) -> None:
        await _patiently(hand, self._pass_on, self.pause_s, self.sent)

    async def _pass_on(self, deliveries: Sequence[Delivery]) -> _Round:
        """Pass a batch on in one call; where that fails, each message alone, so that one stops no other."""
        round = _Round()
        read = await self._read_all(deliveries, round)
        self.told([command for _, some in read for command in some])
        if not await self._send(read, round):
            for one in read:
                await self._send_alone(one, round)
        for delivery in round.done:
            fate = EventFate.PASSED_ON if delivery.content else EventFate.NOTHING
            self.counting.event(delivery.source, fate)
        if round.done:
            await self.intake.settle(round.done)
        return round

    async def _read_all(
        self, deliveries: Sequence[Delivery], round: _Round
    ) -> list[tuple[Delivery, list[Command]]]:
        """Return what the messages ask for, in their order, without those that cannot be passed on now."""
        found: dict[int, list[Command]] = {}

        async def read(place: int, delivery: Delivery) -> None:
            commands = await self._read(delivery, round)
            if commands is not None:
                found[place] = commands

        async with create_task_group() as tg:
            for place, delivery in enumerate(deliveries):
                tg.start_soon(read, place, delivery)
        return [(deliveries[place], found[place]) for place in sorted(found)]

    async def _read(self, delivery: Delivery, round: _Round) -> list[Command] | None:
        """Return what the message asks for; None if it was parked, or comes again."""
        if isinstance(delivery.content, Unreadable):
            round.parked += await self._park(delivery, delivery.content.reason)
            return None
        try:
            with foreign_as_unexpected("an event"):
                return [await self.drops.as_it_is(command) for command in delivery.content]
        except DaemonError as exc:
            await self._trouble(delivery, exc, round)
            return None

    async def _send(self, read: Sequence[tuple[Delivery, list[Command]]], round: _Round) -> bool:
        try:
            with foreign_as_unexpected("the relay"):
                if commands := [command for _, some in read for command in some]:
                    await self.commands.send(commands)
        except DaemonError as exc:
            log.warning("events_passed_on_one_by_one", error=str(exc))
            return False
        round.done += [delivery for delivery, _ in read]
        return True

    async def _send_alone(self, one: tuple[Delivery, list[Command]], round: _Round) -> None:
        delivery, commands = one
        try:
            with foreign_as_unexpected("an event"):
                await self.commands.send(commands)
        except DaemonError as exc:
            await self._trouble(delivery, exc, round)
        else:
            round.done.append(delivery)

    async def _trouble(self, delivery: Delivery, exc: DaemonError, round: _Round) -> None:
        its_own = isinstance(exc, Unexpected)
        if isinstance(exc, Permanent) or (its_own and delivery.tries > BREAKS):
            round.parked += await self._park(delivery, str(exc))
            return
        log.warning("event_comes_again", error=str(exc), tries=delivery.tries)
        round.waiting += not its_own

    async def _park(self, delivery: Delivery, reason: str) -> bool:
        parked = await park(self.intake, delivery, reason)
        if parked:
            self.counting.event(delivery.source, EventFate.PARKED)
        return parked


def _commands_of(delivery: Delivery) -> tuple[Command, ...]:
    return delivery.content if isinstance(delivery.content, tuple) else ()


def _workset_of(delivery: Delivery) -> str:
    """Return whose line the delivery stands in; one that cannot be read stands in a line of its own."""
    known = _commands_of(delivery)
    return known[0].workset_id if known else f"?{delivery.receipt}"


async def park(mailbox: Mailbox, delivery: Delivery, reason: str) -> bool:
    """Move one message to the dead letters; False if that cannot be done now, and it comes again."""
    try:
        with foreign_as_unexpected("parking a message"):
            await mailbox.park(delivery, reason)
    except DaemonError as exc:
        log.warning("message_not_parked", reason=reason, error=str(exc), tries=delivery.tries)
        return False
    log.error("message_parked", reason=reason, tries=delivery.tries)
    return True
