"""Worksets, records and commands as programs read them: with the names that their items have."""

from __future__ import annotations

from typing import Any

from daylily_daemon.adapters.codec import command_to_dict, record_to_item, workset_to_item
from daylily_daemon.domain.model import Command, Record
from daylily_daemon.domain.workset import Workset


def workset_shape(ws: Workset) -> dict[str, Any]:
    return {**workset_to_item(ws), "shown_state": ws.shown_state}


def record_shape(record: Record) -> dict[str, Any]:
    return {**record_to_item(record), "seq": record.seq}


def command_shape(command: Command) -> dict[str, Any]:
    return command_to_dict(command)
