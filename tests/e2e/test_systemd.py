"""The unit as it is shipped, under a real systemd: whatever ends the daemon, jobs run on, and once.

A job lives in the daemon's own control group, which ``KillMode=process`` spares, or in a unit of its own. A
skip is allowed for want of root alone; what else a machine may lack is a failure that says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from time import monotonic  # noqa: TID251 - how long a stop takes is measured, not waited for

import pytest

from daylily_daemon.domain.model import Ended, State, Workset
from tests.e2e.head_node import SERVICE, HeadNode, Way, installed

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="booting a systemd takes root")

STOPPED_WITHIN_S = 20.0
"""daemon.stop_deadline_s. TimeoutStopSec, after which systemd would kill, is far longer."""
NOBODY_LISTENS = "http://127.0.0.1:9"

every_way = pytest.mark.parametrize("head", list(Way), indirect=True)
in_session = pytest.mark.parametrize("head", [Way.SESSION], indirect=True)
with_linger = pytest.mark.parametrize("head", [Way.LINGER], indirect=True)
as_root = pytest.mark.parametrize("head", [Way.ROOT], indirect=True)


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest, moto_url: str) -> Iterator[HeadNode]:
    with installed(moto_url, request.param) as found:
        yield found


@pytest.fixture
def head(request: pytest.FixtureRequest) -> HeadNode:
    raise NotImplementedError
