"""Channels: how they stand by what the daemons say, and a test message through one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from daylily_daemon.application.backend import Backend
from daylily_daemon.application.health import judged
from daylily_daemon.domain.daemon import Owed, Port, Status
from daylily_daemon.domain.errors import DaemonError, Impeded, Transient
from daylily_daemon.domain.finding import CheckResult, Grade, ok
from daylily_daemon.domain.model import Record, RecordType, State
from daylily_daemon.domain.notice import TEST_ID
from daylily_daemon.domain.problems import is_failing
from daylily_daemon.ports import Notifier

_TYPES: Final = {State.COMPLETE: RecordType.COMPLETION, State.ERROR: RecordType.ERROR}
_ONE: Final = (State.COMPLETE,)
_SEVERAL: Final[Mapping[str, tuple[State, ...]]] = {
    "pagerduty": (State.ERROR, State.COMPLETE),
    "s3_sentinels": (State.ERROR, State.READY),
}
"""What a channel keeps is taken back: an alarm is ended, a sentinel is removed."""
_DONE: Final = {
    "pagerduty": "an alarm was raised and ended",
    "s3_sentinels": "a sentinel was written and removed",
}


async def send_test(notifier: Notifier, channel: str, by: str, record: Record) -> str:
    """Send what a test of this channel takes; return what came of it, as a sentence.

    ``record`` is of the place and time of the test. Raises what the channel raises.
    """
    states = _SEVERAL.get(channel, _ONE)
    for number, state in enumerate(states):
        await notifier.deliver(_record_of_test(record, channel, by, state, number))
    done = _DONE.get(channel, f"the test message is delivery {TEST_ID}/{record.seq}")
    return f"{channel} took it: {done}."


def place_of_test(bucket: str, prefix: str, now: datetime) -> Record:
    """Return what the records of a test have in common; another one each time, so that none is a repeat."""
    return Record(
        workset_id=TEST_ID,
        seq=int(now.timestamp() * 1000),
        at=now,
        type=RecordType.COMPLETION,
        state=State.COMPLETE,
        bucket=bucket,
        prefix=f"{prefix}{TEST_ID}/",
    )


def _record_of_test(place: Record, channel: str, by: str, state: State, number: int) -> Record:
    return Record(
        workset_id=place.workset_id,
        seq=place.seq + number,
        at=place.at,
        type=_TYPES.get(state, RecordType.STATE_CHANGE),
        state=state,
        message=f"A test of the channel {channel}, asked for by {by}. It is about no workset.",
        details={"test": True},
        bucket=place.bucket,
        prefix=place.prefix,
    )


async def found_of_test(notifier: Notifier, channel: str, by: str, record: Record) -> CheckResult:
    """Return what a test message came to, as a check tells it: no answer is no failure."""
    try:
        return ok(await send_test(notifier, channel, by, record))
    except DaemonError as exc:
        unanswered = isinstance(exc, Transient) and not isinstance(exc, Impeded)
        return CheckResult(
            grade=Grade.UNKNOWN if unanswered else Grade.FAIL,
            text=f"{channel}: {exc}",
            remedy=f"Look at notifications.{channel}, then try it again",
            command=f"daylily-daemon notify test {channel}",
        )


# --- how they stand -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStanding:
    """A channel, by what all daemons say of it."""

    name: str
    enabled: bool
    """By the settings of this host."""
    owed: Owed
    """Of all daemons together."""
    port: Port
    """The last good call of any daemon, and the trouble that lasts longest."""
    now: datetime

    @property
    def is_failing(self) -> bool:
        return is_failing(self.port, self.now)


async def standings(backend: Backend, enabled: Mapping[str, bool]) -> Sequence[ChannelStanding]:
    """Return how every channel stands; ``enabled`` has them all. Raises what the registry raises."""
    now = backend.clock.now()
    return standing_of(enabled, [*await _statuses(backend, now)], now)


async def _statuses(backend: Backend, now: datetime) -> Sequence[Status]:
    """Return what the daemons say; that of this host says it in each pass."""
    local = judged(backend.sighting(now)).status
    rows = [row.status for row in await backend.registry.daemons() if row.status]
    others = [status for status in rows if local is None or status.owner != local.owner]
    return [*others, *([local] if local else [])]


def standing_of(
    enabled: Mapping[str, bool], statuses: Sequence[Status], now: datetime
) -> Sequence[ChannelStanding]:
    living = [status for status in statuses if status.stopped_at is None]
    return [
        ChannelStanding(
            name=name,
            enabled=on,
            owed=_owed([s.channels[name] for s in statuses if name in s.channels]),
            port=_port(list(_ports(name, living))),
            now=now,
        )
        for name, on in enabled.items()
    ]


def _ports(channel: str, statuses: Sequence[Status]) -> Iterator[Port]:
    for status in statuses:
        if port := status.ports.get(f"channel:{channel}"):
            yield port


def _owed(owed: Sequence[Owed]) -> Owed:
    oldest = min((one.oldest_at for one in owed if one.oldest_at), default=None)
    return Owed(count=sum(one.count for one in owed), oldest_at=oldest)


def _port(ports: Sequence[Port]) -> Port:
    good_at = max((port.good_at for port in ports if port.good_at), default=None)
    troubled = [port for port in ports if port.failing_since]
    worst = min(troubled, key=lambda port: str(port.failing_since), default=Port())
    return replace(worst, good_at=good_at)
