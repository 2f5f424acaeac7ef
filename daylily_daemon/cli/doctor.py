"""``doctor``: looks at everything a daemon of this host needs, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import anyio
import typer

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.answers import asked_by
from daylily_daemon.cli.options import (
    ConfigOption,
    Exit,
    JsonOption,
    SetOption,
    reporting,
    sources,
)
from daylily_daemon.domain.finding import CheckName, CheckResult, Grade

if TYPE_CHECKING:
    from daylily_daemon.application.examining import Examined
    from daylily_daemon.settings.sources import Sources

ChecksArgument = Annotated[
    list[CheckName] | None,
    typer.Argument(
        metavar="[CHECK]...", help="Only these; all without a name.", show_default=False
    ),
]
SendOption = Annotated[
    bool, typer.Option("--send", help="Send a test message through every channel.")
]
NAME_SIZE: Final = max(len(name) for name in CheckName)


def doctor(
    checks: ChecksArgument = None,
    send: SendOption = False,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Check everything a daemon of this host needs, and say what to do. Changes nothing.

    The exit code is 0 if nothing fails (warnings too), 1 if a check fails, and 4 if one could not tell.
    Run it as the user of the daemon: it has that user's credentials then.

    Example: daylily-daemon doctor
    """
    with reporting():
        where = sources(config, set_, "control.bucket")
    later.telemetry.configure("error", json=False)
    with reporting():
        found = anyio.run(_examined, where, checks or list(CheckName), send)
    if json:
        later.output.print_json(_as_json(found))
    else:
        _say(found)
    raise typer.Exit(int(_code(found)))


async def _examined(where: Sources, names: list[CheckName], send: bool) -> Sequence[Examined]:
    """Settings that cannot be read leave the one check that says so, whichever was asked for."""
    async with later.inspection.open_checks(where, asked_by(), send=send) as checks:
        wanted = [check for check in checks if check.name in names]
        return await later.examining.examined(wanted or checks)


def _code(found: Sequence[Examined]) -> Exit:
    grades = {one.grade for one in found}
    if Grade.FAIL in grades:
        return Exit.FAILED
    return Exit.NOT_REACHABLE if Grade.UNKNOWN in grades else Exit.OK


def _say(found: Sequence[Examined]) -> None:
    printing.say_facts(
        (f"{n:>2} {one.grade:<7} {one.name:<{NAME_SIZE}}", "\n".join(_lines(one)))
        for n, one in enumerate(found, start=1)
    )
    printing.say(_verdict(found))


def _lines(one: Examined) -> Iterator[str]:
    for finding in one.findings:
        yield finding.text
        yield from _to_do(finding)


def _to_do(finding: CheckResult) -> Iterator[str]:
    """Yield the remedy, and the command on a line of its own, as ``status`` shows it."""
    end = ":" if finding.command else "."
    if finding.remedy or finding.command:
        yield f"do: {finding.remedy.rstrip('.')}{end}" if finding.remedy else "do:"
    if finding.command:
        yield f"$ {finding.command}"


def _verdict(found: Sequence[Examined]) -> str:
    fail, unknown = (
        sum(one.grade is grade for one in found) for grade in (Grade.FAIL, Grade.UNKNOWN)
    )
    said = [f"{fail} of {len(found)} fail"] if fail else []
    said += [f"{unknown} of {len(found)} could not tell"] if unknown else []
    return f"{', '.join(said)}." if said else "Nothing fails."


def _as_json(found: Sequence[Examined]) -> dict[str, Any]:
    return {
        "exit_code": int(_code(found)),
        "checks": [
            {"name": one.name, "grade": one.grade, "findings": [_shape(f) for f in one.findings]}
            for one in found
        ],
    }


def _shape(finding: CheckResult) -> dict[str, str]:
    return {
        "grade": finding.grade,
        "text": finding.text,
        "remedy": finding.remedy,
        "command": finding.command,
    }
