"""What this daemon could last do, port by port.

Every port the engine gets is wrapped by ``guarded``: its calls are noted in ``Health``, and whatever leaves
it that is not one of our errors becomes ``Unexpected``, logged once with its traceback. So a caller that
repeats what is Transient has handled everything, and what ``status`` says of a port is what its calls came
to, never what somebody remembered to write down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, Final, TypeVar, cast

import structlog

from daylily_daemon.domain.errors import DaemonError, Transient
from daylily_daemon.engine.boundary import foreign_as_unexpected, leaf
from daylily_daemon.ports import Clock

__all__ = ["Health", "PortHealth", "foreign_as_unexpected", "guarded", "leaf"]

log = structlog.get_logger()

T = TypeVar("T")

TEXT_LIMIT: Final = 500
"""Characters of a trouble that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortHealth:
    """What calls of one port came to."""

    good_at: datetime | None = None
    """When a call was last answered; a definite no about one thing is an answer."""
    failing_since: datetime | None = None
    """When the first of an unbroken row of failures happened; None while it works."""
    failures: int = 0
    """In that row."""
    code: str = ""
    """``transient``, ``impeded``, ``unclear`` or ``unexpected``."""
    text: str = ""
    """The last trouble, as a sentence."""


class Health:
    """The health of all ports of this daemon."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ports: dict[str, PortHealth] = {}

    def good(self, port: str) -> None:
        was = self._ports.get(port)
        if was is not None and was.failing_since is not None:
            log.info("port_recovered", port=port, failures=was.failures)
        self._ports[port] = PortHealth(good_at=self._clock.now())

    def bad(self, port: str, error: Transient) -> None:
        was = self._ports.get(port, PortHealth())
        self._ports[port] = replace(
            was,
            failing_since=was.failing_since or self._clock.now(),
            failures=was.failures + 1,
            code=type(error).__name__.lower(),
            text=str(error)[:TEXT_LIMIT],
        )

    def keep_only(self, prefix: str, names: Iterable[str]) -> None:
        """Forget the ports under ``prefix`` that are not among ``names``: a channel that was switched off."""
        kept = {f"{prefix}{name}" for name in names}
        for port in [p for p in self._ports if p.startswith(prefix) and p not in kept]:
            del self._ports[port]

    @property
    def ports(self) -> Mapping[str, PortHealth]:
        return dict(self._ports)


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
                with foreign_as_unexpected(f"{self._name}.{attribute}"):
                    answer = await found(*args, **kwargs)
            except Transient as exc:
                self._health.bad(self._name, exc)
                raise
            except DaemonError:
                self._health.good(self._name)
                raise
            self._health.good(self._name)
            return answer

        return watched
