"""A support bundle, put together of what this host, its settings and AWS say."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from anyio import to_thread

from daylily_daemon.adapters.bundle import (
    host_facts,
    log_lines,
    own_words,
    packed,
    write_bundle,
)
from daylily_daemon.application.bundling import Allowed
from daylily_daemon.application.examining import examined
from daylily_daemon.application.queries import show
from daylily_daemon.composition.backend import open_backend
from daylily_daemon.composition.host import daemon_here
from daylily_daemon.composition.inspection import open_checks
from daylily_daemon.composition.versions import versions
from daylily_daemon.domain.bundle import BundlePart, Packed
from daylily_daemon.domain.errors import DaemonError
from daylily_daemon.settings.keys import LEAVES, Leaf, value_of
from daylily_daemon.settings.model import Settings
from daylily_daemon.settings.sources import BadSettings, Sources, load

SHOWN: Final = frozenset(
    {
        *("daemon", "lease", "inputs", "places", "queues", "runner", "retry", "progress", "log"),
        *("metrics", "cloudwatch", "aws"),
    }
)
"""Sections of whose settings the values are told that can be no secret, by their type."""
SWITCHES: Final = frozenset({"enabled", "via", "smtp_security", "give_up_s"})
"""The same, by their names, of the channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleWish:
    worksets: tuple[str, ...] = ()
    lines: int = 1000
    log: Path | None = None
    """None for the journal."""


@dataclass(slots=True)
class _Gathering:
    """Collects parts; what cannot be had is said, by its name alone."""

    parts: list[BundlePart] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    async def take(
        self, name: str, about: str, content: Callable[[], Awaitable[Any]], *, failing: str
    ) -> None:
        try:
            self.parts.append(BundlePart(name=name, about=about, content=await content()))
        except DaemonError:
            self.missing.append(failing)


async def gathered(where: Sources, wish: BundleWish, by: str) -> list[Packed]:
    """Return the files of a bundle. Raises nothing: what is missing is said in the manifest."""
    allowed = Allowed(await _in_thread(own_words), frozenset(wish.worksets))
    found = _Gathering()
    settings = _settings(where)
    await found.take("versions.json", "Versions and formats.", _versions, failing="versions")
    folders = {
        "state_dir": settings.daemon.state_dir if settings else Path("/"),
        "data_dir": settings.daemon.data_dir if settings else Path("/"),
    }
    await found.take(
        "system.json",
        "Kernel, memory, disks and tools of this host.",
        partial(_in_thread, partial(host_facts, folders)),
        failing="The host could not be looked at.",
    )
    await found.take(
        "log.jsonl",
        "The last lines of the log, those fields that are listed.",
        partial(_log, allowed, wish),
        failing="There is no log: name one with --log.",
    )
    await found.take(
        "doctor.json",
        "What doctor finds, in words of this program.",
        partial(_doctor, allowed, where, by),
        failing="The checks of doctor could not be made.",
    )
    if settings is None:
        found.missing.append("The settings cannot be read, so there is nothing of them or of AWS.")
    else:
        await _of_settings(found, allowed, settings, wish)
    return packed(found.parts, found.missing)


def missing_of(files: Sequence[Packed]) -> list[str]:
    """Return, as sentences, what could not be had."""
    found: list[str] = json.loads(files[0].data)["missing"]
    return found


def write(path: Path, files: Sequence[Packed]) -> None:
    """Write a new file for its owner alone. Raises Permanent."""
    write_bundle(path, files)


async def _of_settings(
    found: _Gathering, allowed: Allowed, settings: Settings, wish: BundleWish
) -> None:
    await found.take(
        "settings.json",
        "Which settings have another value than their default, and values that can be no secret.",
        partial(_settings_told, settings),
        failing="settings",
    )
    await found.take(
        "status.json",
        "What the daemon of this host said last, and its problems.",
        partial(_status, allowed, settings),
        failing="The status of the daemon cannot be read.",
    )
    for number, id in enumerate(wish.worksets, start=1):
        await found.take(
            f"worksets/{number}.json",
            "The item of a workset that was asked for, those attributes that are listed.",
            partial(_item, allowed, settings, id),
            failing=f"Workset {number} of those asked for could not be read.",
        )


async def _in_thread(work: Callable[[], Any]) -> Any:
    return await to_thread.run_sync(work, abandon_on_cancel=True)


def _settings(where: Sources) -> Settings | None:
    try:
        return load(where).settings
    except BadSettings:
        return None


async def _versions() -> Any:
    return versions()


async def _log(allowed: Allowed, wish: BundleWish) -> Any:
    return allowed.log(await _in_thread(partial(log_lines, wish.log, wish.lines)))


async def _doctor(allowed: Allowed, where: Sources, by: str) -> Any:
    async with open_checks(where, by, send=False) as checks:
        return [allowed.check(one) for one in await examined(checks)]


async def _status(allowed: Allowed, settings: Settings) -> Any:
    seen = await _in_thread(partial(daemon_here, settings.daemon.state_dir))
    told = allowed.status(seen.status) if seen.status else None
    return {"life": str(seen.life), "age_s": seen.age_s, "status": told}


async def _item(allowed: Allowed, settings: Settings, id: str) -> Any:
    async with open_backend(settings) as backend:
        return allowed.item(await show(backend, id))


# --- settings ----------------------------------------------------------------------------------------


async def _settings_told(settings: Settings) -> dict[str, Any]:
    return {key: _told(leaf, value_of(settings, key)) for key, leaf in LEAVES.items()}


def _told(leaf: Leaf, value: object) -> dict[str, Any]:
    known = {"is_default": value == leaf.default}
    return {**known, "value": value} if may_be_told(leaf) else known


def may_be_told(leaf: Leaf) -> bool:
    """Tell whether the value is listed, and of a type that holds no text of anybody's choice."""
    section, _, name = leaf.key.rpartition(".")
    is_listed = section in SHOWN or (section.startswith("notifications") and name in SWITCHES)
    return is_listed and all(map(_is_closed, _alternatives(leaf.field.annotation)))


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    is_literal = get_origin(annotation) is Literal
    return (annotation,) if is_literal else get_args(annotation) or (annotation,)


def _is_closed(kind: Any) -> bool:
    return kind in (bool, int, float, type(None)) or get_origin(kind) is Literal
