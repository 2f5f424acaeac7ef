"""The wire between one daemon and the world: every call crosses it, and every fault happens on it.

A call is an *effect* with a number. On the way there it may be lost, on the way back its answer may be
lost, with or without the SDK's blind repeat; it may be slow; the daemon may die before or after it, or be cut
off for a while. A dead daemon never hears back again, and nothing it sends arrives. An *outage* is wider:
calls of some kind fail in one way for a while, for one daemon or for everybody.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio

from daylily_daemon.domain.errors import Transient
from tests.sim.vclock import running


@dataclass(frozen=True, kw_only=True)
class Weather:
    """How often what goes wrong; all zero is a quiet day."""

    lost: float = 0.0
    answer_lost: float = 0.0
    blind_repeat: float = 0.5
    """Of the lost answers, how many the SDK repeats by itself."""
    late: float = 0.0
    """A request that is given up on, and arrives all the same, up to ``late_s`` later."""
    late_s: float = 90.0
    slow_start: float = 0.0
    """Starts of jobs that get no answer and happen all the same, up to ``late_s`` later."""
    refused: float = 0.0
    """Starts of jobs that the machine or its scheduler does not take now."""
    redelivered: float = 0.0
    """Messages that come again although they were deleted: a queue delivers at least once."""
    late_record: float = 0.0
    """Jobs whose exit record is seen only minutes after they ended."""
    accidents: float = 0.0
    """Jobs that are killed with their shim, run out of memory or time, or end with a machine."""
    slow_s: float = 0.02
    stale: float = 0.0
    """Index reads that show an older moment."""


QUIET = Weather()
ROUGH = Weather(
    lost=0.03,
    answer_lost=0.03,
    late=0.01,
    slow_start=0.1,
    refused=0.1,
    redelivered=0.1,
    late_record=0.1,
    accidents=0.1,
    slow_s=0.2,
    stale=0.2,
)


@dataclass(frozen=True)
class Death:
    """Strike the daemon that makes effect number ``at``, before or after it happens."""

    at: int
    after: bool
    cut_s: float = 0.0
    """Not killed, but cut off for so long; 0 kills."""


CHANNELS = ("sns", "slack")


@dataclass(kw_only=True)
class Outage:
    """Some calls fail in one way until they are healed."""

    calls: tuple[str, ...]
    """Roles (``worksets``), or methods of them (``turns.line_up``)."""
    until: float
    error: Callable[[str], Exception]
    """Made from the name of the call."""
    share: float = 1.0
    """How many of the calls fail."""
    answered: bool = False
    """Whether what was asked for happens all the same, and the answer is what nobody can make sense of."""
    lasts_on_s: float = 0.0
    """How long after its end it is still felt: who was asked to wait, waits."""
    of: str = ""
    """The daemon it befalls; empty for everybody."""

    @property
    def on_a_channel(self) -> bool:
        """Whether it excuses nothing but notices."""
        return self.calls[0].split(".")[0] in CHANNELS

    def befalls(self, daemon: str, role: str, name: str) -> bool:
        mine = not self.of or self.of == daemon
        return mine and (role in self.calls or f"{role}.{name}" in self.calls)


@dataclass
class Log:
    """What crossed all wires of a world, numbered."""

    effects: list[str] = field(default_factory=list)
    deaths: set[Death] = field(default_factory=set)
    happened: list[Death] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    """All there ever were, over or not."""


READS = frozenset(
    (
        *("receive", "line_up", "load_all", "unfiled", "owed", "unannounced", "as_it_is"),
        *("announced", "wait", "progress", "look", "answer_to"),
    )
)
"""Calls that change nothing: dying there is dying between effects."""


class Flag:
    """An event that is looked at far more often than it is waited for."""

    __slots__ = ("_event", "up")

    def __init__(self) -> None:
        self._event = anyio.Event()
        self.up = False

    def set(self) -> None:
        self.up = True
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()


class Wire:
    def __init__(
        self,
        log: Log,
        rng: random.Random,
        spawn: Callable[..., None],
        name: str = "a",
        ttl_s: float = 60.0,
    ) -> None:
        self.log = log
        self.name = name
        self.aftermath_s = 2 * ttl_s + 10.0
        """How long trouble that is over excuses what it left: a lease that ran out, and was noticed."""
        self.weather = QUIET
        self.cut_until = self.throttled_until = self.paused_until = -math.inf
        self._loop = running()
        self.born_at = self._loop.now
        self.died = Flag()
        self.told_to_end = anyio.Event()
        self._rng = rng
        self._spawn = spawn

    @property
    def dead(self) -> bool:
        return self.died.up

    @property
    def had_bad_weather(self) -> bool:
        """Whether anything happened lately that excuses a daemon that did not get its work done."""
        trouble = max(self.cut_until, self.throttled_until, self.paused_until)
        mine = (o for o in self.log.outages if o.of in ("", self.name) and not o.on_a_channel)
        trouble = max([trouble, *(outage.until for outage in mine)])
        return self.weather != QUIET or anyio.current_time() < trouble + self.aftermath_s

    @property
    def was_in_trouble(self) -> bool:
        """Whether anything happened lately that excuses a lost lease."""
        young = anyio.current_time() < self.born_at + self.aftermath_s
        return self.dead or young or self.had_bad_weather

    def calm_down(self) -> None:
        """End all trouble now; that there was some is not forgotten."""
        now = anyio.current_time()
        self.weather = QUIET
        self.cut_until = min(self.cut_until, now)
        self.throttled_until = min(self.throttled_until, now)

    async def call(self, role: str, name: str, do: Callable[[], Awaitable[Any]]) -> Any:
        await self._travel()
        if self.log.outages:
            await self._fail_if_out(role, name, do)
        number = -1 if name in READS else self._number(name)
        if self.log.deaths:
            await self._die_if(number, after=False)
        self._lose(self.weather.lost, name)
        if self._rng.random() < self._late(name):
            self._spawn(self._arrive_late, do)
            raise Transient(f"{name}: no answer")
        try:
            result = await do()
        except Exception:
            await self._die_if(number, after=True)
            raise
        if self._rng.random() < self.weather.answer_lost:
            if self._rng.random() < self.weather.blind_repeat:
                return await do()
            raise Transient(f"{name}: the answer was lost")
        if self.log.deaths:
            await self._die_if(number, after=True)
        if self._is_hampered():
            await self._arrive()
        return result

    async def _fail_if_out(self, role: str, name: str, do: Callable[[], Awaitable[Any]]) -> None:
        if outage := self._outage(role, name):
            if outage.answered:
                await do()
            raise outage.error(f"{role}.{name}")

    def _outage(self, role: str, name: str) -> Outage | None:
        now = self._loop.now
        for outage in self.log.outages:
            over = now >= outage.until or not outage.befalls(self.name, role, name)
            if not over and (outage.share >= 1.0 or self._rng.random() < outage.share):
                return outage
        return None

    def _late(self, name: str) -> float:
        return self.weather.slow_start if name == "ensure" else self.weather.late

    def _number(self, name: str) -> int:
        self.log.effects.append(f"{self.name}:{name}")
        return len(self.log.effects) - 1

    async def _travel(self) -> None:
        """Take as long as the way there and back does, at once: half as many timers."""
        await self._loop.sleep(2 * self.weather.slow_s * self._rng.random())
        if self._is_hampered():
            await self._arrive()

    def _is_hampered(self) -> bool:
        now = self._loop.now
        waiting = now < self.paused_until or now < self.cut_until or now < self.throttled_until
        return waiting or self.died.up

    async def _arrive(self) -> None:
        while (now := self._loop.now) < self.paused_until:
            await anyio.sleep(self.paused_until - now)
        if self.dead:
            await anyio.sleep_forever()
        if now < self.cut_until:
            await anyio.sleep(self._rng.uniform(0.1, 5.0))
            raise Transient("no route")
        if now < self.throttled_until and self._rng.random() < 0.8:
            raise Transient("throttled")

    def _lose(self, chance: float, name: str) -> None:
        if self._rng.random() < chance:
            raise Transient(f"{name}: the request was lost")

    async def _arrive_late(self, do: Callable[[], Awaitable[Any]]) -> None:
        await anyio.sleep(self._rng.uniform(0, self.weather.late_s))
        try:
            await do()
        except Exception:  # noqa: BLE001 - nobody hears the answer
            return

    async def _die_if(self, number: int, *, after: bool) -> None:
        struck = [d for d in self.log.deaths if d.at == number and d.after == after]
        for death in struck:
            self.log.deaths.discard(death)
            self.log.happened.append(death)
            if not death.cut_s:
                self.died.set()
                await anyio.sleep_forever()
            self.cut_until = anyio.current_time() + death.cut_s
            await self._travel()


class Wired:
    """A port behind a wire. Coroutine methods cross it; everything else passes through."""

    def __init__(self, inner: Any, wire: Wire, role: str) -> None:
        self._inner = inner
        self._wire = wire
        self._role = role

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name == "scope" or not callable(found):
            return found

        wire, role = self._wire, self._role
        may_send = getattr(self._inner, "may_send", None)

        async def crossing(*args: Any, **kwargs: Any) -> Any:
            if may_send and not wire.died.up:
                may_send(name, *args)
            return await wire.call(role, name, partial(found, *args, **kwargs))

        setattr(self, name, crossing)  # the next call finds it without asking
        return crossing
