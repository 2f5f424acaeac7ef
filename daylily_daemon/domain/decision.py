"""Decisions: the next workset, the records of the way to it, and the effects to run.

``NEXT`` is the truth about states: ``Decision.turn`` refuses to leave it, the store refuses a write whose
version or fence moved on, and the picture in docs/states.md is made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    Workset,
)

NEXT: Final[Mapping[State, frozenset[State]]] = {
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
    State.ARCHIVED: frozenset({State.READY, State.DELETED}),
    State.DELETED: frozenset(),
}
"""Which state may follow which. READY to ERROR is input that was refused before anything ran."""

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


@dataclass(frozen=True, slots=True)
class Decision:
    """The next workset, what is told about the way to it, and what is to be done."""

    workset: Workset
    records: tuple[Record, ...] = ()
    effects: tuple[Effect, ...] = ()
    answers: tuple[Answer, ...] = ()
    """What became of the commands this decides on."""

    def set(self, **changes: Any) -> Decision:
        return replace(self, workset=replace(self.workset, **changes))

    def do(self, effect: Effect) -> Decision:
        return replace(self, effects=(*self.effects, effect))

    def warn(self, *texts: str) -> Decision:
        """Add warnings to the workset, each once, the first ones if there are too many."""
        known = dict.fromkeys((*self.workset.warnings, *(t[:WARNING_CHARS] for t in texts)))
        return self.set(warnings=tuple(known)[:WARNINGS_LIMIT])

    def answer(self, command_id: str, effect: CommandEffect, text: str, at: datetime) -> Decision:
        one = Answer(command_id=command_id, effect=effect, text=text[:ANSWER_CHARS], at=at)
        return replace(self, answers=(*self.answers, one))

    def note(self, at: datetime, message: str, **fields: Any) -> Decision:
        """Add a record; ``fields`` are those of Record."""
        ws = replace(self.workset, last_seq=self.workset.last_seq + 1, updated_at=at)
        known: dict[str, Any] = {"type": RecordType.COMMAND, "previous": ws.state, **fields}
        record = Record(
            workset_id=ws.id,
            seq=ws.last_seq,
            at=at,
            state=ws.state,
            message=message[:MESSAGE_LIMIT],
            priority=ws.priority,
            customer_id=ws.customer_id,
            cluster_name=ws.cluster_name,
            bucket=ws.bucket,
            prefix=ws.prefix,
            **known,
        )
        return replace(self, workset=ws, records=(*self.records, record))

    def turn(self, state: State, at: datetime, message: str, **fields: Any) -> Decision:
        """Change the state by the table, with a record that channels may be told of."""
        before = self.workset
        if state not in NEXT[before.state]:
            raise AssertionError(f"{before.state} must not turn into {state}")
        line = Transition(state=state, at=at, reason=message[:200])
        moved = self.set(state=state, history=(*before.history, line)[-HISTORY_LIMIT:])
        if state is not State.IN_PROGRESS:
            moved = replace(moved, workset=released(moved.workset))
        known = {"type": RecordType.STATE_CHANGE, "notify": True, "previous": before.state}
        return moved.note(at, message, **{**known, **fields})


def released(ws: Workset) -> Workset:
    """Clear the lock. State and fence stay what they are."""
    return replace(ws, lock_owner=None, lock_acquired_at=None, lock_expires_at=None)


def refuse(decision: Decision, problems: tuple[Problem, ...], now: datetime) -> Decision:
    text = "\n".join(str(p) for p in problems)[:DETAILS_LIMIT]
    category = problems[0].category
    known = decision.set(
        error_details=text,
        error_category=category,
        error_code="WS-DAT-002" if category is Category.DATA else "WS-CFG-001",
        progress_message="",
    )
    return known.turn(
        State.ERROR,
        now,
        f"input refused: {problems[0]}"[:500],
        type=RecordType.ERROR,
        error_details=text,
        details={"category": str(category), "problems": len(problems)},
    )
