"""What waits and what runs, as an index of turns shows it, and the items behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from botocore.exceptions import ClientError

from daylily_daemon.adapters.answers import error_code
from daylily_daemon.adapters.aws import translated
from daylily_daemon.adapters.codec import Item, plain_item, turn_to_item, typed
from daylily_daemon.adapters.reading import pages, readable, worksets_of
from daylily_daemon.adapters.tables import Tables
from daylily_daemon.domain.model import State, WorksetId
from daylily_daemon.domain.turn import Queue, Turn, turn_of
from daylily_daemon.domain.workset import Workset

_FIRST: Final = "!"
"""Sorts before every key, none of which is empty."""
_NAMES: Final = {"#queue": "queue", "#turn": "turn", "#state": "state", "#version": "version"}


class DynamoTurns:
    def __init__(self, client: Any, tables: Tables) -> None:
        self._client = client
        self._tables = tables

    async def line_up(self, queue: Queue, *, after: str = "", limit: int) -> Sequence[Turn]:
        query: Item = {
            "TableName": self._tables.worksets,
            "IndexName": self._tables.queue_index,
            "KeyConditionExpression": "#queue = :queue AND #turn > :after",
            "ExpressionAttributeNames": _named("#queue", "#turn"),
            "ExpressionAttributeValues": {
                ":queue": typed(str(queue)),
                ":after": typed(after or _FIRST),
            },
        }
        return [_turn(queue, plain_item(i)) async for i in pages(self._client, query, limit)]

    async def load_all(self, ids: Sequence[WorksetId]) -> Sequence[Workset]:
        return await worksets_of(self._client, self._tables.worksets, ids)

    async def refile(self, ws: Workset) -> None:
        filed = turn_to_item(turn_of(ws))
        astray = (
            "attribute_not_exists(#turn) OR #turn <> :turn" if filed else "attribute_exists(#turn)"
        )
        same = "(attribute_not_exists(#version) OR #version = :version)"
        values = {"state": str(ws.state), "version": ws.version, **filed}
        async with translated(f"table {self._tables.worksets}"):
            try:
                await self._client.update_item(
                    TableName=self._tables.worksets,
                    Key={"workset_id": typed(ws.id)},
                    UpdateExpression=(
                        "SET #queue = :queue, #turn = :turn" if filed else "REMOVE #queue, #turn"
                    ),
                    ConditionExpression=f"#state = :state AND {same} AND ({astray})",
                    ExpressionAttributeNames=_NAMES,
                    ExpressionAttributeValues={f":{k}": typed(v) for k, v in values.items()},
                )
            except ClientError as exc:
                if error_code(exc) != "ConditionalCheckFailedException":
                    raise

    async def unfiled(self, state: State, *, limit: int = 1000) -> Sequence[Workset]:
        """Versions before this one need an index of their own, in which their items lie whole.

        Where there is none, nobody writes without a turn.
        """
        query: Item = {
            "TableName": self._tables.worksets,
            "IndexName": self._tables.older_index,
            "KeyConditionExpression": "#state = :state",
            "FilterExpression": "attribute_not_exists(#turn)",
            "ExpressionAttributeNames": _named("#state", "#turn"),
            "ExpressionAttributeValues": {":state": typed(str(state))},
        }
        found: list[Workset] = []
        while len(found) < limit:
            async with translated(f"table {self._tables.worksets}"):
                try:
                    answer = await self._client.query(**query)
                except ClientError as exc:
                    if _is_no_index(exc):
                        return []
                    raise
            found += readable([plain_item(item) for item in answer["Items"]])
            if not (last := answer.get("LastEvaluatedKey")):
                break
            query["ExclusiveStartKey"] = last
        return found[:limit]


def _is_no_index(exc: ClientError) -> bool:
    """Tell whether there is no such index, or one with other keys, which was never of this program."""
    words = str(exc.response.get("Error", {}).get("Message", "")).lower()
    return any(
        said in words for said in ("specified index", "invalid index", "missed key", "key schema")
    )


def _named(*names: str) -> dict[str, str]:
    return {name: _NAMES[name] for name in names}


def _turn(queue: Queue, item: Item) -> Turn:
    return Turn(queue, str(item["turn"]), WorksetId(item["workset_id"]))
