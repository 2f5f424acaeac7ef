"""Whether the tables and their indexes are there, asked with the daemon's own rights.

A query for a key that is none brings nothing where table and index are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import ClientError

from daylily_daemon.adapters.answers import error_code, plain_code
from daylily_daemon.adapters.aws import translated
from daylily_daemon.adapters.codec import ITEM_FORMAT, typed
from daylily_daemon.adapters.reading import items_of
from daylily_daemon.adapters.tables import Tables
from daylily_daemon.domain.finding import CheckResult, Grade, ok
from daylily_daemon.domain.turn import Queue
from daylily_daemon.ports import Turns

NOBODY: Final = "doctor: nobody"
LOOKED_AT: Final = 100
"""Items of each queue of turns whose format is looked at."""


@dataclass(frozen=True, slots=True)
class Keyed:
    """A table, or an index of one, by its hash key."""

    table: str
    key: str
    index: str = ""

    @property
    def named(self) -> str:
        return (
            f"the index {self.index} of {self.table}" if self.index else f"the table {self.table}"
        )


async def judged_tables(db: Any, turns: Turns, tables: Tables) -> Sequence[CheckResult]:
    """Raises Impeded where we lack the right to look, and Transient."""
    gone, making = list[Keyed](), list[Keyed]()
    for one in _all(tables):
        if one.table in [missing.table for missing in gone if not missing.index]:
            continue
        state = await _state(db, one)
        {"gone": gone, "making": making}.get(state, []).append(one)
    if gone:
        names = ", ".join(one.named for one in gone)
        remedy = "With the rights of somebody who may create things"
        text = f"Not there: {names}."
        return [
            CheckResult(grade=Grade.FAIL, text=text, remedy=remedy, command="daylily-daemon init")
        ]
    if making:
        text = f"Still being made: {', '.join(one.named for one in making)}."
        return [CheckResult(grade=Grade.WARN, text=text, remedy="Wait; it ends by itself")]
    return await _formats(db, turns, tables)


def _all(tables: Tables) -> Iterator[Keyed]:
    yield Keyed(tables.worksets, "workset_id")
    yield Keyed(tables.worksets, "queue", tables.queue_index)
    yield Keyed(tables.worksets, "state", tables.state_index)
    yield Keyed(tables.worksets, "customer_id", tables.customer_index)
    yield Keyed(tables.events, "workset_id")
    yield Keyed(tables.events, "outbox", tables.outbox_index)
    yield Keyed(tables.control, "pk")


async def _state(db: Any, one: Keyed) -> str:
    """Return ``there``, ``gone`` or ``making``. Raises Impeded and Transient."""
    request = {"IndexName": one.index} if one.index else {}
    async with translated(one.named):
        try:
            await db.query(
                TableName=one.table,
                **request,
                Limit=1,
                KeyConditionExpression="#key = :key",
                ExpressionAttributeNames={"#key": one.key},
                ExpressionAttributeValues={":key": typed(NOBODY)},
            )
        except ClientError as exc:
            if state := _told(exc, one):
                return state
            raise
    return "there"


def _told(error: ClientError, one: Keyed) -> str:
    """Return what a refusal says of the table or the index; empty if nothing."""
    code, words = plain_code(error_code(error)), str(error).lower()
    if "backfilling" in words or "being created" in words:
        return "making"
    if code == "ResourceNotFound":
        return "gone"
    return "gone" if one.index and code == "Validation" and "index" in words else ""


async def _formats(db: Any, turns: Turns, tables: Tables) -> Sequence[CheckResult]:
    """Look at those that wait and run: what a newer version wrote, this one leaves alone."""
    lines = [await turns.line_up(queue, limit=LOOKED_AT) for queue in Queue]
    ids = [turn.id for line in lines for turn in line]
    names = {"ExpressionAttributeNames": {"#format": "format"}}
    items = items_of(db, tables.worksets, ids, ProjectionExpression="workset_id, #format", **names)
    formats = [(str(item["workset_id"]), int(item.get("format", 0))) async for item in items]
    newer = [id for id, format in formats if format > ITEM_FORMAT]
    if newer:
        text = f"Written by a newer version, and left alone by this one: {', '.join(newer[:10])}."
        return [CheckResult(grade=Grade.WARN, text=text, remedy="Upgrade this host")]
    looked = f"; {len(formats)} worksets that wait or run can be read" if formats else ""
    return [ok(f"3 of 3, with their {len([o for o in _all(tables) if o.index])} indexes{looked}.")]
