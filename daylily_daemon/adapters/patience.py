"""Waits that AWS prescribes: what it refuses now and takes a minute later; people are told what for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import anyio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_delay, wait_fixed

from daylily_daemon.domain.errors import DaemonError

PAUSE_S: Final = 5.0
WITHIN_S: Final = 120.0
"""Longer than any wait of minutes that AWS asks for: a queue's name is free 60 s after its deletion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    tell: Callable[[str], None]
    """Told once what is waited for, as a sentence."""
    pause: Callable[[float], Awaitable[None]] = anyio.sleep
    pause_s: float = PAUSE_S
    within_s: float = WITHIN_S

    async def until_taken(
        self, do: Callable[[], Awaitable[None]], waits: Callable[[DaemonError], bool], why: str
    ) -> None:
        """Repeat ``do`` while it raises an error that ``waits``; raise the last one after ``within_s``."""

        def before(state: RetryCallState) -> None:
            if state.attempt_number == 1:
                self.tell(f"{why}; waiting up to {self.within_s:.0f} s.")

        repeats = AsyncRetrying(
            retry=retry_if_exception(lambda exc: isinstance(exc, DaemonError) and waits(exc)),
            stop=stop_after_delay(self.within_s),
            wait=wait_fixed(self.pause_s),
            sleep=self.pause,
            before_sleep=before,
            reraise=True,
        )
        await repeats(do)


NOT_SEEN: Final = "NotSeenYet"
"""Our own code: what was made just now is not there for whoever looks."""


def name_is_kept(error: DaemonError) -> bool:
    return "DeletedRecently" in error.code or error.code == NOT_SEEN


def policy_not_seen(error: DaemonError) -> bool:
    """S3 looks at a queue's policy as it was up to a minute ago."""
    return error.code == "InvalidArgument" and "destination" in str(error)


def is_in_use(error: DaemonError) -> bool:
    """A table or its index is being made, changed or deleted."""
    return error.code in {"ResourceInUseException", "LimitExceededException", NOT_SEEN}
