"""Worksets, records and commands as programs read them: with the names that their items have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter

from daylily_daemon.adapters.codec import command_to_dict, record_to_item, workset_to_item
from daylily_daemon.domain.daemon import QueueLevel, Status
from daylily_daemon.domain.model import Command, Record
from daylily_daemon.domain.problems import HealthProblem
from daylily_daemon.domain.workset import Workset


def workset_shape(ws: Workset) -> dict[str, Any]:
    return {**workset_to_item(ws), "shown_state": ws.shown_state}


def record_shape(record: Record) -> dict[str, Any]:
    return {**record_to_item(record), "seq": record.seq}


_STATUS: Final = TypeAdapter(Status | None)
_PROBLEM: Final = TypeAdapter(HealthProblem)
_LEVELS: Final = TypeAdapter(dict[str, QueueLevel])


def status_shape(status: Status | None) -> dict[str, Any] | None:
    shape: dict[str, Any] | None = _STATUS.dump_python(status, mode="json")
    return shape


def problem_shape(problem: HealthProblem) -> dict[str, Any]:
    shape: dict[str, Any] = _PROBLEM.dump_python(problem, mode="json")
    return shape


def levels_shape(levels: Mapping[str, QueueLevel]) -> dict[str, Any]:
    shape: dict[str, Any] = _LEVELS.dump_python(dict(levels), mode="json")
    return shape


def command_shape(command: Command) -> dict[str, Any]:
    return command_to_dict(command)
