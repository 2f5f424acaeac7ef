"""What this daemon could last do, port by port.

Every port the engine gets is wrapped by ``guarded``: its calls are noted in ``Health``, and whatever leaves
it that is not one of our errors becomes ``Unexpected``, logged once with its traceback. So a caller that
repeats what is Transient has handled everything, and what ``status`` says of a port is what its calls came
to, never what somebody remembered to write down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, Final, TypeVar, cast

import structlog

from daylily_daemon.domain.daemon import Port
from daylily_daemon.domain.errors import DaemonError, Transient
from daylily_daemon.engine.boundary import foreign_as_unexpected
from daylily_daemon.ports import Clock

log = structlog.get_logger()

T = TypeVar("T")

_NEVER: Final = datetime.max.replace(tzinfo=UTC)
FORGIVEN: Final = timedelta(minutes=15)
"""After which a failure that was not repeated, because nobody called again, is no trouble any more."""
TEXT_LIMIT: Final = 500
"""Characters of a trouble that are kept."""


class Health:
    """The health of all ports of this daemon."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._good_at: dict[tuple[str, str], datetime] = {}
        """When a call was last answered, by port and method: reads that work say nothing of writes that are
        refused."""
        self._failing: dict[tuple[str, str], Port] = {}
        """Those whose last call failed."""
        self._answered: Counter[tuple[str, str]] = Counter()

    def good(self, port: str, method: str) -> None:
        call = (port, method)
        self._answered[call] += 1
        self._good_at[call] = self._clock.now()
        if was := self._failing.pop(call, None):
            log.info("port_recovered", port=port, call=method, failures=was.failures)

    def answered(self, port: str, method: str) -> int:
        """Return how many calls of this kind were answered since the start."""
        return self._answered[port, method]

    def bad(self, port: str, method: str, error: Transient) -> None:
        call, now = (port, method), self._clock.now()
        was = self._failing.get(call) or Port(good_at=self._good_at.get(call))
        self._failing[call] = replace(
            was,
            failing_since=was.failing_since or now,
            failed_at=now,
            failures=was.failures + 1,
            code=type(error).__name__.lower(),
            error=error.code,
            text=str(error)[:TEXT_LIMIT],
        )

    def keep_only(self, prefix: str, names: Iterable[str]) -> None:
        """Forget the ports under ``prefix`` that are not among ``names``: a channel that was switched off."""
        kept = {f"{prefix}{name}" for name in names}
        calls = {*self._good_at, *self._failing}
        for call in [c for c in calls if c[0].startswith(prefix) and c[0] not in kept]:
            self._good_at.pop(call, None)
            self._failing.pop(call, None)

    @property
    def ports(self) -> Mapping[str, Port]:
        """Return each port by the worst of its calls; one that nobody repeats is forgiven after a while."""
        now, found = self._clock.now(), dict[str, Port]()
        good = {call: Port(good_at=at) for call, at in self._good_at.items()}
        for (port, _), seen in sorted({**good, **self._failing}.items(), key=lambda call: call[0]):
            stale = seen.failed_at is not None and now - seen.failed_at > FORGIVEN
            told = Port(good_at=seen.good_at) if stale else seen
            found[port] = _worse(found[port], told) if port in found else told
        return found


def _worse(one: Port, other: Port) -> Port:
    """Return the trouble that lasts longer, with the time of the last good call of any kind."""
    good_at = max((at for at in (one.good_at, other.good_at) if at), default=None)
    troubled = [h for h in (one, other) if h.failing_since]
    worst = min(troubled, key=lambda h: h.failing_since or h.good_at or _NEVER, default=one)
    return replace(worst, good_at=good_at)


def guarded(port: T, name: str, health: Health) -> T:
    """Return ``port`` with its coroutine methods noted in ``health`` as ``name``, foreign errors kept in."""
    return cast(T, _Guarded(port, name, health))


class _Guarded:
    def __init__(self, inner: Any, name: str, health: Health) -> None:
        self._inner = inner
        self._name = name
        self._health = health

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._inner, attribute)
        if not iscoroutinefunction(found):
            return found

        @wraps(found)
        async def watched(*args: Any, **kwargs: Any) -> Any:
            try:
                answer = await found(*args, **kwargs)
            except Exception:
                with self._noted(attribute):
                    raise
            self._health.good(self._name, attribute)
            return answer

        setattr(self, attribute, watched)  # the next call finds it without asking
        return watched

    @contextmanager
    def _noted(self, attribute: str) -> Iterator[None]:
        """Note what is raised inside, and let one of our errors out in its place."""
        try:
            with foreign_as_unexpected(f"{self._name}.{attribute}"):
                yield
        except Transient as exc:
            self._health.bad(self._name, attribute, exc)
            raise
        except DaemonError:
            self._health.good(self._name, attribute)
            raise
