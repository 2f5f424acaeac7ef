"""What the engine needs from the outside world, as roles.

Every method may raise ``Transient``: the outcome is unknown, and the same call may be made again. What
else is raised is said where it is. No method leaves a foreign exception through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol

from daylily_daemon.domain.daemon import Drain, QueueLevel, Registered, Status
from daylily_daemon.domain.datum import Datum
from daylily_daemon.domain.errors import DaemonError
from daylily_daemon.domain.listing import Position, Query
from daylily_daemon.domain.model import (
    Answer,
    Command,
    Inspection,
    Job,
    Outcome,
    Progress,
    Record,
    State,
    WorksetId,
)
from daylily_daemon.domain.turn import Queue, Turn
from daylily_daemon.domain.workset import Workset


class Conflict(DaemonError):
    """The item is not what the change was decided on; ``current`` is what it is now."""

    def __init__(self, current: Workset | None) -> None:
        super().__init__("the workset was changed by somebody else meanwhile")
        self.current = current


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One write: the item from ``before`` to ``after`` and its records, all or nothing.

    ``nonce`` is fresh per change and kept over repeats of it: finding it in the item after a refused
    write means that the first try was applied and only its answer got lost.
    """

    before: Workset | None
    after: Workset
    nonce: str
    records: tuple[Record, ...] = ()
    once: str | None = None
    """Id of a command that is answered for the first time, and never again, however late it is repeated."""
    answers: tuple[Answer, ...] = ()
    """Remembered for ever, in the same write. One to a command that was queued before replaces that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """What is known of a workset by whoever looks for triggers that nobody answered."""

    sentinel: str
    """As in Workset; empty where a version before this one answered."""
    submitted_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OwedPage:
    records: Sequence[Record]
    more: Any = None
    """Given back, it asks for the next page; None after the last."""


COUNTED: Final = 1000
"""Worksets of one state that are counted; beyond, it is enough to know that there are more."""


class Count(NamedTuple):
    """How many there are, ``1000+`` where counting stopped."""

    found: int
    more: bool

    def __str__(self) -> str:
        return f"{self.found}{'+' if self.more else ''}"


class Worksets(Protocol):
    async def load(self, id: WorksetId) -> Workset | None:
        """Return the item by a strongly consistent read, None if there is none."""
        ...

    async def commit(self, change: Change) -> Workset:
        """Write ``after`` with ``version`` grown by one, if version and fence are still ``before``'s.

        Returns the stored workset. Raises Conflict, AlreadyDone (``once`` was used up) or Transient.
        Repeating a change whose answer was lost returns as if it had just been applied.
        """
        ...

    async def announced(self, ids: Sequence[WorksetId]) -> Mapping[WorksetId, Announced]:
        """Return which trigger was answered last, of those ``ids`` that have an item."""
        ...


LOADED: Final = 100
"""Items of one ``load_all``."""


class Turns(Protocol):
    """What waits and what runs, in the order of turns. May be stale, as indexes are."""

    async def line_up(self, queue: Queue, *, after: str = "", limit: int) -> Sequence[Turn]:
        """Return up to ``limit`` turns behind the key ``after``: fewer only where the queue ends."""
        ...

    async def load_all(self, ids: Sequence[WorksetId]) -> Sequence[Workset]:
        """Return the items of up to ``LOADED`` ids by strongly consistent reads.

        Those that are not there, or cannot be read by this version, are left out.
        """
        ...

    async def refile(self, ws: Workset) -> None:
        """Give the item the turn it must have, unless it has it or is no longer at this version."""
        ...

    async def unfiled(self, state: State, *, limit: int = 1000) -> Sequence[Workset]:
        """Return worksets in ``state`` that have no turn, because a version before this one wrote them."""
        ...


READ_ROWS: Final = 1000
"""Rows that are read for one page, those that are left out too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    worksets: Sequence[Workset]
    after: Position | None
    """Given back, it brings the next page; None after the last."""


class Catalogue(Protocol):
    """Worksets as lists and figures show them. May be stale, as indexes are."""

    async def page(self, query: Query, *, after: Position | None = None, limit: int) -> Page:
        """Return up to ``limit`` worksets, state by state, urgent and old ones first.

        Of one customer that order holds within a page. At most ``READ_ROWS`` rows are read: a page may be
        short, or empty, and have more after it. ``after`` must fit the query (``listing.fits``).
        """
        ...

    async def count(self, state: State, *, most: int = COUNTED) -> Count:
        """Return how many worksets are in ``state``, looking at no more than ``most`` and one."""
        ...


