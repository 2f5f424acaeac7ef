"""``python -m daylily_daemon``; the same as the command ``daylily-daemon``."""

from __future__ import annotations

import sys

from daylily_daemon.adapters import own_process


def main() -> None:
    own_process.names_in_utf8()
    if sys.argv[1:2] == ["run"]:
        own_process.first_of_all()
    from daylily_daemon.cli.app import main as command_line  # noqa: PLC0415 - takes a second

    command_line()


if __name__ == "__main__":
    main()
