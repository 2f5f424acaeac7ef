"""The documentation says what the program does: generated parts, links, commands, settings, permissions."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from daylily_daemon.cli.app import whole_program
from daylily_daemon.settings.keys import LEAVES
from tests.arch.repository import ROOT, files

PACKAGE: Final = ROOT / "daylily_daemon"
GENERATOR: Final = ROOT / "scripts" / "generate_docs.py"
PAGES: Final = [path for path in files() if path.suffix == ".md"]
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE: Final = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
SETTING: Final = re.compile(r"(?<![\w./-])([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+)(?![\w./-])")
FILE_ENDINGS: Final = {"json", "yaml"} | {path.suffix[1:] for path in files() if path.suffix}
SECTIONS: Final = {key[: at.start()] for key in LEAVES for at in re.finditer(r"\.", key)}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    return FENCE.sub("", text_of(page))


# Generated parts


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, str(GENERATOR), *arguments),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def test_generated_parts_are_fresh() -> None:
    answer = generate("--check")
    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<!-- generated: limits -->\nold\n<!-- end -->\n", "README.md is stale"),
        ("<!-- generated: nothing -->\n<!-- end -->\n", "nobody generates a block called nothing"),
        ("<!-- generated: limits -->\n", "has no end"),
    ],
)
def test_a_part_that_is_not_as_generated_is_named(
    tmp_path: Path, text: str, complaint: str
) -> None:
    (tmp_path / "README.md").write_text(text)
    answer = generate("--check", str(tmp_path))
    assert answer.returncode == 1
    assert complaint in answer.stderr
    assert (tmp_path / "README.md").read_text() == text


def test_a_stale_part_is_written_anew_and_then_fresh(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "a\n<!-- generated: limits -->\nstale line\n<!-- end -->\nb\n"
    )
    assert generate(str(tmp_path)).returncode == 0
    assert "stale line" not in (tmp_path / "README.md").read_text()
    assert generate("--check", str(tmp_path)).returncode == 0


# Links


def anchors(page: Path) -> set[str]:
    """Return what can stand behind ``#``, as GitHub makes it of headings."""
    headings = HEADING.findall(prose(page))
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def broken_links(page: Path) -> Iterator[str]:
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


@by_page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Here it is\n[a](#here-it-is) [b](#there) [c](gone.md) [d](page.md#here-it-is)\n"
    )
    assert list(broken_links(page)) == ["#there", "gone.md"]


# Commands


def command_lines(page: Path) -> Iterator[list[str]]:
    """Yield the words of every call of our program or of make, in fenced blocks and in backticks."""
    lines = [
        line
        for language, block in FENCE.findall(text_of(page))
        if language in ("sh", "")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    lines += [" ".join(code.split()) for code in CODE.findall(prose(page))]
    for line in lines:
        called = re.match(r"\s*(?:\$ |sudo (?:-u \w+ )?)?((?:daylily-daemon|make)\b.*)", line)
        if called and not re.match(r"daylily-daemon[./@]", called[1]):
            yield shlex.split(called[1].replace("…", ""), comments=True)


def fault(words: list[str]) -> str:
    """Return what the program would say against these words; empty if it would take them."""
    if words[0] == "make":
        return _make_fault(words[1:])
    command: Any = whole_program()
    rest = words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    if not rest or rest[0] in ("--help", "COMMAND"):
        return ""
    if hasattr(command, "commands"):
        return f"no command {rest[0]}"
    try:
        command.make_context(command.name, [word for word in rest if word != "--help"])
    except typer.TyperException as error:
        missing = "Missing argument" in str(error)
        return "" if missing and all(word.startswith("-") for word in rest) else str(error)
    return ""


def _make_fault(words: list[str]) -> str:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"\$\(?(?:\w+ )?\(?([A-Z]{3,})\b", makefile)) | {"PYTHON"}
    unknown = [word for word in words if word.partition("=")[0] not in targets | variables]
    return f"no target or variable {unknown}" if unknown else ""


@by_page
def test_every_command_of_the_documentation_is_one_the_program_takes(page: Path) -> None:
    faults = {" ".join(words): fault(words) for words in command_lines(page)}
    assert {line: found for line, found in faults.items() if found} == {}


def test_the_documentation_does_show_commands() -> None:
    shown = {" ".join(words[:2]) for page in PAGES for words in command_lines(page)}
    assert {"daylily-daemon submit", "daylily-daemon dlq", "make demo", "make test"} <= shown


@pytest.mark.parametrize(
    "line",
    ["daylily-daemon start", "daylily-daemon list --all", "daylily-daemon dlq purge", "make tests"],
)
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    assert fault(line.split())


# Settings, log events, permissions, dependencies


