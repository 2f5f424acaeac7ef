"""Tests that a user other than root cannot run are left out and listed; in CI nothing else is.

``@pytest.mark.needs_root`` says so with its reason. Under CI=true a skip of any kind is a failure: there a
tool that is missing must not turn tests off in silence.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from typing import Any, Final, TypeVar

import pytest

R = TypeVar("R", pytest.TestReport, pytest.CollectReport)

NEEDS_ROOT: Final = "needs_root"
_LEFT_OUT: Final = pytest.StashKey[list[str]]()
_KEY: Final = "left_out"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LEFT_OUT] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    out = [item for item in items if item.get_closest_marker(NEEDS_ROOT)]
    config.stash[_LEFT_OUT] = [item.nodeid for item in out]
    if out:
        items[:] = [item for item in items if item not in out]
        config.hook.pytest_deselected(items=out)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand on what this worker of xdist left out; each of them leaves out the same."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_KEY] = session.config.stash[_LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get(_KEY, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    out = config.stash[_LEFT_OUT]
    if out:
        terminalreporter.section(f"left out because they need root: {len(out)} tests")
        for file, count in Counter(nodeid.partition("::")[0] for nodeid in out).items():
            terminalreporter.write_line(f"{file}: {count}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _unless_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _unless_ci((yield))


def _unless_ci(report: R) -> R:
    """Let a test be skipped; in CI make a failure of it."""
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"It was skipped, which nothing may be in CI: {report.longrepr}"
    return report