class Trail(Protocol):
    """The audit trail, which is also the outbox."""

    async def read(self, id: WorksetId, *, after: int = 0, limit: int = 1000) -> Sequence[Record]:
        """Return records with ``seq > after``, oldest first."""
        ...

    async def owed(self, *, after: Any = None, limit: int = 100) -> OwedPage:
        """Return a page of the records with notices owed, by a sparse index. May be stale."""
        ...

    async def answer(self, id: WorksetId, answer: Answer) -> None:
        """Remember what became of a command that changed no workset; the first answer stands."""
        ...

    async def answer_to(self, id: WorksetId, command_id: str) -> Answer | None:
        """Return what became of a command, by a strongly consistent read; None if nothing yet."""
        ...

    async def settle(
        self, record: Record, told: frozenset[str], given_up: frozenset[str] = frozenset()
    ) -> Record:
        """Strike channels off what ``record`` owes; return the record as it is now."""
        ...

    async def take_over(self, record: Record, teller: str) -> Record | None:
        """Become the teller of ``record`` if it is still as seen; None if somebody was faster."""
        ...


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that can never be understood, and why."""

    reason: str


class EventSource(StrEnum):
    """By which way a drop was told of."""

    S3 = "s3"
    SNS = "sns"
    EVENTBRIDGE = "eventbridge"
    LISTING = "listing"
    """By none: a listing of the prefix found it."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    content: tuple[Command, ...] | Unreadable
    """What the message asks for; empty where it asks for nothing (a test event)."""
    receipt: str
    tries: int = 1
    source: EventSource = EventSource.UNKNOWN
    """Of what an event tells; unknown where it is a command."""


class Mailbox(Protocol):
    """A queue of commands: the intake queue of S3 events, or the FIFO queue behind it."""

    async def receive(self) -> Sequence[Delivery]:
        """Wait a bounded time for messages; what is not settled comes again. May return none."""
        ...

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Delete these messages, each by itself. Not proof that they will not come again."""
        ...

    async def keep(self, deliveries: Sequence[Delivery], hidden_s: int) -> None:
        """Hide these for so long from now on, because they are still being worked on. Best effort."""
        ...

    async def park(self, delivery: Delivery, reason: str) -> None:
        """Move the message to the dead-letter queue with the reason, then delete it here.

        Raises Impeded where that queue is missing or denied; the message stays then, and comes again.
        """
        ...

    async def send(self, commands: Sequence[Command]) -> None:
        """Put commands into the queue, grouped by workset, deduplicated by command id.

        Each is taken or not by itself. If some were not, the others were sent before this raises: Transient
        (or Impeded) if one of those may be taken later, Permanent if none of them ever will.
        """
        ...


class Unanswered(NamedTuple):
    """How many messages wait, or are with somebody who has not settled them; roughly."""

    commands: int
    events: int


class Queues(Protocol):
    """The queues as whoever asks for something sees them."""

    async def send(self, command: Command) -> None:
        """Put a command into the queue. Raises Permanent if there is no queue."""
        ...

    async def unanswered(self) -> Unanswered:
        """Return how much no daemon has answered yet."""
        ...

    async def depths(self) -> Mapping[str, QueueLevel]:
        """Return about how much lies in each queue, dead-letter queues too, without ages."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that was given up."""

    queue: str
    """Name of the queue it was taken out of, not of the dead-letter queue."""
    id: str
    sent_at: datetime | None
    tries: int
    reason: str
    body: str
    receipt: str = field(repr=False)


