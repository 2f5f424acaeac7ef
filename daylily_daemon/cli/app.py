"""The command line: every command, in the order of ``--help``."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from io import StringIO
from typing import Annotated

import typer

from daylily_daemon.cli import (
    asking,
    demo,
    dlq,
    explain,
    printing,
    run,
    setup,
    status,
    steps,
    submit,
    worksets,
)
from daylily_daemon.cli.options import Exit, UsageError, reporting

app = typer.Typer(
    name="daylily-daemon",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Runs genomics worksets dropped into S3: nothing lost, nothing run twice.\n\n"
    "Exit codes: 0 good, 1 failed, 2 usage or configuration, 3 not found, 4 not reachable.",
)


def _version(wanted: bool) -> None:
    if wanted:
        printing.say(installed_version("daylily-daemon"))
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Options before the command."""


app.command("run")(run.run)
app.command("demo")(demo.demo)
app.command("init")(setup.init)
app.command("check-config")(setup.check_config)
app.command("submit")(submit.submit)
app.command("list")(worksets.list_)
app.command("show")(worksets.show)
app.command("events")(worksets.events)
app.command("logs")(worksets.logs)
app.command("cancel")(asking.cancel)
app.command("retry")(asking.retry)
app.command("ignore")(asking.ignore)
app.command("priority")(asking.priority)
app.command("explain")(explain.explain)
app.command("status")(status.status)
app.add_typer(dlq.app, name="dlq", help="Messages that were given up.")
steps.register(app)


def main() -> None:
    """Run the command of this process; whatever becomes of it, people read sentences."""
    printing.prepare()
    with printing.to_the_end():
        code = _code()
    sys.exit(code)


def _code() -> int:
    try:
        with reporting():
            return int(app(standalone_mode=False) or Exit.OK)
    except UsageError as exc:
        text = StringIO()
        exc.show(file=text)
        printing.complain_as_it_is(text.getvalue().rstrip())
        return int(Exit.USAGE)
    except typer.Exit as exc:
        return exc.exit_code
