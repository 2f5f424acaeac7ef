"""Safe YAML: plain data, small, and every complaint with its line.

PyYAML scans and parses; turning its nodes into data is done here, because its own constructors raise
foreign errors on odd scalars, keep the last of two equal keys in silence, and follow YAML 1.1, where
``0012`` is 10, ``no`` is false and ``12:30`` is 750. A lab writes sample names like these, so only what
reads the same either way is a number: ``12``, ``-3``, ``0.5``. ``true``, ``false`` and ``null`` are what
they say. All else is text, and the keys of mappings always are.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from daylily_daemon.domain.errors import DaemonError
from daylily_daemon.domain.model import Category, Problem

MAX_BYTES: Final = 256 * 1024
MAX_ALIASES: Final = 10
MAX_DEPTH: Final = 30
MAX_NODES: Final = 20_000
"""Keys and values, lists and mappings; what is repeated by aliases counts once."""

_TAG: Final = "tag:yaml.org,2002:"
_PLAIN: Final = {
    f"{_TAG}null": (re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    f"{_TAG}bool": (re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")),
    f"{_TAG}int": (re.compile(r"0|-?[1-9][0-9]{0,17}"), list("-0123456789")),
    f"{_TAG}float": (re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}"), list("-0123456789")),
}
"""Tag to what a scalar must look like, and the characters it may begin with."""

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})
"""General categories of Unicode: control, format, surrogate, line, paragraph and space."""


Entry = tuple[yaml.Node, yaml.Node]
"""The node that marks a place, and the value there."""


class BadDocument(DaemonError):
    """A file that cannot be read at all; ``problem`` says where, why and what to do."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML file as plain data (dict with text keys, list, str, int, float, bool, None)."""

    file: str
    value: Any
    _root: yaml.Node | None = field(repr=False, compare=False)
    _children: dict[int, dict[str, Entry]] = field(default_factory=dict, repr=False, compare=False)
    """By identity of a mapping's node: what stands under each key."""

    def line_of(self, *path: str | int) -> int | None:
        """Return the 1-based line of a key (of the value, for a list position); None if absent."""
        found = self._find(path)
        return found[0].start_mark.line + 1 if found else None

    def text_of(self, *path: str | int) -> str | None:
        """Return a scalar as it is written, ``1.10`` and not 1.1; None if absent or no scalar."""
        found = self._find(path)
        return found[1].value if found and isinstance(found[1], yaml.ScalarNode) else None

    def mapping(self) -> Mapping[str, Any]:
        """Return the top level. Raises BadDocument if it is not a mapping of keys to values."""
        if isinstance(self.value, dict):
            return self.value
        what = "The file is empty" if self.value is None else "The top level is not a mapping"
        what += "; lines of the form `key: value` were expected."
        raise _bad(self.file, 1, what, "Write one key and its value a line.")

    def _find(self, path: tuple[str | int, ...]) -> Entry | None:
        """Return the node that marks the place of ``path``, and its value."""
        if self._root is None:
            return None
        found = (self._root, self._root)
        for part in path:
            inner = self._child(found[1], part)
            if inner is None:
                return None
            found = inner
        return found

    def _child(self, node: yaml.Node, part: str | int) -> Entry | None:
        if isinstance(node, yaml.MappingNode) and isinstance(part, str):
            if id(node) not in self._children:
                self._children[id(node)] = {key.value: (key, value) for key, value in node.value}
            return self._children[id(node)].get(part)
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            return next(((item, item) for item in node.value[part : part + 1]), None)
        return None


def parse(data: bytes, file: str, *, max_bytes: int = MAX_BYTES) -> Document:
    """Return what ``data`` says. Raises BadDocument, and nothing else, whatever the bytes are."""
    if len(data) > max_bytes:
        what = f"The file has {len(data):,} bytes; at most {max_bytes:,} are allowed."
        raise _bad(file, None, what, "Shorten it; data belongs into files of its own.")
    text = decode_text(data, file, category=Category.CONFIGURATION)
    root = _composed(text, file)
    return Document(file, None if root is None else _Building(file).value(root), root)


