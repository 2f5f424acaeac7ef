"""Groups of options that several commands take, written once.

A command names a group, a dataclass whose fields are options, as the type of a parameter; ``flattened`` shows
the parser the options in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from daylily_daemon.cli import later, printing
from daylily_daemon.cli.options import ConfigOption, JsonOption, SetOption, Usage, loaded, seconds
from daylily_daemon.domain.model import State

if TYPE_CHECKING:
    from daylily_daemon.application.queries import Listing
    from daylily_daemon.settings.sources import Loaded


def flattened(function: Callable[..., None]) -> Callable[..., None]:
    """Return ``function`` with the options of its groups in place of them."""
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}

    def command(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        function(**given)

    params = list(_flat(function, hints))
    command.__signature__ = Signature(params)  # type: ignore[attr-defined]
    command.__annotations__ = {param.name: param.annotation for param in params}
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__module__ = function.__module__
    return command


def _flat(function: Callable[..., None], hints: dict[str, Any]) -> Iterator[Parameter]:
    for name, param in signature(function).parameters.items():
        kind = hints[name]
        if not is_dataclass(kind):
            yield param.replace(kind=Parameter.KEYWORD_ONLY, annotation=kind)
            continue
        inner = get_type_hints(kind, include_extras=True)
        for field in fields(kind):
            default = Parameter.empty if field.default is MISSING else field.default
            yield Parameter(
                field.name, Parameter.KEYWORD_ONLY, default=default, annotation=inner[field.name]
            )


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where the settings come from."""

    config: ConfigOption = None
    set_: SetOption = None

    def loaded(self, *required: str) -> Loaded:
        return loaded(self.config, self.set_, *required)


class Shape(StrEnum):
    """What a command prints instead of what suits a terminal."""

    JSON = "json"
    JSONL = "jsonl"
    WIDE = "wide"
    NAME = "name"


@dataclass(frozen=True, kw_only=True)
class Output:
    json: JsonOption = False
    output: Annotated[
        Shape | None,
        typer.Option(
            "--output",
            "-o",
            help="json: one document; jsonl: one line each; wide: every column; name: ids alone.",
        ),
    ] = None

    @property
    def shape(self) -> Shape | None:
        """Return what is wanted; None for what people read. Raises Usage for two things at once."""
        if self.json and self.output not in (None, Shape.JSON):
            raise Usage(f"--json and -o {self.output} are two things; give one of them.")
        return Shape.JSON if self.json else self.output


@dataclass(frozen=True, kw_only=True)
class WatchOption:
    watch: Annotated[
        str,
        typer.Option(
            "--watch",
            metavar="[=AGE]",
            help="Go on, with a look every 2 s or as given: redraw on a terminal, else a line a change.",
        ),
    ] = ""

    @property
    def every_s(self) -> float | None:
        """Return the time between two looks, None for one look. Raises Usage."""
        every_s = age_s(self.watch)
        if every_s is not None and every_s < 1:
            raise Usage("--watch takes at least 1s between two looks.")
        return every_s

    @staticmethod
    def as_lines(shape: Shape | None) -> bool:
        """Tell whether changes are printed as lines of JSON, and not drawn."""
        return shape in (Shape.JSON, Shape.JSONL) or not printing.is_terminal()


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which worksets: the same for whoever lists them and for whoever asks something of them."""

    state: Annotated[
        list[State] | None, typer.Option("--state", help="Only these states; may be repeated.")
    ] = None
    customer: Annotated[str, typer.Option("--customer", help="Only this customer.")] = ""
    code: Annotated[
        str, typer.Option("--code", help="Only those that failed so, as WS-RES-001.")
    ] = ""
    pipeline: Annotated[str, typer.Option("--pipeline", help="Only of this pipeline.")] = ""
    since: Annotated[
        str, typer.Option("--since", metavar="AGE", help="In their state for less than: 90m, 12h.")
    ] = ""
    older: Annotated[
        str, typer.Option("--older", metavar="AGE", help="In their state for more than: 7d, 4w.")
    ] = ""
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="NAME", help="Held by this daemon, or run last on this machine."
        ),
    ] = ""

    @property
    def are_given(self) -> bool:
        return self != Filters() and self != Filters(state=[])

    def listing(self, **more: Any) -> Listing:
        """Return what is wanted, as the application takes it. Raises Usage for what is no age."""
        return later.queries.Listing(
            states=tuple(self.state or ()),
            customer=self.customer,
            code=self.code,
            pipeline=self.pipeline,
            host=self.host,
            since_s=age_s(self.since),
            older_s=age_s(self.older),
            **more,
        )


def age_s(text: str) -> float | None:
    """Return an age in seconds, None where none is given. Raises Usage."""
    return seconds(text) if text else None
