"""Which version this is, and which formats it understands."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

from daylily_daemon.adapters.codec import FORMAT, ITEM_FORMAT


def versions() -> dict[str, Any]:
    """Return what two hosts may differ in. What has a format above the last is left to newer versions."""
    return {
        "program": version("daylily-daemon"),
        "python": platform.python_version(),
        "formats": {
            "items": {"reads": f"up to {ITEM_FORMAT}", "writes": str(ITEM_FORMAT)},
            "messages": {"reads": f"up to {FORMAT}", "writes": str(FORMAT)},
        },
    }
