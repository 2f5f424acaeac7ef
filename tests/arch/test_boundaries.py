"""Kinds of mistakes that may not be made again: groups that slip through, unguarded ports, blocked loops."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.arch.repository import ROOT, python_files

PACKAGE = ROOT / "daylily_daemon"
JOBS_OWN = ("transfer", "staging.py", "reports.py", "fastq.py", "localdrop.py")
"""What runs in the process of a step or a command, whose loop holds up nobody else."""
KERNEL_ONLY = ("procfs.py", "shim.py", "headnode.py")
"""They look into /proc, which is no disk, and once for a name on the system's own disk; the rest of the
shim runs in a process of its own."""
FILE_METHODS = frozenset(
    {
        *("read_text", "read_bytes", "write_text", "write_bytes", "exists", "is_file", "is_dir"),
        *(
            "mkdir",
            "unlink",
            "iterdir",
            "rglob",
            "glob",
            "stat",
            "lstat",
            "touch",
            "rmdir",
            "resolve",
        ),
    }
)
FILE_FUNCTIONS = frozenset(
    {
        *("stat", "lstat", "statvfs", "listdir", "scandir", "open", "link", "unlink", "rename"),
        *("replace", "makedirs", "mkdir", "rmdir", "walk", "access", "fsync", "readlink"),
    }
)


def _modules(*folders: str) -> Iterator[Path]:
    for path in python_files():
        if path.is_relative_to(PACKAGE) and path.relative_to(PACKAGE).parts[0] in folders:
            yield path


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _calls(node: ast.AST, name: str) -> bool:
    """Tell whether ``node`` itself, not a function inside it, calls ``name``."""
    return any(isinstance(n, ast.Call) and _name_of(n.func).endswith(name) for n in _own(node))


def _own(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _own(child)


def _name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_errors_that_leave_a_task_group_are_handled_as_a_group() -> None:
    """``except X`` lets an ExceptionGroup of X pass: a boundary unwraps it, or ``except*`` handles it."""
    wrong = []
    for path in _modules("engine", "adapters", "application", "composition"):
        for node in ast.walk(_parsed(path)):
            if not isinstance(node, ast.Try) or not node.handlers:
                continue
            body = ast.Module(body=node.body, type_ignores=[])
            if _calls(body, "create_task_group") and not (
                _calls(body, "foreign_as_unexpected") or _unwraps(node)
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert wrong == []


def _unwraps(node: ast.Try) -> bool:
    return all(_calls(ast.Module(h.body, []), "leaf") for h in node.handlers)


def test_every_port_of_the_daemon_is_guarded() -> None:
    """Whatever the engine is given: no foreign exception leaves it, and its health is known."""
    tree = _parsed(PACKAGE / "bootstrap.py")
    guarded = {
        ast.literal_eval(call.args[1])
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and _name_of(call.func) == "guarded"
        and isinstance(call.args[1], ast.Constant)
    }
    assert guarded == {
        *("worksets", "turns", "trail", "intake", "commands", "inputs", "drops", "runner"),
        *("registry", "levels", "catalogue", "cloudwatch"),
    }
    unguarded = [
        f"{call.lineno}: {_name_of(call.func)}({word.arg}=...)"
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and _name_of(call.func) in ("Supervisor", "Writer", "Intake")
        for word in call.keywords
        if word.arg in GIVEN_GUARDED and not _is_guarded(word.value)
    ]
    assert unguarded == []


GIVEN_GUARDED = {"worksets", "turns", "trail", "events", "commands", "inputs", "drops", "notifiers"}
"""Arguments of the engine's parts that are ports."""


def _is_guarded(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return _name_of(value.func) == "guarded"
    return _name_of(value) == "inner.trail"  # guarded where it was made


@dataclass
class _Function:
    where: str
    node: ast.FunctionDef | ast.AsyncFunctionDef
    calls: set[str] = field(default_factory=set)
    touches: list[int] = field(default_factory=list)


def _functions(path: Path) -> dict[str, _Function]:
    """Return the functions of a module by ``module.name`` or ``module.Class.name``, with whom they call."""
    tree = _parsed(path)
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    imported = _imported(tree)
    found: dict[str, _Function] = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                visit(child, f"{module}.{child.name}")
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                found[f"{prefix}.{child.name}"] = _described(child, path, prefix, module, imported)

    visit(tree, module)
    return found


def _imported(tree: ast.Module) -> dict[str, str]:
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def _described(
    node: ast.FunctionDef | ast.AsyncFunctionDef,
    path: Path,
    prefix: str,
    module: str,
    imported: dict[str, str],
) -> _Function:
    described = _Function(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node)
    for call in (n for n in _own(node) if isinstance(n, ast.Call)):
        name = _name_of(call.func)
        if name.startswith("self."):
            described.calls.add(f"{prefix}.{name.removeprefix('self.')}")
        head, _, rest = name.partition(".")
        target = imported.get(head, f"{module}.{head}")
        described.calls.add(f"{target}.{rest}" if rest else target)
        if _touches_files(name):
            described.touches.append(call.lineno)
    return described


def _touches_files(name: str) -> bool:
    head, _, last = name.rpartition(".")
    if name == "open" or (head == "os" and last in FILE_FUNCTIONS) or head == "shutil":
        return True
    if head.startswith("os.path"):
        return last in ("exists", "isdir", "isfile", "realpath", "getsize", "ismount", "islink")
    return last in FILE_METHODS and head not in ("", "structlog", "anyio.Path")


def test_no_file_system_call_is_made_on_the_loop_of_the_daemon() -> None:
    """A stat on a stalled mount never returns: such calls go to threads that nobody waits for too long."""
    functions: dict[str, _Function] = {}
    for path in [*_modules("engine", "adapters"), PACKAGE / "composition" / "service.py"]:
        if not any(part in (*JOBS_OWN, *KERNEL_ONLY) for part in path.parts):
            functions.update(_functions(path))
    blocking = {name for name, f in functions.items() if f.touches and not _is_async(f)}
    while True:
        more = {n for n, f in functions.items() if not _is_async(f) and f.calls & blocking}
        if more <= blocking:
            break
        blocking |= more
    wrong = [
        f"{function.where} calls {sorted(function.calls & blocking) or function.touches}"
        for function in functions.values()
        if _is_async(function) and (function.touches or function.calls & blocking)
    ]
    assert sorted(wrong) == []


def test_a_thread_of_the_daemon_is_waited_for_no_longer_than_a_limit() -> None:
    """File-system calls go through ``Disk``. Other threads are for work of the CPU, which ends by itself."""
    wrong = []
    for path in [*_modules("engine", "adapters"), PACKAGE / "composition" / "service.py"]:
        if any(part in (*JOBS_OWN, "exporting.py", "logs.py") for part in path.parts):
            continue
        for call in (n for n in ast.walk(_parsed(path)) if isinstance(n, ast.Call)):
            name, words = _name_of(call.func), {w.arg: ast.unparse(w.value) for w in call.keywords}
            bounded = words.get("abandon_on_cancel") == "True" or "_parse_limit" in words.get(
                "limiter", ""
            )
            if name.endswith("run_sync") and "from_thread" not in name and not bounded:
                wrong.append(f"{path.relative_to(ROOT)}:{call.lineno}")
    assert wrong == []


def _is_async(function: _Function) -> bool:
    return isinstance(function.node, ast.AsyncFunctionDef)
