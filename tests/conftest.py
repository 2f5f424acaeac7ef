"""What all tests share: an environment that cannot reach AWS, emulators, folders."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import configuration, settings

from tests import emulators, left_out, spread

# The same examples in every run, and no deadline on a busy machine; --hypothesis-profile overrides.
settings.load_profile("ci")
_examples = TemporaryDirectory(prefix="hypothesis-")
configuration.set_hypothesis_home_dir(_examples.name)  # the checkout may be for reading only

CLEARED = (
    "AWS_",
    "COGNITO_",
    "DAYLILY_",
    "LINEAR_",
    "S3_",
    "SLACK_",
    "SNS_",
    "WORKSET_",
    "XDG_",
)
# A tmux around the tests, or the systemd that started them, must not be seen by the daemon; and what somebody
# tells Python (that it shall not buffer, say) a service is not told.
CLEARED_EXACTLY = (
    *("INVOCATION_ID", "JOURNAL_STREAM", "NOTIFY_SOCKET", "TMUX", "WATCHDOG_USEC"),
    *("PYTHONDEVMODE", "PYTHONINSPECT", "PYTHONIOENCODING", "PYTHONOPTIMIZE"),
    *("PYTHONUNBUFFERED", "PYTHONUTF8", "PYTHONWARNINGS"),
)
NOBODY_LISTENS = "http://127.0.0.1:9"


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(left_out)
    _take_signals_as_they_are_at_a_terminal()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Stories share nothing but code, so they may be played by whichever process is free."""
    return spread.ByFileOrStory(config, log) if config.getvalue("dist") == "loadfile" else None


def _take_signals_as_they_are_at_a_terminal() -> None:
    """Undo what ``nohup``, the ``&`` of a script or a CI runner ignores or blocks: children inherit that."""
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # Python's own
        if signal.getsignal(number) is signal.SIG_IGN:
            ours = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, ours)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _hermetic(outside: Mapping[str, str], home: Path) -> dict[str, str]:
    """AWS speaks HTTPS only: a proxy that does not exist keeps even a wrong endpoint from it."""
    kept = {
        name: value
        for name, value in outside.items()
        if not name.startswith(CLEARED) and name not in CLEARED_EXACTLY
    }
    return kept | {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(home),
        "HTTPS_PROXY": NOBODY_LISTENS,
        "https_proxy": NOBODY_LISTENS,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


@pytest.fixture(scope="session", autouse=True)
def outside_environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """Put every test into an environment of its own kind; return the one outside."""
    outside = dict(os.environ)
    inside = _hermetic(outside, tmp_path_factory.mktemp("home"))
    os.environ.clear()
    os.environ.update(inside)
    yield outside
    os.environ.clear()
    os.environ.update(outside)


@pytest.fixture(scope="session")
def moto_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with emulators.running(emulators.moto, tmp_path_factory.mktemp("moto")) as url:
        yield url


@pytest.fixture(scope="session")
def snakemake(outside_environ: Mapping[str, str]) -> Path:
    """The program, a real one in an environment of its own."""
    return emulators.prepare_snakemake(outside_environ)


@pytest.fixture(scope="session")
def ministack_url(
    outside_environ: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    emulators.prepare_ministack(outside_environ)
    with emulators.running(emulators.ministack, tmp_path_factory.mktemp("ministack")) as url:
        yield url


@pytest.fixture(scope="session")
def guarded_url(
    outside_environ: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """ministack that enforces IAM."""
    emulators.prepare_ministack(outside_environ)

    def with_iam(port: int) -> emulators.Launch:
        launch = emulators.ministack(port)
        return replace(launch, environ={**launch.environ, "AUTH": "true"})

    with emulators.running(with_iam, tmp_path_factory.mktemp("guarded")) as url:
        yield url


@pytest.fixture(scope="session")
def dynamodb_local_url(
    outside_environ: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    emulators.prepare_dynamodb_local(outside_environ)
    scratch = tmp_path_factory.mktemp("dynamodb_local")
    with emulators.running(emulators.dynamodb_local, scratch) as url:
        yield url


@pytest.fixture
def tmp_state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with a short path: the socket of tmux inside must stay below 108 bytes."""
    return tmp_path_factory.mktemp("state")
