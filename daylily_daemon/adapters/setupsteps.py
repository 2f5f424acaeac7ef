"""The steps of ``init``: what each does, in words, and the call that does it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from daylily_daemon.adapters.patience import NOT_SEEN
from daylily_daemon.domain.errors import Impeded, Permanent, Transient


@dataclass(frozen=True, slots=True)
class Step:
    what: str
    do: Callable[[], Awaitable[Any]]
    is_left_alone: bool = False
    """Whether it only says what somebody else has to look at."""


@asynccontextmanager
async def unless_there(look: Callable[[], Awaitable[Any]]) -> AsyncIterator[None]:
    """Let a refusal pass if what was to be made is there.

    The SDK repeats a request whose answer got lost, and the second one is refused.
    """
    try:
        yield
    except (Impeded, Permanent):
        if not await look():
            raise


def unseen(what: str) -> Transient:
    error = Transient(f"The {what} was made and cannot be seen yet; run init again in a minute.")
    error.code = NOT_SEEN
    return error


async def nothing() -> None:
    """A step of a dry run that depends on one not done yet."""
