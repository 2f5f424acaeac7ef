"""``run``: the daemon itself, with its signals, its reload and what it tells systemd."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version as installed_version
from typing import Any, Final

import anyio
import structlog
import typer
from anyio import CancelScope, create_task_group, current_time, open_signal_receiver, sleep
from anyio.abc import TaskGroup

from daylily_daemon import telemetry
from daylily_daemon.adapters import vitals
from daylily_daemon.adapters.host import StateDir, SystemClock
from daylily_daemon.bootstrap import (
    Daemon,
    Hooks,
    Tools,
    daemon_name,
    dials_of,
    machine_of,
    open_daemon,
    open_tools,
)
from daylily_daemon.cli import printing
from daylily_daemon.cli.options import ConfigOption, SetOption, reporting, sources
from daylily_daemon.domain.errors import DaemonError
from daylily_daemon.domain.model import State
from daylily_daemon.engine.health import leaf
from daylily_daemon.engine.supervisor import Snapshot
from daylily_daemon.settings import Loaded, Sources, changes, load

OBEYED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
log = structlog.get_logger()


def run(config: ConfigOption = None, set_: SetOption = None) -> None:
    """Run the daemon in the foreground until SIGTERM; SIGHUP reloads the settings.

    Example: daylily-daemon run --config /etc/daylily-daemon/config.yaml
    """
    with reporting():
        where = sources(config, set_, "control.bucket")
        found = load(where)
        metrics = telemetry.Metrics()
        json = telemetry.wants_json(found.settings.log.format, printing.log_stream(), os.environ)
        telemetry.configure(found.settings.log.level, json=json, watch=(metrics.count_event,))
        state = StateDir(found.settings.daemon.state_dir)
        machine = machine_of(found.settings)
        with state.locked(daemon_name(found.settings), machine) as owner:
            service = Service(where, found, state, owner, metrics)
            raise typer.Exit(_lived(service))


def _lived(service: Service) -> int:
    """Return the exit code of the daemon. What nobody foresaw is logged whole before it ends it."""
    try:
        return anyio.run(service.main)
    except Exception as exc:
        if not isinstance(leaf(exc), DaemonError):
            log.exception("broke")
        raise


async def _look_at_tables(tools: Tools) -> None:
    """Raises Permanent, naming what is missing, and Transient if AWS is away."""
    await tools.worksets.in_state(State.READY, limit=1)
    await tools.trail.owed(limit=1)


@dataclass(slots=True)
class Service:
    """One life of the daemon process."""

    where: Sources
    found: Loaded
    state: StateDir
    owner: str
    metrics: telemetry.Metrics
    stop: anyio.Event = field(default_factory=anyio.Event)
    systemd: telemetry.Systemd = field(init=False)
    writer: vitals.StatusWriter = field(init=False)
    process: vitals.Process = field(init=False)
    born: Loaded = field(init=False)
    """What it was started with: what needs a restart stays as it is here, however often it is reloaded."""
    daemon: Daemon | None = None
    started_at: str = ""
    stopping_at: str | None = None
    stopped_at: str | None = None
    trouble: str = ""
    """What keeps it from starting, as a sentence, while it tries again."""
    seen: dict[str, Any] = field(default_factory=dict)
    """When the last pass was finished, on both clocks."""
    passed_at: float = 0.0
    reloaded: dict[str, Any] = field(default_factory=dict)
    snapshot: Snapshot | None = None
    told: str = ""
    """The figures systemd was last told; what a reload came to stays shown until they change."""

    def __post_init__(self) -> None:
        self.systemd = telemetry.systemd(os.environ, os.getpid())
        self.born = self.found
        self.writer = vitals.StatusWriter(self.state)
        self.process = vitals.this_process()

    async def main(self) -> int:
        """Return the exit code: 0 after an orderly end, 1 if the deadline for it passed."""
        self.started_at = _now()
        self._write_status()
        with CancelScope() as whole:
            async with create_task_group() as tg:
                tg.start_soon(self.writer.keep)
                tg.start_soon(self._obey_signals, whole)
                tg.start_soon(self._end_in_time, whole)
                await self._serve(tg)
                tg.cancel_scope.cancel()
        late = whole.cancelled_caught and self.daemon is not None
        self.stopped_at = _now()
        self._write_status()
        await self.writer.flush()
        log.info("stopped", in_time=not late)
        return 1 if late else 0

    async def _serve(self, tg: TaskGroup) -> None:
        settings = self.found.settings
        if settings.metrics.port:
            self.metrics.serve(settings.metrics.port)
        async with open_tools(settings, self.metrics.count_call) as tools:
            await _look_at_tables(tools)
            hooks = Hooks(on_pass=self._passed, on_record=self.metrics.count_record)
            async with open_daemon(tools, os.environ, self.owner, hooks) as daemon:
                self.daemon = daemon
                tg.start_soon(self._feed_watchdog)
                self.systemd.ready(f"watching s3://{settings.control.bucket}")
                place = daemon.supervisor.place
                log.info("started", owner=self.owner, runner=place.runner, scope=place.scope)
                await daemon.supervisor.run(self.stop)

    async def _obey_signals(self, whole: CancelScope) -> None:
        try:
            with open_signal_receiver(*OBEYED) as signals:
                async for number in signals:
                    if number == signal.SIGHUP:
                        self._reload()
                    else:
                        self._stop(number, whole)
        finally:
            for number in OBEYED:  # one that comes now must not turn an orderly end into a death
                signal.signal(number, signal.SIG_IGN)

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
        await sleep(self.found.settings.daemon.stop_deadline_s)
        log.error("stop_deadline_passed", deadline_s=self.found.settings.daemon.stop_deadline_s)
        whole.cancel()

    def _reload(self) -> None:
        """Validate everything, then swap it whole; what is wrong leaves the old settings in force."""
        if self.daemon is None or self.stop.is_set():
            log.warning("reload_ignored", reason="the daemon is starting or stopping")
            return
        self.systemd.reloading(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
        try:
            self._swap(load(self.where), self.daemon)
        except DaemonError as exc:
            problems = [str(p) for p in getattr(exc, "problems", ())] or [str(exc)]
            self._note_reload("refused", problems=problems)
            log.warning("reload_refused", problems=problems, in_force="the old settings")
        finally:
            self.systemd.ready(f"settings {self.reloaded.get('result', 'unchanged')}")
            self._write_status()

    def _swap(self, new: Loaded, daemon: Daemon) -> None:
        dials = dials_of(new.settings)
        found = changes(self.found.settings, new.settings)
        pending = changes(self.born.settings, new.settings).needs_restart
        daemon.channels.rebuild(new.settings)
        daemon.live.now = dials
        telemetry.set_level(new.settings.log.level)
        self.found = new
        daemon.supervisor.nudge()
        self._note_reload("applied", changed=found.live, needs_restart=pending)
        log.info("reloaded", changed=found.live)
        if pending:
            log.warning("restart_needed", settings=pending)

    def _note_reload(self, result: str, **details: Any) -> None:
        self.metrics.config_reloads.labels(result=result).inc()
        self.reloaded = {"result": result, "at": _now(), **details}

    async def _feed_watchdog(self) -> None:
        """Feed it while sweeps finish; a daemon whose sweep hangs is to be replaced."""
        every_s = self.systemd.watchdog_s
        while every_s:
            await sleep(every_s)
            patience_s = 2 * self.found.settings.daemon.sweep_s + 60.0
            if current_time() - self.passed_at < patience_s:
                self.systemd.watchdog()

    def _passed(self, snapshot: Snapshot) -> None:
        self.passed_at = current_time()
        self.seen = {"seen_at": _now(), "seen_monotonic_s": vitals.monotonic_s()}
        text = f"{len(snapshot.active)} running, {snapshot.waiting} waiting"
        if text != self.told:
            self.told = text
            self.systemd.status(text)
        self.snapshot = snapshot
        self.metrics.saw(len(snapshot.active), snapshot.waiting, snapshot.owed)
        self._write_status()

    def _write_status(self) -> None:
        """Say how it is; ``pid`` at the top once it has finished a pass, under ``starting`` until then."""
        process = self.process.model_dump()
        status: dict[str, Any] = {
            **(process if self.snapshot else {"starting": process, "trouble": self.trouble}),
            "version": installed_version("daylily-daemon"),
            "owner": self.owner,
            "started_at": self.started_at,
            "stopping_at": self.stopping_at,
            "stopped_at": self.stopped_at,
            **self.seen,
            "sweep_s": self.found.settings.daemon.sweep_s,
            "max_worksets": self.found.settings.daemon.max_worksets,
            "max_per_customer": self.found.settings.daemon.max_per_customer,
            "last_reload": self.reloaded or None,
            **(asdict(self.snapshot) if self.snapshot else {}),
        }
        self.writer.show(status)


def _now() -> str:
    return SystemClock().now().isoformat()
