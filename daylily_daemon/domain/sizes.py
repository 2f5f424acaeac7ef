"""Sizes as people read them."""

from __future__ import annotations


def readable(size_bytes: int) -> str:
    """Return a size for people: ``3.4 GB``."""
    size = float(size_bytes)
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
