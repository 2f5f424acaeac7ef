"""The settings for people: the table of the README and config/default.yaml."""

from __future__ import annotations

import json
import textwrap
from typing import Any, Final

import yaml

from daylily_daemon.settings.keys import LEAVES, OLD_NAMES, Leaf, displayed

WIDTH: Final = 110
HEAD: Final = """\
# Every setting with its default, generated from daylily_daemon/settings/model.py by `make docs`.
# Copy what you change into a file of your own and name it with --config.
# Any setting is also a variable: daemon.sweep_s is DAYLILY_DAEMON__SWEEP_S. Stronger sources win:
# this file, the file of --config, the environment, the command line.
# `daylily-daemon check-config` shows what counts and where it came from; SIGHUP reloads.
"""


def table() -> str:
    """Return every setting as the Markdown table of the README."""
    lines = ["| setting | default | meaning | reload | other variables |", "|---|---|---|---|---|"]
    for key, leaf in LEAVES.items():
        default = "" if leaf.secret else displayed(leaf.default)
        default = f"`{default}`" if default else ""
        names = ", ".join(f"`{name}`" for name in OLD_NAMES.get(key, ()))
        reload = "restart" if leaf.restart else "live"
        lines.append(f"| `{key}` | {default} | {leaf.meaning} | {reload} | {names} |")
    return "\n".join(lines) + "\n"


def default_yaml() -> str:
    """Return every setting with its default, each below its meaning."""
    lines = [HEAD.rstrip()]
    before: list[str] = []
    for leaf in LEAVES.values():
        *sections, name = leaf.key.split(".")
        lines += _headings(before, sections)
        lines.append(textwrap.indent(_setting(name, leaf), "  " * len(sections)))
        before = sections
    return "\n".join(lines) + "\n"


def _headings(before: list[str], sections: list[str]) -> list[str]:
    """Return the lines that open those of ``sections`` that are not open yet."""
    opened = []
    for depth, section in enumerate(sections):
        if sections[: depth + 1] != before[: depth + 1]:
            opened += [""] if depth == 0 else []
            opened.append(f"{'  ' * depth}{section}:")
    return opened


def _setting(name: str, leaf: Leaf) -> str:
    comment = textwrap.fill(
        leaf.meaning,
        WIDTH - 2 * leaf.key.count("."),
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"{comment}\n{name}: {_value(leaf.plain)}"


def _value(value: Any) -> str:
    """Return a value on one line, or a long list on several."""
    written = yaml.safe_dump(value, default_flow_style=True, width=WIDTH - 30)
    written = written.removesuffix("...\n").rstrip()
    return json.dumps(value) if written == "''" else written
