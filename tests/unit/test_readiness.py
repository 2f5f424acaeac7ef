"""When a daemon is ready: a young pass, and answers of what it cannot do without."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from daylily_daemon.domain.daemon import Port, Status
from daylily_daemon.domain.readiness import why_not_ready

NOW: Final = datetime(2026, 3, 1, tzinfo=UTC)
GOOD: Final = Port(good_at=NOW)
BAD: Final = Port(
    failing_since=NOW - timedelta(seconds=40), failures=9, text="It refuses.", good_at=NOW
)
ONCE: Final = replace(BAD, failures=1)
PORTS: Final = {"turns": GOOD, "levels": GOOD}
READY: Final = Status(pid=1, seen_at=NOW, seen_monotonic_s=1000.0, sweep_s=15.0, ports=PORTS)


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, ()),
        ({"ports": PORTS | {"worksets": ONCE}}, ()),
        ({"ports": PORTS | {"channel:slack": BAD, "drops": BAD}}, ()),
        ({"ports": PORTS | {"worksets": BAD}}, ("DynamoDB fails: It refuses.",)),
        ({"ports": PORTS | {"intake": BAD}}, ("SQS fails: It refuses.",)),
        ({"ports": {"levels": GOOD}}, ("DynamoDB has not answered yet.",)),
        ({"ports": {"turns": GOOD, "intake": Port()}}, ("SQS has not answered yet.",)),
        ({"seen_monotonic_s": 911.0}, ()),
        ({"seen_monotonic_s": 909.0}, ("The last pass was finished 91 s ago.",)),
        ({"seen_monotonic_s": 1.0, "sweep_s": 500.0}, ()),
        ({"seen_monotonic_s": None}, ("It has not finished a pass yet.",)),
        ({"seen_monotonic_s": None, "trouble": "No table."}, ("No table.",)),
        ({"stopping_at": NOW}, ("It is stopping.",)),
    ],
)
def test_a_daemon_is_ready_after_a_young_pass_and_with_answers_of_tables_and_queues(
    changes: dict[str, Any], reasons: tuple[str, ...]
) -> None:
    assert why_not_ready(replace(READY, **changes), NOW, 1000.0) == reasons
