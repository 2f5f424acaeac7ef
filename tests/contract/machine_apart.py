"""One call of the real runner on a machine of its own: ``python -m tests.contract.machine_apart CALL JSON``.

Run under ``unshare --mount`` with another file bound over the boot id, that is a second machine from the same
image. Prints one line of JSON: the scope of the runner, and how the call ended.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio

from daylily_daemon.adapters.identity import identified, this_machine
from daylily_daemon.adapters.runners.process import ProcessRunner
from daylily_daemon.domain.errors import DaemonError
from daylily_daemon.domain.model import Job, JobName
from tests.contract.runner_harness import BASE_ENVIRONMENT

ANSWERED_WITHIN_S = 10


async def call(verb: str, asked: dict[str, Any]) -> dict[str, str]:
    home = identified(asked["jobs"], this_machine())
    runner = ProcessRunner(home, base_environment=BASE_ENVIRONMENT, late_record_s=0.1)
    job = Job(
        name=JobName(asked["name"]),
        directory=asked["directory"],
        scope=asked["scope"],
        step="run",
        argv=tuple(asked["argv"]),
    )
    ended = "returned"
    try:
        with anyio.fail_after(ANSWERED_WITHIN_S):
            await getattr(runner, verb)(job)
    except (DaemonError, TimeoutError) as exc:
        ended = f"{type(exc).__name__}: {exc}"
    return {"scope": runner.scope, "ended": ended}


if __name__ == "__main__":
    print(json.dumps(anyio.run(call, sys.argv[1], json.loads(sys.argv[2]))))  # noqa: T201 - its answer
