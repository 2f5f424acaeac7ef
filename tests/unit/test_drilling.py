"""A drill kills the daemon it has told of, or nobody."""

from __future__ import annotations

import subprocess
from pathlib import Path

import anyio
import pytest

from daylily_daemon.adapters.runners import shim
from daylily_daemon.adapters.runners.procfs import Identity
from daylily_daemon.application.errors import NotFound
from daylily_daemon.composition.drilling import drill
from tests.fakes.store import Table
from tests.unit.backends import a_backend


def test_a_daemon_that_ended_while_somebody_was_asked_is_not_said_to_be_killed(
    tmp_path: Path,
) -> None:
    process = subprocess.Popen(["sleep", "60"])
    daemon = Identity.parse(shim.identity(process.pid))
    process.kill()
    process.wait()
    with pytest.raises(NotFound, match="nothing was killed"):
        anyio.run(drill, a_backend(Table()), tmp_path, daemon, [], 1.0)
