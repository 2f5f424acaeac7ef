"""Reads what Nextflow prints of a process that failed: its name and tag, exit status and work folder."""

from __future__ import annotations

import re
from typing import Final

from daylily_daemon.domain.workflow_log import MAX_FAILED, MAX_LINE, FailedRule, WorkflowLog

MARKS: Final = (
    "N E X T F L O W",
    "Error executing process > ",
    "Unable to acquire lock on session",
)
"""Text that only Nextflow prints: one of these makes a log one of Nextflow's."""

_FAILS: Final = re.compile(r"(?:ERROR ~ )?Error executing process > '([^' ]+)(?: \((.{0,200})\))?'")
_SECTION: Final = re.compile(
    r"(?:Command (?:executed|exit status|output|error)|Work dir|Caused by)\b.*:$"
)
_STATUS: Final = re.compile(r"  (\d{1,3})$")
_OWN: Final = re.compile(
    r"\[[0-9a-f]{2}/[0-9a-f]{6}\]|executor >|N E X T F L O W|Tip: |Launching |ERROR ~ "
    r"| -- Check '|WARN: |Unable to acquire lock"
)


class NextflowLog:
    """One log, read once."""

    def __init__(self) -> None:
        self._own: list[str] = []
        self._output: list[str] = []
        self._failed: list[dict[str, str]] = []
        self._section = ""

    def read(self, text: str) -> WorkflowLog:
        for line in text.splitlines():
            self._line(line[:MAX_LINE].rstrip())
        return WorkflowLog(
            output="\n".join(self._output),
            own="\n".join(self._own),
            failed=tuple(_result(each) for each in self._failed),
            unit="process",
            reason=next((each["cause"] for each in self._failed if "cause" in each), ""),
        )

    def _line(self, line: str) -> None:
        if found := _FAILS.match(line):
            self._own.append(line)
            self._section = ""
            if len(self._failed) < MAX_FAILED:
                self._failed.append({"rule": found[1], "about": found[2] or ""})
        elif self._failed and _SECTION.match(line):
            self._section = line.split(":", maxsplit=1)[0].split(" (", maxsplit=1)[0]
        elif _OWN.match(line):
            self._own.append(line)
            self._section = "" if line.startswith("Tip: ") else self._section
        else:
            self._inside(line)

    def _inside(self, line: str) -> None:
        match self._section:
            case "Command executed":
                pass
            case "Caused by":
                self._own.append(line)
                self._note("cause", line.strip())
            case "Command exit status":
                if found := _STATUS.match(line):
                    self._note("code", found[1])
            case "Work dir":
                self._note("dir", line.strip())
            case _:
                self._output.append(line.removeprefix("  "))

    def _note(self, key: str, value: str) -> None:
        if value:
            self._failed[-1].setdefault(key, value[:400])


def _result(found: dict[str, str]) -> FailedRule:
    folder = found.get("dir", "")
    code = found.get("code", "")
    return FailedRule(
        rule=found["rule"],
        about=found["about"],
        logs=(f"{folder}/.command.log",) if folder else (),
        exit_code=int(code) if code else None,
    )
