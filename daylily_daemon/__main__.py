"""``python -m daylily_daemon``; the same as the command ``daylily-daemon``."""

from __future__ import annotations

from daylily_daemon.cli.app import main

if __name__ == "__main__":
    main()
