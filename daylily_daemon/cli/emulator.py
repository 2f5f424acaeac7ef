"""The AWS of the demo: moto, answering one DynamoDB request at a time.

Started as ``python -m daylily_daemon.cli.emulator -H HOST -p PORT``, by the tests too. moto undoes a refused
transaction by putting back a copy of the whole tables, made before it. What other threads wrote in between
is undone with it, which DynamoDB never does: an audit record is then there without its change.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any, Final

from moto.dynamodb.responses import DynamoHandler
from moto.server import main

TURN: Final = Lock()


def in_turn(answer: Callable[[DynamoHandler], Any]) -> Callable[[DynamoHandler], Any]:
    def call_action(handler: DynamoHandler) -> Any:
        with TURN:
            return answer(handler)

    return call_action


if __name__ == "__main__":
    DynamoHandler.call_action = in_turn(DynamoHandler.call_action)  # type: ignore[method-assign]
    main()
