"""The man page, from the same help as ``--help``: ``docs/daylily-daemon.1``.

Prints it; with ``--write`` it is written. What a help says becomes roff, with everything escaped that roff
obeys.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from daylily_daemon.cli.app import whole_program

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "daylily-daemon.1"
NAME: Final = "daylily-daemon"


def page() -> str:
    """Return the page."""
    program = whole_program()
    told, *rest = program.help.split("\n\n")
    lines = [
        f'.TH {NAME.upper()} 1 "" "{NAME}" "User Commands"',
        ".SH NAME",
        f"{escaped(NAME)} \\- {escaped(told[0].lower() + told[1:].rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {escaped(NAME)}",
        "[\\fB\\-\\-config\\fR \\fIFILE\\fR] \\fICOMMAND\\fR [\\fIOPTIONS\\fR]",
        ".SH DESCRIPTION",
        *paragraphs("\n\n".join(rest)),
        ".SH COMMANDS",
    ]
    for path, command in leaves("", program):
        lines += list(section(path, command))
    lines += [
        ".SH ENVIRONMENT",
        ".TP",
        ".B DAYLILY_CONFIG",
        "The settings file, where no option does.",
    ]
    return "\n".join(lines) + "\n"


def leaves(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    for name, inner in command.commands.items():
        if hasattr(inner, "commands"):
            yield from leaves(f"{path}{name} ", inner)
        else:
            yield path + name, inner


def section(path: str, command: Any) -> Iterator[str]:
    arguments = [p.metavar or p.name.upper() for p in command.params if is_argument(p)]
    yield f'.SS "{escaped(" ".join([path, *arguments]))}"'
    yield from paragraphs(command.help or "")
    for param in command.params:
        if is_argument(param) or not param.help:
            continue
        names = ", ".join(f"\\fB{escaped(name)}\\fR" for name in reversed(param.opts))
        yield ".TP"
        value = param.metavar or ("" if getattr(param, "is_flag", False) else param.name.upper())
        yield names + (f" \\fI{escaped(value.rstrip('_'))}\\fR" if value else "")
        yield line(param.help)


def is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


def paragraphs(text: str) -> Iterator[str]:
    for part in text.strip().split("\n\n"):
        yield ".PP"
        yield line(" ".join(part.split()))


def line(text: str) -> str:
    """Return a line of text that roff takes for nothing else."""
    found = escaped(text)
    return f"\\&{found}" if found.startswith((".", "'")) else found


def escaped(text: str) -> str:
    found = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return re.sub(r"[`']", lambda sign: {"`": "\\(ga", "'": "\\(aq"}[sign[0]], found)


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
