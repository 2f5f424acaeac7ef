"""Items in numbers: by their keys, a hundred a call, and page after page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

import structlog
from anyio import sleep

from daylily_daemon.adapters.aws import translated
from daylily_daemon.adapters.codec import Item, Unusable, plain_item, typed, workset_from_item
from daylily_daemon.domain.errors import Newer, Transient
from daylily_daemon.domain.model import WorksetId
from daylily_daemon.domain.workset import Workset

log = structlog.get_logger()

BATCH: Final = 100
"""Keys in one BatchGetItem, a limit of DynamoDB."""
UNPROCESSED_TRIES: Final = 10
"""How often in a row a batch may be answered in part."""
FIRST_PAUSE_S: Final = 0.05
"""Before what was left unprocessed is asked for again; doubles, up to a second."""


async def items_of(
    client: Any, table: str, ids: Sequence[WorksetId], **how: Any
) -> AsyncIterator[Item]:
    """Yield the items there are of ``ids``, plain. Raises Transient if some are left unread for long."""
    for start in range(0, len(ids), BATCH):
        keys = [{"workset_id": typed(id)} for id in dict.fromkeys(ids[start : start + BATCH])]
        for item in await _batch(client, table, keys, how):
            yield item


async def _batch(client: Any, table: str, keys: list[Item], how: Item) -> list[Item]:
    found, pause_s = list[Item](), FIRST_PAUSE_S
    for _ in range(UNPROCESSED_TRIES):
        async with translated(f"table {table}"):
            answer = await client.batch_get_item(RequestItems={table: {**how, "Keys": keys}})
        found += [plain_item(item) for item in answer.get("Responses", {}).get(table, [])]
        keys = (answer.get("UnprocessedKeys") or {}).get(table, {}).get("Keys", [])
        if not keys:
            return found
        await sleep(pause_s)
        pause_s = min(2 * pause_s, 1.0)
    raise Transient(f"DynamoDB left {len(keys)} items of table {table} unread, again and again.")


async def worksets_of(client: Any, table: str, ids: Sequence[WorksetId]) -> list[Workset]:
    """Return the worksets there are of ``ids``, by strongly consistent reads, that can be read."""
    items = items_of(client, table, ids, ConsistentRead=True)
    return list(readable([item async for item in items]))


def readable(items: Sequence[Item]) -> Iterator[Workset]:
    """Yield the worksets that can be read; one that cannot must not hide the others."""
    for item in items:
        try:
            yield workset_from_item(item)
        except (Unusable, Newer) as exc:
            log.warning("item_unreadable", error=str(exc))


async def pages(client: Any, query: Item, limit: int) -> AsyncIterator[Item]:
    """Yield up to ``limit`` items of a query, typed as DynamoDB does."""
    left = limit
    while left > 0:
        async with translated(f"table {query['TableName']}"):
            answer = await client.query(**query, Limit=min(left, 1000))
        for item in answer["Items"]:
            yield item
        left -= len(answer["Items"])
        if not (last := answer.get("LastEvaluatedKey")):
            return
        query = {**query, "ExclusiveStartKey": last}
