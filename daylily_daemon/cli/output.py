"""How worksets look on a terminal and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.markup import escape
from rich.table import Table

from daylily_daemon.adapters.codec import record_to_item, stamp, workset_to_item
from daylily_daemon.cli.options import out
from daylily_daemon.domain.model import Record, State, Workset

COLOURS = {
    State.READY: "cyan",
    State.IN_PROGRESS: "blue",
    State.COMPLETE: "green",
    State.ERROR: "red",
    State.FAILED: "red",
    State.RETRYING: "yellow",
    State.CANCELED: "magenta",
}


def print_json(value: Any) -> None:
    out.print_json(json.dumps(value, default=_plain, ensure_ascii=False))


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return stamp(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)


def workset_json(ws: Workset) -> dict[str, Any]:
    return {**workset_to_item(ws), "shown_state": ws.shown_state}


def record_json(record: Record) -> dict[str, Any]:
    return {**record_to_item(record), "seq": record.seq}


def state_text(ws: Workset) -> str:
    colour = COLOURS.get(ws.state, "white")
    return f"[{colour}]{ws.shown_state}[/]"


def progress_text(ws: Workset) -> str:
    if ws.state is State.IN_PROGRESS or ws.state is State.READY:
        percent = "" if ws.progress_fraction is None else f"{ws.progress_fraction:.0%}"
        return " ".join(p for p in (ws.progress_step, percent, ws.progress_message) if p)
    return ws.error_details.split("\n", 1)[0] if ws.error_details else ""


def when(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else ""


def list_table(worksets: Sequence[Workset]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("WORKSET", no_wrap=True)
    table.add_column("STATE", no_wrap=True)
    for heading in ("PRIORITY", "CUSTOMER", "UPDATED (UTC)"):
        table.add_column(heading, no_wrap=True)
    table.add_column("PROGRESS OR REASON", overflow="ellipsis", no_wrap=True, ratio=1)
    for ws in worksets:
        table.add_row(
            ws.id,
            state_text(ws),
            ws.priority,
            escape(ws.customer_id or "-"),
            when(ws.updated_at),
            escape(progress_text(ws)),
        )
    return table


def facts(ws: Workset) -> list[tuple[str, str]]:
    """Return what ``show`` prints, in the order in which people ask for it."""
    plan = ws.plan
    pairs = [
        ("workset", ws.id),
        ("state", ws.shown_state),
        ("progress", progress_text(ws) if ws.state is State.IN_PROGRESS else ws.progress_message),
        ("error", ws.error_details),
        ("error code", f"{ws.error_code} ({ws.error_category})" if ws.error_code else ""),
        ("failed step", ws.failed_step or ""),
        ("next try", when(ws.retry_after)),
        ("retries", f"{ws.retry_count} of {_limit(ws)}" if ws.retry_count else ""),
        ("priority", ws.priority),
        ("customer", ws.customer_id),
        ("input", f"s3://{ws.bucket}/{ws.prefix}"),
        ("pipeline", f"{plan.pipeline}, {plan.samples} rows in the sheet" if plan else ""),
        ("run arguments", " ".join(plan.run_args) if plan else ""),
        ("results", ws.results_s3_uri),
        ("attempt", str(ws.attempt) if ws.attempt else ""),
        ("runner", f"{ws.runner} on {ws.runner_scope}" if ws.runner else ""),
        ("run folder", ws.run_dir),
        ("held by", ws.lock_owner or ""),
        ("submitted", when(ws.submitted_at)),
        ("updated", when(ws.updated_at)),
    ]
    return [(name, value) for name, value in pairs if value]


def _limit(ws: Workset) -> str:
    return "the configured limit" if ws.max_retries is None else str(ws.max_retries)


def facts_table(pairs: Sequence[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, escape(value))
    return table


def records_table(records: Sequence[Record]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("#", "AT (UTC)", "TYPE", "STATE"):
        table.add_column(heading, no_wrap=True)
    table.add_column("WHAT", overflow="fold", ratio=1)
    table.add_column("OWED", overflow="fold")
    for r in records:
        state = f"{r.previous} → {r.state}" if r.previous not in (None, r.state) else r.state
        owed = ", ".join([*sorted(r.owed), *(f"{c} given up" for c in sorted(r.given_up))])
        table.add_row(str(r.seq), when(r.at), r.type, state, escape(r.message), owed)
    return table
