"""What may be removed: only what is complete, is in S3, has ended here, and is in nobody's use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daylily_daemon.application import pruning
from daylily_daemon.application.pruning import Pruning
from daylily_daemon.domain import prune
from daylily_daemon.domain.errors import Permanent
from daylily_daemon.domain.model import State
from daylily_daemon.domain.prune import Evidence, PruneVerdict, why_kept
from daylily_daemon.domain.run import Run
from tests.made import NOW, a_run, a_workset
from tests.unit import prune_world
from tests.unit.prune_world import (
    CHANGES,
    DATA,
    HARMLESS,
    JOBS,
    REPLACED,
    Change,
    UnsafeRemoval,
    World,
    complete,
    outcome,
    planted,
    stories,
    world_of,
)


def test_a_complete_run_goes_data_first_with_its_logs_stored() -> None:
    world = World()
    (verdict,) = outcome(world)
    assert (verdict.removed, verdict.size_bytes) == (True, 7)
    assert (world.went, world.kept_logs) == ([DATA, JOBS], True)


@pytest.mark.parametrize("change", HARMLESS, ids=lambda change: change.name)
def test_what_forbids_nothing_keeps_nothing(change: Change) -> None:
    world = world_of(("at first", change))
    (verdict,) = outcome(world)
    assert verdict.removed


@pytest.mark.parametrize(("moment", "change"), list(stories()), ids=lambda v: getattr(v, "name", v))
def test_whatever_forbids_a_removal_and_whenever_it_comes_nothing_goes(
    moment: str, change: Change
) -> None:
    world = world_of((moment, change))
    assert [verdict.removed for verdict in outcome(world)] in ([False], [])
    assert world.went == []
    assert all(verdict.kept for verdict in outcome(world_of((moment, change))))


def test_another_folder_of_the_same_name_stays() -> None:
    for moment in ("previewed", "logs kept", "looked again"):
        world = world_of((moment, REPLACED))
        if moment == "looked again":
            with pytest.raises(Permanent, match="is not the folder any more"):
                outcome(world)
        else:
            assert outcome(world)[0].kept == "it was changed meanwhile"
        assert DATA not in world.went


_TOLD = st.sampled_from([*CHANGES, *HARMLESS, REPLACED]).flatmap(
    lambda change: st.tuples(st.sampled_from(change.moments), st.just(change))
)


@given(st.lists(_TOLD, max_size=4))
def test_nothing_unsafe_goes_whatever_changes_when(told: list[tuple[str, Change]]) -> None:
    world = world_of(*told)
    try:
        outcome(world)
    except Permanent:
        assert DATA not in world.went
    forbidden = {name for _, change in told for name in [change.name]} & {c.name for c in CHANGES}
    if len(told) == len(forbidden) == 1:
        assert world.went == []


# --- bugs that are planted ----------------------------------------------------------------------------

_LISTS: Final = ("OF_THE_ITEM", "OF_THE_HOST", "OF_THE_RESULTS")


def _without(guard: prune.Guard) -> list[tuple[object, str, Any]]:
    return [
        (prune, name, tuple(one for one in getattr(prune, name) if one is not guard))
        for name in _LISTS
    ]


def _never_looks_again() -> list[tuple[object, str, Any]]:
    original = Pruning._verdict

    async def verdict(self: Pruning, id: Any, ws: Any) -> PruneVerdict:
        world = self.folders.world  # type: ignore[attr-defined]
        if not world.kept_logs:
            world.first = await original(self, id, ws)
        found: PruneVerdict = world.first
        return found

    return [(Pruning, "_verdict", verdict)]


def _never_reads_the_item_last() -> list[tuple[object, str, Any]]:
    original, read = Pruning._item, list[Any]()

    async def item(self: Pruning, id: Any) -> Any:
        world = self.folders.world  # type: ignore[attr-defined]
        if world.looks > 1:
            return read[-1]
        read.append(await original(self, id))
        return read[-1]

    return [(Pruning, "_item", item)]


def _keeps_no_logs() -> list[tuple[object, str, Any]]:
    async def keep(self: Any, run: Run, jobs_dir: str) -> None:
        self.world.reach("logs kept")

    return [(prune_world.WorldResults, "keep_logs", keep)]


def _records_go_first() -> list[tuple[object, str, Any]]:
    def folders(self: prune.RunRemains) -> tuple[prune.RunFolder, ...]:
        return tuple(folder for folder in (self.records, self.data) if folder)

    return [(prune.RunRemains, "folders", property(folders))]


def _unread_items_are_over() -> list[tuple[object, str, Any]]:
    async def not_over(self: Pruning, ids: Any) -> Any:
        known = {ws.id: ws for ws in await self.backend.turns.load_all(ids)} if ids else {}
        return tuple(id for id in ids if id in known and known[id].state not in prune.OVER)

    return [(Pruning, "_not_over", not_over)]


def _failed_is_over() -> list[tuple[object, str, Any]]:
    return [(pruning, "OVER", prune.OVER | {State.FAILED})]


def _jobs_of_the_item_alone() -> list[tuple[object, str, Any]]:
    def ended(ws: Any, run: Run, evidence: Evidence) -> str:
        jobs = evidence.remains.jobs if evidence.remains else {}
        names = [step.place.rpartition("/")[2] for step in run.steps]
        return "" if all(jobs.get(name) in prune._HARMLESS for name in names) else "no"

    guards = [ended if g is prune.every_job_has_ended else g for g in prune.OF_THE_HOST]
    return [(prune, "OF_THE_HOST", tuple(guards))]


def _a_free_token_is_harmless() -> list[tuple[object, str, Any]]:
    return [(prune, "_HARMLESS", prune._HARMLESS | {prune.JobLeft.FREE})]


def _only_the_count_counts() -> list[tuple[object, str, Any]]:
    def counted(ws: Any, run: Run, evidence: Evidence) -> str:
        found = evidence.in_s3
        return "" if found and found.files == run.results_files else "no"

    return [(prune, "OF_THE_RESULTS", (counted,))]


PLANTED: Final[dict[str, Callable[[], list[tuple[object, str, Any]]]]] = {
    **{f"without {guard.__name__}": (lambda g=guard: _without(g)) for guard in prune.GUARDS},  # type: ignore[misc]
    "never looks again": _never_looks_again,
    "does not read the item last": _never_reads_the_item_last,
    "keeps no logs": _keeps_no_logs,
    "records go first": _records_go_first,
    "an item that cannot be read is over": _unread_items_are_over,
    "a failed workset needs no input": _failed_is_over,
    "only jobs that the item names are looked at": _jobs_of_the_item_alone,
    "a free token is harmless": _a_free_token_is_harmless,
    "the size of the results is not compared": _only_the_count_counts,
}


@pytest.mark.parametrize("bug", PLANTED)
def test_every_guard_is_missed_when_it_is_gone(bug: str) -> None:
    with planted(*PLANTED[bug]()):
        caught = [
            (moment, change.name) for moment, change in stories() if _is_unsafe(moment, change)
        ]
    assert caught or _is_unsafe_by_itself(bug), f"{bug} is not noticed"


def _is_unsafe(moment: str, change: Change) -> bool:
    try:
        outcome(world_of((moment, change)))
    except UnsafeRemoval:
        return True
    except Permanent:
        return False
    return False


def _is_unsafe_by_itself(bug: str) -> bool:
    """Tell whether a bug is noticed though nothing changes."""
    with planted(*PLANTED[bug]()):
        try:
            outcome(World())
        except UnsafeRemoval:
            return True
    return False


# --- what is shown ------------------------------------------------------------------------------------


def test_what_is_younger_or_still_to_run_is_no_row() -> None:
    world = World()
    ended = replace(complete().history[0], at=NOW - timedelta(days=29))
    world.item = replace(complete(), history=(ended,))
    assert outcome(world) == []
    for state in (State.READY, State.IN_PROGRESS, State.RETRYING):
        world = World()
        world.item = replace(complete(), state=state, history=())
        assert outcome(world) == []


def test_what_failed_is_a_row_that_says_why_it_stays() -> None:
    world = World()
    world.item = replace(complete(), state=State.FAILED, history=())
    (verdict,) = outcome(world)
    assert verdict.kept == "it is failed; only complete ones may go"
    assert verdict.folders == ()


def test_the_first_no_ends_the_looking() -> None:
    world = World()
    world.item = replace(complete(), state=State.FAILED, history=())
    outcome(world)
    assert world.looks == 0


def test_a_guard_of_the_host_is_not_asked_before_a_look() -> None:
    assert why_kept(Evidence(id=prune_world.ID, ws=complete())) == ""
    with pytest.raises(ValueError, match="once it was looked at"):
        prune.ran_here(complete(), a_run(), Evidence(id=prune_world.ID, ws=complete()))


def test_a_workset_without_steps_or_item_stays() -> None:
    assert why_kept(Evidence(id=prune_world.ID, ws=None)).startswith("no workset of this name")
    assert why_kept(Evidence(id=prune_world.ID, ws=a_workset())) == "its item names no run"
