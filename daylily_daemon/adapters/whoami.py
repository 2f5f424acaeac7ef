"""Who our credentials are, and how long they last."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from daylily_daemon.adapters.aws import Aws, translated
from daylily_daemon.domain.errors import CREDENTIALS, DaemonError
from daylily_daemon.domain.finding import CheckResult, Grade, ok
from daylily_daemon.domain.times import span

REMEDY: Final = "Renew the credentials of this host's role or profile; jobs run on"


async def judged_credentials(aws: Aws, now: datetime) -> Sequence[CheckResult]:
    """Ask STS, which takes no right. Raises Transient where it does not answer."""
    try:
        sts = await aws.client("sts")
        async with translated("who we are"):
            answer = await sts.get_caller_identity()
        ends_at = await aws.credentials_end_at()
    except DaemonError as exc:
        if exc.code != CREDENTIALS:
            raise
        return [refused(exc)]
    return [ok(f"{named(answer)}{_lasting(ends_at, now)}.")]


def refused(error: DaemonError) -> CheckResult:
    """Return what is said of credentials that are missing or not accepted."""
    return CheckResult(grade=Grade.FAIL, text=str(error), remedy=REMEDY)


def named(answer: dict[str, Any]) -> str:
    """Return ``role lab-head of account 111122223333``, whatever its session is called."""
    resource = str(answer.get("Arn", "")).split(":", 5)[-1]
    kind, _, name = resource.partition("/")
    kind = {"assumed-role": "role"}.get(kind, kind)
    name = name.partition("/")[0] if kind == "role" else name
    who = f"{kind} {name}".strip() or "somebody"
    return f"{who} of account {answer.get('Account', '?')}"


def _lasting(ends_at: datetime | None, now: datetime) -> str:
    if ends_at is None:
        return "; when they end, nothing on this host says"
    return f"; {span((ends_at - now).total_seconds())} left, then renewed by the SDK"
