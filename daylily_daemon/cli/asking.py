"""Commands that ask something of worksets. What becomes of it is a daemon's answer.

Without ``--wait`` they end once the question lies in the queue, which says nothing about the answer. With it
they end with the answer, and with 0 only if it had an effect.
"""

from __future__ import annotations

from typing import Annotated

import typer

from daylily_daemon.cli.groups import flattened
from daylily_daemon.cli.many import Asking, Subjects, ask_of
from daylily_daemon.domain.model import (
    Archive,
    Cancel,
    Delete,
    HostLost,
    Ignore,
    Priority,
    Restore,
    Retry,
    SetPriority,
)

ReasonOption = Annotated[str, typer.Option("--reason", help="For the audit trail.")]


@flattened
def cancel(subjects: Subjects, asking: Asking, reason: ReasonOption = "") -> None:
    """Stop running worksets, or take waiting ones out.

    With --wait it returns when nothing of them runs any more, and with 0 only if that is so.

    Example: daylily-daemon cancel HG002-run7 --reason "wrong flow cell"
    """
    ask_of(subjects, Cancel(reason=reason), asking)


@flattened
def retry(
    subjects: Subjects,
    asking: Asking,
    from_start: Annotated[bool, typer.Option("--from-start", help="Run every step again.")] = False,
    host_gone: Annotated[
        bool,
        typer.Option(
            "--host-gone",
            help="I know that the machine it ran on no longer exists, nor do its jobs.",
        ),
    ] = False,
) -> None:
    """Run failed, parked, canceled or ignored worksets again, from the step that failed.

    With --host-gone also one in progress on a machine that was terminated: no daemon can tell whether its
    job still runs, so somebody has to. A daemon that does reach that machine goes on with the run instead.
    With --wait it returns when it is ready again, not when that run has ended.

    Example: daylily-daemon retry HG002-run7
    """
    ask = HostLost(from_start=from_start) if host_gone else Retry(from_start=from_start)
    ask_of(subjects, ask, asking)


@flattened
def ignore(subjects: Subjects, asking: Asking, reason: ReasonOption = "") -> None:
    """Leave worksets alone until somebody retries them.

    Example: daylily-daemon ignore HG002-test
    """
    ask_of(subjects, Ignore(reason=reason), asking)


@flattened
def priority(
    subjects: Subjects,
    value: Annotated[Priority, typer.Argument(help="How urgent they are now.")],
    asking: Asking,
) -> None:
    """Change the priority of worksets.

    Example: daylily-daemon priority HG002-run7 urgent
    """
    ask_of(subjects, SetPriority(priority=value), asking)


@flattened
def archive(subjects: Subjects, asking: Asking, reason: ReasonOption = "") -> None:
    """Put worksets aside that have come to their end: lists leave them out, and nothing starts them.

    Nothing is removed. `restore` brings one back into the state it was archived in.

    Example: daylily-daemon archive HG002-run7 --wait
    """
    ask_of(subjects, Archive(reason=reason), asking)


@flattened
def restore(subjects: Subjects, asking: Asking) -> None:
    """Bring archived worksets back into the state they were archived in. Nothing is started by that.

    Example: daylily-daemon restore HG002-run7 --wait
    """
    ask_of(subjects, Restore(), asking)


@flattened
def delete(subjects: Subjects, asking: Asking, reason: ReasonOption = "") -> None:
    """Give up archived worksets for good.

    It takes away that the workset can be restored, submitted or run again; its name stays taken. It keeps
    what the table knows, the audit trail, all files in S3 and all folders on hosts.

    Example: daylily-daemon delete HG002-test --reason "only a trial"
    """
    ask_of(subjects, Delete(reason=reason), asking)
