"""The emulators themselves: reachable from this machine only, and gone when the tests are."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from tests import emulators

LISTENING = "0A"
IPV4_LOOPBACK = "0100007F"
HOLD_MOTO = """
import pathlib, signal, sys
from tests import emulators
with emulators.running(emulators.moto, pathlib.Path(sys.argv[1])) as url:
    sys.stdout.write(url + chr(10))
    sys.stdout.flush()
    signal.pause()
"""


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def _listeners() -> dict[str, tuple[str, int]]:
    """Return address (as the kernel writes it) and port by socket inode."""
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for row in Path(table).read_text().splitlines()[1:]:
            fields = row.split()
            address, port = fields[1].split(":")
            if fields[3] == LISTENING:
                found[fields[9]] = (address, int(port, 16))
    return found


def _sockets(process: Path) -> set[str]:
    try:
        links = [str(link.readlink()) for link in (process / "fd").iterdir()]
    except (FileNotFoundError, PermissionError):
        return set()
    return {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}


def _all_addresses_of_the_server_on(port: int) -> set[str]:
    listeners = _listeners()
    (inode,) = [inode for inode, (_, at) in listeners.items() if at == port]
    for process in Path("/proc").glob("[0-9]*"):
        sockets = _sockets(process)
        if inode in sockets:
            return {listeners[own][0] for own in sockets & listeners.keys()}
    raise AssertionError(f"no process listens on port {port}")


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@retry(retry=retry_if_result(bool), stop=stop_after_delay(10), wait=wait_fixed(0.02))
def _still_answers(port: int) -> bool:
    return _answers(port)


@pytest.mark.parametrize("emulator", ["moto_url", "ministack_url", "dynamodb_local_url"])
def test_an_emulator_listens_on_loopback_only(
    emulator: str, request: pytest.FixtureRequest
) -> None:
    url: str = request.getfixturevalue(emulator)
    assert _all_addresses_of_the_server_on(_port(url)) == {IPV4_LOOPBACK}


def test_an_emulator_is_gone_after_its_context(tmp_path: Path) -> None:
    with emulators.running(emulators.moto, tmp_path) as url:
        assert _answers(_port(url))
    assert not _answers(_port(url))


def test_an_emulator_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    argv = (sys.executable, "-c", HOLD_MOTO, str(tmp_path))
    with subprocess.Popen(argv, cwd=emulators.ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        port = _port(holder.stdout.readline().strip())
        holder.send_signal(signal.SIGKILL)
    assert not _still_answers(port)


def test_an_emulator_that_ends_at_once_is_reported_with_its_log(tmp_path: Path) -> None:
    def broken(port: int) -> emulators.Launch:
        return emulators.Launch(name="broken", argv=("sh", "-c", f"echo {port} is taken; exit 3"))

    with (
        pytest.raises(emulators.EmulatorError, match=r"exit code 3(.|\n)*is taken"),
        emulators.running(broken, tmp_path),
    ):
        pass


@pytest.mark.reported("F", "a port that two test processes found free (phoenix#12131)")
@pytest.mark.reported("F", "tests that talk to somebody else's server (mcp python-sdk#1528)")
def test_a_port_that_somebody_else_took_meanwhile_is_left_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = emulators.free_port
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        taken = somebody.getsockname()[1]
        ports = iter((taken, free()))
        monkeypatch.setattr(emulators, "free_port", lambda: next(ports))
        with emulators.running(emulators.moto, tmp_path) as url:
            assert _port(url) != taken
            assert b"ListAllMyBucketsResult" in _http(url, "GET", "/")


def test_moto_is_empty_after_a_reset(tmp_path: Path) -> None:
    with emulators.running(emulators.moto, tmp_path) as url:
        _http(url, "PUT", "/a-bucket")
        assert b"a-bucket" in _http(url, "GET", "/")
        emulators.reset_moto(url)
        assert b"a-bucket" not in _http(url, "GET", "/")


def _http(url: str, method: str, path: str) -> bytes:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request(method, path)
        return connection.getresponse().read()
    finally:
        connection.close()
