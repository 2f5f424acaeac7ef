"""The tests hold wherever somebody runs them: another time zone, locale or folder, other variables, no git.

Each case runs those of the tests that could mind in a process of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.arch.repository import ROOT
from tests.wheels import export

PRINTED = (
    *("tests/unit/test_layout.py", "tests/unit/test_asking.py", "tests/unit/test_explain.py"),
    *("tests/unit/test_printing.py", "-k", "not room and not streams"),  # these take seconds
)
TIMED = ("tests/unit/test_notice.py", "tests/unit/test_health.py", "tests/unit/test_envelopes.py")
FILED = ("tests/unit/test_input_places.py", "tests/unit/test_collecting.py")
STARTED = ("tests/unit/test_shim.py",)
AWS = ("tests/arch/test_hermetic.py", "tests/unit/test_profile_region.py")
CTRL_C = "tests/e2e/test_cli.py::test_ctrl_c_while_waiting_leaves_the_workset_alone"
EMULATED = "tests/contract/test_s3.py::test_what_was_put_is_found_read_listed_and_deleted"
UMASKED = "tests/contract/test_detached_jobs.py::test_the_directory_of_a_job_is_private"
pytestmark = pytest.mark.timeout(300)
SIGNALS = "trap '' HUP INT QUIT TERM CHLD USR1"


def tried(
    *tests: str, shell: str = "true", cwd: Path = ROOT, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``tests`` after the commands of ``shell``, with these variables besides."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    pytest_ = (sys.executable, "-B", "-m", "pytest", "-n", "0", "-p", "no:randomly", *tests)
    return subprocess.run(
        ("sh", "-c", f'{shell}; exec "$@"', "sh", *pytest_),
        cwd=cwd,
        env=inherited | dict(environ or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def passed(done: subprocess.CompletedProcess[str]) -> bool:
    """Tell whether tests ran and none failed; show what they said if not."""
    good = done.returncode == 0 and " passed" in done.stdout
    assert good, done.stdout[-4000:] + done.stderr
    return good


@pytest.mark.reported("F", "tests that pass in UTC alone (cht-core#6504, find-my-patterns#125)")
@pytest.mark.reported("F", "an offset from UTC that is no whole hour (ace#4037)")
@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "America/St_Johns", "Pacific/Kiritimati"])
def test_in_any_time_zone(zone: str) -> None:
    assert passed(tried(*TIMED, environ={"TZ": zone}))


@pytest.mark.reported("F", "tests that fail when LC_ALL is C (lttng-analyses#56, sphinx#875)")
def test_in_the_locale_that_has_no_characters() -> None:
    assert passed(tried(*PRINTED, *FILED, environ={"LC_ALL": "C", "LANG": "C"}))


@pytest.mark.reported("F", "tests that assume the umask 022 (rubygems#3538, genie#2963)")
@pytest.mark.parametrize("mask", ["077", "000"])
def test_with_any_umask(mask: str) -> None:
    assert passed(tried(UMASKED, "tests/unit/test_localdrop.py", shell=f"umask {mask}"))


@pytest.mark.reported("F", "tests that need HOME (yamllint#605, stack#408)")
@pytest.mark.parametrize("shell", ["unset HOME", "export HOME=/nonexistent"])
def test_without_a_home(shell: str) -> None:
    tests = (*AWS, "tests/unit/test_settings.py")
    assert passed(tried(*tests, shell=shell))


@pytest.mark.reported("F", "AWS_PROFILE of the developer (aws-iot-device-sdk-js#283)")
@pytest.mark.reported("F", "AWS_DEFAULT_PROFILE of the developer (aws-sdk-cpp#1165, chalice#208)")
@pytest.mark.reported(
    "F", "a profile whose file the tests take away (sample-voice-of-customer-datalake#393)"
)
def test_with_the_aws_variables_of_somebody() -> None:
    mine = {
        "AWS_PROFILE": "mine",
        "AWS_DEFAULT_PROFILE": "mine",
        "AWS_CONFIG_FILE": "/nonexistent/config",
        "AWS_CA_BUNDLE": "/nonexistent/bundle",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_REGION": "eu-north-1",
        "S3_BUCKET": "mine",
        "DAYLILY_DAEMON__SWEEP_S": "never",
    }
    assert passed(tried(*AWS, "tests/unit/test_settings.py", environ=mine))


@pytest.mark.reported("F", "tests that fail where a proxy is set (prometheus#3585, http-proxy#8)")
def test_behind_a_proxy() -> None:
    nobody = "http://127.0.0.1:9"
    names = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy")
    proxies = dict.fromkeys(names, nobody) | {"NO_PROXY": "", "no_proxy": ""}
    assert passed(tried(EMULATED, environ=proxies))


@pytest.mark.reported("F", "tests that depend on the order of a set (apptools#49, werkzeug#234)")
@pytest.mark.parametrize("seed", ["1", "4711"])
def test_with_any_hash_seed(seed: str) -> None:
    tests = ("tests/unit/test_admission.py", "tests/unit/test_codec.py")
    assert passed(tried(*tests, environ={"PYTHONHASHSEED": seed}))


@pytest.mark.reported(
    "F", "a narrow terminal breaks the line that is looked for (immich-video-memory-generator#880)"
)
@pytest.mark.reported("F", "tests that fail from 97 columns on (spack#51675)")
@pytest.mark.parametrize("columns", ["12", "300"])
def test_on_any_terminal(columns: str) -> None:
    terminal = {"COLUMNS": columns, "LINES": "3", "FORCE_COLOR": "1", "TERM": "dumb"}
    assert passed(tried(*PRINTED, environ=terminal))


@pytest.mark.reported(
    "F", "signals ignored by nohup or a background shell (cpython#154168, incus#2034)"
)
def test_where_the_shell_ignores_signals() -> None:
    assert passed(tried(CTRL_C, shell=SIGNALS))


@pytest.mark.reported("F", "a folder with a space in its name (todo.txt-cli#275, libsodium#230)")
@pytest.mark.reported("F", "an unpacked archive without .git (gitu#469, git-sizer#51)")
@pytest.mark.reported("F", "tests that write into their own folder (jsoncpp#1515, zlib-ng#1232)")
def test_in_an_unpacked_copy_that_stays_as_it_was(tmp_path: Path) -> None:
    copy, scratch = export(tmp_path / "a copy (1)"), tmp_path / "my scratch"
    scratch.mkdir()
    before = sorted(copy.rglob("*"))
    architecture = ("tests/arch/test_layers.py", "tests/arch/test_settings_documented.py")
    done = tried(*FILED, *STARTED, *architecture, cwd=copy, environ={"TMPDIR": str(scratch)})
    assert passed(done)
    assert sorted(copy.rglob("*")) == before


def test_with_the_python_variables_of_somebody() -> None:
    mine = {"PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore", "PYTHONIOENCODING": "latin-1"}
    assert passed(tried("tests/arch/test_hermetic.py", *PRINTED, environ=mine))
    refused = tried(*TIMED, environ={"PYTHONOPTIMIZE": "1"})
    assert "assert statements are not executed" in refused.stderr
    assert refused.returncode != 0


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "async def test_it(): assert False\n",
            marks=pytest.mark.reported(
                "F", "an async test that is never run (pytest#4814, open-ace#1448)"
            ),
        ),
        pytest.param(
            "def test_it(): return False\n",
            marks=pytest.mark.reported(
                "F", "a test that returns what it should assert (pytest#7337)"
            ),
        ),
        "async def look(): assert False\n\ndef test_it(): look()\n",
        "import pytest\n\n@pytest.mark.parametrise('a', [1])\ndef test_it(): pass\n",
        "def test_it(): assert (1 == 2, 'two')\n",
        "def test_them(): pass\n\n@__import__('pytest').fixture\ndef broken(): raise OSError\n"
        "def test_it(broken): pass\n",
    ],
)
def test_a_test_that_could_not_fail_fails(tmp_path: Path, text: str) -> None:
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.py").write_text(text)
    done = tried("tests/test_x.py", cwd=tmp_path, environ={"PYTHONPATH": str(ROOT)})
    assert done.returncode != 0, done.stdout


@pytest.mark.reported("F", "a run in which no test was found counts as good (cognitive-core#273)")
def test_a_run_without_a_test_is_no_success(tmp_path: Path) -> None:
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    (tmp_path / "tests").mkdir()
    assert tried("tests", cwd=tmp_path).returncode != 0
