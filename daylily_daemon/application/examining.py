"""``doctor``: each check by itself, with a limit, and none that changes anything.

A check answers with findings. One that breaks, is refused or takes too long is *unknown*: that says nothing
of what it looks at, and keeps no other check from its answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import anyio

from daylily_daemon.application.backend import Backend
from daylily_daemon.application.health import DaemonState, DaemonView, LocalDaemon, viewed
from daylily_daemon.application.overview import aged
from daylily_daemon.domain.daemon import DiskLevel, QueueLevel, Status
from daylily_daemon.domain.errors import CREDENTIALS, DaemonError, leaf
from daylily_daemon.domain.finding import CheckName, CheckResult, Grade, finding_of, ok, worst
from daylily_daemon.domain.problems import PRUNE, is_short, problems_of
from daylily_daemon.domain.times import span
from daylily_daemon.ports import Clock

LIMIT_S: Final = 10.0
"""Of one check."""
TEXT_CHARS: Final = 1000
BEATING: Final = (DaemonState.RUNNING, DaemonState.STARTING, DaemonState.HANGING)
INIT: Final = "daylily-daemon init"
RELOAD: Final = "daylily-daemon reload --wait"
RESTART: Final = "systemctl restart daylily-daemon"


@dataclass(frozen=True, slots=True)
class Check:
    name: CheckName
    look: Callable[[], Awaitable[Sequence[CheckResult]]]


@dataclass(frozen=True, slots=True)
class Examined:
    name: CheckName
    findings: Sequence[CheckResult]
    """The worst first."""

    @property
    def grade(self) -> Grade:
        return worst(self.findings)


async def examined(checks: Sequence[Check], limit_s: float = LIMIT_S) -> Sequence[Examined]:
    """Make all checks side by side; return what they found, in their order. Raises nothing."""
    found: dict[CheckName, Examined] = {}

    async def examine(check: Check) -> None:
        findings = await _findings(check, limit_s)
        found[check.name] = Examined(check.name, findings)

    async with anyio.create_task_group() as tg:
        for check in checks:
            tg.start_soon(examine, check)
    return [found[check.name] for check in checks]


async def _findings(check: Check, limit_s: float) -> Sequence[CheckResult]:
    try:
        with anyio.fail_after(limit_s):
            findings = await check.look()
    except TimeoutError:
        return (_unknown(f"There was no answer within {limit_s:g} s."),)
    except Exception as exc:  # noqa: BLE001 - a check that breaks takes no other along
        return (_unknown(_why(leaf(exc))),)
    order = list(reversed(Grade))
    return sorted(findings, key=lambda finding: order.index(finding.grade))


def _unknown(text: str) -> CheckResult:
    return CheckResult(grade=Grade.UNKNOWN, text=text)


def _why(error: BaseException) -> str:
    if not isinstance(error, DaemonError):
        what = f"{type(error).__name__}: {error}".rstrip(": ")[:TEXT_CHARS]
        return f"The check broke ({what}). Please report it with this line."
    if error.code == CREDENTIALS:
        return "AWS cannot be asked without credentials: see the check of those."
    return str(error)[:TEXT_CHARS]


# --- settings -------------------------------------------------------------------------------------


def judged_settings(
    file: str, here: Mapping[str, str], local: LocalDaemon
) -> Sequence[CheckResult]:
    """Compare what would be in force with what the daemon of this host has; ``here`` as its ``settings``."""
    status = local.status
    if status is None or not local.alive:
        return [ok(f"{file} can be read; no daemon runs here that could have other values.")]
    found = [*_refused(status), *_differing(here, status), *_waiting_for_a_restart(status)]
    return found or [ok(f"{file}, as the daemon has it.")]


def _refused(status: Status) -> Sequence[CheckResult]:
    if status.last_reload is None or status.last_reload.result != "refused":
        return []
    text = (
        f"The reload of {status.last_reload.at[:19]} was refused; what is on disk now can be read."
    )
    return [CheckResult(grade=Grade.WARN, text=text, remedy="Reload the daemon", command=RELOAD)]


def _differing(here: Mapping[str, str], status: Status) -> Sequence[CheckResult]:
    """A daemon of a version before this one told no settings."""
    there = status.settings
    keys = sorted(k for k in here.keys() | there.keys() if here.get(k) != there.get(k))
    if not there or not keys:
        return []
    text = f"The daemon has other values of {', '.join(keys[:20])}."
    remedy = (
        "Reload it if the file was changed since; what its unit or its command line sets in another way "
        "is not seen from here"
    )
    return [CheckResult(grade=Grade.WARN, text=text, remedy=remedy, command=RELOAD)]


def _waiting_for_a_restart(status: Status) -> Sequence[CheckResult]:
    pending = status.last_reload.needs_restart if status.last_reload else ()
    if not pending:
        return []
    text = f"Changed, and in force after a restart only: {', '.join(pending)}."
    remedy = "Restart the daemon when it suits; jobs run on"
    return [CheckResult(grade=Grade.WARN, text=text, remedy=remedy, command=RESTART)]


def unreadable(text: str) -> CheckResult:
    """Return what is said where settings make no sense."""
    remedy = "Correct them; to see all that is wrong"
    command = "daylily-daemon check-config"
    return CheckResult(grade=Grade.FAIL, text=text, remedy=remedy, command=command)


# --- what init makes ------------------------------------------------------------------------------


class LackingPart(Protocol):
    """A part that ``init`` would make or complete."""

    @property
    def what(self) -> str:
        """What that does, to follow ``would``."""
        ...

    @property
    def is_left_alone(self) -> bool:
        """Whether it is somebody else's, who has to look at it."""
        ...


