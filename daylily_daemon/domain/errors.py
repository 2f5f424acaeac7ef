"""What can go wrong, named by what the caller should do about it.

``Permanent`` is about *this thing*: the message, the workset, the object. ``Impeded`` is about *us*: AWS
refuses just as definitely, but because of our rights, tables or credentials, and takes it back once they
are fixed. To make a failure of it would be wrong in the same way as with an answer that never came, so it
is a kind of ``Transient``: whoever repeats what is unknown repeats this too, and nobody can confuse the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LONGEST_WAIT_S: Final = 86_400.0
CREDENTIALS: Final = "credentials"
"""The code of all trouble with credentials, where AWS or the SDK calls it something else each time."""


def _bounded(asked_s: float) -> float:
    """Return a pause that a clock can count; what is no number asks for none."""
    return min(asked_s, LONGEST_WAIT_S) if asked_s > 0 else 0.0


class DaemonError(Exception):
    """Base of every error this package raises on purpose; its text is a sentence for people."""

    code: str = ""
    """What the other side calls it, ``NoSuchBucket``, where a caller may want to know that."""


class Transient(DaemonError):
    """The outcome is unknown: repeat the same call under the same name until it is answered."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = None if retry_after_s is None else _bounded(retry_after_s)
        """What the other side asked for (Retry-After), in seconds: 0 to a day, whatever it said."""


class Impeded(Transient):
    """Our own rights, tables, keys or credentials are in the way: nothing happened, and it is nobody's fault.

    Wait, say so, and repeat. Parks no message, fails no workset, gives up no notice.
    """


class Newer(Impeded):
    """Something was written by a newer version: leave it alone, a daemon of that version reads it."""


class Unclear(Transient):
    """Whether a job lives cannot be told from here; only proof, or somebody's word, may end it."""


class InboxFull(Transient):
    """The holder of a run has to read its inbox first; trouble of this one workset."""


class Unexpected(Transient):
    """A foreign exception that nobody foresaw, caught at a boundary: this one thing rests and comes again."""


class Permanent(DaemonError):
    """A definite no about this thing: nothing happened, and the same call will be refused again."""


class AlreadyDone(DaemonError):
    """A command that was applied before, however long ago; applying it again changes nothing."""


class Fenced(DaemonError):
    """Another owner has claimed this workset since; stop touching it."""


class LeaseLost(DaemonError):
    """The lease can no longer be trusted; what runs under it must let go."""


def leaf(error: BaseException) -> BaseException:
    """Return the first exception inside nested groups, or ``error`` itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@contextmanager
def errors_alone() -> Iterator[None]:
    """Let the first error of a task group out by itself, where all its tasks ask for parts of one answer."""
    try:
        yield
    except ExceptionGroup as group:
        raise leaf(group) from group