@by_page
def test_every_setting_of_the_documentation_exists(page: Path) -> None:
    mentioned = {key for code in CODE.findall(prose(page)) for key in SETTING.findall(code)}
    ours = {
        key
        for key in mentioned
        if key.partition(".")[0] in SECTIONS and key.rpartition(".")[2] not in FILE_ENDINGS
    }
    assert ours - LEAVES.keys() - SECTIONS == set()


@cache
def sources() -> str:
    return "".join(text_of(path) for path in sorted(PACKAGE.rglob("*.py")))


def test_every_log_event_of_the_documentation_is_logged() -> None:
    rows = re.findall(
        r"^\| (`.+?) \|", section("operations.md", "| event in the log"), re.MULTILINE
    )
    names = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(names) > 10
    logged = set(re.findall(r'\.(?:info|warning|error|exception)\(\s*"(\w+)"', sources()))
    assert names - logged == set()


def section(page: str, beginning: str) -> str:
    """Return a table: from the line that begins so to the next blank line."""
    text = text_of(ROOT / "docs" / page if page != "README.md" else ROOT / page)
    return text[text.index(beginning) :].split("\n\n", 1)[0]


ACTIONS: Final = {
    "batch_get_item": ("dynamodb:BatchGetItem",),
    "transact_write_items": ("dynamodb:PutItem", "dynamodb:UpdateItem"),
    "head_object": ("s3:GetObject",),
    "list_objects_v2": ("s3:ListBucket",),
    "list_multipart_uploads": ("s3:ListBucketMultipartUploads",),
    "list_parts": ("s3:ListMultipartUploadParts",),
    "create_multipart_upload": ("s3:PutObject",),
    "upload_part": ("s3:PutObject",),
    "copy_object": ("s3:GetObject", "s3:PutObject"),
    "upload_part_copy": ("s3:GetObject", "s3:PutObject"),
    "complete_multipart_upload": ("s3:PutObject",),
    "delete_message_batch": ("sqs:DeleteMessage",),
    "change_message_visibility_batch": ("sqs:ChangeMessageVisibility",),
    "send_message_batch": ("sqs:SendMessage",),
}
"""Calls whose permission has another name than the call itself."""
CALL: Final = re.compile(r"\b_?client\.([a-z][a-z0-9_]+)")
NO_CALLS: Final = {"meta"}
LOOKS: Final = {"get_queue_url", "get_queue_attributes", "list_topics"}
"""What the daemon and ``status`` ask of queues and topics, by way of ``provision.py``."""


def test_the_policy_allows_every_call_of_the_daemon() -> None:
    policies = [json.loads(block) for kind, block in operations_blocks() if kind == "json"]
    actions = {
        action
        for statement in policies[0]["Statement"]
        for action in (
            [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        )
    }
    names = {action.partition(":")[2] for action in actions}
    adapters = [p for p in (PACKAGE / "adapters").rglob("*.py") if p.name != "provision.py"]
    calls = LOOKS | {call for path in adapters for call in CALL.findall(text_of(path))}
    assert len(calls) > 20
    for call in sorted(calls - NO_CALLS):
        if call in ACTIONS:
            assert set(ACTIONS[call]) <= actions
        else:
            assert call.title().replace("_", "") in names


def operations_blocks() -> list[tuple[str, str]]:
    return FENCE.findall(text_of(ROOT / "docs" / "operations.md"))


def test_the_table_of_dependencies_names_exactly_those_there_are() -> None:
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    groups = {"run": project["dependencies"], **project["optional-dependencies"]}
    wanted = {
        (re.split(r"[\[<>=~!; ]", requirement)[0], group)
        for group, requirements in groups.items()
        for requirement in requirements
    }
    rows = re.findall(r"^\| `(.+?)` \| (\w+) \| \S.+ \|$", section("README.md", "| package"), re.M)
    assert sorted(rows) == sorted(wanted)


# Refusals


def static_parts(path: Path) -> set[str]:
    """Return the fixed pieces of the sentences in a module that tell people what to do.

    These are texts that end as a sentence; docstrings and texts of a class of errors are none.
    """
    found: set[str] = set()
    tree = ast.parse(text_of(path))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value.strip()
            if (
                id(node) not in docstrings
                and (text.endswith(".") or text[:1].isupper())
                and text.count(" ") > 1
            ):
                found.add(" ".join(text.split()))
    return found


@pytest.mark.parametrize(
    "module",
    [
        *("domain/document", "domain/recipe", "domain/sheet", "domain/table", "domain/paths"),
        *("domain/lookalikes", "domain/fit", "adapters/inputs"),
    ],
)
def test_every_refusal_of_input_is_documented(module: str) -> None:
    page = " ".join(text_of(ROOT / "docs" / "input.md").split())
    parts = static_parts(PACKAGE / f"{module}.py")
    assert len(parts) > 1
    assert {part for part in parts if part not in page} == set()
