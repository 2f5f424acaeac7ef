"""What the engine tells whoever counts. Nothing of it is stored, and nothing is decided on it."""

from __future__ import annotations

from enum import StrEnum

from daylily_daemon.domain.model import Command
from daylily_daemon.ports import Change, EventSource


class CommandFate(StrEnum):
    TAKEN = "taken"
    QUEUED = "queued"
    """It lies in the inbox of a run, and is counted again when its owner answers it."""
    NO_EFFECT = "no_effect"
    REFUSED = "refused"
    PARKED = "parked"
    """Its message lies in the dead letters."""


class EventFate(StrEnum):
    PASSED_ON = "passed_on"
    NOTHING = "nothing"
    """It asks for nothing of ours: a test event, or an object that is no trigger."""
    PARKED = "parked"


class NoticeFate(StrEnum):
    TOLD = "told"
    DELAYED = "delayed"
    """A try failed; it is owed still."""
    GIVEN_UP = "given_up"


class BeatFate(StrEnum):
    ANSWERED = "answered"
    UNANSWERED = "unanswered"
    LOST = "lost"
    """The lease cannot be trusted any more, or another daemon has it."""


class Counting:
    """Counts nothing. Whoever wants figures overrides what they need."""

    def stored(self, change: Change, asked: Command | None) -> None:
        """A write was stored; ``asked`` is the command at the door it answers."""

    def command(self, command: Command | None, fate: CommandFate) -> None:
        """A command ended without a write to its workset. None for what cannot be read."""

    def event(self, source: EventSource, fate: EventFate, many: int = 1) -> None:
        """Messages of the intake queue ended so, or a listing found as many drops."""

    def notice(self, channel: str, fate: NoticeFate) -> None:
        """A try to tell ``channel`` came to this."""

    def beat(self, fate: BeatFate) -> None:
        """A heartbeat came to this."""

    def passed(self, seconds: float) -> None:
        """A pass over the worksets was finished; it took so long."""