class GivenUp(Protocol):
    """The messages that were given up. What a look shows is hidden from others until it is put back."""

    async def look(self, most: int = 1000) -> Sequence[DeadLetter]:
        """Return what can be seen now, oldest first, about ``most`` a queue."""
        ...

    async def unseen(self) -> int:
        """Return about how many there are besides those that are held by a look."""
        ...

    async def put_back(self, letters: Sequence[DeadLetter]) -> None: ...

    async def replay(self, letter: DeadLetter) -> None:
        """Send one message to its queue again. Raises Permanent for what no queue takes."""
        ...

    async def check(self, letter: DeadLetter, body: str) -> Sequence[Command]:
        """Return what ``body`` would ask for in the queue of ``letter``.

        Raises Permanent, with the sentence of whoever reads that queue, where it cannot be understood or asks
        for nothing.
        """
        ...

    async def mend(self, letter: DeadLetter, body: str) -> Sequence[Command]:
        """Check ``body``, send it to the queue of ``letter``, and only then delete ``letter``.

        The same again within five minutes sends it once. Raises as ``check``.
        """
        ...

    async def replay_all(self) -> int:
        """Send all again; return how many. Raises Permanent for what no queue takes, at the end."""
        ...

    async def drop(self, letter: DeadLetter) -> None: ...

    async def drop_all(self) -> int:
        """Delete all for good; return how many."""
        ...


class Levels(Protocol):
    async def levels(self) -> Mapping[str, QueueLevel]:
        """Return how much lies in each queue of this daemon, dead-letter queues too."""
        ...


class Registry(Protocol):
    """The daemons of all hosts, each with what it said last."""

    async def sign(self, owner: str, status: Status, at: datetime) -> Drain | None:
        """Store what this daemon says of itself; return how it is drained, None if it is not."""
        ...

    async def drained(self, owner: str) -> Drain | None:
        """Return how this daemon is drained, by a strongly consistent read."""
        ...

    async def drain(self, owner: str, drain: Drain | None) -> None:
        """Have this daemon take on nothing new; None lets it go on."""
        ...

    async def strike(self, owner: str) -> None:
        """Leave this daemon out from now on, until it signs again: its machine is gone."""
        ...

    async def daemons(self) -> Sequence[Registered]:
        """Return all of them, by name."""
        ...


class MetricStore(Protocol):
    """Where figures are kept outside of the daemon."""

    async def put(self, data: Sequence[Datum]) -> None:
        """Store ``data`` as of now. Not idempotent: what is told twice counts twice."""
        ...


class Inputs(Protocol):
    async def inspect(self, workset: Workset) -> Inspection:
        """Read and check recipe, sheet and the existence of every input file. Changes nothing."""
        ...


class Drops(Protocol):
    """What S3 says of the triggers that lie there, whatever events say."""

    async def as_it_is(self, command: Command) -> Command:
        """Return the submission that an event speaks of, under the id of the trigger that lies there now.

        So an event and a listing that see the same trigger ask under the same id. Unchanged where the
        trigger is gone, and for every other command.
        """
        ...

    async def unannounced(self) -> Sequence[Command]:
        """Return a submission for each trigger under the control prefix that was not answered yet."""
        ...


class Runner(Protocol):
    """Starts, watches and stops jobs that outlive the daemon."""

    @property
    def scope(self) -> str:
        """Who can see these jobs: equal scopes can adopt each other's jobs."""
        ...

    async def look(self, job: Job) -> None:
        """Return if ``job`` can be tended from here; cheap. Raises Transient, saying why, if not."""
        ...

    async def ensure(self, job: Job) -> None:
        """Start ``job`` unless it was ever started or revoked. Raises Permanent if it never can be.

        Raises Unclear where a start would be a risk: something of this workset still runs, or the token of
        a job that is ``confirmed`` is gone. A job without ``argv`` is never started: it is found running, or
        revoked, and then Permanent.
        """
        ...

    async def wait(self, job: Job) -> Outcome:
        """Wait until ``job`` has ended for certain. Never guesses; Transient if it cannot see.

        Raises Unclear where it has probably ended and nothing proves it.
        """
        ...

    async def progress(self, job: Job) -> Progress | None:
        """Return the latest progress found in the log, and when that was written to; None without a log."""
        ...

    async def stop(self, job: Job) -> None:
        """Return once nothing of ``job`` runs and it can never start."""
        ...


class Notifier(Protocol):
    async def deliver(self, record: Record) -> None:
        """Tell this channel. ``record.id`` is the delivery id. Raises Transient or Permanent."""
        ...


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware wall-clock time, for people and for delays of minutes; never for a lease."""
        ...


class Ids(Protocol):
    def fresh(self) -> str:
        """Return a short id that was never returned before, by any daemon."""
        ...
