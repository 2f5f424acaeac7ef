"""What is shown of worksets and records, to people and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import isfinite
from typing import Any, Final

from daylily_daemon.application.wording import (
    age,
    progress_text,
    reason_text,
    results_text,
    step_text,
)
from daylily_daemon.cli import printing
from daylily_daemon.cli.layout import Grid, GridColumn, Piece
from daylily_daemon.domain.model import Record, State
from daylily_daemon.domain.notice import stamp
from daylily_daemon.domain.times import when
from daylily_daemon.domain.totality import total
from daylily_daemon.domain.workset import Workset
from daylily_daemon.ports import DeadLetter
from daylily_daemon.settings.sources import Effective

_COLOURS: Final = {
    State.READY: "cyan",
    State.IN_PROGRESS: "blue",
    State.COMPLETE: "green",
    State.ERROR: "red",
    State.FAILED: "red",
    State.RETRYING: "yellow",
    State.CANCELED: "magenta",
    State.IGNORED: "",
    State.ARCHIVED: "",
    State.DELETED: "",
}
COLOURS: Final = total("output.COLOURS", _COLOURS, tuple(State))
"""Empty for the states of what nobody has to look at."""

WIDE_FROM: Final = 100
"""Columns of a terminal below which a list leaves out what can be missed."""
LISTED: Final = (
    GridColumn(heading="WORKSET"),
    GridColumn(heading="STATE"),
    GridColumn(heading="AGE"),
    GridColumn(heading="PRIORITY", wide_from=WIDE_FROM, missed=2),
    GridColumn(heading="CUSTOMER", wide_from=WIDE_FROM, missed=1),
    GridColumn(heading="NOW"),
)
WIDE: Final = tuple(
    GridColumn(heading=heading)
    for heading in (
        *("WORKSET", "STATE", "PRIORITY", "CUSTOMER", "PIPELINE", "ATTEMPT", "HELD BY"),
        *("SUBMITTED", "SINCE", "UPDATED", "NOW"),
    )
)
RECORDS: Final = (
    GridColumn(heading="#"),
    GridColumn(heading="AT (UTC)"),
    GridColumn(heading="TYPE", missed=1),
    GridColumn(heading="STATE"),
    GridColumn(heading="WHAT"),
)
LETTERS: Final = (
    GridColumn(heading="#"),
    GridColumn(heading="MESSAGE"),
    GridColumn(heading="QUEUE", missed=1),
    GridColumn(heading="SENT (UTC)", missed=2),
    GridColumn(heading="TRIES", missed=3),
    GridColumn(heading="REASON"),
)
SETTINGS: Final = (GridColumn(heading="SETTING"), GridColumn(heading="VALUE (FROM)"))


def print_json(value: Any) -> None:
    printing.say_json(_plain(value))


def print_line(value: Any) -> None:
    """Print one line of JSON."""
    printing.say_line(_plain(value))


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON has it."""
    match value:
        case datetime():
            return stamp(value)
        case float() if not isfinite(value):
            return str(value)
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {str(key): _plain(found) for key, found in value.items()}
        case set() | frozenset():
            return sorted(_plain(found) for found in value)
        case list() | tuple():
            return [_plain(found) for found in value]
        case _:
            return str(value)


def list_grid(worksets: Sequence[Workset], now: datetime, *, wide: bool = False) -> Grid:
    """Return what a list shows: ages for people; ``wide`` has every column, and times as programs read them.

    An age is for how long a workset is in its state.
    """
    if wide:
        return Grid(columns=WIDE, rows=[_wide_row(ws, now) for ws in worksets], together=2)
    rows = [
        (
            ws.id,
            Piece(ws.shown_state, COLOURS[ws.state]),
            age((now - ws.state_since).total_seconds()),
            ws.priority,
            ws.request.customer_id or "-",
            reason_text(ws, now),
        )
        for ws in worksets
    ]
    return Grid(columns=LISTED, rows=rows, cut=True, together=2)


def _wide_row(ws: Workset, now: datetime) -> tuple[str | Piece, ...]:
    return (
        ws.id,
        Piece(ws.shown_state, COLOURS[ws.state]),
        ws.priority,
        ws.request.customer_id or "-",
        ws.plan.pipeline if ws.plan else "-",
        str(ws.attempt),
        ws.owner or "-",
        stamp(ws.request.submitted_at or ws.created_at),
        stamp(ws.state_since),
        stamp(ws.updated_at),
        reason_text(ws, now),
    )


def facts(ws: Workset) -> list[tuple[str, str]]:
    """Return what ``show`` prints, in the order in which people ask for it."""
    plan, failure, run, step = ws.plan, ws.failure, ws.run, ws.step
    pairs = [
        ("workset", ws.id),
        ("state", ws.shown_state),
        ("trouble", ws.trouble),
        ("job", "whether it still runs cannot be told" if ws.unclear else ""),
        ("progress", progress_text(ws) if step else ws.waiting_for),
        ("error", failure.details if failure else ""),
        ("warnings", "\n".join(ws.warnings)),
        ("error code", f"{failure.code} ({failure.category})" if failure else ""),
        ("failed step", run.failed.name if run and run.failed else ""),
        ("next try", when(ws.retry_after)),
        ("retries", f"{ws.retry_count} of {_limit(ws)}" if ws.retry_count else ""),
        ("priority", ws.priority),
        ("customer", ws.request.customer_id),
        ("rerun of", ws.request.rerun_of),
        ("input", f"s3://{ws.request.bucket}/{ws.request.prefix}"),
        ("pipeline", f"{plan.pipeline}, {plan.samples} rows in the sheet" if plan else ""),
        ("run arguments", " ".join(plan.run_args) if plan else ""),
        ("results", " ".join(filter(None, (ws.results_uri, results_text(run))))),
        ("attempt", str(ws.attempt) if ws.attempt else ""),
        ("started", when(step.started_at) if step else ""),
        ("last output", when(run.progress.output_at) if run else ""),
        ("ends by", when(run.ends_at()) if run else ""),
        ("steps", "\n".join(map(step_text, run.steps)) if run else ""),
        ("runner", f"{step.runner} on {step.scope}" if step else ""),
        ("run folder", run.folder if run else ""),
        ("held by", ws.owner or ""),
        ("submitted", when(ws.request.submitted_at)),
        ("updated", when(ws.updated_at)),
    ]
    return [(name, value) for name, value in pairs if value]


def _limit(ws: Workset) -> str:
    return "the configured limit" if ws.max_retries is None else str(ws.max_retries)


def records_grid(records: Sequence[Record]) -> Grid:
    return Grid(columns=RECORDS, rows=[_record_row(record) for record in records])


def _record_row(record: Record) -> tuple[str, ...]:
    moved = record.previous not in (None, record.state)
    state = f"{record.previous} → {record.state}" if moved else record.state
    told = [f"{c} is still to be told" for c in sorted(record.owed)]
    told += [f"{c} was given up" for c in sorted(record.given_up)]
    what = f"{record.message} ({', '.join(told)})" if told else record.message
    return str(record.seq), when(record.at), record.type, state, what


def letters_grid(letters: Sequence[DeadLetter]) -> Grid:
    rows = [
        (str(n), a.id, a.queue, when(a.sent_at), str(a.tries), a.reason)
        for n, a in enumerate(letters, start=1)
    ]
    return Grid(columns=LETTERS, rows=rows, together=2)


def settings_grid(settings: Sequence[Effective]) -> Grid:
    rows = [(one.key, f"{one.value_shown} ({one.origin})".lstrip()) for one in settings]
    return Grid(columns=SETTINGS, rows=rows)
