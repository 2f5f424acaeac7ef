"""The command line: every command, in the order of ``--help``.

The table says of each command what the list of them shows, so that a help and the completion of a shell need
none of them. The module of a command is imported when that command is chosen.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from io import StringIO
from typing import Annotated, Any, Final, NamedTuple

import typer
from typer import _completion_classes as completion
from typer import _completion_shared as completion_shared
from typer.core import TyperCommand

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.options import CONFIG, Exit, UsageError, reporting
from daylily_daemon.cli.parsing import LazyCommand, LazyGroup


class Entry(NamedTuple):
    """What is known of a command before it is imported."""

    place: str
    """The module in this package, and the function or the group of commands in it."""
    line: str
    """The first line of its help."""


COMMANDS: Final[Mapping[str, Entry]] = {
    "run": Entry(
        "run.run", "Run the daemon in the foreground until SIGTERM; SIGHUP reloads the settings."
    ),
    "demo": Entry(
        "demo.demo",
        "Run sample worksets from drop to results on an emulated AWS, and show every step.",
    ),
    "init": Entry(
        "setup.init",
        "Make or complete tables, queues, topic and bucket notification. Running it twice changes nothing.",
    ),
    "check-config": Entry(
        "setup.check_config",
        "Print the settings that would be in force and where each comes from, or every problem at once.",
    ),
    "submit": Entry(
        "submit.submit",
        "Submit a workset: a folder of the control bucket, or a local folder, which is uploaded first.",
    ),
    "list": Entry(
        "listing.list_",
        "List worksets: those that run, that need somebody, that wait, and that are over.",
    ),
    "show": Entry("worksets.show", "Show everything about one workset."),
    "events": Entry("worksets.events", "Show the audit trail of one workset, oldest first."),
    "logs": Entry(
        "worksets.logs",
        "Print the log of a workset's job: on the host that runs it, or as `prune` has kept it.",
    ),
    "cancel": Entry("asking.cancel", "Stop running worksets, or take waiting ones out."),
    "retry": Entry(
        "asking.retry",
        "Run failed, parked, canceled or ignored worksets again, from the step that failed.",
    ),
    "ignore": Entry("asking.ignore", "Leave worksets alone until somebody retries them."),
    "priority": Entry("asking.priority", "Change the priority of worksets."),
    "rerun": Entry(
        "rerun.rerun",
        "Run the files of a workset that has ended once more, as a workset of another name.",
    ),
    "archive": Entry(
        "asking.archive",
        "Put worksets aside that have come to their end: lists leave them out, and nothing starts them.",
    ),
    "restore": Entry(
        "asking.restore",
        "Bring archived worksets back into the state they were archived in. Nothing is started by that.",
    ),
    "delete": Entry("asking.delete", "Give up archived worksets for good."),
    "explain": Entry("explain.explain", "Say why a workset is where it is, and what to do."),
    "status": Entry(
        "status.status",
        "Show what is wrong and what to do about it, all daemons, worksets by state, and the queues.",
    ),
    "top": Entry(
        "top.top",
        "Show what runs: the step, for how long, how quiet it is, processors and memory.",
    ),
    "doctor": Entry(
        "doctor.doctor",
        "Check everything a daemon of this host needs, and say what to do. Changes nothing.",
    ),
    "notify": Entry("notify.app", "Channels: how they stand, and a test message."),
    "drain": Entry(
        "draining.drain",
        "Let a daemon start nothing new. What runs there runs on; what waits is left to other daemons.",
    ),
    "resume": Entry("draining.resume", "Let a drained daemon start worksets again."),
    "reload": Entry(
        "reloading.reload",
        "Have the daemon of this host read its settings and pipelines again, as SIGHUP does.",
    ),
    "drill": Entry(
        "drill.drill", "Kill the daemon of this host on purpose, and show that every run went on."
    ),
    "stage": Entry(
        "steps.stage",
        "Bring recipe, sample sheet and all input files of a workset to a local folder.",
    ),
    "export": Entry(
        "steps.export",
        "Copy every file of a folder to S3, except those S3 has already with the same content.",
    ),
    "fastq-report": Entry(
        "steps.fastq_report",
        "Read all FASTQ files of a sample sheet and report reads, bases, GC and mean quality a sample.",
    ),
    "collect-metrics": Entry(
        "steps.collect_metrics",
        "Count files and bytes of the results, and samples, reads and bases where summary.tsv has them.",
    ),
    "prune": Entry(
        "prune.prune",
        "Remove the folders that complete worksets have left on this host, to make room.",
    ),
    "support-bundle": Entry(
        "support.support_bundle",
        "Write a file with what others need to help: versions, status, findings, log, and chosen worksets.",
    ),
    "daemon": Entry("daemons.app", "Daemons and what they hold."),
    "dlq": Entry("dlq.app", "Messages that were given up."),
    "help": Entry("guidance.help_", "Show the help of a command, or the list of all."),
    "completion": Entry(
        "guidance.completion",
        "Print what makes a shell complete commands, options and ids of worksets.",
    ),
    "version": Entry(
        "version.version",
        "Print the version of the program and of Python, and the formats it reads and writes.",
    ),
}


class CommandTable(LazyGroup):
    """Lists the commands by their lines; the one that is chosen is imported whole."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, entry in COMMANDS.items():
            self.add_command(TyperCommand(name, help=entry.line))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _after_config(ctx, list(args)))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, listed, rest = super().resolve_command(ctx, args)
        return name, imported(name) if listed and name else None, rest

    def invoke(self, ctx: Any) -> Any:
        """End as SIGPIPE would where the reader went away: the parser would make that a failure."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise typer.Exit(printing.BROKEN_PIPE) from None


def imported(name: str) -> Any:
    """Return a command with its options, of the module it is in."""
    module, _, what = COMMANDS[name].place.partition(".")
    found = getattr(import_module(f"daylily_daemon.cli.{module}"), what)
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name, cls=LazyCommand)(found)
    return typer.main.get_command(alone)


def _after_config(ctx: Any, args: list[str]) -> list[str]:
    """Take a ``--config`` that stands before the command as the variable that every command reads.

    As an option of the program it would cost each help and completion the library that converts values.
    """
    name, equals, value = args[0].partition("=") if args else ("", "", "")
    if name not in ("--config", "-c"):
        return args
    if not equals and len(args) < 2:
        ctx.fail(f"Option {name!r} requires an argument.")
    os.environ[CONFIG] = value if equals else args[1]
    return args[1:] if equals else args[2:]


def command_of(group: Any, name: str) -> Any:
    """Return a command of a group with its options; None if there is none of this name."""
    if isinstance(group, CommandTable):
        return imported(name) if name in COMMANDS else None
    return getattr(group, "commands", {}).get(name)


def completion_script(program: str, shell: str) -> str:
    """Return what a shell evaluates to complete the words behind ``program``."""
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    return str(
        completion_shared.get_completion_script(
            prog_name=program, complete_var=variable, shell=shell
        )
    )


def whole_program() -> Any:
    """Return the program with every command imported, as its documentation needs it."""
    program = typer.main.get_command(app)
    for name in COMMANDS:
        program.add_command(imported(name), name)  # type: ignore[attr-defined]
    return program


app = typer.Typer(
    cls=CommandTable,
    name="daylily-daemon",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Runs genomics worksets dropped into S3: nothing lost, nothing run twice.\n\n"
    "--config FILE may also stand before the command.\n\n"
    "Exit codes: 0 good, 1 failed, 2 usage or configuration, 3 not found, 4 not reachable.",
)


def _version(wanted: bool) -> None:
    if wanted:
        printing.say(later.metadata.version("daylily-daemon"))
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Options before the command."""


def main() -> None:
    """Run the command of this process; whatever becomes of it, people read sentences."""
    printing.prepare()
    _prepare_completion()
    with printing.to_the_end():
        code = _code()
    sys.exit(code)


def _prepare_completion() -> None:
    """Teach the parser its shells, and that no help here has markup, which a library would be loaded for."""
    completion.completion_init()
    completion._sanitize_help_text = lambda text: text


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
