"""Decisions: the next workset, the records of the way to it, and the effects to run.

``NEXT`` is the truth about states: ``Decision.transition`` refuses to leave it, the store refuses a write
whose version or fence moved on, and the picture in docs/states.md is made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from daylily_daemon.domain.model import (
    HISTORY_LIMIT,
    WARNINGS_LIMIT,
    Answer,
    Category,
    CommandEffect,
    JobName,
    Problem,
    Record,
    RecordType,
    State,
    Transition,
)
from daylily_daemon.domain.totality import total
from daylily_daemon.domain.workset import Failure, Workset

_NEXT: Final = {
    State.READY: frozenset({State.IN_PROGRESS, State.ERROR, State.CANCELED, State.IGNORED}),
    State.IN_PROGRESS: frozenset({State.COMPLETE, State.ERROR, State.CANCELED}),
    State.COMPLETE: frozenset({State.ARCHIVED}),
    State.ERROR: frozenset(
        {State.RETRYING, State.FAILED, State.READY, State.IGNORED, State.ARCHIVED}
    ),
    State.RETRYING: frozenset({State.READY, State.CANCELED, State.IGNORED}),
    State.FAILED: frozenset({State.READY, State.IGNORED, State.ARCHIVED}),
    State.CANCELED: frozenset({State.READY, State.ARCHIVED}),
    State.IGNORED: frozenset({State.READY, State.ARCHIVED}),
    State.ARCHIVED: frozenset(
        {
            *(State.COMPLETE, State.ERROR, State.FAILED, State.CANCELED, State.IGNORED),
            State.DELETED,
        }
    ),
    State.DELETED: frozenset(),
}
NEXT: Final[Mapping[State, frozenset[State]]] = total("decision.NEXT", _NEXT, tuple(State))
"""Which state may follow which. READY to ERROR is input that was refused before anything ran; what leaves
ARCHIVED goes back to where it was: nothing runs again because somebody looked for it."""

DETAILS_LIMIT: Final = 4000
"""Characters of ``error_details``; an item ends at 400 KB."""
MESSAGE_LIMIT: Final = 1000
"""Characters of a record's message, whoever wrote the parts of it."""
ANSWER_CHARS: Final = 500
WARNING_CHARS: Final = 300


@dataclass(frozen=True, slots=True)
class RunJob:
    """Start the job unless it was ever started, then watch it to its end."""

    job: JobName


@dataclass(frozen=True, slots=True)
class StopJob:
    job: JobName


Effect = RunJob | StopJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """How an event is told, besides its message."""

    type: RecordType = RecordType.STATE_CHANGE
    notify: bool = True
    """Whether channels may be told; if not, it is for the audit trail alone."""
    by: str = ""
    """Who asked for it; empty if nobody did."""
    error_details: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


TOLD: Final = Note()
"""A change of state that channels hear of."""
QUIET: Final = Note(notify=False)
"""A change of state that is a step to another one."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The next workset, what is told about the way to it, and what is to be done."""

    workset: Workset
    records: tuple[Record, ...] = ()
    effects: tuple[Effect, ...] = ()
    answers: tuple[Answer, ...] = ()
    """What became of the commands this decides on."""

    def becoming(self, workset: Workset) -> Decision:
        """Return this decision with the workset changed in ways that nobody is told of."""
        return replace(self, workset=workset)

    def with_effect(self, effect: Effect) -> Decision:
        return replace(self, effects=(*self.effects, effect))

    def with_warnings(self, *texts: str) -> Decision:
        """Add warnings to the workset, each once, the first ones if there are too many."""
        known = dict.fromkeys((*self.workset.warnings, *(t[:WARNING_CHARS] for t in texts)))
        return self.becoming(replace(self.workset, warnings=tuple(known)[:WARNINGS_LIMIT]))

    def answer(self, command_id: str, effect: CommandEffect, text: str, at: datetime) -> Decision:
        one = Answer(command_id=command_id, effect=effect, text=text[:ANSWER_CHARS], at=at)
        return replace(self, answers=(*self.answers, one))

    def record(self, at: datetime, message: str, note: Note) -> Decision:
        """Add an event of the present state to the trail."""
        return self._told(self.workset.state, at, message, note)

    def registered(self, at: datetime, message: str, by: str) -> Decision:
        """Add the first event of a workset, before which it had no state."""
        return self._told(None, at, message, Note(by=by))

    def transition(self, state: State, at: datetime, message: str, note: Note = TOLD) -> Decision:
        """Change the state by the table, with an event."""
        before = self.workset
        if state not in NEXT[before.state]:
            raise AssertionError(f"{before.state} must not turn into {state}")
        line = Transition(state=state, at=at, reason=message[:200])
        after = replace(before, state=state, history=(*before.history, line)[-HISTORY_LIMIT:])
        if state is not State.IN_PROGRESS:
            after = released(after)
        return self.becoming(after)._told(before.state, at, message, note)

    def _told(self, previous: State | None, at: datetime, message: str, note: Note) -> Decision:
        ws = replace(self.workset, last_seq=self.workset.last_seq + 1, updated_at=at)
        record = Record(
            workset_id=ws.id,
            seq=ws.last_seq,
            at=at,
            type=note.type,
            state=ws.state,
            previous=previous,
            message=message[:MESSAGE_LIMIT],
            details=note.details,
            priority=ws.priority,
            customer_id=ws.request.customer_id,
            cluster_name=ws.cluster_name,
            bucket=ws.request.bucket,
            prefix=ws.request.prefix,
            error_details=note.error_details,
            by=note.by,
            notify=note.notify,
        )
        return replace(self, workset=ws, records=(*self.records, record))


def released(ws: Workset) -> Workset:
    """Clear the lock. State and fence stay what they are."""
    return replace(ws, lock=None)


def refuse(decision: Decision, problems: tuple[Problem, ...], now: datetime) -> Decision:
    text = "\n".join(str(p) for p in problems)[:DETAILS_LIMIT]
    category = problems[0].category
    code = "WS-DAT-002" if category is Category.DATA else "WS-CFG-001"
    failure = Failure(code=code, category=category, details=text)
    known = replace(decision.workset, failure=failure, waiting_for="")
    details = {"category": str(category), "problems": len(problems)}
    note = Note(type=RecordType.ERROR, error_details=text, details=details)
    message = f"input refused: {problems[0]}"[:500]
    return decision.becoming(known).transition(State.ERROR, now, message, note)
