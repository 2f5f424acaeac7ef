"""``version``: what this program is, and which formats it understands."""

from __future__ import annotations

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.options import JsonOption


def version(json: JsonOption = False) -> None:
    """Print the version of the program and of Python, and the formats it reads and writes.

    Example: daylily-daemon version
    """
    found = later.versions.versions()
    if json:
        later.output.print_json(found)
        return
    formats = found["formats"]
    printing.say_facts(
        [
            ("daylily-daemon", found["program"]),
            ("python", found["python"]),
            *((what, f"reads {f['reads']}, writes {f['writes']}") for what, f in formats.items()),
        ]
    )
