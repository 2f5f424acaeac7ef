"""Lives of worksets, told in full: every field that an event changed, every record, effect and answer of it.

``tests/golden/lives.txt`` holds what is told. After a change that is meant, write it anew and read the
difference: ``python -m tests.unit.lives``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from itertools import count
from pathlib import Path
from typing import Any, Final

from daylily_daemon.domain.commands import register
from daylily_daemon.domain.decision import TOLD as TOLD_OF
from daylily_daemon.domain.decision import Decision
from daylily_daemon.domain.errors import InboxFull
from daylily_daemon.domain.events import (
    Asked,
    Claimed,
    Commanded,
    Event,
    InputNotChecked,
    Inspected,
    JobExited,
    JobRefused,
    JobStopped,
    LetGo,
    Noted,
)
from daylily_daemon.domain.lifecycle import decide, due, resume
from daylily_daemon.domain.model import (
    Accepted,
    Archive,
    Ask,
    Cancel,
    Category,
    Command,
    Delete,
    Ended,
    HostLost,
    Ignore,
    JobName,
    Missing,
    Outcome,
    Plan,
    Priority,
    Problem,
    Progress,
    Refused,
    Restore,
    Retry,
    SetPriority,
    State,
    Submit,
    Unwanted,
    WorksetId,
)
from daylily_daemon.domain.remarks import Remarks
from daylily_daemon.domain.workset import Workset
from tests import made
from tests.unit.engine_settings import a_policy

GOLDEN: Final = Path(__file__).resolve().parents[1] / "golden" / "lives.txt"
NOW: Final = datetime(2026, 3, 1, tzinfo=UTC)
ID: Final = WorksetId("HG002")
POLICY: Final = a_policy(max_retries=2, urgent_customers=("lab",), input_wait_s=300.0)
SUBMIT: Final = Submit(
    bucket="b", prefix="p/HG002/", customer_id="clinic", sentinel="s1", order="05"
)
PLAN: Final = Plan(
    pipeline="demo",
    steps=("stage", "run", "export"),
    optional=("export",),
    own=("stage",),
    export_uri="s3://b/r/",
    cluster_name="east",
)
CLAIM: Final = Claimed(
    owner="a",
    key="k1",
    runner="process",
    scope="host:1",
    data_dir="/d",
    jobs_dir="/j",
    ttl_s=60,
    sees_job=True,
)
ELSEWHERE: Final = replace(CLAIM, owner="b", scope="host:2", jobs_dir="/k")
BLIND: Final = replace(ELSEWHERE, sees_job=False)
DONE: Final = Outcome(ended=Ended.EXITED, code=0, duration_s=12.34567)
UNKNOWN: Final = Outcome(ended=Ended.EXITED, code=3, duration_s=2.0, tail="no idea\nwhat it was.")
DATA: Final = Outcome(ended=Ended.EXITED, code=1, tail="Error: invalid FASTQ")
DENIED: Final = Outcome(ended=Ended.EXITED, code=1, tail="An error occurred (AccessDenied)")
TOLD: Final = Outcome(
    ended=Ended.EXITED,
    code=0,
    duration_s=3.0,
    report={"results_s3_uri": "s3://b/there/", "warnings": ["few reads"], "reads": 7},
    warnings=("a process was left behind",),
)
NO_FILE: Final = Problem(
    "stage_samples.tsv", "line 2", "names a.fq, which is not there.", "Upload it."
)
NO_KEY: Final = Problem(
    "daylily_work.yaml", "key dy-r", "is missing.", "Add it.", Category.CONFIGURATION
)
SEEN: Final = Remarks(progress=Progress(0.5, "halfway"), trouble="x" * 600, unclear=True)


class Life:
    """Writes down what becomes of one workset, event after event, 90 s apart."""

    def __init__(self, ws: Workset | None = None) -> None:
        self.lines: list[str] = []
        self.now = NOW
        self._number = count(1)
        self.ws = ws or self._registered()

    def _registered(self) -> Workset:
        decision = register(Command(id="c0", workset_id=ID, by="s3", ask=SUBMIT), SUBMIT, NOW)
        self._tell("registered", None, decision)
        return decision.workset

    def meets(self, *events: Event) -> Life:
        for event in events:
            self.now += timedelta(seconds=90)
            try:
                decision = decide(self.ws, event, POLICY, self.now)
            except InboxFull as exc:
                self.lines.append(f"{shown(event)}: {exc}")
                continue
            self._tell(shown(event), self.ws, decision)
            self.ws = decision.workset
        return self

    def asked(self, *asks: Ask) -> Life:
        return self.meets(*(Commanded(self._command(ask)) for ask in asks))

    def rung(self, *asks: Ask) -> Life:
        return self.meets(*(Asked(self._command(ask)) for ask in asks))

    def _command(self, ask: Ask) -> Command:
        return Command(id=f"c{next(self._number)}", workset_id=ID, by="me", ask=ask)

    def ended(self, *outcomes: Outcome, fatal: bool = True) -> Life:
        for outcome in outcomes:
            self.meets(JobExited(self.ws.job or JobName("none"), outcome, fatal=fatal))
        return self

    def later(self, seconds: float) -> Life:
        self.now += timedelta(seconds=seconds)
        return self

    def _tell(self, event: str, before: Workset | None, decision: Decision) -> None:
        after = decision.workset
        self.lines.append(f"{event}: {after.state}{', due' if due(after, self.now) else ''}")
        self.lines += [f"    {line}" for line in _changes("", before, after)]
        for one in (*decision.records, *decision.effects, *decision.answers):
            self.lines.append(f"    + {shown(one)}")
        if resume(after) != decision.effects:
            self.lines.append(f"    resume: {shown(resume(after))}")


def _changes(place: str, before: Any, after: Any) -> Iterator[str]:
    """Yield what is another value by now, each by its place; of what is new the whole."""
    if before == after:
        return
    if is_dataclass(after) and type(before) is type(after):
        for field in fields(after):
            old, new = getattr(before, field.name), getattr(after, field.name)
            yield from _changes(f"{place}.{field.name}".lstrip("."), old, new)
    elif isinstance(after, tuple) and isinstance(before, tuple) and len(before) == len(after):
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _changes(f"{place}.{number}", old, new)
    elif isinstance(after, tuple) and isinstance(before, tuple) and after[:-1] == before:
        yield f"{place} + {shown(after[-1])}"
    else:
        yield f"{place} {shown(after)}".lstrip()


def shown(value: Any) -> str:
    match value:
        case str() if len(value) > 500:
            return f"{value[:40]}… of {len(value)}"
        case Enum():
            return str(value.value)
        case datetime():
            return f"+{(value - NOW).total_seconds():.0f}s"
        case Mapping():
            return f"{{{', '.join(f'{key}: {shown(one)}' for key, one in value.items())}}}"
        case tuple() | list():
            return f"[{', '.join(map(shown, value))}]"
        case _ if is_dataclass(value) and not isinstance(value, type):
            return f"{type(value).__name__}({', '.join(_parts(value))})"
        case _:
            return repr(value)


def _parts(value: Any) -> Iterator[str]:
    """Yield the fields that are not as by default."""
    for field in fields(value):
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if (inner := getattr(value, field.name)) != default:
            yield f"{field.name}={shown(inner)}"


def ready() -> Life:
    return Life().meets(Inspected(Accepted(PLAN)))


def running() -> Life:
    return ready().meets(CLAIM)


def quiet() -> Life:
    life = Life().meets(
        InputNotChecked("no rights"),
        Inspected(Missing((NO_FILE,))),
        Inspected(Accepted(PLAN, 1, "low", ("odd",))),
        InputNotChecked("too late"),
        CLAIM,
    )
    life.meets(Noted(life.ws.job, SEEN), Noted(JobName("old"), Remarks(trouble="")))
    return life.ended(TOLD, DONE, DONE).meets(Inspected(Accepted(PLAN)), CLAIM)


def urgent() -> Life:
    life = Life().meets(Inspected(Accepted(PLAN, priority="urgent")))
    life.ws = made.asked(life.ws, customer_id="lab")
    life.meets(Inspected(Accepted(PLAN, priority="urgent")))
    return life.meets(Inspected(Accepted(PLAN, priority="low", warnings=("odd", "odd", "x" * 400))))


def nobodys() -> Life:
    life = Life()
    life.ws = made.asked(life.ws, customer_id="")
    return life.meets(Inspected(Accepted(PLAN, priority="urgent")))


def never_whole() -> Life:
    life = Life().meets(Inspected(Missing((NO_FILE, NO_KEY, NO_FILE))))
    life.later(119).meets(Inspected(Missing((NO_FILE, NO_KEY)))).later(-89)
    return life.meets(Inspected(Missing((NO_FILE, NO_KEY)))).asked(SUBMIT)


def refused() -> Life:
    life = Life().meets(Inspected(Refused((NO_KEY,))), InputNotChecked("late"))
    return life.asked(replace(SUBMIT, sentinel="s2")).meets(Inspected(Refused((NO_FILE, NO_KEY))))


def unwanted() -> Life:
    return Life().meets(Inspected(Unwanted("daylily.ignore"))).asked(Retry())


def failing() -> Life:
    life = running().ended(DONE, UNKNOWN).meets(CLAIM).later(3600).meets(replace(CLAIM, key="k2"))
    life.ended(UNKNOWN).later(3600).meets(CLAIM).ended(UNKNOWN)
    return life.asked(Retry()).meets(Inspected(Accepted(PLAN)), CLAIM)


def failing_for_good() -> Life:
    return (
        running()
        .ended(DATA)
        .asked(Retry(from_start=True))
        .meets(Inspected(Accepted(PLAN, 0)), CLAIM)
    )


def without_tries() -> Life:
    return Life().meets(Inspected(Accepted(PLAN, 0)), CLAIM).ended(UNKNOWN)


def denied() -> Life:
    return running().ended(DENIED).later(3600).meets(CLAIM).ended(DONE, DENIED)


def tolerated() -> Life:
    return running().ended(DONE, DONE).ended(UNKNOWN, fatal=False)


def odd_jobs() -> Life:
    life = running()
    life.meets(JobRefused(JobName("other"), "old news"))
    life.meets(JobRefused(life.ws.job or JobName(""), "No such program."))
    life.asked(Retry()).meets(Inspected(Accepted(PLAN)), CLAIM)
    return life.meets(JobStopped(life.ws.job or JobName("")))


def canceled() -> Life:
    life = running().rung(Cancel(reason="too costly"), Cancel(), SetPriority(priority=Priority.LOW))
    life.asked(Cancel(reason="too costly"), Cancel(), Retry(), Ignore())
    return life.meets(JobStopped(life.ws.job or JobName("")))


def left_alone() -> Life:
    life = ready().meets(Noted(None, SEEN), LetGo(None, SEEN), CLAIM)
    life.meets(LetGo(life.ws.job, SEEN), CLAIM, CLAIM, ELSEWHERE)
    beside = replace(ELSEWHERE, owner="c", scope="host:3", beside=True)
    return life.meets(beside, replace(ELSEWHERE, scope="host:1", jobs_dir="/m"), BLIND)


def vouched_for() -> Life:
    life = (
        running().rung(HostLost(), Cancel()).meets(LetGo(None, Remarks())).rung(HostLost(), Retry())
    )
    return life.meets(BLIND).meets(Inspected(Accepted(PLAN)), BLIND)


def unclear() -> Life:
    life = running().ended(DONE)
    life.meets(Noted(life.ws.job, Remarks(unclear=True))).asked(HostLost(from_start=True))
    life.meets(
        Inspected(Accepted(PLAN)), CLAIM, Noted(JobName("HG002.2.stage"), Remarks(unclear=True))
    )
    life.asked(Cancel(reason="lost"))
    return life.asked(HostLost())


def full_inbox() -> Life:
    life = running().rung(*(Retry() for _ in range(20)), Cancel(), HostLost(), HostLost())
    return life.ended(DATA)


def a_changed_pipeline() -> Life:
    life = running().ended(DONE, UNKNOWN).later(3600)
    life.ws = replace(life.ws, plan=replace(PLAN, steps=("stage", "check", "run", "export")))
    life.meets(CLAIM).ended(DONE, DATA).asked(Retry())
    return life.meets(Inspected(Accepted(replace(PLAN, steps=("stage",)))), CLAIM)


def an_item_that_was_removed() -> Life:
    life = running().ended(DATA)
    left = Decision(life.ws).record(life.now, "last", TOLD_OF).records
    command = Command(id="c9", workset_id=ID, by="s3", ask=SUBMIT)
    bare = Submit(bucket="b", prefix="p/HG002/", priority=Priority.LOW, problem=NO_KEY)
    for submit in (SUBMIT, bare):
        life._tell("registered again", None, register(command, submit, NOW, left))
    return life


Story = Callable[[], Life]
ASKS: Final[tuple[Ask, ...]] = (
    SUBMIT,
    replace(SUBMIT, order="06"),
    replace(SUBMIT, order="04"),
    replace(SUBMIT, customer_id="other"),
    replace(SUBMIT, sentinel="", customer_id="", bucket="c", prefix="q/", priority=Priority.URGENT),
    replace(SUBMIT, sentinel="s2", order="01", problem=NO_KEY),
    Cancel(reason="why not"),
    Cancel(),
    Retry(),
    Retry(from_start=True),
    HostLost(),
    Ignore(reason="a test"),
    Ignore(),
    SetPriority(priority=Priority.URGENT),
    Archive(reason="done with"),
    Archive(),
    Restore(),
    Delete(reason="a test"),
    Delete(),
)


def every_command(state: State) -> Life:
    """What each command makes of a workset in that state, one beside the other."""
    busy = state is State.IN_PROGRESS
    run = made.a_run("run" if busy else "", failed="" if busy else "run", results_uri="s3://b/r/")
    life = Life(
        made.a_workset(
            ID,
            state,
            owner="a" if busy else None,
            error="" if busy else "it failed",
            now=NOW,
            run=run,
            plan=PLAN,
            attempt=1,
            retry_count=1,
            retry_after=NOW if state is State.RETRYING else None,
            warnings=("old",),
            waiting_for="old",
            customer_id="clinic",
            sentinel="s1",
            sentinel_order="05",
            last_seq=5,
        )
    )
    ws = life.ws
    for ask in ASKS:
        life.ws, life.now = ws, NOW
        life.asked(ask)
    return life


def put_aside() -> Life:
    """Archive, restore, archive and delete what ended in one way or another; ask everything once more."""
    life = running().rung(Archive(), Restore(), Delete()).ended(DATA)
    life.rung(Archive(reason="old"), Archive(), Retry(), SUBMIT, Restore(), Restore())
    life.rung(Retry()).meets(Inspected(Accepted(PLAN)), CLAIM).ended(DONE, DONE, DONE)
    life.rung(Delete(), Archive(), Restore(), Archive(), Delete(reason="gone"))
    return life.rung(Restore(), Delete(), Archive(), Retry(), Ignore(), Cancel(), SUBMIT)


LIVES: Final = (
    quiet, urgent, nobodys, never_whole, refused, unwanted, failing, failing_for_good, without_tries, denied,
    tolerated, odd_jobs, canceled, left_alone, vouched_for, unclear, full_inbox, a_changed_pipeline,
    an_item_that_was_removed, put_aside,
)  # fmt: skip


def told() -> str:
    parts = [f"== {life.__name__}\n" + "\n".join(life().lines) for life in LIVES]
    parts += [
        f"== every command, {state}\n" + "\n".join(every_command(state).lines) for state in State
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    GOLDEN.write_text(told(), encoding="utf-8")
