"""What waits although nothing is in its way: looked for every few seconds, as long as a world lasts."""

from __future__ import annotations

import math
from collections import Counter as Tally

import anyio

from daylily_daemon.domain.lifecycle import due
from daylily_daemon.domain.model import WorksetId
from daylily_daemon.domain.workset import Workset
from tests.fakes.store import LoopClock
from tests.sim.world import WINDOW_S, Sim

TOLD_WITHIN_S = 300.0
"""How long a notice may wait for a channel that is well, its teller's death included."""


class Patience:
    def __init__(self, sim: Sim) -> None:
        self._sim = sim
        self._troubled_at = 0.0
        self._room_since: dict[str, float] = {}
        self._waits_since: dict[WorksetId, tuple[int, float]] = {}

    def look(self) -> None:
        """No workset waits while a daemon that is well has room for it, and no notice for a dead channel."""
        self._look_for_untold()
        now, at = anyio.current_time(), LoopClock().now()
        self._note_room(now)
        for ws in self._sim.world.table.worksets.values():
            startable = due(ws, at) and ws.owner is None and ws.id not in self._sim.newer
            waits = startable and not self._customer_is_full(ws)
            known = self._waits_since.get(ws.id)
            if not waits:
                self._waits_since.pop(ws.id, None)
            elif known is None or known[0] != ws.version:
                self._waits_since[ws.id] = (ws.version, now)
            elif now - known[1] > self._patience_s:
                self._forgotten(ws)

    @property
    def _patience_s(self) -> float:
        knobs = self._sim.knobs
        readings = 3 if knobs.index_page * knobs.index_calls >= 10 else 5
        return 90.0 + readings * knobs.sweep_s

    def _note_room(self, now: float) -> None:
        """Note since when each daemon has had room."""
        slots, _ = self._sim.allowed()
        running = Tally(ws.owner for ws in self._sim.in_progress())
        for name in self._sim.wires:
            if running[name] >= slots:
                self._room_since[name] = math.inf
            elif self._room_since.get(name, math.inf) == math.inf:
                self._room_since[name] = now

    def _look_for_untold(self) -> None:
        now = anyio.current_time()
        if any(wire.was_in_trouble for wire in self._sim.wires.values()):
            self._troubled_at = now
        if now < self._troubled_at + WINDOW_S:
            return
        well = [name for name in self._sim.world.told if now > self._sim.out_until(name) + WINDOW_S]
        every = (r for rows in self._sim.world.table.records.values() for r in rows)
        for record in (r for r in every if r.owed):
            late = now - self._sim.written_at.get(record.id, now) > TOLD_WITHIN_S
            if late and not record.owed.isdisjoint(well):
                self._sim.wrong(f"{record.id} waits, and {sorted(record.owed & set(well))} is well")

    def _customer_is_full(self, ws: Workset) -> bool:
        _, per_customer = self._sim.allowed()
        same = sum(w.request.customer_id == ws.request.customer_id for w in self._sim.in_progress())
        return bool(per_customer) and same >= per_customer

    def _forgotten(self, ws: Workset) -> None:
        (slots, _), running = self._sim.allowed(), self._sim.in_progress()
        if self._sim.skewed:
            return
        for wire in self._sim.wires.values():
            busy = sum(w.owner == wire.name for w in running)
            had_room_s = anyio.current_time() - self._room_since[wire.name]
            if (
                busy < slots
                and had_room_s > self._patience_s
                and not wire.was_in_trouble
                and not self._hampered()
            ):
                self._sim.wrong(f"{ws.id} waits, and {wire.name} runs {busy} in {slots} slots")

    def _hampered(self) -> bool:
        hampered = (
            self._sim.no_room_until,
            self._sim.index_stands_until,
            self._sim.disk_full_until,
        )
        lately = [until for until, _, _ in self._sim.limits_before]
        return anyio.current_time() < max(*hampered, *lately, 0.0) + 120.0
