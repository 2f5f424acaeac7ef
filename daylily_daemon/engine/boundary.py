"""The boundary that no foreign exception passes, one for each thing that may break alone.

A delivery, an input check, a workset, a channel, a listing: each does its work inside
``foreign_as_unexpected``. What comes out of it is one of our errors and nothing else, never a group, so
``except DaemonError`` behind it has caught everything, and a clause that forgets groups cannot be written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog
from anyio import sleep

from daylily_daemon.domain.errors import DaemonError, Transient, Unexpected, leaf

log = structlog.get_logger()


@contextmanager
def foreign_as_unexpected(what: str) -> Iterator[None]:
    """Let only our own errors out, and those alone rather than in a group of one kind.

    Of a group the first of our errors stands for all if nothing else is in it; anything else in it makes
    the whole Unexpected. Cancellation passes.
    """
    try:
        yield
    except DaemonError:
        raise
    except Exception as exc:
        ours, rest = exc.split(DaemonError) if isinstance(exc, ExceptionGroup) else (None, exc)
        if ours is not None and rest is None:
            raise leaf(ours) from exc
        log.exception("unexpected", at=what)
        first = leaf(rest or exc)
        raise Unexpected(
            f"{what} met something nobody foresaw ({type(first).__name__}: {str(first)[:200]}). "
            "It will be tried again; the log has the whole story."
        ) from exc


@contextmanager
def aside(what: str) -> Iterator[None]:
    """Keep everything in: what is told to somebody on the side must not disturb what it is told of."""
    try:
        yield
    except Exception:
        log.exception("unexpected", at=what)


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
