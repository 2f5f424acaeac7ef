"""What can go wrong, named by what the caller should do about it."""

from __future__ import annotations


class DaemonError(Exception):
    """Base of every error this package raises on purpose; its text is a sentence for people."""


class Transient(DaemonError):
    """The outcome is unknown: repeat the same call under the same name until it is answered."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """What the other side asked for (Retry-After), in seconds."""


class Permanent(DaemonError):
    """A definite no: nothing happened, and the same call will be refused again."""


class AlreadyDone(DaemonError):
    """A command that was applied before, however long ago; applying it again changes nothing."""


class Fenced(DaemonError):
    """Another owner has claimed this workset since; stop touching it."""


class LeaseLost(DaemonError):
    """The lease can no longer be trusted; what runs under it must let go."""
