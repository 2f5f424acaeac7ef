"""One workset whose run is complete, on a host of its own, and everything that may be otherwise.

The world is right in itself: nothing of it is decided by the code under test. ``may_go`` says anew, from
what is there, what a removal may rest on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

from daylily_daemon.application.pruning import Pruning
from daylily_daemon.domain.model import State, Transition, WorksetId
from daylily_daemon.domain.prune import JobLeft, PruneVerdict, ResultsTally, RunFolder, RunRemains
from daylily_daemon.domain.run import Run
from daylily_daemon.domain.workset import Workset
from tests.fakes.folders import MemoryFolders, MemoryResults
from tests.fakes.store import MemoryTurns, MemoryWorksets, Table
from tests.made import NOW, a_lock, a_run, a_workset
from tests.unit.backends import a_backend, played

ID: Final = WorksetId("w1")
OTHER: Final = WorksetId("w2")
DATA: Final = "/d/w1/r1"
JOBS: Final = "/j/w1/r1"
SCOPE: Final = "host:m/1"
URI: Final = "s3://lab/results/w1/"
DAY_S: Final = 86_400.0
MOMENTS: Final = ("at first", "previewed", "logs kept", "looked again")


class UnsafeRemoval(AssertionError):
    """Something went that had to stay."""


def complete() -> Workset:
    run = a_run(
        scope=SCOPE,
        jobs_dir=JOBS,
        key="k1",
        folder=DATA,
        results_uri=URI,
        results_files=3,
        results_bytes=300,
    )
    long_ago = NOW - timedelta(days=90)
    since = Transition(state=State.COMPLETE, at=long_ago, reason="done")
    ws = a_workset(ID, State.COMPLETE, run=run, attempt=1, now=long_ago)
    return replace(ws, history=(since,))


def remains() -> RunRemains:
    return RunRemains(
        data_dir=DATA,
        data=RunFolder(path=DATA, size_bytes=5, identity=(1, 10)),
        records=RunFolder(path=JOBS, size_bytes=2, identity=(1, 20)),
        scope=SCOPE,
        jobs={step.place.rpartition("/")[2]: JobLeft.ENDED for step in _run(complete()).steps},
    )


def _run(ws: Workset) -> Run:
    assert ws.run is not None
    return ws.run


@dataclass(slots=True)
class World:
    """What is so at this moment, and what is to change at which."""

    table: Table = field(default_factory=Table)
    left: RunRemains = field(default_factory=remains)
    in_s3: ResultsTally = ResultsTally(files=3, size_bytes=300)  # noqa: RUF009  frozen
    changes: dict[str, list[Change]] = field(default_factory=dict)
    looks: int = 0
    kept_logs: bool = False
    went: list[str] = field(default_factory=list)
    first: PruneVerdict | None = None
    """For a bug that is planted."""

    def __post_init__(self) -> None:
        self.item = complete()

    @property
    def item(self) -> Workset | None:
        return self.table.worksets.get(ID)

    @item.setter
    def item(self, ws: Workset) -> None:
        self.table.worksets[ID] = ws

    def reach(self, moment: str) -> None:
        for change in self.changes.pop(moment, ()):
            change.make(self)

    def other(self, state: State) -> None:
        self.table.worksets[OTHER] = a_workset(OTHER, state)

    def may_go(self) -> bool:
        """Tell whether a folder may be removed now, by what is there: nothing here asks a guard."""
        ws, left = self.item, self.left
        if ws is None or ws.state is not State.COMPLETE or ws.lock or ws.run is None:
            return False
        run, other = ws.run, self.table.worksets.get(OTHER)
        is_input = bool(left.named_by) and (other is None or other.state is not State.COMPLETE)
        jobs = {step.place.split("/")[-1] for step in run.steps} | left.jobs.keys()
        return (
            all(left.jobs.get(name) in (JobLeft.ENDED, JobLeft.REVOKED) for name in jobs)
            and {step.scope for step in run.steps} == {left.scope}
            and left.scope != ""
            and run.folder == left.data_dir
            and run.results_uri != ""
            and (run.results_files or 0) > 0
            and (run.results_files, run.results_bytes) == (self.in_s3.files, self.in_s3.size_bytes)
            and not any(folder.obstacle for folder in left.folders)
            and not (left.processes or left.unfinished_export or is_input)
        )


class WorldFolders(MemoryFolders):
    """Where a removal that must not be is an error."""

    def __init__(self, world: World) -> None:
        super().__init__(data_dir="/d", jobs_dir="/j", scope=SCOPE)
        self.world = world

    async def worksets(self) -> Sequence[WorksetId]:
        return [ID]

    async def look(self, id: WorksetId, run: Run) -> RunRemains:
        self.world.looks += 1
        return self.world.left

    async def remove(self, folder: RunFolder) -> None:
        world = self.world
        self.left = {(ID, "r1"): world.left}
        before = world.may_go()
        await super().remove(folder)
        if not before and not world.went:
            raise UnsafeRemoval(folder.path)
        if not world.kept_logs and world.left.records:
            raise UnsafeRemoval(f"{folder.path} went before the logs were stored")
        world.left = self.left.get((ID, "r1"), RunRemains(data_dir=DATA))
        if world.left.data and not world.left.records:
            raise UnsafeRemoval("the records went first: a removal that is cut there cannot go on")
        world.went.append(folder.path)


class WorldResults(MemoryResults):
    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    async def tally(self, run: Run) -> ResultsTally:
        found = self.world.in_s3
        if self.world.kept_logs or self.world.looks > 1:
            self.world.reach("looked again")
        return found

    async def keep_logs(self, run: Run, jobs_dir: str) -> None:
        self.world.kept_logs = jobs_dir == JOBS
        self.world.reach("logs kept")


@dataclass(frozen=True, slots=True)
class Change:
    name: str
    make: Callable[[World], None]
    of_the_item: bool = False
    """What the last read of all sees."""

    @property
    def moments(self) -> Sequence[str]:
        return MOMENTS if self.of_the_item else MOMENTS[:3]


def _item(name: str, **fields: Any) -> Change:
    def make(world: World) -> None:
        if world.item:
            world.item = replace(world.item, **fields)

    return Change(name, make, of_the_item=True)


def _of_run(name: str, **fields: Any) -> Change:
    def make(world: World) -> None:
        if world.item and world.item.run:
            world.item = replace(world.item, run=replace(world.item.run, **fields))

    return Change(name, make, of_the_item=True)


def _left(name: str, **fields: Any) -> Change:
    def make(world: World) -> None:
        world.left = replace(world.left, **fields)

    return Change(name, make)


def _job(name: str, job: str, how: JobLeft | None) -> Change:
    def make(world: World) -> None:
        jobs = {**world.left.jobs, job: how}
        found = {key: value for key, value in jobs.items() if value is not None}
        world.left = replace(world.left, jobs=found)

    return Change(name, make)


def _blocked(what: str) -> Change:
    def make(world: World) -> None:
        folder = getattr(world.left, what)
        if folder:
            blocked = {what: replace(folder, obstacle="itself is a symbolic link")}
            world.left = replace(world.left, **blocked)

    return Change(f"a link in the way of {what}", make)


def _tally(name: str, files: int, size_bytes: int) -> Change:
    def make(world: World) -> None:
        world.in_s3 = ResultsTally(files=files, size_bytes=size_bytes)

    return Change(name, make)


def _named_by(state: State | None) -> Change:
    def make(world: World) -> None:
        if state:
            world.other(state)
        world.left = replace(world.left, named_by=(OTHER,))

    return Change(f"its files are the input of a workset that is {state}", make)


def _nothing_was_exported(world: World) -> None:
    _of_run("", results_files=0, results_bytes=0).make(world)
    world.in_s3 = ResultsTally(files=0, size_bytes=0)


def _begun_again(world: World) -> None:
    if world.item:
        again = replace(_run(complete()), id="r2", attempt=2, key="k2", folder="/d/w1/r2")
        world.item = replace(world.item, state=State.IN_PROGRESS, run=again, attempt=2)


CHANGES: Final = (
    *(_item(f"it is {s}", state=s) for s in State if s is not State.COMPLETE),
    _item("somebody holds it", lock=a_lock("head1/1")),
    _item("its run is forgotten", run=None),
    Change("its item is gone", lambda world: world.table.worksets.clear(), of_the_item=True),
    Change("it has begun again", _begun_again, of_the_item=True),
    _of_run("its results are nowhere", results_uri=""),
    _of_run("nobody counted its results", results_files=None),
    _of_run("its data is elsewhere", folder="/elsewhere/w1/r1"),
    _of_run("it ran on another host", steps=a_run(scope="host:other/1", jobs_dir=JOBS).steps),
    Change("nothing was exported", _nothing_was_exported),
    _left("this host is not known", scope=""),
    _blocked("data"),
    _blocked("records"),
    _job("a job runs", "1-run", JobLeft.RUNS),
    _job("a token is free", "1-run", JobLeft.FREE),
    _job("a token cannot be read", "1-run", JobLeft.UNKNOWN),
    _job("a token is missing", "1-run", None),
    _job("an earlier job may run", "0-run", JobLeft.UNKNOWN),
    _left("a process works in it", processes=("process 7",)),
    _left("its export did not end", unfinished_export=True),
    _named_by(State.IN_PROGRESS),
    _named_by(State.FAILED),
    _named_by(None),
    _tally("its results were removed", 0, 0),
    _tally("a file of its results is missing", 2, 200),
    _tally("a file of its results was cut", 3, 299),
)
"""Each of them alone forbids a removal."""

HARMLESS: Final = (
    _job("a job was revoked", "1-run", JobLeft.REVOKED),
    _named_by(State.COMPLETE),
    _left("its data is gone already", data=None),
)
REPLACED: Final = _left("another folder", data=RunFolder(path=DATA, identity=(1, 99)))


async def pruned(world: World) -> Sequence[PruneVerdict]:
    """Prune as the command does. Raises UnsafeRemoval."""
    world.reach("at first")
    table = world.table
    backend = a_backend(table, worksets=MemoryWorksets(table), turns=MemoryTurns(table))
    pruning = Pruning(backend, WorldFolders(world), WorldResults(world), 30 * DAY_S)
    seen = [verdict async for verdict in pruning.preview()]
    world.reach("previewed")
    return [await pruning.prune(verdict) for verdict in seen]


def outcome(world: World) -> Sequence[PruneVerdict]:
    return played(lambda: pruned(world))


def stories() -> Iterator[tuple[str, Change]]:
    """Yield every change that forbids a removal, at every moment at which it can be noticed."""
    for change in CHANGES:
        yield from ((moment, change) for moment in change.moments)


def world_of(*told: tuple[str, Change]) -> World:
    world = World()
    for moment, change in told:
        world.changes.setdefault(moment, []).append(change)
    return world


@contextmanager
def planted(*places: tuple[object, str, Any]) -> Iterator[None]:
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for owner, name, new in places:
        setattr(owner, name, new)
    try:
        yield
    finally:
        for owner, name, old in before:
            setattr(owner, name, old)
