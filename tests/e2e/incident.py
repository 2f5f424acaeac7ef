"""How an incident is told: it is staged, found by one command, ended by what that advises, and over.

A story is a generator. It stages what goes wrong and yields what an operator finds; it gets the problem that
``status`` names, does what is advised, and ends.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from daylily_daemon.adapters.host import SystemClock
from daylily_daemon.domain.problems import ProblemKind
from tests.e2e import alerting
from tests.e2e.harness import Answer, Daemon, Lab, until
from tests.e2e.troubled_aws import TroubledAws, troubled_aws
from tests.emulators import free_port

COLUMNS: Final = "80"
Problem = dict[str, Any]
Story = Generator["Found", Problem, None]


@dataclass(frozen=True)
class Found:
    """What one command shows at 80 columns: the cause, and what to do."""

    words: tuple[str, ...]
    kind: ProblemKind | None = None
    """What ``status`` names it; None for what is wrong with one workset, and not with a daemon."""
    command: tuple[str, ...] = ("status",)


def found(*words: str, kind: ProblemKind | None = None, by: str = "status") -> Found:
    return Found(words, kind, tuple(shlex.split(by)))


@dataclass
class Scene:
    """A lab with all that an incident needs."""

    lab: Lab
    folder: Path
    outside: ExitStack
    ports: list[int] = field(default_factory=list)

    def start(self, *arguments: str, wait: bool = True) -> Daemon:
        """Start a daemon that is scraped from now on."""
        self.ports.append(free_port())
        port = ("--set", f"metrics.port={self.ports[-1]}")
        return self.lab.start(*port, *arguments, wait=wait)

    def troubled(self) -> TroubledAws:
        """Return an AWS that can be made to refuse, between the daemon and the emulator."""
        return self.outside.enter_context(troubled_aws(self.lab.url))

    def through(self, aws: TroubledAws, *more: str) -> Daemon:
        return self.start("--set", f"aws.endpoint_url={aws.url}", *more)

    def problems(self) -> dict[str, Problem]:
        return {p["kind"]: p for p in self.lab.run_cli("status", "--json").json["problems"]}

    def sees(self, wanted: Found) -> Problem:
        """Wait until the command shows all that is wanted; return the problem that ``status`` names."""
        problem: Problem = {}
        if wanted.kind is not None:
            kind = wanted.kind
            problem = until(lambda: self.problems().get(kind, {}), why=self.status)

        def look() -> bool:
            answer = self.lab.run_cli(*wanted.command, COLUMNS=COLUMNS)
            command = problem.get("command", "")
            return all(word in answer.words for word in (*wanted.words, command))

        until(look, why=lambda: f"{wanted}\n{self.lab.run_cli(*wanted.command, COLUMNS=COLUMNS)}")
        return self.problems().get(str(wanted.kind), problem)

    def status(self) -> str:
        return str(self.lab.run_cli("status"))

    def do(self, problem: Problem, *more: str) -> Answer:
        """Run the remedy as it is printed."""
        program, *arguments = shlex.split(problem["command"])
        assert program == "daylily-daemon"
        return self.lab.run_cli(*arguments, *more)

    def is_well(self) -> None:
        """Wait until nothing is wrong any more, not even a warning."""
        until(lambda: self.lab.run_cli("status", "--strict").code == 0, why=self.status)

    def fires(self, alert: str, *, rising: bool = False) -> bool:
        """Tell whether what all daemons show now fires an alert, if it stays as it is."""
        scrapes = [alerting.scraped(port) for port in self.ports]
        return alerting.fires(
            alert, scrapes, SystemClock().now().timestamp(), self.folder, rising=rising
        )


@dataclass(frozen=True)
class Incident:
    """One of the twenty of ``operate.md``."""

    number: int
    story: Callable[[Scene], Story]
    alert: str
    """The rule that wakes somebody, without its prefix; empty where nobody has to be woken."""
    rising: bool = False
    """Whether what is counted goes on as long as the incident does."""

    @property
    def name(self) -> str:
        return f"{self.number:02}-{self.story.__name__}"


INCIDENTS: Final[list[Incident]] = []


def incident(
    number: int, alert: str, *, rising: bool = False
) -> Callable[[Callable[[Scene], Story]], Callable[[Scene], Story]]:
    def told(story: Callable[[Scene], Story]) -> Callable[[Scene], Story]:
        INCIDENTS.append(Incident(number, story, alert, rising))
        return story

    return told
