"""An audit record to tell channels of, for every test that needs one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from daylily_daemon.domain.model import Record, RecordType, State, WorksetId

FAILED: Final = Record(
    workset_id=WorksetId("HG002-run7"),
    seq=7,
    at=datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC),
    type=RecordType.ERROR,
    state=State.FAILED,
    previous=State.ERROR,
    message="step run of attempt 2 failed (WS-RES-002). The disk is full.",
    details={"code": "WS-RES-002", "step": "run"},
    customer_id="lab-1",
    cluster_name="hpc-1",
    bucket="lab-bucket",
    prefix="daylily_monitoring/active_worksets/HG002-run7/",
    error_details="OSError: [Errno 28] No space left on device",
    notify=True,
)


def a_record(**changes: Any) -> Record:
    return replace(FAILED, **changes)
