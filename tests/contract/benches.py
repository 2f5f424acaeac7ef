"""Every channel with its receiver, and the faults that can be put to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from tests.contract.mail_receivers import ses, smtp, smtp_tls
from tests.contract.pager_receiver import pagerduty
from tests.contract.receivers import (
    Fault,
    Opened,
    linear,
    memory,
    s3_sentinels,
    slack,
    sns,
    sns_fifo,
    webhook,
)
from tests.contract.trace_collector import otlp

UNKNOWN: Final = (Fault.LIMITED, Fault.BROKEN, Fault.UNAVAILABLE, Fault.RESET)
"""Nothing arrived, and asking again helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    open: Callable[[str, float], Opened]
    faults: frozenset[Fault]
    """Those that can be put to this channel."""


_AWS: Final = frozenset({*UNKNOWN, Fault.LOST, Fault.SILENT, Fault.REFUSED})
_ALL: Final = frozenset(Fault)
_SMTP: Final = frozenset(
    {
        *(Fault.BROKEN, Fault.RESET, Fault.NOT_HTTP, Fault.LOST, Fault.SILENT),
        *(Fault.REFUSED, Fault.FORBIDDEN, Fault.NOT_FOUND),
    }
)
"""SMTP asks nobody to wait for some time, and has no redirects."""

BENCHES: Final[Mapping[str, Spec]] = {
    "memory": Spec(open=memory, faults=frozenset({*UNKNOWN, Fault.LOST, Fault.REFUSED})),
    "slack": Spec(open=slack, faults=_ALL),
    "webhook": Spec(open=webhook, faults=_ALL),
    "linear": Spec(open=linear, faults=_ALL),
    "sns": Spec(open=sns, faults=_AWS),
    "sns_fifo": Spec(open=sns_fifo, faults=_AWS),
    "s3_sentinels": Spec(open=s3_sentinels, faults=_AWS),
    "smtp": Spec(open=smtp, faults=_SMTP),
    "smtp_tls": Spec(open=smtp_tls, faults=_SMTP - {Fault.NOT_HTTP}),
    "ses": Spec(open=ses, faults=_AWS),
    "pagerduty": Spec(open=pagerduty, faults=_ALL),
    "otlp": Spec(open=otlp, faults=_ALL),
}
"""A new channel adds one entry and goes through the whole suite."""


def benches(*faults: Fault) -> list[tuple[str, Fault]]:
    """Return every channel with each of these faults that can be put to it."""
    return [
        (name, fault) for name, spec in BENCHES.items() for fault in faults if fault in spec.faults
    ]