async def lacking(parts: AsyncIterator[LackingPart]) -> Sequence[CheckResult]:
    """Return what has to be made, with the command that makes it."""
    found, left = list[str](), list[CheckResult]()
    async for part in parts:
        if part.is_left_alone:
            left.append(
                CheckResult(grade=Grade.WARN, text=f"{part.what[:1].upper()}{part.what[1:]}.")
            )
        else:
            found.append(part.what)
    if not found:
        return left
    text = f"Something is missing. To do: {'; '.join(found)}."
    remedy = "With the rights of somebody who may create things"
    return [CheckResult(grade=Grade.FAIL, text=text, remedy=remedy, command=INIT), *left]


async def judged_queues(
    backend: Backend, parts: AsyncIterator[LackingPart]
) -> Sequence[CheckResult]:
    """Redrive and policy, dead letters, and how long the oldest message has waited."""
    found = await lacking(parts)
    if any(one.grade is Grade.FAIL for one in found):
        return found
    levels = await _levels(backend)
    problems = problems_of(Status(queues=levels), backend.clock.now())
    wrong = [*found, *map(finding_of, problems)]
    return wrong or [ok(_in_words(levels, backend))]


async def _levels(backend: Backend) -> Mapping[str, QueueLevel]:
    now, daemons = backend.clock.now(), await backend.registry.daemons()
    return aged(await backend.queues.depths(), [viewed(row, now) for row in daemons])


def _in_words(levels: Mapping[str, QueueLevel], backend: Backend) -> str:
    living = [level for level in levels.values() if not level.is_dead_letters]
    waiting = sum(level.waiting + level.in_flight for level in living)
    oldest_s = max((level.age_s(backend.clock.now()) for level in living), default=0.0)
    age = f", the oldest for {span(oldest_s)}" if oldest_s else ""
    return f"{len(living)} with their dead-letter queues, which are empty; {waiting} wait{age}."


# --- this host ------------------------------------------------------------------------------------


async def judged_clock(
    clock: Clock, skew: Callable[[], Awaitable[float | None]]
) -> Sequence[CheckResult]:
    skew_s = await skew()
    if skew_s is None:
        return [_unknown("AWS did not say what time it is.")]
    problems = problems_of(Status(skew_s=skew_s), clock.now())
    side = "ahead of" if skew_s > 0 else "behind"
    return [*map(finding_of, problems)] or [ok(f"{abs(skew_s):.1f} s {side} AWS.")]


async def judged_disks(
    clock: Clock,
    levels: Callable[[], Awaitable[Mapping[str, DiskLevel]]],
    shortage: Callable[[], Awaitable[str]],
) -> Sequence[CheckResult]:
    short, found = await shortage(), await levels()
    if short:
        command = PRUNE if any(map(is_short, found.values())) else ""
        return [CheckResult(grade=Grade.FAIL, text=short, command=command)]
    problems = problems_of(Status(disks=found), clock.now())
    return [*map(finding_of, problems)] or [ok("; ".join(map(_room, found.items())) + ".")]


def _room(one: tuple[str, DiskLevel]) -> str:
    folder, level = one
    needed = f", {level.needed / 1e9:.1f} GB needed" if level.needed else ""
    return f"{folder} {level.free / 1e9:.1f} GB left{needed}"


# --- versions -------------------------------------------------------------------------------------


def judged_versions(
    version: str, item_format: int, daemons: Sequence[DaemonView]
) -> Sequence[CheckResult]:
    """Tell whether this program and the daemons that run understand each other: before an upgrade, of either.

    What a daemon cannot read it leaves alone, so that nothing is lost; but it waits until all are upgraded.
    """
    running = [d for d in daemons if d.state in BEATING and d.status]
    found = [*filter(None, (_beside(d, item_format) for d in running))]
    others = sorted({d.status.version for d in running if d.status} - {version})
    beside = f"; of version {', '.join(others)} run daemons beside it" if others else ""
    same = (
        f"{version} writes format {item_format}, and none of the daemons that run ({len(running)}) writes "
        "another"
    )
    return found or [ok(f"{same}{beside}.")]


def _beside(daemon: DaemonView, item_format: int) -> CheckResult | None:
    there = daemon.status.item_format if daemon.status else 0
    if not there or there == item_format:
        return None
    if there > item_format:
        text = (
            f"{daemon.name} writes format {there}, and this program reads up to {item_format}: a daemon of "
            "it would leave those worksets alone."
        )
        return CheckResult(grade=Grade.FAIL, text=text, remedy="Upgrade this program first")
    text = (
        f"{daemon.name} reads up to format {there}, and this program writes {item_format}: that daemon "
        "leaves alone what daemons of this version have written."
    )
    remedy = "Drain it before the upgrade of the others, or upgrade it too; its jobs run on"
    return CheckResult(grade=Grade.WARN, text=text, remedy=remedy)
