"""What may befall a simulated world, one small function each, drawn by the seed of a storm.

A trouble gets the world and the wire of one daemon, and returns at once; what it began is over by itself, or
when the storm ends. The first line of its docstring is what docs/reliability.md says of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import anyio

from daylily_daemon.domain.errors import Impeded, Permanent, Transient
from daylily_daemon.domain.model import (
    Cancel,
    Command,
    HostLost,
    Priority,
    Retry,
    SetPriority,
    State,
    WorksetId,
)
from daylily_daemon.domain.routing import Filter, Routing
from daylily_daemon.domain.workset import Workset
from daylily_daemon.ports import Unreadable
from tests.sim.hostile_reports import REPORTS
from tests.sim.ports import MISSING, REFUSED, UNWANTED, Input
from tests.sim.wire import CHANNELS, Outage, Wire
from tests.sim.world import RESTING, Sim
from tests.unit.daemons import PIPELINE
from tests.unit.engine_settings import a_policy

Trouble = Callable[[Sim, Wire], None]

TABLE: Final = ("worksets", "turns")
AWS: Final = (*TABLE, "trail", "intake", "commands", "inputs", "drops")
SERVICES: Final = ((*TABLE, "trail"), ("intake", "commands"), ("trail",), ("inputs", "drops"))
HOURS_S: Final = 3 * 3600.0


def _soon(sim: Sim, most_s: float) -> float:
    return anyio.current_time() + sim.rng.uniform(5, most_s)


def _out(sim: Sim, *calls: str, most_s: float = 300.0, **fields: Any) -> None:
    fields.setdefault("error", lambda call: Transient(f"{call}: no answer"))
    sim.log.outages.append(Outage(calls=calls, until=_soon(sim, most_s), **fields))


def _some_workset(sim: Sim, *states: State) -> Workset | None:
    found = [
        ws
        for id, ws in sorted(sim.world.table.worksets.items())
        if not states or ws.state in states
    ]
    return sim.rng.choice(found) if found else None


# --- daemons and machines ------------------------------------------------------------------------


def kill(sim: Sim, wire: Wire) -> None:
    """A daemon is killed."""
    wire.died.set()


def end(sim: Sim, wire: Wire) -> None:
    """A daemon is told to end."""
    wire.told_to_end.set()


def cut_off(sim: Sim, wire: Wire) -> None:
    """A daemon is cut off from everything."""
    wire.cut_until = _soon(sim, 200)


def pause(sim: Sim, wire: Wire) -> None:
    """A daemon stands still, and does not know it."""
    until = anyio.current_time() + sim.rng.choice([5.0, 70.0, 600.0])
    wire.paused_until = max(wire.paused_until, until)


def set_the_clock(sim: Sim, wire: Wire) -> None:
    """Somebody sets the wall clock of a daemon, in either direction."""
    if sim.skewed:
        sim.clocks[wire.name].off_s += sim.rng.uniform(-1800, 1800)


def fill_the_disk(sim: Sim, wire: Wire) -> None:
    """No job can be started for want of room."""
    sim.disk_full_until = _soon(sim, 120)


def no_room(sim: Sim, wire: Wire) -> None:
    """Hosts are held: nothing new is to be started on them."""
    sim.no_room_since, sim.no_room_until = anyio.current_time(), _soon(sim, 300)


def reboot(sim: Sim, wire: Wire) -> None:
    """All machines restart under jobs and daemons."""
    sim.reboot()


def reboot_one(sim: Sim, wire: Wire) -> None:
    """One machine restarts under its jobs and daemons, while daemons on others live on."""
    machine = sim.machine_of(wire.name)
    sim.machine.lose_machine(f"host:{machine}")
    for name, each in sim.wires.items():
        if sim.machine_of(name) == machine:
            each.died.set()


def replace_the_host(sim: Sim, wire: Wire) -> None:
    """A machine is replaced by a new one that knows none of its jobs, until somebody vouches for that."""
    old = sim.machine_of(wire.name)
    reboot_one(sim, wire)
    sim.gone.add(f"host:{old}")
    for name in list(sim.wires):
        if sim.machine_of(name) == old:
            sim.machines[name] = f"{old}+"


def lose_a_token(sim: Sim, wire: Wire) -> None:
    """The folder of a job that was seen to run is gone, and comes back after the storm."""
    for ws in sim.world.table.worksets.values():
        if ws.run and ws.job and ws.run.confirmed == ws.job:
            sim.lost_tokens.add(ws.job)
            return


# --- AWS -----------------------------------------------------------------------------------------


def throttle_everybody(sim: Sim, wire: Wire) -> None:
    """Four calls in five are throttled, for everybody."""
    for each in sim.wires.values():
        each.throttled_until = _soon(sim, 120)


def throttle_one_service(sim: Sim, wire: Wire) -> None:
    """One service throttles."""
    error = lambda call: Transient(f"{call}: slow down", retry_after_s=3.0)  # noqa: E731
    _out(sim, *sim.rng.choice(SERVICES), share=0.8, error=error)


def lose_one_service(sim: Sim, wire: Wire) -> None:
    """One service is out: the table, the queues, the trail, or S3."""
    _out(sim, *sim.rng.choice(SERVICES))


def cut_several_things(sim: Sim, wire: Wire) -> None:
    """Several services are out for some daemons, and come back in any order."""
    for _ in range(3):
        _out(sim, *sim.rng.choice(SERVICES), of=sim.rng.choice(list(sim.wires)))


def expire_the_credentials(sim: Sim, wire: Wire) -> None:
    """The credentials of a daemon expire, and are renewed late."""
    error = lambda call: Impeded(f"{call}: ExpiredToken")  # noqa: E731
    _out(sim, *AWS, most_s=900, error=error, of=wire.name)


def deny_the_table(sim: Sim, wire: Wire) -> None:
    """The table answers that we have no right to it, or that it does not exist."""
    error = lambda call: Impeded(f"{call}: AccessDeniedException")  # noqa: E731
    _out(sim, *sim.rng.choice([TABLE, ("worksets.commit",), TABLE[1:], ("trail",)]), error=error)


def deny_the_queues(sim: Sim, wire: Wire) -> None:
    """A queue answers that we have no right to it."""
    error = lambda call: Impeded(f"{call}: AccessDenied")  # noqa: E731
    calls = [("commands",), ("intake",), ("commands.settle", "intake.settle"), ("commands.send",)]
    _out(sim, *sim.rng.choice(calls), error=error)


def deny_the_bucket(sim: Sim, wire: Wire) -> None:
    """S3 answers that we have no right to it: to look at inputs, or at triggers."""
    error = lambda call: Impeded(f"{call}: AccessDenied")  # noqa: E731
    _out(sim, *sim.rng.choice([("inputs",), ("drops",)]), error=error)


def refuse_the_index(sim: Sim, wire: Wire) -> None:
    """The index answers with a definite no."""
    _out(sim, "turns.line_up", "trail.owed", error=lambda call: Permanent(f"{call}: no"))


def close_the_dead_letters(sim: Sim, wire: Wire) -> None:
    """A message nobody can read, while the dead-letter queue cannot be written."""
    error = lambda call: Impeded(f"{call}: AccessDenied")  # noqa: E731
    _out(sim, "commands.park", "intake.park", error=error)
    queue = sim.rng.choice([sim.world.commands, sim.world.intake])
    queue.put(Unreadable("nonsense"), sim.world.ids.fresh())


def let_the_index_stand(sim: Sim, wire: Wire) -> None:
    """The index shows the same moment for minutes."""
    sim.stand_still(_soon(sim, 300))


# --- what nobody foresaw -------------------------------------------------------------------------

FOREIGN: Final[tuple[Callable[[str], Exception], ...]] = (
    KeyError,
    lambda call: OverflowError("timestamp out of range"),
    lambda call: ExceptionGroup(call, [ValueError("one"), Transient("two")]),
    lambda call: RecursionError("maximum recursion depth exceeded"),
    lambda call: OSError(24, "Too many open files"),
)


def meet_the_unforeseen(sim: Sim, wire: Wire) -> None:
    """A port raises what nobody foresaw."""
    sim.foreign = True
    role = sim.rng.choice([*AWS, "runner", *CHANNELS])
    _out(sim, role, most_s=90, error=sim.rng.choice(FOREIGN))


def answer_in_riddles(sim: Sim, wire: Wire) -> None:
    """A port does what it is asked for, and its answer cannot be understood."""
    sim.foreign = True
    calls = ("worksets.commit", "trail.settle", "commands.settle", "runner.ensure", *CHANNELS)
    _out(sim, sim.rng.choice(calls), most_s=60, error=sim.rng.choice(FOREIGN), answered=True)


# --- drops and their inputs ----------------------------------------------------------------------


def refuse_an_input(sim: Sim, wire: Wire) -> None:
    """The input of the next drop is refused."""
    _next_input(sim, REFUSED)


def miss_an_input(sim: Sim, wire: Wire) -> None:
    """The files of the next drop come late, or too late."""
    _next_input(sim, MISSING)


def hang_an_input(sim: Sim, wire: Wire) -> None:
    """The check of the next drop takes minutes and then gets no answer."""
    _next_input(sim, Transient("the file system does not answer"), takes_s=70.0)


def break_an_input(sim: Sim, wire: Wire) -> None:
    """The check of the next drop meets what nobody foresaw."""
    sim.foreign = True
    error = sim.rng.choice([RuntimeError("boom"), ExceptionGroup("boom", [ValueError("x")])])
    _next_input(sim, error)


def unwant_an_input(sim: Sim, wire: Wire) -> None:
    """Somebody puts daylily.ignore beside the next drop."""
    _next_input(sim, UNWANTED)


def _next_input(sim: Sim, answer: Any, takes_s: float = 0.05) -> None:
    id = WorksetId(f"w{len(sim.bucket)}")
    sim.inputs[id] = Input(until=_soon(sim, 240), answer=answer, takes_s=takes_s)
    sim.announce(id, id)


def lose_an_event(sim: Sim, wire: Wire) -> None:
    """A drop whose event never comes."""
    id = f"w{len(sim.bucket)}"
    sim.write_trigger(id, id)


def drop_again(sim: Sim, wire: Wire) -> None:
    """The trigger of a known workset is written again."""
    if sim.bucket:
        id = sim.rng.choice(sorted(sim.bucket))
        sim.announce(id, f"{id}.{sim.world.ids.fresh()}")


def drop_again_unheard(sim: Sim, wire: Wire) -> None:
    """The trigger of a known workset is written again, and the event never comes."""
    if sim.bucket:
        id = sim.rng.choice(sorted(sim.bucket))
        sim.write_trigger(id, f"{id}.{sim.world.ids.fresh()}")


def repeat_something_old(sim: Sim, wire: Wire) -> None:
    """A message from long ago is delivered once more."""
    if sim.world.asked:
        command = sim.rng.choice(sim.world.asked)
        sim.world.commands.put((command,), command.workset_id)


# --- commands ------------------------------------------------------------------------------------


def ask(sim: Sim, id: str, what: Any) -> Command:
    """Put a command into its queue, as the command line does."""
    name = f"ask-{sim.world.ids.fresh()}"
    command = Command(id=name, workset_id=WorksetId(id), by=f"cli:{name};", ask=what)
    sim.world.asked.append(command)
    sim.world.commands.put((command,), command.workset_id)
    return command


def ask_too_much(sim: Sim, wire: Wire) -> None:
    """Twenty-five commands at once for one workset, and then the first of them again."""
    if ws := _some_workset(sim):
        many = [ask(sim, ws.id, SetPriority(priority=Priority.LOW)) for _ in range(25)]
        sim.world.commands.put((many[0],), ws.id)


def ask_at_length(sim: Sim, wire: Wire) -> None:
    """A command with a reason of 150,000 characters."""
    sim.huge = True
    if ws := _some_workset(sim):
        ask(sim, ws.id, Cancel(reason="because " * 20_000))


def ask_of_nobody(sim: Sim, wire: Wire) -> None:
    """A command for a workset that never was."""
    ask(sim, "nobody", Retry())


def send_something_newer(sim: Sim, wire: Wire) -> None:
    """A message of a newer version, that this one cannot read."""
    queue = sim.rng.choice([sim.world.commands, sim.world.intake])
    queue.put(Unreadable("format 9 is newer than this program"), sim.world.ids.fresh())


def write_something_newer(sim: Sim, wire: Wire) -> None:
    """An item of a newer version, that this one must leave alone."""
    if ws := _some_workset(sim, State.READY, State.COMPLETE, State.FAILED):
        sim.newer.add(ws.id)


# --- people and settings -------------------------------------------------------------------------


def _edit(sim: Sim, ws: Workset | None, **fields: Any) -> None:
    if ws is not None:
        sim.edited.add(ws.id)
        sim.stranded |= {c.id for c in ws.inbox if fields.get("state") in RESTING}
        sim.world.table.worksets[ws.id] = replace(ws, **fields)


def cancel_by_hand(sim: Sim, wire: Wire) -> None:
    """Somebody sets the state of an item to canceled."""
    _edit(sim, _some_workset(sim), state=State.CANCELED)


def ready_by_hand(sim: Sim, wire: Wire) -> None:
    """Somebody sets the state of an item to ready, whatever runs."""
    _edit(sim, _some_workset(sim), state=State.READY)


def unlock_by_hand(sim: Sim, wire: Wire) -> None:
    """Somebody removes the lock of an item."""
    _edit(sim, _some_workset(sim, State.IN_PROGRESS), lock=None)


def delete_by_hand(sim: Sim, wire: Wire) -> None:
    """Somebody deletes an item, and what is in its inbox with it."""
    if ws := _some_workset(sim):
        _edit(sim, ws, state=State.DELETED)
        del sim.world.table.worksets[ws.id]


def change_the_limits(sim: Sim, wire: Wire) -> None:
    """A reload changes how many worksets may run."""
    slots, per_customer = sim.rng.choice([1, 2, 8]), sim.rng.choice([0, 1, 2])
    limits = replace(sim.world.engine_settings.limits, slots=slots, per_customer=per_customer)
    sim.turn(limits=limits)


def change_the_policy(sim: Sim, wire: Wire) -> None:
    """A reload changes retries, pauses and how long input is waited for."""
    policy = a_policy(
        max_retries=sim.rng.choice([0, 1, 3]),
        base_s=sim.rng.choice([5, 20]),
        cap_s=60,
        input_wait_s=sim.rng.choice([60.0, 300.0]),
    )
    sim.turn(policy=policy)


def change_the_grace(sim: Sim, wire: Wire) -> None:
    """A reload changes how long jobs have to end."""
    sim.turn(grace_s=sim.rng.choice([None, 0.0, 7.0]))


def change_the_routing(sim: Sim, wire: Wire) -> None:
    """A reload switches a channel off, or on again."""
    channels = sim.rng.choice([("sns",), ("slack",), CHANNELS, ()])
    sim.turn(routing=Routing({name: Filter() for name in channels}))


def remove_the_pipeline(sim: Sim, wire: Wire) -> None:
    """The file of a pipeline is removed or renamed during its runs."""
    sim.pipelines_changed = True
    sim.turn(pipelines={"renamed": PIPELINE})


def remove_a_step(sim: Sim, wire: Wire) -> None:
    """A step of a pipeline is removed during its runs."""
    sim.pipelines_changed = True
    gone = sim.rng.choice(["run", "export", "cleanup"])
    steps = tuple(step for step in PIPELINE.steps if step.step is not gone)
    sim.turn(pipelines={"demo": replace(PIPELINE, steps=steps)})


def restore_the_pipeline(sim: Sim, wire: Wire) -> None:
    """The pipeline is as it was again."""
    sim.turn(pipelines={"demo": PIPELINE})


# --- channels ------------------------------------------------------------------------------------


def lose_a_channel(sim: Sim, wire: Wire) -> None:
    """A channel is down for hours."""
    _out(sim, sim.rng.choice(CHANNELS), most_s=HOURS_S)


def deny_a_channel(sim: Sim, wire: Wire) -> None:
    """A channel answers that we have no right to it."""
    error = lambda call: Impeded(f"{call}: AuthorizationError")  # noqa: E731
    _out(sim, sim.rng.choice(CHANNELS), most_s=900, error=error)


def refuse_a_notice(sim: Sim, wire: Wire) -> None:
    """A channel refuses for good whatever it is told for a while."""
    channel = sim.rng.choice(CHANNELS)
    _out(sim, f"{channel}.deliver", most_s=60, error=lambda call: Permanent(f"{call}: no"))
    until = sim.log.outages[-1].until
    sim.refusing_until[channel] = max(until, sim.refusing_until.get(channel, 0.0))


def ask_for_patience(sim: Sim, wire: Wire) -> None:
    """A channel asks to wait, for a minute or for ten thousand years."""
    wait_s = sim.rng.choice([60.0, 3e11])
    error = lambda call: Transient(f"{call}: busy", retry_after_s=wait_s)  # noqa: E731
    _out(sim, sim.rng.choice(CHANNELS), most_s=120, error=error, lasts_on_s=3600.0)


# --- jobs ----------------------------------------------------------------------------------------


def report_anything(sim: Sim, wire: Wire) -> None:
    """Jobs report what nobody expects: deep, huge, of any type."""
    sim.hostile, sim.huge = REPORTS, True


OFTEN: Final = (*(kill,) * 4, *(end,) * 2, *(cut_off,) * 2, *(pause,) * 2)
KINDS: Final[tuple[Trouble, ...]] = (
    *(kill, end, cut_off, pause, set_the_clock, fill_the_disk, no_room, reboot, reboot_one),
    *(replace_the_host, lose_a_token),
    *(throttle_everybody, throttle_one_service, lose_one_service, cut_several_things),
    *(expire_the_credentials, deny_the_table, deny_the_queues, deny_the_bucket),
    *(refuse_the_index, close_the_dead_letters, let_the_index_stand),
    *(meet_the_unforeseen, answer_in_riddles),
    *(refuse_an_input, miss_an_input, hang_an_input, break_an_input, unwant_an_input),
    *(lose_an_event, drop_again, drop_again_unheard, repeat_something_old),
    *(ask_too_much, ask_at_length, ask_of_nobody, send_something_newer, write_something_newer),
    *(cancel_by_hand, ready_by_hand, unlock_by_hand, delete_by_hand),
    *(change_the_limits, change_the_policy, change_the_grace, change_the_routing),
    *(remove_the_pipeline, remove_a_step, restore_the_pipeline),
    *(lose_a_channel, deny_a_channel, refuse_a_notice, ask_for_patience),
    report_anything,
)
"""Every kind there is, in the order of docs/reliability.md."""
BY_NAME: Final = {kind.__name__: kind for kind in KINDS}
OFF: Final[frozenset[Trouble]] = frozenset()
"""Those the program does not stand yet. This set only shrinks."""
DRAWN: Final = (*OFTEN, *(kind for kind in KINDS if kind not in OFF))


def heal(sim: Sim) -> None:
    """End every trouble; outages one after the other, in any order."""
    now = anyio.current_time()
    for outage in sim.log.outages:
        outage.until = min(outage.until, now + sim.rng.uniform(0, 120))
    sim.accidents = sim.disk_full_until = sim.no_room_until = 0.0
    sim.index_stands_until = min(sim.index_stands_until, now)
    sim.hostile = ()
    sim.lost_tokens.clear()
    sim.newer.clear()
    sim.inputs = {id: replace(i, until=min(i.until, now)) for id, i in sim.inputs.items()}
    for wire in sim.wires.values():
        wire.calm_down()


async def vouch(sim: Sim) -> None:
    """For every run on a machine that is gone, say so, once an attempt."""
    said: set[tuple[WorksetId, int]] = set()
    while True:
        await anyio.sleep(60)
        for ws in list(sim.world.table.worksets.values()):
            lost = ws.state is State.IN_PROGRESS and ws.scope in sim.gone
            if lost and (ws.id, ws.attempt) not in said:
                said.add((ws.id, ws.attempt))
                ask(sim, ws.id, HostLost())
