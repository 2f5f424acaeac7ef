"""The boundary that no foreign exception passes, one for each thing that may break alone.

A delivery, an input check, a workset, a channel, a listing: each does its work inside
``foreign_as_unexpected``. What comes out of it is one of our errors and nothing else, never a group, so
``except DaemonError`` behind it has caught everything, and a clause that forgets groups cannot be written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from anyio import sleep

from daylily_daemon.domain.errors import DaemonError, Transient, Unexpected, leaf

log = structlog.get_logger()


class foreign_as_unexpected:
    """Let only our own errors out, and those alone rather than in a group of one kind.

    Of a group the first of our errors stands for all if nothing else is in it; anything else in it makes
    the whole Unexpected. Cancellation passes.
    """

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        """Every pass and every delivery comes by here, nearly always without an error."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, DaemonError):
            raise _ours(error, self._what) from error


def _ours(exc: Exception, what: str) -> BaseException:
    ours, rest = exc.split(DaemonError) if isinstance(exc, ExceptionGroup) else (None, exc)
    if ours is not None and rest is None:
        return leaf(ours)
    log.error("unexpected", at=what, exc_info=exc)
    first = leaf(rest or exc)
    return Unexpected(
        f"{what} met something nobody foresaw ({type(first).__name__}: {str(first)[:200]}). "
        "It will be tried again; the log has the whole story."
    )


class aside:
    """Keep everything in: what is told to somebody on the side must not disturb what it is told of."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if not isinstance(error, Exception):
            return False
        log.error("unexpected", at=self._what, exc_info=error)
        return True


async def for_ever(what: str, work: Callable[[], Awaitable[None]], pause_s: float) -> None:
    """Do ``work`` again and again until cancelled; trouble is logged and costs a pause, nothing else."""
    while True:
        try:
            with foreign_as_unexpected(what):
                await work()
        except DaemonError as exc:
            log.warning("trouble", at=what, error=str(exc))
            asked_s = exc.retry_after_s if isinstance(exc, Transient) else None
            await sleep(max(pause_s, min(asked_s or 0.0, 60.0)))
