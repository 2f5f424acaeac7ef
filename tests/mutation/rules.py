"""What is mutated: all that mutmut knows, properties as well, and no wording.

mutmut leaves every decorated function alone. A property is where the domain says what a workset is, so here
its body is mutated like any other: only the decorator stays outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import libcst as cst
import libcst.matchers as m
from mutmut.mutation import file_mutation

_arrange = file_mutation.function_trampoline_arrangement
_PROPERTY: Final = m.Decorator(decorator=m.Name("property"))
_LOG: Final = m.Call(
    func=m.Attribute(
        value=m.Name("log") | m.Name("bound"),
        attr=m.OneOf(*map(m.Name, ("debug", "info", "warning", "error", "exception", "bind"))),
    )
)


class Visitor(file_mutation.MutationVisitor):
    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if _is_property(node):
            return False
        return is_wording(node) or super()._skip_node_and_children(node)


def _is_property(node: cst.CSTNode) -> bool:
    return m.matches(node, m.FunctionDef(decorators=[_PROPERTY]))


def is_wording(node: cst.CSTNode) -> bool:
    """Tell what is for people, whose words no test compares: sentences (they hold blanks), and log lines."""
    if isinstance(node, cst.SimpleString):
        return " " in node.raw_value.strip()
    return m.matches(node, _LOG)


def _with_properties(
    function: cst.FunctionDef,
    mutants: Iterable[file_mutation.Mutation],
    class_name: str | None,
) -> tuple[
    Sequence[file_mutation.MODULE_STATEMENT],
    Sequence[file_mutation.MODULE_STATEMENT],
    Sequence[file_mutation.MODULE_STATEMENT],
    Sequence[str],
]:
    if not _is_property(function):
        return _arrange(function, mutants, class_name)
    bare = function.with_changes(decorators=[])
    before, (switch, *bodies), after, names = _arrange(bare, mutants, class_name)
    inner = cst.ensure_type(switch, cst.FunctionDef).decorators
    outer = switch.with_changes(decorators=[*function.decorators, *inner])
    return before, [outer, *bodies], after, names


def install() -> None:
    file_mutation.MutationVisitor = Visitor  # type: ignore[misc]
    file_mutation.function_trampoline_arrangement = _with_properties
