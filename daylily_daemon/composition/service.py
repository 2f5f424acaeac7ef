"""The life of the daemon's process: its signals, its reload and what it tells systemd."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from importlib.metadata import version as installed_version
from typing import IO, Any, Final

import anyio
import structlog
from anyio import (
    CancelScope,
    create_task_group,
    current_time,
    open_signal_receiver,
    sleep,
    sleep_forever,
)
from anyio.abc import TaskGroup, TaskStatus

from daylily_daemon import figures, telemetry
from daylily_daemon.adapters import exposition, journal, own_process, vitals
from daylily_daemon.adapters.codec import ITEM_FORMAT
from daylily_daemon.adapters.host import StateDir, SystemClock
from daylily_daemon.bootstrap import Daemon, Hooks
from daylily_daemon.cloudwatch import Reporter
from daylily_daemon.composition.starting import (
    Read,
    Reader,
    StartPatience,
    Wiring,
    first_settings,
    locked_state,
    opened,
)
from daylily_daemon.domain.daemon import Drain, JobLevel, Process, Reload, Status
from daylily_daemon.domain.errors import DaemonError, Permanent, leaf
from daylily_daemon.domain.problems import Severity, is_worth_a_look
from daylily_daemon.domain.readiness import patience_s, why_not_ready
from daylily_daemon.engine.boundary import foreign_as_unexpected
from daylily_daemon.engine.supervisor import Snapshot
from daylily_daemon.gauges import Instant
from daylily_daemon.settings.keys import LEAVES, OLD_NAMES, changes, variable
from daylily_daemon.settings.sources import Sources

SECRETS: Final = tuple(
    name
    for key, found in LEAVES.items()
    if found.secret
    for name in (variable(key), *OLD_NAMES.get(key, ()))
)
"""The variables that must not be in the environment of a process that runs jobs."""
HELD: Final = ("daemon.state_dir", "daemon.name", "daemon.machine")
"""Settings that count from the moment on at which the state directory is locked."""
VERSION: Final = installed_version("daylily-daemon")
"""Read once: the file that tells it is on a disk."""
HOST: Final = socket.gethostname()
METRICS_AGAIN_S: Final = 30.0
IN_USE_SHOWN: Final = 10
"""Worksets that are named in one sentence."""
log = structlog.get_logger()


def life(where: Callable[[], Sources], log_stream: IO[str]) -> int:
    """Live as the daemon until SIGTERM; return the exit code. Log lines go to ``log_stream``.

    What ``where`` raises ends it. What nobody foresaw is logged whole before it ends it.
    """
    secrets = own_process.secrets_out_of(SECRETS)
    found = where()
    whole = replace(found, environment={**found.environment, **secrets})
    service = Service(whole, figures.Metrics(), log_stream)
    service.log_as("info", "auto")
    log.debug("limits", open_files=own_process.raise_open_files())
    try:
        return anyio.run(service.main)
    except Exception as exc:
        if not isinstance(leaf(exc), DaemonError):
            log.exception("broke")
        raise


@dataclass(slots=True)
class Service:
    """One life of the daemon process."""

    where: Sources
    metrics: figures.Metrics
    log_stream: IO[str]
    stop: anyio.Event = field(default_factory=anyio.Event)
    asked: anyio.Event = field(default_factory=anyio.Event)
    """That settings be read again; however often that was, they are read once."""
    patience: StartPatience = field(init=False)
    reader: Reader = field(init=False)
    systemd: telemetry.Systemd = field(init=False)
    repeats: telemetry.Repeats = field(
        default_factory=lambda: telemetry.Repeats(vitals.monotonic_s)
    )
    writer: vitals.StatusWriter | None = None
    """Once the state directory is locked."""
    process: Process = field(init=False)
    owner: str = ""
    found: Read = field(init=False)
    born: Read = field(init=False)
    """What it was started with: what needs a restart stays as it is here, however often it is reloaded."""
    daemon: Daemon | None = None
    stop_deadline_s: float = LEAVES["daemon.stop_deadline_s"].default
    trouble: str = ""
    """What keeps it from starting, as a sentence."""
    started_at: datetime | None = None
    stopping_at: datetime | None = None
    stopped_at: datetime | None = None
    seen: dict[str, Any] = field(default_factory=dict)
    """When the last pass was finished, on both clocks."""
    alive_at: float = 0.0
    """When a pass was finished, or the start tried something again."""
    reloaded: Reload | None = None
    status: Status = field(default_factory=Status)
    """As it was written last."""
    drain: Drain | None = None
    """How its former life was drained last, which counts until the registry says otherwise."""
    snapshot: Snapshot | None = None
    told: str = ""
    """What systemd was last told; what a reload came to stays shown until that changes."""

    def __post_init__(self) -> None:
        self.systemd = telemetry.systemd(os.environ, os.getpid())
        self.patience = StartPatience(self._waits)
        self.reader = Reader(self.where)
        self.process = vitals.this_process()
        self.metrics.reads = self._instant

    def log_as(self, level: str, format: str) -> None:
        json = telemetry.wants_json(format, self.log_stream, os.environ)
        leads_there = telemetry.is_journal(self.log_stream, os.environ)
        socket_of = journal.ADDRESS if leads_there else ""
        telemetry.configure(level, json=json, journal=socket_of, watch=(self.repeats,))

    async def main(self) -> int:
        """Return the exit code: 0 after an orderly end, 1 if the deadline for it passed."""
        self.started_at = _now()
        with CancelScope() as whole:
            async with create_task_group() as tg:
                await tg.start(self._obey_signals, whole)
                tg.start_soon(self._end_in_time, whole)
                await self._live(tg)
                tg.cancel_scope.cancel()
        late = whole.cancelled_caught and self.daemon is not None
        log.info("stopped", in_time=not late)
        return 1 if late else 0

    async def _live(self, tg: TaskGroup) -> None:
        self.found = self.born = await first_settings(self.reader, self.patience)
        settings = self.found.settings
        self.log_as(settings.log.level, settings.log.format)
        self.stop_deadline_s = settings.daemon.stop_deadline_s
        self.alive_at = current_time()
        tg.start_soon(self._feed_watchdog)
        tg.start_soon(self._reload_when_asked)
        async with locked_state(lambda: self.found, self.patience) as self.owner:
            settings = self.found.settings
            if settings.metrics.port:
                tg.start_soon(self._serve_metrics, settings.metrics.port)
            async with self._status_kept(tg, StateDir(settings.daemon.state_dir)):
                await self._serve()

    @asynccontextmanager
    async def _status_kept(self, tg: TaskGroup, state: StateDir) -> AsyncIterator[None]:
        """Keep the status file up to date; at last it says that the daemon has stopped."""
        self.drain = await vitals.drain_before(state)
        self.writer = vitals.StatusWriter(state)
        tg.start_soon(self.writer.keep)
        self._write_status()
        try:
            yield
        finally:
            if self.stop.is_set():
                self.stopped_at = _now()
                self._write_status()
            with CancelScope(shield=True):  # a few seconds at most
                await self.writer.flush()

    async def _serve(self) -> None:
        hooks = Hooks(on_pass=self._passed, counting=self.metrics, on_drain=self._drained)
        wiring = Wiring(
            environ=os.environ, owner=self.owner, hooks=hooks, on_call=self.metrics.call
        )
        async with opened(lambda: self.found, wiring, self.patience) as daemon:
            self.daemon, self.trouble, self.alive_at = daemon, "", current_time()
            self.systemd.ready(f"watching s3://{self.found.settings.control.bucket}")
            place = daemon.supervisor.place
            log.info("started", owner=self.owner, runner=place.runner, scope=place.scope)
            await self._run(daemon)

    async def _run(self, daemon: Daemon) -> None:
        """Run until the stop; the registry hears of it to the end."""
        daemon.registration.drain = self.drain
        await daemon.registration.measure()
        await daemon.registration.sign(self._as_it_is())
        async with create_task_group() as tg:
            tg.start_soon(daemon.registration.run, lambda: self.status)
            tg.start_soon(daemon.census.run)
            tg.start_soon(self._reporter(daemon).run)
            await daemon.supervisor.run(self.stop)
            tg.cancel_scope.cancel()
        self.stopped_at = _now()
        self._write_status()
        await daemon.registration.sign(self.status)

    def _reporter(self, daemon: Daemon) -> Reporter:
        return Reporter(
            owner=self.owner,
            metrics=self.metrics,
            store=daemon.metric_store,
            registry=daemon.registration.registry,
            is_on=lambda: self.found.settings.cloudwatch.enabled,
        )

    def _drained(self, drain: Drain | None) -> None:
        self._write_status()

    def _waits(self, text: str) -> None:
        """Show what keeps it from starting. For systemd it is up: to wait is not to fail."""
        self.trouble, self.alive_at = text, current_time()
        self.systemd.ready(f"waiting: {text}")
        self._write_status()

    async def _serve_metrics(self, port: int) -> None:
        """Whoever has the port keeps figures from people, and nothing from the labs."""
        pages = exposition.Pages(metrics=self.metrics.page, why_not_ready=self._why_not_ready)
        while True:
            try:
                async with exposition.serving(port, pages):
                    await sleep_forever()
            except Permanent as exc:
                log.warning("metrics_not_served", error=str(exc))
            await sleep(METRICS_AGAIN_S)

    async def _obey_signals(self, whole: CancelScope, *, task_status: TaskStatus[None]) -> None:
        try:
            with open_signal_receiver(*own_process.OBEYED) as signals:
                own_process.obey_again()
                task_status.started()
                async for number in signals:
                    if number == signal.SIGHUP:
                        self.asked.set()
                    else:
                        self._stop(number, whole)
        finally:
            for number in own_process.OBEYED:
                signal.signal(number, signal.SIG_IGN)  # one that comes now must not be a death

    def _stop(self, number: int, whole: CancelScope) -> None:
        log.info("stopping", signal=signal.Signals(number).name)
        self.systemd.stopping("letting go; jobs run on")
        self.stopping_at = _now()
        self._write_status()
        self.stop.set()
        if self.daemon is None:
            whole.cancel()

    async def _end_in_time(self, whole: CancelScope) -> None:
        await self.stop.wait()
        await sleep(self.stop_deadline_s)
        log.error("stop_deadline_passed", deadline_s=self.stop_deadline_s)
        whole.cancel()

    async def _reload_when_asked(self) -> None:
        while True:
            await self.asked.wait()
            self.asked = anyio.Event()
            if self.stop.is_set():
                log.warning("reload_ignored", reason="the daemon is stopping")
            else:
                await self._reload()

    async def _reload(self) -> None:
        """Validate everything, then swap it whole; what is wrong leaves the old settings in force."""
        self.systemd.reloading(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
        try:
            with foreign_as_unexpected("the reload"):
                self._swap(await self.reader.read())
        except DaemonError as exc:
            problems = [str(p) for p in getattr(exc, "problems", ())] or [str(exc)]
            self._note_reload("refused", problems=tuple(problems))
            log.warning("reload_refused", problems=problems, in_force="the old settings")
        finally:
            self.systemd.ready(f"settings {self.reloaded.result if self.reloaded else 'unchanged'}")
            self._write_status()

    def _swap(self, new: Read) -> None:
        found = changes(self.found.settings, new.settings)
        pending = changes(self.born.settings, new.settings).needs_restart
        if self.daemon is None:
            pending = self._start_with(new, pending)
        else:
            _check_in_use(self.daemon, new)
            self.daemon.channels.rebuild(new.settings)
            self.daemon.live.current = new.engine_settings
            self.daemon.supervisor.nudge()
        telemetry.set_level(new.settings.log.level)
        self.found = new
        self._note_reload("applied", changed=found.live, needs_restart=pending)
        log.info("reloaded", changed=found.live)
        if pending:
            log.warning("restart_needed", settings=pending)

    def _start_with(self, new: Read, changed: tuple[str, ...]) -> tuple[str, ...]:
        """Try the start again with ``new``; return what counts all the same only after a restart.

        Raises Permanent for another state directory or name: those are taken already.
        """
        taken = [key for key in changed if key in HELD and self.owner]
        if taken:
            keys = " and ".join(taken)
            raise Permanent(
                f"{keys}: The daemon holds it already. Restart the daemon to change it."
            )
        self.born = new
        self.patience.again.set()
        return tuple(key for key in changed if key in ("metrics.port", "log.format"))

    def _note_reload(self, result: str, **details: Any) -> None:
        self.reloaded = Reload(result=result, at=_now().isoformat(), **details)

    async def _feed_watchdog(self) -> None:
        """Feed it while sweeps finish; a daemon whose sweep hangs is to be replaced."""
        every_s = self.systemd.watchdog_s
        while every_s:
            await sleep(every_s)
            if current_time() - self.alive_at < patience_s(self.found.settings.daemon.sweep_s):
                self.systemd.watchdog()

    def _passed(self, snapshot: Snapshot) -> None:
        self.alive_at = current_time()
        self.seen = {"seen_at": _now(), "seen_monotonic_s": vitals.monotonic_s()}
        self.snapshot = snapshot
        self._write_status()
        self._tell_systemd()

    def _why_not_ready(self) -> tuple[str, ...]:
        return why_not_ready(self.status, _now(), vitals.monotonic_s())

    def _instant(self) -> Instant:
        """Return what the gauges show, for whoever scrapes now."""
        now, daemon = _now(), self.daemon
        return Instant(
            now=now,
            version=VERSION,
            format=ITEM_FORMAT,
            status=self.status,
            counts=daemon.census.found() if daemon else {},
            jobs=tuple(_looks(daemon).values()) if daemon else (),
        )

    def _tell_systemd(self) -> None:
        """Say what is wrong first: ``systemctl status`` shows one line."""
        status = self.status
        more = "+" if status.waits_more else ""
        wrong = [p.text for p in status.problems if p.severity is Severity.PROBLEM]
        slots = "" if status.max_worksets is None else f" of {status.max_worksets}"
        text = f"{len(status.active)}{slots} running, {status.waiting}{more} waiting"
        text = f"not well: {wrong[0]} {text}" if wrong else text
        if text != self.told:
            self.told = text
            self.systemd.status(text)

    def _write_status(self) -> None:
        """Judge how it is, and say so: at once here, soon to all if it holds or lacks other things."""
        if self.writer is None:
            return
        before, self.status = self.status, self._as_it_is()
        self.writer.show(self.status)
        if self.daemon and _gist(before) != _gist(self.status):
            self.daemon.registration.changed()

    def _as_it_is(self) -> Status:
        """``pid`` stands at the top once it has finished a pass, under ``starting`` until then."""
        process, daemon = self.process, self.daemon
        now = Status(
            **(
                vars_of(process)
                if self.snapshot
                else {"starting": process, "trouble": self.trouble}
            ),
            version=VERSION,
            item_format=ITEM_FORMAT,
            owner=self.owner,
            host=HOST,
            started_at=self.started_at,
            stopping_at=self.stopping_at,
            stopped_at=self.stopped_at,
            **self.seen,
            sweep_s=self.found.settings.daemon.sweep_s,
            **_limits(self.found),
            last_reload=self.reloaded,
            settings=self.found.digests,
            **(vars_of(self.snapshot) if self.snapshot else {}),
            **(_measured(daemon) if daemon else {}),
            problems=self.status.problems,
        )
        return now.found_wrong(_now()) if self.snapshot else now


def _gist(status: Status) -> tuple[Set[str], Set[str]]:
    """Return what all should know of soon: what it holds, and what is wrong with it."""
    return status.active.keys(), {problem.kind for problem in status.problems}


def _check_in_use(daemon: Daemon, new: Read) -> None:
    """Raises Permanent for settings without a pipeline that something runs: its next step could not start."""
    missing = daemon.supervisor.runs_without(new.engine_settings.pipelines)
    if missing:
        runs = "; ".join(f"{id} runs {name}" for id, name in sorted(missing.items())[:IN_USE_SHOWN])
        names = ", ".join(sorted(set(missing.values())))
        raise Permanent(
            f"The pipelines folder lacks {names}, and {runs}. Put the file back; take it away once nothing "
            "runs it."
        )


def vars_of(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name, as they are."""
    return {one.name: getattr(value, one.name) for one in fields(value)}


def _looks(daemon: Daemon) -> Mapping[str, JobLevel]:
    return daemon.supervisor.shepherd.looks.worst()


def _measured(daemon: Daemon) -> dict[str, Any]:
    now, measured = _now(), daemon.registration.measured
    return {
        **vars_of(measured),
        "jobs": {id: job for id, job in _looks(daemon).items() if is_worth_a_look(job, now)},
        "drain": daemon.registration.drain,
        "skew_s": daemon.skew.seconds(),
    }


def _limits(found: Read) -> dict[str, Any]:
    """Return what admission counts with, so that whoever explains it counts the same."""
    limits = found.engine_settings.limits
    return {
        "max_worksets": limits.slots,
        "max_per_customer": limits.per_customer,
        "age_s": limits.age_s,
        "cluster": limits.cluster,
    }


def _now() -> datetime:
    return SystemClock().now()
