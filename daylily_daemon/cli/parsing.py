"""Commands and groups that convert no value as long as nobody needs one.

The parser converts through pydantic, whose import costs as much as all the rest of a completion. What a shell
asks for is which options there are and which were given; a help needs less than that.
"""

from __future__ import annotations

from typing import Any, Final

from typer.core import TyperCommand, TyperGroup

WATCH: Final = "--watch=2s"
"""What ``--watch`` alone means: the parser has no option whose value may be left out."""


class LazyCommand(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse; for a completion only find out what was given."""
        args = [WATCH if arg == "--watch" else arg for arg in args]
        if not ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        given, rest, _ = self.make_parser(ctx).parse_args(args=args)
        for param in self.get_params(ctx):
            ctx.params[param.name], source = param.consume_value(ctx, given)
            ctx.set_parameter_source(param.name, source)
        ctx.args = rest
        return rest


class LazyGroup(TyperGroup):
    def get_help_option(self, ctx: Any) -> Any:
        """Return the option; that it was not given is False, which nothing has to convert."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option
