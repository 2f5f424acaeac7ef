"""What commands need once they run: the SDK, the settings, the application, the library that draws.

Each of these modules is imported when it is first asked for (``later.queries.show``), and here alone. So help
and completion cost what names and options cost: the modules of the commands import what their options are
made of, and nothing else (``tests/unit/test_startup.py`` looks).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Final

# ruff: noqa: PLC0414 - an alias is what tells the type checker that a name may be used through this module
if TYPE_CHECKING:
    from importlib import metadata as metadata

    from daylily_daemon import bootstrap as bootstrap
    from daylily_daemon import in_force as in_force
    from daylily_daemon import telemetry as telemetry
    from daylily_daemon.application import batch as batch
    from daylily_daemon.application import draining as draining
    from daylily_daemon.application import examining as examining
    from daylily_daemon.application import health as health
    from daylily_daemon.application import mending as mending
    from daylily_daemon.application import overview as overview
    from daylily_daemon.application import queries as queries
    from daylily_daemon.application import requests as requests
    from daylily_daemon.application import rerun as rerun
    from daylily_daemon.application import running as running
    from daylily_daemon.application import telling as telling
    from daylily_daemon.application import wording as wording
    from daylily_daemon.cli import app as app
    from daylily_daemon.cli import demonstration as demonstration
    from daylily_daemon.cli import drawing as drawing
    from daylily_daemon.cli import editing as editing
    from daylily_daemon.cli import ids as ids
    from daylily_daemon.cli import layout as layout
    from daylily_daemon.cli import output as output
    from daylily_daemon.cli import watching as watching
    from daylily_daemon.composition import backend as backend
    from daylily_daemon.composition import bundling as bundling
    from daylily_daemon.composition import drilling as drilling
    from daylily_daemon.composition import host as host
    from daylily_daemon.composition import inspection as inspection
    from daylily_daemon.composition import provisioning as provisioning
    from daylily_daemon.composition import pruning as pruning
    from daylily_daemon.composition import service as service
    from daylily_daemon.composition import shapes as shapes
    from daylily_daemon.composition import steps as steps
    from daylily_daemon.composition import versions as versions
    from daylily_daemon.domain import printable as printable
    from daylily_daemon.domain import sizes as sizes
    from daylily_daemon.domain import times as times
    from daylily_daemon.settings import sources as sources

PLACES: Final[Mapping[str, str]] = {
    "metadata": "importlib",
    "bootstrap": "daylily_daemon",
    "in_force": "daylily_daemon",
    "telemetry": "daylily_daemon",
    "batch": "daylily_daemon.application",
    "draining": "daylily_daemon.application",
    "examining": "daylily_daemon.application",
    "health": "daylily_daemon.application",
    "mending": "daylily_daemon.application",
    "overview": "daylily_daemon.application",
    "queries": "daylily_daemon.application",
    "requests": "daylily_daemon.application",
    "rerun": "daylily_daemon.application",
    "running": "daylily_daemon.application",
    "telling": "daylily_daemon.application",
    "wording": "daylily_daemon.application",
    "app": "daylily_daemon.cli",
    "demonstration": "daylily_daemon.cli",
    "drawing": "daylily_daemon.cli",
    "editing": "daylily_daemon.cli",
    "ids": "daylily_daemon.cli",
    "layout": "daylily_daemon.cli",
    "output": "daylily_daemon.cli",
    "watching": "daylily_daemon.cli",
    "backend": "daylily_daemon.composition",
    "bundling": "daylily_daemon.composition",
    "drilling": "daylily_daemon.composition",
    "host": "daylily_daemon.composition",
    "inspection": "daylily_daemon.composition",
    "provisioning": "daylily_daemon.composition",
    "pruning": "daylily_daemon.composition",
    "service": "daylily_daemon.composition",
    "shapes": "daylily_daemon.composition",
    "steps": "daylily_daemon.composition",
    "versions": "daylily_daemon.composition",
    "printable": "daylily_daemon.domain",
    "sizes": "daylily_daemon.domain",
    "times": "daylily_daemon.domain",
    "sources": "daylily_daemon.settings",
}
"""The package of each module; the type checker reads the same above."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> ModuleType:
        if name not in PLACES:
            raise AttributeError(f"{__name__} has no {name}")
        globals()[name] = module = import_module(f"{PLACES[name]}.{name}")
        return module
