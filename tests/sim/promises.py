"""What must hold once everything has come to rest."""

from __future__ import annotations

from collections import Counter as Tally
from itertools import pairwise

from daylily_daemon.domain.decision import NEXT
from daylily_daemon.domain.model import Command, Record, State, Submit
from daylily_daemon.domain.workset import Workset
from tests.fakes.store import LoopClock
from tests.sim.world import RESTING, Sim

PROMPT_S = 60.0
"""How long a command may wait for its answer on a quiet day; a beat is a quarter of that."""


def broken(sim: Sim, *, exactly_once: bool = False) -> list[str]:
    """Return what must not be true at the end. ``exactly_once``: no crash excuses a repeat."""
    found = list(sim.violations)
    for ws in sim.world.table.worksets.values():
        found += _left_over(sim, ws)
    for command in sim.world.asked:
        found += _command(sim, command, prompt=exactly_once)
    queues = (sim.world.intake, sim.world.commands)
    found += [f"{m.content} is left in a queue" for queue in queues for m in queue.messages]
    for name, told in sim.world.told.items():
        found += _notices(sim, name, told, exactly_once)
    running = sim.world.machine.running()
    if kept := sorted(n for n in running if n.split(".", 1)[0] not in sim.edited):
        found.append(f"still running: {kept}")
    return found


def _left_over(sim: Sim, ws: Workset) -> list[str]:
    found = []
    if ws.state not in RESTING:
        found.append(f"{ws.id} is left {ws.state}: {ws.waiting_for} {ws.trouble}")
    if ws.owner and ws.id not in sim.edited:
        found.append(f"{ws.id} is left locked by {ws.owner}")
    if ws.state is State.COMPLETE and ws.error_details:
        found.append(f"{ws.id} is complete, and shows {ws.error_details}")
    unread = sorted({command.id for command in ws.inbox} - sim.stranded)
    found += [f"{id} is left in the inbox of {ws.id}" for id in unread]
    rows = sim.world.table.records[ws.id]
    if not (sim.crashes or sim.log.happened or sim.log.outages or sim.skewed or sim.drawn):
        found += [
            f"{r.id} on a quiet day: {r.message}" for r in rows if "goes on with" in r.message
        ]
    return found + ([] if ws.id in sim.edited else _history(ws, rows))


def _history(ws: Workset, rows: list[Record]) -> list[str]:
    found = []
    began = sum(r.state is State.IN_PROGRESS and r.previous is State.READY for r in rows)
    if began != ws.attempt:
        found.append(f"{ws.id} began {began} times, but counts {ws.attempt} attempts")
    if [r.seq for r in rows] != list(range(1, len(rows) + 1)):
        found.append(f"{ws.id} has gaps in its audit trail")
    found.extend(
        f"{ws.id} went from {a.state} to {b.state}"
        for a, b in pairwise(rows)
        if b.state != a.state and b.state not in NEXT[a.state]
    )
    return found


def _command(sim: Sim, command: Command, *, prompt: bool) -> list[str]:
    """Every command has an answer and left at most one record; on a quiet day soon."""
    found = []
    rows = sim.world.table.records.get(command.workset_id, [])
    count = sum(r.by == command.by for r in rows)
    replaced = isinstance(command.ask, Submit) and sim.bucket.get(command.workset_id) != command
    excused = command.id in sim.stranded or (replaced and command.workset_id in sim.bucket)
    if not sim.answered(command) and not excused:
        found.append(f"{command.id} on {command.workset_id} has no answer")
    answer = sim.world.table.answers.get((command.workset_id, command.id))
    known = command.workset_id in sim.world.table.worksets and command.workset_id not in sim.edited
    if known and answer and answer.text.startswith("There is no workset"):
        found.append(f"{command.id} overtook the submission of {command.workset_id}")
    asked_at = sim.world.asked_at.get(command.id)
    first = next((r.at for r in rows if r.by == command.by), None)
    if prompt and asked_at is not None and first is not None:
        waited_s = first.timestamp() - LoopClock().start.timestamp() - asked_at
        if waited_s > PROMPT_S and not sim.skewed:
            found.append(f"{command.id} waited {waited_s:.0f} s for an answer")
    most = 2 if _gives_up_a_run(rows, command) else 1
    if count > most:
        found.append(f"{command.id} on {command.workset_id} was applied {count} times")
    return found


def _gives_up_a_run(rows: list[Record], command: Command) -> bool:
    """Whoever vouches that a machine is gone ends one attempt and asks for the next: two records."""
    return any(r.by == command.by and "is given up" in r.message for r in rows)


def _notices(sim: Sim, name: str, told: list[Record], exactly_once: bool) -> list[str]:
    records = [r for rows in sim.world.table.records.values() for r in rows]
    wanted = {
        r.id for r in records if name in sim.owed_first.get(r.id, ()) and name not in r.given_up
    }
    got = Tally(r.id for r in told)
    found = [f"{name} was never told {id}" for id in sorted(wanted - set(got))]
    if exactly_once:
        found += [f"{name} was told {id} {n} times" for id, n in got.items() if n > 1]
    given_up = {r.id for r in records if name in r.given_up}  # they may still arrive, late
    for id in sim.world.table.worksets:
        kept = (r.seq for r in told if r.workset_id == id and r.id not in given_up)
        firsts = list(dict.fromkeys(kept))
        if firsts != sorted(firsts):
            found.append(f"{name} heard of {id} out of order: {firsts}")
    return found