def decode_text(data: bytes, file: str, *, category: Category = Category.DATA) -> str:
    """Return UTF-8 text without its byte order mark. Raises BadDocument for anything else."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or _looks_like_utf16(data):
        what = "The file is saved as UTF-16; UTF-8 was expected."
        raise _bad(file, 1, what, "Save it as UTF-8 and upload it again.", category)
    if b"\0" in data:
        what = "There is a NUL byte, so this is no plain text file (a workbook or an archive?)."
        todo = "Save it as plain text in UTF-8 and upload it again."
        raise _bad(file, _line_at(data, data.index(0)), what, todo, category)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        byte = exc.object[exc.start]
        what = (
            f"The byte 0x{byte:02X} is not UTF-8; the file may be saved as Latin-1 or Windows-1252."
        )
        todo = "Save it as UTF-8 and upload it again."
        raise _bad(file, _line_at(exc.object, exc.start), what, todo, category) from None


def shown(text: str, limit: int = 80) -> str:
    """Return foreign text for a message: in quotes, on one line, cut at ``limit`` characters."""
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def unseen(text: str) -> str:
    """Return the first character of ``text`` that nobody can see, as ``U+00A0``; empty if none.

    These are control and format characters and every space but the plain one: what comes along
    when text is copied from a web page or a word processor.
    """
    if text.isprintable():
        return ""
    odd = (char for char in text if char != " " and unicodedata.category(char) in _UNSEEN)
    return next((f"U+{ord(char):04X}" for char in odd), "")


def _composed(text: str, file: str) -> yaml.Node | None:
    nodes = None
    try:
        nodes = _Nodes(text, file)
        return nodes.get_single_node()
    except yaml.MarkedYAMLError as exc:
        raise _bad_syntax(file, exc) from None
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        what = f"The character U+{exc.character:04X} is not allowed in YAML."
        raise _bad(file, line, what, "Remove it.") from None
    except (ValueError, OverflowError):
        what = "It is not valid YAML: a number in an escape or a directive is out of range."
        todo = "Correct it; mostly a backslash within double quotes."
        raise _bad(file, nodes.line + 1 if nodes else 1, what, todo) from None


def _looks_like_utf16(data: bytes) -> bool:
    """Tell whether every second byte of the beginning is NUL, as in UTF-16 without a mark."""
    head = data[:64]
    return len(head) >= 4 and (not any(head[1::2]) or not any(head[::2])) and any(head)


def _line_at(data: bytes, offset: int) -> int:
    return len(_LINE_END.findall(data, 0, offset)) + 1


def _bad(
    file: str,
    line: int | None,
    what: str,
    todo: str,
    category: Category = Category.CONFIGURATION,
) -> BadDocument:
    return BadDocument(Problem(file, f"line {line}" if line else "", what, todo, category))


def _bad_syntax(file: str, exc: yaml.MarkedYAMLError) -> BadDocument:
    mark = exc.problem_mark or exc.context_mark
    reason = ", ".join(part for part in (exc.context, exc.problem) if part)
    todo = "Correct the line; compare indentation, quotes, brackets and the space after a colon."
    if "\\t" in reason:
        todo = "Use spaces to indent, never tabs."
    return _bad(file, mark.line + 1 if mark else None, f"It is not valid YAML: {reason}.", todo)


class _Nodes(yaml.SafeLoader):
    """Composes nodes only, counting depth and aliases before they can hurt."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  (PyYAML's way; filled below)

    def __init__(self, text: str, file: str) -> None:
        super().__init__(text)
        self._file = file
        self._aliases = 0
        self._depth = 0
        self._count = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
        line = event.start_mark.line + 1
        self._aliases += isinstance(event, yaml.AliasEvent)
        self._depth += 1
        self._count += 1
        if self._count > MAX_NODES:
            what = f"There are more than {MAX_NODES:,} keys and values."
            raise _bad(self._file, line, what, "Shorten it; data belongs into files of its own.")
        if self._aliases > MAX_ALIASES:
            what = f"There are more than {MAX_ALIASES} aliases (`*name`)."
            raise _bad(self._file, line, what, "Write the values out.")
        if self._depth > MAX_DEPTH:
            what = f"Values are nested more than {MAX_DEPTH} levels deep."
            raise _bad(self._file, line, what, "Write it flatter.")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


for _tag, (_pattern, _first) in _PLAIN.items():
    _Nodes.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern.pattern})\Z"), _first)


class _Building:
    """Turns nodes into plain data; a node that several aliases name becomes one shared value."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._built: dict[int, Any] = {}
        self._open: set[int] = set()

    def value(self, node: yaml.Node) -> Any:
        key = id(node)
        if key in self._open:
            raise self._refuse(node, "An alias stands within the value it names.", "Write it out.")
        if key not in self._built:
            self._open.add(key)
            self._built[key] = self._make(node)
            self._open.remove(key)
        return self._built[key]

    def _make(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [self.value(item) for item in node.value]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        raise self._bad_tag(node)

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        made: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            line = key_node.start_mark.line + 1
            if key in made:
                what = f"The key {shown(key)} is there twice, on line {lines[key]} and line {line}."
                raise _bad(self._file, line, what, "Keep one of the two.")
            lines[key] = line
            made[key] = self.value(value_node)
        return made

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._refuse(node, "A key is a list or a mapping.", "Use plain text as the key.")
        if node.value == "<<" and node.style is None:
            raise self._refuse(node, "Merge keys (`<<`) are not supported.", "Write the keys out.")
        self._scalar(node)
        return str(node.value)

    def _scalar(self, node: yaml.ScalarNode) -> str | int | float | bool | None:
        text = str(node.value)
        if _SURROGATE.search(text):
            what = "An escape names half a character (a surrogate, \\uD800 to \\uDFFF)."
            raise self._refuse(node, what, "Write the character itself.")
        if node.tag == f"{_TAG}str":
            return text
        if node.tag not in _PLAIN or not _PLAIN[node.tag][0].fullmatch(text):
            raise self._bad_tag(node)
        return _converted(node.tag, text)

    def _bad_tag(self, node: yaml.Node) -> BadDocument:
        tag = str(node.tag).replace(_TAG, "!!")
        what = f"The tag {shown(tag)} is not allowed here, or does not fit its value."
        return self._refuse(node, what, "Remove the tag.")

    def _refuse(self, node: yaml.Node, what: str, todo: str) -> BadDocument:
        return _bad(self._file, node.start_mark.line + 1, what, todo)


def _converted(tag: str, text: str) -> int | float | bool | None:
    if tag == f"{_TAG}null":
        return None
    if tag == f"{_TAG}bool":
        return text.lower() == "true"
    return int(text) if tag == f"{_TAG}int" else float(text)
