"""The engine, whole, when what it stands on refuses, breaks, lies, or answers with something foreign."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from daylily_daemon.domain.errors import Impeded, Newer, Permanent, Transient
from daylily_daemon.domain.model import (
    Cancel,
    Command,
    Ended,
    Inspection,
    Outcome,
    Record,
    State,
    Submit,
    WorksetId,
)
from daylily_daemon.domain.workset import Workset
from daylily_daemon.ports import Change, Delivery, Unreadable
from tests.fakes.notifier import MemoryNotifier
from tests.fakes.runner import MemoryMachine, Script
from tests.fakes.store import MemoryMailbox
from tests.unit.daemons import (
    PIPELINE,
    GoodInputs,
    Parts,
    World,
    daemon,
    parts_of,
    play,
    until,
)

DENIED = Impeded("AWS refused UpdateItem: not authorized. Allow it in the IAM policy.")
LONG = Script(duration_s=1000.0)


def is_in(world: World, id: str, state: State) -> bool:
    return WorksetId(id) in world.table.worksets and world.workset(id).state is state


class Failing:
    """A port that fails on some of its methods as long as ``left`` lasts, or until it is healed."""

    def __init__(self, inner: Any, error: Callable[[], Exception], methods: Sequence[str]) -> None:
        self.inner, self.error, self.methods = inner, error, methods
        self.left = 10_000_000
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not callable(found):
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] += 1
            if name in self.methods and self.left > 0:
                self.left -= 1
                await anyio.lowlevel.checkpoint()
                raise self.error()
            return await found(*args, **kwargs)

        return call


def with_failing(world: World, role: str, failing: Failing) -> Parts:
    changed: dict[str, Any] = {role: failing}
    return replace(parts_of(world), **changed)


@pytest.mark.reported("A", "a dead-letter queue that cannot be written ends the consumer")
def test_a_message_that_cannot_be_parked_touches_no_other_and_ends_nothing() -> None:
    async def story() -> None:
        world = World()
        mailbox = Failing(MemoryMailbox(world.commands), lambda: DENIED, ["park"])
        world.commands.put(Unreadable("nonsense"), "x")
        async with daemon(world, parts=with_failing(world, "commands", mailbox)) as supervisor:
            await world.submit("w1", "w2")
            await until(lambda: is_in(world, "w1", State.COMPLETE), within_s=60)
            await until(lambda: is_in(world, "w2", State.COMPLETE), within_s=60)
            assert supervisor.snapshot().ports["commands"].code in ("impeded", "")
            mailbox.left = 0
            await until(lambda: len(world.commands.parked) == 1, within_s=120)
        assert not world.commands.messages

    play(story)


@pytest.mark.reported("A", "an answer of AWS about our rights parks a good command")
def test_a_denied_table_parks_no_command_and_costs_it_few_receives() -> None:
    async def story() -> None:
        world = World()
        store = Failing(parts_of(world).worksets, lambda: DENIED, ["commit", "load"])
        receives: list[int] = []

        class Counting(MemoryMailbox):
            async def receive(self) -> Sequence[Delivery]:
                found = await super().receive()
                receives.extend(d.tries for d in found)
                return found

        parts = replace(
            with_failing(world, "worksets", store), commands=Counting(world.commands, wait_s=20)
        )
        async with daemon(world, parts=parts) as supervisor:
            await world.submit("w1")
            await anyio.sleep(7200)
            assert max(receives) <= 3, "SQS moves a message away after a few receives"
            health = supervisor.snapshot().ports["worksets"]
            assert (health.code, health.failures > 10) == ("impeded", True)
            assert health.failing_since is not None
            store.left = 0
            await until(lambda: is_in(world, "w1", State.COMPLETE), within_s=300)
            assert supervisor.snapshot().ports["worksets"].failing_since is None
        assert world.commands.parked == []

    play(story)


def test_a_table_that_never_answers_costs_a_command_few_receives_too() -> None:
    async def story() -> None:
        world = World()
        store = parts_of(world).worksets
        receives: list[int] = []

        class Silent(Failing):
            def __getattr__(self, name: str) -> Any:
                async def silence(*args: Any, **kwargs: Any) -> Any:
                    if self.left:
                        await anyio.sleep_forever()
                    return await getattr(store, name)(*args, **kwargs)

                return silence if name in self.methods else getattr(store, name)

        class Counting(MemoryMailbox):
            async def receive(self) -> Sequence[Delivery]:
                found = await super().receive()
                receives.extend(d.tries for d in found)
                return found

        silent = Silent(store, lambda: DENIED, ["commit", "load"])
        parts = replace(with_failing(world, "worksets", silent), commands=Counting(world.commands))
        async with daemon(world, parts=parts):
            await world.submit("w1")
            await anyio.sleep(7200)
            assert max(receives) <= 3
            silent.left = 0
            await until(lambda: is_in(world, "w1", State.COMPLETE), within_s=300)
        assert world.commands.parked == []

    play(story)


def test_a_daemon_that_ends_gives_messages_in_hand_back_at_once() -> None:
    async def story() -> None:
        world = World()
        store = Failing(parts_of(world).worksets, lambda: DENIED, ["commit"])
        async with daemon(world, parts=with_failing(world, "worksets", store)):
            await world.submit("w1")
            await anyio.sleep(600)
        ended = anyio.current_time()
        async with daemon(world, "b"):
            await until(lambda: is_in(world, "w1", State.COMPLETE), within_s=60)
        assert anyio.current_time() - ended < 30

    play(story)


def test_denied_rights_on_the_intake_park_no_event() -> None:
    async def story() -> None:
        world = World()
        sending = Failing(MemoryMailbox(world.commands), lambda: DENIED, ["send"])
        drop = Command(
            id="d1", workset_id=WorksetId("w1"), by="s3", ask=Submit(bucket="b", prefix="p/w1/")
        )
        world.intake.put((drop,), "e1")
        async with daemon(world, parts=with_failing(world, "commands", sending)):
            await anyio.sleep(3600)
            assert not world.table.worksets
            sending.left = 0
            await until(lambda: is_in(world, "w1", State.COMPLETE), within_s=300)
        assert world.intake.parked == []

    play(story)


FOREIGN: list[Callable[[], Exception]] = [
    lambda: OverflowError("date value out of range"),
    lambda: KeyError("Responses"),
    lambda: ExceptionGroup("several", [ValueError("one"), Transient("two")]),
    lambda: ExceptionGroup("ours", [Transient("one"), ExceptionGroup("in", [Permanent("two")])]),
    lambda: RecursionError("maximum recursion depth exceeded"),
]
CALLS = [
    ("worksets", ["load", "commit"]),
    ("turns", ["line_up", "load_all", "unfiled"]),
    ("turns", ["line_up"]),
    ("trail", ["read", "owed", "settle", "take_over"]),
    ("intake", ["receive", "settle", "park"]),
    ("commands", ["receive", "settle", "send"]),
    ("inputs", ["inspect"]),
    ("drops", ["unannounced", "as_it_is"]),
    ("runner", ["ensure"]),
    ("runner", ["wait", "progress", "look"]),
]


@pytest.mark.reported("B", "one answer nobody foresaw ends the daemon, at every start again")
@pytest.mark.parametrize("error", FOREIGN, ids=lambda e: type(e()).__name__ + str(e())[:4])
@pytest.mark.parametrize(("role", "methods"), CALLS, ids=str)
def test_nothing_foreign_that_leaves_a_port_ends_the_daemon_or_loses_a_workset(
    role: str, methods: list[str], error: Callable[[], Exception]
) -> None:
    async def story() -> None:
        world = World()
        failing = Failing(getattr(parts_of(world), role), error, methods)
        failing.left = 4
        drop = Command(
            id="d1", workset_id=WorksetId("w0"), by="s3", ask=Submit(bucket="b", prefix="p/w0/")
        )
        world.intake.put((drop,), "e1")
        async with daemon(world, parts=with_failing(world, role, failing)):
            await world.submit("w1")
            await until(lambda: is_in(world, "w1", State.COMPLETE), within_s=3600)
            await until(lambda: is_in(world, "w0", State.COMPLETE), within_s=3600)
            await until(
                lambda: not any(r.owed for rows in world.table.records.values() for r in rows)
            )
        assert len(world.machine.starts) == 10
        assert world.workset("w1").attempt == 1
        assert world.commands.parked == []

    play(story)


def test_an_input_check_that_breaks_again_and_again_parks_its_workset_alone() -> None:
    class Breaking:
        async def inspect(self, workset: Workset) -> Inspection:
            if workset.id == "bad":
                raise ZeroDivisionError
            return await GoodInputs().inspect(workset)

    async def story() -> None:
        world = World(inputs=Breaking())
        async with daemon(world):
            await world.submit("bad", "good")
            await until(lambda: is_in(world, "good", State.COMPLETE), within_s=60)
            await until(lambda: is_in(world, "bad", State.ERROR), within_s=300)
        assert "broke 5 times" in world.workset("bad").error_details

    play(story)


def test_rights_that_are_missing_refuse_no_input_and_the_workset_says_why_it_waits() -> None:
    class Denied:
        healed = False

        async def inspect(self, workset: Workset) -> Inspection:
            if self.healed:
                return await GoodInputs().inspect(workset)
            raise Impeded("AWS refused ListObjectsV2 of s3://control: AccessDenied.")

    async def story() -> None:
        inputs = Denied()
        world = World(inputs=inputs)
        async with daemon(world):
            await world.submit("w1")
            await anyio.sleep(4 * 3600)
            ws = world.workset("w1")
            assert ws.state is State.READY
            assert "AccessDenied" in ws.waiting_for
            assert ws.version < 20, "the same news is not written again and again"
            inputs.healed = True
            await until(lambda: is_in(world, "w1", State.COMPLETE), within_s=120)

    play(story)


def test_a_check_that_never_answers_holds_up_nobody_else() -> None:
    class Hanging:
        async def inspect(self, workset: Workset) -> Inspection:
            if workset.id == "hangs":
                await anyio.sleep_forever()
            return await GoodInputs().inspect(workset)

    async def story() -> None:
        world = World(inputs=Hanging())
        async with daemon(world):
            await world.submit("hangs", "w1")
            await until(lambda: is_in(world, "w1", State.COMPLETE), within_s=60)
            await anyio.sleep(1000)
            assert "no answer within 900 s" in world.workset("hangs").waiting_for

    play(story)


@pytest.mark.reported("B", "Retry-After with a year of twenty digits")
def test_a_receiver_that_asks_for_an_absurd_pause_is_asked_again_within_the_hour() -> None:
    class Absurd:
        def __init__(self) -> None:
            self.asked_at: list[float] = []

        async def deliver(self, record: Record) -> None:
            self.asked_at.append(anyio.current_time())
            raise Transient("later", retry_after_s=float("inf"))

    async def story() -> None:
        world, slack = World(), Absurd()
        parts = parts_of(world)
        channels = {**parts.notifiers, "slack": slack}
        async with daemon(world, parts=replace(parts, notifiers=channels)):
            await world.submit("w1")
            await until(lambda: is_in(world, "w1", State.COMPLETE), within_s=60)
            await anyio.sleep(4000)
        assert slack.asked_at[1] - slack.asked_at[0] <= 3600

    play(story)


DEEP: Any = {"a": 1}
for _ in range(500):
    DEEP = {"a": DEEP}


@pytest.mark.reported("B", "a report of a job that breaks whoever reads it")
@pytest.mark.parametrize(
    "report",
    [
        {"stage_s": "12 s", "run_s": [1], "export_s": {"a": 1}},
        {"results_s3_uri": 7, "warnings": "no list"},
        {"n": 10**400, "x": 1e308, "y": float("nan"), "": 1, "\ud800": "\udfff"},
        {f"k{n}": "x" * 10_000 for n in range(5_000)},
        {"deep": DEEP, "wide": list(range(100_000))},
    ],
    ids=["names of ours", "wrong types", "numbers", "huge", "deep"],
)
def test_whatever_a_job_reports_its_workset_goes_on(report: dict[str, Any]) -> None:
    async def story() -> None:
        outcome = Outcome(ended=Ended.EXITED, code=0, report=report, duration_s=1.0)
        world = World(machine=MemoryMachine(lambda _: Script(outcome=outcome)))
        world.engine_settings = replace(
            world.engine_settings, pipelines={"demo": replace(PIPELINE, timeout_s=1000.0)}
        )
        async with daemon(world):
            await world.submit("w1")
            await until(lambda: is_in(world, "w1", State.COMPLETE), within_s=60)
        ws = world.workset("w1")
        assert ws.run is not None
        assert [step.seconds for step in ws.run.steps] == [1.0] * 5
        assert ws.results_uri == "s3://b/results/"
        assert len(repr(ws.run.reports)) < 200_000

    play(story)


@pytest.mark.reported("A", "what a dead channel is owed hides what healthy ones are")
def test_healthy_channels_get_what_a_dead_daemon_left_however_much_another_is_owed() -> None:
    async def story() -> None:
        world = World()
        dead = MemoryNotifier()
        parts = parts_of(world)

        class Down:
            async def deliver(self, record: Record) -> None:
                raise Transient("no answer")

        def channels(sns: Any) -> Parts:
            return replace(parts, notifiers={"slack": Down(), "sns": sns})

        async with daemon(world, "a", channels(Down())):
            await world.submit(*(f"w{n:03}" for n in range(60)))
            await until(lambda: is_in(world, "w059", State.COMPLETE), within_s=3600)
        owed = [r for rows in world.table.records.values() for r in rows if r.owed]
        assert len(owed) > 100
        async with daemon(world, "b", channels(dead)):
            await until(lambda: len(dead.delivered) == len(owed), within_s=600)

    play(story)


@pytest.mark.reported("A", "an item of a newer version, met by an older one beside it")
def test_an_item_of_a_newer_version_is_left_alone_and_holds_up_nobody() -> None:
    async def story() -> None:
        world = World()
        store = parts_of(world).worksets

        class TooNew(Failing):
            def __getattr__(self, name: str) -> Any:
                found = super().__getattr__(name)

                async def load(id: WorksetId) -> Workset | None:
                    if id == "new":
                        raise Newer("Workset new was written by a newer version.")
                    return await store.load(id)

                return load if name == "load" else found

        failing = TooNew(store, lambda: DENIED, [])
        async with daemon(world, parts=with_failing(world, "worksets", failing)):
            for _ in range(3):
                await world.ask("new", Cancel())
                await anyio.sleep(30)
            await world.submit("w1")
            await until(lambda: is_in(world, "w1", State.COMPLETE), within_s=120)
        assert world.commands.parked == []

    play(story)


def test_trouble_of_one_message_alone_is_not_waited_for_once_others_succeed() -> None:
    async def story() -> None:
        world = World()
        store = parts_of(world).worksets

        class HotKey(Failing):
            def __getattr__(self, name: str) -> Any:
                async def commit(change: Change) -> Workset:
                    if change.after.id.startswith("hot"):
                        raise Transient("The transaction met another one.")
                    return await store.commit(change)

                return commit if name == "commit" else super().__getattr__(name)

        failing = HotKey(store, lambda: DENIED, [])
        async with daemon(world, parts=with_failing(world, "worksets", failing)):
            await world.submit("w1")
            await until(lambda: is_in(world, "w1", State.COMPLETE), within_s=120)
            await world.submit("hot1")
            await anyio.sleep(2)
            await world.submit("w2")
            await until(lambda: is_in(world, "w2", State.COMPLETE), within_s=120)
            await anyio.sleep(3600)
            await world.submit("w3", "w4")
            await until(lambda: is_in(world, "w4", State.COMPLETE), within_s=1200)
        assert world.commands.parked == []

    play(story)
