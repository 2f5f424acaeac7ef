"""Why a request or a question comes to nothing."""

from __future__ import annotations

from daylily_daemon.domain.errors import DaemonError


class NotFound(DaemonError):
    """What was asked for does not exist."""


class Invalid(DaemonError):
    """The request makes no sense, whatever there is."""


class NoEffect(DaemonError):
    """The request is refused beforehand, because it would change nothing."""
