"""Which folders of a run may be removed, and why the others stay.

A run that is complete has its results in S3, and the logs of its jobs beside them; what it leaves on a disk
is in nobody's way but that of the next run. Removing it is the one thing here that nothing brings back. So
each guard below has one reason to say no, all of them must have none, and whatever is not known is a no.
They are asked twice: for the preview, and again right before the removal. For how long a run must be
complete is what somebody asks for, and no guard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from daylily_daemon.domain.model import State, WorksetId
from daylily_daemon.domain.run import Run
from daylily_daemon.domain.workset import Workset

OVER: Final = frozenset({State.COMPLETE, State.ARCHIVED, State.DELETED})
"""States of worksets that need no input any more, whatever their sheets name."""


LOGS: Final = ".daylily-logs/"
"""The folder beside the results in which the logs of jobs are kept: a folder a run, and in it one a job."""


def logs_uri(run: Run) -> str:
    """Return where the logs of a run are once its folders were removed."""
    return f"{run.results_uri.rstrip('/')}/{LOGS}{run.id}/"


class JobLeft(StrEnum):
    """What the folder of a job says of it."""

    ENDED = "ended"
    REVOKED = "revoked"
    """It never ran and never will."""
    RUNS = "runs"
    FREE = "free"
    """Its token is there for whoever takes it: it may still start."""
    UNKNOWN = "unknown"
    """Nothing proves that it has ended, or its record cannot be read."""


_HARMLESS: Final = frozenset({JobLeft.ENDED, JobLeft.REVOKED})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """A folder of a run on this host, as it was looked at."""

    path: str
    size_bytes: int = 0
    """What its removal gives back to the disk."""
    identity: tuple[int, int] = (0, 0)
    """Device and inode: another folder of this name is another folder."""
    obstacle: str = ""
    """Why nobody may touch it, as the end of a sentence that begins with a path; empty if nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRemains:
    """What a run has left on this host."""

    data_dir: str
    """Where the data of the run would be, by the settings of this host."""
    data: RunFolder | None = None
    """None where there is none, of whatever run."""
    records: RunFolder | None = None
    """That of its jobs: tokens, logs, exit records."""
    scope: str = ""
    """Of the jobs that are started here; empty where this host has no folder of jobs that it knows again."""
    jobs: Mapping[str, JobLeft] = field(default_factory=dict)
    """By the name of the job's folder, ``<attempt>-<step>``."""
    processes: tuple[str, ...] = ()
    """What runs of this workset, works in these folders or has a file of theirs open."""
    unfinished_export: bool = False
    """Whether an export has left the note that it did not end well."""
    named_by: tuple[WorksetId, ...] = ()
    """Other worksets, whose staged sheets name files in these folders as their input."""

    @property
    def folders(self) -> tuple[RunFolder, ...]:
        """Return what is there. The records come last: as long as they are there, all else can be told."""
        return tuple(folder for folder in (self.data, self.records) if folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsTally:
    """Files of one run that were counted."""

    files: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of one workset; what is None was not looked at yet."""

    id: WorksetId
    ws: Workset | None
    """None where no item of this name can be read."""
    remains: RunRemains | None = None
    needed_by: tuple[WorksetId, ...] = ()
    """Those of ``named_by`` that are not over."""
    in_s3: ResultsTally | None = None


Guard = Callable[[Workset, Run, Evidence], str]
"""Returns why the folders stay, as the end of a sentence; empty if it has nothing against their removal."""


def why_kept(evidence: Evidence) -> str:
    """Return why the folders stay, by all that is known; empty if nothing is against their removal.

    Only an answer to evidence with ``remains`` and ``in_s3`` lets anything go.
    """
    ws = evidence.ws
    if ws is None:
        return "no workset of this name can be read from the table"
    if ws.run is None:
        return "its item names no run"
    if evidence.remains is not None and not evidence.remains.folders:
        return f"no folder of its last run, {ws.run.id}, is on this host"
    guards = [*OF_THE_ITEM]
    guards += OF_THE_HOST if evidence.remains is not None else ()
    guards += OF_THE_RESULTS if evidence.in_s3 is not None else ()
    said = (guard(ws, ws.run, evidence) for guard in guards)
    return next((why for why in said if why), "")


# --- what the item says ------------------------------------------------------------------------------


def is_complete(ws: Workset, run: Run, evidence: Evidence) -> str:
    return "" if ws.state is State.COMPLETE else f"it is {ws.state}; only complete ones may go"


def is_let_go(ws: Workset, run: Run, evidence: Evidence) -> str:
    return f"{ws.owner} holds it" if ws.owner else ""


def says_its_results(ws: Workset, run: Run, evidence: Evidence) -> str:
    if not run.results_uri:
        return "its export has not said where the results are"
    if run.results_files is None or run.results_bytes is None:
        return "its item does not say how many files its results are"
    return "" if run.results_files else "its export found no results, so this is all there is of it"


OF_THE_ITEM: Final[tuple[Guard, ...]] = (is_complete, is_let_go, says_its_results)


# --- what lies on this host --------------------------------------------------------------------------


def ran_here(ws: Workset, run: Run, evidence: Evidence) -> str:
    remains = _remains(evidence)
    if not remains.scope:
        return "this host does not know its folder of jobs again, so nothing proves that they have ended"
    elsewhere = next((step.scope for step in run.steps if step.scope != remains.scope), None)
    return "" if elsewhere is None else f"its jobs ran on {elsewhere or 'a host that is not named'}"


def lies_where_runs_lie(ws: Workset, run: Run, evidence: Evidence) -> str:
    data_dir = _remains(evidence).data_dir
    return "" if run.folder == data_dir else f"its run is in {run.folder}, outside daemon.data_dir"


def nothing_is_in_the_way(ws: Workset, run: Run, evidence: Evidence) -> str:
    found = [f"{one.path} {one.obstacle}" for one in _remains(evidence).folders if one.obstacle]
    return found[0] if found else ""


def every_job_has_ended(ws: Workset, run: Run, evidence: Evidence) -> str:
    jobs = _remains(evidence).jobs
    wanted = [step.place.rpartition("/")[2] for step in run.steps]
    if not wanted:
        return "its item names no step"
    left = {name: jobs.get(name, JobLeft.UNKNOWN) for name in [*wanted, *jobs]}
    return next((_of_job(name, how) for name, how in left.items() if how not in _HARMLESS), "")


def _of_job(name: str, how: JobLeft) -> str:
    if how is JobLeft.RUNS:
        return f"its job {name} runs"
    if how is JobLeft.FREE:
        return f"the token of its job {name} is free: it may still start"
    return f"nothing proves that its job {name} has ended"


def nothing_runs_in_it(ws: Workset, run: Run, evidence: Evidence) -> str:
    processes = _remains(evidence).processes
    if not processes:
        return ""
    more = f" and {len(processes) - 1} more" if len(processes) > 1 else ""
    return f"{processes[0]}{more} still works in it"


def export_has_ended(ws: Workset, run: Run, evidence: Evidence) -> str:
    return "its export did not end well" if _remains(evidence).unfinished_export else ""


def nobody_needs_it(ws: Workset, run: Run, evidence: Evidence) -> str:
    needed_by = evidence.needed_by
    return f"the sheet of {needed_by[0]} names files in it as input" if needed_by else ""


OF_THE_HOST: Final[tuple[Guard, ...]] = (
    ran_here,
    lies_where_runs_lie,
    nothing_is_in_the_way,
    every_job_has_ended,
    nothing_runs_in_it,
    export_has_ended,
    nobody_needs_it,
)


def _remains(evidence: Evidence) -> RunRemains:
    if evidence.remains is None:
        raise ValueError("guards of the host are asked once it was looked at")
    return evidence.remains


# --- what lies in S3 ---------------------------------------------------------------------------------


def results_are_in_s3(ws: Workset, run: Run, evidence: Evidence) -> str:
    found = evidence.in_s3
    if found and (found.files, found.size_bytes) == (run.results_files, run.results_bytes):
        return ""
    if found is None or not found.files:
        return "its results are not in S3 any more"
    return (
        f"S3 has {found.files} files ({found.size_bytes} bytes) of its results, and {run.results_files} "
        f"({run.results_bytes} bytes) were exported"
    )


OF_THE_RESULTS: Final[tuple[Guard, ...]] = (results_are_in_s3,)
GUARDS: Final = (*OF_THE_ITEM, *OF_THE_HOST, *OF_THE_RESULTS)


# --- what becomes of them ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneVerdict:
    """What is to become of the folders of one workset, or has become of them."""

    evidence: Evidence
    kept: str
    """Why they stay, as the end of a sentence; empty if they may go."""
    removed: bool = False

    @property
    def folders(self) -> tuple[RunFolder, ...]:
        """Return what may go; nothing if it is kept."""
        remains = self.evidence.remains
        return remains.folders if remains and not self.kept else ()

    @property
    def size_bytes(self) -> int:
        return sum(folder.size_bytes for folder in self.folders)
