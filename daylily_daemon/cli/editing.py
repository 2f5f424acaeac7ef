"""Text in the editor of whoever sits at the terminal."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from daylily_daemon.cli import printing
from daylily_daemon.cli.options import Failed, Usage


def edited(text: str) -> str:
    """Return what becomes of ``text`` in ``$VISUAL``, ``$EDITOR`` or vi. Raises Usage and Failed."""
    if not printing.somebody_is_there():
        raise Usage("There is no terminal to edit at: give --set or --body.")
    command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    with tempfile.TemporaryDirectory(prefix="daylily-") as folder:  # for this user alone
        file = Path(folder, "message.json")
        file.write_text(text, encoding="utf-8")
        try:
            code = subprocess.run([*command, str(file)], check=False).returncode
        except OSError as exc:
            raise Failed(f"{command[0]} cannot be run: {exc.strerror}. Set EDITOR.") from exc
        if code:
            raise Failed(f"{command[0]} ended with {code}, so nothing was changed.")
        return file.read_text(encoding="utf-8", errors="replace")
