"""What the daemon makes of its own process: tried in processes of the tests' own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from daylily_daemon.adapters.own_process import MOST_FILES, open_files_wanted
from tests.arch.repository import ROOT

SECRET = "hush-1f3a"
NOT_ROOT = """
import os
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
import ctypes
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as after an exec
"""


def python(code: str, *, before: str = "", **environment: str) -> str:
    """Run a piece of Python as a program that imports own_process; return what it prints."""
    head = "import os, subprocess, sys\nfrom daylily_daemon.adapters import own_process\n"
    argv = [sys.executable, "-c", head + code]
    if before:
        argv = ["sh", "-c", f'{before}; exec "$@"', "sh", *argv]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        argv, env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_files_of_the_process_are_closed_to_its_own_user() -> None:
    code = f"""{NOT_ROOT}
open("/proc/self/environ").read()
own_process.first_of_all()
for name in ("environ", "mem"):
    try:
        open(f"/proc/self/{{name}}").read(1)
    except PermissionError:
        print(name)
print(open("/proc/self/stat").read().split()[0] == str(os.getpid()))
"""
    assert python(code).split() == ["environ", "mem", "True"]


def test_what_it_starts_is_as_open_as_ever() -> None:
    code = f"""{NOT_ROOT}
own_process.first_of_all()
print(subprocess.run(["cat", "/proc/self/environ"], capture_output=True).returncode)
"""
    assert python(code).split() == ["0"]


def test_signals_wait_until_they_are_obeyed() -> None:
    code = """
import signal
own_process.first_of_all()
for number in own_process.OBEYED:
    os.kill(os.getpid(), number)
print("alive", sorted(signal.sigpending()) == sorted(own_process.OBEYED))
for number in own_process.OBEYED:
    signal.signal(number, lambda number, frame: print(signal.Signals(number).name))
own_process.obey_again()
print(os.popen("grep SigBlk /proc/self/status").read().split()[-1])
"""
    told = python(code).split()
    assert told[:2] == ["alive", "True"]
    assert set(told[2:-1]) == {"SIGTERM", "SIGINT", "SIGHUP"}
    assert int(told[-1], 16) == 0


TAKE = """
first = os.getpid()
found = own_process.secrets_out_of(["LAB_KEY", "LAB_OTHER", "LAB_EMPTY"])
environ = open("/proc/self/environ").read()
print(found, "hush" in environ, sorted(n for n in os.environ if n.startswith(("LAB_", "DAYLILY_"))))
print(sys.argv[1:], len(os.listdir("/proc/self/fd")))
"""


def test_secrets_leave_the_environment_and_are_found_all_the_same() -> None:
    told, rest = python(TAKE, LAB_KEY=SECRET, LAB_EMPTY="", LAB_PLAIN="x").splitlines()
    assert told == f"{{'LAB_KEY': '{SECRET}'}} False ['LAB_EMPTY', 'LAB_PLAIN']"
    without = python(TAKE, LAB_EMPTY="", LAB_PLAIN="x").splitlines()
    assert without[0] == "{} False ['LAB_EMPTY', 'LAB_PLAIN']"
    assert rest == without[1], "a descriptor was left open"


def test_the_program_begins_again_as_it_was_started() -> None:
    """As ``python -m`` with arguments that a shell would take apart, in the same process."""
    argv = ("sh", "-c", 'echo $$; exec "$@"', "sh", sys.executable, "-P", "-c")
    code = "import os, sys; print(sys.argv[1:], sys.flags.safe_path, os.getpid())"
    head = "from daylily_daemon.adapters import own_process as o; o.secrets_out_of(['LAB_KEY']); "
    done = subprocess.run(
        (*argv, head + code, "a b", "$HOME", "*"),
        env={**os.environ, "PYTHONPATH": str(ROOT), "LAB_KEY": SECRET},
        capture_output=True,
        text=True,
        check=True,
    )
    pid, told = done.stdout.splitlines()
    assert told == f"['a b', '$HOME', '*'] True {pid}"


@pytest.mark.parametrize("fd", ["0", "1", "99", "-1", "x", "9" * 30])
def test_a_variable_that_somebody_else_set_is_no_handing_over(fd: str) -> None:
    told = python(TAKE, DAYLILY_SECRETS_FD=fd).splitlines()
    assert told[0] == "{} False []"


@pytest.mark.parametrize(
    ("given", "expected"),
    [("-Sn 100 && ulimit -Hn 300", 300), ("-Sn 100 && ulimit -Hn 400", 400), ("-n 64", 64)],
)
def test_open_files_are_raised_to_what_is_allowed(given: str, expected: int) -> None:
    code = "import resource; print(own_process.raise_open_files(), *resource.getrlimit(7))"
    assert python(code, before=f"ulimit {given}").split() == [str(expected)] * 3


NO_LIMIT = resource.RLIM_INFINITY


@pytest.mark.reported("G", "a loop over a billion possible files (k0s#3436, containerd#7566)")
@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        (1024, 4096, 4096),
        (1024, 524_288, MOST_FILES),
        (1024, NO_LIMIT, MOST_FILES),
        (200_000, 524_288, 200_000),
        (NO_LIMIT, NO_LIMIT, NO_LIMIT),
    ],
)
def test_open_files_are_raised_with_measure_and_never_lowered(
    soft: int, hard: int, expected: int
) -> None:
    """Programs that close every possible file would take minutes with a limit of millions."""
    assert open_files_wanted(soft, hard) == expected
